"""The replication slot that keeps the monolith's changes until they have been read."""

from __future__ import annotations

import asyncio

import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import TupleRow

from shadow.errors import (
    ChangesLost,
    LegacyNotReady,
    LegacyUnavailable,
    ShadowError,
    SlotBusy,
    SlotMissing,
    SlotNotCreated,
)
from shadow.legacy.database import connected, parse_lsn, target, translated
from shadow.legacy.mapping import Mapping
from shadow.legacy.publication import Published, require_published, require_unchanged
from shadow.legacy.source import Standing
from shadow.limits import QUERY_S, SLOT_BUSY_S, SLOT_CREATE_S

_POLL_S = 0.05  # how often a busy slot is looked at


async def create_slot(url: str, slot: str, *, timeout_s: float = SLOT_CREATE_S) -> bool:
    """False if it existed. From its making on the server keeps WAL until it is confirmed.

    Make the publication first: a slot can't read what was written before its publication was.
    Waits for all write transactions that are open now; SlotNotCreated names those that took longer.
    """
    async with connected(url) as connection:
        with translated(url, f"creating replication slot {slot} in"):
            await _require_logical(connection, url)
            if await _slot_row(connection, slot) is not None:
                return False
            try:
                await connection.execute(f"SET statement_timeout = {int(timeout_s * 1000)}")
                await connection.execute(
                    "SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot]
                )
            except errors.DuplicateObject:
                return False  # somebody else made it at the same moment
            except psycopg.Error as error:
                raise await slot_error(url, error, timeout_s) from error
    return True


async def drop_slot(url: str, slot: str, *, busy_s: float = SLOT_BUSY_S) -> bool:
    """False if there was none. Raises SlotBusy while somebody reads it."""
    async with connected(url) as connection:
        with translated(url, f"dropping replication slot {slot} in"):
            # First of all: who may not drop slots may still look whether there is one.
            query = "SELECT FROM pg_replication_slots WHERE slot_name = %s"
            if await (await connection.execute(query, [slot])).fetchone() is None:
                return False
            deadline = asyncio.get_running_loop().time() + busy_s
            while True:
                try:
                    await connection.execute("SELECT pg_drop_replication_slot(%s)", [slot])
                    return True
                except errors.UndefinedObject:
                    return False
                except errors.ObjectInUse as error:
                    if asyncio.get_running_loop().time() >= deadline:
                        raise SlotBusy(
                            f"replication slot {slot} is being read: {error.diag.message_primary};"
                            " stop `railswitch shadow` first"
                        ) from error
                    await asyncio.sleep(_POLL_S)


async def require_ready(
    url: str, slot: str, publication: str, mapping: Mapping, published: Published
) -> Standing:
    """Checks all that streaming needs; each lack is an error that says what to do. `published`:
    what is known of the publication that the slot is read with.
    """
    async with connected(url) as connection:
        with translated(url, "preparing to read changes from"):
            await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
            await _require_logical(connection, url)
            await require_published(connection, publication, mapping)
            standing = await _standing(connection, slot)
            if standing is not None:
                await require_unchanged(connection, slot, publication, mapping, published)
    if standing is None:
        raise SlotMissing(
            f"replication slot {slot} does not exist in {target(url)}: shadowing makes it when it"
            " begins; if it was there before, somebody dropped it, and changes have been lost"
        )
    return standing


async def wal_lsn(url: str) -> int:
    """How far the server's log goes."""
    async with connected(url) as connection:
        with translated(url, "asking for the end of the log of"):
            (lsn,) = await _one(connection, "SELECT pg_current_wal_insert_lsn()::text")
    return parse_lsn(lsn)


async def slot_error(url: str, error: psycopg.Error, timeout_s: float) -> ShadowError:
    """What a failed creation of a slot means."""
    said = error.diag.message_primary or str(error)
    if isinstance(error, errors.QueryCanceled):
        return SlotNotCreated(
            f"no replication slot within {timeout_s:g} s in {target(url)}: it waits for write"
            f" transactions that were open before, {await open_writers(url)}; end them, or wait"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return LegacyNotReady(
            f"{target(url)}: {said}; a superuser must run: ALTER ROLE … REPLICATION"
        )
    if isinstance(error, errors.ConfigurationLimitExceeded):
        return LegacyNotReady(
            f"{target(url)}: {said}; raise max_replication_slots and restart, or drop unused slots"
        )
    if isinstance(error, errors.ObjectNotInPrerequisiteState):
        return LegacyNotReady(f"{target(url)}: {said}; {_SET_WAL_LEVEL}")
    return LegacyUnavailable(f"creating a replication slot in {target(url)}: {said}")


_SET_WAL_LEVEL = "set wal_level = logical in postgresql.conf and restart PostgreSQL"


async def _require_logical(connection: AsyncConnection[TupleRow], url: str) -> None:
    (level,) = await _one(connection, "SHOW wal_level")
    if level != "logical":
        raise LegacyNotReady(
            f"{target(url)} has wal_level = {level}, so its changes can't be read in commit order:"
            f" {_SET_WAL_LEVEL}"
        )


async def _standing(connection: AsyncConnection[TupleRow], slot: str) -> Standing | None:
    row = await _slot_row(connection, slot)
    if row is None:
        return None
    confirmed, wal_status, end, retained_bytes = row
    if wal_status == "lost":
        raise ChangesLost(
            f"the server gave up replication slot {slot}: more WAL was kept for it than"
            " max_slot_wal_keep_size allows, or nobody read it for too long; drop it and load all"
            " instruments again",
            slot_lsn=0,
        )
    return Standing(
        slot_lsn=parse_lsn(confirmed), end_lsn=parse_lsn(end), retained_bytes=retained_bytes
    )


async def _slot_row(connection: AsyncConnection[TupleRow], slot: str) -> TupleRow | None:
    cursor = await connection.execute(
        "SELECT confirmed_flush_lsn::text, wal_status, pg_current_wal_insert_lsn()::text,"
        " coalesce(pg_wal_lsn_diff(pg_current_wal_insert_lsn(), restart_lsn), 0)::bigint,"
        " plugin, database, database = current_database()"
        " FROM pg_replication_slots WHERE slot_name = %s",
        [slot],
    )
    row = await cursor.fetchone()
    if row is None:
        return None
    *state, plugin, database, here = row
    if plugin != "pgoutput" or not here:
        raise LegacyNotReady(
            f"replication slot {slot} is of plugin {plugin} in database {database}, so it is not"
            " ours: choose another name for `legacy.slot`"
        )
    return tuple(state)


async def open_writers(url: str) -> str:
    """Those who hold a slot's making up, oldest first, for a person to look for."""
    query = """
        SELECT 'pid ' || l.pid || coalesce(' (' || a.usename || ')', '')
        FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
        WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted
          AND l.pid <> pg_backend_pid()
        UNION ALL
        SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
        LIMIT 5"""
    async with connected(url) as connection:
        writers = [row[0] async for row in await connection.execute(query)]
    return ", ".join(writers) or "which have just ended"


async def _one(connection: AsyncConnection[TupleRow], query: str) -> TupleRow:
    row = await (await connection.execute(sql.SQL(query))).fetchone()
    assert row is not None
    return row
