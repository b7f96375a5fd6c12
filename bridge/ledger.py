"""The control store as the switch uses it: stage rows by compare-and-set, the journal of flips and
of their steps.

A flip's `state` is the one thing that decides where it goes: `running` may still turn to
`committed` or to `aborted`, each by compare-and-set, so that a driver that was believed dead finds
its way barred. `ended_at` is set when all that the decision asks for has been done; until then
whoever finds the flip finishes it (bridge/recover.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from psycopg.types.json import Jsonb

from bridge.errors import StageConflict
from bridge.ledger_rows import Direction, FlipRow, StepRow
from bridge.stage import InstrumentStage, Stage
from bridge.stage_table import (
    FLIP_COLUMNS,
    STAGE_COLUMNS,
    StageTable,
    flip_of_row,
    record_change,
    refuse_unfinished_flip,
    stage_conflict,
    stage_of_row,
)
from bridge.store import Cursor

_STEP_COLUMNS = """n, step, state, detail, extract(epoch FROM intended_at)::float8 AS intended_at_s,
    extract(epoch FROM ended_at)::float8 AS ended_at_s"""


class Ledger(StageTable):
    """The stage table, and what is under way with it."""

    async def refuse_unfinished(self, symbol: str) -> None:
        """Raises FlipRunning while a flip or rollback of the instrument has not ended."""
        async with self.cursor() as cursor:
            await refuse_unfinished_flip(cursor, symbol)

    async def begin(
        self,
        stage: InstrumentStage,
        direction: Direction,
        *,
        actor: str,
        reason: str,
        evidence: Any,
    ) -> FlipRow:
        """Raises FlipRunning (who, since when), StageConflict when the row is no longer `stage`."""
        async with self.changing() as cursor:
            await refuse_unfinished_flip(cursor, stage.symbol)
            await cursor.execute(
                f"SELECT {STAGE_COLUMNS} FROM railswitch.stage WHERE symbol = %s", (stage.symbol,)
            )
            row = await cursor.fetchone()
            if row is None or stage_of_row(row) != stage:
                raise stage_conflict(stage.symbol)
            await cursor.execute(
                "INSERT INTO railswitch.flip"
                " (symbol, direction, epoch_from, epoch_to, state, actor, reason, evidence)"
                f" VALUES (%s, %s, %s, %s, 'running', %s, %s, %s) RETURNING {FLIP_COLUMNS}",
                (
                    stage.symbol,
                    direction,
                    stage.epoch,
                    stage.epoch + 1,
                    actor,
                    reason,
                    Jsonb(msgspec.to_builtins(evidence)),
                ),
            )
            return flip_of_row(await cursor.fetchone())

    async def intend(self, flip: FlipRow, step: str, *, durable: bool) -> int:
        """Writes down that `step` will now be taken; its number. Raises StageConflict when another
        driver has decided the flip in the meantime, so that it must not be taken.

        Durable: also when the store's machine loses power right now. What is not becomes so with
        the next decision.
        """
        async with self.cursor() as cursor:
            await cursor.execute(
                "INSERT INTO railswitch.flip_step (flip_id, n, step, state)"
                " SELECT id, (SELECT coalesce(max(n) + 1, 0) FROM railswitch.flip_step"
                "             WHERE flip_id = %(id)s), %(step)s, 'intended'"
                " FROM (SELECT id FROM railswitch.flip WHERE id = %(id)s AND state = %(state)s"
                "       FOR UPDATE) AS decided, (SELECT set_config('synchronous_commit',"
                "       %(commit)s, true)) AS setting RETURNING n",
                {
                    "id": flip.id,
                    "state": flip.state,
                    "step": step,
                    "commit": "on" if durable else "off",
                },
            )
            row = await cursor.fetchone()
            if row is None:
                raise StageConflict(
                    f"{flip.direction} {flip.id} of {flip.symbol} was {flip.state} and is no "
                    f"longer: another control process has taken it over; step {step} not taken"
                )
            return int(row["n"])

    async def end_step(
        self, flip: FlipRow, n: int, state: Literal["done", "failed"], detail: Any
    ) -> None:
        """A failure durably: it says that the step was certainly not taken."""
        async with self.cursor() as cursor:
            await cursor.execute(
                "UPDATE railswitch.flip_step SET state = %(state)s, detail = %(detail)s,"
                " ended_at = clock_timestamp() FROM (SELECT set_config('synchronous_commit',"
                " %(commit)s, true)) AS setting WHERE flip_id = %(id)s AND n = %(n)s",
                {
                    "id": flip.id,
                    "n": n,
                    "state": state,
                    "detail": Jsonb(msgspec.to_builtins(detail)),
                    "commit": "on" if state == "failed" else "off",
                },
            )

    async def hold(self, flip: FlipRow) -> None:
        """The stage row says that proxies must hold. Raises StageConflict."""
        async with self.changing() as cursor:
            await _still(cursor, flip)
            await cursor.execute(
                "UPDATE railswitch.stage SET holding = %s,"
                " version = nextval('railswitch.stage_version')"
                " WHERE symbol = %s AND epoch = %s AND holding = 0",
                (flip.id, flip.symbol, flip.epoch_from),
            )
            if cursor.rowcount != 1:
                raise stage_conflict(flip.symbol)

    async def commit(self, flip: FlipRow, wanted: Stage) -> FlipRow:
        """The point of no return: stage and epoch change, the hold stays. Raises StageConflict."""
        async with self.changing() as cursor:
            await _still(cursor, flip)
            await cursor.execute(
                "SELECT stage FROM railswitch.stage"
                " WHERE symbol = %s AND epoch = %s AND holding = %s",
                (flip.symbol, flip.epoch_from, flip.id),
            )
            before = await cursor.fetchone()
            if before is None:
                raise stage_conflict(flip.symbol)
            await cursor.execute(
                "UPDATE railswitch.stage SET stage = %s, epoch = %s, changed_at = now(),"
                " version = nextval('railswitch.stage_version') WHERE symbol = %s"
                f" RETURNING {STAGE_COLUMNS}",
                (wanted, flip.epoch_to, flip.symbol),
            )
            changed = stage_of_row(await cursor.fetchone())
            reason = flip.reason or f"{flip.direction} {flip.id}"
            await record_change(cursor, before["stage"], changed, flip.actor, reason)
            return await _decide(cursor, flip, "committed", flip.reason)

    async def abandon(self, flip: FlipRow, reasons: Sequence[str]) -> FlipRow:
        """Decides that the flip leads back. Raises StageConflict when it was decided already."""
        async with self.changing() as cursor:
            await _still(cursor, flip)
            started = [f"{flip.reason} (why it was started)"] if flip.reason else []
            return await _decide(cursor, flip, "aborted", "; ".join([*reasons, *started]))

    async def release(self, flip: FlipRow, *, epoch: int | None = None) -> None:
        """Ends the hold; with `epoch`, the stage row goes there first. Taken twice, it changes
        nothing.
        """
        async with self.changing() as cursor:
            await cursor.execute(
                "SELECT epoch FROM railswitch.stage WHERE symbol = %s AND holding = %s",
                (flip.symbol, flip.id),
            )
            row = await cursor.fetchone()
            if row is None:
                return
            await cursor.execute(
                "UPDATE railswitch.stage SET holding = 0, epoch = greatest(epoch, %s),"
                " changed_at = now(), version = nextval('railswitch.stage_version')"
                f" WHERE symbol = %s RETURNING {STAGE_COLUMNS}",
                (epoch or 0, flip.symbol),
            )
            changed = stage_of_row(await cursor.fetchone())
            if changed.epoch != row["epoch"]:
                reason = f"{flip.direction} {flip.id} undone: {flip.reason}"
                await record_change(cursor, changed.stage, changed, flip.actor, reason)

    async def raise_epoch(self, flip: FlipRow, epoch: int) -> None:
        """The stage row goes to `epoch`, still holding; for an undone rollback, before the engine
        opens.
        """
        async with self.changing() as cursor:
            await cursor.execute(
                "UPDATE railswitch.stage SET epoch = %s, changed_at = now(),"
                " version = nextval('railswitch.stage_version')"
                f" WHERE symbol = %s AND holding = %s AND epoch < %s RETURNING {STAGE_COLUMNS}",
                (epoch, flip.symbol, flip.id, epoch),
            )
            row = await cursor.fetchone()
            if row is not None:
                reason = f"{flip.direction} {flip.id} undone: {flip.reason}"
                changed = stage_of_row(row)
                await record_change(cursor, changed.stage, changed, flip.actor, reason)

    async def finish(self, flip: FlipRow, hold_ms: float | None) -> FlipRow:
        """All that the decision asked for is done. Without `hold_ms` it is taken from the steps'
        times.
        """
        async with self.transaction() as cursor:
            await cursor.execute(
                "UPDATE railswitch.flip SET ended_at = clock_timestamp(),"
                " state = CASE state WHEN 'committed' THEN 'done' ELSE state END,"
                " hold_ms = coalesce(%s, (SELECT 1000 * extract(epoch FROM"
                "   clock_timestamp() - min(intended_at)) FROM railswitch.flip_step"
                "   WHERE flip_id = %s AND step = 'hold'))"
                " WHERE id = %s AND ended_at IS NULL AND state IN ('committed', 'aborted')",
                (hold_ms, flip.id, flip.id),
            )
        return await self.flip(flip.id)

    async def flip(self, flip_id: int) -> FlipRow:
        async with self.cursor() as cursor:
            await cursor.execute(
                f"SELECT {FLIP_COLUMNS} FROM railswitch.flip WHERE id = %s", (flip_id,)
            )
            return flip_of_row(await cursor.fetchone())

    async def unfinished(self) -> list[FlipRow]:
        async with self.cursor() as cursor:
            await cursor.execute(
                f"SELECT {FLIP_COLUMNS} FROM railswitch.flip WHERE ended_at IS NULL ORDER BY id"
            )
            return [flip_of_row(row) for row in await cursor.fetchall()]

    async def newest_flip(self, symbol: str) -> FlipRow | None:
        async with self.cursor() as cursor:
            await cursor.execute(
                f"SELECT {FLIP_COLUMNS} FROM railswitch.flip WHERE symbol = %s"
                " ORDER BY id DESC LIMIT 1",
                (symbol,),
            )
            row = await cursor.fetchone()
        return None if row is None else flip_of_row(row)

    async def steps(self, flip_id: int) -> list[StepRow]:
        async with self.cursor() as cursor:
            await cursor.execute(
                f"SELECT {_STEP_COLUMNS} FROM railswitch.flip_step WHERE flip_id = %s ORDER BY n",
                (flip_id,),
            )
            return [msgspec.convert(row, StepRow) for row in await cursor.fetchall()]

    async def marker_consumed(self, symbol: str) -> int:
        """Flip id of the newest fence marker before which the shadow has compared everything; 0:
        none.
        """
        async with self.cursor() as cursor:
            await cursor.execute(
                "SELECT marker_flip_id FROM railswitch.shadow_instrument WHERE symbol = %s",
                (symbol,),
            )
            row = await cursor.fetchone()
        return int(row["marker_flip_id"]) if row else 0

    async def mismatches(self, symbol: str) -> int:
        """Recorded since the instrument came into shadow."""
        async with self.cursor() as cursor:
            await cursor.execute(
                "SELECT coalesce(sum(mismatched), 0)::bigint AS n FROM railswitch.parity_count"
                " JOIN railswitch.shadow_instrument USING (symbol)"
                " WHERE symbol = %s AND parity_count.run >= first_run",
                (symbol,),
            )
            row = await cursor.fetchone()
        return int(row["n"]) if row else 0


async def _still(cursor: Cursor, flip: FlipRow) -> None:
    """The flip is undecided. Locks its row."""
    await cursor.execute("SELECT state FROM railswitch.flip WHERE id = %s FOR UPDATE", (flip.id,))
    row = await cursor.fetchone()
    state = row["state"] if row else "gone"
    if state != "running":
        raise StageConflict(
            f"{flip.direction} {flip.id} of {flip.symbol} is {state}: another control process has "
            "decided it; see `railswitch status`"
        )


async def _decide(
    cursor: Cursor, flip: FlipRow, state: Literal["committed", "aborted"], reason: str
) -> FlipRow:
    await cursor.execute(
        "UPDATE railswitch.flip SET state = %s, reason = %s WHERE id = %s"
        f" RETURNING {FLIP_COLUMNS}",
        (state, reason, flip.id),
    )
    return flip_of_row(await cursor.fetchone())
