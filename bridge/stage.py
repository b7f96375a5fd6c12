"""Stages, epochs, and the snapshot of both that every proxy decides by (DESIGN.md section 7)."""

from __future__ import annotations

from enum import StrEnum

import msgspec

STAGES_KEY = "railswitch:stages"  # Redis string: the newest StageSnapshot, JSON
STAGES_CHANNEL = "railswitch:stages"  # Redis channel: the same, at every change
WORKERS_KEY_PREFIX = "railswitch:worker:"  # Redis string with expiry: WorkerReport, JSON
# The same for longer: whoever looks finds the last report of one that is stuck, or lost.
WORKERS_SEEN_PREFIX = "railswitch:worker-seen:"
WORKERS_CHANNEL = (
    "railswitch:workers"  # Redis channel: a WorkerReport at every change that a flip waits for
)
WRITTEN_CHANNEL = "railswitch:written"  # Redis channel: "<shard> <engine sequence written back>"


class Stage(StrEnum):
    OFF = "off"
    SHADOW = "shadow"
    LIVE = "live"
    RETIRED = "retired"

    @property
    def answered_by_engine(self) -> bool:
        return self in (Stage.LIVE, Stage.RETIRED)


# One step at a time; nothing moves by itself except back.
TRANSITIONS: frozenset[tuple[Stage, Stage]] = frozenset(
    {
        (Stage.OFF, Stage.SHADOW),
        (Stage.SHADOW, Stage.OFF),
        (Stage.SHADOW, Stage.LIVE),
        (Stage.LIVE, Stage.SHADOW),
        (Stage.LIVE, Stage.RETIRED),
    }
)


class InstrumentStage(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    instrument: int  # the engine's number for it
    stage: Stage
    epoch: int  # grows with every change of stage
    holding: int = (
        0  # flip id while proxies must hold new order entry of this instrument; 0: no hold
    )


class StageSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    version: int  # grows with every change; an older one is ignored
    instruments: dict[str, InstrumentStage]


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy worker says of itself, every second and at every change that a flip waits
    for.
    """

    worker: str
    pid: int
    version: int  # of the StageSnapshot it acts on
    drained: dict[
        str, int
    ]  # symbol -> flip id: held, and its last request to legacy has been answered
    held: int  # requests held now
    captured: int  # captures handed to the queue since the start
    dropped: dict[str, int]  # captures dropped since the start, by reason
    requests: int
    at_s: float  # wall clock
    proxy: str = ""  # proxy.name: whose worker it is, and so on which machine
    slot: int = 0  # its number there; whoever replaces it after a crash has the same one
    implementation: str = "python"  # of the data plane
    clients: int = 0  # connections now
    spooled_bytes: int = 0  # captures that wait on the disk for Redis
    ahead_late: int = 0  # orders released before their capture was durable: the budget was over
    ahead_failed: int = 0  # orders whose capture could not be made durable
    upstreams_down: tuple[str, ...] = ()


def encode(value: StageSnapshot | WorkerReport) -> bytes:
    return msgspec.json.encode(value)


def decode_snapshot(data: bytes) -> StageSnapshot:
    return msgspec.json.decode(data, type=StageSnapshot)


def decode_report(data: bytes) -> WorkerReport:
    return msgspec.json.decode(data, type=WorkerReport)


def may_change(current: Stage, wanted: Stage) -> bool:
    return (current, wanted) in TRANSITIONS
