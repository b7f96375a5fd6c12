"""The monolith's newest orders and the fills that concern them, read without hurting it.

One read-only transaction, always by the primary key and a bounded number of rows: what needs a
scan is given up. Rows outside the mapping's filters are read too: what they hide is a question.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import LiteralString

import msgspec
from psycopg import AsyncConnection, errors, sql
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from shadow.errors import LegacyNotReady
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.audit_facts import id_of, named_orders
from shadow.legacy.audit_types import Recent, Row
from shadow.legacy.conditions import is_of
from shadow.legacy.database import connected, literals, table, translated
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import FillsTable, Mapping, OrdersTable
from shadow.legacy.rows import fill_columns, order_columns, order_id_columns
from shadow.limits import (
    AUDIT_COMMITS,
    AUDIT_FILLS_PAGE,
    AUDIT_FILLS_PER_ORDER,
    AUDIT_IDS_PAGE,
    AUDIT_LOOK_BACK,
    AUDIT_STATEMENT_S,
)

_BEGIN: LiteralString = (
    "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = {};"
    " SET LOCAL lock_timeout = '2s'; SET LOCAL idle_in_transaction_session_timeout = '60s'"
)
_COMMIT = sql.SQL("(extract(epoch FROM pg_xact_commit_timestamp(t.xmin)) * 1000000)::bigint")

Progress = Callable[[str], None]


class _Page(msgspec.Struct, frozen=True):
    rows: list[Row]  # as the adapter gives them, if there is one
    committed_us: dict[int, int]  # by place in `rows`
    read: int = 0  # rows that the database gave
    last_id: str = ""  # of the last of those


async def read_recent(
    url: str,
    mapping: Mapping,
    *,
    last: int,
    symbols: Sequence[str] = (),
    statement_s: float = AUDIT_STATEMENT_S,
    adapter: Adapted = PLAIN,
    progress: Progress = lambda _: None,
) -> Recent:
    """`symbols`: of these instruments; () for all that there is. `mapping` without tables of
    symbols. Raises LegacyUnavailable, LegacyNotReady.
    """
    async with connected(url) as connection:
        with translated(url, "reading recent orders of"), _bounded(mapping, statement_s):
            async with connection.transaction():
                await connection.execute(
                    sql.SQL(_BEGIN).format(sql.Literal(int(statement_s * 1000)))
                )
                reading = _Reading(connection, mapping, symbols, adapter, progress)
                recent = await reading.read(last)
            if not recent.orders or symbols:
                return recent  # a newer order of another instrument tells nothing of these
            # Outside the transaction: has an order come while it ran?
            return msgspec.structs.replace(
                recent, is_active=await _has_more(connection, mapping, recent.orders[-1])
            )


class _Reading:
    def __init__(
        self,
        connection: AsyncConnection[TupleRow],
        mapping: Mapping,
        symbols: Sequence[str],
        adapter: Adapted,
        progress: Progress,
    ) -> None:
        self._connection = connection
        self._mapping = mapping
        self._symbols = symbols
        self._adapter = adapter
        self._progress = progress
        self._keeps_commits = False
        self._sorted: dict[str, str] = {}  # the column that the newest rows are found by

    async def read(self, last: int) -> Recent:
        cursor = await self._connection.execute(
            "SELECT (extract(epoch FROM now()) * 1000000)::bigint,"
            " current_setting('track_commit_timestamp')::bool"
        )
        found = await cursor.fetchone()
        assert found is not None
        now_us, self._keeps_commits = found
        self._progress(f"reading the last {last} orders")
        page = await self._newest_orders(last)
        orders = _oldest_first(page)
        ids = {id_of(row, self._mapping.orders) for row in orders.rows} - {0}
        look_back = AUDIT_LOOK_BACK if self._symbols else 1
        fills, filled_from_id = await self._fills(ids, AUDIT_FILLS_PER_ORDER * last * look_back)
        others = await self._others(fills.rows, ids)
        return Recent(
            orders=tuple(orders.rows),
            others=tuple(others),
            fills=tuple(fills.rows),
            now_us=now_us,
            filled_from_id=filled_from_id,
            orders_committed_us=orders.committed_us,
            fills_committed_us=fills.committed_us,
        )

    async def _newest_orders(self, last: int) -> _Page:
        orders = self._mapping.orders
        columns = audited_order_columns(orders) + self._adapter.order_columns
        if not self._symbols:
            return await self._page(orders, columns, sql.SQL("true"), last)
        asked = is_of(orders.symbol, self._symbols)
        looked = last * AUDIT_LOOK_BACK
        return await self._page(orders, columns, sql.SQL("true"), looked, asked, last)

    async def _fills(self, ids: set[int], most: int) -> tuple[_Page, int | None]:
        """Those that concern these orders, and from which order on they are all there."""
        fills, mapping = self._mapping.fills, self._mapping
        columns = audited_fill_columns(fills) + self._adapter.fill_columns
        concerned: list[Row] = []
        committed_us: dict[int, int] = {}
        before: sql.Composable = sql.SQL("true")
        looked, newest = 0, 0
        first = min(ids, default=0)
        while looked < most:
            # The place of a UUID is no place to go on from: all in one question.
            wanted = most if fills.id.form == "uuid" else min(AUDIT_FILLS_PAGE, most - looked)
            page = await self._page(fills, columns, before, wanted)
            for at, row in enumerate(page.rows):
                if named_orders(row, mapping) & ids:
                    if at in page.committed_us:
                        committed_us[len(concerned)] = page.committed_us[at]
                    concerned.append(row)
            looked += page.read
            self._progress(f"{looked} fills looked at")
            newest = max(
                (max(named_orders(row, mapping), default=0) for row in page.rows), default=0
            )
            if page.read < wanted or newest < first:
                return _oldest_first(_Page(concerned, committed_us)), 0
            before = sql.SQL("{} < {}").format(
                sql.Identifier("t", fills.id.column), sql.Literal(page.last_id)
            )
        # Orders that came after all that the last page names have no fill before it.
        whole_from = newest + 1 if mapping.orders.id.form == "integer" else None
        return _oldest_first(_Page(concerned, committed_us)), whole_from

    async def _others(self, fills: Sequence[Row], ids: set[int]) -> list[Row]:
        """The orders that fills name beside those already read, as the database has them."""
        orders, mapping = self._mapping.orders, self._mapping
        texts: dict[str, None] = {}
        for row in fills:
            for column in order_id_columns(mapping.fills):
                value = row.get(column)
                number = number_of(value, orders.id)
                if value is not None and number and number not in ids:
                    texts[value] = None
        columns = audited_order_columns(orders) + self._adapter.order_columns
        listed, found = list(texts), []
        for start in range(0, len(listed), AUDIT_IDS_PAGE):
            some = listed[start : start + AUDIT_IDS_PAGE]
            condition = sql.SQL("{} IN ({})").format(
                sql.Identifier("t", orders.id.column), literals(some)
            )
            found += (await self._page(orders, columns, condition, 2 * len(some))).rows
            self._progress(f"{start + len(some)} older orders looked up")
        return found

    async def _page(
        self,
        of: OrdersTable | FillsTable,
        columns: Sequence[str],
        condition: sql.Composable,
        most: int,
        then: sql.Composable | None = None,
        last: int = 0,
    ) -> _Page:
        """The newest rows by primary key, at most so many; of them `then`, at most `last`."""
        columns, newest = list(dict.fromkeys(columns)), await self._sorted_by(of)
        selected: list[sql.Composable] = [sql.Identifier("t", name) for name in columns]
        names: list[sql.Composable] = [sql.Identifier(name) for name in columns]
        if self._keeps_commits:
            selected.append(sql.SQL("{} AS railswitch_committed_us").format(_COMMIT))
            names.append(sql.SQL("railswitch_committed_us"))
        query = sql.SQL("SELECT {} FROM {} AS t WHERE {} ORDER BY {} DESC LIMIT {}").format(
            sql.SQL(", ").join(selected),
            table(of.table),
            condition,
            sql.Identifier("t", newest),
            sql.Literal(most),
        )
        if then is not None:
            some = sql.SQL("SELECT {} FROM ({}) AS newest WHERE {} ORDER BY {} DESC LIMIT {}")
            query = some.format(
                sql.SQL(", ").join(names), query, then, sql.Identifier(newest), sql.Literal(last)
            )
        result = (await self._connection.execute(query)).pgresult
        assert result is not None
        return self._read(of, columns, result)

    def _read(
        self, of: OrdersTable | FillsTable, columns: Sequence[str], result: PGresult
    ) -> _Page:
        """PostgreSQL's own text, as in the change stream: casts write some types in another way."""
        adapted = self._adapter.order_row if of is self._mapping.orders else self._adapter.fill_row
        rows: list[Row] = []
        committed_us, last_id = {}, ""
        for n in range(result.ntuples):
            raw = {name: _decoded(result.get_value(n, m)) for m, name in enumerate(columns)}
            last_id = raw[of.id.column] or ""
            row = adapted(raw)
            if row is None:
                continue
            if self._keeps_commits and n < AUDIT_COMMITS:
                value = result.get_value(n, len(columns))
                if value is not None:
                    committed_us[len(rows)] = int(value)
            rows.append(row)
        return _Page(rows, committed_us, result.ntuples, last_id)

    async def _sorted_by(self, of: OrdersTable | FillsTable) -> str:
        """Integers grow with time; UUIDs mostly don't, and then an index on the time serves."""
        if of.id.form == "integer":
            return of.id.column
        if of.table not in self._sorted:
            cursor = await self._connection.execute(
                "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a"
                " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
                " WHERE i.indrelid = %s::regclass AND i.indpred IS NULL AND a.attname = %s)",
                [table(of.table).as_string(), of.created_at.column],
            )
            found = await cursor.fetchone()
            by_time = bool(found and found[0])
            self._sorted[of.table] = of.created_at.column if by_time else of.id.column
        return self._sorted[of.table]


