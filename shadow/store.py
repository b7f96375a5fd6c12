"""The control store, as the comparison uses it: it records in one transaction what it found and how
far it has come, and reads for the gate, the command line and its own next start.

A watermark is compared and set: a process that another one has taken over from can't write any
more. A record whose outcome was lost with the connection is recognised when it is sent again.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import psycopg
from hdrh.histogram import HdrHistogram
from psycopg.rows import dict_row

from shadow import evidence, latency, store_sql
from shadow.errors import PositionMoved, StoreUnavailable
from shadow.latency import Window
from shadow.limits import (
    CONNECT_S,
    LATENCY_WINDOWS_OPEN_MAX,
    STORE_STATEMENT_MS,
    WRITERS_MAX,
)
from shadow.store_rows import (
    Batch,
    InstrumentRow,
    Parity,
    Position,
    Resume,
    StageRow,
    Tally,
)
from shadow.verdict import Evidence, OperationVerdict

Cursor = psycopg.AsyncCursor[dict[str, Any]]


class Store:
    """One connection, opened when it is needed and again after a loss; its users take turns.

    Every operating fault comes out as StoreUnavailable, with nothing written.
    """

    def __init__(self, url: str, *, shadow: str = "shadow", slot: str = "railswitch") -> None:
        """`shadow` names the group of instruments that this process follows."""
        self.url = url
        self._shadow = shadow
        self._slot = slot
        self._writer = secrets.token_hex(8)
        self._connection: psycopg.AsyncConnection[Any] | None = None
        self._turn = asyncio.Lock()
        self._windows: dict[Window, HdrHistogram] = {}  # as the store has them

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    # --- the shadow process

    async def resume(self) -> Resume:
        """Where the group stands; its row is made at the first start. From now on only this process
        can move it: an older one finds it moved.
        """
        async with self._transaction() as cursor:
            await cursor.execute(store_sql.ADD_POSITION, (self._shadow, self._slot))
            await cursor.execute(store_sql.TAKE_POSITION, (self._writer, self._shadow))
            position = msgspec.convert(await cursor.fetchone(), Position)
            await cursor.execute(store_sql.INSTRUMENTS)
            rows = [msgspec.convert(row, InstrumentRow) for row in await cursor.fetchall()]
            await cursor.execute("SELECT rule, hits FROM railswitch.known_hit")
            hits = {row["rule"]: row["hits"] for row in await cursor.fetchall()}
        return Resume(position=position, instruments={row.symbol: row for row in rows}, hits=hits)

    async def stages(self) -> dict[str, StageRow]:
        async with self._transaction() as cursor:
            await cursor.execute(store_sql.STAGES)
            rows = [msgspec.convert(row, StageRow) for row in await cursor.fetchall()]
        return {row.symbol: row for row in rows}

    async def flip_direction(self, flip_id: int) -> str:
        """ "flip" or "rollback"; "" for a flip that the store does not know."""
        async with self._transaction() as cursor:
            await cursor.execute("SELECT direction FROM railswitch.flip WHERE id = %s", (flip_id,))
            row = await cursor.fetchone()
        return row["direction"] if row else ""

    async def record(self, batch: Batch) -> None:
        """All of it or nothing. Raises PositionMoved when another process has written since."""
        try:
            async with self._transaction() as cursor:
                if await self._move(cursor, batch.position):
                    await self._write(cursor, batch)
        except BaseException:
            self._windows.clear()  # what the store has is not known any more
            raise

    # --- the gate, the command line, the report

    async def read_evidence(self, symbol: str) -> Evidence | None:
        """All of one moment. None: the control store does not know the instrument."""
        async with self._transaction(snapshot=True) as cursor:
            return await evidence.read(cursor, symbol)

    async def parity(self, symbol: str | None = None) -> list[Parity]:
        """Of one instrument, or of all, by symbol."""
        async with self._transaction(snapshot=True) as cursor:
            await cursor.execute(
                "SELECT symbol FROM railswitch.stage"
                " WHERE %(symbol)s::text IS NULL OR symbol = %(symbol)s ORDER BY symbol",
                {"symbol": symbol},
            )
            symbols = [row["symbol"] for row in await cursor.fetchall()]
            found = [await evidence.read_parity(cursor, one) for one in symbols]
        return [one for one in found if one is not None]

    async def verdicts(self, symbol: str, limit: int) -> list[OperationVerdict]:
        """The newest stored ones, newest first: whatever is not a plain match."""
        async with self._transaction() as cursor:
            await cursor.execute(store_sql.NEWEST_VERDICTS, (symbol, limit))
            rows = await cursor.fetchall()
        return [msgspec.convert(row["body"], OperationVerdict) for row in rows]

    # --- writing

    async def _move(self, cursor: Cursor, position: Position) -> bool:
        """False: this very record has been committed before."""
        await cursor.execute(
            store_sql.MOVE,
            {
                "shadow": self._shadow,
                "writer": self._writer,
                "flushes": position.flushes,
                "applied_lsn": position.applied_lsn,
                "capture_id": position.capture_id,
                "capture_next": _json(position.capture_next),
                "trouble": position.trouble,
            },
        )
        if cursor.rowcount == 1:
            return True
        await cursor.execute(store_sql.WRITER, (self._shadow,))
        row = await cursor.fetchone()
        if row == {"writer": self._writer, "flushes": position.flushes + 1}:
            return False
        raise PositionMoved(
            f"another process writes the position of shadow {self._shadow!r}: only one may. "
            "This one stops; see that no second `railswitch shadow` runs"
        )

    async def _write(self, cursor: Cursor, batch: Batch) -> None:
        await _many(cursor, store_sql.SAVE_INSTRUMENT, map(_instrument, batch.instruments))
        await _many(cursor, store_sql.ADD_RUN, map(msgspec.structs.asdict, batch.runs))
        await _many(
            cursor,
            store_sql.ADD_COUNTS,
            [
                {**key._asdict(), **{name: getattr(tally, name) for name in Tally.__slots__}}
                for key, tally in batch.tallies.items()
            ],
        )
        await _many(
            cursor,
            store_sql.ADD_VERDICT,
            [_verdict(run, verdict) for run, verdict in batch.verdicts],
        )
        await _many(cursor, store_sql.ADD_HITS, list(batch.hits.items()))
        await _write_writers(cursor, batch)
        await _many(cursor, store_sql.ADD_GAP, [tuple(gap) for gap in batch.gaps])
        for window, added in batch.latencies.items():
            await self._add_latency(cursor, window, added)

    async def _add_latency(self, cursor: Cursor, window: Window, added: HdrHistogram) -> None:
        total = self._windows.get(window)
        if total is None:
            total = latency.empty()
            await cursor.execute(store_sql.LATENCY, tuple(window))
            row = await cursor.fetchone()
            if row is not None:
                latency.add_encoded(total, row["histogram"])
        total.add(added)
        self._windows[window] = total
        while len(self._windows) > LATENCY_WINDOWS_OPEN_MAX:
            del self._windows[next(iter(self._windows))]
        await cursor.execute(store_sql.SAVE_LATENCY, (*window, latency.encode(total)))

    # --- the connection

    @asynccontextmanager
    async def _transaction(self, *, snapshot: bool = False) -> AsyncIterator[Cursor]:
        async with self._turn:
            try:
                connection = await self._connected()
                async with connection.transaction():
                    async with connection.cursor(row_factory=dict_row) as cursor:
                        if snapshot:
                            await cursor.execute(
                                "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY"
                            )
                        yield cursor
            except (psycopg.Error, OSError) as error:
                raise _unavailable(error) from error

    async def _connected(self) -> psycopg.AsyncConnection[Any]:
        if self._connection is None or self._connection.closed:
            self._connection = await psycopg.AsyncConnection.connect(
                self.url,
                autocommit=True,
                connect_timeout=CONNECT_S,
                options=f"-c statement_timeout={STORE_STATEMENT_MS}",
                application_name="railswitch shadow",
            )
        return self._connection


async def _many(cursor: Cursor, statement: Any, rows: Any) -> None:
    rows = list(rows)
    if rows:
        await cursor.executemany(statement, rows)


async def _write_writers(cursor: Cursor, batch: Batch) -> None:
    dark = [
        {
            "symbol": key.symbol,
            "run": key.run,
            "operations": operations,
            "most": WRITERS_MAX,
            **key.writer._asdict(),
        }
        for key, operations in batch.dark.items()
        if operations
    ]
    await _many(cursor, store_sql.ADD_DARK, dark)
    if batch.writers_seen:
        await cursor.execute(store_sql.FORGET_WRITERS)
    seen = [
        {"transactions": transactions, "most": WRITERS_MAX, **writer._asdict()}
        for writer, transactions in batch.writers_seen.items()
    ]
    await _many(cursor, store_sql.ADD_WRITER, seen)


def _instrument(row: InstrumentRow) -> dict[str, Any]:
    values = msgspec.structs.asdict(row)
    return values | {"book_differences": _json(list(row.book_differences))}


def _verdict(run: int, verdict: OperationVerdict) -> dict[str, Any]:
    return {
        "symbol": verdict.symbol,
        "run": run,
        "operation": verdict.operation,
        "order_id": verdict.order_id,
        "verdict": str(verdict.verdict),
        "kinds": [str(one.kind) for one in verdict.differences],
        "root_order_id": verdict.root_order_id,
        "commit_lsn": verdict.commit_lsn,
        "body": _json(verdict),
    }


def _json(value: Any) -> str:
    # A JSON string may hold NUL, jsonb may not: what a client sent must never stop the record.
    return msgspec.json.encode(value).decode().replace("\\u0000", "\\ufffd")


def _unavailable(error: BaseException) -> StoreUnavailable:
    lines: Sequence[str] = str(error).strip().splitlines() or [type(error).__name__]
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.InvalidSchemaName):
        return StoreUnavailable(
            f"the control store is not migrated: {lines[0]}; `railswitch up` does it at its start"
        )
    return StoreUnavailable(f"the control store does not answer: {lines[0]}; see that it runs")
