"""What differs in one operation, all sides together: the fills, the request, the answer.

Pure: takes what was captured, written and answered, and returns differences. Whether those are a
match, known or a mismatch is `ruling`'s to say.
"""

from __future__ import annotations

from collections.abc import Mapping as Scales
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from engine.reject import Reason
from engine.types import Command, Event, EventKind
from shadow.answer import OrderView, canceled, placed
from shadow.answer_check import Answer, compare_answer
from shadow.capture import Capture
from shadow.diff import compare_cancel, compare_command, compare_place
from shadow.exchanges import Exchanges, Told
from shadow.legacy.convert import Scale
from shadow.legacy.makers import MakerRule
from shadow.mirror import Open
from shadow.normalise import Fields, Refusal
from shadow.operation import Cancel, Operation, OrderImage, Place, Requeue, Touch
from shadow.ports import Renderer
from shadow.verdict import Difference, Kind, OperationVerdict, Verdict

# Rejections that say nothing of the order: the engine was not in a state to take it from us.
_NOT_OF_THE_ORDER = frozenset(
    {
        Reason.NOT_PERMITTED,
        Reason.UNKNOWN_INSTRUMENT,
        Reason.INSTRUMENT_CLOSED,
        Reason.INSTRUMENT_LIVE,
        Reason.REF_NOT_INCREASING,
        Reason.OUTCOME_EXPIRED,
    }
)


class Divergence(NamedTuple):
    """Where the two books parted: what follows is no news of its own."""

    root_order_id: int
    verdict: Verdict
    reason: str  # the rules' ids, or why the root could not be compared


class Ruling(NamedTuple):
    verdict: Verdict
    reason: str
    root_order_id: int
    divergence: Divergence | None  # from here on


def ruling(
    differences: Sequence[Difference],
    rules: Sequence[str],
    divergence: Divergence | None,
    order_id: int,
) -> Ruling:
    """`rules` are those that explain the differences, if any do."""
    if not differences:
        return Ruling(Verdict.MATCH, "", 0, divergence)
    if divergence is not None and divergence.verdict is Verdict.UNCOMPARABLE:
        reason = f"follows order {divergence.root_order_id}: {divergence.reason}"
        return Ruling(Verdict.UNCOMPARABLE, reason, divergence.root_order_id, divergence)
    verdict = Verdict.KNOWN if rules else Verdict.MISMATCH
    reason = ", ".join(rules)
    if divergence is not None:
        return Ruling(verdict, reason, divergence.root_order_id, divergence)
    if any(difference.lasting for difference in differences):
        return Ruling(verdict, reason, 0, Divergence(order_id, verdict, reason))
    return Ruling(verdict, reason, 0, None)


def not_taken(events: Sequence[Event]) -> str:
    """Why the engine's answer says nothing of the order; "" when it does."""
    first = events[0]
    if first.kind is EventKind.REJECTED and first.reason in _NOT_OF_THE_ORDER:
        return f"the engine did not take it from the shadow: {first.reason.name}"
    return ""


def written_again(
    operation: Operation, events: Sequence[Event], divergence: Divergence | None
) -> bool:
    """Of an operation without a capture: a row that was canceled before, and is now touched by a
    job or a back-fill. While nothing differs, what the engine has not open the monolith had not
    open either.
    """
    first = events[0]
    is_unknown = first.kind is EventKind.REJECTED and first.reason is Reason.UNKNOWN_ORDER
    return isinstance(operation, Cancel) and is_unknown and divergence is None


def verdict_of(
    operation: Operation, found: Ruling, differences: Sequence[Difference], *, commit_lsn: int
) -> OperationVerdict:
    """Without what either side did; that is added where it is kept."""
    symbol, order_id, name = _identity(operation)
    return OperationVerdict(
        symbol=symbol,
        operation=name,
        order_id=order_id,
        verdict=found.verdict,
        differences=tuple(differences),
        reason=found.reason,
        fills=len(operation.fills) if isinstance(operation, Place) else 0,
        root_order_id=found.root_order_id,
        commit_lsn=commit_lsn,
    )


