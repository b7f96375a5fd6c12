"""The rollback: everything that was traded comes back with the instrument, or it stays live."""

from __future__ import annotations

import asyncio

import psycopg
import pytest
from switch_world import Control, InWorld, World, shadowing, until

from bridge.config import FlipConfig
from bridge.control.messages import ActOutcome, ActRequest
from bridge.errors import NotNow
from bridge.stage import Stage
from engine.types import Side

ACT = ActRequest(actor="ann", execute=True)
SHORT = FlipConfig(hold_ms_max=600)


async def live(world: World, control: Control) -> None:
    await shadowing(world, control)
    outcome = await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))
    assert outcome.outcome == "done", outcome


async def rolled_back(control: Control) -> ActOutcome:
    return await control.switch.carry(await control.switch.begin("BTC-USD", "rollback", ACT))


def test_a_rollback_brings_back_every_order_and_fill(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            rested = await world.live_order(2, Side.BUY, "101", "3")
            taker = await world.live_order(2, Side.SELL, "100.5", "1")
            await world.live_order(2, Side.SELL, "100", "2.5")
            canceled = await world.live_order(2, Side.SELL, "110", "1")
            await world.cancel(2, canceled.events[0].order_id)
            outcome = await rolled_back(control)
            assert (outcome.outcome, outcome.stage, outcome.epoch) == ("done", "shadow", 3)
            assert await world.fence_owner() == ("legacy", 3)
            assert await world.engine_mode() == ("shadow", 3)
            assert await control.ledger.last_change("BTC-USD") == ("live", "shadow")
            steps = await control.ledger.steps(outcome.flip_id)
            assert [(one.step, one.state) for one in steps] == [
                (name, "done")
                for name in (
                    *("hold", "freeze", "drain", "compare", "commit"),
                    *("shadow", "fence", "release"),
                )
            ]
            rows = await world.rows(
                "SELECT id, state, remaining_quantity::text FROM orders WHERE id = ANY (%s)"
                " ORDER BY id",
                [one.events[0].order_id for one in (rested, taker, canceled)],
            )
            assert [row[1:] for row in rows] == [
                (1, "0.00000000"),
                (1, "0.00000000"),
                (2, "1.00000000"),
            ]
            traded = await world.rows("SELECT sum(quantity)::text FROM trades")
            assert traded == [("3.50000000",)]
            await world.legacy_order()

    in_world(work)


def test_what_was_rolled_back_can_be_flipped_again(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            await world.live_order(2, Side.SELL, "104", "1")
            assert (await rolled_back(control)).outcome == "done"
            await world.evidence()
            again = await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))
            assert (again.outcome, again.epoch) == ("done", 4)
            answer = await world.live_order(4, Side.BUY, "104", "1")
            assert [event.kind.name for event in answer.events] == ["ACCEPTED", "FILL"]

    in_world(work)


def test_books_that_differ_keep_the_instrument_live_at_a_higher_epoch(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            # Behind everybody's back: with the trigger off, as nobody but the owner can.
            await world.rows(
                "ALTER TABLE orders DISABLE TRIGGER railswitch_guard;"
                "UPDATE orders SET remaining_quantity = 0.25 WHERE price = 99;"
                "ALTER TABLE orders ENABLE ALWAYS TRIGGER railswitch_guard"
            )
            outcome = await rolled_back(control)
            assert outcome.outcome == "aborted"
            assert "leaves_lots 25000000 in legacy" in "; ".join(outcome.reasons)
            stage = await control.ledger.stage("BTC-USD")
            assert (stage.stage, stage.epoch, stage.holding) == (Stage.LIVE, 4, 0)
            assert await world.engine_mode() == ("live", 4)
            assert (await world.fence_owner())[0] == "engine"
            late = await world.live_order(2, Side.BUY, "50", "1")
            assert late.events[0].reason.name == "STALE_EPOCH"
            good = await world.live_order(4, Side.BUY, "50", "1")
            assert good.events[0].kind.name == "ACCEPTED"

    in_world(work)


def test_a_write_back_that_stands_still_keeps_the_instrument_live(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control(config=SHORT) as control:
            await live(world, control)
            url = world.super_url
            async with await psycopg.AsyncConnection.connect(url) as blocker:
                await blocker.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
                await world.live_order(2, Side.SELL, "100", "1")
                stage = await control.ledger.stage("BTC-USD")
                flip = await control.ledger.begin(
                    stage, "rollback", actor="ann", reason="", evidence={}
                )
                outcome = await control.switch.carry(flip)
            assert outcome.outcome == "aborted"
            assert "step drain" in outcome.reasons[0]
            assert (outcome.stage, outcome.epoch) == ("live", 4)
            assert await world.engine_mode() == ("live", 4)

            async def written() -> bool:
                return await world.rows("SELECT count(*) FROM trades") == [(1,)]

            await until(written, "the fill written back")

    in_world(work)


def test_a_worker_that_is_gone_does_not_hinder_a_rollback(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control(config=SHORT) as control:
            await live(world, control)
            world.workers[1].drains = False
            outcome = await rolled_back(control)
            assert outcome.outcome == "done"
            steps = await control.ledger.steps(outcome.flip_id)
            assert "w2" in steps[0].detail["undrained"]

    in_world(work)


def test_orders_sent_while_it_is_held_are_refused_by_the_frozen_engine(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        frozen, go_on = asyncio.Event(), asyncio.Event()

        async with world.control() as control:
            await live(world, control)
            drain = control.write_back.drain

            async def held_drain(seq: int) -> None:
                frozen.set()
                await go_on.wait()
                await drain(seq)

            control.write_back.drain = held_drain  # type: ignore[method-assign]
            flip = await control.ledger.begin(
                await control.ledger.stage("BTC-USD"),
                "rollback",
                actor="ann",
                reason="",
                evidence={},
            )
            running = asyncio.create_task(control.switch.carry(flip))
            await frozen.wait()
            answer = await world.live_order(2, Side.BUY, "50", "1")
            go_on.set()
            assert answer.events[0].reason.name == "INSTRUMENT_CLOSED"
            assert (await running).outcome == "done"

    in_world(work)


def test_only_a_live_instrument_is_rolled_back(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            with pytest.raises(NotNow) as refused:
                await control.switch.begin("BTC-USD", "rollback", ACT)
            assert "is shadow, not live" in refused.value.reasons[0]

    in_world(work)


def test_an_unattended_rollback_holds_nobody_before_write_back_gets_on(
    in_world: InWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.rollback.UNATTENDED_HOLD_MS_MAX", 200)

    async def work(world: World) -> None:
        async with world.control(config=SHORT) as control:
            await live(world, control)
            epoch = (await control.ledger.stage("BTC-USD")).epoch
            for worker in world.workers:
                worker.seen.clear()
            async with await psycopg.AsyncConnection.connect(world.super_url) as blocker:
                await blocker.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
                await world.live_order(2, Side.SELL, "100", "1")
                flip = await control.switch.begin_unattended("BTC-USD", "a breach")
                outcome = await control.switch.carry(flip, unattended=True)
            assert outcome.outcome == "aborted"
            assert "nothing was held or frozen" in outcome.reasons[0]
            assert await world.engine_mode() == ("live", epoch)
            seen = [snapshot for worker in world.workers for snapshot in worker.seen]
            assert not any(each.instruments["BTC-USD"].holding for each in seen)

    in_world(work)
