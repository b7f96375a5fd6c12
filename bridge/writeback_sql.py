"""The write-back's statements, made from the mapping and the columns that the legacy tables really
have.

Each statement takes whole columns as arrays, so that a group of events is a handful of round trips
however many rows it has. Values are converted by `Scale` alone, and by `writeback_forms` into the
columns' own forms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bridge import writeback_forms as forms
from bridge.errors import WriteBackStopped
from bridge.writeback_forms import Column
from bridge.writeback_rows import ChangedOrder, NewFill, NewOrder
from engine.types import OrderType, Side, TimeInForce
from shadow.answer import uuid_of
from shadow.legacy.convert import Scale
from shadow.legacy.makers import booked
from shadow.legacy.mapping import Amount, Enumerated, FillsTable, OrdersTable, Symbol, Time
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.symbols import values_of
from shadow.legacy.words import value_of
from shadow.operation import Status

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (the monolith's columns have no zone and mean UTC)

# A cast to `character` would be one to char(1), and cut without an error.
_COLUMNS = """
    SELECT a.attname AS name, CASE a.atttypid WHEN 'bpchar'::regtype THEN 'bpchar'
               ELSE format_type(a.atttypid, NULL) END AS type,
           information_schema._pg_numeric_scale(a.atttypid, a.atttypmod) AS scale,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AS needed
    FROM pg_attribute AS a
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""

Columns = dict[str, list[Any]]  # our name for a value -> that value of every row


class Statements(msgspec.Struct, frozen=True, kw_only=True):
    insert_orders: sql.Composed
    lock_orders: sql.Composed
    update_orders: sql.Composed
    insert_fills: sql.Composed


async def prepare(
    cursor: psycopg.AsyncCursor[dict[str, Any]],
    mapping: LegacyMapping,
    scales: Iterable[Scale],
) -> Statements:
    """Raises WriteBackStopped, naming every column that stands in the way."""
    orders = await _columns(cursor, mapping.orders.table)
    fills = await _columns(cursor, mapping.fills.table)
    order_targets, fill_targets = _order_targets(mapping.orders), _fill_targets(mapping)
    found = [
        *_unwritable(mapping.orders.table, orders, {*order_targets}),
        *_unwritable(mapping.fills.table, fills, {*fill_targets, mapping.fills.id.column}),
        *forms.troubles(mapping, orders, fills, tuple(scales)),
    ]
    if found:
        raise WriteBackStopped("; ".join(found) + ": correct the mapping or the tables")
    arrays = _order_arrays(mapping.orders)
    return Statements(
        insert_orders=_insert(mapping.orders.table, order_targets, orders, arrays),
        lock_orders=_lock_orders(mapping),
        update_orders=_update_orders(mapping.orders, orders),
        insert_fills=sql.SQL("{} RETURNING {} AS id").format(
            _insert(mapping.fills.table, fill_targets, fills, _FILL_ARRAYS),
            sql.Identifier(mapping.fills.id.column),
        ),
    )


def order_values(
    orders: Sequence[NewOrder], mapping: LegacyMapping, scales: Mapping[int, Scale]
) -> Columns:
    table = mapping.orders
    said = forms.said_of_orders(table)
    words = [_said(said, one) for one in orders]
    _require_sayable(orders, table)
    return {
        "id": [one.order_id for one in orders],
        "symbol": [_value_of(table.symbol, scales[one.instrument]) for one in orders],
        "account": [one.account for one in orders],
        **{name: [one.get(name) for one in words] for name in _ENUMERATED},
        "price": [
            None if one.price_ticks is None else scales[one.instrument].price(one.price_ticks)
            for one in orders
        ],
        "quantity": [scales[one.instrument].quantity(one.qty_lots) for one in orders],
        "leaves": [scales[one.instrument].quantity(one.leaves_lots) for one in orders],
        "filled": [scales[one.instrument].quantity(one.filled_lots) for one in orders],
        "created_at": [_timestamp(one.created_at_us) for one in orders],
        "updated_at": [_timestamp(one.updated_at_us) for one in orders],
        **({"uuid": [uuid_of(one.order_id) for one in orders]} if table.uuid else {}),
    }


