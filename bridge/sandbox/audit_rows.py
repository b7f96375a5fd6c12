"""What the audit compares: the sandbox's tables and the engine's events, in the clients' terms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec
import psycopg

from bridge.sandbox.params import ORDER_TYPES, SIDES, STATES, TIMES_IN_FORCE
from bridge.sandbox.told import Wish
from engine.types import Event, EventFlag, EventKind, OrderType, Side, TimeInForce
from shadow.legacy.convert import Scale

_ENGINE_SIDES = {Side.BUY: "buy", Side.SELL: "sell"}
_ENGINE_TYPES = {OrderType.LIMIT: "limit", OrderType.MARKET: "market"}
_ENGINE_TIFS = {TimeInForce.GTC: "gtc", TimeInForce.IOC: "ioc"}


class Fill(NamedTuple):
    price: Decimal
    quantity: Decimal
    maker_order_id: int


class LegacyOrder(msgspec.Struct, frozen=True, kw_only=True):
    wish: Wish
    remaining: Decimal
    state: str


class LegacyTrade(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    taker_order_id: int
    taker_side: str
    fill: Fill


class LegacyRows(msgspec.Struct, frozen=True, kw_only=True):
    orders: dict[int, LegacyOrder]
    trades: tuple[LegacyTrade, ...]  # by id


class JournalOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order that the engine accepted while it answered for its instrument."""

    wish: Wish
    fills: list[Fill]  # in which it was the taker


def read_legacy(url: str) -> LegacyRows:
    """Both tables as of one moment. Blocks; meant for the sandbox's sizes."""
    with psycopg.connect(url) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        orders = connection.execute(
            "SELECT id, market_id, member_id, side, order_type, time_in_force, price, quantity,"
            " remaining_quantity, state FROM orders ORDER BY id"
        )
        rows = {row[0]: _legacy_order(*row[1:]) for row in orders}
        trades = connection.execute(
            "SELECT market_id, taker_order_id, taker_side, price, quantity, maker_order_id"
            " FROM trades ORDER BY id"
        )
        return LegacyRows(
            orders=rows,
            trades=tuple(
                LegacyTrade(
                    symbol=symbol, taker_order_id=taker, taker_side=SIDES[side], fill=Fill(*fill)
                )
                for symbol, taker, side, *fill in trades
            ),
        )


def _legacy_order(
    symbol: str,
    member: int,
    side: int,
    order_type: int,
    tif: int,
    price: Decimal | None,
    quantity: Decimal,
    remaining: Decimal,
    state: int,
) -> LegacyOrder:
    wish = Wish(
        symbol=symbol,
        member=member,
        side=SIDES[side],
        order_type=ORDER_TYPES[order_type],
        time_in_force=TIMES_IN_FORCE[tif],
        price=price,
        quantity=quantity,
    )
    return LegacyOrder(wish=wish, remaining=remaining, state=STATES[state])


def live_orders(events: Iterable[Event], scales: Mapping[str, Scale]) -> dict[int, JournalOrder]:
    """By order id. Events of an instrument that was not live then are the shadow's: left out."""
    by_instrument = {scale.instrument: scale for scale in scales.values()}
    orders: dict[int, JournalOrder] = {}
    for event in events:
        if not event.flags & EventFlag.LIVE:
            continue
        if event.kind is EventKind.ACCEPTED:
            wish = _journal_wish(event, by_instrument[event.instrument])
            orders[event.order_id] = JournalOrder(wish=wish, fills=[])
        elif event.kind is EventKind.FILL:
            scale = by_instrument[event.instrument]
            price, quantity = scale.price(event.price_ticks), scale.quantity(event.qty_lots)
            orders[event.order_id].fills.append(Fill(price, quantity, event.contra_id))
    return orders


def _journal_wish(event: Event, scale: Scale) -> Wish:
    is_market = event.ord_type == OrderType.MARKET
    return Wish(
        symbol=scale.symbol,
        member=event.contra_id,
        side=_ENGINE_SIDES[Side(event.side)],
        order_type=_ENGINE_TYPES[OrderType(event.ord_type)],
        time_in_force=_ENGINE_TIFS[TimeInForce(event.tif)],
        price=None if is_market else scale.price(event.price_ticks),
        quantity=scale.quantity(event.qty_lots),
    )
