"""The rollback: an instrument goes from the engine back to legacy, with all that was traded in
between.

Until the commit every failure leads back to the engine, at a higher epoch; from the commit on the
only way is forward.
"""

from __future__ import annotations

import asyncio

from bridge.errors import StepFailed
from bridge.flip import COMMIT, COMPARE, FENCE, HOLD, RELEASE, compare
from bridge.legacy_side import LEGACY
from bridge.limits import DRAIN_SHARE, UNATTENDED_HOLD_MS_MAX
from bridge.stage import Stage
from bridge.steps import Drive
from engine.types import Mode

FREEZE = "freeze"
DRAIN = "drain"
SHADOW = "shadow"
REOPEN = "reopen"


def plan(symbol: str, epoch: int, hold_ms_max: int) -> tuple[str, ...]:
    """What a rollback of an instrument that is at `epoch` will do, in words."""
    return (
        f"hold: proxies hold new orders of {symbol}, for {hold_ms_max} ms at most",
        f"freeze: the engine closes {symbol} at epoch {epoch + 1}",
        "drain: the write-back writes everything up to the engine's head",
        "compare: legacy's open orders and the engine's book, order by order, place by place",
        f"commit: {symbol} is in shadow at epoch {epoch + 1}; until then every failure leads back",
        "shadow: the engine takes the shadow's orders only",
        f"fence: the legacy database takes orders and fills of {symbol} again",
        "release: proxies send what they held to legacy; the shadow resumes",
    )


async def write_back_first(one: Drive) -> None:
    """Nobody is held yet: a legacy database that takes no rows now must not cost clients a hold
    that can't succeed. Raises StepFailed.
    """
    head_seq = await one.tools.engine.head_seq()
    try:
        async with asyncio.timeout(UNATTENDED_HOLD_MS_MAX / 1000):
            await one.tools.write_back.drain(head_seq)
    except TimeoutError as error:
        raise StepFailed("the write-back does not get on: nothing was held or frozen") from error


async def drive(one: Drive, hold_ms_max: int) -> None:
    """From the hold to the release. Raises when a step fails; then bridge.recover decides."""
    tools, flip = one.tools, one.flip
    instrument = (await tools.ledger.stage(flip.symbol)).instrument
    async with one.step(HOLD) as detail:
        await tools.ledger.hold(flip)
        one.begin_hold(hold_ms_max)
        await one.announce()
        # Not every proxy must have answered: what one sends late, the frozen engine refuses, and
        # the proxy keeps it until it knows better.
        missing = await tools.workers.drained(
            flip.symbol,
            flip.id,
            silence_s=tools.config.worker_silence_ms_max / 1000,
            wait_s=DRAIN_SHARE * min(one.remaining_s, tools.config.hold_ms_max / 1000),
        )
        detail["undrained"] = missing
    async with one.step(FREEZE, durable=True) as detail:
        head_seq = await tools.engine.set_mode(instrument, Mode.CLOSED, flip.epoch_to)
        detail["seq"] = head_seq
    async with one.step(DRAIN) as detail:
        await tools.write_back.drain(head_seq)
        detail["seq"] = tools.write_back.written_seq
    async with one.step(COMPARE) as detail:
        detail.update(await compare(one))
    async with one.step(COMMIT) as detail:
        one.flip = await tools.ledger.commit(flip, Stage.SHADOW)
        detail["epoch"] = flip.epoch_to
    await complete(one)


async def complete(one: Drive) -> None:
    """After the commit: the engine follows, legacy may write, the proxies let go."""
    one.unbounded()
    tools, flip = one.tools, one.flip
    async with one.step(SHADOW) as detail:
        instrument = (await tools.ledger.stage(flip.symbol)).instrument
        detail["seq"] = await tools.engine.set_mode(instrument, Mode.SHADOW, flip.epoch_to)
    async with one.step(FENCE) as detail:
        await tools.legacy.fence(flip.symbol, LEGACY, flip.epoch_to, flip.id)
        detail["epoch"] = flip.epoch_to
    async with one.step(RELEASE) as detail:
        await tools.ledger.release(flip)
        await one.announce()
        detail["hold_ms"] = hold_ms = one.hold_ms
    one.flip = await tools.ledger.finish(flip, hold_ms)


async def undo(one: Drive) -> None:
    """After the decision to abort. An engine that may have been frozen is opened again at an epoch
    above the freeze, so that whoever still tries to freeze it comes too late.
    """
    one.unbounded()
    tools, flip = one.tools, one.flip
    steps = await tools.ledger.steps(flip.id)
    if any(step.step == FREEZE and step.state != "failed" for step in steps):
        epoch = flip.epoch_to + 1
        async with one.step(REOPEN) as detail:
            await tools.ledger.raise_epoch(flip, epoch)
            instrument = (await tools.ledger.stage(flip.symbol)).instrument
            detail["seq"] = await tools.engine.set_mode(instrument, Mode.LIVE, epoch)
            detail["epoch"] = epoch
    async with one.step(RELEASE) as detail:
        await tools.ledger.release(flip)
        await one.announce()
        detail["hold_ms"] = hold_ms = one.hold_ms
    one.flip = await tools.ledger.finish(flip, hold_ms)
