"""The stage table of the control store: who answers for each instrument, changed by
compare-and-set.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec

from bridge.errors import FlipRunning, StageConflict, UnknownInstrument
from bridge.ledger_rows import FlipRow
from bridge.stage import InstrumentStage, Stage, StageSnapshot
from bridge.store import Cursor, StoreConnection
from shadow.legacy.mapping import InstrumentConfig

# Serialises whoever changes a stage row, so that a row's version never commits after a higher one.
_STAGE_LOCK = (0x52535743 >> 1, 1)
STAGE_COLUMNS = "symbol, instrument, stage, epoch, holding"
FLIP_COLUMNS = """id, symbol, direction, epoch_from, epoch_to, state, actor, reason, hold_ms,
    extract(epoch FROM started_at)::float8 AS started_at_s,
    extract(epoch FROM ended_at)::float8 AS ended_at_s"""


class StageTable(StoreConnection):
    async def snapshot(self) -> StageSnapshot:
        async with self.cursor() as cursor:
            await cursor.execute(f"SELECT {STAGE_COLUMNS}, version FROM railswitch.stage")
            rows = await cursor.fetchall()
        version = max((row.pop("version") for row in rows), default=0)
        stages = [stage_of_row(row) for row in rows]
        return StageSnapshot(version=version, instruments={one.symbol: one for one in stages})

    async def stage(self, symbol: str) -> InstrumentStage:
        """Raises UnknownInstrument, which names the known ones."""
        known = (await self.snapshot()).instruments
        if symbol not in known:
            raise UnknownInstrument(
                f"no instrument {symbol!r}; configured are {', '.join(sorted(known)) or 'none'}"
            )
        return known[symbol]

    async def add_missing(self, instruments: Sequence[InstrumentConfig]) -> None:
        """Inserts stage rows (off, epoch 0). Raises StageConflict when a number means another
        symbol now.
        """
        async with self.changing() as cursor:
            for one in instruments:
                await cursor.execute(
                    "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
                    " VALUES (%s, %s, 'off', 0) ON CONFLICT DO NOTHING",
                    (one.symbol, one.id),
                )
                await cursor.execute(
                    "SELECT symbol, instrument FROM railswitch.stage"
                    " WHERE symbol = %s OR instrument = %s",
                    (one.symbol, one.id),
                )
                if await cursor.fetchall() != [{"symbol": one.symbol, "instrument": one.id}]:
                    raise StageConflict(
                        f"instrument {one.symbol} is configured with id {one.id}, but the control "
                        "store has it otherwise: an instrument's id can't change; set it back"
                    )

    async def change_stage(
        self, current: InstrumentStage, wanted: Stage, *, actor: str, reason: str
    ) -> InstrumentStage:
        """To `wanted` at the next epoch, if the row is still `current`. Raises StageConflict,
        FlipRunning.
        """
        async with self.changing() as cursor:
            await refuse_unfinished_flip(cursor, current.symbol)
            await cursor.execute(
                "UPDATE railswitch.stage SET stage = %s, epoch = epoch + 1, changed_at = now(),"
                " version = nextval('railswitch.stage_version')"
                " WHERE symbol = %s AND stage = %s AND epoch = %s AND holding = 0"
                f" RETURNING {STAGE_COLUMNS}",
                (wanted, current.symbol, current.stage, current.epoch),
            )
            row = await cursor.fetchone()
            if row is None:
                raise stage_conflict(current.symbol)
            changed = stage_of_row(row)
            await record_change(cursor, current.stage, changed, actor, reason)
            return changed

    async def last_change(self, symbol: str) -> tuple[str, str] | None:
        """The newest (stage_from, stage_to) of the instrument's history."""
        async with self.cursor() as cursor:
            await cursor.execute(
                "SELECT stage_from, stage_to FROM railswitch.stage_history WHERE symbol = %s"
                " ORDER BY id DESC LIMIT 1",
                (symbol,),
            )
            row = await cursor.fetchone()
        return None if row is None else (row["stage_from"], row["stage_to"])

    async def ever_live(self) -> bool:
        async with self.cursor() as cursor:
            await cursor.execute(
                "SELECT EXISTS (SELECT 1 FROM railswitch.flip"
                " WHERE direction = 'flip' AND state IN ('committed', 'done')) AS live"
            )
            row = await cursor.fetchone()
        return bool(row and row["live"])

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[Cursor]:
        """A transaction in which stage rows may change."""
        async with self.transaction() as cursor:
            await cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", _STAGE_LOCK)
            yield cursor


async def refuse_unfinished_flip(cursor: Cursor, symbol: str) -> None:
    await cursor.execute(
        f"SELECT {FLIP_COLUMNS} FROM railswitch.flip WHERE symbol = %s AND ended_at IS NULL",
        (symbol,),
    )
    row = await cursor.fetchone()
    if row is not None:
        flip = flip_of_row(row)
        since = datetime.fromtimestamp(flip.started_at_s, UTC).isoformat(timespec="seconds")
        raise FlipRunning(
            f"a {flip.direction} of {symbol} is running already: number {flip.id}, started by "
            f"{flip.actor} at {since}; wait for it, see `railswitch status`"
        )


async def record_change(
    cursor: Cursor, stage_from: str, changed: InstrumentStage, actor: str, reason: str
) -> None:
    await cursor.execute(
        "INSERT INTO railswitch.stage_history (symbol, stage_from, stage_to, epoch, actor, reason)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        (changed.symbol, stage_from, changed.stage, changed.epoch, actor, reason),
    )


def stage_conflict(symbol: str) -> StageConflict:
    return StageConflict(
        f"the stage of {symbol} has changed in the meantime: look at `railswitch status` and try "
        "again"
    )


def stage_of_row(row: dict[str, Any] | None) -> InstrumentStage:
    return msgspec.convert(row, InstrumentStage)


def flip_of_row(row: dict[str, Any] | None) -> FlipRow:
    return msgspec.convert(row, FlipRow)
