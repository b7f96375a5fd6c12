"""The events that tell of orders. Sequence, reference and flags are stamped on them later, by the
market.
"""

from __future__ import annotations

from engine.reference.order import Order
from engine.reject import Reason
from engine.types import Command, Event, EventKind


def rejected(command: Command, reason: Reason) -> Event:
    return Event(
        kind=EventKind.REJECTED,
        instrument=command.instrument,
        side=command.side,
        ord_type=command.ord_type,
        tif=command.tif,
        reason=reason,
        order_id=command.order_id,
        contra_id=command.account,
        price_ticks=command.price_ticks,
        qty_lots=command.qty_lots,
    )


def accepted(order: Order, aux: int) -> Event:
    return _of(
        EventKind.ACCEPTED,
        order,
        qty_lots=order.qty_lots,
        leaves_lots=order.qty_lots,
        contra_leaves_lots=aux,
    )


def replaced(order: Order, *, old_id: int, old_leaves_lots: int) -> Event:
    """The order is what it has become."""
    return Event(
        kind=EventKind.REPLACED,
        instrument=order.instrument,
        side=order.side,
        ord_type=order.ord_type,
        tif=order.tif,
        order_id=order.order_id,
        contra_id=old_id,
        price_ticks=order.price_ticks,
        qty_lots=order.leaves_lots,
        leaves_lots=order.leaves_lots,
        contra_leaves_lots=old_leaves_lots,
    )


def triggered(stop: Order) -> Event:
    return _of(
        EventKind.TRIGGERED,
        stop,
        qty_lots=stop.leaves_lots,
        leaves_lots=stop.leaves_lots,
        contra_leaves_lots=stop.stop_price_ticks,
    )


def met(kind: EventKind, taker: Order, maker: Order, lots: int) -> Event:
    """FILL or PREVENTED, after both have become smaller: at the maker's price."""
    return Event(
        kind=kind,
        instrument=taker.instrument,
        side=taker.side,
        ord_type=taker.ord_type,
        tif=taker.tif,
        order_id=taker.order_id,
        contra_id=maker.order_id,
        price_ticks=maker.price_ticks,
        qty_lots=lots,
        leaves_lots=taker.leaves_lots,
        contra_leaves_lots=maker.leaves_lots,
    )


def canceled(order: Order, reason: Reason) -> Event:
    """All that is left of it, hidden or not."""
    return _of(EventKind.CANCELED, order, reason=reason, qty_lots=order.leaves_lots)


def reduced(order: Order, lots: int) -> Event:
    """After it has lost so much."""
    return _of(
        EventKind.REDUCED,
        order,
        reason=Reason.BY_REQUEST,
        qty_lots=lots,
        leaves_lots=order.leaves_lots,
    )


def _of(
    kind: EventKind,
    order: Order,
    *,
    qty_lots: int,
    leaves_lots: int = 0,
    contra_leaves_lots: int = 0,
    reason: Reason = Reason.NONE,
) -> Event:
    return Event(
        kind=kind,
        instrument=order.instrument,
        side=order.side,
        ord_type=order.ord_type,
        tif=order.tif,
        reason=reason,
        order_id=order.order_id,
        contra_id=order.account,
        price_ticks=order.price_ticks,
        qty_lots=qty_lots,
        leaves_lots=leaves_lots,
        contra_leaves_lots=contra_leaves_lots,
    )
