"""`railswitch up`: starts everything, keeps it running, and stops it so that nothing is lost.

The engine first, then control, and last, together, the shadow and the proxy. A child says that it
is ready by writing one JSON line to the pipe whose number it got with `--ready-fd`. A child that
dies is started again, soon at first and then every few seconds, for ever. All of them end with this
process, also when it is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from bridge.datadir import Child, DataDirectory, Run
from bridge.errors import StartFailed
from bridge.limits import (
    CHILD_READY_S,
    CHILD_STOP_S,
    RESTART_BACKOFF_S_MAX,
    RESTART_BACKOFF_S_MIN,
    RESTART_RESET_S,
)
from bridge.sandbox import processes
from bridge.sandbox.processes import DirectoryLock

DATABASE_VARIABLE = "RAILSWITCH_DATABASE_URL"
REDIS_VARIABLE = "RAILSWITCH_REDIS_URL"


class News(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened to one part; `railswitch up` prints these as they come."""

    part: str
    state: str  # starting, ready, died, late, stopped
    text: str
    pid: int = 0
    at_s: float  # wall clock


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A child process to keep running."""

    name: str
    argv: tuple[str, ...]  # without the `--ready-fd` that is added to it
    needed: bool = True  # if it can't get ready at the first start, nothing is started


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Waves start one after the other, the parts of a wave together; they stop in reverse."""

    config: str
    database_url: str
    redis_url: str
    waves: tuple[tuple[Part, ...], ...]


def railswitch_plan(*, config: Path, database_url: str, redis_url: str) -> Plan:
    def part(name: str, *, needed: bool = True) -> Part:
        argv = (sys.executable, "-m", "bridge.cli.main", name, "--config", str(config))
        return Part(name=name, argv=argv, needed=needed)

    return Plan(
        config=str(config),
        database_url=database_url,
        redis_url=redis_url,
        # The shadow needs what `railswitch legacy install` makes; clients are served without it.
        waves=(
            (part("engine"),),
            (part("control"),),
            (part("shadow", needed=False), part("proxy")),
        ),
    )


class Supervisor:
    """Runs a plan inside a data directory that it has locked."""

    def __init__(self, directory: DataDirectory, plan: Plan, tell: Callable[[News], None]) -> None:
        self._directory = directory
        self._plan = plan
        self._tell = tell
        self._stopping = asyncio.Event()
        self._started_at_s = time.time()
        self._keepers = {
            part.name: _Keeper(part, directory, plan, self._news, self._stopping)
            for wave in plan.waves
            for part in wave
        }

    async def run(self, stop: asyncio.Event, *, up: Callable[[], None] = lambda: None) -> None:
        """Returns when everything has been stopped, after `stop` is set; calls `up` when all runs.

        Raises StartFailed when a needed part does not get ready at its first start: all is stopped
        then too.
        """
        stopper = asyncio.create_task(_forward(stop, self._stopping))
        try:
            for wave in self._plan.waves:
                await self._start(wave)
                if self._stopping.is_set():
                    return
            up()
            await self._stopping.wait()
        finally:
            self._stopping.set()
            stopper.cancel()
            for wave in reversed(self._plan.waves):
                await asyncio.gather(*(self._keepers[part.name].end() for part in wave))
            self._directory.forget_run()

    async def _start(self, wave: Sequence[Part]) -> None:
        firsts = [self._keepers[part.name].begin() for part in wave]
        for part, result in zip(
            wave, await asyncio.gather(*firsts, return_exceptions=True), strict=True
        ):
            if isinstance(result, StartFailed) and not part.needed:
                continue  # told already; its keeper goes on trying
            if isinstance(result, BaseException):
                raise result

    def _news(self, news: News) -> None:
        self._directory.write_run(
            Run(
                pid=os.getpid(),
                config=self._plan.config,
                database_url=self._plan.database_url,
                redis_url=self._plan.redis_url,
                started_at_s=self._started_at_s,
                children=tuple(keeper.child for keeper in self._keepers.values()),
            )
        )
        self._tell(news)


