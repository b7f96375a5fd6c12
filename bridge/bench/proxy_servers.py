"""The servers of the proxy's benchmark: each way from the load to the tiny monolith, and its shadow
side in good and in bad health.

Every turn gets servers of its own, so that nothing that an earlier one left behind, a full queue
above all, is in its figures.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import redis

import bridge.sandbox
from bridge.bench import nginx
from bridge.bench.nginx import Nginx
from bridge.config import load
from bridge.errors import StartFailed
from bridge.limits import SERVER_POLL_S, SERVER_START_S
from bridge.proxy.settings import ProxySettings
from bridge.proxy.slot import READY
from bridge.sandbox import processes
from bridge.sandbox.servers import EmbeddedRedis
from bridge.stage import (
    STAGES_KEY,
    WORKERS_KEY_PREFIX,
    InstrumentStage,
    Stage,
    StageSnapshot,
    WorkerReport,
    decode_report,
    encode,
)
from engine.endpoint import Endpoint
from shadow.capture import CAPTURE_STREAM

SLOW_MS = 200
LOG = "stderr.log"  # of all of them
_READ_ENTRIES = 100  # of at most half a megabyte each
_LINE_BYTES_MAX = 2**24  # of the load: a number for each microsecond that was seen
_NGINX_STOP_S = 2.0
_CONTROL = "postgresql://nobody@127.0.0.1:1/none"  # there is none: the stages are in Redis


class Way(StrEnum):
    DIRECT = "direct"
    NGINX = "nginx"
    MIRROR = "nginx mirror"
    RAILSWITCH = "railswitch"

    @property
    def has_shadow(self) -> bool:
        return self in (Way.MIRROR, Way.RAILSWITCH)


class Shadow(StrEnum):
    """How the shadow side is: Redis for railswitch, the mirror's target for nginx."""

    FAST = "fast"
    SLOW = "slow"  # every answer SLOW_MS later
    HUNG = "hung"  # takes connections, and never answers
    DEAD = "dead"  # its port is closed


class Child(NamedTuple):
    process: asyncio.subprocess.Process
    said: bytes  # its first line

    def pace(self, *, delay_ms: int = 0, bytes_per_s: int = 0) -> None:
        """Makes a peer slow."""
        assert self.process.stdin is not None
        self.process.stdin.write(b"%d %d\n" % (delay_ms, bytes_per_s))

    async def become(self, shadow: Shadow) -> None:
        if shadow is Shadow.SLOW:
            self.pace(delay_ms=SLOW_MS)
        elif shadow is Shadow.HUNG:
            self.process.send_signal(signal.SIGSTOP)
        elif shadow is Shadow.DEAD:
            self.process.kill()
            await self.process.wait()


class Front(NamedTuple):
    """What the load is put on."""

    port: int
    pid: int = 0  # of the proxy; 0: there is none
    captures: bool = False  # every order's capture comes to the stream


class Place(NamedTuple):
    """What all the turns share."""

    directory: Path
    monolith: int  # its port
    redis: EmbeddedRedis
    stream: redis.Redis
    nginx: Nginx | None
    implementation: str  # of the data plane, as it was asked for; "": as the worker chooses
    planes: set[str]  # what the workers said they were
    seen: set[tuple[bytes, bytes]]  # entries of the stream: worker, and first number

    @property
    def plane(self) -> str:
        return ", ".join(sorted(self.planes))

    async def drained(self, at_least: int, within_s: float = 5.0) -> int:
        """Takes the captures from the stream, as a reader would, until there were so many or
        time is up; how many there were.
        """
        found, deadline = 0, time.monotonic() + within_s
        while found < at_least and time.monotonic() < deadline:
            some = self.read()
            found += some.captures
            if not some.entries:
                await asyncio.sleep(SERVER_POLL_S)
        return found

    def read(self) -> Read:
        """Takes some entries from the stream. One that was sent twice counts once."""
        entries: Any = self.stream.xrange(CAPTURE_STREAM, count=_READ_ENTRIES)
        if not entries:
            return Read(0, 0, 0)
        self.stream.xdel(CAPTURE_STREAM, *(key for key, _ in entries))
        new = {(one[b"worker"], one[b"first"]): one for _, one in entries}
        new = {name: one for name, one in new.items() if name not in self.seen}
        self.seen.update(new)
        return Read(
            entries=len(entries),
            captures=sum(int(one[b"count"]) for one in new.values()),
            bytes=sum(len(one[b"batch"]) for one in new.values()),
        )

    def report(self, pid: int) -> WorkerReport | None:
        """What this worker has said of itself last, if Redis still has it."""
        keys: Any = self.stream.keys(f"{WORKERS_KEY_PREFIX}*")
        values: Any = self.stream.mget(keys) if keys else []
        reports = [decode_report(value) for value in values if value is not None]
        return next((one for one in reports if one.pid == pid), None)


class Read(NamedTuple):
    entries: int
    captures: int
    bytes: int


@contextlib.asynccontextmanager
async def opened(directory: Path, implementation: str) -> AsyncIterator[Place]:
    """Redis, the tiny monolith, and nginx looked for."""
    server = EmbeddedRedis(directory / "redis")
    await asyncio.to_thread(server.start)
    stream = redis.Redis.from_url(server.url)
    try:
        stream.set(STAGES_KEY, encode(_all_in_shadow()))
        async with peer("monolith", directory) as monolith:
            yield Place(
                directory=directory,
                monolith=int(monolith.said),
                redis=server,
                stream=stream,
                nginx=nginx.found(directory),
                implementation=implementation,
                planes=set(),
                seen=set(),
            )
    finally:
        stream.close()
        await asyncio.to_thread(server.remove)


