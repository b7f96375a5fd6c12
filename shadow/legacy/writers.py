"""Looks again and again who has a transaction open that writes, while it can be seen.

A transaction that is shorter than the time between two looks is mostly missed: a bulk job, a rake
task or a console holds its own open longer than a request does, and is what this is for.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shadow.errors import LegacyNotReady, LegacyUnavailable
from shadow.legacy.database import connected, translated
from shadow.limits import QUERY_S, RECONNECT_BACKOFF_S_MAX, WRITERS_SAMPLE_S
from shadow.tasks import cancelled
from shadow.writers import Writer, Writers

log = logging.getLogger(__name__)

# These columns are shown to every role. Whoever has no role is a process of the server's own.
_OPEN = """
    SELECT backend_xid::text, coalesce(usename::text, usesysid::text),
        coalesce(application_name, '')
    FROM pg_stat_activity
    WHERE backend_xid IS NOT NULL AND usesysid IS NOT NULL AND datname = current_database()"""


@asynccontextmanager
async def sampled(url: str) -> AsyncIterator[Writers]:
    """Filled while the block lasts. What can't be asked is not known, and nothing waits for it."""
    writers = Writers()
    task = asyncio.create_task(_keep_sampling(url, writers))
    try:
        yield writers
    finally:
        await cancelled([task])


async def _keep_sampling(url: str, writers: Writers) -> None:
    said = ""
    while True:
        try:
            async with connected(url) as connection:
                with translated(url, "asking who writes in"):
                    await _begin(connection)
                    said = ""
                    while True:
                        await _sample(connection, writers)
                        await asyncio.sleep(WRITERS_SAMPLE_S)
        except (LegacyUnavailable, LegacyNotReady) as error:
            if str(error) != said:
                said = str(error)
                log.warning("dark operations have no writer meanwhile: %s", said)
        await asyncio.sleep(RECONNECT_BACKOFF_S_MAX)


async def _sample(connection: AsyncConnection[TupleRow], writers: Writers) -> None:
    async for xid, role, application in await connection.execute(_OPEN):
        writers.saw(int(xid), Writer(role, application))


async def _begin(connection: AsyncConnection[TupleRow]) -> None:
    await connection.execute("SET application_name = 'railswitch writers'")
    await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
