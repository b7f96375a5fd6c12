"""Several workers on one port: the kernel deals connections out, and a dead worker is replaced."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable

import msgspec
import uvloop

from bridge.errors import BridgeError, PortInUse, StartFailed
from bridge.limits import (
    CHILD_STOP_S,
    RESTART_BACKOFF_S_MAX,
    RESTART_BACKOFF_S_MIN,
    RESTART_RESET_S,
)
from bridge.proxy.worker import ProxySettings, serve_worker
from bridge.sandbox import processes

_log = logging.getLogger(__name__)
_READY = b"ready\n"


async def run(
    settings: ProxySettings,
    workers: int,
    *,
    ready: Callable[[int], None],
    stop: asyncio.Event,
) -> None:
    """Serves with so many processes until `stop` is set; a single one serves in this process.

    `ready` gets the port once every worker accepts clients. Raises StageUnknown, PortInUse, and
    StartFailed when a worker process could not start: its own message is on standard error then.
    """
    if settings.listen_port and not processes.port_is_free(settings.listen_port):
        # The kernel would let us share it with another proxy, and clients would meet either.
        raise PortInUse(
            f"another program listens on {settings.listen_host}:{settings.listen_port}; stop it, "
            f"or change proxy.listen"
        )
    if workers == 1:
        gc.freeze()
        await serve_worker(settings, ready=ready, stop=stop)
        return
    with _reserved(settings) as bound:
        port = bound.getsockname()[1]
        settings = msgspec.structs.replace(settings, listen_port=port)
        slots = [_Slot(settings, settings.slot + n) for n in range(workers)]
        try:
            await asyncio.gather(*(slot.start() for slot in slots))
            ready(port)
            keepers = [asyncio.create_task(slot.keep(stop)) for slot in slots]
            await stop.wait()
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
        finally:
            await asyncio.gather(*(slot.end() for slot in slots))


class _Slot:
    """A place for one worker process."""

    def __init__(self, settings: ProxySettings, number: int) -> None:
        self._settings = msgspec.structs.replace(settings, slot=number)
        self._number = number
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Raises StartFailed."""
        argv = [sys.executable, "-m", __name__]
        self._process = process = await asyncio.create_subprocess_exec(
            *processes.command_line(argv, death_signal=signal.SIGTERM),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(self._settings))
        process.stdin.close()
        if await process.stdout.readline() != _READY:
            await process.wait()
            raise StartFailed(f"proxy worker {self._number} did not start; its reason is above")

    async def keep(self, stop: asyncio.Event) -> None:
        """Replaces the process whenever it dies."""
        loop = asyncio.get_running_loop()
        backoff_s = RESTART_BACKOFF_S_MIN
        while self._process is not None:
            began = loop.time()
            status = await self._process.wait()
            if stop.is_set():
                return
            _log.error("proxy worker %d ended with status %s", self._number, status)
            if loop.time() - began > RESTART_RESET_S:
                backoff_s = RESTART_BACKOFF_S_MIN
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, RESTART_BACKOFF_S_MAX)
            with contextlib.suppress(StartFailed):
                await self.start()

    async def end(self) -> None:
        """Lets it finish what it has begun, and no longer than that."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(CHILD_STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _reserved(settings: ProxySettings) -> socket.socket:
    """Bound, and never listening: it keeps the port while workers come and go."""
    family, kind, proto, _, address = socket.getaddrinfo(
        settings.listen_host, settings.listen_port, type=socket.SOCK_STREAM
    )[0]
    bound = socket.socket(family, kind, proto)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise PortInUse(
            f"the proxy can't listen on {settings.listen_host}:{settings.listen_port}: "
            f"{error.strerror}; stop what listens there, or change proxy.listen"
        ) from error
    return bound


def _main() -> int:
    """One worker process. Settings come on standard input: the process list shows no key."""
    logging.basicConfig(format="proxy[%(process)d] %(levelname)s %(message)s")
    settings = msgspec.json.decode(sys.stdin.buffer.read(), type=ProxySettings)
    try:
        uvloop.run(_serve(settings))
    except BridgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


async def _serve(settings: ProxySettings) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    def ready(port: int) -> None:
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()

    gc.freeze()
    await serve_worker(settings, ready=ready, stop=stop)


if __name__ == "__main__":
    sys.exit(_main())
