"""Do orders change rows of accounts? Looked for in the legacy database, without changing anything.

The change stream has only orders and fills. But PostgreSQL keeps with each row which transaction
wrote it: a row of a table with balances that was written by the transaction of a recent order says
that they belong together. Where we may not read that table, only its statistics are left.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bridge.config import Config
from bridge.limits import ACCOUNTS_LOOK_S, ACCOUNTS_ORDERS_MAX, ACCOUNTS_TABLES_MAX
from shadow.legacy.database import table
from shadow.legacy.mapping import Mapping

_BALANCES = "(^|_)(balance|locked|available|frozen|reserved|on_hold|hold|funds)(_|$)"
_CANDIDATES = """
    SELECT c.oid::regclass::text, string_agg(a.attname, ', ' ORDER BY a.attnum),
        has_table_privilege(c.oid, 'SELECT'),
        coalesce((SELECT n_tup_upd FROM pg_stat_user_tables WHERE relid = c.oid), 0)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT LIKE 'pg\\_%'
        AND n.nspname NOT IN ('information_schema', 'railswitch')
        AND c.oid NOT IN ({orders}::regclass, {fills}::regclass)
        AND a.atttypid IN ('numeric'::regtype, 'bigint'::regtype, 'integer'::regtype)
        AND a.attname ~ {balances}
    GROUP BY c.oid ORDER BY count(*) DESC, 4 DESC LIMIT {tables_max}"""
# The newest orders, by their ids: their transactions against those of the other table's rows.
_TOGETHER = """
    SELECT count(*) FROM (SELECT DISTINCT xmin::text AS by FROM (
        SELECT xmin FROM {orders} ORDER BY {id} DESC LIMIT {orders_max}) AS o) AS recent
    WHERE EXISTS (SELECT FROM {accounts} AS c WHERE c.xmin::text = recent.by)"""


class AccountsSeen(msgspec.Struct, frozen=True, kw_only=True):
    table: str
    columns: str  # that look like money
    together: int | None  # transactions that wrote orders and its rows; None: we may not read it
    updates: int  # of its rows, in all

    @property
    def is_evidence(self) -> bool:
        return bool(self.together)


_COARSE = """
    SELECT attname, information_schema._pg_numeric_scale(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped AND attname ~ %s
        AND information_schema._pg_numeric_scale(atttypid, atttypmod) < %s ORDER BY attnum"""

Looking = Generator[sql.Composed, list[Any], tuple[AccountsSeen, ...]]


def look(connection: psycopg.Connection[Any], mapping: Mapping) -> tuple[AccountsSeen, ...]:
    """Raises psycopg.Error. The strongest evidence comes first."""
    looking = _looking(mapping)
    try:
        with connection.transaction(), connection.cursor() as cursor:
            query = next(looking)
            while True:
                cursor.execute(query)
                query = looking.send(cursor.fetchall() if cursor.description else [])
    except StopIteration as done:
        return tuple(done.value)


def coarse_columns(
    connection: psycopg.Connection[Any], accounts: str, config: Config
) -> list[tuple[str, int]]:
    """Columns of money that keep fewer digits than a price times a quantity may have."""
    digits = max(decimals(one.tick) + decimals(one.lot) for one in config.instruments)
    name = table(accounts).as_string()
    return connection.execute(_COARSE, (name, _BALANCES, digits)).fetchall()


def decimals(step: str) -> int:
    """
    >>> decimals("0.0100"), decimals("5")
    (2, 0)
    """
    return len(step.partition(".")[2].rstrip("0"))


async def look_async(
    connection: psycopg.AsyncConnection[Any], mapping: Mapping
) -> tuple[AccountsSeen, ...]:
    """As `look` does."""
    looking = _looking(mapping)
    query = next(looking)
    async with connection.transaction(), connection.cursor() as cursor:
        while True:
            await cursor.execute(query)
            try:
                query = looking.send(await cursor.fetchall() if cursor.description else [])
            except StopIteration as done:
                return tuple(done.value)


def told(seen: tuple[AccountsSeen, ...]) -> str:
    """One clause; "" where nothing speaks for accounts."""
    if not seen:
        return ""
    first = seen[0]
    if first.together:
        return f"orders change rows of {first.table} (seen {first.together} times)"
    if first.together is None:
        return (
            f"{first.table} has {first.columns}, {first.updates} updates, and may not be read by us"
        )
    return ""


def _looking(mapping: Mapping) -> Looking:
    orders, fills = table(mapping.orders.table), table(mapping.fills.table)
    yield sql.SQL("SET LOCAL statement_timeout = {}").format(sql.Literal(ACCOUNTS_LOOK_S * 1000))
    candidates = yield sql.SQL(_CANDIDATES).format(
        orders=sql.Literal(orders.as_string()),
        fills=sql.Literal(fills.as_string()),
        balances=sql.Literal(_BALANCES),
        tables_max=sql.Literal(ACCOUNTS_TABLES_MAX),
    )
    seen: list[AccountsSeen] = []
    for name, columns, is_readable, updates in candidates:
        together = None
        if is_readable:
            ((together,),) = yield sql.SQL(_TOGETHER).format(
                orders=orders,
                id=sql.Identifier(mapping.orders.id.column),
                orders_max=sql.Literal(ACCOUNTS_ORDERS_MAX),
                accounts=sql.SQL(name),
            )
        seen.append(AccountsSeen(table=name, columns=columns, together=together, updates=updates))
    seen.sort(key=lambda one: (-(one.together or 0), one.together is not None))
    return tuple(seen)
