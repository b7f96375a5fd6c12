"""The flip: an instrument goes from legacy to the engine (DESIGN.md section 7, whose order of steps
is the argument).

Until the commit every failure leads back to legacy, and legacy alone; from the commit on the only
way is forward. Either way is here, and each of its steps may be taken twice: whoever finds a
half-done flip takes them again.
"""

from __future__ import annotations

import asyncio
import logging

from bridge.errors import StepFailed
from bridge.legacy_side import ENGINE, LEGACY
from bridge.limits import DRAIN_SHARE, FENCE_SHARE, MARKER_LOOK_S
from bridge.stage import Stage
from bridge.steps import OPERATING_FAULTS, Drive
from engine.types import Mode
from shadow.book_check import compare_books

_log = logging.getLogger(__name__)

HOLD = "hold"
FENCE = "fence"
CATCH_UP = "catch-up"
COMPARE = "compare"
COMMIT = "commit"
OPEN = "open"
RELEASE = "release"
GIVE_BACK = "give-back"


def plan(symbol: str, epoch: int, hold_ms_max: int) -> tuple[str, ...]:
    """What a flip of an instrument that is at `epoch` will do, in words."""
    return (
        f"hold: proxies hold new orders of {symbol}, for {hold_ms_max} ms at most",
        f"fence: the legacy database refuses orders and fills of {symbol}, at epoch {epoch + 1}",
        "catch up: the shadow reads and compares everything up to the fence",
        "compare: legacy's open orders and the engine's book, order by order, place by place",
        f"commit: {symbol} is live at epoch {epoch + 1}; until then every failure leads back",
        "open: the engine takes orders, the write-back follows",
        "release: proxies send what they held to the engine",
    )


async def drive(one: Drive) -> None:
    """From the hold to the release. Raises when a step fails; then bridge.recover decides."""
    tools, flip = one.tools, one.flip
    async with one.step(HOLD) as detail:
        await tools.ledger.hold(flip)
        one.begin_hold(tools.config.hold_ms_max)
        await tools.announcer.stages()
        silence_s = tools.config.worker_silence_ms_max / 1000
        wait_s = DRAIN_SHARE * one.remaining_s
        missing = await tools.workers.drained(
            flip.symbol, flip.id, silence_s=silence_s, wait_s=wait_s
        )
        if missing:
            raise StepFailed(f"{missing}, within {1000 * wait_s:.0f} ms")
        detail["workers"] = len(tools.workers.heard())
    async with one.step(FENCE, durable=True) as detail:
        wait_s = FENCE_SHARE * _positive(one.remaining_s, FENCE)
        await tools.legacy.fence(flip.symbol, ENGINE, flip.epoch_to, flip.id, wait_s=wait_s)
        detail["epoch"] = flip.epoch_to
    async with one.step(CATCH_UP):
        await _caught_up(one)
    async with one.step(COMPARE) as detail:
        mismatches, found = await asyncio.gather(tools.ledger.mismatches(flip.symbol), compare(one))
        if mismatches:
            raise StepFailed(
                f"{mismatches} operations differ since the gate passed: see the parity report"
            )
        detail.update(found)
    async with one.step(COMMIT) as detail:
        _positive(one.remaining_s, COMMIT)
        one.flip = await tools.ledger.commit(flip, Stage.LIVE)
        detail["epoch"] = flip.epoch_to
    await complete(one)


async def complete(one: Drive) -> None:
    """After the commit: the engine opens, the proxies let go."""
    one.unbounded()
    tools, flip = one.tools, one.flip
    async with one.step(OPEN) as detail:
        instrument = (await tools.ledger.stage(flip.symbol)).instrument
        detail["seq"] = await tools.engine.set_mode(instrument, Mode.LIVE, flip.epoch_to)
    async with one.step(RELEASE) as detail:
        await tools.ledger.release(flip)
        await one.announce()
        detail["hold_ms"] = hold_ms = one.hold_ms
    one.flip = await tools.ledger.finish(flip, hold_ms)


async def undo(one: Drive) -> None:
    """After the decision to abort. A fence that may have been taken is given back above its epoch,
    so that whoever still tries to take it comes too late.
    """
    one.unbounded()
    tools, flip = one.tools, one.flip
    steps = await tools.ledger.steps(flip.id)
    epoch = None
    if any(step.step == FENCE and step.state != "failed" for step in steps):
        epoch = flip.epoch_to + 1
        async with one.step(GIVE_BACK) as detail:
            await tools.legacy.fence(flip.symbol, LEGACY, epoch, flip.id)
            detail["epoch"] = epoch
    async with one.step(RELEASE) as detail:
        await tools.ledger.release(flip, epoch=epoch)
        await one.announce()
        detail["hold_ms"] = hold_ms = one.hold_ms
    one.flip = await tools.ledger.finish(flip, hold_ms)
    if epoch is not None:
        # The shadow goes on whatever the engine's epoch is; the control process sets it right
        # later.
        instrument = (await tools.ledger.stage(flip.symbol)).instrument
        try:
            await tools.engine.set_mode(instrument, Mode.SHADOW, epoch)
        except OPERATING_FAULTS as error:
            _log.warning("the engine will be told of epoch %d later: %s", epoch, error)


async def compare(one: Drive) -> dict[str, int]:
    """Both books, now. Raises StepFailed when they differ."""
    tools, flip = one.tools, one.flip
    instrument = (await tools.ledger.stage(flip.symbol)).instrument
    legacy, engine = await asyncio.gather(
        tools.legacy.open_orders(flip.symbol), tools.engine.book(instrument)
    )
    comparison = compare_books(legacy, engine.orders, by_place=tools.legacy.places_are_known)
    if not comparison.equal:
        raise StepFailed(*comparison.reasons())
    return {"orders": len(engine.orders), "seq": engine.seq}


async def _caught_up(one: Drive) -> None:
    """Waits until the shadow has compared everything before the fence, while the budget lasts."""
    while await one.tools.ledger.marker_consumed(one.flip.symbol) < one.flip.id:
        _positive(one.remaining_s, CATCH_UP)
        await asyncio.sleep(MARKER_LOOK_S)


def _positive(remaining_s: float, step: str) -> float:
    if remaining_s <= 0:
        raise StepFailed(f"the hold budget is used up in step {step}")
    return remaining_s
