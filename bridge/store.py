"""One connection to the control store, opened again after a loss. Nothing is repeated by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import psycopg
from psycopg.rows import dict_row

from bridge.errors import StoreUnreachable
from bridge.limits import STORE_CONNECT_S, STORE_IDLE_S, STORE_STATEMENT_MS

Cursor = psycopg.AsyncCursor[dict[str, Any]]


class StoreConnection:
    """Its users take turns. Every operating fault comes out as StoreUnreachable."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._used_at_s = 0.0

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Cursor]:
        async with self.cursor() as cursor, cursor.connection.transaction():
            yield cursor

    @asynccontextmanager
    async def cursor(self) -> AsyncIterator[Cursor]:
        """In autocommit mode."""
        async with self._turn:
            try:
                connection = await self._connected()
                async with connection.cursor(row_factory=dict_row) as cursor:
                    yield cursor
                self._used_at_s = asyncio.get_running_loop().time()
            except (psycopg.OperationalError, psycopg.InterfaceError, OSError) as error:
                raise StoreUnreachable(
                    f"the control store does not answer: {first_line(error)}; see that it runs"
                ) from error
            except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
                raise StoreUnreachable(
                    f"the control store is not migrated: {first_line(error)}; `railswitch up` "
                    "does it at its start"
                ) from error

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        idle_s = asyncio.get_running_loop().time() - self._used_at_s
        if self._connection is not None and idle_s > STORE_IDLE_S:
            # The server may have gone and come back meanwhile; whoever asks now need not notice.
            with suppress(psycopg.OperationalError):
                await self._connection.execute("SELECT 1")
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self.url,
                autocommit=True,
                connect_timeout=STORE_CONNECT_S,
                options=f"-c statement_timeout={STORE_STATEMENT_MS}",
                application_name="railswitch control",
            )
        return self._connection


def first_line(error: BaseException) -> str:
    """Of the error's text; drivers add hints and carets in the lines below it."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
