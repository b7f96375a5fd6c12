"""The journal's files: how they are called, written and zeroed.

A segment is zeroed by real writes before a frame goes into it: a sync then has only the frame
itself to bring to the disk, and no change of the file's size or blocks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from engine import limits

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
