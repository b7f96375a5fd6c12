"""The monolith's transactions for a database without logical decoding: asked for, again and again,
from a table of ours that triggers fill.

Which transactions are new is told by PostgreSQL's own snapshots (`polling_slots`), so none is lost
and none comes twice. Their order is that of the commits where the server keeps their times, else
that of their last rows: docs/operating/changes.md says when that is another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from collections.abc import Mapping as Scales
from typing import Any

import msgspec
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from shadow.errors import LegacyUnavailable
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.assemble import Assembler
from shadow.legacy.convert import Scale
from shadow.legacy.database import connect, connected, target, translated
from shadow.legacy.mapping import Mapping
from shadow.legacy.pgoutput import Begin, Commit
from shadow.legacy.polled import Polled, Translator
from shadow.legacy.polling_slots import (
    claim,
    clean,
    drop_slot,
    find,
    head,
    keeps_commit_times,
    lock,
    standing,
)
from shadow.legacy.snapshot import Snapshot, read_rows
from shadow.legacy.source import Source, Standing, progress_note
from shadow.limits import (
    BACKLOG_CHANGES_MAX,
    CLEAN_S,
    CLEAN_WINDOWS_MAX,
    POLL_QUERY_S,
    POLL_ROWS_MAX,
    POLL_S,
    POLL_WINDOWS_MAX,
    QUERY_S,
    SLOT_CREATE_S,
)

_ROWS = """
    SELECT w.n, c.seq, c.kind, c.op, c.was, c.becomes
    FROM unnest({xids}::xid8[]) WITH ORDINALITY AS w (xid, n) JOIN railswitch.changes c USING (xid)
    ORDER BY w.n, c.seq LIMIT {most}"""
_REST = """
    SELECT 1, c.seq, c.kind, c.op, c.was, c.becomes FROM railswitch.changes c
    WHERE c.xid = {xid}::xid8 AND c.seq > {seq} ORDER BY c.seq LIMIT {most}"""


class Window(msgspec.Struct, frozen=True):
    """Transactions that became visible together."""

    first: int
    behind: int
    xids: list[str]
    commits_us: list[int]


class ChangePoll(Source):
    """Positions grow as the server's log does, and are kept in its database."""

    def __init__(
        self,
        url: str,
        slot: str,
        mapping: Mapping,
        scales: Scales[str, Scale],
        *,
        adapter: Adapted = PLAIN,
        poll_s: float = POLL_S,
        retained_bytes_max: int = 0,
    ) -> None:
        super().__init__(slot, retained_bytes_max)
        self._url, self._poll_s = url, poll_s
        self._mapping, self._scales, self._adapter = mapping, scales, adapter
        self._connection: AsyncConnection[TupleRow] | None = None
        self._question = sql.Composed([])
        self._cleaned_lsn = 0

    @property
    def _is_connected(self) -> bool:
        return self._connection is not None

    async def _connect(self, busy_s: float) -> None:
        connection = await connect(self._url)
        try:
            with translated(self._url, "preparing to read changes from"):
                at = await standing(connection, self._url, self._slot, self._mapping)
                self._require_nothing_lost(at.slot_lsn, at.end_lsn)
                await claim(connection, self._url, self._slot, busy_s)
                times = await keeps_commit_times(connection)
                await connection.execute(f"SET statement_timeout = {int(POLL_QUERY_S * 1000)}")
        except BaseException:
            await connection.close()
            raise
        self._question = _question(self._slot, commit_times=times)
        self._connection = connection

    async def _end_session(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _inspect(self) -> Standing:
        async with connected(self._url) as connection:
            with translated(self._url, "looking at the slot in"):
                return await standing(connection, self._url, self._slot, self._mapping)

    async def _give_up_slot(self) -> None:
        await drop_slot(self._url, self._slot)

    async def close(self) -> None:
        """What was confirmed is forgotten at the next start, if the server can't be told now."""
        connection = self._connection
        reader = self._reader
        if connection is not None and reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
        if connection is not None and not connection.closed:
            try:
                await self._asked(connection, sql.SQL("ROLLBACK").format())
                await self._clean(connection)
            except LegacyUnavailable as error:
                self._last_error = str(error)
        await super().close()

    async def _read(self) -> None:
        connection = self._connection
        assert connection is not None
        assembler = Assembler(
            self._mapping, self._scales, ignored=self._ignored, adapter=self._adapter
        )
        translator = Translator(self._mapping)
        clock = asyncio.get_running_loop().time
        cleaned_at = clock()
        while True:
            windows = await self._windows(connection)
            for window in windows:
                await self._give(connection, window, assembler, translator)
            if clock() - cleaned_at >= CLEAN_S:
                await self._clean(connection)
                cleaned_at = clock()
            if not windows:
                await asyncio.sleep(self._poll_s)

    async def _windows(self, connection: AsyncConnection[TupleRow]) -> list[Window]:
        """The oldest that have not been given, after those have been found that are new."""
        query = sql.SQL(
            "{}; SELECT first, behind, xids::text[], commits_us FROM railswitch.change_windows"
            " WHERE slot = {} AND behind > {} ORDER BY first LIMIT {}"
        ).format(
            self._question,
            sql.Literal(self._slot),
            sql.Literal(self._delivered_lsn),
            sql.Literal(POLL_WINDOWS_MAX),
        )
        return [Window(*row) for row in await self._asked(connection, query)]

    async def _give(
        self,
        connection: AsyncConnection[TupleRow],
        window: Window,
        assembler: Assembler,
        translator: Translator,
    ) -> None:
        """Whole transactions into the backlog; a page of rows in memory at a time."""
        at = -1
        async for n, polled in self._rows(connection, window):
            if n != at:
                self._commit(window, at, assembler)
                await self._wait_for_enough_room()
                at = n
                lsn, xid = window.first + 2 * n, int(window.xids[n])
                assembler.feed(Begin(lsn, window.commits_us[n], xid))
            for message in translator.messages(polled):
                assembler.feed(message)
        self._commit(window, at, assembler)
        if self._delivered_lsn < window.behind:
            self._deliver(progress_note(window.behind, window.commits_us[-1]))

    def _commit(self, window: Window, n: int, assembler: Assembler) -> None:
        if n < 0:
            return
        lsn = window.first + 2 * n
        transaction = assembler.feed(Commit(lsn, lsn + 2, window.commits_us[n]))
        if transaction is not None:
            self._deliver(transaction)

    async def _wait_for_enough_room(self) -> None:
        while self._backlog_changes >= BACKLOG_CHANGES_MAX:
            await self._wait_for_room()

    async def _rows(
        self, connection: AsyncConnection[TupleRow], window: Window
    ) -> AsyncIterator[tuple[int, Polled]]:
        """With the place of their transaction in the window, in order."""
        begin = 0
        while begin < len(window.xids):
            page = await self._asked(
                connection,
                sql.SQL(_ROWS).format(
                    xids=sql.Literal(window.xids[begin:]), most=sql.Literal(POLL_ROWS_MAX)
                ),
            )
            for place, _, *values in page:
                yield begin + place - 1, _polled(values)
            if len(page) < POLL_ROWS_MAX:
                return
            n, seq = begin + page[-1][0] - 1, page[-1][1]
            async for polled in self._rest(connection, window.xids[n], seq):
                yield n, polled
            begin = n + 1

    async def _rest(
        self, connection: AsyncConnection[TupleRow], xid: str, seq: int
    ) -> AsyncIterator[Polled]:
        """Of a transaction that did not fit into its page."""
        while True:
            page = await self._asked(
                connection,
                sql.SQL(_REST).format(
                    xid=sql.Literal(xid), seq=sql.Literal(seq), most=sql.Literal(POLL_ROWS_MAX)
                ),
            )
            for _, seq, *values in page:  # noqa: B007  the last one is where the next page begins
                yield _polled(values)
            if len(page) < POLL_ROWS_MAX:
                return

    async def _clean(self, connection: AsyncConnection[TupleRow]) -> None:
        while self._cleaned_lsn < self._confirmed_lsn:
            confirmed_lsn = self._confirmed_lsn
            query = clean(self._slot, confirmed_lsn, CLEAN_WINDOWS_MAX)
            await self._asked(connection, query)
            left = sql.SQL(
                "SELECT FROM railswitch.change_windows WHERE slot = {} AND behind <= {} LIMIT 1"
            ).format(sql.Literal(self._slot), sql.Literal(confirmed_lsn))
            if not await self._asked(connection, left):
                self._cleaned_lsn = confirmed_lsn

    async def _asked(
        self, connection: AsyncConnection[TupleRow], query: sql.Composed
    ) -> list[TupleRow]:
        """Rows of the last statement. Raises LegacyUnavailable, LegacyNotReady."""
        try:
            async with asyncio.timeout(POLL_QUERY_S):
                with translated(self._url, "reading changes from"):
                    cursor = await connection.execute(query)
                    while cursor.nextset():
                        pass
                    return await cursor.fetchall() if cursor.description is not None else []
        except TimeoutError as error:
            raise LegacyUnavailable(
                f"reading changes from {target(self._url)}: no answer for {POLL_QUERY_S:g} s"
            ) from error


async def open_orders_at(
    url: str,
    slot: str,
    mapping: Mapping,
    scales: Scales[str, Scale],
    symbols: list[str],
    *,
    adapter: Adapted = PLAIN,
    hold: Callable[[], None] = lambda: None,
) -> Snapshot:
    """As `snapshot.open_orders_at`: a window of the slot ends with the snapshot that is read.

    It waits for nobody's transaction. Raises SlotMissing, LegacyUnavailable, LegacyNotReady.
    """
    async with connected(url) as reader, connected(url) as exporter:
        with translated(url, "reading open orders from"):
            await standing(exporter, url, slot, mapping)
            await exporter.execute(f"SET statement_timeout = {int(POLL_QUERY_S * 1000)}")
            await exporter.execute(f"SET lock_timeout = {int(SLOT_CREATE_S * 1000)}")
            times = await keeps_commit_times(exporter)
            hold()
            await exporter.execute(lock("pg_advisory_lock", slot))
            await exporter.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            await exporter.execute(find(slot, commit_times=times))
            query = sql.SQL("SELECT position, pg_export_snapshot() FROM ({}) AS h")
            row: Any = await (await exporter.execute(query.format(head(slot)))).fetchone()
            async with reader.transaction():
                await reader.execute(
                    sql.SQL(
                        "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY;"
                        " SET TRANSACTION SNAPSHOT {}"
                    ).format(sql.Literal(row[1]))
                )
                await exporter.execute("COMMIT")
                await exporter.close()
                orders = await read_rows(reader, mapping, scales, symbols, adapter)
    return Snapshot(lsn=row[0], orders=orders)


async def write_mark(url: str, mark_id: str) -> None:
    """As `snapshot.write_mark`."""
    body = msgspec.json.encode({"kind": "mark", "id": mark_id}).decode()
    async with connected(url) as connection:
        with translated(url, "writing a mark into"):
            await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
            await connection.execute(
                "INSERT INTO railswitch.changes (kind, op, becomes) SELECT 'ours', 'M', %s"
                " FROM railswitch.capturing WHERE last_value = 2",
                [body],
            )


def _question(slot: str, *, commit_times: bool) -> sql.Composed:
    return sql.SQL("BEGIN ISOLATION LEVEL READ COMMITTED; {}; {}; COMMIT").format(
        lock("pg_advisory_xact_lock", slot), find(slot, commit_times=commit_times)
    )


def _polled(values: list[Any]) -> Polled:
    kind, op, was, becomes = values
    return Polled(
        kind,
        op,
        None if was is None else was.encode(),
        None if becomes is None else becomes.encode(),
    )
