"""A proxy's worker processes: started on one port, replaced when they die, are stuck, or are old.

The master owns the listening sockets, one for each slot, and its workers inherit them: connections
that wait to be accepted survive whoever would have accepted them.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import uvloop

from bridge.datadir import ProxyRun
from bridge.errors import BridgeError
from bridge.limits import WORKER_BEAT_S, WORKER_DRAIN_S, WORKER_STOP_S
from bridge.proxy.descriptors import raise_limit
from bridge.proxy.listening import check_free, listening_socket
from bridge.proxy.settings import ProxySettings
from bridge.proxy.slot import FAILED, READY, REPLACED, Slot
from bridge.proxy.worker import serve_worker
from bridge.tasks import ended

_log = logging.getLogger(__name__)


class Operator:
    """What whoever runs a proxy wants of it and gets to know."""

    def __init__(
        self, *, settings: Callable[[], ProxySettings], tell: Callable[[ProxyRun], None]
    ) -> None:
        """`settings` gives those that new workers shall have, and may raise a BridgeError; `tell`
        is called at every change.
        """
        self.restart = asyncio.Event()  # set: replace every worker by a new one
        self.at_once = asyncio.Event()  # set while it stops: wait for no connection any more
        self.settings = settings
        self.tell = tell


async def run(
    settings: ProxySettings,
    workers: int,
    *,
    ready: Callable[[int], None],
    stop: asyncio.Event,
    operator: Operator | None = None,
) -> None:
    """Serves with so many processes until `stop` is set; `ready` gets the port once all serve.

    Raises PortInUse, and StartFailed with the worker's own reason when one could not start.
    """
    check_free(settings.listen_host, settings.listen_port)
    master = _Master(
        settings,
        workers,
        operator or Operator(settings=lambda: settings, tell=lambda run: None),
    )
    stopping = asyncio.create_task(stop.wait())
    starting = asyncio.create_task(master.start())
    duties: list[asyncio.Task[None]] = []
    try:
        await asyncio.wait((starting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            ready(master.port)
            duties += [asyncio.create_task(work) for work in master.duties()]
            await asyncio.wait((stopping, *duties), return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(stopping, starting, *duties)
        await master.end()
    for duty in duties:
        if not duty.cancelled():
            duty.result()  # one never ends by itself: it has failed


class _Master:
    def __init__(self, settings: ProxySettings, workers: int, operator: Operator) -> None:
        host = settings.listen_host
        first = listening_socket(host, settings.listen_port)
        self.port = int(first.getsockname()[1])
        self._settings = msgspec.structs.replace(settings, listen_port=self.port)
        self._operator = operator
        self._restarts = 0
        self._restarting = False
        self._failed = ""
        self._slots = [
            Slot(
                self._settings,
                (settings.slot + n, settings.slot + n + workers),
                first if n == 0 else listening_socket(host, self.port),
                changed=self._tell,
                expendable=self._expendable,
            )
            for n in range(workers)
        ]

    async def start(self) -> None:
        """Raises StartFailed."""
        starts = [asyncio.create_task(slot.start()) for slot in self._slots]
        try:
            await asyncio.gather(*starts)
        finally:
            await ended(*starts)  # when one fails the others are not waited for
        self._tell()

    def duties(self) -> list[Coroutine[Any, Any, None]]:
        return [*(slot.keep() for slot in self._slots), self._watch(), self._restart_on_demand()]

    async def end(self) -> None:
        """Workers finish what they have begun, and no more than that."""
        ending = asyncio.gather(*(slot.end() for slot in self._slots))
        hurry = asyncio.create_task(self._operator.at_once.wait())
        await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            for slot in self._slots:
                slot.kill()
        await ending
        await ended(hurry)

    async def _watch(self) -> None:
        clock = asyncio.get_running_loop().time
        looked_at_s = clock()
        while True:
            await asyncio.sleep(WORKER_BEAT_S)
            now_s = clock()
            for slot in self._slots:
                slot.look(now_s - looked_at_s)
            looked_at_s = now_s

    async def _restart_on_demand(self) -> None:
        while True:
            await self._operator.restart.wait()
            self._operator.restart.clear()
            self._restarts += 1
            self._restarting, self._failed = True, ""
            self._tell()
            try:
                await self._restart()
            except BridgeError as error:
                self._failed = str(error)
                _log.error("the restart was given up, what serves goes on: %s", error)
            self._restarting = False
            self._tell()

    async def _restart(self) -> None:
        """One slot after the other. Raises BridgeError: that slot and those behind it stay."""
        wanted = msgspec.structs.replace(
            self._operator.settings(),
            listen_host=self._settings.listen_host,
            listen_port=self.port,
        )
        for slot in self._slots:
            await slot.restart(wanted)
        self._settings = wanted
        await asyncio.gather(*(slot.left() for slot in self._slots))
        _log.info("every worker has been replaced")

    def _expendable(self, one: Slot) -> bool:
        return any(slot.listens for slot in self._slots if slot is not one)

    def _tell(self) -> None:
        self._operator.tell(
            ProxyRun(
                pid=os.getpid(),
                listen=f"{self._settings.listen_host}:{self.port}",
                restarts=self._restarts,
                restarting=self._restarting,
                failed=self._failed,
                slots=tuple(slot.state for slot in self._slots),
            )
        )


def _main() -> int:
    """One worker process. Settings come on standard input: the process list shows no key."""
    logging.basicConfig(format="proxy[%(process)d] %(levelname)s %(message)s")
    pipe = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anybody prints is no heartbeat
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=ProxySettings)
    raise_limit(len(settings.upstreams))
    try:
        uvloop.run(_serve(settings, pipe))
    except BridgeError as error:
        _log.error("%s", error)
        with contextlib.suppress(OSError):
            os.write(pipe, FAILED + str(error).replace("\n", " ").encode() + b"\n")
        return 1
    return 0


async def _serve(settings: ProxySettings, pipe: int) -> None:
    stop, replaced = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def end() -> None:
        if stop.is_set():
            os._exit(1)  # told twice
        _end_within(WORKER_STOP_S)
        stop.set()

    def leave() -> None:
        _end_within(WORKER_DRAIN_S)
        replaced.set()

    def ready(port: int) -> None:
        os.write(pipe, READY)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    loop.add_signal_handler(REPLACED, leave)
    gc.freeze()
    await serve_worker(settings, ready=ready, stop=stop, replaced=replaced, pipe=pipe)


def _end_within(seconds: float) -> None:
    """The kernel ends this process then, whatever it is doing: nobody handles that signal."""
    signal.setitimer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    sys.exit(_main())
