"""Requests on the disk before they go to the monolith, so that a worker's death loses none.

A thread writes what has come together since its last sync, and syncs once for all of it: no timer.
When a request's capture has been shipped, its id is added to the list of those that are done, which
is not synced: a death of the machine may make a request appear once more than it was.

Segment `<worker>.<n>.ahead` holds records of an id (u64 LE) and a MessagePack capture whose number
is that id; `<worker>.<n>.done` beside it ids. Both go once every id is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import queue
import struct
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from bridge.limits import (
    AHEAD_BYTES_MAX,
    AHEAD_SEGMENT_BYTES,
    AHEAD_WAITING_BYTES_MAX,
    DISK_S,
)
from bridge.proxy.capture import record
from bridge.proxy.capture.home import Home

SUFFIX, DONE_SUFFIX = ".ahead", ".done"
MAGIC = b"RwA\n"
_ID = struct.Struct("<Q")

_log = logging.getLogger(__name__)


def frame(id_: int, capture: bytes) -> bytes:
    """As `append` wants them."""
    return record.encode(MAGIC, _ID.pack(id_), capture)


def unpack_ids(ids: bytes) -> tuple[int, ...]:
    whole = len(ids) - len(ids) % _ID.size
    return tuple(id_ for (id_,) in _ID.iter_unpack(ids[:whole]))


class _Append(NamedTuple):
    framed: bytes
    ids: Sequence[int]
    settled: Callable[[bool], None]


class _Segment:
    """Belongs to the thread."""

    def __init__(self, home: Home, number: int, first_id: int) -> None:
        """Raises OSError."""
        self.first_id = first_id
        self.open: set[int] = set()  # ids that are not done
        self.size = 0
        self._paths = (home.segment(number, SUFFIX), home.segment(number, DONE_SUFFIX))
        self._fds: list[int] = []
        try:
            for path in self._paths:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
                self._fds.append(os.open(path, flags, 0o600))
            _sync_directory(home)
        except OSError:
            self.remove()
            raise

    @property
    def is_full(self) -> bool:
        return self.size >= AHEAD_SEGMENT_BYTES

    def append(self, data: bytes) -> None:
        """Durable when it returns. Raises OSError; then nothing of it is there."""
        try:
            record.write(self._fds[0], data)
            os.fdatasync(self._fds[0])
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fds[0], self.size)
            raise
        self.size += len(data)

    def done(self, ids: Sequence[int]) -> None:
        self.open.difference_update(ids)
        with contextlib.suppress(OSError):  # then they are sent once more after a kill
            record.write(self._fds[1], b"".join(map(_ID.pack, ids)))

    def remove(self) -> None:
        self.close()
        for path in self._paths:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())


class AheadLog:
    def __init__(self, home: Home, *, bytes_max: int = AHEAD_BYTES_MAX) -> None:
        self.failed = 0  # records that could not be made durable
        self._home = home
        self._bytes_max = bytes_max
        self._loop = asyncio.get_running_loop()
        self._queue: queue.SimpleQueue[_Append | bytes | None] = queue.SimpleQueue()
        self._waiting_bytes = 0
        self._segments: list[_Segment] = []  # the thread's; the last one is written
        self._next = 1
        self._is_failing = False
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="ahead", daemon=True)
        self._thread.start()

    def append(self, framed: bytes, ids: Sequence[int], settled: Callable[[bool], None]) -> None:
        """Records as `frame` makes them, their ids growing from call to call. `settled` is called
        on the event loop: True, they are durable; False, they never will be, and are counted.
        """
        if self._waiting_bytes + len(framed) > AHEAD_WAITING_BYTES_MAX:
            self.failed += len(ids)
            self._loop.call_soon(settled, False)
            return
        self._waiting_bytes += len(framed)
        self._queue.put(_Append(framed, ids, settled))

    def done(self, ids: bytes) -> None:
        """u64 LE each: their captures are shipped, on the disk, or counted as dropped."""
        if ids:
            self._queue.put(ids)

    async def close(self) -> bool:
        """True: all that was ever appended is done, and nothing is left of it."""
        self._queue.put(None)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._ended.wait(), DISK_S)
        return self._ended.is_set() and not self._segments

    # The thread's side.

    def _run(self) -> None:
        is_open = True
        while is_open:
            asked = [self._queue.get()]
            with contextlib.suppress(queue.Empty):
                while asked[-1] is not None:
                    asked.append(self._queue.get_nowait())
            is_open = asked[-1] is not None
            appends = [one for one in asked if isinstance(one, _Append)]
            done = [id_ for one in asked if isinstance(one, bytes) for id_ in unpack_ids(one)]
            if not appends:
                self._done(done)
                continue
            first = appends[0].ids[0]
            self._done([id_ for id_ in done if id_ < first])  # it may make room
            is_durable = self._append(appends)
            self._tell(self._settle, appends, is_durable)
            self._done([id_ for id_ in done if id_ >= first])
        self._close_segments()
        self._tell(self._ended.set)

    def _append(self, appends: Sequence[_Append]) -> bool:
        framed = b"".join(one.framed for one in appends)
        ids = [id_ for one in appends for id_ in one.ids]
        try:
            if sum(one.size for one in self._segments) + len(framed) > self._bytes_max:
                raise OSError(errno.EDQUOT, "too many bytes are not done")
            # After a failed sync nobody knows what a file holds: another one, then.
            if self._is_failing or not self._segments or self._segments[-1].is_full:
                self._begin_segment(ids[0])
            self._segments[-1].append(framed)
        except OSError as error:
            if not self._is_failing:
                _log.warning("requests can't be written ahead: %s", error)
            self._is_failing = True
            return False
        self._is_failing = False
        self._segments[-1].open.update(ids)
        return True

    def _begin_segment(self, first_id: int) -> None:
        self._next += 1
        self._segments.append(_Segment(self._home, self._next - 1, first_id))
        self._remove_done()

    def _done(self, ids: Sequence[int]) -> None:
        by_segment: dict[int, list[int]] = {}
        starts = [segment.first_id for segment in self._segments]
        for id_ in ids:
            by_segment.setdefault(bisect_right(starts, id_) - 1, []).append(id_)
        for n, some in by_segment.items():
            if n >= 0:
                self._segments[n].done(some)
        self._remove_done()

    def _remove_done(self) -> None:
        """Not the one that is being written."""
        for segment in self._segments[:-1]:
            if not segment.open:
                segment.remove()
                self._segments.remove(segment)

    def _close_segments(self) -> None:
        for segment in tuple(self._segments):
            if segment.open:
                segment.close()
            else:
                segment.remove()
                self._segments.remove(segment)

    def _tell(self, what: Callable[..., object], *values: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(what, *values)

    # On the loop again.

    def _settle(self, appends: Sequence[_Append], is_durable: bool) -> None:
        for one in appends:
            self._waiting_bytes -= len(one.framed)
            if not is_durable:
                self.failed += len(one.ids)
            try:
                one.settled(is_durable)
            except Exception:  # the others' orders wait as well
                _log.exception("an order that was written ahead could not be released")


def left_over(home: Home) -> Iterator[list[bytes]]:
    """Of a dead worker: the captures, MessagePack, of the requests that are not done, in order. A
    list for each segment. Raises OSError.
    """
    for path in home.segments(SUFFIX):
        done_path = path.with_suffix(DONE_SUFFIX)
        done = set(unpack_ids(done_path.read_bytes())) if done_path.exists() else set()
        bodies = [body for body, _ in record.decode(MAGIC, path.read_bytes(), is_end=True) if body]
        found = [body[_ID.size :] for body in bodies if unpack_ids(body[: _ID.size])[0] not in done]
        if found:
            yield found


def _sync_directory(home: Home) -> None:
    fd = os.open(home.directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
