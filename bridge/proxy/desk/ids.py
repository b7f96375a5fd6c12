"""Order ids: new ones from the monolith's own sequence, and the instruments of known ones.

One id space before and after a flip: a live order takes its id from a block of the sequence that
the monolith uses. An id's instrument is found in a bounded cache of what passed by, else in the
legacy database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from bridge.errors import LegacyLookupFailed
from bridge.limits import (
    LEGACY_ANSWER_S,
    LEGACY_CONNECTIONS_MAX,
    ORDER_IDS_BLOCK,
    ORDERS_KNOWN_MAX,
)
from shadow.answer import Traded
from shadow.errors import LegacyUnavailable, ShadowError
from shadow.legacy import conditions, database, keys, rows, symbols
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.mapping import OrdersTable, Time
from shadow.legacy.times import time_us
from shadow.operation import Status, Unreadable

_Connection = psycopg.AsyncConnection[TupleRow]
_Row = Sequence[str | None]
_NEW_IDS = sql.SQL("SELECT nextval({}::regclass) FROM generate_series(1, {})")


class KnownOrder(msgspec.Struct, frozen=True):
    symbol: str
    account: int  # 0: not known here
    qty_lots: int = 0  # as ordered; 0: not known here
    created_at_us: int = 0  # UTC, microseconds since 1970; 0: not known here


class OpenOrder(NamedTuple):
    order_id: int
    symbol: str


class OrderIndex:
    """Order id -> what is known of it: the newest ones that this worker saw."""

    def __init__(self, orders_max: int = ORDERS_KNOWN_MAX) -> None:
        self._known: dict[int, KnownOrder] = {}
        self._orders_max = orders_max

    def get(self, order_id: int) -> KnownOrder | None:
        return self._known.get(order_id)

    def put(self, order_id: int, order: KnownOrder) -> None:
        self._known.pop(order_id, None)
        self._known[order_id] = order
        if len(self._known) > self._orders_max:
            del self._known[next(iter(self._known))]


class LegacyOrders:
    """The legacy database as the proxy asks it: a few connections, opened when they are needed.

    Every method raises LegacyLookupFailed when there is no answer in time. Values are read as
    PostgreSQL writes them by itself, as the change stream has them: a cast to text would pad less,
    and spell a boolean in another way.
    """

    def __init__(self, url: str, mapping: LegacyMapping, scales: Mapping[str, Scale]) -> None:
        self._url = url
        self.mapping = mapping
        self._scales = scales
        self._with_symbols: LegacyMapping | None = None
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(LEGACY_CONNECTIONS_MAX)

    async def find(self, order_id: int) -> KnownOrder | None:
        """None for an order that is not there."""
        return (await self.find_many((order_id,))).get(order_id)

    async def find_many(self, order_ids: Collection[int]) -> dict[int, KnownOrder]:
        """Those that are there, of whatever instrument; asked for in one query."""
        if not order_ids or self.mapping.orders.id.form == "uuid":
            return {}  # the numbers of UUIDs don't lead back to them
        orders = (await self._resolved()).orders
        columns = rows.owner_columns(orders)
        query = sql.SQL("SELECT {} FROM {} WHERE {} IN ({}) AND {}").format(
            _identifiers(columns),
            database.table(orders.table),
            sql.Identifier(orders.id.column),
            database.literals(map(str, order_ids)),
            conditions.is_inside(orders.where),
        )
        found: dict[int, KnownOrder] = {}
        for values in await self._ask(query):
            row = dict(zip(columns, values, strict=True))
            found[keys.number_of(row[orders.id.column], orders.id)] = self._known(row, orders)
        return found

    async def id_of_uuid(self, uuid: str) -> int:
        """The order that has this UUID in the mapped column; 0 for none."""
        orders = self.mapping.orders
        query = sql.SQL("SELECT {} FROM {} WHERE {} IN ({}) AND {}").format(
            sql.Identifier(orders.id.column),
            database.table(orders.table),
            sql.Identifier(orders.uuid),
            database.literals([uuid]),
            conditions.is_inside(orders.where),
        )
        found = await self._ask(query)
        return keys.number_of(found[0][0], orders.id) if found else 0

    async def traded(self, order_ids: Collection[int]) -> dict[int, Traded]:
        """Their fills, as far as they are written; without an order of which one can't be read."""
        if not order_ids:
            return {}
        mapping = await self._resolved()
        fills, columns = mapping.fills, rows.fill_columns(mapping.fills)
        ids = database.literals(map(str, order_ids))
        of_them = [
            sql.SQL("{} IN ({})").format(sql.Identifier(column), ids)
            for column in rows.order_id_columns(fills)
        ]
        query = sql.SQL("SELECT {} FROM {} WHERE ({}) AND {}").format(
            _identifiers(columns),
            database.table(fills.table),
            sql.SQL(" OR ").join(of_them),
            conditions.is_inside(fills.where),
        )
        found = dict.fromkeys(order_ids, Traded(count=0, ticks_times_lots=0))
        for values in await self._ask(query):
            fill = rows.legacy_fill(dict(zip(columns, values, strict=True)), mapping, self._scales)
            if isinstance(fill, Unreadable):
                return {}
            worth = fill.price_ticks * fill.qty_lots
            for order_id in found.keys() & {fill.maker_order_id, fill.taker_order_id}:
                before = found[order_id]
                found[order_id] = Traded(
                    count=before.count + 1, ticks_times_lots=before.ticks_times_lots + worth
                )
        return found

    async def open_orders(
        self, account: int, *, only: str, besides: Iterable[str], side: str, orders_max: int
    ) -> list[OpenOrder]:
        """The account's, by id: of one instrument unless `only` is empty, of none of `besides`, of
        one side (buy, sell) unless `side` is empty; no more than `orders_max`.
        """
        orders = (await self._resolved()).orders
        if "uuid" in (orders.id.form, orders.account.form):
            return []
        wanted: list[sql.Composable] = [
            sql.SQL("{} = {}").format(
                sql.Identifier(orders.account.column), sql.Literal(str(account))
            ),
            conditions.says(orders.status, Status.OPEN),
            conditions.is_inside(orders.where),
        ]
        besides = tuple(besides)
        if besides:
            wanted.append(sql.SQL("NOT {}").format(conditions.is_of(orders.symbol, besides)))
        if only:
            wanted.append(conditions.is_of(orders.symbol, (only,)))
        if side:
            wanted.append(conditions.says(orders.side, side))
        query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY {} LIMIT {}").format(
            _identifiers((orders.id.column, orders.symbol.column)),
            database.table(orders.table),
            sql.SQL(" AND ").join(wanted),
            sql.Identifier(orders.id.column),
            sql.Literal(orders_max),
        )
        found = await self._ask(query)
        return [
            OpenOrder(
                keys.number_of(one, orders.id), symbols.symbol_of(orders.symbol, symbol or "")
            )
            for one, symbol in found
        ]

    async def new_ids(self, count: int) -> list[int]:
        """Nobody else gets these, whether they are used or not."""
        sequence = self.mapping.orders.id_sequence
        named = database.table(sequence).as_string()
        query = _NEW_IDS.format(sql.Literal(named), sql.Literal(count))
        return [int(one or 0) for (one,) in await self._ask(query)]

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _resolved(self) -> LegacyMapping:
        """With the instruments of another table, read when they are first needed: a proxy starts
        without the database.
        """
        if self._with_symbols is None:
            try:
                async with asyncio.timeout(LEGACY_ANSWER_S):
                    self._with_symbols = await symbols.resolved(self._url, self.mapping)
            except (ShadowError, OSError, TimeoutError) as error:
                raise LegacyLookupFailed(
                    f"{database.target(self._url)} did not answer: {error or 'it took too long'}"
                ) from error
        return self._with_symbols

    def _known(self, row: Mapping[str, str | None], orders: OrdersTable) -> KnownOrder:
        symbol = symbols.symbol_of(orders.symbol, row[orders.symbol.column] or "")
        scale = self._scales.get(symbol)
        return KnownOrder(
            symbol,
            keys.number_of(row[orders.account.column], orders.account),
            rows.ordered_lots(row, orders, scale) if scale is not None else 0,
            _time_us(row[orders.created_at.column], orders.created_at),
        )

    async def _ask(self, query: sql.Composed) -> list[_Row]:
        try:
            async with asyncio.timeout(LEGACY_ANSWER_S), self._places:
                while self._idle:
                    try:
                        return await self._ask_on(self._idle.pop(), query)
                    except psycopg.OperationalError:
                        continue  # it broke while idle; what is asked here may be asked twice
                return await self._ask_on(await database.connect(self._url), query)
        except (psycopg.Error, LegacyUnavailable, OSError, TimeoutError) as error:
            raise LegacyLookupFailed(
                f"{database.target(self._url)} did not answer: {error or 'it took too long'}"
            ) from error

    async def _ask_on(self, connection: _Connection, query: sql.Composed) -> list[_Row]:
        try:
            result = (await connection.execute(query)).pgresult
            assert result is not None
            found: list[_Row] = [
                [_decoded(result.get_value(n, m)) for m in range(result.nfields)]
                for n in range(result.ntuples)
            ]
        except BaseException:
            await connection.close()  # cancelled in the middle of an answer, perhaps
            raise
        self._idle.append(connection)
        return found


