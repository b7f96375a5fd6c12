"""Server processes that end with us, and what is left of them when we ended first."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from bridge.errors import AlreadyRunning, StartFailed
from bridge.limits import SERVER_POLL_S

# The kernel sends the death signal when the *thread* that started a child ends, so children are
# started by a thread that lives as long as the process does.
_starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="starter")


class User(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a process runs as; -1 keeps the user that we are."""

    name: str = ""
    uid: int = -1
    gid: int = -1


SAME_USER = User()


def command_line(
    argv: Sequence[str | Path], *, user: User = SAME_USER, death_signal: int = 0
) -> list[str]:
    """What to execute so that `argv` runs as `user` and gets `death_signal` when we die."""
    child = str(Path(__file__).with_name("child.py"))
    numbers = (os.getpid(), death_signal, user.uid, user.gid)
    return [sys.executable, "-I", "-S", child, *map(str, numbers), *map(str, argv)]


def start(
    argv: Sequence[str | Path], *, log: Path, cwd: Path, user: User, death_signal: int
) -> subprocess.Popen[bytes]:
    """Starts a server in its own session, so that a Ctrl-C in the terminal reaches only us."""
    with log.open("ab") as output:
        return _starter.submit(
            subprocess.Popen,
            command_line(argv, user=user, death_signal=death_signal),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=clean_environment(),
            start_new_session=True,
        ).result()


def run(argv: Sequence[str | Path], *, user: User = SAME_USER) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command_line(argv, user=user),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env=clean_environment(),
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Ours without what would redirect PostgreSQL's own programs."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    return inherited | {"LC_ALL": "C", "TZ": "UTC"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def alive(pid: int) -> bool:
    """A zombie counts as dead."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def read_pid(path: Path) -> int | None:
    """The number that a file begins with; None when it is missing or has none."""
    try:
        return int(path.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def works_in(pid: int, directory: Path) -> bool:
    """Whether that process lives and, as far as we may see, has `directory` as its working one."""
    try:
        return alive(pid) and Path(f"/proc/{pid}/cwd").samefile(directory)
    except OSError:
        return False


def end(pid: int, signals: Sequence[tuple[signal.Signals, float]]) -> None:
    """Sends the signals in turn, each with its patience in seconds, until the process is gone."""
    for number, patience_s in signals:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if not alive(pid):
                return
            time.sleep(SERVER_POLL_S)


def log_tail(log: Path, from_byte: int = 0) -> str:
    """The last lines that a server wrote since `from_byte`, on one line, for an error message."""
    if not log.exists():
        return ""
    with log.open("rb") as file:
        file.seek(from_byte)
        lines = file.read().decode(errors="replace").splitlines()
    return " | ".join(line.strip() for line in lines[-6:])


class DirectoryLock:
    """One process at a time owns a server's directory; the kernel lets go when that one dies."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "owner.lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Makes the directory where it is missing. Raises AlreadyRunning, StartFailed."""
        if self._file is not None:
            return
        directory = self._path.parent
        try:
            directory.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise StartFailed(
                f"can't write in {directory}: {error.strerror}; choose another data_dir"
            ) from error
        try:
            # A record lock and not flock: forked children don't inherit it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(file, 32, 0).decode().strip()
            os.close(file)
            raise AlreadyRunning(
                f"{directory} is in use by process {owner or 'unknown'}: "
                "stop that one first, or choose another data_dir"
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
