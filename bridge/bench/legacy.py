"""The way from the monolith's database to the engine: a real PostgreSQL, whose triggers and log do
what they do in operation, a real engine service and a real control store.

Four measurements. The reader alone on changes that wait for it, streaming and polling. The same
through the pipeline, until the engine has answered the last command. Then commits at a rate: from
the moment at which the server says that it committed until the command is sent. And the reader's
memory, while so many changes are written and read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from hdrh.histogram import HdrHistogram

from bridge.bench.conditions import CpuMeter, conditions, resident_bytes
from bridge.bench.legacy_writer import CHANGES_PER_PAIR, COMMITS_PER_PAIR, CONFIG, Monolith
from bridge.bench.pipeline import begin_shadow, engine_session, quantiles, running_engine
from bridge.bench.synthetic import open_for_shadow
from bridge.config import LegacyConfig
from bridge.proxy.desk.dialect import Dialect
from bridge.sandbox.servers import EmbeddedPostgres
from bridge.shadowing import Sources
from engine.client import EngineClient
from engine.types import Command, Role
from migrations import upgrade
from shadow.legacy.convert import scales
from shadow.legacy.snapshot import write_mark
from shadow.legacy.source import Source
from shadow.operation import LegacyTransaction, Mark
from shadow.pipeline import Pipeline
from shadow.ports import Answered, Book, CaptureEntry
from shadow.store import Store

WAITING_CHANGES_MAX = 200_000  # written before they are read: about 100 MB of log
PACED_CHANGES_MAX = 100_000
DEADLINE_S = 3600.0
JUDGED_S = 3.0  # orders without a capture are judged a second later: no part of what comes next
LATENCY_US_MAX = 60_000_000
SAMPLE_CHANGES = 20_000  # from one look at the memory to the next
SETTLED_SHARE = 0.2  # of the changes: then whatever grows once has grown

_SCALES = scales(CONFIG.instruments)


async def run(
    *,
    changes: int = 40_000,
    changes_rate: int = 2_000,
    implementation: str = "rust",
    directory: Path = Path("bench-data"),
) -> dict[str, Any]:
    """`changes_rate`: changes/s that are written for the latencies. `directory` decides which disk
    all of it is on; what is written there is removed.
    """
    place = _place(directory)
    told = conditions(place)
    postgres = EmbeddedPostgres(place / "postgres")
    try:
        await asyncio.to_thread(postgres.start)
        await asyncio.to_thread(upgrade, postgres.url())
        monolith = await asyncio.to_thread(Monolith, postgres)
        meter = CpuMeter()
        waiting = min(changes, WAITING_CHANGES_MAX)
        async with asyncio.timeout(DEADLINE_S):
            found = {
                "stream": await _reader_alone(monolith, "stream", waiting),
                "memory": await _memory(monolith, changes),
            }
            async with running_engine(place / "engine", implementation) as (_, port):
                found |= await _piped(postgres.url(), port, monolith, waiting, changes_rate)
            found["poll"] = await _reader_alone(monolith, "poll", waiting)
    finally:
        await asyncio.to_thread(postgres.remove)
        shutil.rmtree(place, ignore_errors=True)
    return {
        "name": "legacy",
        "implementation": implementation,
        "conditions": told | meter.read(),
        "changes_per_transaction": CHANGES_PER_PAIR / COMMITS_PER_PAIR,
        **found,
    }


def _place(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="bench-legacy-", dir=directory))
    place.chmod(0o711)  # else PostgreSQL, which does not run as root, puts its data elsewhere
    return place


def _legacy(monolith: Monolith, way: str) -> LegacyConfig:
    return LegacyConfig(
        database_url=monolith.url, upstream=CONFIG.legacy.upstream, changes=way, slot=f"bench_{way}"
    )


@contextlib.asynccontextmanager
async def _opened(monolith: Monolith, way: str) -> AsyncIterator[tuple[Sources, Source]]:
    sources = Sources(_legacy(monolith, way), CONFIG.mapping, _SCALES)
    source = sources.changes()
    await source.open()
    try:
        yield sources, source
    finally:
        await source.close()


async def _reader_alone(monolith: Monolith, way: str, wanted: int) -> dict[str, Any]:
    if way == "poll":
        await asyncio.to_thread(monolith.install_polling)
    async with _opened(monolith, way) as (sources, source):
        pass  # the slot is made: from here on changes are kept
    written = await monolith.trade(wanted)
    await sources.snapshots().write_mark("end")
    async with _opened(monolith, way) as (_, source):
        began = time.perf_counter()
        read = 0
        async for tx in source.transactions():
            read += len(tx.changes)
            source.confirm(tx.end_lsn)
            if _is_end(tx):
                break
        elapsed_s = time.perf_counter() - began
    return {"changes": written, "read": read - 1, "changes_per_s": round(written / elapsed_s)}


async def _memory(monolith: Monolith, changes: int) -> dict[str, Any]:
    """Of this process, while the writers and the reader run beside each other."""
    async with _opened(monolith, "stream") as (_, source):
        writing = asyncio.create_task(_written_and_marked(monolith, changes))
        read, looked_at = 0, 0
        samples: list[tuple[int, int]] = []
        async for tx in source.transactions():
            read += len(tx.changes)
            source.confirm(tx.end_lsn)
            if read - looked_at >= SAMPLE_CHANGES or _is_end(tx):
                looked_at = read
                samples.append((read, resident_bytes(os.getpid())))
            if _is_end(tx):
                break
        await writing
    settled = [held for at, held in samples if at >= SETTLED_SHARE * read]
    return {
        "changes": read - 1,
        "resident_mb_settled": round(settled[0] / 2**20, 1),
        "resident_mb_most": round(max(settled) / 2**20, 1),
        "resident_mb_last": round(settled[-1] / 2**20, 1),
    }


async def _written_and_marked(monolith: Monolith, changes: int) -> None:
    await monolith.trade(changes)
    await write_mark(monolith.url, "end")


def _is_end(tx: LegacyTransaction) -> bool:
    return any(isinstance(one, Mark) and one.id == "end" for one in tx.changes)


# --- through the pipeline


async def _piped(
    store_url: str, port: int, monolith: Monolith, waiting: int, changes_rate: int
) -> dict[str, Any]:
    await begin_shadow(store_url)
    control = await engine_session(port, "bench", Role.ADMIN)
    await control.send(open_for_shadow(_SCALES.values(), session=0), timeout_s=30.0)
    feed = _Timed(await engine_session(port, "shadow-feed", Role.SHADOW))
    load = await engine_session(port, "shadow-load", Role.SHADOW)
    try:
        async with _shadow(store_url, monolith, feed, load) as store:
            await _loaded(store)
        written = await monolith.trade(waiting)
        commands = written // CHANGES_PER_PAIR * COMMITS_PER_PAIR
        began = time.perf_counter()
        async with _shadow(store_url, monolith, feed, load):
            await feed.answered(commands)
            elapsed_s = time.perf_counter() - began
            await asyncio.sleep(JUDGED_S)
            feed.reset()
            paced = min(waiting, PACED_CHANGES_MAX)
            began = time.perf_counter()
            later = await monolith.trade(paced, changes_per_s=changes_rate)
            achieved = later / (time.perf_counter() - began)
            await feed.answered(commands + later // CHANGES_PER_PAIR * COMMITS_PER_PAIR)
    finally:
        for client in (control, feed.client, load):
            await client.close()
    return {
        "pipeline": {"changes": written, "changes_per_s": round(written / elapsed_s)},
        "paced": {
            "changes": later,
            "changes_per_s": changes_rate,
            "achieved_per_s": round(achieved),
        },
        "commit_to_command_us": quantiles(feed.latencies()),
    }


class _Timed:
    """The feed's session, and when each command was sent after its commit."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.committed_us: dict[int, int] = {}  # by commit_lsn
        self._elapsed_us: list[int] = []  # a histogram would take longer than the sending does
        self._answered = 0
        self._news = asyncio.Event()

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> Sequence[Answered]:
        now_us = time.time_ns() // 1000
        for command in commands:
            committed_us = self.committed_us.get(command.ref >> 16)
            if committed_us is not None:
                self._elapsed_us.append(now_us - committed_us)
        answers = await self.client.send(commands, timeout_s=timeout_s)
        self._answered += len(answers)
        self._news.set()
        return answers

    async def book(self, instrument: int) -> Book:
        return await self.client.book(instrument)

    def reset(self) -> None:
        self._elapsed_us.clear()

    def latencies(self) -> HdrHistogram:
        """Of the commands since the last reset."""
        histogram = HdrHistogram(1, LATENCY_US_MAX, 3)
        for elapsed_us in self._elapsed_us:
            histogram.record_value(min(max(elapsed_us, 1), LATENCY_US_MAX))
        return histogram

    async def answered(self, commands: int) -> None:
        """Until so many have been, in all."""
        while self._answered < commands:
            self._news.clear()
            await self._news.wait()


