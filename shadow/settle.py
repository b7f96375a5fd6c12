"""From operations that both sides have handled to verdicts, instrument by instrument, in order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from functools import partial

import msgspec

from engine.types import EventKind
from shadow.diff import engine_view, legacy_view
from shadow.exchanges import Kind as Answered
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
from shadow.limits import CAPTURE_GRACE_S, CAPTURES_STUCK_S
from shadow.operation import Cancel, Place, Requeue, Touch, Unexplained
from shadow.ports import Clock
from shadow.recorder import Recorder
from shadow.verdict import Difference, Kind, OperationVerdict, Verdict
from shadow.work import CheckedBook, Group, Held, Item, RefusedCancel, Settled
from shadow.writers import Writer

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
        writer_of: Callable[[int], Writer | None],
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
        self._writer_of = writer_of
        self._diverged = diverged
        self._judged = judged

    def advance(self, instrument: Instrument, groups_max: int) -> bool:
        """Judges what can be judged, in the order in which it was fed; True when that was all."""
        waiting = instrument.waiting
        for _ in range(groups_max):
            if not waiting or not all(self._is_ready(instrument, one) for one in waiting[0].items):
                return True
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
        return False

    def refused_place(self, instrument: Instrument, held: Held) -> None:
        """Decided by the capture alone."""
        judge = partial(self._judge.refused_place, held.told)
        self._judge_capture(instrument, instrument.run, held, "place", 0, judge)

    def unwritten(self, instrument: Instrument, held: Held) -> None:
        """The monolith said that it did it, and no row has come."""
        told = held.told
        difference = Difference(
            kind=Kind.AGE,
            what=f"the client was told that the order was {told.kind}, but no row says so",
            legacy={"status": held.capture.status},
            lasting=False,
        )
        name = "place" if told.kind is Answered.PLACED else "cancel"
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
        in_time = read_ns < item.read_ns + CAPTURE_GRACE_S * 1e9
        return in_a_hurry or not in_time or self._is_stuck(item)

    def _is_stuck(self, item: Item) -> bool:
        """Its capture stands behind more than there is room for, all of operations behind it."""
        return (
            self._joins.is_full and self._clock.mono_ns() >= item.read_ns + CAPTURES_STUCK_S * 1e9
        )

    def _settle(self, instrument: Instrument, group: Group, item: Item) -> None:
        operation = item.operation
        if isinstance(operation, Unexplained):
            self._uncomparable(instrument, group, item, operation.reason)
        elif isinstance(operation, Touch):
            self._settle_touch(instrument, group, item, operation)
        elif isinstance(operation, Requeue):
            self._settle_requeue(instrument, group, item)
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

    def _settle_requeue(self, instrument: Instrument, group: Group, item: Item) -> None:
        """It is not counted: the monolith did nothing."""
        first = item.events[0]
        if first.kind is EventKind.REJECTED:
            reason = f"its place in the queue could not be corrected: {first.reason.name}"
            self._uncomparable(instrument, group, item, reason)
            return
        group.run.mirror.apply(item.seq, item.events)

    def _settle_operation(
        self, instrument: Instrument, group: Group, item: Item, operation: Place | Cancel
    ) -> None:
        run = group.run
        dark, gap = self._look_for_capture(instrument, item, operation)
        writer = self._writer_of(item.xid) if dark else None
        if item.held is None and written_again(operation, item.events, run.divergence):
            return
        reason = not_taken(item.events)
        if reason:
            self._uncomparable(instrument, group, item, reason, dark=dark)
            return
        self._measure(run, item)
        run.mirror.apply(item.seq, item.events)
        told = item.held.told if item.held is not None else None
        try:
            if isinstance(operation, Place):
                found = self._judge.place(operation, item.events, item.at_ns, told)
            else:
                found = self._judge.cancel(operation, item.events, item.at_ns, told)
        except Exception as error:  # a fault of ours must not stop the others' comparison
            log.exception("comparing order %d of %s", operation.order.order_id, run.symbol)
            self._uncomparable(
                instrument, group, item, f"comparing it failed: {error!r}", dark=dark
            )
            return
        if not found:
            fills = len(operation.fills) if isinstance(operation, Place) else 0
            self._recorder.match(
                run, fills=fills, dark=dark, gap=gap, reordered=operation.reordered, writer=writer
            )
            if dark:
                account = operation.order.account
                said = self._claims.dark(run, self._clock.mono_ns(), account, writer)
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
        rules = self._used(ruled, rules)
        self._recorder.settle(Settled(run, verdict, rules=rules, writer=writer))
        self._note_divergence(instrument, run, ruled)

    def _look_for_capture(
        self, instrument: Instrument, item: Item, operation: Place | Cancel
    ) -> tuple[bool, bool]:
        """(dark, gap). In a hurry neither is said: the capture may well be on its way."""
        if not item.waits_for_capture:
            return False, False
        if self._joins.give_up(item, instrument.scale) is not None:
            return False, False
        self._joins.settled_alone(operation)
        if self._captures_read_ns() < item.read_ns + CAPTURE_GRACE_S * 1e9:
            return False, self._is_stuck(item)
        gap = self._claims.claim(operation.order.account, self._clock.mono_ns())
        return not gap, gap

    def _measure(self, run: Run, item: Item) -> None:
        """An outcome that was given again says nothing of the engine's speed, and a bulk request's
        time nothing of one order's.
        """
        if item.sent_ns and not run.mirror.is_ahead_of(item.seq - 1):
            self._recorder.latency(run, "engine", item.answered_ns - item.sent_ns)
        told = item.held.told if item.held is not None else None
        if told is None or not told.alone:
            return
        capture = told.capture
        if capture.answered_mono_ns > capture.sent_mono_ns:
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
        writer = self._writer_of(item.xid) if dark else None
        self._recorder.settle(Settled(run, verdict, writer=writer))
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
        judge = partial(
            self._judge.refused_cancel, held.told, run.mirror.get(order_id), refused.owner
        )
        self._judge_capture(instrument, run, held, "cancel", order_id, judge)

    def _judge_capture(
        self,
        instrument: Instrument,
        run: Run,
        held: Held,
        operation: str,
        order_id: int,
        judge: Callable[[], tuple[Difference, ...]],
    ) -> None:
        try:
            found = judge()
        except Exception as error:  # a fault of ours must not stop the others' comparison
            log.exception("comparing a refusal of %s", run.symbol)
            verdict = OperationVerdict(
                symbol=run.symbol,
                operation=operation,
                order_id=order_id,
                verdict=Verdict.UNCOMPARABLE,
                reason=f"comparing it failed: {error!r}",
            )
            held.entry.held.append(Settled(run, verdict))
            instrument.held += 1
            self.release(held)
        else:
            self._settle_capture(instrument, run, held, operation, order_id, found)

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