def _said(said: forms.Said, order: NewOrder) -> Mapping[str, str | None]:
    """Raises WriteBackStopped for what the engine knows and the monolith does not."""
    words = {
        "side": Side(order.side).name.lower(),
        "ord_type": OrderType(order.ord_type).name.lower(),
        "tif": TimeInForce(order.tif).name.lower(),
        "status": str(order.status),
    }
    try:
        return said.values(words)
    except KeyError as error:
        if order.ord_type == OrderType.MARKET and words["tif"] != "gtc":
            # A market order is immediate-or-cancel whatever its column says.
            return _said(said, msgspec.structs.replace(order, tif=int(TimeInForce.GTC)))
        raise WriteBackStopped(
            f"order {order.order_id} is {error.args[0].upper()}, for which the mapping has no"
            " word: roll its instrument back, and let its clients send what the monolith knows"
        ) from None


def _require_sayable(orders: Iterable[NewOrder | ChangedOrder], table: OrdersTable) -> None:
    """What is left of an order can differ from what was ordered and traded: by its own column."""
    if table.leaves.column:
        return
    for one in orders:
        if one.is_cut and one.status is not Status.CANCELED:
            raise WriteBackStopped(
                f"order {one.order_id} was reduced without a fill, which {table.table} can't say"
                " without a column for its leaves quantity: roll its instrument back"
            )


def change_values(
    orders: Sequence[ChangedOrder], mapping: LegacyMapping, scales: Mapping[int, Scale]
) -> Columns:
    status = mapping.orders.status
    states = {word: value_of([(status, word)]) for word in {one.status for one in orders}}
    _require_sayable(orders, mapping.orders)
    return {
        "id": [one.order_id for one in orders],
        "leaves": [scales[one.instrument].quantity(one.leaves_lots) for one in orders],
        "filled": [scales[one.instrument].quantity(one.filled_lots) for one in orders],
        "status": [states[one.status] for one in orders],
        "updated_at": [_timestamp(one.updated_at_us) for one in orders],
    }


def fill_values(
    fills: Sequence[NewFill], mapping: LegacyMapping, scales: Mapping[int, Scale]
) -> Columns:
    """Maker and taker are those that the monolith books; buyer and seller whoever they are."""
    table = mapping.fills
    pairs = [booked(one.maker_order_id, one.taker_order_id, table.maker_rule) for one in fills]
    sides = [Side(one.taker_side) for one in fills]
    times = [_timestamp(one.at_us) for one in fills]
    return {
        "symbol": [_value_of(table.symbol, scales[one.instrument]) for one in fills],
        "maker_order": [maker for maker, _ in pairs],
        "taker_order": [taker for _, taker in pairs],
        "buy_order": [
            one.taker_order_id if side is Side.BUY else one.maker_order_id
            for one, side in zip(fills, sides, strict=True)
        ],
        "sell_order": [
            one.maker_order_id if side is Side.BUY else one.taker_order_id
            for one, side in zip(fills, sides, strict=True)
        ],
        "price": [scales[one.instrument].price(one.price_ticks) for one in fills],
        "quantity": [scales[one.instrument].quantity(one.qty_lots) for one in fills],
        "taker_side": _taker_sides(fills, pairs, table.taker_side),
        "created_at": times,
        "updated_at": times,
    }


def _taker_sides(
    fills: Sequence[NewFill], pairs: Sequence[tuple[int, int]], enumerated: Enumerated
) -> list[str | None]:
    """Of the order that is booked as taker."""
    if not enumerated.column:
        return [None] * len(fills)
    values = {side: value_of([(enumerated, side.name.lower())]) for side in Side}
    return [
        values[Side(one.taker_side) if taker == one.taker_order_id else _opposite(one.taker_side)]
        for one, (_, taker) in zip(fills, pairs, strict=True)
    ]


def _opposite(side: int) -> Side:
    return Side.SELL if side == Side.BUY else Side.BUY


