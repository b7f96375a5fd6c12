"""What is kept in the monolith's database for a reader that polls: `bridge/polling.sql` makes it.

A snapshot of PostgreSQL says of every transaction whether it is to be seen. What is visible in one
and was not in the one before is a window: whole transactions, each in exactly one window, however
long they were open and whatever their ids. No id and no clock decides what is read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from shadow.errors import ChangesLost, LegacyNotReady, SlotBusy, SlotMissing, SlotNotCreated
from shadow.legacy.database import connected, table, target, translated
from shadow.legacy.mapping import Mapping
from shadow.legacy.slots import open_writers
from shadow.legacy.source import Standing
from shadow.limits import (
    POLL_S,
    QUERY_S,
    SLOT_BUSY_S,
    SLOT_CREATE_S,
    TRUNCATE_LOCK_S,
    WINDOW_TRANSACTIONS_MAX,
)

# Our parts of PostgreSQL's two-integer advisory locks; the other is made of the slot's name.
READING = 0x29295701  # held by the one that reads the slot
_FINDING = 0x29295702  # while windows are added to it
_SLOTS = 0x29295703  # while slots are made or dropped

_INSTALL = "`railswitch legacy install --polling --execute` makes it as it must be"

_HEAD = """
    SELECT coalesce(w.behind, s.position) AS position, coalesce(w.seen, s.seen) AS seen
    FROM railswitch.change_slots s LEFT JOIN LATERAL (
        SELECT behind, seen FROM railswitch.change_windows w
        WHERE w.slot = s.slot ORDER BY first DESC LIMIT 1) w ON true
    WHERE s.slot = {slot}"""

# What is visible now and was not before: asked so that rows which are deleted, and dead, are not
# looked at while an old transaction is open. Of transactions that conflict, the one that waited
# wrote its last row after the other committed, unless it wrote none after its wait.
_FIND = """
    WITH head AS MATERIALIZED ({head}), found AS (
        SELECT c.xid, max(c.seq) AS last_seq, {committed} AS committed_at
        FROM railswitch.changes c
        WHERE c.xid = ANY (ARRAY(SELECT pg_snapshot_xip(seen) FROM head))
           OR c.xid >= (SELECT pg_snapshot_xmax(seen) FROM head)
        GROUP BY c.xid
    ), placed AS (
        SELECT xid, committed_at, row_number() OVER (ORDER BY {order}) - 1 AS n FROM found
    ), begin AS (
        SELECT greatest(position, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint) AS lsn
        FROM head
    )
    INSERT INTO railswitch.change_windows (slot, first, behind, seen, xids, commits_us)
    SELECT {slot}, begin.lsn + 2 * min(n), begin.lsn + 2 * (max(n) + 1), pg_current_snapshot(),
        array_agg(xid ORDER BY n),
        array_agg((extract(epoch FROM committed_at) * 1000000)::bigint ORDER BY n)
    FROM placed, begin GROUP BY begin.lsn, n / {most}"""

# Those on the monolith's tables fire for replicas too; an ENABLE TRIGGER ALL would leave that out.
_TRIGGERS = """
    SELECT coalesce(array_agg(t.oid ORDER BY t.oid), '{{}}')
    FROM pg_trigger t
    WHERE t.tgname IN ('0_railswitch_capture', 'railswitch_capture_truncate')
      AND t.tgenabled = 'A' AND t.tgrelid = ANY (
        SELECT to_regclass(name) FROM unnest({tables}::text[]) AS name)
       OR t.tgname = 'railswitch_capture' AND t.tgenabled IN ('A', 'O') AND t.tgrelid IN (
        to_regclass('railswitch.fence'), to_regclass('railswitch.written'))"""
# Without rows that were read and deleted, and that an old snapshot keeps from being cleaned away.
_RETAINED = """
    (pg_total_relation_size('railswitch.changes') * coalesce(
        pg_stat_get_live_tuples('railswitch.changes'::regclass)::float / nullif(
            pg_stat_get_live_tuples('railswitch.changes'::regclass)
            + pg_stat_get_dead_tuples('railswitch.changes'::regclass), 0), 1))::bigint"""

_TRIGGERS_WANTED = 6  # rows and truncation of both tables, the fence, the write-back

_CLEAN = """
    WITH done AS (
        DELETE FROM railswitch.change_windows WHERE slot = {slot} AND first IN (
            SELECT first FROM railswitch.change_windows
            WHERE slot = {slot} AND behind <= {confirmed} ORDER BY first LIMIT {most})
        RETURNING behind, seen, xids
    ), moved AS (
        UPDATE railswitch.change_slots s SET position = n.behind, seen = n.seen
        FROM (SELECT behind, seen FROM done ORDER BY behind DESC LIMIT 1) n WHERE s.slot = {slot}
    )
    DELETE FROM railswitch.changes c
    USING (SELECT DISTINCT unnest(xids) AS xid FROM done) d
    WHERE c.xid = d.xid AND NOT EXISTS ({wanted})"""

# A change that another slot has not had yet.
_WANTED = """
    SELECT FROM railswitch.change_slots o
    WHERE o.slot <> {slot} AND (NOT pg_visible_in_snapshot(c.xid, o.seen) OR EXISTS (
        SELECT FROM railswitch.change_windows w WHERE w.slot = o.slot AND c.xid = ANY (w.xids)))"""


async def create_slot(
    url: str,
    slot: str,
    mapping: Mapping,
    *,
    begin_lsn: int = 0,
    timeout_s: float = SLOT_CREATE_S,
) -> bool:
    """False if it existed. Its positions are beyond `begin_lsn`, and as far as the server's log.

    Waits for all write transactions that are open now, since nothing captured what they wrote so
    far; SlotNotCreated names those that took longer.
    """
    async with connected(url) as connection:
        with translated(url, f"creating slot {slot} in"):
            await _lock(connection, _SLOTS, "", timeout_s)
            triggers = await _triggers(connection, url, mapping)
            if await _is_there(connection, slot):
                return False
            if not await _any_slot(connection):
                await _empty(connection)  # of one that was killed at the next line
            async with _capturing(connection):
                if not await _older_ended(connection, timeout_s):
                    raise SlotNotCreated(
                        f"no slot within {timeout_s:g} s in {target(url)}: it waits for write"
                        f" transactions that were open before, {await open_writers(url)}; end them,"
                        " or wait"
                    )
                await _make(connection, slot, triggers, begin_lsn)
    return True


async def drop_slot(url: str, slot: str, *, busy_s: float = SLOT_BUSY_S) -> bool:
    """False if there was none. Nothing is captured any more once no slot is left. Raises SlotBusy
    while somebody reads it.
    """
    async with connected(url) as connection:
        with translated(url, f"dropping slot {slot} in"):
            if not await _is_installed(connection):
                return False
            await _lock(connection, _SLOTS, "", busy_s)
            await claim(connection, url, slot, busy_s)
            cursor = await connection.execute(
                "DELETE FROM railswitch.change_slots WHERE slot = %s", [slot]
            )
            if not await _any_slot(connection):
                await connection.execute("SELECT setval('railswitch.capturing', 1)")
                await _empty(connection)
            else:
                await connection.execute(
                    sql.SQL("DELETE FROM railswitch.changes c WHERE NOT EXISTS ({})").format(
                        sql.SQL(_WANTED).format(slot=sql.Literal(slot))
                    )
                )
    return cursor.rowcount > 0


async def claim(connection: AsyncConnection[TupleRow], url: str, slot: str, busy_s: float) -> None:
    """This connection alone reads the slot, until it ends. Raises SlotBusy."""
    clock = asyncio.get_running_loop().time
    deadline = clock() + busy_s
    while True:
        cursor = await connection.execute(
            "SELECT pg_try_advisory_lock(%s, hashtext(%s))", [READING, slot]
        )
        row = await cursor.fetchone()
        if row is not None and row[0]:
            return
        if clock() >= deadline:
            raise SlotBusy(
                f"slot {slot} of {target(url)} is read by another process; stop that one, or wait"
                " until it has ended"
            )
        await asyncio.sleep(POLL_S)


async def standing(
    connection: AsyncConnection[TupleRow], url: str, slot: str, mapping: Mapping
) -> Standing:
    """Checks all that polling needs; each lack is an error that says what to do."""
    triggers = await _triggers(connection, url, mapping)
    query = sql.SQL(
        "SELECT s.position, h.position, s.triggers, {} FROM railswitch.change_slots s, ({}) h"
        " WHERE s.slot = {}"
    ).format(sql.SQL(_RETAINED), head(slot), sql.Literal(slot))
    row = await (await connection.execute(query)).fetchone()
    if row is None:
        raise SlotMissing(
            f"slot {slot} does not exist in {target(url)}: shadowing makes it when it begins; if it"
            " was there before, somebody dropped it, and changes have been lost"
        )
    position, end, since, retained_bytes = row
    if since != triggers:
        raise ChangesLost(
            f"the triggers that write changes were made again after slot {slot}, or enabled again,"
            " or their tables were made again: what was written in between is lost; drop the slot"
            " and load all instruments again",
            slot_lsn=0,
        )
    return Standing(slot_lsn=position, end_lsn=end, retained_bytes=retained_bytes)


def head(slot: str) -> sql.Composed:
    """Position behind the newest window, and the snapshot that it ends with."""
    return sql.SQL(_HEAD).format(slot=sql.Literal(slot))


def find(slot: str, *, commit_times: bool) -> sql.Composed:
    """Adds what is new, at most so many transactions to a window. The lock must be held, since
    before the snapshot that this statement runs with. `commit_times`: the server keeps them.
    """
    newest = "max(c.at)"
    kept = f"coalesce(pg_xact_commit_timestamp(c.xid::xid), {newest})"
    return sql.SQL(_FIND).format(
        head=head(slot),
        slot=sql.Literal(slot),
        committed=sql.SQL(kept if commit_times else newest),
        order=sql.SQL("committed_at, last_seq" if commit_times else "last_seq"),
        most=sql.Literal(WINDOW_TRANSACTIONS_MAX),
    )


def lock(function: str, slot: str) -> sql.Composed:
    """One at a time adds windows: `function` is PostgreSQL's, of the transaction or session."""
    return sql.SQL("SELECT {}({}, hashtext({}))").format(
        sql.Identifier(function), sql.Literal(_FINDING), sql.Literal(slot)
    )


