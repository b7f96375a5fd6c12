"""Whose an order is, asked of the monolith's database: for orders that are not remembered."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from shadow.legacy.database import connected, table, translated
from shadow.legacy.mapping import Mapping
from shadow.legacy.rows import id_or_zero
from shadow.limits import QUERY_S


async def owners_of(
    url: str, mapping: Mapping, order_ids: Iterable[int]
) -> dict[int, tuple[str, int]]:
    """(symbol, account) by order id; what does not exist is absent. Raises LegacyUnavailable,
    LegacyNotReady.
    """
    orders = mapping.orders
    query = sql.SQL("SELECT {}::text, {}::text, {}::text FROM {} WHERE {} = ANY(%s)").format(
        sql.Identifier(orders.id),
        sql.Identifier(orders.symbol),
        sql.Identifier(orders.account),
        table(orders.table),
        sql.Identifier(orders.id),
    )
    async with connected(url) as connection:
        with translated(url, "reading orders of"):
            await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
            cursor = await connection.execute(query, [list(order_ids)])
            rows = await cursor.fetchall()
    return {
        id_or_zero(order_id): (symbol, id_or_zero(account)) for order_id, symbol, account in rows
    }