def ways(place: Place) -> list[Way]:
    """Those that can be measured here."""
    have_nginx = place.nginx is not None
    mirrors = place.nginx is not None and not place.nginx.no_mirror
    missing = {Way.NGINX: not have_nginx, Way.MIRROR: not mirrors}
    return [way for way in Way if not missing.get(way)]


@contextlib.asynccontextmanager
async def front(place: Place, way: Way, shadow: Shadow) -> AsyncIterator[Front]:
    """`shadow` says nothing of a way that has no shadow side."""
    if way is Way.DIRECT:
        yield Front(place.monolith)
    elif way is Way.NGINX:
        async with _nginx(place) as started:
            yield started
    elif way is Way.MIRROR:
        async with peer("monolith", place.directory) as target:
            async with _nginx(place, mirror=int(target.said)) as started:
                await target.become(shadow)
                yield started
    elif shadow is Shadow.FAST:
        async with worker(place, place.redis.port) as started:
            yield started
    else:
        async with relay(place) as between, worker(place, int(between.said)) as started:
            await between.become(shadow)
            yield started


@contextlib.asynccontextmanager
async def worker(place: Place, redis_port: int) -> AsyncIterator[Front]:
    """One worker process, its captures on their way to the Redis behind that port."""
    config = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
    port = processes.free_port()
    spool = spool_of(place)
    spool.mkdir(exist_ok=True)
    settings = ProxySettings(
        listen_host="127.0.0.1",
        listen_port=port,
        upstreams=(f"http://127.0.0.1:{place.monolith}",),
        spool_dir=str(spool),
        implementation=place.implementation,
        mapping=config.mapping,
        instruments=config.instruments,
        redis_url=f"redis://127.0.0.1:{redis_port}/0",
        control_url=_CONTROL,
        legacy_url=_CONTROL,
        engine=Endpoint(host="127.0.0.1", port=1),
        engine_key="",
    )
    argv = [sys.executable, "-m", "bridge.proxy.master"]
    try:
        async with child(argv, place.directory, given=msgspec.json.encode(settings)) as started:
            if started.said != READY:
                raise StartFailed(f"the worker did not start: {started.said.decode().strip()}")
            pid = started.process.pid
            if report := place.report(pid):
                place.planes.add(report.implementation)
            yield Front(port, pid, captures=redis_port == place.redis.port)
    finally:
        shutil.rmtree(spool)
        place.stream.delete(CAPTURE_STREAM)


def spool_of(place: Place) -> Path:
    return place.directory / "spool"


@contextlib.asynccontextmanager
async def relay(place: Place) -> AsyncIterator[Child]:
    """In front of Redis."""
    async with peer("relay", place.directory, place.redis.port) as started:
        yield started


@contextlib.asynccontextmanager
async def peer(kind: str, directory: Path, port: int = 0) -> AsyncIterator[Child]:
    argv = [sys.executable, "-m", "bridge.bench.proxy_peers", kind, str(port)]
    async with child(argv, directory) as started:
        yield started


@contextlib.asynccontextmanager
async def child(
    argv: list[str],
    directory: Path,
    *,
    given: bytes | None = None,
    is_silent: bool = False,
    death_signal: int = signal.SIGKILL,
) -> AsyncIterator[Child]:
    """A process that has said its first line, unless it is silent; killed at the end, with its
    own. It gets `given` and the end of its standard input, or keeps it open. Raises StartFailed.
    """
    log = directory / LOG
    with log.open("ab") as errors:
        log_start = log.stat().st_size
        process = await asyncio.create_subprocess_exec(
            *processes.command_line(argv, death_signal=death_signal),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            limit=_LINE_BYTES_MAX,
            start_new_session=True,  # a Ctrl-C in the terminal reaches only us
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if given is not None:
            process.stdin.write(given)
            process.stdin.close()
        said = b"" if is_silent else await process.stdout.readline()
        if not said and not is_silent:
            why = processes.log_tail(log, log_start)
            raise StartFailed(f"{' '.join(argv[1:])} did not start: {why}")
        yield Child(process, said)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


@contextlib.asynccontextmanager
async def _nginx(place: Place, mirror: int = 0) -> AsyncIterator[Front]:
    assert place.nginx is not None
    own = place.directory / "nginx"
    own.mkdir(exist_ok=True)
    port = processes.free_port()
    file = nginx.written(own, port=port, upstream=place.monolith, mirror=mirror)
    argv = nginx.command(place.nginx, own, file)
    # A killed nginx would leave its worker behind.
    quiet = child(argv, place.directory, is_silent=True, death_signal=signal.SIGTERM)
    async with quiet as started:
        await _accepts(port, started.process)
        try:
            yield Front(port, started.process.pid)
        finally:
            await _ended(started.process)


async def _ended(process: asyncio.subprocess.Process) -> None:
    """By itself, if it can."""
    with contextlib.suppress(ProcessLookupError, TimeoutError):
        process.terminate()
        async with asyncio.timeout(_NGINX_STOP_S):
            await process.wait()


async def _accepts(port: int, process: asyncio.subprocess.Process) -> None:
    deadline = time.monotonic() + SERVER_START_S
    while process.returncode is None and time.monotonic() < deadline:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(SERVER_POLL_S)
        else:
            writer.close()
            return
    raise StartFailed("nginx did not start: `nginx -t` may say why")


def _all_in_shadow() -> StageSnapshot:
    config = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
    stages = {
        one.symbol: InstrumentStage(
            symbol=one.symbol, instrument=one.id, stage=Stage.SHADOW, epoch=1
        )
        for one in config.instruments
    }
    return StageSnapshot(version=1, instruments=stages)