def clean(slot: str, confirmed_lsn: int, most: int) -> sql.Composed:
    """Forgets windows that are recorded, at most so many, and their changes."""
    return sql.SQL(_CLEAN).format(
        slot=sql.Literal(slot),
        confirmed=sql.Literal(confirmed_lsn),
        most=sql.Literal(most),
        wanted=sql.SQL(_WANTED).format(slot=sql.Literal(slot)),
    )


async def keeps_commit_times(connection: AsyncConnection[TupleRow]) -> bool:
    row = await (await connection.execute("SHOW track_commit_timestamp")).fetchone()
    return row is not None and row[0] == "on"


# --- making and dropping


async def _lock(
    connection: AsyncConnection[TupleRow], number: int, name: str, timeout_s: float
) -> None:
    """For the session."""
    await connection.execute(f"SET lock_timeout = {int(timeout_s * 1000) + 1}")
    await connection.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", [number, name])


async def _triggers(connection: AsyncConnection[TupleRow], url: str, mapping: Mapping) -> list[int]:
    """Of our triggers that are there and fire. Raises LegacyNotReady."""
    named = [table(one).as_string() for one in (mapping.orders.table, mapping.fills.table)]
    tables = sql.Literal([*named, "railswitch.fence", "railswitch.written"])
    await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
    cursor = await connection.execute(sql.SQL(_TRIGGERS).format(tables=tables))
    row = await cursor.fetchone()
    assert row is not None
    found = sorted(int(one) for one in row[0])
    if len(found) != _TRIGGERS_WANTED:
        if await _is_installed(connection):
            # Every slot has missed something, also when they are enabled again later.
            await connection.execute("UPDATE railswitch.change_slots SET triggers = '{}'")
        raise LegacyNotReady(
            f"{target(url)}: of the {_TRIGGERS_WANTED} triggers that write changes of"
            f" {' and '.join(named)} down, {len(found)} are there and enabled: {_INSTALL}"
        )
    return found


