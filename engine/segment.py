"""The journal's files: how they are called, and how the next one is made ready ahead of need.

A segment is zeroed by real writes before a frame goes into it: a sync then has only the frame
itself to bring to the disk, and no change of the file's size or blocks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from engine import limits
from engine.frame import FRAME_BYTES_MAX, SEGMENT_HEADER_BYTES

SUFFIX = ".journal"
PREPARED = "next.prepared"

_ZEROS = bytes(limits.ZERO_STEP_BYTES)


def segment_path(directory: Path, first_seq: int) -> Path:
    return directory / f"{first_seq:020d}{SUFFIX}"


def segment_paths(directory: Path) -> list[Path]:
    """In the order of their sequence numbers."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_all(fd: int, data: bytes | bytearray | memoryview, offset: int) -> None:
    """A short write is carried on; what stops it then comes as the next write's error."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, offset)
        view, offset = view[written:], offset + written


def zero(fd: int, start: int, end: int, *, go_on: Callable[[], bool] = lambda: True) -> int:
    """Zeroes [start, end) in synced steps while `go_on()`; returns how far it came."""
    while start < end and go_on():
        size = min(len(_ZEROS), end - start)
        began = time.monotonic()
        write_all(fd, memoryview(_ZEROS)[:size], start)
        os.fdatasync(fd)
        start += size
        if start < end:
            # Half of the disk's time is left to the frames that are written meanwhile.
            time.sleep(time.monotonic() - began)
    return start


class Preparer:
    """Makes the next segment ready in its own thread. One at a time, under a name of its own."""

    def __init__(self, directory: Path, *, bytes_max: int) -> None:
        self._path = directory / PREPARED
        self._bytes_max = bytes_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal-prepare")
        self._enough = threading.Event()
        self._prepared: Future[int] | None = None
        self._path.unlink(missing_ok=True)

    def begin(self) -> None:
        """Does nothing if the next segment is already being made."""
        if self._prepared is None:
            self._enough.clear()
            self._prepared = self._thread.submit(self._prepare)

    def take(self) -> tuple[Path, int]:
        """The file and its size. Whatever is ready is taken: it is as large as time allowed.

        Raises OSError.
        """
        self.begin()
        assert self._prepared is not None
        self._enough.set()
        size = self._prepared.result()
        self._prepared = None
        return self._path, size

    def close(self) -> None:
        self._enough.set()
        self._thread.shutdown()
        self._path.unlink(missing_ok=True)

    def _prepare(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            at_least = zero(fd, 0, min(SEGMENT_HEADER_BYTES + FRAME_BYTES_MAX, self._bytes_max))
            return zero(fd, at_least, self._bytes_max, go_on=lambda: not self._enough.is_set())
        finally:
            os.close(fd)