def _value_of(symbol: Symbol, scale: Scale) -> str:
    values = values_of(symbol, scale.symbol)
    if not values:
        raise WriteBackStopped(
            f"column {symbol.column} has no value for {scale.symbol}: give it one in symbol.map, or"
            " a row in the monolith's table of instruments"
        )
    return values[0]


_ENUMERATED = ("side", "ord_type", "tif", "status")

# Our values and the types of the arrays that they are sent in, whatever the columns' own types are.
_ORDER_ARRAYS = {
    **dict.fromkeys(("id", "account"), "bigint"),
    **dict.fromkeys(("symbol", *_ENUMERATED), "text"),
    **dict.fromkeys(("price", "quantity", "leaves", "filled"), "numeric"),
    **dict.fromkeys(("created_at", "updated_at"), "timestamp"),
}
_FILL_ARRAYS = {
    **dict.fromkeys(("maker_order", "taker_order", "buy_order", "sell_order"), "bigint"),
    **dict.fromkeys(("symbol", "taker_side"), "text"),
    **dict.fromkeys(("price", "quantity"), "numeric"),
    **dict.fromkeys(("created_at", "updated_at"), "timestamp"),
}
_CHANGE_ARRAYS = ("id", "leaves", "filled", "status", "updated_at")


def _order_arrays(table: OrdersTable) -> dict[str, str]:
    return {**_ORDER_ARRAYS, **({"uuid": "text"} if table.uuid else {})}


_Targets = dict[str, Callable[[Column], sql.Composable]]  # column -> its value, to be cast


def _order_targets(table: OrdersTable) -> _Targets:
    targets: _Targets = {
        table.id.column: _plain("id"),
        table.symbol.column: _plain("symbol"),
        table.account.column: _plain("account"),
        table.price.column: _amount("price", table.price),
        table.quantity.column: _amount("quantity", table.quantity),
        table.leaves.column: _amount("leaves", table.leaves),
        table.filled.column: _amount("filled", table.filled),
        table.created_at.column: _moment("created_at", table.created_at),
        table.updated_at.column: _moment("updated_at", table.updated_at),
        table.lock_version: _constant("0"),
        table.uuid: _plain("uuid"),
    }
    said = forms.said_of_orders(table).columns
    targets |= {column: _plain(name) for name, column in said.items()}
    return _named(targets | _constants(table))


def _fill_targets(mapping: LegacyMapping) -> _Targets:
    table = mapping.fills
    targets: _Targets = {
        table.symbol.column: _plain("symbol"),
        table.price.column: _amount("price", table.price),
        table.quantity.column: _amount("quantity", table.quantity),
        table.total.column: _total(table.total),
        table.taker_side.column: _plain("taker_side"),
        table.created_at.column: _moment("created_at", table.created_at),
        table.updated_at.column: _moment("updated_at", table.updated_at),
    }
    for who in ("maker", "taker", "buy", "sell"):
        targets[getattr(table, f"{who}_order")] = _plain(f"{who}_order")
        targets[getattr(table, f"{who}_account")] = _account(f"{who}_order", mapping.orders)
    return _named(targets | _constants(table))


def _named(targets: _Targets) -> _Targets:
    return {column: value for column, value in targets.items() if column}


def _constants(table: OrdersTable | FillsTable) -> _Targets:
    return {column: _constant(value) for column, value in forms.constants(table).items()}


def _constant(value: str) -> Callable[[Column], sql.Composable]:
    text = sql.Literal(value).as_string().replace("%", "%%")  # the statement has placeholders
    return lambda column: sql.Composed([sql.SQL(text)])


def _plain(name: str) -> Callable[[Column], sql.Composable]:
    return lambda column: _sent(name)


def _amount(name: str, form: Amount) -> Callable[[Column], sql.Composable]:
    return lambda column: forms.amount(_sent(name), form)


def _total(form: Amount) -> Callable[[Column], sql.Composable]:
    total = sql.SQL("({} * {})").format(_sent("price"), _sent("quantity"))
    return lambda column: forms.amount(total, form)


def _moment(name: str, time: Time) -> Callable[[Column], sql.Composable]:
    return lambda column: forms.moment(_sent(name), time, column)


