"""Of several control processes one leads: the one that holds an advisory lock of the control store.

While the store is away nobody can take the lock, so the leader goes on and asks for it again. It
steps down only when another has it; what either does in between is decided by compare-and-set in
the store, by epochs elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import psycopg

from bridge.limits import LEAD_LOOK_S, STORE_CONNECT_S
from bridge.store import first_line

_log = logging.getLogger(__name__)

_LEAD_LOCK = (0x52535743 >> 1, 2)


class Leadership:
    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: psycopg.AsyncConnection[Any] | None = None

    async def acquire(self) -> None:
        """Waits, however long, until this process leads."""
        said = ""
        while True:
            state = await self._try()
            if state == "":
                return
            if state != said:
                _log.info("standing by: %s", state)
                said = state
            await asyncio.sleep(LEAD_LOOK_S)

    async def lost(self) -> str:
        """Waits until another process leads; why it is known."""
        while True:
            await asyncio.sleep(LEAD_LOOK_S)
            if await self._still_held():
                continue
            state = await self._try()
            if state == _TAKEN:
                return "another control process leads now"
            if state:
                _log.warning("the lead can't be confirmed: %s", state)

    async def release(self) -> None:
        if self._connection is not None:
            await self._connection.close()
            self._connection = None

    async def _still_held(self) -> bool:
        try:
            assert self._connection is not None
            async with asyncio.timeout(STORE_CONNECT_S):
                await self._connection.execute("SELECT 1")
        except (psycopg.Error, OSError, TimeoutError, AssertionError):
            return False
        return True

    async def _try(self) -> str:
        """ "" when the lock is ours, else why not."""
        await self.release()
        try:
            connection = await psycopg.AsyncConnection.connect(
                self._url,
                autocommit=True,
                connect_timeout=STORE_CONNECT_S,
                application_name="railswitch control (lead)",
            )
            cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", _LEAD_LOCK)
            row = await cursor.fetchone()
        except (psycopg.Error, OSError) as error:
            return f"the control store does not answer: {first_line(error)}"
        if row is None or not row[0]:
            await connection.close()
            return _TAKEN
        self._connection = connection
        return ""


_TAKEN = "another control process leads"
