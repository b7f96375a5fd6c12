"""What a client is told of an order, as plain values, made from the engine's events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from engine.reject import Reason
from engine.types import Event, EventKind
from shadow.operation import Status


class FillView(msgspec.Struct, frozen=True, kw_only=True):
    price_ticks: int
    qty_lots: int
    maker_order_id: int
    taker_order_id: int


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order as an answer shows it; `bridge.proxy.dialect` writes it in the monolith's words."""

    order_id: int
    symbol: str
    side: int  # engine.types.Side
    ord_type: int  # engine.types.OrderType
    tif: int  # engine.types.TimeInForce
    price_ticks: int  # 0 for a market order
    qty_lots: int  # as ordered
    leaves_lots: int  # of a canceled order: what was still open
    status: Status
    created_at_us: int  # UTC, microseconds since 1970
    updated_at_us: int
    fills: tuple[FillView, ...] = ()  # those in which it was the taker


def placed(symbol: str, events: Sequence[Event], at_ns: int) -> OrderView | Reason:
    """The view of a new order from all of its command's events, or why the engine refused it.

    `at_ns` is the command's time by the sequencer.
    """
    first = events[0]
    if first.kind is not EventKind.ACCEPTED:
        return first.reason
    leaves, status = first.leaves_lots, Status.OPEN
    # The rest is of others: stops that this order set off.
    events = [event for event in events if event.order_id == first.order_id]
    for event in events:
        if event.kind is EventKind.FILL:
            leaves = event.leaves_lots
        elif event.kind is EventKind.CANCELED:
            leaves, status = event.qty_lots, Status.CANCELED
    if leaves == 0:
        status = Status.FILLED
    return OrderView(
        order_id=first.order_id,
        symbol=symbol,
        side=first.side,
        ord_type=first.ord_type,
        tif=first.tif,
        price_ticks=first.price_ticks,
        qty_lots=first.qty_lots,
        leaves_lots=leaves,
        status=status,
        created_at_us=at_ns // 1000,
        updated_at_us=at_ns // 1000,
        fills=fills_of(events),
    )


def canceled(
    symbol: str, event: Event, at_ns: int, *, qty_lots: int, created_at_us: int
) -> OrderView:
    """The view of a canceled order from its CANCELED event; what was ordered, and when, comes from
    elsewhere.
    """
    return OrderView(
        order_id=event.order_id,
        symbol=symbol,
        side=event.side,
        ord_type=event.ord_type,
        tif=event.tif,
        price_ticks=event.price_ticks,
        qty_lots=qty_lots,
        leaves_lots=event.qty_lots,
        status=Status.CANCELED,
        created_at_us=created_at_us,
        updated_at_us=at_ns // 1000,
    )


def fills_of(events: Iterable[Event]) -> tuple[FillView, ...]:
    return tuple(
        FillView(
            price_ticks=event.price_ticks,
            qty_lots=event.qty_lots,
            maker_order_id=event.contra_id,
            taker_order_id=event.order_id,
        )
        for event in events
        if event.kind is EventKind.FILL
    )