class Judge:
    def __init__(
        self,
        exchanges: Exchanges,
        scales: Scales[str, Scale],
        render: Renderer,
        *,
        maker_rule: MakerRule = "resting",
    ) -> None:
        self._maker_rule = maker_rule
        self._exchanges = exchanges
        self._scales = scales
        self._render = render

    def place(
        self, place: Place, events: Sequence[Event], at_ns: int, told: Told | None
    ) -> tuple[Difference, ...]:
        found = compare_place(place, events, self._maker_rule)
        if told is None:
            return found
        capture = told.capture
        found += self._request(place.order, told)
        if found or not _is_answer(capture):
            return found
        view = placed(place.order.symbol, events, at_ns)
        if not isinstance(view, OrderView):
            return found
        return self._compare(told, self._render.render_placed(view))

    def cancel(
        self, cancel: Cancel, events: Sequence[Event], at_ns: int, told: Told | None
    ) -> tuple[Difference, ...]:
        found = compare_cancel(cancel, events)
        order = cancel.order
        if told is None:
            return found
        capture = told.capture
        if capture.account != order.account:
            found += (_another_account(order, capture),)
        if found or order.qty_lots is None or not _is_answer(capture):
            return found  # an answer shows what was ordered, and this row does not say that
        view = canceled(
            order.symbol,
            events[0],
            at_ns,
            qty_lots=order.qty_lots,  # of an order that was loaded, the engine knows what was left
            created_at_us=order.created_at_us,
        )
        return self._compare(told, self._render.render_canceled(view))

    def refused_place(self, told: Told) -> tuple[Difference, ...]:
        """The monolith took no order: normalise must refuse with the same answer."""
        capture, fields = told.capture, self._exchanges.asked(told)
        if not capture.account:
            asked: Command | Refusal | None = Refusal(status=401)
        elif isinstance(fields, Fields):
            asked = self._exchanges.command(fields, capture.account)
        else:
            asked = fields
        if not isinstance(asked, Refusal):
            return (
                Difference(
                    kind=Kind.REJECTED_BY_ONE,
                    what="the monolith refused a request that would be taken after a flip",
                    legacy={"status": capture.status},
                    engine="taken",
                    lasting=False,
                ),
            )
        return self._compare_refusal(told, self._render.render_refusal(asked))

    def refused_cancel(
        self, told: Told, still_open: Open | None, owner: int
    ) -> tuple[Difference, ...]:
        """`owner`: account of the order, 0 when that is not remembered."""
        capture = told.capture
        if still_open is not None and still_open.account == capture.account:
            return (
                Difference(
                    kind=Kind.REJECTED_BY_ONE,
                    what="the monolith refused to cancel an order that is open in the engine",
                    legacy={"status": capture.status},
                    engine={"leaves_lots": still_open.leaves_lots},
                    lasting=False,
                ),
            )
        not_open, not_found = self._render.render_not_open(), self._render.render_not_found()
        own = owner == capture.account if owner else capture.status == not_open[0]
        if not capture.account:
            return self._compare_refusal(told, self._render.render_refusal(Refusal(status=401)))
        found = self._compare_refusal(told, not_open if own else not_found)
        if found and not owner and not_open[0] == not_found[0]:
            return self._compare_refusal(told, not_found)  # the status did not tell them apart
        return found

    def _compare_refusal(self, told: Told, rendered: Answer) -> tuple[Difference, ...]:
        capture = told.capture
        if told.in_list:
            rendered = capture.status, self._render.element(*rendered)
        return self._compare(told, rendered)

    def _compare(self, told: Told, rendered: Answer) -> tuple[Difference, ...]:
        capture = told.capture
        legacy = capture.status, capture.response_body
        return compare_answer(legacy, rendered, self._exchanges.by_form)

    def _request(self, order: OrderImage, told: Told) -> tuple[Difference, ...]:
        capture, fields = told.capture, self._exchanges.asked(told)
        asked: Command | Refusal | None = fields if not isinstance(fields, Fields) else None
        if isinstance(fields, Fields):
            asked = self._exchanges.command(fields, capture.account, order.order_id)
        if isinstance(asked, Command):
            return compare_command(asked, order, self._scales[order.symbol].instrument)
        engine = "no route fits" if asked is None else msgspec.to_builtins(asked)
        return (
            Difference(
                kind=Kind.REJECTED_BY_ONE,
                what="the monolith took a request that would be refused after a flip",
                legacy={"status": capture.status},
                engine=engine,
                lasting=False,
            ),
        )


def amended(touch: Touch, known: Open | None) -> str:
    """Why a row written again is more than that; "" when the engine has it just so."""
    order = touch.order
    if known is None:
        return (
            "" if order.status != "open" else "its row is open, the engine has no such open order"
        )
    if order.status != "open":
        return f"its row turned {order.status} without a fill or a cancel"
    leaves_lots = known.leaves_lots if order.leaves_lots is None else order.leaves_lots
    now = Open(order.account, order.price_ticks, leaves_lots)
    return "" if now == known else "its row was amended without a fill"


def _is_answer(capture: Capture) -> bool:
    """A monolith that failed after it had written the row said nothing to compare with."""
    return 0 < capture.status < 500


def _another_account(order: OrderImage, capture: Capture) -> Difference:
    return Difference(
        kind=Kind.COMMAND,
        what="the monolith canceled an order of another account",
        legacy={"account": order.account},
        engine={"account": capture.account},
        lasting=False,
    )


def _identity(operation: Operation) -> tuple[str, int, str]:
    if isinstance(operation, Place | Cancel | Touch | Requeue):
        name = type(operation).__name__.lower()
        return operation.order.symbol, operation.order.order_id, name
    return operation.symbol, operation.order_id, "unexplained"
