"""Batches of captures on the disk, while Redis is away: appended, read back in order, removed.

What can't be read any more is left out: the numbers in it are missing on the reading side, as a
gap. All calls block.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import deque
from pathlib import Path
from typing import NamedTuple

from bridge.limits import SPOOL_RECORD_BYTES_MAX, SPOOL_SEGMENT_BYTES
from bridge.proxy.capture import record
from bridge.proxy.capture.batch import Batch
from bridge.proxy.capture.home import Home, segment_number

SUFFIX = ".spool"
_MAGIC = b"RwC\n"
_NUMBERS = struct.Struct("<QIH")  # first, count, bytes of the worker's name


class _Segment:
    __slots__ = ("path", "size")

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size


class Chunk(NamedTuple):
    """The oldest records, until they are popped."""

    batches: list[Batch]
    end: int  # where the next one begins
    damaged: int  # places between them that could not be read


class Spool:
    def __init__(self, home: Home, bytes_max: int) -> None:
        """With what its files hold already. Raises OSError."""
        self._home = home
        self._bytes_max = bytes_max
        self._segments = deque(
            _Segment(path, path.stat().st_size) for path in home.segments(SUFFIX)
        )
        self._next = segment_number(self._segments[-1].path) + 1 if self._segments else 1
        self.bytes = sum(segment.size for segment in self._segments)  # on the disk
        self._read_at = 0  # in the first segment
        self._fd = -1  # of the last segment, while it is written

    @property
    def is_empty(self) -> bool:
        return not self._segments

    def append(self, batch: Batch) -> bool:
        """False: there is no room. Raises OSError; then nothing of it is there."""
        data = _encode(batch)
        if len(data) > SPOOL_RECORD_BYTES_MAX or self.bytes + len(data) > self._bytes_max:
            return False
        if self._fd < 0 or self._segments[-1].size >= self._segment_bytes():
            self._begin_segment()
        try:
            record.write(self._fd, data)
        except OSError:
            self._cut_back()
            raise
        self._segments[-1].size += len(data)
        self.bytes += len(data)
        return True

    def oldest(self) -> Chunk | None:
        """As many of the oldest as may be sent at once; None: there are none. Raises OSError."""
        if not self._segments:
            return None
        segment = self._segments[0]
        with segment.path.open("rb") as file:
            file.seek(self._read_at)
            data = file.read(min(SPOOL_RECORD_BYTES_MAX, segment.size - self._read_at))
        is_end = len(data) < SPOOL_RECORD_BYTES_MAX or self._read_at + len(data) >= segment.size
        batches: list[Batch] = []
        end = damaged = 0
        for body, at in record.decode(_MAGIC, data, is_end=is_end):
            end = at
            batch = _decode(body) if body is not None else None
            if batch is None:
                damaged += 1
            else:
                batches.append(batch)
        return Chunk(batches, segment.size if is_end else self._read_at + end, damaged)

    def pop(self, chunk: Chunk) -> None:
        """They are where they belong. Raises OSError."""
        self._read_at = chunk.end
        segment = self._segments[0]
        if chunk.end < segment.size:
            return
        if len(self._segments) == 1:
            self._end_segment()
        self._segments.popleft()
        self.bytes -= segment.size
        self._read_at = 0
        segment.path.unlink(missing_ok=True)

    def skip_segment(self) -> None:
        """The oldest can't be read, and would keep all that follow it. Raises OSError."""
        if self._segments:
            self.pop(Chunk([], self._segments[0].size, 1))

    def close(self) -> None:
        self._end_segment()

    def _segment_bytes(self) -> int:
        return min(SPOOL_SEGMENT_BYTES, self._bytes_max // 4)

    def _begin_segment(self) -> None:
        self._end_segment()
        path = self._home.segment(self._next, SUFFIX)
        self._next += 1
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._segments.append(_Segment(path, 0))

    def _end_segment(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _cut_back(self) -> None:
        """A write has failed, perhaps after a part of it."""
        segment = self._segments[-1]
        with contextlib.suppress(OSError):
            os.ftruncate(self._fd, segment.size)
        self._end_segment()
        if not segment.size:
            self._segments.pop()
            with contextlib.suppress(OSError):
                segment.path.unlink()


def _encode(batch: Batch) -> bytes:
    worker = batch.worker.encode()
    return record.encode(
        _MAGIC, _NUMBERS.pack(batch.first, batch.count, len(worker)), worker, batch.data
    )


def _decode(body: bytes) -> Batch | None:
    """None: its CRC is right, and it is none of ours."""
    try:
        first, count, name = _NUMBERS.unpack_from(body)
        worker = body[_NUMBERS.size : _NUMBERS.size + name].decode()
    except (struct.error, UnicodeDecodeError):
        return None
    return Batch(worker, first, count, body[_NUMBERS.size + name :])
