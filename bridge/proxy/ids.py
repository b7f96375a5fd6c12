"""Order ids: new ones from the monolith's own sequence, and the instruments of known ones.

One id space before and after a flip: a live order takes its id from a block of the sequence that
the monolith uses. An id's instrument is found in a bounded cache of what passed by, else in the
legacy database.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

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
from shadow.errors import LegacyUnavailable
from shadow.legacy import database, rows
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.operation import OrderImage, Unreadable

_Connection = psycopg.AsyncConnection[TupleRow]
_NEW_IDS = sql.SQL("SELECT nextval(%s::regclass) FROM generate_series(1, %s)")


class KnownOrder(msgspec.Struct, frozen=True):
    symbol: str
    account: int
    qty_lots: int = 0  # as ordered; 0: not known here
    created_at_us: int = 0  # UTC, microseconds since 1970; 0: not known here


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

    Every method raises LegacyLookupFailed when there is no answer in time.
    """

    def __init__(self, url: str, mapping: LegacyMapping, scales: Mapping[str, Scale]) -> None:
        self._url = url
        self._mapping = mapping
        self._scales = scales
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(LEGACY_CONNECTIONS_MAX)
        orders = mapping.orders
        self._columns = rows.order_columns(orders)
        columns = sql.SQL(", ").join(
            sql.SQL("{}::text").format(sql.Identifier(column)) for column in self._columns
        )
        self._find = sql.SQL("SELECT {} FROM {} WHERE {} = %s").format(
            columns, database.table(orders.table), sql.Identifier(orders.id)
        )

    async def find(self, order_id: int) -> OrderImage | None:
        """None for an order that is not there, or not of a configured instrument."""
        found = await self._ask(self._find, [order_id])
        if not found:
            return None
        columns = dict(zip(self._columns, found[0], strict=True))
        image = rows.order_image(columns, self._mapping, self._scales)
        return None if isinstance(image, Unreadable) else image

    async def new_ids(self, count: int) -> list[int]:
        """Nobody else gets these, whether they are used or not."""
        sequence = self._mapping.orders.id_sequence
        found = await self._ask(_NEW_IDS, [sequence, count])
        return [row[0] for row in found]

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _ask(self, query: sql.Composed | sql.SQL, params: list[object]) -> list[TupleRow]:
        try:
            async with asyncio.timeout(LEGACY_ANSWER_S), self._places:
                while self._idle:
                    try:
                        return await self._ask_on(self._idle.pop(), query, params)
                    except psycopg.OperationalError:
                        continue  # it broke while idle; what is asked here may be asked twice
                return await self._ask_on(await database.connect(self._url), query, params)
        except (psycopg.Error, LegacyUnavailable, OSError, TimeoutError) as error:
            raise LegacyLookupFailed(
                f"{database.target(self._url)} did not answer: {error or 'it took too long'}"
            ) from error

    async def _ask_on(
        self, connection: _Connection, query: sql.Composed | sql.SQL, params: list[object]
    ) -> list[TupleRow]:
        try:
            cursor = await connection.execute(query, params)
            found = await cursor.fetchall()
        except BaseException:
            await connection.close()  # cancelled in the middle of an answer, perhaps
            raise
        self._idle.append(connection)
        return found


class OrderIds:
    """New order ids, fetched ahead in blocks."""

    def __init__(self, legacy: LegacyOrders, block: int = ORDER_IDS_BLOCK) -> None:
        self._legacy = legacy
        self._block = block
        self._free: deque[int] = deque()
        self._fetching: asyncio.Task[None] | None = None

    async def take(self) -> int:
        """Raises LegacyLookupFailed when there is none left and the sequence can't be asked."""
        while not self._free:
            await asyncio.shield(self._fetch())
        if len(self._free) <= self._block // 2:
            self._fetch()
        return self._free.popleft()

    async def close(self) -> None:
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.gather(self._fetching, return_exceptions=True)

    def _fetch(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._fetching = asyncio.create_task(self._fetch_block())
            self._fetching.add_done_callback(_look_at_result)
        return self._fetching

    async def _fetch_block(self) -> None:
        self._free.extend(await self._legacy.new_ids(self._block))


def _look_at_result(task: asyncio.Task[None]) -> None:
    """A block fetched ahead may fail unheard: whoever finds none left asks again, and hears it."""
    if not task.cancelled():
        task.exception()
