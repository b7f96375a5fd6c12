"""The write-back's statements, made from the mapping and the columns that the legacy tables really
have.

Each statement takes whole columns as arrays, so that a group of events is a handful of round trips
however many rows it has. Values are converted by `Scale` alone; enumerated words by the mapping's
own maps, read backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bridge.errors import WriteBackStopped
from bridge.writeback_rows import ChangedOrder, NewFill, NewOrder
from engine.types import OrderType, Side, TimeInForce
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Enumerated
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.rows import ORDER_TYPES, TIMES_IN_FORCE
from shadow.operation import Status

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001  (the monolith's columns have no zone and mean UTC)

_COLUMNS = """
    SELECT a.attname AS name, format_type(a.atttypid, NULL) AS type,
           information_schema._pg_numeric_scale(a.atttypid, a.atttypmod) AS scale,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND a.attgenerated = '' AS needed
    FROM pg_attribute AS a
    WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped"""

Columns = dict[str, list[Any]]  # our name for a value -> that value of every row


class Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    type: str
    scale: int | None  # digits that a NUMERIC keeps after the point; None: as many as are given
    needed: bool  # NOT NULL without a default


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
    order_targets, fill_targets = _order_targets(mapping), _fill_targets(mapping)
    scales = tuple(scales)
    numeric = (mapping.orders.price, mapping.orders.quantity, mapping.orders.leaves)
    troubles = [
        *_unwritable(mapping.orders.table, orders, {*order_targets.values()}),
        *_unwritable(mapping.fills.table, fills, {*fill_targets.values(), mapping.fills.id}),
        *_too_coarse(mapping.orders.table, orders, numeric, scales),
        *_too_coarse(
            mapping.fills.table, fills, (mapping.fills.price, mapping.fills.quantity), scales
        ),
        *_unwritten_words(mapping),
    ]
    if troubles:
        raise WriteBackStopped("; ".join(troubles) + ": correct the mapping or the tables")
    return Statements(
        insert_orders=_insert(mapping.orders.table, order_targets, orders),
        lock_orders=_lock_orders(mapping),
        update_orders=_update_orders(mapping, orders),
        insert_fills=sql.SQL("{} RETURNING {} AS id").format(
            _insert(mapping.fills.table, fill_targets, fills), sql.Identifier(mapping.fills.id)
        ),
    )


def order_values(
    orders: Sequence[NewOrder], mapping: LegacyMapping, scales: Mapping[int, Scale]
) -> Columns:
    table = mapping.orders
    sides, types, tifs, states = (
        _inverse(one) for one in (table.side, table.ord_type, table.tif, table.status)
    )
    values: Columns = {
        "id": [one.order_id for one in orders],
        "symbol": [scales[one.instrument].symbol for one in orders],
        "account": [one.account for one in orders],
        "side": [sides[Side(one.side).name.lower()] for one in orders],
        "ord_type": [_word(types, OrderType(one.ord_type), one.order_id) for one in orders],
        "tif": [_word(tifs, TimeInForce(one.tif), one.order_id) for one in orders],
        "price": [
            None if one.price_ticks is None else scales[one.instrument].price(one.price_ticks)
            for one in orders
        ],
        "quantity": [scales[one.instrument].quantity(one.qty_lots) for one in orders],
        "leaves": [scales[one.instrument].quantity(one.leaves_lots) for one in orders],
        "status": [states[one.status] for one in orders],
        "created_at": [_timestamp(one.created_at_us) for one in orders],
        "updated_at": [_timestamp(one.updated_at_us) for one in orders],
    }
    if table.lock_version:
        values["lock_version"] = [0] * len(orders)
    return values


def _word(words: Mapping[str, str], code: OrderType | TimeInForce, order_id: int) -> str:
    """Raises WriteBackStopped for what the engine knows and the monolith does not."""
    try:
        return words[code.name.lower()]
    except KeyError:
        raise WriteBackStopped(
            f"order {order_id} is {code.name}, for which the mapping has no word: roll its "
            f"instrument back, and let its clients send what the monolith knows"
        ) from None


def change_values(
    orders: Sequence[ChangedOrder], mapping: LegacyMapping, scales: Mapping[int, Scale]
) -> Columns:
    states = _inverse(mapping.orders.status)
    return {
        "id": [one.order_id for one in orders],
        "leaves": [scales[one.instrument].quantity(one.leaves_lots) for one in orders],
        "status": [states[one.status] for one in orders],
        "updated_at": [_timestamp(one.updated_at_us) for one in orders],
    }


def fill_values(
    fills: Sequence[NewFill], mapping: LegacyMapping, scales: Mapping[int, Scale]
) -> Columns:
    sides = _inverse(mapping.fills.taker_side)
    times = [_timestamp(one.at_us) for one in fills]
    values: Columns = {
        "symbol": [scales[one.instrument].symbol for one in fills],
        "maker_order": [one.maker_order_id for one in fills],
        "taker_order": [one.taker_order_id for one in fills],
        "price": [scales[one.instrument].price(one.price_ticks) for one in fills],
        "quantity": [scales[one.instrument].quantity(one.qty_lots) for one in fills],
        "taker_side": [sides[Side(one.taker_side).name.lower()] for one in fills],
        "created_at": times,
    }
    if mapping.fills.updated_at:
        values["updated_at"] = times
    return values


# Array element types of our values, whatever the target column's own type is.
_SENT_AS = {
    **dict.fromkeys(("id", "account", "maker_order", "taker_order"), "bigint"),
    **dict.fromkeys(("symbol", "side", "ord_type", "tif", "status", "taker_side"), "text"),
    **dict.fromkeys(("price", "quantity", "leaves"), "numeric"),
    **dict.fromkeys(("created_at", "updated_at"), "timestamp"),
    "lock_version": "bigint",
}


def _order_targets(mapping: LegacyMapping) -> dict[str, str]:
    """Our name for a value -> the column."""
    table = mapping.orders
    targets = {
        "id": table.id,
        "symbol": table.symbol,
        "account": table.account,
        "side": table.side.column,
        "ord_type": table.ord_type.column,
        "tif": table.tif.column,
        "price": table.price,
        "quantity": table.quantity,
        "leaves": table.leaves,
        "status": table.status.column,
        "created_at": table.created_at,
        "updated_at": table.updated_at,
    }
    return {**targets, "lock_version": table.lock_version} if table.lock_version else targets


def _fill_targets(mapping: LegacyMapping) -> dict[str, str]:
    table = mapping.fills
    targets = {
        "symbol": table.symbol,
        "maker_order": table.maker_order,
        "taker_order": table.taker_order,
        "price": table.price,
        "quantity": table.quantity,
        "taker_side": table.taker_side.column,
        "created_at": table.created_at,
    }
    return {**targets, "updated_at": table.updated_at} if table.updated_at else targets


def _insert(table: str, targets: dict[str, str], columns: dict[str, Column]) -> sql.Composed:
    """In the order of the arrays, so that ids given by a default ascend with it."""
    return sql.SQL(
        "INSERT INTO {table} ({columns}) SELECT {values} FROM unnest({arrays})"
        " WITH ORDINALITY AS u ({names}, n) ORDER BY u.n"
    ).format(
        table=_table(table),
        columns=_comma(sql.Identifier(column) for column in targets.values()),
        values=_comma(_cast(name, columns[column]) for name, column in targets.items()),
        arrays=_comma(_array(name) for name in targets),
        names=_comma(sql.Identifier(name) for name in targets),
    )


def _lock_orders(mapping: LegacyMapping) -> sql.Composed:
    return sql.SQL(
        "SELECT {id} AS id FROM {table} WHERE {id} = ANY (%(id)s::bigint[])"
        " ORDER BY {id} FOR UPDATE"
    ).format(id=sql.Identifier(mapping.orders.id), table=_table(mapping.orders.table))


def _update_orders(mapping: LegacyMapping, columns: dict[str, Column]) -> sql.Composed:
    table = mapping.orders
    targets = {
        "leaves": table.leaves,
        "status": table.status.column,
        "updated_at": table.updated_at,
    }
    assignments: list[sql.Composable] = [
        sql.SQL("{} = {}").format(sql.Identifier(column), _cast(name, columns[column]))
        for name, column in targets.items()
    ]
    if table.lock_version:
        # Rails refuses to save an object that was loaded before this change.
        version = sql.Identifier(table.lock_version)
        assignments.append(sql.SQL("{0} = coalesce(o.{0}, 0) + 1").format(version))
    names = ("id", *targets)
    return sql.SQL(
        "UPDATE {table} AS o SET {assignments} FROM unnest({arrays}) AS u ({names})"
        " WHERE o.{id} = u.id"
    ).format(
        table=_table(table.table),
        assignments=_comma(assignments),
        arrays=_comma(_array(name) for name in names),
        names=_comma(sql.Identifier(name) for name in names),
        id=sql.Identifier(table.id),
    )


def _array(name: str) -> sql.Composed:
    return sql.SQL("{}::{}[]").format(sql.Placeholder(name), sql.SQL(_SENT_AS[name]))


def _cast(name: str, column: Column) -> sql.Composed:
    # The type's text comes from format_type, which quotes what needs it.
    return sql.SQL("CAST(u.{} AS {})").format(sql.Identifier(name), sql.SQL(column.type))


def _comma(parts: Iterable[sql.Composable]) -> sql.Composed:
    return sql.SQL(", ").join(parts)


def _table(name: str) -> sql.Identifier:
    return sql.Identifier(*name.split("."))


def _timestamp(at_us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=at_us)


def _inverse(enumerated: Enumerated) -> dict[str, str]:
    """Our word -> the database's value; of several, the one that is named first."""
    inverse: dict[str, str] = {}
    for value, word in enumerated.map.items():
        inverse.setdefault(word, value)
    return inverse


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


