"""Whose an order is, asked of the monolith's database: for orders that are not remembered."""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from shadow.legacy.conditions import is_inside
from shadow.legacy.database import connected, literals, table, translated
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Mapping
from shadow.legacy.symbols import symbol_of
from shadow.limits import QUERY_S


async def owners_of(
    url: str, mapping: Mapping, order_ids: Iterable[int]
) -> dict[int, tuple[str, int]]:
    """(symbol, account) by order id; what does not exist is absent. Raises LegacyUnavailable,
    LegacyNotReady.
    """
    orders = mapping.orders
    ids = [str(one) for one in order_ids]
    if not ids or orders.id.form == "uuid":
        return {}  # the numbers of UUIDs don't lead back to them
    query = sql.SQL("SELECT {}::text, {}::text, {}::text FROM {} WHERE {} IN ({}) AND {}").format(
        sql.Identifier(orders.id.column),
        sql.Identifier(orders.symbol.column),
        sql.Identifier(orders.account.column),
        table(orders.table),
        sql.Identifier(orders.id.column),
        literals(ids),
        is_inside(orders.where),
    )
    async with connected(url) as connection:
        with translated(url, "reading orders of"):
            await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
            cursor = await connection.execute(query)
            rows = await cursor.fetchall()
    return {
        number_of(order_id, orders.id): (
            symbol_of(orders.symbol, symbol or ""),
            number_of(account, orders.account),
        )
        for order_id, symbol, account in rows
    }
