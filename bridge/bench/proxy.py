"""One proxy worker, tee on, beside a direct connection to the same tiny monolith.

Closed loop: each connection sends its next order when it has the answer to the last. So a latency
counts from the sending, and the rate is what so many connections reach, not an offered one. The two
ways are measured in turns, direct, proxy, proxy, direct, so that whatever else the machine does
meets both.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import redis
import uvloop

import bridge.sandbox
from bridge.bench.conditions import CpuMeter, conditions
from bridge.config import load
from bridge.errors import StartFailed
from bridge.proxy.worker import ProxySettings
from bridge.sandbox import processes
from bridge.sandbox.servers import EmbeddedRedis
from bridge.stage import STAGES_KEY, InstrumentStage, Stage, StageSnapshot, encode
from engine.endpoint import Endpoint
from shadow.capture import CAPTURE_STREAM

WARM_UP_S = 0.3
ALONE_S = 0.5  # of the measurement of one connection alone
_TURNS = ("direct", "proxy", "proxy", "direct")

_BODY = (
    b'{"order":{"market":"BTC-USD","side":"buy","order_type":"limit","time_in_force":"gtc",'
    b'"price":"236.47","quantity":"2.0"}}'
)
_REQUEST = (
    b"POST /api/v1/orders HTTP/1.1\r\nHost: exchange.test\r\nUser-Agent: bench\r\n"
    b"Accept: application/json\r\nContent-Type: application/json\r\nX-Member-Id: 7\r\n"
    b"Content-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY
_ANSWER_BODY = (
    b'{"order":{"id":%d,"market":"BTC-USD","side":"buy","order_type":"limit",'
    b'"time_in_force":"gtc","price":"236.47","quantity":"2.0","remaining_quantity":"2.0",'
    b'"filled_quantity":"0.0","state":"open","created_at":"2015-05-01T00:00:00.000Z",'
    b'"updated_at":"2015-05-01T00:00:00.000Z","trades":[]}}'
)
_ANSWER_HEAD = (
    b"HTTP/1.1 201 Created\r\nX-Frame-Options: SAMEORIGIN\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nVary: Accept\r\n"
    b'ETag: W/"0123456789abcdef0123456789abcdef"\r\n'
    b"Cache-Control: max-age=0, private, must-revalidate\r\nX-Request-Id: 0123456789abcdef\r\n"
    b"X-Runtime: 0.001000\r\nContent-Length: %d\r\n\r\n"
)


async def run(*, seconds: float, connections: int = 32) -> dict[str, Any]:
    """`seconds` is the length of each of the four turns."""
    place = Path(tempfile.mkdtemp(prefix="bench-proxy-"))
    told = conditions(place)
    try:
        async with _servers(place) as (worker_pid, ports, capture_stream):
            turns: dict[str, list[_Turn]] = {"direct": [], "proxy": []}
            for way in _TURNS:
                turn = _Turn(ports[way], connections, seconds)
                meter = CpuMeter(worker_pid)
                await asyncio.to_thread(turn.run)
                turn.worker_cpu_percent = meter.read()["cpu_percent"]["service"]
                turns[way].append(turn)
            alone = {way: await _alone(ports[way]) for way in ("direct", "proxy")}
            captured = await _captured(
                capture_stream, sum(len(t.all) for t in [*turns["proxy"], alone["proxy"]])
            )
    finally:
        shutil.rmtree(place, ignore_errors=True)
    direct, proxy = _report(turns["direct"]), _report(turns["proxy"])
    return {
        "name": "proxy",
        "conditions": told
        | {"loop": "closed", "workers": 1, "tee": "on", "client and monolith": "the same cores"},
        "connections": connections,
        "seconds_each_turn": seconds,
        "direct": direct,
        "proxy": proxy | {"worker_cpu_us_per_request": _cpu_us(turns["proxy"])},
        "one_connection_alone": _added(_report([alone["direct"]]), _report([alone["proxy"]])),
        "captured": captured,
    }


class _Turn:
    """A closed loop of some connections for some time."""

    def __init__(self, port: int, connections: int, seconds: float) -> None:
        self.all: list[int] = []  # ns of every exchange
        self.measured: list[int] = []  # without the warm-up
        self.elapsed_s = 0.0
        self.worker_cpu_percent = 0
        self._port = port
        self._connections = connections
        self._seconds = seconds

    def run(self) -> None:
        uvloop.run(self._run())

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        callers = []
        for _ in range(self._connections):
            _, caller = await loop.create_connection(
                lambda: _Caller(self.all), "127.0.0.1", self._port
            )
            callers.append(caller)
        for caller in callers:
            caller.begin()
        await asyncio.sleep(WARM_UP_S)
        warm, began = len(self.all), time.perf_counter()
        await asyncio.sleep(self._seconds)
        self.elapsed_s = time.perf_counter() - began
        self.measured = self.all[warm:]
        for caller in callers:
            caller.stopping = True
        for caller in callers:
            await caller.idle.wait()
            caller.transport.close()


class _Caller(asyncio.Protocol):
    def __init__(self, latencies_ns: list[int]) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self.stopping = False
        self.idle = asyncio.Event()
        self._latencies_ns = latencies_ns
        self._sent_ns = 0
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def begin(self) -> None:
        self._sent_ns = time.perf_counter_ns()
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        self._got += data
        if not self._got.endswith(b"]}}"):
            return
        self._latencies_ns.append(time.perf_counter_ns() - self._sent_ns)
        if not self._got.startswith(b"HTTP/1.1 201 "):
            raise StartFailed(f"the bench was answered {self._got[:80]!r}")
        self._got = b""
        if self.stopping:
            self.idle.set()
        else:
            self.begin()


class _TinyMonolith(asyncio.Protocol):
    """Takes every order, at once."""

    orders = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._got = b""

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._got.endswith(_BODY):
            self._got = b""
            _TinyMonolith.orders += 1
            body = _ANSWER_BODY % _TinyMonolith.orders
            self._transport.write(_ANSWER_HEAD % len(body) + body)


def _report(turns: list[_Turn]) -> dict[str, Any]:
    latencies = sorted(one for turn in turns for one in turn.measured)
    elapsed_s = sum(turn.elapsed_s for turn in turns)

    def at(share: float) -> float:
        return round(latencies[min(int(len(latencies) * share), len(latencies) - 1)] / 1000, 1)

    return {
        "requests_per_s": round(len(latencies) / elapsed_s),
        "requests_per_s_by_turn": [round(len(t.measured) / t.elapsed_s) for t in turns],
        "p50_us": at(0.5),
        "p99_us": at(0.99),
        "p999_us": at(0.999),
    }


async def _alone(port: int) -> _Turn:
    turn = _Turn(port, 1, ALONE_S)
    await asyncio.to_thread(turn.run)
    return turn


def _added(direct: dict[str, Any], proxy: dict[str, Any]) -> dict[str, Any]:
    """What the proxy adds to an order when nothing waits for anything else."""
    return {
        name: {"direct": direct[name], "proxy": proxy[name], "added": added}
        for name in ("p50_us", "p99_us")
        for added in [round(proxy[name] - direct[name], 1)]
    }


def _cpu_us(turns: list[_Turn]) -> float:
    """Processor time of the worker for each request: what remains true on a busy machine."""
    cpu_s = sum(t.worker_cpu_percent / 100 * (t.elapsed_s + WARM_UP_S) for t in turns)
    return round(cpu_s / sum(len(turn.all) for turn in turns) * 1e6, 1)


async def _captured(stream: redis.Redis, offered: int) -> dict[str, int]:
    """How many captures of the orders have come to the stream, once the tee has caught up."""
    found, deadline = -1, time.monotonic() + 5.0
    while found < offered and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
        entries: Any = await asyncio.to_thread(stream.xrange, CAPTURE_STREAM)
        found = sum(int(fields[b"count"]) for _, fields in entries)
    return {"orders": offered, "on_the_stream": found}


@contextlib.asynccontextmanager
async def _servers(place: Path) -> AsyncIterator[tuple[int, dict[str, int], redis.Redis]]:
    """The worker's process id, the ports, Redis. The worker has no control store: it finds its
    stages in Redis.
    """
    stream_server = EmbeddedRedis(place / "redis")
    await asyncio.to_thread(stream_server.start)
    stream = redis.Redis.from_url(stream_server.url)
    started: list[asyncio.subprocess.Process] = []
    try:
        config = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
        stages = {
            one.symbol: InstrumentStage(
                symbol=one.symbol, instrument=one.id, stage=Stage.SHADOW, epoch=1
            )
            for one in config.instruments
        }
        stream.set(STAGES_KEY, encode(StageSnapshot(version=1, instruments=stages)))
        monolith, line = await _start([sys.executable, "-m", __name__], b"")
        started.append(monolith)
        ports = {"direct": int(line), "proxy": processes.free_port()}
        settings = ProxySettings(
            listen_host="127.0.0.1",
            listen_port=ports["proxy"],
            upstream_host="127.0.0.1",
            upstream_port=ports["direct"],
            mapping=config.mapping,
            instruments=config.instruments,
            redis_url=stream_server.url,
            control_url="postgresql://nobody@127.0.0.1:1/none",
            legacy_url="postgresql://nobody@127.0.0.1:1/none",
            engine=Endpoint(host="127.0.0.1", port=1),
            engine_key="",
        )
        argv = [sys.executable, "-m", "bridge.proxy.master"]
        worker, _ = await _start(argv, msgspec.json.encode(settings))
        started.append(worker)
        yield worker.pid, ports, stream
    finally:
        for process in started:
            process.terminate()
            await process.wait()
        stream.close()
        await asyncio.to_thread(stream_server.remove)


async def _start(argv: list[str], given: bytes) -> tuple[asyncio.subprocess.Process, bytes]:
    """A process that gets `given` on its standard input and says one line when it is ready."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(given)
    process.stdin.close()
    line = await process.stdout.readline()
    if not line:
        raise StartFailed(f"{' '.join(argv[1:])} did not start")
    return process, line


async def _serve_monolith() -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    server = await loop.create_server(_TinyMonolith, "127.0.0.1", 0)
    os.write(sys.stdout.fileno(), b"%d\n" % server.sockets[0].getsockname()[1])
    await stop.wait()


if __name__ == "__main__":
    uvloop.run(_serve_monolith())