def _too_coarse(
    table: str, columns: dict[str, Column], names: Iterable[str], scales: Sequence[Scale]
) -> Iterable[str]:
    """A NUMERIC with too few digits would round what the engine traded, and say nothing."""
    for name in names:
        scale = columns[name].scale if name in columns else None
        for one in scales:
            digits = max(_digits(one.tick), _digits(one.lot))
            if scale is not None and scale < digits:
                yield (
                    f"{table}.{name} keeps {scale} digits after the point, and {one.symbol} trades "
                    f"in {digits}"
                )


def _digits(step: Any) -> int:
    return max(0, -int(step.normalize().as_tuple().exponent))


def _unwritten_words(mapping: LegacyMapping) -> Iterable[str]:
    orders, fills = mapping.orders, mapping.fills
    sides = [side.name.lower() for side in Side]
    wanted = (
        ("orders.side", orders.side, sides),
        ("orders.ord_type", orders.ord_type, list(ORDER_TYPES)),
        ("orders.tif", orders.tif, list(TIMES_IN_FORCE)),
        ("orders.status", orders.status, [Status.OPEN, Status.FILLED, Status.CANCELED]),
        ("fills.taker_side", fills.taker_side, sides),
    )
    for key, enumerated, words in wanted:
        for word in words:
            if word not in enumerated.map.values():
                yield f"mapping.{key} has no value for {word!r}"
