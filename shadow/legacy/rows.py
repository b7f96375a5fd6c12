"""A row of the monolith as a plain value: exact, or `Unreadable` with its reason.

A row is column -> PostgreSQL's text, None for NULL. A column that is absent was not in the change:
it is unchanged and stored out of line. Nothing is guessed: a value that the mapping does not name
is unreadable.
"""

from __future__ import annotations

from collections.abc import Mapping as Row
from datetime import UTC, datetime, timedelta

from engine.types import OrderType, Side, TimeInForce
from shadow.errors import NotExact
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Enumerated, FillsTable, Mapping, OrdersTable
from shadow.limits import ID_MAX, SHOWN_CHARS_MAX
from shadow.operation import LegacyFill, OrderImage, Status, Unreadable

SIDES = {"buy": Side.BUY, "sell": Side.SELL}
ORDER_TYPES = {"limit": OrderType.LIMIT, "market": OrderType.MARKET}
TIMES_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC}
STATUSES = {str(status): status for status in Status}

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class _Unusable(Exception):
    """Why one value of a row can't be used; never leaves this module."""


def order_columns(orders: OrdersTable) -> tuple[str, ...]:
    """The columns that `order_image` reads, each once."""
    enumerated = (one.column for one in (orders.side, orders.ord_type, orders.tif, orders.status))
    plain = (orders.id, orders.symbol, orders.account, orders.price, orders.quantity)
    return tuple(dict.fromkeys((*plain, orders.leaves, orders.created_at, *enumerated)))


def fill_columns(fills: FillsTable) -> tuple[str, ...]:
    """The columns that `legacy_fill` reads, each once."""
    orders = (fills.maker_order, fills.taker_order)
    return tuple(dict.fromkeys((fills.id, fills.symbol, *orders, fills.price, fills.quantity)))


def order_image(
    row: Row[str, str | None], mapping: Mapping, scales: Row[str, Scale]
) -> OrderImage | Unreadable:
    """A market order is immediate-or-cancel at no price, whatever its time in force column says."""
    orders = mapping.orders
    try:
        return _order_image(row, orders, scales)
    except (NotExact, _Unusable) as error:
        return Unreadable(
            symbol=row.get(orders.symbol) or "",
            order_id=id_or_zero(row.get(orders.id)),
            reason=f"{orders.table}: {error}",
        )


def legacy_fill(
    row: Row[str, str | None], mapping: Mapping, scales: Row[str, Scale]
) -> LegacyFill | Unreadable:
    """An unreadable fill names its taker, if that could be read."""
    fills = mapping.fills
    try:
        scale = _scale(row, fills.symbol, scales)
        return LegacyFill(
            symbol=scale.symbol,
            fill_id=_id(row, fills.id),
            maker_order_id=_id(row, fills.maker_order),
            taker_order_id=_id(row, fills.taker_order),
            price_ticks=scale.ticks(_text(row, fills.price)),
            qty_lots=scale.lots(_text(row, fills.quantity)),
        )
    except (NotExact, _Unusable) as error:
        return Unreadable(
            symbol=row.get(fills.symbol) or "",
            order_id=id_or_zero(row.get(fills.taker_order)),
            reason=f"{fills.table} {row.get(fills.id)}: {error}",
        )


def id_or_zero(text: str | None) -> int:
    """An order id, or 0 for what is none."""
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 20:
        return 0
    number = int(text)
    return number if number <= ID_MAX else 0


def timestamp_us(text: str) -> int:
    """Microseconds since 1970 of PostgreSQL's ISO output; without a zone it is UTC, as in Rails.

    Raises ValueError for infinity, for years before Christ, and for another DateStyle.

    >>> timestamp_us("2015-05-01 00:00:00.25"), timestamp_us("2015-05-01 02:00:00+02")
    (1430438400250000, 1430438400000000)
    """
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MICROSECOND


def _order_image(
    row: Row[str, str | None], orders: OrdersTable, scales: Row[str, Scale]
) -> OrderImage:
    scale = _scale(row, orders.symbol, scales)
    ord_type = ORDER_TYPES[_word(row, orders.ord_type)]
    market = ord_type is OrderType.MARKET
    qty_lots = scale.lots(_text(row, orders.quantity))
    leaves_lots = scale.lots(_text(row, orders.leaves))
    if leaves_lots > qty_lots:
        raise _Unusable(f"{orders.leaves} is more than {orders.quantity}")
    return OrderImage(
        symbol=scale.symbol,
        order_id=_id(row, orders.id),
        account=_id(row, orders.account),
        side=SIDES[_word(row, orders.side)],
        ord_type=ord_type,
        tif=TimeInForce.IOC if market else TIMES_IN_FORCE[_word(row, orders.tif)],
        price_ticks=_market_price(row, orders, scale) if market else _price(row, orders, scale),
        qty_lots=qty_lots,
        leaves_lots=leaves_lots,
        status=STATUSES[_word(row, orders.status)],
        created_at_us=_time(row, orders.created_at),
    )


def _price(row: Row[str, str | None], orders: OrdersTable, scale: Scale) -> int:
    return scale.ticks(_text(row, orders.price))


def _market_price(row: Row[str, str | None], orders: OrdersTable, scale: Scale) -> int:
    price = _present(row, orders.price)
    if price is not None and scale.ticks(price):
        raise _Unusable(f"a market order with {orders.price} = {_shown(price)}")
    return 0


def _scale(row: Row[str, str | None], column: str, scales: Row[str, Scale]) -> Scale:
    symbol = _text(row, column)
    scale = scales.get(symbol)
    if scale is None:
        raise _Unusable(f"{column} = {_shown(symbol)} is no configured instrument")
    return scale


def _word(row: Row[str, str | None], enumerated: Enumerated) -> str:
    value = _text(row, enumerated.column)
    word = enumerated.map.get(value)
    if word is None:
        raise _Unusable(f"{enumerated.column} = {_shown(value)} is not in the mapping")
    return word


def _id(row: Row[str, str | None], column: str) -> int:
    value = _text(row, column)
    number = id_or_zero(value)
    if number == 0:
        raise _Unusable(f"{column} = {_shown(value)} is no positive 64-bit integer")
    return number


def _time(row: Row[str, str | None], column: str) -> int:
    value = _text(row, column)
    try:
        return timestamp_us(value)
    except (ValueError, OverflowError) as error:
        raise _Unusable(f"{column} = {_shown(value)} is no time") from error


def _text(row: Row[str, str | None], column: str) -> str:
    value = _present(row, column)
    if value is None:
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


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN_CHARS_MAX else value[:SHOWN_CHARS_MAX] + "…")
