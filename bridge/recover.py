"""What becomes of a flip or rollback that its driver can't go on with, or that a dead process left
behind.

Its row in the control store decides: still running, and it is aborted now; aborted, and it is
undone; committed, and it goes forward. Whatever had been done of that is done again, without
effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from bridge import flip as flipping
from bridge import rollback as rolling_back
from bridge.errors import StageConflict
from bridge.ledger_rows import FlipRow
from bridge.limits import SETTLE_AGAIN_S, SETTLE_S, UNATTENDED_HOLD_MS_MAX
from bridge.steps import Drive, Report, Tools, reasons_of, silent

_log = logging.getLogger(__name__)


async def carry_out(
    tools: Tools, flip: FlipRow, report: Report = silent, *, unattended: bool = False
) -> tuple[FlipRow, list[str]]:
    """Takes a flip or rollback that has just begun to its end, whichever that is: its row then, and
    why it was aborted or could not be finished yet. An unattended rollback may hold for longer.
    """
    one = Drive(tools, flip, report)
    reasons: list[str] = []
    try:
        if flip.direction == "flip":
            await flipping.drive(one)
        else:
            if unattended:
                await rolling_back.write_back_first(one)
            usual_ms = tools.config.hold_ms_max
            await rolling_back.drive(one, UNATTENDED_HOLD_MS_MAX if unattended else usual_ms)
        return one.flip, reasons
    except Exception as error:
        reasons = reasons_of(error)
        _log.warning("%s %d of %s: %s", flip.direction, flip.id, flip.symbol, "; ".join(reasons))
    one.unbounded()
    clock = asyncio.get_running_loop().time
    give_up_at_s = clock() + SETTLE_S
    while True:
        try:
            return await _settle(one, reasons), reasons
        except Exception as error:
            _log.warning("%s %d is not finished: %s", flip.direction, flip.id, error)
            if clock() >= give_up_at_s:
                return one.flip, [*reasons, *reasons_of(error)]
        await asyncio.sleep(SETTLE_AGAIN_S)


async def recover(tools: Tools, flip: FlipRow, report: Report = silent) -> FlipRow:
    """Finishes what another process left. Raises what hinders it; it may be called again."""
    steps = await tools.ledger.steps(flip.id)
    last = f"in step {steps[-1].step}" if steps else "before its first step"
    reason = f"the control process that ran it ended {last}"
    return await _settle(Drive(tools, flip, report), [reason])


async def _settle(one: Drive, reasons: Sequence[str]) -> FlipRow:
    ledger = one.tools.ledger
    one.flip = await ledger.flip(one.flip.id)
    if one.flip.state == "running":
        try:
            one.flip = await ledger.abandon(one.flip, reasons)
        except StageConflict:
            one.flip = await ledger.flip(one.flip.id)
    if one.flip.ended_at_s is not None:
        return one.flip
    way = flipping if one.flip.direction == "flip" else rolling_back
    await (way.complete(one) if one.flip.state == "committed" else way.undo(one))
    return one.flip