async def _is_installed(connection: AsyncConnection[TupleRow]) -> bool:
    query = "SELECT to_regclass('railswitch.change_slots') IS NOT NULL"
    row = await (await connection.execute(query)).fetchone()
    return row is not None and row[0]


async def _any_slot(connection: AsyncConnection[TupleRow]) -> bool:
    cursor = await connection.execute("SELECT FROM railswitch.change_slots LIMIT 1")
    return await cursor.fetchone() is not None


@asynccontextmanager
async def _capturing(connection: AsyncConnection[TupleRow]) -> AsyncIterator[None]:
    """From here on changes are written, unless no slot comes of it."""
    await connection.execute("SELECT setval('railswitch.capturing', 2)")
    try:
        yield
    except BaseException:
        if not connection.closed and not await _any_slot(connection):
            await connection.execute("SELECT setval('railswitch.capturing', 1)")
        raise


async def _is_there(connection: AsyncConnection[TupleRow], slot: str) -> bool:
    query = "SELECT FROM railswitch.change_slots WHERE slot = %s"
    return await (await connection.execute(query, [slot])).fetchone() is not None


async def _older_ended(connection: AsyncConnection[TupleRow], timeout_s: float) -> bool:
    """Those that have written something before this call."""
    row = await (await connection.execute("SELECT pg_current_xact_id()::text")).fetchone()
    assert row is not None
    query = "SELECT pg_snapshot_xmin(pg_current_snapshot()) > %s::xid8"
    deadline = asyncio.get_running_loop().time() + timeout_s
    while True:
        ended = await (await connection.execute(query, [row[0]])).fetchone()
        if ended is not None and ended[0]:
            return True
        if asyncio.get_running_loop().time() >= deadline:
            return False
        await asyncio.sleep(POLL_S)


async def _make(
    connection: AsyncConnection[TupleRow], slot: str, triggers: list[int], begin_lsn: int
) -> None:
    """What no slot has asked for is deleted, up to the very snapshot that this one begins with."""
    async with connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        await connection.execute(
            "DELETE FROM railswitch.changes WHERE NOT EXISTS (SELECT FROM railswitch.change_slots)"
        )
        await connection.execute(
            "INSERT INTO railswitch.change_slots (slot, position, seen, triggers)"
            " SELECT %s, greatest(%s::bigint, (pg_current_wal_insert_lsn() - '0/0')::bigint),"
            " pg_current_snapshot(), %s::bigint[]::oid[]",
            [slot, begin_lsn, triggers],
        )


async def _empty(connection: AsyncConnection[TupleRow]) -> None:
    """At once, where nobody has written to it since; else without waiting for them."""
    try:
        await connection.execute(f"SET lock_timeout = {int(TRUNCATE_LOCK_S * 1000)}")
        await connection.execute("TRUNCATE railswitch.changes")
    except psycopg.errors.LockNotAvailable:
        await connection.execute("DELETE FROM railswitch.changes")
