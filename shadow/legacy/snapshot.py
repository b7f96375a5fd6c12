"""The monolith's open orders at an exact position of its change stream, and marks in the stream.

A temporary slot is made only for the snapshot that it exports: what committed before its position
is in the snapshot, what committed at it or after is not, whatever the isolation of the writers.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from collections.abc import Mapping as Scales

import msgspec
import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from engine.types import Side
from shadow.errors import AdapterFailed, SlotNotCreated
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.assemble import MESSAGE_PREFIX
from shadow.legacy.conditions import NEVER, column_of, is_inside, is_of, says
from shadow.legacy.convert import Scale, unit_of
from shadow.legacy.database import connected, parse_lsn, table, translated
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Amount, Mapping
from shadow.legacy.rows import (
    named_symbol,
    order_columns,
    order_id_columns,
    order_image,
    worked_out,
)
from shadow.legacy.slots import slot_error
from shadow.limits import QUERY_S, SLOT_CREATE_S, SNAPSHOT_READ_S
from shadow.operation import OrderImage, Status, Unreadable


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    lsn: int  # holds exactly the transactions with commit_lsn < lsn
    orders: tuple[OrderImage | Unreadable, ...]  # see `read_open_orders` for their order


async def open_orders_at(
    url: str,
    mapping: Mapping,
    scales: Scales[str, Scale],
    symbols: Sequence[str],
    *,
    timeout_s: float = SLOT_CREATE_S,
    adapter: Adapted = PLAIN,
    hold: Callable[[], None] = lambda: None,
) -> Snapshot:
    """The open orders of these symbols, in the order of `read_open_orders`, and where they stand.
    `hold` is called before the position is taken.

    Waits for the write transactions that are open now, at most `timeout_s`: then SlotNotCreated
    names them. Raises LegacyUnavailable, LegacyNotReady.
    """
    doing = "reading open orders from"
    async with connected(url) as reader, connected(url, replication=True) as exporter:
        with translated(url, doing):
            hold()
            lsn, name = await _export(exporter, url, timeout_s)
            async with reader.transaction():
                await reader.execute(
                    sql.SQL(
                        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                        " SET TRANSACTION SNAPSHOT {}"
                    ).format(sql.Literal(name))
                )
                # The snapshot is the reader's own from here on.
                await exporter.close()
                orders = await read_rows(reader, mapping, scales, symbols, adapter)
    return Snapshot(lsn=lsn, orders=orders)


async def read_open_orders(
    connection: AsyncConnection[TupleRow],
    mapping: Mapping,
    scales: Scales[str, Scale],
    symbol: str,
    adapter: Adapted = PLAIN,
) -> tuple[OrderImage | Unreadable, ...]:
    """As the connection's transaction sees them now: buys before sells, best price first, then
    `mapping.orders.priority`; unreadable rows last. Raises psycopg's errors.
    """
    async with connection.transaction():
        return await read_rows(connection, mapping, scales, [symbol], adapter)


async def write_mark(url: str, mark_id: str) -> None:
    """`Mark(mark_id)` comes in the change stream after everything that has committed by now."""
    async with connected(url) as connection:
        with translated(url, "writing a mark into"):
            await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
            await emit(connection, {"kind": "mark", "id": mark_id})


async def emit(connection: AsyncConnection[TupleRow], message: dict[str, str | int]) -> None:
    """One of our messages, in the connection's transaction. Raises psycopg's errors."""
    await connection.execute(
        "SELECT pg_logical_emit_message(true, %s, %s)",
        [MESSAGE_PREFIX, msgspec.json.encode(message).decode()],
    )


async def _export(
    exporter: AsyncConnection[TupleRow], url: str, timeout_s: float
) -> tuple[int, str]:
    """(position, name of the snapshot), which lives until the exporter's next command or end."""
    command = sql.SQL("CREATE_REPLICATION_SLOT {} TEMPORARY LOGICAL pgoutput EXPORT_SNAPSHOT")
    slot = sql.Identifier(f"railswitch_read_{secrets.token_hex(8)}")
    try:
        async with asyncio.timeout(timeout_s):
            row = await (await exporter.execute(command.format(slot))).fetchone()
    except TimeoutError as error:
        canceled = psycopg.errors.QueryCanceled()
        raise await slot_error(url, canceled, timeout_s) from error
    except psycopg.Error as error:
        raise await slot_error(url, error, timeout_s) from error
    if row is None:
        raise SlotNotCreated("the server made a temporary slot and did not say where")
    _, position, name, _ = row
    return parse_lsn(position), name


