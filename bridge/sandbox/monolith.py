"""Runs the sandbox monolith: a parent that keeps its worker processes going, like Puma's cluster.

`python -m bridge.sandbox.monolith --database-url URL --port 3000 --workers 2`
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from random import Random

import msgspec
import psycopg
import uvloop
from aiohttp import web

from bridge.errors import BridgeError, ConfigError, PortInUse, StartFailed
from bridge.limits import (
    RESTART_BACKOFF_S_MIN,
    SANDBOX_IDLE_S,
    SANDBOX_POOL_CONNECTIONS,
    SANDBOX_STOP_S,
)
from bridge.sandbox import console, processes
from bridge.sandbox.exchange import Exchange
from bridge.sandbox.matching import Faults
from bridge.sandbox.pool import Pool
from bridge.sandbox.web import application

_log = logging.getLogger(__name__)
_READY = b"ready\n"


class MonolithSettings(msgspec.Struct, frozen=True, kw_only=True):
    database_url: str  # as the application's role
    host: str = "127.0.0.1"
    port: int = 0  # 0: a free one
    workers: int = 2
    faults: Faults = Faults()
    seed: int = 0


def parse_faults(texts: Sequence[str]) -> Faults:
    """Each `KIND:SYMBOL:NUMBER`: priority and rounding take a probability, dark orders per second.

    Raises ConfigError.
    """
    faults: dict[str, dict[str, float]] = {"priority": {}, "rounding": {}, "dark": {}}
    for text in texts:
        kind, _, rest = text.partition(":")
        symbol, _, number = rest.partition(":")
        amount = float(number) if number.replace(".", "", 1).isdecimal() else -1.0
        if kind not in faults or not symbol or not 0 < amount <= (1000 if kind == "dark" else 1):
            raise ConfigError(
                f"--fault {text}: must be priority:SYMBOL:PROBABILITY, rounding:SYMBOL:PROBABILITY"
                " or dark:SYMBOL:ORDERS_PER_SECOND, e.g. priority:ETH-USD:0.02"
            )
        faults[kind][symbol] = amount
    return msgspec.convert(faults, Faults)


def run(settings: MonolithSettings, *, ready: Callable[[int], None] = lambda port: None) -> None:
    """Blocks until SIGTERM or SIGINT; call it from the main thread.

    `ready` gets the port when every worker listens. Raises StartFailed, PortInUse.
    """
    symbols = _check_database(settings.database_url)
    named = {*settings.faults.priority, *settings.faults.rounding, *settings.faults.dark}
    if named - symbols:
        raise ConfigError(
            f"--fault names {', '.join(sorted(named - symbols))}, and the sandbox has only"
            f" {', '.join(sorted(symbols))}"
        )
    with _reserve_port(settings.host, settings.port) as reserved:
        port = reserved.getsockname()[1]
        uvloop.run(_supervise(msgspec.structs.replace(settings, port=port), ready))


def _check_database(url: str) -> set[str]:
    try:
        with psycopg.connect(url) as connection:
            rows = connection.execute("SELECT id FROM markets").fetchall()
    except psycopg.Error as error:
        raise StartFailed(
            f"the sandbox's database {url} can't be used: {str(error).splitlines()[0]};"
            " `railswitch sandbox` without --database-url makes one"
        ) from error
    return {row[0] for row in rows}


def _reserve_port(host: str, port: int) -> socket.socket:
    """Bound and not listening: it keeps the number while workers come and go."""
    if port and not processes.port_is_free(port):
        raise PortInUse(f"another program listens on {host}:{port}; choose another --port")
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        reserved.bind((host, port))
    except OSError as error:
        reserved.close()
        raise PortInUse(f"can't listen on {host}:{port}: {error.strerror}") from error
    return reserved


async def _supervise(settings: MonolithSettings, ready: Callable[[int], None]) -> None:
    stop = _stop_event()
    started = await asyncio.gather(*(_start(settings, n) for n in range(settings.workers)))
    keepers = [
        asyncio.create_task(_keep(settings, number, process))
        for number, process in enumerate(started)
    ]
    ready(settings.port)
    await stop.wait()
    for keeper in keepers:
        keeper.cancel()
    await asyncio.gather(*keepers, return_exceptions=True)


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _keep(
    settings: MonolithSettings, number: int, process: asyncio.subprocess.Process
) -> None:
    """Starts a worker again when it dies; ends it when cancelled."""
    try:
        while True:
            status = await process.wait()
            _log.warning("worker %d ended with status %s: starting another", number, status)
            await asyncio.sleep(RESTART_BACKOFF_S_MIN)
            with contextlib.suppress(StartFailed):
                process = await _start(settings, number)
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), 2 * SANDBOX_STOP_S)
            except TimeoutError:
                process.kill()
                await process.wait()


async def _start(settings: MonolithSettings, number: int) -> asyncio.subprocess.Process:
    encoded = msgspec.json.encode(settings).decode()
    argv = [sys.executable, "-m", __spec__.name, "--worker", str(number), "--settings", encoded]
    process = await asyncio.create_subprocess_exec(
        *processes.command_line(argv, death_signal=signal.SIGTERM),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        env=processes.clean_environment(),
    )
    assert process.stdout is not None
    if await process.stdout.readline() != _READY:
        await process.wait()
        raise StartFailed(f"the sandbox's worker {number} did not start; its reason is above")
    return process


async def _work(settings: MonolithSettings, number: int) -> None:
    """One worker process: serves until SIGTERM, then answers what it has begun."""
    stop = _stop_event()
    pool = Pool(settings.database_url, SANDBOX_POOL_CONNECTIONS)
    chance = Random(f"{settings.seed}/{number}")
    exchange = Exchange(pool, settings.faults, chance)
    rules = await exchange.market_rules()
    runner = web.AppRunner(
        application(exchange, rules),
        access_log=None,
        keepalive_timeout=SANDBOX_IDLE_S,
        shutdown_timeout=SANDBOX_STOP_S,
    )
    await runner.setup()
    await web.TCPSite(runner, settings.host, settings.port, reuse_port=True).start()
    dark = settings.faults.dark if number == 0 else {}
    consoles = [
        asyncio.create_task(console.write_orders(exchange, rules[symbol], per_s, chance))
        for symbol, per_s in dark.items()
    ]
    os.write(sys.stdout.fileno(), _READY)
    await stop.wait()
    for task in consoles:
        task.cancel()
    await asyncio.gather(*consoles, return_exceptions=True)
    await runner.cleanup()
    await pool.close()


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bridge.sandbox.monolith", description=__doc__)
    parser.add_argument("--database-url", help="as the application's role")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=3000, help="0: a free one")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--fault", action="append", default=[], metavar="KIND:SYMBOL:NUMBER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--settings", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    logging.basicConfig(format="monolith[%(process)d] %(levelname)s %(message)s")
    if given.worker is not None:
        settings = msgspec.json.decode(given.settings, type=MonolithSettings)
        try:
            uvloop.run(_work(settings, given.worker))
        except (psycopg.Error, OSError) as error:
            _log.error("worker %d: %s", given.worker, error)
            return 1
        return 0
    if not given.database_url:
        parser.error("--database-url is needed")
    try:
        settings = MonolithSettings(
            database_url=given.database_url,
            host=given.host,
            port=given.port,
            workers=given.workers,
            faults=parse_faults(given.fault),
            seed=given.seed,
        )
        run(settings, ready=lambda port: print(f"http://{given.host}:{port}", flush=True))
    except BridgeError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