class _Keeper:
    """Keeps one child running until told to end."""

    def __init__(
        self,
        part: Part,
        directory: DataDirectory,
        plan: Plan,
        tell: Callable[[News], None],
        stopping: asyncio.Event,
    ) -> None:
        self.child = Child(name=part.name, state="stopped")
        self._part = part
        self._log = directory.log(part.name)
        self._environment = {DATABASE_VARIABLE: plan.database_url, REDIS_VARIABLE: plan.redis_url}
        self._tell = tell
        self._stopping = stopping
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Returns when first ready, or told to stop. At a first failure raises StartFailed; a part
        that is not needed is tried again all the same."""
        first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._keep(first))
        stopping = asyncio.create_task(self._stopping.wait())
        await asyncio.wait((first, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if first.done():
            first.result()

    async def end(self) -> None:
        """SIGTERM, patience, SIGKILL. Returns when the child is gone."""
        if self._task is None:
            return
        await self._terminate()
        await self._task
        self._change("stopped", "stopped", state="stopped", pid=0)

    async def _keep(self, first: asyncio.Future[None]) -> None:
        backoff_s = RESTART_BACKOFF_S_MIN
        while not self._stopping.is_set():
            began = time.monotonic()
            reason = await self._live(first)
            if self._stopping.is_set():
                break
            if time.monotonic() - began > RESTART_RESET_S:
                backoff_s = RESTART_BACKOFF_S_MIN
            if not first.done():
                first.set_exception(StartFailed(f"{self._part.name} {reason} (log: {self._log})"))
                if self._part.needed:
                    self._change("died", reason, state="stopped", pid=0)
                    return
            told = f"{reason}; starts again in {backoff_s:.1f} s (log: {self._log})"
            self._change("died", told, state="restarting", pid=0, restarts=self.child.restarts + 1)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), backoff_s)
            backoff_s = min(backoff_s * 2, RESTART_BACKOFF_S_MAX)
        if not first.done():
            first.set_result(None)

    async def _live(self, first: asyncio.Future[None]) -> str:
        """One life of the child; returns why it ended."""
        log_start = self._log.stat().st_size if self._log.exists() else 0
        reading, writing = os.pipe()
        try:
            process = await self._spawn(writing)
        except OSError as error:
            os.close(reading)
            return f"could not be started: {error.strerror}"
        finally:
            os.close(writing)
        self._process = process
        self._change("starting", "starting", state="starting", pid=process.pid, detail={})
        if self._stopping.is_set():
            await self._terminate()
        detail = await _readiness(reading)
        if detail is not None:
            self.child = msgspec.structs.replace(self.child, detail=detail)
            self._change("ready", self.child.told, state="ready")
            if not first.done():
                first.set_result(None)
        elif process.returncode is None and not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), CHILD_STOP_S)
            await self._terminate()
        code = await process.wait()
        said = processes.log_tail(self._log, log_start) if detail is None else ""
        return _why(code) + (f": {said.removeprefix('railswitch: ')}" if said else "")

    async def _spawn(self, ready_fd: int) -> asyncio.subprocess.Process:
        argv = [*self._part.argv, "--ready-fd", str(ready_fd)]
        with self._log.open("ab") as log:
            return await asyncio.create_subprocess_exec(
                *processes.command_line(argv, death_signal=signal.SIGTERM),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self._environment | {"PYTHONUNBUFFERED": "1"},
                pass_fds=(ready_fd,),
                start_new_session=True,  # a Ctrl-C in the terminal is ours to pass on, in order
            )

    async def _terminate(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), CHILD_STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    def _change(self, happened: str, text: str, **fields: object) -> None:
        self.child = msgspec.structs.replace(self.child, **fields)
        self._tell(
            News(
                part=self._part.name,
                state=happened,
                text=text,
                pid=self.child.pid,
                at_s=time.time(),
            )
        )


@contextlib.contextmanager
def locked(directory: DataDirectory) -> Iterator[None]:
    """Raises AlreadyRunning when another `up` has the directory."""
    directory.make()
    lock = DirectoryLock(directory.path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


async def _readiness(reading: int) -> dict[str, str] | None:
    """The child's ready line; None when it closed the pipe without one, or took too long."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(reading, "rb", buffering=0)
    )
    try:
        line = await asyncio.wait_for(reader.readline(), CHILD_READY_S)
        return {str(key): str(value) for key, value in json.loads(line).items()}
    except (TimeoutError, ValueError):
        return None
    finally:
        transport.close()


async def _forward(stop: asyncio.Event, stopping: asyncio.Event) -> None:
    await stop.wait()
    stopping.set()


def _why(code: int) -> str:
    if code >= 0:
        return f"exited with {code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-code).name}"
    return f"killed by signal {-code}"
