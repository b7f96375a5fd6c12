"""The verdicts of the comparison and what the gate reads of them (DESIGN.md section 6)."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from shadow.writers import WriterCount


class Verdict(StrEnum):
    MATCH = "match"
    KNOWN = "known"
    PENDING = "pending"
    MISMATCH = "mismatch"
    UNCOMPARABLE = "uncomparable"


class Kind(StrEnum):
    """What differs. An operation may differ in several ways; they are listed in this order."""

    REJECTED_BY_ONE = "rejected-by-one"
    COMMAND = "command"  # the request, normalised, is not the order that the monolith wrote
    MISSING_FILL = "missing-fill"  # the monolith filled, the engine did not
    EXTRA_FILL = "extra-fill"  # the engine filled, the monolith did not
    COUNTERPARTY = "counterparty"
    PRIORITY = "priority"  # the same makers or the same price, in another order of time
    PRICE = "price"
    ROUNDING = "rounding"  # differs by less than one tick or lot, or is off the grid
    QUANTITY = "quantity"
    LEAVES = "leaves"
    STATUS = "status"
    ANSWER = "answer"  # what the client would have read
    AGE = "age"  # pending for too long


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    kind: Kind
    what: str  # one sentence for a person
    legacy: Any = None
    engine: Any = None
    lasting: bool = True  # the two books are no longer equal after it


class OperationVerdict(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    operation: str  # "place" or "cancel"
    order_id: int  # 0 for a rejected order that never got one
    verdict: Verdict
    differences: tuple[Difference, ...] = ()
    reason: str = ""  # of uncomparable; the rule's id for known
    fills: int = 0  # compared
    dark: bool = False  # no capture: it never passed a proxy
    root_order_id: int = 0  # of a dependant: the first divergence it follows from
    commit_lsn: int = 0
    legacy: Any = None  # plain data, kept for everything that is not a match
    engine: Any = None


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """Of one instrument since it came into shadow, over all loads.

    `seen` is the sum of the six below it.
    """

    seen: int = 0
    matched: int = 0
    known: int = 0
    pending: int = 0
    mismatched: int = 0
    uncomparable: int = 0
    gaps: int = 0  # captures that are known to be lost, and operations that lost theirs
    dark: int = 0  # beside the sum: operations that never passed a proxy
    reordered: int = 0  # of the matched
    fills: int = 0  # compared, legacy's side

    def closes(self) -> bool:
        return self.seen == (
            self.matched
            + self.known
            + self.pending
            + self.mismatched
            + self.uncomparable
            + self.gaps
        )


class LatencySummary(msgspec.Struct, frozen=True, kw_only=True):
    count: int = 0
    p50_us: float = 0.0
    p99_us: float = 0.0
    p999_us: float = 0.0
    max_us: float = 0.0


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that the gate may know of one instrument; read from the control store in one
    transaction.
    """

    symbol: str
    stage: str
    epoch: int
    run: int  # number of the newest load; 0: never loaded
    loaded_at_s: (
        float  # wall clock of the load that counting began with, seconds since 1970; 0.0: never
    )
    now_s: float  # wall clock of the store when this was read
    counts: Counts
    legacy_latency: LatencySummary  # request sent to answer received, at the proxy
    engine_latency: LatencySummary  # command sent to durable answer
    taint: str  # "" or why the comparison can't be trusted
    book_equal: bool | None  # None: never compared
    book_checked_at_s: float
    # from the monolith's commit until both sides are known, by one clock; None: unknown yet
    lag_ms: float | None
    updated_at_s: float  # when the shadow last reported on this instrument
    mismatches: tuple[OperationVerdict, ...] = ()  # the first few roots
    dark_writers: tuple[WriterCount, ...] = ()  # of the dark operations whose writer was seen
