"""What the control store holds of the comparison, as plain values. Times are ns since 1970."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from hdrh.histogram import HdrHistogram

from shadow.captures import Gap
from shadow.latency import Window
from shadow.verdict import Counts, Evidence, OperationVerdict
from shadow.writers import Writer, WriterCount


class StageRow(msgspec.Struct, frozen=True, kw_only=True):
    """Of the stage table, which the switch alone writes."""

    symbol: str
    instrument: int
    stage: str
    epoch: int
    holding: int  # flip id while proxies hold; 0: no hold
    stage_from: str  # where it came from with this epoch; "" when that was not written down


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """How far the shadow has come; moved together with the verdicts that it stands for."""

    applied_lsn: int = 0
    capture_id: str = ""
    capture_next: dict[str, int] = {}
    trouble: str = ""
    flushes: int = 0


class InstrumentRow(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    run: int = 0
    first_run: int = 0
    loaded_lsn: int = 0
    loaded_ns: int = 0
    epoch: int = 0
    following: bool = False
    loading: bool = False
    applied_lsn: int = 0
    resyncs: int = 0
    marker_flip_id: int = 0
    taint: str = ""
    root_order_id: int = 0
    root_verdict: str = ""
    root_reason: str = ""
    pending: int = 0
    book_equal: bool | None = None
    book_lsn: int | None = None
    book_checked_ns: int = 0
    book_differences: Sequence[Any] = ()
    lag_ms: float | None = None


class RunRow(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    run: int
    epoch: int
    loaded_lsn: int
    orders: int
    reason: str
    loaded_at_s: float = 0.0  # when read


class CountKey(NamedTuple):
    symbol: str
    run: int
    minute_s: int


class DarkKey(NamedTuple):
    symbol: str
    run: int
    writer: Writer


class Tally:
    """What one minute adds to the counts."""

    __slots__ = (
        "dark",
        "dependants",
        "fills",
        "gaps",
        "known",
        "matched",
        "mismatched",
        "reordered",
        "seen",
        "uncomparable",
    )

    def __init__(self) -> None:
        self.seen = self.matched = self.known = self.mismatched = self.uncomparable = 0
        self.gaps = self.dark = self.reordered = self.fills = self.dependants = 0


class VerdictRow(NamedTuple):
    run: int
    verdict: OperationVerdict


class Batch(msgspec.Struct, kw_only=True):
    """What one transaction records."""

    position: Position  # `flushes` is what it was before
    instruments: list[InstrumentRow] = []
    runs: list[RunRow] = []
    tallies: dict[CountKey, Tally] = {}
    verdicts: list[VerdictRow] = []
    hits: dict[str, int] = {}
    latencies: dict[Window, HdrHistogram] = {}
    gaps: list[Gap] = []
    dark: dict[DarkKey, int] = {}  # operations of writers that were seen
    writers_seen: dict[Writer, int] = {}  # transactions, dark or not


class Resume(msgspec.Struct, frozen=True, kw_only=True):
    """Where a new shadow process goes on."""

    position: Position
    instruments: dict[str, InstrumentRow]
    hits: dict[str, int]


class Root(msgspec.Struct, frozen=True, kw_only=True):
    """A first divergence, and how many operations follow from it."""

    run: int
    verdict: OperationVerdict
    at_s: float
    dependants: int  # exact, though only the first of them are stored


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """All that is recorded of one instrument, for people."""

    evidence: Evidence
    trouble: str  # what the shadow process waits for
    runs: tuple[RunRow, ...]  # newest first
    counts_by_run: dict[int, Counts]  # without the pending ones
    roots: tuple[Root, ...]  # oldest first
    kinds: dict[str, int]  # differences among the stored mismatches
    known: dict[str, int]  # stored hits of each rule, on this instrument
    book_differences: list[Any]
    writers_seen: tuple[WriterCount, ...] = ()  # to that database, of the last day
