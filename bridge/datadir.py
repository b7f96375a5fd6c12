"""The data directory: each part's files, the engine's keys, what `railswitch up` runs now."""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from pathlib import Path

import msgspec

from bridge.config import EngineKey
from bridge.config_rules import ROLES
from bridge.errors import ConfigError, StartFailed
from bridge.sandbox import processes

_RUN_FILE = "run.json"
_PROXY_FILE = "proxy.json"
_KEYS_FILE = "engine-keys.json"


class Child(msgspec.Struct, frozen=True, kw_only=True):
    """One process that `railswitch up` keeps running."""

    name: str
    state: str  # starting, ready, restarting, stopped
    pid: int = 0  # 0: none now
    restarts: int = 0
    detail: dict[str, str] = {}  # what it said of itself when it got ready

    @property
    def told(self) -> str:
        """The detail for people: `127.0.0.1:8320, implementation rust`."""
        words = (v if k == "listen" else f"{k} {v}" for k, v in self.detail.items())
        return ", ".join(words)


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """What `railswitch up` wrote of itself. The URLs may hold passwords: the file is mode 0600."""

    pid: int
    config: str  # path
    database_url: str
    redis_url: str
    started_at_s: float  # wall clock
    children: tuple[Child, ...] = ()


class ProxySlot(msgspec.Struct, frozen=True, kw_only=True):
    """A place for one worker process of `railswitch proxy`."""

    number: int
    state: str  # starting, serving, silent
    pid: int  # 0: none now
    finishing: int  # pid of the replaced one that still finishes its connections; 0: none


class ProxyRun(msgspec.Struct, frozen=True, kw_only=True):
    """What `railswitch proxy` wrote of itself."""

    pid: int
    listen: str
    restarts: int  # begun since its start
    restarting: bool
    failed: str  # why the last one was given up; "": it was not
    slots: tuple[ProxySlot, ...]


class DataDirectory:
    """Paths and small files; every write is whole or not at all."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    def part(self, name: str) -> Path:
        """Directory of a part: engine, postgres, redis."""
        return self.path / name

    def log(self, name: str) -> Path:
        return self.path / "logs" / f"{name}.log"

    def make(self) -> None:
        try:
            self.log("").parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StartFailed(
                f"can't make the data directory {self.path}: {error.strerror}; "
                "choose another data_dir"
            ) from error

    def running(self) -> Run | None:
        """What `up` runs on this directory now; None when no `up` is alive."""
        run = self.last_run()
        return run if run is not None and processes.alive(run.pid) else None

    def last_run(self) -> Run | None:
        try:
            return msgspec.json.decode((self.path / _RUN_FILE).read_bytes(), type=Run)
        except (OSError, msgspec.MsgspecError):
            return None

    def write_run(self, run: Run) -> None:
        self._write(_RUN_FILE, msgspec.json.format(msgspec.json.encode(run), indent=2))

    def forget_run(self) -> None:
        (self.path / _RUN_FILE).unlink(missing_ok=True)

    def proxy(self) -> ProxyRun | None:
        """The `railswitch proxy` on this directory; None when none is alive."""
        try:
            run = msgspec.json.decode((self.path / _PROXY_FILE).read_bytes(), type=ProxyRun)
        except (OSError, msgspec.MsgspecError):
            return None
        return run if processes.alive(run.pid) else None

    def write_proxy(self, run: ProxyRun) -> None:
        self._write(_PROXY_FILE, msgspec.json.format(msgspec.json.encode(run), indent=2))

    def forget_proxy(self) -> None:
        (self.path / _PROXY_FILE).unlink(missing_ok=True)

    def engine_keys(self) -> tuple[EngineKey, ...]:
        """One random key for each role, made at the first call and the same ever after."""
        path = self.path / _KEYS_FILE
        if not path.exists():
            self.make()
            made = [EngineKey(role=role, key=secrets.token_hex(32)) for role in ROLES]
            self._write(_KEYS_FILE, msgspec.json.encode(made), replace=False)
        try:
            return msgspec.json.decode(path.read_bytes(), type=tuple[EngineKey, ...])
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(
                f"the engine keys in {path} can't be read ({error}): restore the file, or remove "
                "it and restart every part, which makes new ones"
            ) from error

    def _write(self, name: str, data: bytes, *, replace: bool = True) -> None:
        """Mode 0600. Without `replace` a file that another process made meanwhile stays."""
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.path)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            if replace:
                Path(temporary).replace(self.path / name)
                return
            with contextlib.suppress(FileExistsError):
                os.link(temporary, self.path / name)
            Path(temporary).unlink()
        except OSError as error:
            raise StartFailed(f"can't write {self.path / name}: {error.strerror}") from error
