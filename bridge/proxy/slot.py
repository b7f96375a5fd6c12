"""One of a proxy's places for a worker process: its socket, who serves on it, and who leaves it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable

import msgspec

from bridge.datadir import ProxySlot
from bridge.errors import BridgeError, StartFailed
from bridge.limits import (
    RESTART_BACKOFF_S_MAX,
    RESTART_BACKOFF_S_MIN,
    RESTART_RESET_S,
    WORKER_DRAIN_S,
    WORKER_FAILURES_MAX,
    WORKER_READY_S,
    WORKER_SILENT_S,
    WORKER_STOP_S,
    WORKER_STUCK_S,
)
from bridge.proxy.heartbeat import Pulse
from bridge.proxy.listening import bound_socket
from bridge.proxy.settings import ProxySettings
from bridge.sandbox import processes

_log = logging.getLogger(__name__)
READY = b"ready\n"  # a worker's first line; what follows are heartbeats
FAILED = b"failed "  # or this, with its reason
REPLACED = signal.SIGUSR1  # to a worker: another one serves on its socket
_READ_BYTES = 4096


class WorkerProcess:
    """One life of a worker."""

    def __init__(self, process: asyncio.subprocess.Process, number: int) -> None:
        self.number = number
        self.pid = process.pid
        self.pulse = Pulse()
        self.silent = False  # told already
        self.began = asyncio.get_running_loop().time()
        self._process = process
        self._listening: asyncio.Task[None] | None = None

    @classmethod
    async def start(
        cls, settings: ProxySettings, number: int, listener: socket.socket
    ) -> WorkerProcess:
        """Returns when it serves. Raises StartFailed."""
        fd = listener.fileno()
        argv = [sys.executable, "-m", "bridge.proxy.master"]
        process = await asyncio.create_subprocess_exec(
            *processes.command_line(argv, death_signal=signal.SIGTERM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            pass_fds=(fd,),
            start_new_session=True,  # a Ctrl-C in the terminal is the master's to pass on
        )
        worker = cls(process, number)
        try:
            await worker._get_ready(msgspec.structs.replace(settings, slot=number, listen_fd=fd))
        except BaseException:
            worker.kill()
            await process.wait()
            raise
        return worker

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def ended(self) -> int:
        return await self._process.wait()

    async def finish(self) -> None:
        """It accepts no more, and leaves when its connections have ended, or its time is over."""
        self._signal(REPLACED)
        await self._gone_within(WORKER_DRAIN_S)

    async def end(self) -> None:
        """The same, in less time."""
        self._signal(signal.SIGTERM)
        await self._gone_within(WORKER_STOP_S)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    async def _get_ready(self, settings: ProxySettings) -> None:
        """Settings go through a pipe: the process list shows no key."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(msgspec.json.encode(settings))
        stdin.close()
        try:
            async with asyncio.timeout(WORKER_READY_S):
                line = await stdout.readline()
        except TimeoutError:
            reason = f"it was not ready after {WORKER_READY_S:.0f} s"
        else:
            if line == READY:
                self._listening = asyncio.create_task(self._listen(stdout))
                return
            reason = line.removeprefix(FAILED).decode(errors="replace").strip()
        raise StartFailed(
            f"proxy worker {self.number} did not start: {reason or 'the log above says why'}"
        )

    async def _listen(self, stdout: asyncio.StreamReader) -> None:
        while await stdout.read(_READ_BYTES):
            self.pulse.heard()

    async def _gone_within(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            _log.warning("proxy worker process %d takes too long to leave: killed", self.pid)
            self.kill()
            await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


class Slot:
    """Keeps a worker on its socket. `changed` is called whenever `state` may be another;
    `expendable` says whether clients are served without this slot.
    """

    def __init__(
        self,
        settings: ProxySettings,
        numbers: tuple[int, int],
        listener: socket.socket,
        *,
        changed: Callable[[], None],
        expendable: Callable[[Slot], bool],
    ) -> None:
        self._settings = settings
        self._numbers = numbers  # whoever replaces a living process must have another session name
        self._listener: socket.socket | None = listener
        self._changed = changed
        self._expendable = expendable
        self._worker: WorkerProcess | None = None  # the newest: it serves, or is to be replaced
        self._finishing: WorkerProcess | None = None  # the one before, until its last answer
        self._leaving: asyncio.Task[None] | None = None  # waits for that one
        self._turn = asyncio.Lock()  # one process starts at a time
        self._failures = 0  # in a row

    @property
    def listens(self) -> bool:
        return self._listener is not None

    @property
    def state(self) -> ProxySlot:
        worker, finishing = self._worker, self._finishing
        if worker is None or not worker.alive:
            state = "starting"
        else:
            state = "silent" if worker.silent else "serving"
        return ProxySlot(
            number=self._numbers[0],
            state=state,
            pid=worker.pid if worker is not None and worker.alive else 0,
            finishing=finishing.pid if finishing is not None else 0,
        )

    async def start(self) -> None:
        """Raises StartFailed."""
        await self._start(self._settings, self._numbers[0])

    async def keep(self) -> None:
        """Replaces the process whenever it dies."""
        loop = asyncio.get_running_loop()
        while True:
            worker = self._worker
            assert worker is not None
            status = await worker.ended()
            if worker is not self._worker:
                continue  # replaced in time
            _log.error("proxy worker %d ended with status %s", worker.number, status)
            lived_s = loop.time() - worker.began
            self._failures = 1 if lived_s > RESTART_RESET_S else self._failures + 1
            self._changed()
            await self._replace(worker)

    async def restart(self, settings: ProxySettings) -> None:
        """Puts a new process in the old one's place, without a moment when nobody serves. Raises
        StartFailed, and the old one stays.
        """
        await self.left()
        async with self._turn:
            old = self._worker
            assert old is not None
            first, second = self._numbers
            await self._start(settings, second if old.number == first else first)
            if old.alive:
                self._finishing = old
                self._leaving = asyncio.create_task(self._finish(old))
                self._changed()

    async def left(self) -> None:
        """Returns when no replaced process is left."""
        if self._leaving is not None:
            await self._leaving

    async def end(self) -> None:
        self._close_listener()  # nobody will accept what comes from now on
        both = [one for one in (self._worker, self._finishing) if one is not None]
        await asyncio.gather(*(one.end() for one in both))
        await self.left()

    def kill(self) -> None:
        for one in (self._worker, self._finishing):
            if one is not None:
                one.kill()

    def look(self, elapsed_s: float) -> None:
        """Tells, and ends, a process whose event loop stands still."""
        for worker in (self._worker, self._finishing):
            if worker is None or not worker.alive:
                continue
            worker.pulse.awake(elapsed_s)
            silent_s = worker.pulse.silent_s
            if silent_s > WORKER_STUCK_S:
                _log.error("proxy worker process %d is stuck: killed and replaced", worker.pid)
                worker.kill()
            elif worker.silent != (silent_s > WORKER_SILENT_S):
                worker.silent = not worker.silent
                _tell_silence(worker)
                self._changed()

    async def _start(self, settings: ProxySettings, number: int) -> None:
        listener = self._listener or bound_socket(settings.listen_host, settings.listen_port)
        try:
            self._worker = await WorkerProcess.start(settings, number, listener)
        except BaseException:
            if listener is not self._listener:
                listener.close()
            raise
        self._listener, self._settings = listener, settings
        self._changed()

    async def _replace(self, dead: WorkerProcess) -> None:
        """At once at first: connections wait. If that fails they are turned away to other slots."""
        backoff_s = RESTART_BACKOFF_S_MIN
        while self._worker is dead:
            if self._failures >= WORKER_FAILURES_MAX:
                if self._expendable(self):
                    self._close_listener()
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, RESTART_BACKOFF_S_MAX)
            async with self._turn:
                if self._worker is not dead:
                    return
                try:
                    await self._start(self._settings, dead.number)
                except BridgeError as error:
                    self._failures += 1
                    _log.error("%s", error)

    async def _finish(self, old: WorkerProcess) -> None:
        await old.finish()
        self._finishing = None
        self._changed()

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _tell_silence(worker: WorkerProcess) -> None:
    if worker.silent:
        _log.warning(
            "proxy worker process %d has been silent for %.0f s; it is killed and replaced after "
            "%.0f s",
            worker.pid,
            WORKER_SILENT_S,
            WORKER_STUCK_S,
        )
    else:
        _log.warning("proxy worker process %d answers again", worker.pid)
