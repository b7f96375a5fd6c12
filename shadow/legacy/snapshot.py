"""The monolith's open orders at an exact position of its change stream, and marks in the stream.

A temporary slot is made only for the snapshot that it exports: what committed before its position
is in the snapshot, what committed at it or after is not, whatever the isolation of the writers.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping as Scales
from collections.abc import Sequence

import msgspec
import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from engine.types import Side
from shadow.errors import SlotNotCreated
from shadow.legacy.assemble import MESSAGE_PREFIX
from shadow.legacy.convert import Scale
from shadow.legacy.database import connected, literals, parse_lsn, table, translated
from shadow.legacy.mapping import Mapping
from shadow.legacy.rows import order_columns, order_image
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
) -> Snapshot:
    """The open orders of these symbols, in the order of `read_open_orders`, and where they stand.

    Waits for the write transactions that are open now, at most `timeout_s`: then SlotNotCreated
    names them. Raises LegacyUnavailable, LegacyNotReady.
    """
    doing = "reading open orders from"
    async with connected(url) as reader, connected(url, replication=True) as exporter:
        with translated(url, doing):
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
                orders = await _read(reader, mapping, scales, symbols)
    return Snapshot(lsn=lsn, orders=orders)


async def read_open_orders(
    connection: AsyncConnection[TupleRow],
    mapping: Mapping,
    scales: Scales[str, Scale],
    symbol: str,
) -> tuple[OrderImage | Unreadable, ...]:
    """As the connection's transaction sees them now: buys before sells, best price first, then
    `mapping.orders.priority`; unreadable rows last. Raises psycopg's errors.
    """
    async with connection.transaction():
        return await _read(connection, mapping, scales, [symbol])


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


async def _read(
    connection: AsyncConnection[TupleRow],
    mapping: Mapping,
    scales: Scales[str, Scale],
    symbols: Sequence[str],
) -> tuple[OrderImage | Unreadable, ...]:
    orders = mapping.orders
    values = tuple(value for value, word in orders.status.map.items() if word == Status.OPEN)
    if not symbols or not values:
        return ()
    columns = order_columns(orders)
    query = sql.SQL(
        "SET LOCAL datestyle = 'ISO'; SET LOCAL timezone = 'UTC'; SET LOCAL statement_timeout = {};"
        " SELECT {} FROM {} WHERE {} IN ({}) AND {} IN ({}) ORDER BY {}"
    ).format(
        sql.Literal(int(SNAPSHOT_READ_S * 1000)),
        sql.SQL(", ").join(sql.Identifier(name) for name in columns),
        table(orders.table),
        sql.Identifier(orders.symbol),
        literals(symbols),
        sql.Identifier(orders.status.column),
        literals(values),
        sql.SQL(", ").join(sql.Identifier(name) for name in orders.priority),
    )
    cursor = await connection.execute(query)
    while cursor.nextset():
        pass
    result = cursor.pgresult
    assert result is not None
    # PostgreSQL's own text, as in the change stream: casts write some types in another way.
    read = [
        order_image(
            {name: _decoded(result.get_value(n, m)) for m, name in enumerate(columns)},
            mapping,
            scales,
        )
        for n in range(result.ntuples)
    ]
    place = {symbol: n for n, symbol in enumerate(symbols)}
    return tuple(sorted(read, key=lambda one: _place(one, place)))  # stable: priority stays


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _place(one: OrderImage | Unreadable, place: dict[str, int]) -> tuple[int, int, int]:
    if isinstance(one, Unreadable):
        return (len(place), 0, 0)
    best_first = -one.price_ticks if one.side == Side.BUY else one.price_ticks
    return (place[one.symbol], one.side, best_first)
