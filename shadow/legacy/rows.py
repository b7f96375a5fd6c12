"""A row of the monolith as a plain value: exact, or `Unreadable` with its reason.

A row is column -> PostgreSQL's text, None for NULL. A column that is absent was not in the change:
it is unchanged and stored out of line. Nothing is guessed: a value that the mapping does not name
is unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping as Row

import msgspec

from engine.types import OrderType, Side, TimeInForce
from shadow.errors import NotExact
from shadow.legacy.convert import Scale, decimal_of
from shadow.legacy.keys import Form, id_or_zero, number_of
from shadow.legacy.makers import booked
from shadow.legacy.mapping import (
    Amount,
    Enumerated,
    FillsTable,
    Mapping,
    OrdersTable,
    Symbol,
    Time,
)
from shadow.legacy.symbols import symbol_of
from shadow.legacy.times import time_us
from shadow.legacy.words import word_of
from shadow.limits import SHOWN_CHARS_MAX
from shadow.operation import LegacyFill, OrderImage, Status, Unreadable

SIDES = {"buy": Side.BUY, "sell": Side.SELL}
ORDER_TYPES = {"limit": OrderType.LIMIT, "market": OrderType.MARKET}
TIMES_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC}
STATUSES = {str(status): status for status in Status}


class _Unusable(Exception):
    """Why one value of a row can't be used; never leaves this module."""


def order_columns(orders: OrdersTable) -> tuple[str, ...]:
    """The columns that `order_image` and the filter read, each once."""
    return _each_once(
        orders.id.column,
        orders.symbol.column,
        orders.account.column,
        orders.price.column,
        orders.quantity.column,
        orders.leaves.column,
        "" if orders.quantity.column and orders.leaves.column else orders.filled.column,
        orders.funds.column,
        orders.created_at.column,
        *(one.column for one in (orders.side, orders.ord_type, orders.tif, orders.status)),
        *orders.where,
    )


def fill_columns(fills: FillsTable) -> tuple[str, ...]:
    """The columns that `legacy_fill` and the filter read, each once."""
    return _each_once(
        fills.id.column,
        fills.symbol.column,
        *order_id_columns(fills),
        fills.price.column,
        fills.quantity.column,
        "" if fills.taker_order else fills.taker_side.column,
        *fills.where,
    )


def order_id_columns(fills: FillsTable) -> tuple[str, ...]:
    """Where a fill says which orders met."""
    named = (fills.maker_order, fills.taker_order, fills.buy_order, fills.sell_order)
    return _each_once(*named)


def order_image(
    row: Row[str, str | None], mapping: Mapping, scales: Row[str, Scale]
) -> OrderImage | Unreadable:
    """A market order is immediate-or-cancel at no price, whatever its time in force column says."""
    orders = mapping.orders
    try:
        return _order_image(row, orders, scales)
    except (NotExact, _Unusable) as error:
        return Unreadable(
            symbol=named_symbol(row, orders.symbol),
            order_id=number_of(row.get(orders.id.column), orders.id.form),
            reason=f"{orders.table}: {error}",
        )


def legacy_fill(
    row: Row[str, str | None], mapping: Mapping, scales: Row[str, Scale]
) -> LegacyFill | Unreadable:
    """An unreadable fill names its taker, if that could be read."""
    fills = mapping.fills
    try:
        scale = _scale(row, fills.symbol, scales)
        maker, taker = _orders_met(row, mapping)
        return LegacyFill(
            symbol=scale.symbol,
            fill_id=_id(row, fills.id.column, fills.id.form),
            maker_order_id=maker,
            taker_order_id=taker,
            price_ticks=scale.ticks(_decimal(row, fills.price)),
            qty_lots=scale.lots(_decimal(row, fills.quantity)),
        )
    except (NotExact, _Unusable) as error:
        return Unreadable(
            symbol=named_symbol(row, fills.symbol),
            order_id=taker_of(row, mapping),
            reason=f"{fills.table} {row.get(fills.id.column)}: {error}",
        )