class _Changes:
    """A source that tells the feed when each transaction committed."""

    def __init__(self, source: Source, feed: _Timed) -> None:
        self._source, self._feed = source, feed
        self.open, self.confirm, self.close = source.open, source.confirm, source.close

    async def transactions(self) -> AsyncIterator[LegacyTransaction]:
        known = self._feed.committed_us
        async for tx in self._source.transactions():
            if len(known) > PACED_CHANGES_MAX:
                known.clear()
            known[tx.commit_lsn] = tx.committed_at_us
            yield tx


class _NoCaptures:
    """All orders are dark: what the proxy would have said of them is measured by `pipeline`."""

    async def newest(self, count: int) -> list[CaptureEntry]:
        return []

    async def read(self, after: str, count: int, block_ms: int) -> list[CaptureEntry]:
        await asyncio.sleep(block_ms / 1000)
        return []


@contextlib.asynccontextmanager
async def _shadow(
    store_url: str, monolith: Monolith, feed: _Timed, load: EngineClient
) -> AsyncIterator[Store]:
    sources = Sources(_legacy(monolith, "stream"), CONFIG.mapping, _SCALES)
    store = Store(store_url)
    pipeline = Pipeline(
        changes=lambda: _Changes(sources.changes(), feed),
        captures=_NoCaptures(),
        feed_client=feed,
        load_client=load,
        store=store,
        snapshots=sources.snapshots(),
        render=Dialect(CONFIG.mapping.responses, CONFIG.mapping.words, _SCALES),
        mapping=CONFIG.mapping,
        scales=_SCALES,
    )
    stop = asyncio.Event()
    running = asyncio.create_task(pipeline.run(stop))
    reader = Store(store_url)
    try:
        yield reader
    finally:
        stop.set()
        await running
        await store.close()
        await reader.close()


async def _loaded(store: Store) -> None:
    for symbol in ("BTC-USD", "ETH-USD"):
        while True:
            found = await store.read_evidence(symbol)
            if found is not None and found.run > 0:
                break
            await asyncio.sleep(0.02)
