"""The comparison as it runs in the shadow process: transactions of a synthetic monolith through the
real pipeline, with the real engine service and the real control store.

Two measurements. All operations at once: how many a second get their verdict, recorded. Then at a
tenth of that rate: from the moment at which a commit was due until its verdict. The monolith, its
change stream and its captures are in this process's memory and made beforehand, so that neither
PostgreSQL's decoding nor Redis is in the figures; the decoding of captures is.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import psycopg
from hdrh.histogram import HdrHistogram

import bridge.sandbox
from bridge.bench.conditions import CpuMeter, conditions
from bridge.bench.synthetic import Done, Monolith, open_for_shadow, random_flow
from bridge.config import load
from bridge.proxy.desk.dialect import Dialect
from bridge.sandbox.servers import EmbeddedPostgres
from engine.client import EngineClient
from engine.errors import EngineUnavailable
from engine.types import Role
from migrations import upgrade
from shadow.capture import encode_batch
from shadow.errors import SlotNotCreated
from shadow.legacy.convert import scales
from shadow.operation import LegacyTransaction, Mark, OrderImage
from shadow.pipeline import Pipeline
from shadow.ports import CaptureEntry
from shadow.store import Store
from shadow.verdict import Counts, Evidence

SYMBOLS = ("BTC-USD", "ETH-USD")
CAPTURES_PER_ENTRY = 32
PACED_SHARE = 0.1  # of the rate that was reached with everything at once
PACED_OPERATIONS_MAX = 5_000
STEP_S = 0.001  # commits that fall due within one step come together
DEADLINE_S = 600.0
LATENCY_US_MAX = 60_000_000
KEY = "bench"

_CONFIG = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
_SCALES = scales(_CONFIG.instruments)


async def run(
    *, operations: int = 20_000, implementation: str = "rust", directory: Path = Path("bench-data")
) -> dict[str, Any]:
    """`directory` decides which disk the journal and the store are on; what is written there is
    removed.
    """
    place = _place(directory)
    told = conditions(place)
    postgres = EmbeddedPostgres(place / "postgres")
    try:
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(upgrade, postgres.url())
        async with running_engine(place / "engine", implementation) as (pid, port):
            return await _measure(postgres.url(), pid, port, operations, told)
    finally:
        await asyncio.to_thread(postgres.remove)
        shutil.rmtree(place, ignore_errors=True)


def _place(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="bench-pipeline-", dir=directory))


async def _measure(
    url: str, engine_pid: int, port: int, operations: int, told: dict[str, Any]
) -> dict[str, Any]:
    world = _World()
    paced = min(operations, PACED_OPERATIONS_MAX)
    burst, later = world.make(operations), world.make(paced)
    gc.freeze()  # what was made beforehand is no part of the shadow process
    await begin_shadow(url)
    control = await engine_session(port, "bench", Role.ADMIN)
    await control.send(open_for_shadow(_SCALES.values(), session=0), timeout_s=30.0)
    feed = await engine_session(port, "shadow-feed", Role.SHADOW)
    load_client = await engine_session(port, "shadow-load", Role.SHADOW)
    store = Store(url)
    async with _shadow(world, store, feed, load_client):
        await _until(store, lambda found: found.run > 0)
        meter, began = CpuMeter(engine_pid), time.perf_counter()
        world.commit(burst)
        await _until_settled(store, operations)
        burst_s, cpu = time.perf_counter() - began, meter.read()
        rate = operations / burst_s * PACED_SHARE
        world.latencies.reset()
        await world.commit_paced(later, rate)
        counts = await _until_settled(store, operations + paced)
        implementation = (await feed.status()).implementation
    for client in (control, feed, load_client):
        await client.close()
    await store.close()
    return {
        "name": "pipeline",
        "implementation": implementation,
        "conditions": told | cpu,
        "operations": operations,
        "operations_per_s": round(operations / burst_s),
        "paced_operations_per_s": round(rate),
        "commit_to_verdict_us": quantiles(world.latencies),
        "counts": msgspec.to_builtins(counts),
    }


class _Snapshot(NamedTuple):
    lsn: int
    orders: list[OrderImage]


class _World:
    """The monolith, its change stream and the captures' stream: all that the pipeline reads."""

    def __init__(self) -> None:
        self.latencies = HdrHistogram(1, LATENCY_US_MAX, 3)
        self._monolith = Monolith(_SCALES, _CONFIG.mapping)
        self._flow = random_flow(self._monolith, SYMBOLS, seed=1)
        self._log: list[LegacyTransaction] = []
        self._entries: list[CaptureEntry] = []
        self._committed = asyncio.Event()
        self._due_ns: dict[int, int] = {}  # by commit_lsn

    def make(self, count: int) -> list[Done]:
        now = time.time_ns() + 3600 * 10**9  # no capture is from before the load
        return [
            Done(tx=one.tx, capture=msgspec.structs.replace(one.capture, sent_at_ns=now))
            for one in islice(self._flow, count)
        ]

    def commit(self, done: Sequence[Done], due_ns: int = 0) -> None:
        due_ns = due_ns or time.perf_counter_ns()
        for start in range(0, len(done), CAPTURES_PER_ENTRY):
            captures = [one.capture for one in done[start : start + CAPTURES_PER_ENTRY]]
            entry_id = f"{len(self._entries) + 1:09d}-0"
            self._entries.append(CaptureEntry(entry_id, encode_batch(captures)))
        for one in done:
            self._due_ns[one.tx.commit_lsn] = due_ns
            self._log.append(one.tx)
        self._committed.set()

    async def commit_paced(self, done: Sequence[Done], rate: float) -> None:
        began_ns = time.perf_counter_ns()
        at = 0
        while at < len(done):
            due = min(len(done), int((time.perf_counter_ns() - began_ns) * rate / 1e9) + 1)
            for index in range(at, due):
                self.commit(done[index : index + 1], began_ns + int(index / rate * 1e9))
            at = due
            await asyncio.sleep(STEP_S)

    def judged(self, symbol: str, commit_lsn: int) -> None:
        due_ns = self._due_ns.pop(commit_lsn, None)
        if due_ns is not None:
            elapsed_us = (time.perf_counter_ns() - due_ns) // 1000
            self.latencies.record_value(min(max(elapsed_us, 1), LATENCY_US_MAX))

    # --- as the pipeline sees it

    async def open(self, expected_lsn: int = 0) -> None:
        return

    async def close(self) -> None:
        return

    def confirm(self, end_lsn: int) -> None:
        return

    async def transactions(self) -> AsyncIterator[LegacyTransaction]:
        at = 0
        while True:
            while at < len(self._log):
                yield self._log[at]
                at += 1
            self._committed.clear()
            await self._committed.wait()

    async def newest(self, count: int) -> list[CaptureEntry]:
        return self._entries[::-1][:count]

    async def read(self, after: str, count: int, block_ms: int) -> list[CaptureEntry]:
        at = int(after.partition("-")[0])
        if at >= len(self._entries):
            await asyncio.sleep(STEP_S)
        return self._entries[at : at + count]

    async def open_orders(self, symbols: Sequence[str], hold: Callable[[], None]) -> _Snapshot:
        """Empty: nothing has been committed when the load is done. Checks of the books are left
        out: what was made beforehand is the book of another moment.
        """
        hold()
        if self._due_ns or self.latencies.get_total_count():
            raise SlotNotCreated("the bench compares no books")
        return _Snapshot(1, [])

    async def owners(self, order_ids: Sequence[int]) -> dict[int, tuple[str, int]]:
        return {one: self._monolith.owners[one] for one in order_ids}

    async def write_mark(self, mark_id: str) -> None:
        last = self._log[-1].commit_lsn if self._log else 1
        tx = self._monolith.transaction(Mark(id=mark_id))
        self._log.append(msgspec.structs.replace(tx, commit_lsn=last, end_lsn=last + 1))
        self._committed.set()


