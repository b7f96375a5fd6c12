"""What a flip needs of the legacy database: its fence, its open orders, who still writes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from bridge import fence as fencing
from bridge.accounts_seen import look_async, told
from bridge.errors import BridgeError, FenceUnknown, StepFailed
from bridge.fence import ADVISORY_KEY, FenceRow, Owner
from bridge.funds import first_failing
from bridge.limits import FENCE_GIVE_BACK_S, WRITERS_LOOK_S
from shadow.legacy.convert import Scale
from shadow.legacy.database import connect, translated
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.snapshot import read_open_orders
from shadow.legacy.symbols import resolved
from shadow.operation import OrderImage, Unreadable

ENGINE: Owner = "engine"
LEGACY: Owner = "legacy"

# Transactions that have written a row of the instrument hold its advisory lock to their end.
_WRITERS = """
    SELECT l.virtualtransaction, 'pid ' || l.pid || coalesce(' (' || a.usename || ')', '')
        || coalesce(', open for ' || round(extract(epoch FROM now() - a.xact_start)) || ' s', '')
    FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a USING (pid)
    WHERE l.locktype = 'advisory' AND l.granted AND l.classid = %s::oid
      AND l.objid = (hashtext(%s::text)::bigint & 4294967295)::oid AND l.objsubid = 2
      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


class LegacySide:
    """One connection, as role `railswitch`; opened when first needed, and again after a loss."""

    def __init__(self, url: str, mapping: LegacyMapping, scales: Mapping[str, Scale]) -> None:
        self.url = url
        self._mapping = mapping
        self._scales = scales
        self._connection: AsyncConnection[TupleRow] | None = None
        self._turn = asyncio.Lock()

    @property
    def funds(self) -> str:
        """What the mapping says of them."""
        return self._mapping.funds

    @property
    def places_are_known(self) -> bool:
        """Its rows say in which order those of one price are met. A monolith that matches later has
        that in memory.
        """
        return self._mapping.matching != "later"

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def fence(
        self,
        symbol: str,
        owner: Owner,
        epoch: int,
        flip_id: int,
        *,
        wait_s: float = FENCE_GIVE_BACK_S,
    ) -> None:
        """Gives the instrument to `owner`. Raises StepFailed when the fence is certainly as it was,
        FenceUnknown or another error when it may have moved."""
        async with self._connected() as connection:
            try:
                await fencing.take(
                    connection,
                    symbol=symbol,
                    owner=owner,
                    epoch=epoch,
                    flip_id=flip_id,
                    timeout_ms=max(1, int(wait_s * 1000)),
                )
            except FenceUnknown:
                raise
            except BridgeError as error:
                raise StepFailed(str(error)) from error

    async def fences(self) -> dict[str, FenceRow]:
        return await fencing.read(self.url)

    async def unguarded(self, symbol: str) -> str:
        """Why the fence does not know every row of the instrument; "" when it does. Raises
        ShadowError, BridgeError.
        """
        return await fencing.unguarded(self.url, await resolved(self.url, self._mapping), symbol)

    async def open_orders(self, symbol: str) -> tuple[OrderImage | Unreadable, ...]:
        """In queue order, as the database has them now. Raises ShadowError."""
        mapping = await resolved(self.url, self._mapping)
        async with self._connected() as connection:
            with translated(self.url, "reading open orders from"):
                return await read_open_orders(connection, mapping, self._scales, symbol)

    async def accounts_seen(self) -> str:
        """What speaks for orders that change rows of accounts; "": nothing. Raises ShadowError."""
        async with self._connected() as connection:
            with translated(self.url, "looking for accounts in"):
                return told(await look_async(connection, self._mapping))

    async def try_funds(self) -> str:
        """Which statement of the accounts would fail, and why; "": none. Changes nothing. Raises
        ShadowError.
        """
        async with self._connected() as connection:
            with translated(self.url, "trying the statements of the accounts in"):
                return await first_failing(connection, self._mapping.accounts)

    async def old_writers(self, symbol: str, *, wait_s: float) -> list[str]:
        """Transactions that had written rows of the instrument when asked, and still run `wait_s`
        later. Returns as soon as none is left. Raises ShadowError.
        """
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + wait_s
        first: set[str] | None = None
        while True:
            now = await self._writers(symbol)
            first = set(now) if first is None else first & now.keys()
            if not first or clock() >= deadline_s:
                return [now[transaction] for transaction in sorted(first)]
            await asyncio.sleep(WRITERS_LOOK_S)

    async def _writers(self, symbol: str) -> dict[str, str]:
        async with self._connected() as connection:
            with translated(self.url, "looking for open transactions in"):
                cursor = await connection.execute(_WRITERS, (ADVISORY_KEY, symbol))
                return dict(await cursor.fetchall())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[AsyncConnection[TupleRow]]:
        async with self._turn:
            if self._connection is None or self._connection.closed:
                self._connection = await connect(self.url)
            try:
                yield self._connection
            except psycopg.OperationalError:
                await self._connection.close()
                raise
