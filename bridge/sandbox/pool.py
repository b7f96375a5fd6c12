"""A few database connections that a worker's requests take turns with, like ActiveRecord's pool."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import psycopg
from psycopg.pq import TransactionStatus


class Pool:
    """At most `size` connections, in autocommit mode, opened when first needed.

    A connection that comes back broken, or in a transaction that it can't leave, is closed.
    """

    def __init__(self, url: str, size: int) -> None:
        self._url = url
        self._turns = asyncio.Semaphore(size)
        self._idle: list[psycopg.AsyncConnection] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        async with self._turns:
            connection = await self._take()
            try:
                yield connection
            except psycopg.Error:
                await _leave_transaction(connection)
                raise
            except BaseException:
                # Cancelled in the middle of a statement: what it would answer next is unknown.
                await connection.close()
                raise
            finally:
                if not connection.closed:
                    self._idle.append(connection)

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _take(self) -> psycopg.AsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
        return await psycopg.AsyncConnection.connect(self._url, autocommit=True)


async def _leave_transaction(connection: psycopg.AsyncConnection) -> None:
    with suppress(psycopg.Error):
        await connection.execute("ROLLBACK")
    if connection.info.transaction_status != TransactionStatus.IDLE:
        await connection.close()
