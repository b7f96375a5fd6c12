"""What a client is told of an order, as plain values, made from the engine's events. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from engine.reject import Reason
from engine.types import Event, EventKind
from shadow.operation import Status

_UUID_PREFIX = "7261696c-7377-8000-"
_UUID_END = re.compile("[0-9a-f]{4}-[0-9a-f]{12}")
_VARIANT = 1 << 63
_UUID_ID_MAX = 2**62 - 1


class FillView(msgspec.Struct, frozen=True, kw_only=True):
    price_ticks: int
    qty_lots: int
    maker_order_id: int
    taker_order_id: int


class Traded(msgspec.Struct, frozen=True, kw_only=True):
    """All fills of an order, of whichever side of them it was."""

    count: int
    ticks_times_lots: int  # the sum of what each was worth


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order as an answer shows it; `bridge.proxy.desk.dialect` writes it in their words."""

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
    traded: Traded | None = None  # over its whole life; None: not known here


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
    fills = fills_of(events)
    worth = sum(fill.price_ticks * fill.qty_lots for fill in fills)
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
        fills=fills,
        traded=Traded(count=len(fills), ticks_times_lots=worth),
    )


def canceled(
    symbol: str,
    event: Event,
    at_ns: int,
    *,
    qty_lots: int,
    created_at_us: int,
    traded: Traded | None = None,
) -> OrderView:
    """The view of a canceled order from its CANCELED event; what was ordered, when, and what has
    traded since, comes from elsewhere.
    """
    if event.qty_lots == qty_lots:
        traded = Traded(count=0, ticks_times_lots=0)
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
        traded=traded,
    )


def uuid_of(order_id: int) -> str:
    """What an order that the engine has taken is called where the monolith would have drawn a UUID:
    one of version 8, that leads back to the id.

    >>> uuid_of(42), id_of_uuid(uuid_of(42))
    ('7261696c-7377-8000-8000-00000000002a', 42)
    """
    low = f"{_VARIANT | order_id & _UUID_ID_MAX:016x}"
    return f"{_UUID_PREFIX}{low[:4]}-{low[4:]}"


def id_of_uuid(text: str) -> int:
    """0 for a UUID that is none of ours."""
    text = text.lower()
    if not text.startswith(_UUID_PREFIX) or _UUID_END.fullmatch(text, len(_UUID_PREFIX)) is None:
        return 0
    low = int(text.removeprefix(_UUID_PREFIX).replace("-", ""), 16)
    return low & _UUID_ID_MAX if low & ~_UUID_ID_MAX == _VARIANT else 0


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
