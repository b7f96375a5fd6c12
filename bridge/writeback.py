"""Writes what the engine did with live orders to the legacy's tables, exactly once (DESIGN.md
section 8).

It follows the shard's events from the watermark in the legacy database and moves that watermark in
the transaction that writes the rows: what was written is written, whoever dies when. A gap, a
repeat, or a watermark that someone else has moved stops it, loudly; it begins again from the
durable watermark, and stops again while the reason lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol

import msgspec
import psycopg
from psycopg.rows import dict_row

from bridge import limits, writeback_sql
from bridge.errors import BridgeError, StoreUnreachable, WriteBackStopped
from bridge.funds_moves import Moves, has_moves
from bridge.store import first_line
from bridge.tasks import ended
from bridge.writeback_funds import FundsWriter
from bridge.writeback_rows import Effects, Frame, discontinuity, has_live_events, net_effects
from engine.errors import EngineError
from shadow.errors import LegacyUnavailable, ShadowError
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping
from shadow.legacy.symbols import resolved

_log = logging.getLogger(__name__)
_CONNECTION_TROUBLE = ("08", "57P")  # classes of SQLSTATE: the server is gone, or going

Connection = psycopg.AsyncConnection[dict[str, Any]]


class Source(Protocol):
    """What it reads: engine.client.EngineClient."""

    async def head_seq(self) -> int: ...
    def tail(self, from_seq: int) -> AsyncIterator[Frame]: ...


class WriteBackSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str  # of the legacy database, as role railswitch
    shard: int
    mapping: Mapping
    scales: tuple[Scale, ...]


class WriteBack:
    def __init__(
        self,
        settings: WriteBackSettings,
        source: Source,
        *,
        ever_live: Callable[[], Awaitable[bool]],
        announce: Callable[[int], None],
    ) -> None:
        """`announce` is told every sequence number that the watermark has durably reached;
        `ever_live` says whether an instrument was ever live, so that a missing watermark would be a
        lost one.
        """
        self._settings = settings
        self._mapping = settings.mapping
        self._scales = {scale.instrument: scale for scale in settings.scales}
        self._funds: FundsWriter | None = None
        if settings.mapping.funds == "legacy":
            self._funds = FundsWriter(settings.mapping, self._scales)
        self._source = source
        self._ever_live = ever_live
        self._announce = announce
        self._frames: asyncio.Queue[Frame | None] = asyncio.Queue(limits.WRITE_BACK_FRAMES_MAX)
        self._moved = asyncio.Condition()
        self._moved_at_s = 0.0
        self._wanted_seq = 0
        self.running = False
        self.trouble = "it has not begun yet"  # why it does not run; "" while it does
        self.written_seq = 0  # the durable watermark
        self.reached_seq = 0  # all live events up to here are written; the watermark follows

    async def run(self) -> None:
        """Until cancelled."""
        delay_s = limits.WRITE_BACK_RETRY_S_MIN
        while True:
            try:
                await self._follow()
            except (psycopg.Error, OSError, BridgeError, EngineError, ShadowError) as error:
                if self.running:
                    delay_s = limits.WRITE_BACK_RETRY_S_MIN
                await self._stumble(error)
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, limits.WRITE_BACK_RETRY_S_MAX)

    async def drain(self, seq: int) -> None:
        """Returns when the durable watermark has reached `seq`. Raises WriteBackStopped when it
        stops.
        """
        self._wanted_seq = max(self._wanted_seq, seq)
        self._wake()
        async with self._moved:
            await self._moved.wait_for(lambda: self.written_seq >= seq or not self.running)
        if self.written_seq < seq:
            raise WriteBackStopped(
                f"the write-back stopped at {self.written_seq}, before {seq}: {self.trouble}"
            )

    async def _stumble(self, error: Exception) -> None:
        self.running = False
        self.trouble = _text(error)
        if _is_connection_trouble(error):
            _log.warning("write-back waits: %s", self.trouble)
        else:
            _log.error("write-back stopped at %d: %s", self.written_seq, self.trouble)
        async with self._moved:
            self._moved.notify_all()

    async def _follow(self) -> None:
        async with await self._connect() as connection:
            self._mapping = await resolved(self._settings.url, self._settings.mapping)
            async with connection.cursor() as cursor:
                statements = await writeback_sql.prepare(
                    cursor, self._mapping, self._settings.scales
                )
            self.written_seq = self.reached_seq = await self._watermark(connection)
            self._frames = asyncio.Queue(limits.WRITE_BACK_FRAMES_MAX)
            self.running, self.trouble = True, ""
            reader = asyncio.create_task(self._read(self.written_seq + 1))
            writer = asyncio.create_task(self._write_all(connection, statements))
            try:
                done, _ = await asyncio.wait((reader, writer), return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            finally:
                await ended(reader, writer)

    async def _read(self, from_seq: int) -> None:
        async for frame in self._source.tail(from_seq):
            await self._frames.put(frame)
        raise WriteBackStopped("the engine's events came to an end: see that the engine runs")

    async def _write_all(
        self, connection: Connection, statements: writeback_sql.Statements
    ) -> None:
        while True:
            frames = await self._group()
            why_not = discontinuity(self.reached_seq, frames)
            if why_not:
                raise WriteBackStopped(f"{why_not}; nothing was written: see the engine's journal")
            reached = frames[-1].last_seq if frames else self.reached_seq
            live = any(has_live_events(frame) for frame in frames)
            moves = Moves()
            if self._funds is not None and (live or any(has_moves(frame) for frame in frames)):
                moves = self._funds.moves(frames)
            if live or not moves.is_empty or self._is_move_due(reached):
                await self._write(connection, statements, net_effects(frames), moves, reached)
                await self._tell_moved(reached)
            self.reached_seq = reached

    async def _group(self) -> list[Frame]:
        """Waits for the next frames, at most until the watermark must be moved: then none."""
        idle_s = limits.WRITE_BACK_MOVE_S if self.reached_seq > self.written_seq else None
        try:
            # Not wait_for: it loses a cancellation now and then.
            async with asyncio.timeout(idle_s):
                first = await self._frames.get()
        except TimeoutError:
            return []
        group = [first] if first is not None else []
        size = len(first.events) if first is not None else 0
        while size < limits.WRITE_BACK_GROUP_BYTES and not self._frames.empty():
            frame = self._frames.get_nowait()
            if frame is not None:
                group.append(frame)
                size += len(frame.events)
        return group

    def _wake(self) -> None:
        if not self._frames.full():
            self._frames.put_nowait(None)

    def _is_move_due(self, reached: int) -> bool:
        """Without live events the watermark moves too, so that lag can be seen, but not at every
        frame.
        """
        if reached <= self.written_seq:
            return False
        waited_s = asyncio.get_running_loop().time() - self._moved_at_s
        return waited_s >= limits.WRITE_BACK_MOVE_S or self._wanted_seq > self.written_seq

    async def _tell_moved(self, reached: int) -> None:
        self._moved_at_s = asyncio.get_running_loop().time()
        async with self._moved:
            self.written_seq = reached
            self._moved.notify_all()
        self._announce(reached)

    async def _write(
        self,
        connection: Connection,
        statements: writeback_sql.Statements,
        effects: Effects,
        moves: Moves,
        reached: int,
    ) -> None:
        """All of it or nothing. Deadlocks and serialisation failures are tried again."""
        for attempt in range(limits.WRITE_BACK_TRIES):
            try:
                async with connection.transaction(), connection.cursor() as cursor:
                    await self._move_watermark(cursor, effects, reached)
                    fill_ids = await self._apply(cursor, statements, effects)
                    if self._funds is not None and not moves.is_empty:
                        await self._funds.write(cursor, moves, fill_ids)
                return
            except (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure):
                if attempt == limits.WRITE_BACK_TRIES - 1:
                    raise
                await asyncio.sleep(limits.WRITE_BACK_AGAIN_S * (attempt + 1))

    async def _move_watermark(
        self, cursor: psycopg.AsyncCursor[dict[str, Any]], effects: Effects, reached: int
    ) -> None:
        shard = self._settings.shard
        if effects.rows:
            message = {"kind": "written", "shard": shard, "seq": reached}
            await cursor.execute(
                "SELECT pg_logical_emit_message(true, 'railswitch', %s)",
                (msgspec.json.encode(message).decode(),),
            )
        await cursor.execute(
            "UPDATE railswitch.written SET seq = %s, at = clock_timestamp()"
            " WHERE shard = %s AND seq = %s",
            (reached, shard, self.written_seq),
        )
        if cursor.rowcount != 1:
            raise WriteBackStopped(
                f"the watermark of shard {shard} is no longer {self.written_seq}: another "
                "write-back has moved it; see that only one control process leads"
            )

    async def _apply(
        self,
        cursor: psycopg.AsyncCursor[dict[str, Any]],
        statements: writeback_sql.Statements,
        effects: Effects,
    ) -> list[int]:
        """The ids of the fills, in their order."""
        mapping, scales = self._mapping, self._scales
        if effects.changed_orders:
            ids = [one.order_id for one in effects.changed_orders]
            await cursor.execute(statements.lock_orders, {"id": ids})
            if cursor.rowcount != len(ids):
                present = {row["id"] for row in await cursor.fetchall()}
                raise WriteBackStopped(
                    f"{mapping.orders.table} has no order "
                    f"{next(one for one in ids if one not in present)}, which the engine traded or "
                    "canceled: compare the books before anything else"
                )
            changes = writeback_sql.change_values(effects.changed_orders, mapping, scales)
            await cursor.execute(statements.update_orders, changes)
        if effects.new_orders:
            orders = writeback_sql.order_values(effects.new_orders, mapping, scales)
            await cursor.execute(statements.insert_orders, orders)
        if not effects.fills:
            return []
        fills = writeback_sql.fill_values(effects.fills, mapping, scales)
        await cursor.execute(statements.insert_fills, fills)
        fill_ids = sorted(row["id"] for row in await cursor.fetchall())
        await cursor.execute(
            "INSERT INTO railswitch.fill_map (shard, seq, sub, fill_id)"
            " SELECT %s, * FROM unnest(%s::bigint[], %s::integer[], %s::bigint[])",
            (
                self._settings.shard,
                [one.seq for one in effects.fills],
                [one.sub for one in effects.fills],
                fill_ids,
            ),
        )
        return fill_ids

    async def _connect(self) -> Connection:
        return await psycopg.AsyncConnection.connect(
            self._settings.url,
            autocommit=True,
            row_factory=dict_row,
            connect_timeout=limits.STORE_CONNECT_S,
            options="-c TimeZone=UTC -c synchronous_commit=on"  # a rollback relies on it
            f" -c statement_timeout={limits.WRITE_BACK_STATEMENT_MS}",
            application_name="railswitch write-back",
        )

    async def _watermark(self, connection: Connection) -> int:
        """The durable one. At the very first start it is made, at the engine's head."""
        shard, head = self._settings.shard, await self._source.head_seq()
        query = "SELECT seq FROM railswitch.written WHERE shard = %s"
        cursor = await connection.execute(query, (shard,))
        row = await cursor.fetchone()
        if row is None:
            if await self._ever_live():
                raise WriteBackStopped(
                    f"railswitch.written has no watermark of shard {shard}, though an instrument "
                    "was live: restore it, or what was traded since can't be found"
                )
            await connection.execute(
                "INSERT INTO railswitch.written (shard, seq, at) VALUES (%s, %s, now())"
                " ON CONFLICT DO NOTHING",
                (shard, head),
            )
            cursor = await connection.execute(query, (shard,))
            row = await cursor.fetchone()
        assert row is not None
        if row["seq"] > head:
            raise WriteBackStopped(
                f"the watermark of shard {shard} is {row['seq']} and the engine's head {head}: the "
                "engine runs on another journal, or an older copy; start it on the right one"
            )
        return int(row["seq"])


def _text(error: Exception) -> str:
    missing = (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName)
    if isinstance(error, missing):
        return f"{first_line(error)}: install the fence with `railswitch legacy install --execute`"
    return first_line(error) if isinstance(error, psycopg.Error) else str(error)


def _is_connection_trouble(error: Exception) -> bool:
    if isinstance(error, psycopg.Error):
        return error.sqlstate is None or error.sqlstate.startswith(_CONNECTION_TROUBLE)
    return isinstance(error, (OSError, EngineError, StoreUnreachable, LegacyUnavailable))
