"""The control process dies at every step of a flip and of a rollback: one side answers, never both.

Each test lets it die at the same moment of every step, one after the other, and starts another one.
"""

from __future__ import annotations

import psycopg
import pytest
from switch_world import Control, InWorld, World, shadowing

from bridge.config import FlipConfig
from bridge.control.messages import ActRequest
from bridge.ledger_rows import Direction
from bridge.stage import InstrumentStage, Stage
from bridge.steps import Probe
from engine.types import Side

ACT = ActRequest(actor="ann", execute=True)
FLIP = ("hold", "fence", "catch-up", "compare", "commit", "open", "release")
ROLLBACK = ("hold", "freeze", "drain", "compare", "commit", "shadow", "fence", "release")
MOMENTS = ("intended", "taken", "recorded")


class Killed(BaseException):
    """No handler for errors sees it, as none sees SIGKILL."""


def kill_at(step: str, moment: str) -> Probe:
    async def probe(at_step: str, at_moment: str) -> None:
        if (at_step, at_moment) == (step, moment):
            raise Killed

    return probe


async def legacy_takes(world: World) -> bool:
    """Whether the monolith could write an order now; it takes it back."""
    async with await psycopg.AsyncConnection.connect(world.application_url) as connection:
        try:
            await connection.execute(
                "INSERT INTO orders (market_id, member_id, side, order_type, price, quantity,"
                " remaining_quantity, created_at, updated_at)"
                " VALUES ('BTC-USD', 7, 0, 0, 50, 1, 1, now(), now())"
            )
        except psycopg.errors.ObjectNotInPrerequisiteState:
            return False
        finally:
            await connection.rollback()
    return True


async def engine_takes(world: World, epoch: int) -> bool:
    """Whether a client's order at the newest epoch would be matched now; it never rests."""
    answer = await world.live_order(epoch, Side.BUY, "1", "1", tif=3)
    return answer.events[0].kind.name == "ACCEPTED"


async def epoch_of_engine(world: World) -> int:
    return (await world.engine_mode())[1]


async def never_both(world: World) -> None:
    takers = [await legacy_takes(world), await engine_takes(world, await epoch_of_engine(world))]
    assert takers.count(True) <= 1, "both sides take orders"


async def agreed(world: World, control: Control) -> Stage:
    """Stage row, fence and engine say the same, nothing is held or half-done: who answers."""
    stage = await control.ledger.stage("BTC-USD")
    owner, _ = await world.fence_owner()
    mode, epoch = await world.engine_mode()
    assert stage.holding == 0
    assert await control.ledger.unfinished() == []
    assert control.switch.troubles == {}
    assert (owner, mode, epoch) == {
        Stage.SHADOW: ("legacy", "shadow", stage.epoch),
        Stage.LIVE: ("engine", "live", stage.epoch),
    }[stage.stage]
    assert await legacy_takes(world) == (stage.stage is Stage.SHADOW)
    assert await engine_takes(world, stage.epoch) == (stage.stage is Stage.LIVE)
    return stage.stage


async def dies(world: World, action: Direction, step: str, moment: str, config: FlipConfig) -> None:
    try:
        async with world.control(probe=kill_at(step, moment), config=config) as control:
            await world.evidence()
            flip = await control.switch.begin("BTC-USD", action, ACT)
            await control.switch.carry(flip)
    except Killed:
        return
    raise AssertionError(f"{action} has no step {step}")


async def recovered(world: World) -> Stage:
    async with world.control() as control:
        await control.switch.finish_unfinished()
        await control.switch.reconcile()
        return await agreed(world, control)


async def moved(world: World, action: Direction) -> None:
    async with world.control() as control:
        await world.evidence()
        flip = await control.switch.begin("BTC-USD", action, ACT)
        outcome = await control.switch.carry(flip)
        assert outcome.outcome == "done", outcome


async def stage_of(world: World) -> InstrumentStage:
    async with world.control() as control:
        return await control.ledger.stage("BTC-USD")


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_flip_that_died_ends_on_one_side(in_world: InWorld, moment: str) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
        for step in FLIP:
            await dies(world, "flip", step, moment, FlipConfig(hold_ms_max=10_000))
            await never_both(world)
            ended = await recovered(world)
            before_commit = FLIP.index(step) + MOMENTS.index(moment) / 3 <= FLIP.index("commit")
            assert ended is (Stage.SHADOW if before_commit else Stage.LIVE), step
            if ended is Stage.LIVE:
                await moved(world, "rollback")

    in_world(work)


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_rollback_that_died_ends_on_one_side(in_world: InWorld, moment: str) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
        for step in ROLLBACK:
            stage = await stage_of(world)
            if stage.stage is Stage.SHADOW:
                await moved(world, "flip")
                stage = await stage_of(world)
            await world.live_order(stage.epoch, Side.BUY, "99.5", "1")
            await dies(world, "rollback", step, moment, FlipConfig(hold_ms_max=10_000))
            await never_both(world)
            ended = await recovered(world)
            where = ROLLBACK.index(step) + MOMENTS.index(moment) / 3
            before_commit = where <= ROLLBACK.index("commit")
            assert ended is (Stage.LIVE if before_commit else Stage.SHADOW), step

    in_world(work)


@pytest.mark.parametrize("moment", MOMENTS)
def test_dying_while_going_back_leads_back_all_the_same(in_world: InWorld, moment: str) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
        world.shadow.consumes = False  # so that it is over the budget after the fence was taken
        for step in ("give-back", "release"):
            await dies(world, "flip", step, moment, FlipConfig(hold_ms_max=300))
            await never_both(world)
            assert await recovered(world) is Stage.SHADOW

    in_world(work)


@pytest.mark.parametrize("moment", ["intended", "taken"])
def test_a_driver_that_was_believed_dead_can_do_nothing_more(
    in_world: InWorld, moment: str
) -> None:
    """It wakes up after another process has decided its flip, and goes on where it was."""

    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
        for step in FLIP:
            taken_over: list[Stage] = []

            async def sleep(
                at_step: str, at_moment: str, step: str = step, ended: list[Stage] = taken_over
            ) -> None:
                if (at_step, at_moment) == (step, moment) and not ended:
                    ended.append(await recovered(world))

            async with world.control(probe=sleep) as control:
                await world.evidence()
                await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))
            assert await recovered(world) is taken_over[0], step
            if taken_over[0] is Stage.LIVE:
                await moved(world, "rollback")

    in_world(work)
