"""The status document: of the leading control process, or, when there is none, of whoever reads the
stores.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

import msgspec
import psycopg

from bridge.config import GateConfig
from bridge.control.messages import (
    EngineState,
    InstrumentStatus,
    RunningFlip,
    Status,
    WorkerStatus,
    WriteBackStatus,
    next_step,
)
from bridge.control.switch import told
from bridge.control.watch import engine_state
from bridge.gate import coverage, decide
from bridge.ledger import Ledger
from bridge.limits import STORE_CONNECT_S, WORKER_SILENT_S, WORKER_STUCK_S
from bridge.stage import InstrumentStage, Stage
from bridge.store import first_line
from bridge.workers import Heard, Workers
from engine.client import EngineClient
from engine.endpoint import Endpoint
from engine.errors import EngineError
from shadow.verdict import Counts, Evidence, LatencySummary

EvidenceOf = Callable[[str], Awaitable[Evidence | None]]


class StatusSources(msgspec.Struct, frozen=True, kw_only=True):
    """Where to look without a control process."""

    store_url: str
    redis_url: str
    legacy_url: str
    engine: Endpoint
    engine_key: str
    shard: int
    gate: GateConfig
    funds: str  # what the mapping says


async def collect(
    ledger: Ledger,
    evidence_of: EvidenceOf,
    gate: GateConfig,
    *,
    funds: str,
    control: str,
    heard: Iterable[Heard],
    write_back: WriteBackStatus,
    engine: EngineState,
    problems: Iterable[str],
) -> Status:
    """Raises StoreUnreachable: without the stage table there is no status."""
    snapshot = await ledger.snapshot()
    instruments = [
        await _instrument(ledger, evidence_of, gate, funds, stage)
        for stage in sorted(snapshot.instruments.values(), key=lambda one: one.instrument)
    ]
    shown = tuple(_worker(one) for one in heard)
    return Status(
        at_s=time.time(),
        control=control,
        stages_version=snapshot.version,
        instruments=tuple(instruments),
        workers=shown,
        write_back=write_back,
        engine=engine,
        problems=(*problems, *worker_problems(shown)),
    )


def worker_problems(workers: Sequence[WorkerStatus]) -> list[str]:
    """What is wrong with the proxies' processes and what they see of the monolith."""
    problems = [_silence(one) for one in workers if one.silent]
    speaking = [one for one in workers if not one.silent]
    down = Counter(upstream for one in speaking for upstream in one.upstreams_down)
    for upstream, count in sorted(down.items()):
        problems.append(
            f"upstream {upstream} is down for {count} of {len(speaking)} proxy workers: see that "
            "the monolith runs there and answers"
        )
    return problems


def _silence(worker: WorkerStatus) -> str:
    of = f" of proxy {worker.proxy}" if worker.proxy else ""
    return (
        f"proxy worker {worker.worker} (process {worker.pid}{of}) has been silent for "
        f"{worker.age_s:.1f} s: where it is stuck, its proxy replaces it after "
        f"{WORKER_STUCK_S:.0f} s, or at once after `kill -9 {worker.pid}`; else see that its "
        "machine runs and reaches Redis"
    )


async def status(sources: StatusSources, evidence_of: EvidenceOf, *, control: str) -> Status:
    """Without a control process: every source that does not answer is a problem in the document.

    `control` says why nobody was asked. Raises StoreUnreachable.
    """
    ledger = Ledger(sources.store_url)
    workers = Workers(sources.redis_url)
    try:
        await workers.look()
        engine = await _engine(sources)
        write_back = await _write_back(sources, engine)
        problems = [
            control,
            *([f"proxies: {workers.trouble}"] if workers.trouble else []),
            *([f"engine: {engine.trouble}"] if engine.trouble else []),
            *([f"write-back: {write_back.trouble}"] if write_back.trouble else []),
        ]
        return await collect(
            ledger,
            evidence_of,
            sources.gate,
            funds=sources.funds,
            control=control,
            heard=workers.shown(),
            write_back=write_back,
            engine=engine,
            problems=problems,
        )
    finally:
        await workers.close()
        await ledger.close()


async def _instrument(
    ledger: Ledger, evidence_of: EvidenceOf, gate: GateConfig, funds: str, stage: InstrumentStage
) -> InstrumentStatus:
    evidence = await evidence_of(stage.symbol)
    decision = decide(stage, evidence, gate, funds=funds)
    newest = await ledger.newest_flip(stage.symbol)
    running = None
    if newest is not None and newest.ended_at_s is None:
        steps = await ledger.steps(newest.id)
        running = RunningFlip(
            flip=newest,
            step=steps[-1].step if steps else "",
            step_state=steps[-1].state if steps else "",
        )
    nothing = LatencySummary()
    in_shadow = stage.stage is Stage.SHADOW
    return InstrumentStatus(
        symbol=stage.symbol,
        instrument=stage.instrument,
        stage=stage.stage,
        epoch=stage.epoch,
        holding=stage.holding,
        gate=type(decision).__name__.lower() if in_shadow else "",
        gate_reason=told(decision) if in_shadow else next_step(stage),
        run=evidence.run if evidence else 0,
        counts=evidence.counts if evidence else Counts(),
        coverage=coverage(evidence) if evidence else None,
        taint=evidence.taint if evidence else "",
        book_equal=evidence.book_equal if evidence else None,
        lag_ms=evidence.lag_ms if evidence else None,
        legacy_latency=evidence.legacy_latency if evidence else nothing,
        engine_latency=evidence.engine_latency if evidence else nothing,
        running=running,
        last_flip=newest,
    )


def _worker(one: Heard) -> WorkerStatus:
    report = one.report
    return WorkerStatus(
        worker=report.worker,
        pid=report.pid,
        age_s=round(one.age_s, 3),
        version=report.version,
        held=report.held,
        requests=report.requests,
        captured=report.captured,
        dropped=sum(report.dropped.values()),
        dropped_by_reason=report.dropped,
        silent=one.age_s > WORKER_SILENT_S,
        proxy=report.proxy,
        slot=report.slot,
        implementation=report.implementation,
        clients=report.clients,
        spooled_bytes=report.spooled_bytes,
        ahead_late=report.ahead_late,
        ahead_failed=report.ahead_failed,
        upstreams_down=report.upstreams_down,
    )


async def _engine(sources: StatusSources) -> EngineState:
    client = EngineClient.at(sources.engine, name="status", key=sources.engine_key)
    try:
        await client.start(timeout_s=1.0)
        return engine_state(await client.status(timeout_s=1.0))
    except EngineError as error:
        return EngineState(reachable=False, trouble=str(error))
    finally:
        await client.close()


async def _write_back(sources: StatusSources, engine: EngineState) -> WriteBackStatus:
    try:
        written_seq = await _written_seq(sources)
        trouble = "" if written_seq is not None else "nothing was ever written back"
    except (psycopg.Error, OSError) as error:
        written_seq, trouble = None, f"the legacy database: {first_line(error)}"
    known = engine.reachable and written_seq is not None
    return WriteBackStatus(
        running=None,
        trouble=trouble,
        written_seq=written_seq,
        behind=max(0, engine.seq - (written_seq or 0)) if known else None,
        lag_ms=None,
    )


async def _written_seq(sources: StatusSources) -> int | None:
    connection = await psycopg.AsyncConnection.connect(
        sources.legacy_url, autocommit=True, connect_timeout=STORE_CONNECT_S
    )
    async with connection:
        cursor = await connection.execute(
            "SELECT seq FROM railswitch.written WHERE shard = %s", (sources.shard,)
        )
        row = await cursor.fetchone()
        return None if row is None else int(row[0])