def named_symbol(row: Row[str, str | None], symbol: Symbol) -> str:
    """The row's instrument; the value itself where that is none; "" where there is no value."""
    value = row.get(symbol.column) or ""
    return symbol_of(symbol, value) or value


def taker_of(row: Row[str, str | None], mapping: Mapping) -> int:
    """The order id of a fill's taker; 0 where that can't be read."""
    try:
        return _orders_met(row, mapping)[1]
    except _Unusable:
        column = mapping.fills.taker_order
        return number_of(row.get(column), mapping.orders.id.form) if column else 0


def worked_out(
    image: OrderImage, filled: str | None, orders: OrdersTable, scales: Row[str, Scale]
) -> OrderImage | Unreadable:
    """With the quantity that the row does not say. `filled`: the sum of the order's fills."""
    try:
        if filled is None:
            raise _Unusable("the quantity of one of its fills can't be read")
        filled_lots = scales[image.symbol].lots(filled)
        if image.leaves_lots is None and image.qty_lots is not None:
            if filled_lots > image.qty_lots:
                raise _Unusable(f"its fills are more than {orders.quantity.column}")
            return msgspec.structs.replace(image, leaves_lots=image.qty_lots - filled_lots)
        if image.qty_lots is None and image.leaves_lots is not None:
            return msgspec.structs.replace(image, qty_lots=image.leaves_lots + filled_lots)
    except (NotExact, _Unusable) as error:
        reason = f"{orders.table}: {error}"
        return Unreadable(symbol=image.symbol, order_id=image.order_id, reason=reason)
    return image


def owner_columns(orders: OrdersTable) -> tuple[str, ...]:
    """The columns that say whose an order is, when it came, and how much was ordered."""
    quantities = (orders.quantity,) if orders.quantity.column else (orders.leaves, orders.filled)
    return _each_once(
        orders.id.column,
        orders.symbol.column,
        orders.account.column,
        *(one.column for one in quantities),
        orders.created_at.column,
    )


def ordered_lots(row: Row[str, str | None], orders: OrdersTable, scale: Scale) -> int:
    """What was ordered, of `owner_columns`; 0 where they do not say, or not in whole lots."""
    try:
        if orders.quantity.column:
            return scale.lots(_decimal(row, orders.quantity))
        return _quantities(row, orders, scale)[0] or 0
    except (NotExact, _Unusable):
        return 0


def _order_image(
    row: Row[str, str | None], orders: OrdersTable, scales: Row[str, Scale]
) -> OrderImage:
    scale = _scale(row, orders.symbol, scales)
    ord_type = ORDER_TYPES[_word(row, orders.ord_type)]
    market = ord_type is OrderType.MARKET
    qty_lots, leaves_lots = _quantities(row, orders, scale)
    return OrderImage(
        symbol=scale.symbol,
        order_id=_id(row, orders.id.column, orders.id.form),
        account=_id(row, orders.account.column, orders.account.form),
        side=SIDES[_word(row, orders.side)],
        ord_type=ord_type,
        tif=TimeInForce.IOC if market else TIMES_IN_FORCE[_word(row, orders.tif)],
        price_ticks=_market_price(row, orders, scale) if market else _price(row, orders, scale),
        qty_lots=qty_lots,
        leaves_lots=leaves_lots,
        status=STATUSES[_word(row, orders.status)],
        created_at_us=_time(row, orders.created_at),
        funds=_funds(row, orders, scale) if market else None,
    )


def _funds(row: Row[str, str | None], orders: OrdersTable, scale: Scale) -> int | None:
    return scale.payable(_decimal(row, orders.funds)) if orders.funds.column else None


