"""The journal of one shard: every sequenced command, durable before anything of it is shown.

`Journal.open` takes the directory for this process, replays what is there, and cuts a torn tail;
`append` returns when a frame is on the disk. A bad frame that can't be a torn write is refused with
its place and the next step, and nothing is changed.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

import crc32c
import numpy as np

from engine import limits
from engine.errors import JournalDamaged, JournalFailed, JournalInUse
from engine.frame import (
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    Link,
    Unreadable,
    read_frame_header,
    seal_frame,
    segment_header,
)
from engine.replay import HOW_TO_GO_ON, Frame, JournalReader
from engine.segment import (
    Preparer,
    segment_path,
    segment_paths,
    sync_directory,
    write_all,
    zero,
)
from engine.wire import COMMAND_BYTES

LOCK = "lock"

log = logging.getLogger(__name__)


class Journal:
    """Open for writing. `append` is for one thread; `link` may be read by any between appends."""

    def __init__(
        self, directory: Path, *, shard: int, lock_fd: int, reader: JournalReader, bytes_max: int
    ) -> None:
        self.link = reader.link
        self._directory = directory
        self._shard = shard
        self._lock_fd = lock_fd
        self._path = reader.path or segment_path(directory, 1)
        self._offset = reader.offset
        self._preparer = Preparer(directory, bytes_max=bytes_max)
        self._fd = os.open(self._path, os.O_RDWR)
        # What an engine wrote and did not live to sync may have been replayed from memory only.
        os.fsync(self._fd)
        sync_directory(directory)
        self._size = os.fstat(self._fd).st_size
        self._begin_next_at = self._offset + (self._size - self._offset) // 4

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        shard: int,
        replay: Callable[[Frame], None],
        segment_bytes_min: int = limits.SEGMENT_BYTES_MIN,
        segment_bytes_max: int = limits.SEGMENT_BYTES_MAX,
    ) -> Journal:
        """Gives every frame to `replay`, in order, before it returns.

        Raises JournalInUse, JournalDamaged, and JournalFailed where the disk fails.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock_fd = _lock(directory)
        except OSError as error:
            raise JournalFailed(
                f"opening the journal directory {directory} failed: {error.strerror}. "
                f"Name one that this user may write to"
            ) from error
        reader = JournalReader(directory, shard=shard)
        try:
            _recover(directory, reader, replay)
            _make_room(directory, reader, shard=shard, bytes_min=segment_bytes_min)
            return cls(
                directory, shard=shard, lock_fd=lock_fd, reader=reader, bytes_max=segment_bytes_max
            )
        except OSError as error:
            os.close(lock_fd)
            raise _failed(f"recovering the journal in {directory}", error) from error
        except BaseException:
            os.close(lock_fd)
            raise
        finally:
            reader.close()

    def append(self, frame: bytearray, *, first_seq: int, ts_ns: int) -> None:
        """Writes a frame (64 free bytes, then commands) and waits until it is durable.

        Raises JournalFailed; the journal is then not to be used again.
        """
        assert first_seq == self.link.next_seq, "a frame must follow the one before it"
        assert ts_ns >= self.link.next_ts_ns, "sequencer time must not go back"
        try:
            if self._offset + len(frame) > self._size:
                self._rotate(len(frame))
            link = seal_frame(
                frame,
                first_seq=first_seq,
                ts_ns=ts_ns,
                after=self.link,
                step_ns=limits.COMMAND_STEP_NS,
            )
            write_all(self._fd, frame, self._offset)
            os.fdatasync(self._fd)
        except OSError as error:
            raise _failed(f"writing {self._path}", error) from error
        self._offset += len(frame)
        self.link = link
        if self._offset > self._begin_next_at:
            self._preparer.begin()

    def close(self) -> None:
        self._preparer.close()
        os.close(self._fd)
        os.close(self._lock_fd)

    def _rotate(self, frame_bytes: int) -> None:
        prepared, size = self._preparer.take()
        size = max(size, SEGMENT_HEADER_BYTES + frame_bytes)
        path = segment_path(self._directory, self.link.next_seq)
        fd = _begin_segment(prepared, path, shard=self._shard, after=self.link)
        os.close(self._fd)
        self._fd, self._path, self._size = fd, path, size
        self._offset = SEGMENT_HEADER_BYTES
        self._begin_next_at = size // 4


