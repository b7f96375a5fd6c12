"""A worker's own files in the spool directory, which all workers of a proxy share.

`<worker>.lock` is locked for as long as the worker's process lives, however it ends: whoever gets
the lock may take over what is left. `<worker>.count` holds the last number that was used up, 8
bytes, little-endian, mapped into memory: it is right after a kill of the process, if not of the
machine. A second source of captures in the same process is called `<worker>+<name>`.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import re
from pathlib import Path

_FILE = re.compile(
    r"(?P<home>[A-Za-z0-9_-]+)(?:\+[A-Za-z0-9_-]+)?(?:\.\d+)?\.(?:lock|count|spool|ahead|done)"
)
_NUMBER_BYTES = 8


class NumberFile:
    """The last number that a sequence has used up."""

    def __init__(self, path: Path) -> None:
        """Raises OSError."""
        self.path = path
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            # Written, not only made longer: a full disk must show here, not as a fault of a later
            # access to the memory.
            os.write(fd, bytes(_NUMBER_BYTES))
            os.fsync(fd)
            self._mapped = mmap.mmap(fd, _NUMBER_BYTES)
        finally:
            os.close(fd)
        self._number = memoryview(self._mapped)

    def set(self, number: int) -> None:
        self._number[:] = number.to_bytes(_NUMBER_BYTES, "little")

    def close(self) -> None:
        self._number.release()
        self._mapped.close()


class Home:
    def __init__(self, directory: Path, name: str, lock: int) -> None:
        """Use `open`."""
        self.directory = directory
        self.name = name
        self._lock = lock

    @classmethod
    def open(cls, directory: Path, name: str) -> Home:
        """Of a new worker. Raises OSError: the directory can't be used."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Nobody sees the lock before it is locked: it would be taken for a dead worker's.
        hidden = directory / f"{name}.new"
        lock = os.open(hidden, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (directory / f"{name}.lock").hardlink_to(hidden)
        except OSError:
            os.close(lock)
            raise
        finally:
            hidden.unlink(missing_ok=True)
        return cls(directory, name, lock)

    def number_file(self, worker: str = "") -> NumberFile:
        """Of one source of this worker. Raises OSError."""
        worker = worker or self.name
        assert worker == self.name or worker.startswith(f"{self.name}+")
        return NumberFile(self.directory / f"{worker}.count")

    def numbers(self) -> dict[str, int]:
        """The last number of each source, as the files say it."""
        paths = [path for path in self.paths() if path.suffix == ".count"]
        return {
            path.stem: int.from_bytes(path.read_bytes()[:_NUMBER_BYTES], "little") for path in paths
        }

    def segments(self, suffix: str) -> list[Path]:
        """`<worker>.<number>.<suffix>`, in order."""
        found = [path for path in self.paths() if path.suffix == suffix]
        return sorted(found, key=segment_number)

    def segment(self, number: int, suffix: str) -> Path:
        return self.directory / f"{self.name}.{number:08d}{suffix}"

    def paths(self) -> list[Path]:
        """All files but the lock."""
        return [
            path
            for path in self.directory.iterdir()
            if path.suffix != ".lock" and _home_of(path) == self.name
        ]

    def release(self) -> None:
        """Whoever comes next takes over what is left."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def remove(self) -> None:
        """Nothing is left that anybody needs. Raises OSError."""
        try:
            for path in self.paths():
                path.unlink(missing_ok=True)
            (self.directory / f"{self.name}.lock").unlink(missing_ok=True)
        finally:
            self.release()


def segment_number(path: Path) -> int:
    return int(path.stem.rpartition(".")[2])


def abandoned(directory: Path) -> list[Home]:
    """Homes whose workers have ended. They are ours now. Raises OSError."""
    names = {name for path in directory.iterdir() if (name := _home_of(path))}
    return [home for name in sorted(names) if (home := _locked(directory, name)) is not None]


def _home_of(path: Path) -> str:
    """ "": not a file of ours."""
    match = _FILE.fullmatch(path.name)
    return match["home"] if match else ""


def _locked(directory: Path, name: str) -> Home | None:
    """None: its process lives, or another one has taken it over."""
    path = directory / f"{name}.lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(fd, path):
            return Home(directory, name, os.dup(fd))
    except BlockingIOError:
        pass
    finally:
        os.close(fd)
    return None


def _is_at(fd: int, path: Path) -> bool:
    """False: whoever had it has removed it meanwhile."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(fd), path.stat())
    return False