def _account(order: str, orders: OrdersTable) -> Callable[[Column], sql.Composable]:
    """Of an order that is in its table: before, or since this transaction."""
    query = sql.SQL("(SELECT a.{} FROM {} AS a WHERE a.{} = {})").format(
        sql.Identifier(orders.account.column),
        _table(orders.table),
        sql.Identifier(orders.id.column),
        _sent(order),
    )
    return lambda column: query


def _sent(name: str) -> sql.Composed:
    return sql.SQL("u.{}").format(sql.Identifier(name))


def _insert(
    table: str, targets: _Targets, columns: dict[str, Column], arrays: dict[str, str]
) -> sql.Composed:
    """In the order of the arrays, so that ids given by a default ascend with it."""
    values = (forms.cast(value(columns[name]), columns[name]) for name, value in targets.items())
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM unnest({arrays})"
        " WITH ORDINALITY AS u ({names}, n) ORDER BY u.n"
    ).format(
        table=_table(table),
        columns=_comma(sql.Identifier(column) for column in targets),
        values=_comma(values),
        arrays=_comma(_array(name, kind) for name, kind in arrays.items()),
        names=_comma(sql.Identifier(name) for name in arrays),
    )


def _lock_orders(mapping: LegacyMapping) -> sql.Composed:
    return sql.SQL(
        "SELECT {id} AS id FROM {table} WHERE {id} = ANY (%(id)s::bigint[])"
        " ORDER BY {id} FOR UPDATE"
    ).format(id=sql.Identifier(mapping.orders.id.column), table=_table(mapping.orders.table))


def _update_orders(table: OrdersTable, columns: dict[str, Column]) -> sql.Composed:
    targets = _named(
        {
            table.leaves.column: _amount("leaves", table.leaves),
            table.filled.column: _more("filled", table.filled),
            table.status.column: _plain("status"),
            table.updated_at.column: _moment("updated_at", table.updated_at),
        }
    )
    assignments: list[sql.Composable] = [
        sql.SQL("{} = {}").format(
            sql.Identifier(name), forms.cast(value(columns[name]), columns[name])
        )
        for name, value in targets.items()
    ]
    if table.lock_version:
        # Rails refuses to save an object that was loaded before this change.
        version = sql.Identifier(table.lock_version)
        assignments.append(sql.SQL("{0} = coalesce(o.{0}, 0) + 1").format(version))
    return sql.SQL(
        "UPDATE {table} AS o SET {assignments} FROM unnest({arrays}) AS u ({names})"
        " WHERE o.{id} = u.id"
    ).format(
        table=_table(table.table),
        assignments=_comma(assignments),
        arrays=_comma(_array(name, _ORDER_ARRAYS[name]) for name in _CHANGE_ARRAYS),
        names=_comma(sql.Identifier(name) for name in _CHANGE_ARRAYS),
        id=sql.Identifier(table.id.column),
    )


def _more(name: str, form: Amount) -> Callable[[Column], sql.Composable]:
    """What is there, and this."""
    there = sql.SQL("coalesce(CAST(o.{} AS numeric), 0)").format(sql.Identifier(form.column))
    return lambda column: sql.SQL("{} + {}").format(there, forms.amount(_sent(name), form))


def _array(name: str, kind: str) -> sql.Composed:
    return sql.SQL("{}::{}[]").format(sql.Placeholder(name), sql.SQL(kind))


def _comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def _timestamp(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)


async def _columns(cursor: psycopg.AsyncCursor[dict[str, Any]], table: str) -> dict[str, Column]:
    await cursor.execute(_COLUMNS, (table,))
    found = [msgspec.convert(row, Column) for row in await cursor.fetchall()]
    if not found:
        raise WriteBackStopped(f"the legacy database has no table {table}: correct the mapping")
    return {column.name: column for column in found}


def _unwritable(table: str, columns: dict[str, Column], targets: set[str]) -> Iterable[str]:
    for name in sorted(targets - columns.keys()):
        yield f"the mapping names column {name}, which {table} doesn't have"
    for column in columns.values():
        if column.needed and column.name not in targets:
            yield f"{table}.{column.name} needs a value, and the mapping doesn't know it"