def _lock(directory: Path) -> int:
    """Held until the descriptor is closed, so also given up by a process that is killed."""
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise JournalInUse(
            f"{directory} is in use by another engine (process {holder}): stop that one first, "
            f"or give this one a directory of its own"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _recover(directory: Path, reader: JournalReader, replay: Callable[[Frame], None]) -> None:
    found = reader.read()
    while isinstance(found, Frame):
        replay(found)
        found = reader.read()
    later = [path for path in segment_paths(directory) if path > (reader.path or Path())]
    if reader.path is None:
        if later:
            raise JournalDamaged(
                f"the journal in {directory} begins with {later[0].name}: the segments before it "
                f"are missing. {HOW_TO_GO_ON}"
            )
        return
    bad = found or Unreadable("it is missing")
    if later:
        raise _damaged(reader, bad.why, f"{later[0].name} follows")
    if bad.intact:
        raise _damaged(reader, bad.why, "its checksum is right")
    _cut_torn_tail(reader, reader.path, bad.why)


def _cut_torn_tail(reader: JournalReader, path: Path, why: str) -> None:
    """Only the frame that was being written when the engine died may be bad: it is the last."""
    with path.open("rb+") as file:
        file.seek(reader.offset)
        rest = file.read()
        written = np.flatnonzero(np.frombuffer(rest, np.uint8))
        if not len(written):
            return
        behind = _whole_frame(rest, reader.link.next_seq)
        if behind is not None:
            raise _damaged(reader, why, f"a good frame follows at offset {reader.offset + behind}")
        torn = int(written[-1]) + 1
        log.warning(
            "%s: cut a torn tail of %d bytes at offset %d, after sequence %d (%s); "
            "it was never answered",
            *(path, torn, reader.offset, reader.link.next_seq - 1, why),
        )
        zero(file.fileno(), reader.offset, reader.offset + torn)


def _whole_frame(rest: bytes, next_seq: int) -> int | None:
    """Where in the bytes after a bad place a whole later frame begins."""
    at = rest.find(FRAME_MAGIC)
    while at >= 0:
        header = rest[at : at + FRAME_HEADER_BYTES]
        if at % FRAME_HEADER_BYTES == 0 and len(header) == FRAME_HEADER_BYTES:
            found = read_frame_header(header)
            if not isinstance(found, Unreadable) and found.first_seq > next_seq:
                start = at + FRAME_HEADER_BYTES
                commands = rest[start : start + found.length * COMMAND_BYTES]
                if crc32c.crc32c(commands) == found.commands_crc:
                    return at
        at = rest.find(FRAME_MAGIC, at + 1)
    return None


def _make_room(directory: Path, reader: JournalReader, *, shard: int, bytes_min: int) -> None:
    """Begins the first segment, or makes a cut one large enough to be written to again."""
    if reader.path is None:
        preparing = Preparer(directory, bytes_max=bytes_min)
        try:
            prepared, _ = preparing.take()
            path = segment_path(directory, reader.link.next_seq)
            os.close(_begin_segment(prepared, path, shard=shard, after=reader.link))
        finally:
            preparing.close()
        reader.offset = SEGMENT_HEADER_BYTES
        reader.path = path
    with reader.path.open("rb+") as file:
        zero(file.fileno(), os.fstat(file.fileno()).st_size, bytes_min)


def _begin_segment(prepared: Path, path: Path, *, shard: int, after: Link) -> int:
    """Under its name it is whole or not there: header and zeros are durable before the name is."""
    fd = os.open(prepared, os.O_RDWR)
    try:
        write_all(fd, segment_header(shard=shard, after=after), 0)
        os.fsync(fd)
        prepared.rename(path)
        sync_directory(path.parent)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _damaged(reader: JournalReader, why: str, evidence: str) -> JournalDamaged:
    return JournalDamaged(
        f"{reader.path}: the frame at offset {reader.offset} (sequence {reader.link.next_seq}) is "
        f"damaged: {why}, yet {evidence}, so that this is no write cut short by a crash. "
        f"{HOW_TO_GO_ON}"
    )


def _failed(doing: str, error: OSError) -> JournalFailed:
    return JournalFailed(
        f"{doing} failed: {error.strerror or error}. The engine has stopped, and showed nothing "
        f"that is not durable. Free space or replace the disk, then start it again: it goes on "
        f"from its journal"
    )
