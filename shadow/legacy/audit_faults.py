"""Why a row is unreadable, by the key of the configuration that is at odds with it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal, InvalidOperation

import msgspec

from engine.types import OrderType
from shadow.errors import NotExact
from shadow.legacy.audit_types import Row
from shadow.legacy.convert import Scale, decimal_of
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Amount, Enumerated, Key, Mapping, Time
from shadow.legacy.rows import ORDER_TYPES, order_id_columns
from shadow.legacy.symbols import symbol_of
from shadow.legacy.times import time_us
from shadow.legacy.words import word_of
from shadow.limits import SHOWN_CHARS_MAX


class Fault(msgspec.Struct, frozen=True, kw_only=True, order=True):
    key: str  # e.g. "mapping.orders.price"
    why: str  # without the row's own numbers, so that the same faults are alike
    places: int = 0  # of a number that is too fine: the decimals that it needs


def order_fault(row: Row, reason: str, mapping: Mapping, scales: dict[str, Scale]) -> Fault:
    """`reason`: what to say when it is none of these."""
    orders, key = mapping.orders, "mapping.orders"
    for fault in (
        *_symbol(row, f"{key}.symbol", orders.symbol.column),
        *_id(row, f"{key}.id", orders.id),
        *_id(row, f"{key}.account", orders.account),
        *_word(row, f"{key}.side", orders.side),
        *_word(row, f"{key}.ord_type", orders.ord_type),
        *_word(row, f"{key}.status", orders.status),
    ):
        return fault
    scale = scales[symbol_of(orders.symbol, row[orders.symbol.column] or "")]
    market = ORDER_TYPES.get(word_of(_value(row, orders.ord_type), orders.ord_type))
    if market is OrderType.MARKET:
        for fault in _market_price(row, orders.price, scale):
            return fault
    else:
        tif = _word(row, f"{key}.tif", orders.tif)
        for fault in (*tif, *_amount(row, f"{key}.price", orders.price, scale, "tick")):
            return fault
    for name, amount in (("quantity", orders.quantity), ("leaves", orders.leaves)):
        for fault in _amount(row, f"{key}.{name}", amount, scale, "lot"):
            return fault
    for fault in _time(row, f"{key}.created_at", orders.created_at):
        return fault
    return Fault(key=f"{key}.quantity", why=_without_table(reason))


def fill_fault(row: Row, reason: str, mapping: Mapping, scales: dict[str, Scale]) -> Fault:
    fills, key = mapping.fills, "mapping.fills"
    names = {
        getattr(fills, name): name
        for name in ("maker_order", "taker_order", "buy_order", "sell_order")
    }
    for fault in (
        *_symbol(row, f"{key}.symbol", fills.symbol.column),
        *_id(row, f"{key}.id", fills.id),
        *(
            fault
            for column in order_id_columns(fills)
            for fault in _id(
                row, f"{key}.{names[column]}", Key(column=column, form=mapping.orders.id.form)
            )
        ),
    ):
        return fault
    if not fills.taker_order and fills.taker_side.column:
        for fault in _word(row, f"{key}.taker_side", fills.taker_side):
            return fault
    scale = scales[symbol_of(fills.symbol, row[fills.symbol.column] or "")]
    for fault in (
        *_amount(row, f"{key}.price", fills.price, scale, "tick"),
        *_amount(row, f"{key}.quantity", fills.quantity, scale, "lot"),
    ):
        return fault
    return Fault(key=key, why=_without_table(reason))


def _symbol(row: Row, key: str, column: str) -> Iterator[Fault]:
    if row.get(column) is None:
        yield Fault(key=key, why=f"{column} is NULL")


def _id(row: Row, key: str, of: Key) -> Iterator[Fault]:
    value = row.get(of.column)
    if number_of(value, of) == 0:
        what = "UUID" if of.form == "uuid" else "positive 64-bit integer"
        is_null = f"{of.column} is NULL"
        yield Fault(key=key, why=is_null if value is None else f"{of.column} is no {what}")


def _word(row: Row, key: str, enumerated: Enumerated) -> Iterator[Fault]:
    value = _value(row, enumerated)
    if word_of(value, enumerated):
        return
    column = enumerated.column
    if not column:
        yield Fault(key=key, why=f"{key} names neither a column nor a word for all")
    elif value is None:
        yield Fault(key=f"{key}.null", why=f"{column} is NULL")
    else:
        yield Fault(key=f"{key}.map", why=f"{column} = {_shown(value)} is not in the map")


def _market_price(row: Row, amount: Amount, scale: Scale) -> Iterator[Fault]:
    value = row.get(amount.column)
    if value is None:
        return
    try:
        if not scale.ticks(decimal_of(value, amount)):
            return
    except NotExact:
        pass
    yield Fault(
        key="mapping.orders.ord_type.map", why=f"a market order has a price in {amount.column}"
    )


def _amount(row: Row, key: str, amount: Amount, scale: Scale, unit: str) -> Iterator[Fault]:
    if not amount.column:
        return
    value = row.get(amount.column)
    if value is None:
        yield Fault(key=key, why=f"{amount.column} is NULL")
        return
    steps: Callable[[str | Decimal], int] = scale.ticks if unit == "tick" else scale.lots
    try:
        steps(decimal_of(value, amount))
    except NotExact as error:
        yield _inexact(key, value, amount, scale, unit, str(error))


def _inexact(key: str, value: str, amount: Amount, scale: Scale, unit: str, said: str) -> Fault:
    column, step = amount.column, scale.tick if unit == "tick" else scale.lot
    try:
        number = Decimal(decimal_of(value, amount)).normalize()
    except (InvalidOperation, NotExact):
        what = "integer" if amount.form == "integer" else "plain decimal number"
        return Fault(key=key, why=f"{column} = {_shown(value)} is no {what}")
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int):
        return Fault(key=key, why=f"{column} = {_shown(value)} is no plain decimal number")
    if number < 0:
        return Fault(key=key, why=f"{column} is negative")
    if number % step:
        return Fault(
            key=f"instruments.{unit}",
            why=f"{column} is no multiple of the {unit} {step} of {scale.symbol}",
            places=max(0, -exponent),
        )
    return Fault(key=key, why=said)


def _time(row: Row, key: str, time: Time) -> Iterator[Fault]:
    value = row.get(time.column)
    if value is None:
        yield Fault(key=key, why=f"{time.column} is NULL")
        return
    try:
        time_us(value, time)
    except (ValueError, OverflowError):
        yield Fault(key=key, why=f"{time.column} = {_shown(value)} is no time")


def _value(row: Row, enumerated: Enumerated) -> str | None:
    return row.get(enumerated.column) if enumerated.column else None


def _without_table(reason: str) -> str:
    return reason.partition(": ")[2] or reason


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN_CHARS_MAX else value[:SHOWN_CHARS_MAX] + "…")
