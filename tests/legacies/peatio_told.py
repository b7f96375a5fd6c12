"""What Peatio's daemons write, as the change stream tells it: for tests that need no database."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from peatio import Committed, Exchange, Order, Write

from engine.types import OrderType, Side, TimeInForce
from shadow.operation import (
    Change,
    FillInserted,
    LegacyFill,
    LegacyTransaction,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Status,
)

_STATUS = {
    "pending": Status.PENDING,
    "wait": Status.OPEN,
    "done": Status.FILLED,
    "cancel": Status.CANCELED,
}
_BEGIN_US = 1_700_000_000_000_000


def transactions(committed: Iterable[Committed]) -> Iterator[LegacyTransaction]:
    """And at the end two that are empty, long afterwards."""
    number, at_us = 0, _BEGIN_US
    fills = iter(range(1, 1_000_000))
    for number, one in enumerate(committed, start=1):
        at_us = _BEGIN_US + one.at_ms * 1000
        changes = tuple(_change(write, fills) for write in one.writes)
        yield _transaction(number, at_us, changes)
    for hours in (1, 2):
        yield _transaction(number + hours, at_us + hours * 3_600_000_000, ())


def image_of(order: Order) -> OrderImage:
    market = order.price is None
    return OrderImage(
        symbol=order.market,
        order_id=order.id,
        account=order.member,
        side=Side.BUY if order.side == "buy" else Side.SELL,
        ord_type=OrderType.MARKET if market else OrderType.LIMIT,
        tif=TimeInForce.IOC if market else TimeInForce.GTC,
        price_ticks=order.price or 0,
        qty_lots=order.origin_volume,
        leaves_lots=order.volume,
        status=_STATUS[order.state],
        created_at_us=_BEGIN_US + order.at_ms * 1000,
        funds=order.origin_locked,
    )


def open_orders(exchange: Exchange) -> list[OrderImage]:
    """As a snapshot has them now: by price, then by id."""
    images = [image_of(one) for one in exchange.orders.values() if one.state == "wait"]
    return sorted(
        images,
        key=lambda one: (
            one.side,
            -one.price_ticks if one.side == Side.BUY else one.price_ticks,
            one.order_id,
        ),
    )


def _transaction(number: int, at_us: int, changes: tuple[Change, ...]) -> LegacyTransaction:
    return LegacyTransaction(
        commit_lsn=number * 100,
        end_lsn=number * 100 + 50,
        xid=number,
        committed_at_us=at_us,
        ours=False,
        changes=changes,
    )


def _change(write: Write, fills: Iterator[int]) -> Change:
    if write.verb == "insert":
        return OrderInserted(order=image_of(write.order))
    if write.verb == "update":
        return OrderUpdated(order=image_of(write.order))
    assert write.trade is not None
    return FillInserted(
        fill=LegacyFill(
            symbol=write.order.market,
            fill_id=next(fills),
            maker_order_id=write.trade.maker,
            taker_order_id=write.trade.taker,
            price_ticks=write.trade.price,
            qty_lots=write.trade.amount,
        )
    )
