"""From operations that both sides have handled to verdicts, instrument by instrument, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime

import msgspec

from shadow.diff import engine_view, legacy_view
from shadow.gaps import Claims
from shadow.instrument import Instrument, Run
from shadow.joins import Joins
from shadow.judge import (
    Divergence,
    Judge,
    Ruling,
    amended,
    not_taken,
    ruling,
    verdict_of,
    written_again,
)
from shadow.known import Rule, explaining, still_holding
from shadow.limits import CAPTURE_GRACE_S
from shadow.operation import Cancel, Place, Touch, Unexplained
from shadow.ports import Clock
from shadow.recorder import Recorder
from shadow.verdict import Difference, Kind, OperationVerdict, Verdict
from shadow.work import CheckedBook, Group, Held, Item, RefusedCancel, Settled

log = logging.getLogger(__name__)


class Settler:
    def __init__(
        self,
        *,
        judge: Judge,
        joins: Joins,
        claims: Claims,
        recorder: Recorder,
        rules: Sequence[Rule],
        clock: Clock,
        captures_read_ns: Callable[[], int],
        diverged: Callable[[Instrument], None],
        judged: Callable[[str, int], None],
    ) -> None:
        """`captures_read_ns`: monotonic time up to which every capture has been read. `diverged` is
        called when an instrument's newest run has met its first divergence, `judged` with symbol
        and commit_lsn whenever all that a transaction did with an instrument has its verdict.
        """
        self._judge = judge
        self._joins = joins
        self._claims = claims
        self._recorder = recorder
        self._rules = rules
        self._clock = clock
        self._captures_read_ns = captures_read_ns
        self._diverged = diverged
        self._judged = judged

    def advance(self, instrument: Instrument) -> None:
        """Judges what can be judged, in the order in which it was fed."""
        waiting = instrument.waiting
        while waiting and all(self._is_ready(instrument, item) for item in waiting[0].items):
            group = waiting.popleft()
            instrument.queued -= len(group.items) + len(group.refused)
            for item in group.items:
                self._settle(instrument, group, item)
            for refused in group.refused:
                self._settle_refused_cancel(instrument, group.run, refused)
            if group.book is not None:
                self._note_book(instrument, group.run, group.book)
            if group.tx is not None:
                group.tx.open_groups -= 1
                instrument.applied_lsn = group.lsn
                self._judged(instrument.symbol, group.lsn)
            instrument.is_changed = True

    def refused_place(self, instrument: Instrument, held: Held) -> None:
        """Decided by the capture alone."""
        differences = self._judge.refused_place(held.capture)
        self._settle_capture(instrument, instrument.run, held, "place", 0, differences)

    def unwritten(self, instrument: Instrument, held: Held) -> None:
        """The monolith said that it did it, and no row has come."""
        told = held.told
        difference = Difference(
            kind=Kind.AGE,
            what=f"the client was told that the order was {told.kind}, but no row says so",
            legacy={"status": held.capture.status},
            lasting=False,
        )
        name = held.capture.action
        self._settle_capture(instrument, instrument.run, held, name, told.order_id, (difference,))

    def lost_changes(self, instrument: Instrument, reason: str) -> None:
        """Nobody knows how many operations: one stands for them all, and coverage is not whole."""
        verdict = OperationVerdict(
            symbol=instrument.symbol,
            operation="unexplained",
            order_id=0,
            verdict=Verdict.UNCOMPARABLE,
            reason=reason,
        )
        self._recorder.settle(Settled(instrument.run, verdict))

    def release(self, held: Held) -> None:
        """A capture that has served, or that nothing will be compared with."""
        held.entry.open -= 1

    def _is_ready(self, instrument: Instrument, item: Item) -> bool:
        if not item.is_answered:
            return False
        if not item.waits_for_capture:
            return True
        read_ns = self._captures_read_ns()
        in_a_hurry = 0 < instrument.hurry_at_ns <= self._clock.mono_ns()
        return in_a_hurry or read_ns >= item.read_ns + CAPTURE_GRACE_S * 1e9

    def _settle(self, instrument: Instrument, group: Group, item: Item) -> None:
        operation = item.operation
        if isinstance(operation, Unexplained):
            self._uncomparable(instrument, group, item, operation.reason)
        elif isinstance(operation, Touch):
            self._settle_touch(instrument, group, item, operation)
        else:
            self._settle_operation(instrument, group, item, operation)
        if item.held is not None:
            self.release(item.held)

    def _settle_touch(self, instrument: Instrument, group: Group, item: Item, touch: Touch) -> None:
        if group.run.mirror.is_ahead_of(item.seq) and item.seq:
            return
        reason = amended(touch, group.run.mirror.get(touch.order.order_id))
        if reason:
            self._uncomparable(instrument, group, item, reason)

    def _settle_operation(
        self, instrument: Instrument, group: Group, item: Item, operation: Place | Cancel
    ) -> None:
        run = group.run
        dark, gap = self._look_for_capture(instrument, item, operation)
        if item.held is None and written_again(operation, item.events, run.divergence):
            return
        reason = not_taken(item.events)
        if reason:
            self._uncomparable(instrument, group, item, reason, dark=dark)
            return
        self._measure(run, item)
        run.mirror.apply(item.seq, item.events)
        capture = item.held.capture if item.held is not None else None
        try:
            if isinstance(operation, Place):
                found = self._judge.place(operation, item.events, item.at_ns, capture)
            else:
                found = self._judge.cancel(operation, item.events, item.at_ns, capture)
        except Exception as error:  # a fault of ours must not stop the others' comparison
            log.exception("comparing order %d of %s", operation.order.order_id, run.symbol)
            self._uncomparable(
                instrument, group, item, f"comparing it failed: {error!r}", dark=dark
            )
            return
        if not found:
            fills = len(operation.fills) if isinstance(operation, Place) else 0
            self._recorder.match(run, fills=fills, dark=dark, gap=gap)
            if dark:
                said = self._claims.dark(run, self._clock.mono_ns())
                self._joins.settled_alone(operation, said)
            return
        rules = self._explained(run, found)
        ruled = ruling(found, rules, run.divergence, operation.order.order_id)
        verdict = msgspec.structs.replace(
            verdict_of(operation, ruled, found, commit_lsn=group.lsn),
            dark=dark,
            legacy=legacy_view(operation),
            engine=engine_view(item.events),
        )
        self._recorder.settle(Settled(run, verdict, rules=self._used(ruled, rules)))
        self._note_divergence(instrument, run, ruled)

    def _look_for_capture(
        self, instrument: Instrument, item: Item, operation: Place | Cancel
    ) -> tuple[bool, bool]:
        """(dark, gap). In a hurry neither is said: the capture may well be on its way."""
        if not item.waits_for_capture:
            return False, False
        if self._joins.give_up(item, instrument.scale) is not None:
            return False, False
        in_time = self._captures_read_ns() < item.read_ns + CAPTURE_GRACE_S * 1e9
        gap = not in_time and self._claims.claim()
        self._joins.settled_alone(operation)
        return not in_time and not gap, gap

    def _measure(self, run: Run, item: Item) -> None:
        """An outcome that was given again says nothing of the engine's speed."""
        if item.sent_ns and not run.mirror.is_ahead_of(item.seq - 1):
            self._recorder.latency(run, "engine", item.answered_ns - item.sent_ns)
        capture = item.held.capture if item.held is not None else None
        if capture is not None and capture.answered_mono_ns > capture.sent_mono_ns:
            elapsed_ns = capture.answered_mono_ns - capture.sent_mono_ns
            self._recorder.latency(run, "legacy", elapsed_ns)

    def _explained(self, run: Run, found: Sequence[Difference]) -> tuple[str, ...]:
        """What follows from a known difference is known while its rules still hold."""
        today, hits = self._today(), self._recorder.hits
        divergence = run.divergence
        if divergence is not None and divergence.verdict is Verdict.KNOWN:
            ids = tuple(divergence.reason.split(", "))
            if still_holding(self._rules, ids, hits, today):
                return ids
        return explaining(self._rules, run.symbol, found, hits, today)

    def _used(self, ruled: Ruling, rules: tuple[str, ...]) -> tuple[str, ...]:
        used = rules if ruled.verdict is Verdict.KNOWN else ()
        self._recorder.hit(used)
        return used

    def _uncomparable(
        self, instrument: Instrument, group: Group, item: Item, reason: str, *, dark: bool = False
    ) -> None:
        run, operation = group.run, item.operation
        order_id = _order_id(item)
        root = run.divergence.root_order_id if run.divergence else 0
        parted = run.divergence or Divergence(order_id, Verdict.UNCOMPARABLE, reason)
        ruled = Ruling(Verdict.UNCOMPARABLE, reason, root, parted)
        verdict = msgspec.structs.replace(
            verdict_of(operation, ruled, (), commit_lsn=group.lsn),
            symbol=run.symbol,
            dark=dark,
            legacy=legacy_view(operation) if isinstance(operation, Place | Cancel) else None,
            engine=engine_view(item.events) if item.events else None,
        )
        self._recorder.settle(Settled(run, verdict))
        self._note_divergence(instrument, run, ruled)

    def _note_divergence(self, instrument: Instrument, run: Run, ruled: Ruling) -> None:
        parted = ruled.divergence
        if parted is None or parted is run.divergence:
            return
        if run is not instrument.run:
            run.divergence = parted
            return
        what = "diverged" if parted.verdict is not Verdict.UNCOMPARABLE else "can't be compared"
        why = f": {parted.reason}" if parted.reason else ""
        instrument.diverged(parted, f"{what} at order {parted.root_order_id}{why}")
        self._diverged(instrument)

    def _note_book(self, instrument: Instrument, run: Run, found: CheckedBook) -> None:
        """A difference that no operation has shown: what comes now can't be compared."""
        check = found.check
        instrument.book_equal = check.equal
        instrument.book_lsn = found.lsn
        instrument.book_checked_ns = found.at_ns
        instrument.book_differences = check.differences
        if check.equal or instrument.taint or run.divergence or run is not instrument.run:
            return
        reason = f"the books differ: {check.differences[0]['what']}"
        instrument.diverged(Divergence(check.order_id, Verdict.UNCOMPARABLE, reason), reason)
        self._diverged(instrument)

    # --- verdicts that come of captures: recorded together with the position in their stream

    def _settle_refused_cancel(
        self, instrument: Instrument, run: Run, refused: RefusedCancel
    ) -> None:
        held = refused.held
        order_id = held.told.order_id
        found = self._judge.refused_cancel(held.capture, run.mirror.get(order_id), refused.owner)
        self._settle_capture(instrument, run, held, "cancel", order_id, found)

    def _settle_capture(
        self,
        instrument: Instrument,
        run: Run,
        held: Held,
        operation: str,
        order_id: int,
        found: tuple[Difference, ...],
    ) -> None:
        rules = self._explained(run, found) if found else ()
        ruled = ruling(found, rules, run.divergence, order_id)
        verdict = OperationVerdict(
            symbol=run.symbol,
            operation=operation,
            order_id=order_id,
            verdict=ruled.verdict,
            differences=found,
            reason=ruled.reason,
            root_order_id=ruled.root_order_id,
        )
        held.entry.held.append(Settled(run, verdict, rules=self._used(ruled, rules)))
        instrument.held += 1
        self.release(held)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC).date()


def _order_id(item: Item) -> int:
    operation = item.operation
    return operation.order_id if isinstance(operation, Unexplained) else operation.order.order_id
