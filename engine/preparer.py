"""The next segment, made ready ahead of need and so evenly that the frames written meanwhile don't
notice.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from engine import limits
from engine.frame import FRAME_BYTES_MAX, SEGMENT_HEADER_BYTES
from engine.segment import PREPARED, zero

NICE = 5

log = logging.getLogger(__name__)


class Zeroing(Protocol):
    """Zeroes one file. `run` is for one thread, the rest for any, and cheap."""

    def want(self, size: int, /) -> None:
        """It may come as far as this now."""

    def enough(self) -> None:
        """It ends after the step that it is at."""

    def run(self, path: Path, start: int, end: int, step: int, /) -> int:
        """Zeroes from `start`, in synced steps, as far as is wanted, and waits for more, until
        `end` or `enough`. Returns how far it came. Raises OSError.
        """


class PythonZeroing:
    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._wanted = 0
        self._is_enough = False

    def want(self, size: int, /) -> None:
        with self._changed:
            self._wanted = size
            self._changed.notify()

    def enough(self) -> None:
        with self._changed:
            self._is_enough = True
            self._changed.notify()

    def run(self, path: Path, start: int, end: int, step: int, /) -> int:
        done = start
        fd = os.open(path, os.O_WRONLY)
        try:
            while done < end and self._is_wanted(done):
                done = zero(fd, done, min(done + step, end))
        finally:
            os.close(fd)
        return done

    def _is_wanted(self, done: int) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._is_enough or self._wanted > done)
            return not self._is_enough


class Preparer:
    """One file at a time, under a name of its own, in a thread of its own."""

    def __init__(self, directory: Path) -> None:
        self.zeroing: Callable[[], Zeroing] = PythonZeroing  # of the next one to be begun
        self._path = directory / PREPARED
        self._at_work: Zeroing | None = None
        self._bytes_max = 0
        self._wanted_bytes = 0
        self._prepared: Future[int]
        self._path.unlink(missing_ok=True)

    def begin(self, bytes_max: int) -> None:
        """A file of so many bytes, if `advance` leaves the time for it. Does nothing if one has
        been begun.
        """
        if self._at_work is not None:
            return
        self._bytes_max = bytes_max
        self._wanted_bytes = limits.PREPARE_AT_ONCE_BYTES
        self._at_work = self.zeroing()
        self._at_work.want(self._wanted_bytes)
        self._prepared = Future()
        # A daemon: it waits until somebody wants more, and must not keep a process that fails.
        threading.Thread(
            target=_fulfil,
            args=(self._prepared, self._prepare, self._at_work, bytes_max),
            name="journal-prepare",
            daemon=True,
        ).start()

    def advance(self, used: float) -> None:
        """So much of the segment in use, from 0 to 1, has been used; the next one is to be ready
        some time before all of it has. Cheap, and for any thread.
        """
        ahead = int(self._bytes_max * used * limits.PREPARE_AHEAD)
        wanted, at_work = limits.PREPARE_AT_ONCE_BYTES + ahead, self._at_work
        if wanted >= self._wanted_bytes + limits.ZERO_STEP_BYTES and at_work is not None:
            self._wanted_bytes = wanted
            at_work.want(wanted)

    def take(self, bytes_max: int) -> tuple[Path, int]:
        """The file and its size. Whatever is ready is taken: it is as large as time allowed, and
        for a frame.

        Raises OSError.
        """
        self.begin(bytes_max)
        assert self._at_work is not None
        self._at_work.enough()
        self._at_work = None
        return self._path, self._prepared.result()

    def close(self) -> None:
        if self._at_work is not None:
            self._at_work.enough()
            with suppress(OSError):
                self._prepared.result()
        self._path.unlink(missing_ok=True)

    def _prepare(self, zeroing: Zeroing, bytes_max: int) -> int:
        with suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            size = _allocate(fd, bytes_max)
            at_least = zero(fd, 0, min(SEGMENT_HEADER_BYTES + FRAME_BYTES_MAX, size))
            done = zeroing.run(self._path, at_least, size, limits.ZERO_STEP_BYTES)
            os.ftruncate(fd, done)
            return done
        finally:
            os.close(fd)


def _fulfil(
    prepared: Future[int], prepare: Callable[[Zeroing, int], int], zeroing: Zeroing, size: int
) -> None:
    try:
        prepared.set_result(prepare(zeroing, size))
    except Exception as error:
        prepared.set_exception(error)


def _allocate(fd: int, size: int) -> int:
    """With its blocks and its size settled, zeroing a file is the disk's work alone: the file
    system's own journal, behind which the frames' syncs would queue, has little part in it.

    Returns the size that there is room for: of a disk that is nearly full, segments take what is
    left, down to one frame.
    """
    while size > SEGMENT_HEADER_BYTES + FRAME_BYTES_MAX:
        try:
            os.posix_fallocate(fd, 0, size)
            os.fsync(fd)
        except OSError as error:
            os.ftruncate(fd, 0)
            if error.errno != errno.ENOSPC:
                break  # a file system that can't: zeroing takes its blocks as it goes
            size //= 2
            log.warning("the journal's disk is nearly full: the next segment has %d bytes", size)
        else:
            break
    return size


def prepare_now(directory: Path, size: int) -> Path:
    """A file of that size for the first segment. Raises OSError."""
    path = directory / PREPARED
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        zero(fd, 0, size)
    finally:
        os.close(fd)
    return path
