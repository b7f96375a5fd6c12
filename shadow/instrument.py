"""What the comparison knows of one instrument, and of one run of it. Mutable; owned by one loop."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from shadow.judge import Divergence
from shadow.legacy.convert import Scale
from shadow.mirror import Mirror
from shadow.store_rows import InstrumentRow
from shadow.verdict import Verdict
from shadow.work import Group


class Run:
    """From one load to the next. What was read before a load is judged by the run it belongs to."""

    __slots__ = (
        "dependants_stored",
        "divergence",
        "loaded_ns",
        "mirror",
        "number",
        "symbol",
        "verdicts_stored",
    )

    def __init__(
        self,
        symbol: str,
        number: int,
        *,
        mirror: Mirror | None = None,
        divergence: Divergence | None = None,
        loaded_ns: int = 0,
    ) -> None:
        self.symbol = symbol
        self.number = number
        self.mirror = mirror or Mirror()
        self.divergence = divergence
        self.loaded_ns = loaded_ns  # wall clock
        self.dependants_stored = 0
        self.verdicts_stored = 0


class Instrument:
    def __init__(self, scale: Scale, row: InstrumentRow) -> None:
        self.symbol = scale.symbol
        self.scale = scale
        self.first_run = row.first_run
        self.loaded_lsn = row.loaded_lsn
        self.epoch = row.epoch
        self.following = row.following
        self.loading = row.loading
        self.applied_lsn = row.applied_lsn
        self.resyncs = row.resyncs
        self.marker_flip_id = row.marker_flip_id
        self.taint = row.taint
        self.book_equal = row.book_equal
        self.book_lsn = row.book_lsn
        self.book_checked_ns = row.book_checked_ns
        self.book_differences: Sequence[Any] = row.book_differences
        self.run = Run(self.symbol, row.run, divergence=_divergence(row), loaded_ns=row.loaded_ns)
        self.since_ns = row.loaded_ns  # wall clock: its captures from then on have been read
        self.wanted = False  # its stage is shadow
        # ... or is live: a rollback may be on its way that the stage row has not told us of yet,
        # and the first captures after it come sooner than its marker is read.
        self.captured = False
        self.wanted_epoch = row.epoch  # of its stage row
        self.waiting: deque[Group] = deque()  # read and not judged, in commit order
        self.queued = 0  # operations and refused cancels in `waiting`
        self.undecided = 0  # orders and cancels whose place in the order of handling is not known
        self.held = 0  # verdicts that wait to be recorded with the captures that they came from
        self.load_reason = ""  # a load is due; "" when none is
        self.load_at_ns = 0  # monotonic: and not before
        self.loaded_mono_ns = 0  # monotonic, of the newest load by this process
        self.hurry_at_ns = 0  # monotonic: from then on no capture is waited for; 0: no hurry
        self.is_changed = False  # there is news to record

    @property
    def number(self) -> int:
        """The engine's number for it."""
        return self.scale.instrument

    @property
    def is_compared(self) -> bool:
        """It has been loaded since it came into shadow, and may be loading again."""
        return self.wanted and self.run.number > 0 and self.epoch == self.wanted_epoch

    @property
    def pending(self) -> int:
        return self.held + self.queued + self.undecided

    def diverged(self, divergence: Divergence, taint: str) -> None:
        """The first divergence of the newest run; later ones follow from it."""
        self.run.divergence = divergence
        self.taint = taint
        self.is_changed = True

    def start_run(self, run: Run, *, lsn: int, epoch: int, taint: str) -> None:
        """It follows from here on, with everything that was wrong before it over."""
        if run.number == self.first_run:
            self.since_ns = run.loaded_ns
        self.run = run
        self.loaded_lsn = lsn
        self.epoch = self.wanted_epoch = epoch
        self.taint = taint
        self.loading = False
        self.following = True
        self.load_reason = ""
        self.is_changed = True

    def row(self, *, lag_ms: float | None) -> InstrumentRow:
        divergence = self.run.divergence
        return InstrumentRow(
            symbol=self.symbol,
            run=self.run.number,
            first_run=self.first_run,
            loaded_lsn=self.loaded_lsn,
            loaded_ns=self.run.loaded_ns,
            epoch=self.epoch,
            following=self.following,
            loading=self.loading,
            applied_lsn=self.applied_lsn,
            resyncs=self.resyncs,
            marker_flip_id=self.marker_flip_id,
            taint=self.taint,
            root_order_id=divergence.root_order_id if divergence else 0,
            root_verdict=str(divergence.verdict) if divergence else "",
            root_reason=divergence.reason if divergence else "",
            pending=self.pending,
            book_equal=self.book_equal,
            book_lsn=self.book_lsn,
            book_checked_ns=self.book_checked_ns,
            book_differences=self.book_differences,
            lag_ms=lag_ms,
        )


def _divergence(row: InstrumentRow) -> Divergence | None:
    if not row.root_verdict:
        return None
    return Divergence(row.root_order_id, Verdict(row.root_verdict), row.root_reason)