@contextlib.asynccontextmanager
async def _shadow(
    world: _World, store: Store, feed: EngineClient, load_client: EngineClient
) -> AsyncIterator[None]:
    writer = Store(store.url)
    pipeline = Pipeline(
        changes=lambda: world,
        captures=world,
        feed_client=feed,
        load_client=load_client,
        store=writer,
        snapshots=world,
        render=Dialect(_CONFIG.mapping.responses, _CONFIG.mapping.words, _SCALES),
        mapping=_CONFIG.mapping,
        scales=_SCALES,
        judged=world.judged,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop))
    try:
        yield
    finally:
        stop.set()
        await running
        await writer.close()


async def _until_settled(store: Store, operations: int) -> Counts:
    seen = Counts()
    async with asyncio.timeout(DEADLINE_S):
        while seen.seen - seen.pending < operations:
            await asyncio.sleep(STEP_S * 20)
            seen = await _counts(store)
    return seen


async def _counts(store: Store) -> Counts:
    several = [await store.read_evidence(symbol) for symbol in SYMBOLS]
    counts = [one.counts for one in several if one is not None]
    return Counts(
        **{name: sum(getattr(one, name) for one in counts) for name in Counts.__struct_fields__}
    )


async def _until(store: Store, condition: Callable[[Evidence], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        for symbol in SYMBOLS:
            found = await store.read_evidence(symbol)
            while found is None or not condition(found):
                await asyncio.sleep(STEP_S * 20)
                found = await store.read_evidence(symbol)


async def begin_shadow(url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        for symbol in SYMBOLS:
            await connection.execute(
                "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
                " VALUES (%s, %s, 'shadow', 1)",
                (symbol, _SCALES[symbol].instrument),
            )


async def engine_session(port: int, name: str, role: Role) -> EngineClient:
    client = EngineClient(host="127.0.0.1", port=port, name=name, key=f"{KEY}-{role}")
    await client.start()
    return client


@contextlib.asynccontextmanager
async def running_engine(directory: Path, implementation: str) -> AsyncIterator[tuple[int, int]]:
    """A process of its own; its id and port."""
    settings = {"directory": str(directory), "implementation": implementation}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from bridge.bench.service import serve_here; serve_here()",
        json.dumps(settings),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise EngineUnavailable("the engine of the bench did not start; see its message above")
        yield process.pid, int(line)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def quantiles(histogram: HdrHistogram) -> dict[str, int]:
    at = histogram.get_value_at_percentile
    return {"count": histogram.get_total_count(), "p50": at(50), "p99": at(99), "p99_9": at(99.9)}
