"""What the control API takes and answers, and the status document. JSON; every answer names reasons
and a next step.

Actions answer in lines: a `step` (bridge.steps.StepUpdate) when it is intended and when it has
ended, and an `outcome` as the last one.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bridge.gate import Decision
from bridge.ledger_rows import FlipRow
from bridge.preflight import Finding
from bridge.stage import InstrumentStage, Stage
from shadow.verdict import Counts, LatencySummary


class ActRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /instruments/{symbol}/flip and /rollback."""

    actor: str
    reason: str = ""
    execute: bool = False  # without it nothing is changed: gate, findings and plan are told
    drill_s: float = 0.0  # flip only: trade for so long, then roll back; 0: stay live


class StageRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /instruments/{symbol}/stage."""

    actor: str
    stage: Stage  # "shadow" or "off"
    reason: str = ""
    execute: bool = False


class DryRun(msgspec.Struct, frozen=True, kw_only=True, tag="dry-run", tag_field="type"):
    """What would be done, and what stands in the way. Nothing was changed."""

    symbol: str
    action: str
    stage: Stage
    epoch: int
    ready: bool
    gate: Decision | None  # flip only
    findings: tuple[Finding, ...]
    reasons: tuple[str, ...]  # why not now
    plan: tuple[str, ...]
    next: str


class ActOutcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome", tag_field="type"):
    symbol: str
    action: str
    outcome: Literal["done", "aborted", "unfinished"]
    stage: Stage  # as it is now
    epoch: int
    flip_id: int = 0  # 0: a plain change of stage
    hold_ms: float | None = None
    reasons: tuple[str, ...] = ()
    next: str


class Refused(msgspec.Struct, frozen=True, kw_only=True, tag="refused", tag_field="type"):
    """Body of every answer from 400 on. Nothing was changed."""

    error: str
    reasons: tuple[str, ...] = ()
    next: str = ""


class GateReport(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of GET /instruments/{symbol}/gate."""

    symbol: str
    stage: Stage
    epoch: int
    decision: Decision
    statement: str  # the first reason, or what a pass proves


class RunningFlip(msgspec.Struct, frozen=True, kw_only=True):
    flip: FlipRow
    step: str  # the newest one
    step_state: str


class InstrumentStatus(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    instrument: int
    stage: Stage
    epoch: int
    holding: int
    gate: str  # pass, fail, inconclusive; "" while it is not in shadow
    gate_reason: str  # the first reason, or what a pass proves; else the next step
    run: int
    counts: Counts
    coverage: float | None
    taint: str
    book_equal: bool | None
    lag_ms: float | None
    legacy_latency: LatencySummary
    engine_latency: LatencySummary
    running: RunningFlip | None = None
    last_flip: FlipRow | None = None


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    worker: str
    pid: int
    age_s: float  # of its newest report
    version: int  # of the stages it acts on
    held: int
    requests: int
    captured: int
    dropped: int
    dropped_by_reason: dict[str, int] = {}
    silent: bool = False  # no report for longer than a worker that runs ever takes
    proxy: str = ""  # the name of its `railswitch proxy`
    slot: int = 0
    implementation: str = "python"
    clients: int = 0
    spooled_bytes: int = 0
    ahead_late: int = 0
    ahead_failed: int = 0
    upstreams_down: tuple[str, ...] = ()


class WriteBackStatus(msgspec.Struct, frozen=True, kw_only=True):
    running: bool | None  # None: only the control process knows
    trouble: str
    written_seq: int | None
    behind: int | None  # commands; up to a second's worth while nothing is live
    lag_ms: float | None


class EngineState(msgspec.Struct, frozen=True, kw_only=True):
    reachable: bool
    trouble: str = ""
    implementation: str = ""
    shard: int = 0
    seq: int = 0
    modes: dict[str, str] = {}  # symbol -> "live at epoch 3"


class Status(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float  # wall clock
    control: str  # "leads", or why nobody could be asked
    stages_version: int
    instruments: tuple[InstrumentStatus, ...]
    workers: tuple[WorkerStatus, ...]
    write_back: WriteBackStatus
    engine: EngineState
    problems: tuple[str, ...]  # what does not answer, and what is wrong, each with a next step


def next_step(stage: InstrumentStage) -> str:
    """What an operator does with an instrument at this stage."""
    return {
        Stage.OFF: f"`railswitch stage {stage.symbol} shadow --execute` begins to shadow it",
        Stage.SHADOW: f"`railswitch gate {stage.symbol}` says whether it may be flipped",
        Stage.LIVE: f"`railswitch rollback {stage.symbol} --execute` takes it back",
        Stage.RETIRED: "there is no way back",
    }[stage.stage]