async def read_rows(
    connection: AsyncConnection[TupleRow],
    mapping: Mapping,
    scales: Scales[str, Scale],
    symbols: Sequence[str],
    adapter: Adapted,
) -> tuple[OrderImage | Unreadable, ...]:
    condition = says(mapping.orders.status, Status.OPEN)
    if not symbols or condition is NEVER:
        return ()
    columns = tuple(dict.fromkeys((*order_columns(mapping.orders), *adapter.order_columns)))
    cursor = await connection.execute(_query(mapping, symbols, condition, columns))
    while cursor.nextset():
        pass
    result = cursor.pgresult
    assert result is not None
    # PostgreSQL's own text, as in the change stream: casts write some types in another way.
    read = []
    for n in range(result.ntuples):
        row = {name: _decoded(result.get_value(n, m)) for m, name in enumerate(columns)}
        image = _image(row, mapping, scales, adapter)
        if image is None:
            continue
        if isinstance(image, OrderImage) and not _says_quantities(mapping):
            filled = _decoded(result.get_value(n, len(columns)))
            image = worked_out(image, filled, mapping.orders, scales)
        read.append(image)
    place = {symbol: n for n, symbol in enumerate(symbols)}
    return tuple(sorted(read, key=lambda one: _place(one, place)))  # stable: priority stays


def _image(
    row: dict[str, str | None], mapping: Mapping, scales: Scales[str, Scale], adapter: Adapted
) -> OrderImage | Unreadable | None:
    """None for a row that the adapter hides."""
    try:
        seen = adapter.order_row(row)
    except AdapterFailed as error:
        orders = mapping.orders
        return Unreadable(
            symbol=named_symbol(row, orders.symbol),
            order_id=number_of(row.get(orders.id.column), orders.id),
            reason=f"{orders.table}: {error}",
        )
    return None if seen is None else order_image(seen, mapping, scales)


def _query(
    mapping: Mapping, symbols: Sequence[str], condition: sql.Composable, columns: Sequence[str]
) -> sql.Composed:
    orders = mapping.orders
    selected: list[sql.Composable] = [column_of(name, "o") for name in columns]
    if not _says_quantities(mapping):
        selected.append(_filled(mapping))
    return sql.SQL(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = {};"
        " SELECT {} FROM {} AS o WHERE {} AND {} AND {} ORDER BY {}"
    ).format(
        sql.Literal(int(SNAPSHOT_READ_S * 1000)),
        sql.SQL(", ").join(selected),
        table(orders.table),
        is_of(orders.symbol, symbols),
        condition,
        is_inside(orders.where),
        sql.SQL(", ").join(column_of(name, "o") for name in orders.priority),
    )


def _says_quantities(mapping: Mapping) -> bool:
    orders = mapping.orders
    return sum(bool(one.column) for one in (orders.quantity, orders.leaves, orders.filled)) > 1


def _filled(mapping: Mapping) -> sql.Composable:
    """What the fills say of order `o`, as a number; NULL where one of them can't be read."""
    fills = mapping.fills
    sums = [
        sql.SQL("(SELECT {} FROM {} AS f WHERE {} = {} AND {})").format(
            _sum(fills.quantity),
            table(fills.table),
            column_of(column, "f"),
            column_of(mapping.orders.id.column, "o"),
            is_inside(fills.where, "f"),
        )
        for column in order_id_columns(fills)
    ]
    return sql.SQL(" + ").join(sums)


def _sum(amount: Amount) -> sql.Composable:
    """Of an amount's column of `f`."""
    value = sql.SQL("CAST({} AS numeric)").format(column_of(amount.column, "f"))
    if amount.form == "text":
        is_number = sql.SQL("{} ~ '^[0-9]+([.][0-9]+)?$'").format(column_of(amount.column, "f"))
        # A CASE, for only that keeps the cast from what is no number.
        return sql.SQL(
            "CASE WHEN bool_and({0}) IS NOT FALSE"
            " THEN coalesce(sum(CASE WHEN {0} THEN {1} END), 0) END"
        ).format(is_number, value)
    total = sql.SQL("coalesce(sum({}), 0)").format(value)
    if amount.form == "integer":
        return sql.SQL("{} * {}::numeric").format(total, sql.Literal(unit_of(amount)))
    return total


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _place(one: OrderImage | Unreadable, place: dict[str, int]) -> tuple[int, int, int]:
    if isinstance(one, Unreadable):
        return (len(place), 0, 0)
    best_first = -one.price_ticks if one.side == Side.BUY else one.price_ticks
    return (place[one.symbol], one.side, best_first)