def audited_order_columns(orders: OrdersTable) -> tuple[str, ...]:
    """What the audit looks at, beside what orders are made of."""
    more = (orders.updated_at.column,)
    return tuple(dict.fromkeys((*order_columns(orders), *(one for one in more if one))))


def audited_fill_columns(fills: FillsTable) -> tuple[str, ...]:
    more = (
        fills.created_at.column,
        fills.updated_at.column,
        fills.taker_side.column,
        fills.total.column,
        fills.maker_account,
        fills.taker_account,
    )
    return tuple(dict.fromkeys((*fill_columns(fills), *(one for one in more if one))))


@contextmanager
def _bounded(mapping: Mapping, statement_s: float) -> Iterator[None]:
    """What took too long has been given up, and why it may have."""
    try:
        yield
    except (errors.QueryCanceled, errors.LockNotAvailable) as error:
        tables = f"{mapping.orders.table} and {mapping.fills.table}"
        raise LegacyNotReady(
            f"reading recent rows of {tables} took more than {statement_s:g} s and was given up:"
            " ask for fewer with --last; see that both ids are primary keys, and that nobody holds"
            " a lock on the tables"
        ) from error


async def _has_more(connection: AsyncConnection[TupleRow], mapping: Mapping, newest: Row) -> bool:
    orders = mapping.orders
    value = newest.get(orders.id.column)
    if orders.id.form != "integer" or value is None:
        return False
    query = sql.SQL("SELECT max({0}) > {1} FROM {2}").format(
        sql.Identifier(orders.id.column), sql.Literal(value), table(orders.table)
    )
    found = await (await connection.execute(query)).fetchone()
    return bool(found and found[0])


def _oldest_first(page: _Page) -> _Page:
    last = len(page.rows) - 1
    return _Page(page.rows[::-1], {last - at: us for at, us in page.committed_us.items()})


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