def _quantities(
    row: Row[str, str | None], orders: OrdersTable, scale: Scale
) -> tuple[int | None, int | None]:
    """(as ordered, leaves); None for the one that the row does not say. Of three columns the third
    is not looked at: some monoliths keep what was open in a canceled order, others don't.
    """
    qty_lots = _lots(row, orders.quantity, scale)
    leaves_lots = _lots(row, orders.leaves, scale)
    if qty_lots is None or leaves_lots is None:
        filled_lots = _lots(row, orders.filled, scale)
        if filled_lots is not None and qty_lots is not None:
            if filled_lots > qty_lots:
                raise _Unusable(f"{orders.filled.column} is more than {orders.quantity.column}")
            leaves_lots = qty_lots - filled_lots
        elif filled_lots is not None and leaves_lots is not None:
            qty_lots = leaves_lots + filled_lots
    elif leaves_lots > qty_lots:
        raise _Unusable(f"{orders.leaves.column} is more than {orders.quantity.column}")
    return qty_lots, leaves_lots


def _lots(row: Row[str, str | None], amount: Amount, scale: Scale) -> int | None:
    return scale.lots(_decimal(row, amount)) if amount.column else None


def _orders_met(row: Row[str, str | None], mapping: Mapping) -> tuple[int, int]:
    """(maker, taker) as the monolith books them."""
    fills, key = mapping.fills, mapping.orders.id
    if fills.taker_order:
        return _id(row, fills.maker_order, key.form), _id(row, fills.taker_order, key.form)
    buy, sell = _id(row, fills.buy_order, key.form), _id(row, fills.sell_order, key.form)
    if fills.taker_side.column and SIDES[_word(row, fills.taker_side)] is Side.BUY:
        return booked(sell, buy, fills.maker_rule)
    return booked(buy, sell, fills.maker_rule)


def _price(row: Row[str, str | None], orders: OrdersTable, scale: Scale) -> int:
    return scale.ticks(_decimal(row, orders.price))


def _market_price(row: Row[str, str | None], orders: OrdersTable, scale: Scale) -> int:
    if _present(row, orders.price.column) is None:
        return 0
    price = _decimal(row, orders.price)
    if scale.ticks(price):
        raise _Unusable(f"a market order with {orders.price.column} = {_shown(price)}")
    return 0


def _scale(row: Row[str, str | None], symbol: Symbol, scales: Row[str, Scale]) -> Scale:
    value = _text(row, symbol.column)
    scale = scales.get(symbol_of(symbol, value))
    if scale is None:
        raise _Unusable(f"{symbol.column} = {_shown(value)} is no configured instrument")
    return scale


def _word(row: Row[str, str | None], enumerated: Enumerated) -> str:
    value = _present(row, enumerated.column) if enumerated.column else None
    word = word_of(value, enumerated)
    if not word:
        if value is None:
            raise _Unusable(f"{enumerated.column} is NULL")
        raise _Unusable(f"{enumerated.column} = {_shown(value)} is not in the mapping")
    return word


def _id(row: Row[str, str | None], column: str, form: Form) -> int:
    value = _text(row, column)
    number = id_or_zero(value) if form == "integer" else number_of(value, form)
    if number == 0:
        what = "UUID" if form == "uuid" else "positive 64-bit integer"
        raise _Unusable(f"{column} = {_shown(value)} is no {what}")
    return number


def _time(row: Row[str, str | None], time: Time) -> int:
    value = _text(row, time.column)
    try:
        return time_us(value, time)
    except (ValueError, OverflowError) as error:
        raise _Unusable(f"{time.column} = {_shown(value)} is no time") from error


def _decimal(row: Row[str, str | None], amount: Amount) -> str:
    text = _text(row, amount.column)
    return decimal_of(text, amount) if amount.form == "integer" else text


def _text(row: Row[str, str | None], column: str) -> str:
    value = row.get(column)
    if value is None:
        _present(row, column)
        raise _Unusable(f"{column} is NULL")
    return value


def _present(row: Row[str, str | None], column: str) -> str | None:
    try:
        return row[column]
    except KeyError:
        raise _Unusable(
            f"{column} was not in the change, being unchanged and stored out of line;"
            " ALTER TABLE … REPLICA IDENTITY FULL makes PostgreSQL include it"
        ) from None


def _each_once(*columns: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(column for column in columns if column))


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN_CHARS_MAX else value[:SHOWN_CHARS_MAX] + "…")