def _identifiers(columns: Iterable[str]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, columns))


def _decoded(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _time_us(text: str | None, time: Time) -> int:
    try:
        return time_us(text, time) if text else 0
    except (ValueError, OverflowError):
        return 0


class OrderIds:
    """New order ids, fetched ahead in blocks."""

    def __init__(self, legacy: LegacyOrders, block: int = ORDER_IDS_BLOCK) -> None:
        self._legacy = legacy
        self._block = block
        self._free: deque[int] = deque()
        self._fetching: asyncio.Task[None] | None = None

    async def take(self) -> int:
        """Raises LegacyLookupFailed when there is none left and the sequence can't be asked."""
        return (await self.take_many(1))[0]

    async def take_many(self, count: int) -> list[int]:
        """In ascending order; raises as `take` does, and then takes none."""
        while len(self._free) < count:
            await asyncio.shield(self._fetch(count))
        taken = [self._free.popleft() for _ in range(count)]
        self.expect(self._block // 2)
        return taken

    def expect(self, count: int) -> None:
        """So many will be taken at once: they are fetched before that, so that nobody who waits
        for one is overtaken by whoever needs none.
        """
        if len(self._free) <= count:
            self._fetch(count)

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _fetch(self, count: int) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_block(max(self._block, count)))
            self._fetching.add_done_callback(_look_at_result)
        return self._fetching

    async def _fetch_block(self, count: int) -> None:
        self._free.extend(await self._legacy.new_ids(count))


def _look_at_result(task: asyncio.Task[None]) -> None:
    """A block fetched ahead may fail unheard: whoever finds none left asks again, and hears it."""
    if not task.cancelled():
        task.exception()
