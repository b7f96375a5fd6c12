"""What a client is told of an order, from its command's events."""

from __future__ import annotations

from engine.reject import Reason
from engine.types import Event, EventKind, OrderType, Side
from shadow.answer import OrderView, placed
from shadow.operation import Status

ACCEPTED = Event(kind=EventKind.ACCEPTED, order_id=9, qty_lots=5, leaves_lots=5, price_ticks=100)


def fill(taker: int, maker: int, *, qty: int, leaves: int) -> Event:
    return Event(
        kind=EventKind.FILL, order_id=taker, contra_id=maker, qty_lots=qty, leaves_lots=leaves
    )


def test_what_a_triggered_stop_of_somebody_else_does_is_not_the_order_s() -> None:
    events = [
        ACCEPTED,
        fill(9, 3, qty=2, leaves=3),
        Event(
            kind=EventKind.TRIGGERED,
            order_id=7,
            side=Side.SELL,
            ord_type=OrderType.STOP,
            leaves_lots=4,
        ),
        fill(7, 4, qty=1, leaves=3),
        Event(kind=EventKind.CANCELED, order_id=7, reason=Reason.UNFILLED, qty_lots=3),
    ]
    view = placed("BTC-USD", events, 1_000_000)
    assert isinstance(view, OrderView)
    assert (view.leaves_lots, view.status) == (3, Status.OPEN)
    assert [(one.maker_order_id, one.qty_lots) for one in view.fills] == [(3, 2)]


def test_a_rejected_order_is_its_reason() -> None:
    rejected = Event(kind=EventKind.REJECTED, order_id=9, reason=Reason.INSTRUMENT_HALTED)
    assert placed("BTC-USD", [rejected], 1_000_000) is Reason.INSTRUMENT_HALTED
