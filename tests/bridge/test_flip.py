"""The flip, with real servers and a real engine around it: its order, its budget, its refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import psycopg
import pytest
from switch_world import Control, InWorld, World, shadowing, until

from bridge.config import FlipConfig
from bridge.control.messages import ActOutcome, ActRequest
from bridge.errors import FlipRunning, NotNow
from bridge.stage import Stage
from bridge.steps import StepUpdate
from engine.types import Role, Side
from engine.wire import trading_command

ACT = ActRequest(actor="ann", reason="CHG-1", execute=True)
# Long enough that a busy machine gets to the step that a test is about.
SHORT = FlipConfig(hold_ms_max=3000)


async def flipped(control: Control) -> ActOutcome:
    return await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))


async def still_legacy(world: World, control: Control, epoch: int) -> None:
    """Legacy takes orders, the engine takes none but the shadow's, and the records say so."""
    stage = await control.ledger.stage("BTC-USD")
    assert (stage.stage, stage.epoch, stage.holding) == (Stage.SHADOW, epoch, 0)
    assert (await world.fence_owner())[0] == "legacy"
    assert (await world.engine_mode())[0] == "shadow"
    assert await control.ledger.unfinished() == []
    await world.legacy_order()
    refused = await world.live_order(epoch, Side.BUY, "50", "1")
    assert refused.events[0].reason.name == "INSTRUMENT_IN_SHADOW"


def test_a_flip_gives_the_instrument_to_the_engine_and_all_records_agree(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            told: list[StepUpdate] = []
            flip = await control.switch.begin("BTC-USD", "flip", ACT)
            outcome = await control.switch.carry(flip, told.append)
            assert (outcome.outcome, outcome.stage, outcome.epoch) == ("done", "live", 2)
            assert outcome.hold_ms is not None
            stage = await control.ledger.stage("BTC-USD")
            assert (stage.stage, stage.epoch, stage.holding) == (Stage.LIVE, 2, 0)
            assert await world.fence_owner() == ("engine", 2)
            assert await world.engine_mode() == ("live", 2)
            names = ["hold", "fence", "catch-up", "compare", "commit", "open", "release"]
            steps = await control.ledger.steps(flip.id)
            assert [(one.n, one.step, one.state) for one in steps] == [
                (n, name, "done") for n, name in enumerate(names)
            ]
            assert [(one.step, one.state) for one in told] == [
                (name, state) for name in names for state in ("intended", "done")
            ]
            row = await control.ledger.flip(flip.id)
            assert (row.state, row.actor, row.reason) == ("done", "ann", "CHG-1")
            assert row.hold_ms == outcome.hold_ms
            assert await control.ledger.last_change("BTC-USD") == ("shadow", "live")

    in_world(work)


def test_after_a_flip_the_engine_matches_and_legacy_is_refused(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            await flipped(control)
            answer = await world.live_order(2, Side.SELL, "100", "0.5")
            assert [event.kind.name for event in answer.events] == ["ACCEPTED", "FILL"]
            with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="engine"):
                await world.legacy_order()

    in_world(work)


def test_the_workers_are_told_of_the_hold_and_of_its_end(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            outcome = await flipped(control)
            seen = [
                (one.instruments["BTC-USD"].stage, one.instruments["BTC-USD"].holding)
                for one in world.workers[0].seen
            ]
            assert (Stage.SHADOW, outcome.flip_id) in seen
            assert seen.index((Stage.SHADOW, outcome.flip_id)) < len(seen) - 1
            assert world.workers[0].snapshot == world.workers[1].snapshot
            assert seen[-1] == (Stage.LIVE, 0)

    in_world(work)


async def a_worker_that_never_drains(world: World, control: Control) -> str:
    world.workers[0].drains = False
    return "w1"


async def a_shadow_that_never_catches_up(world: World, control: Control) -> str:
    world.shadow.consumes = False
    return "catch-up"


async def a_book_that_differs(world: World, control: Control) -> str:
    order_id = await world.legacy_order(Side.BUY, "98")
    return f"order {order_id} is open in legacy and not in the engine"


@pytest.mark.parametrize(
    "spoil", [a_worker_that_never_drains, a_shadow_that_never_catches_up, a_book_that_differs]
)
def test_a_flip_that_can_t_go_on_goes_back_to_legacy_by_itself(
    in_world: InWorld, spoil: Callable[[World, Control], Awaitable[str]]
) -> None:
    async def work(world: World) -> None:
        async with world.control(config=SHORT) as control:
            await shadowing(world, control)
            words = await spoil(world, control)
            outcome = await flipped(control)
            assert outcome.outcome == "aborted"
            assert words in "; ".join(outcome.reasons)
            fenced = (await world.fence_owner())[1] > 0
            await still_legacy(world, control, 3 if fenced else 1)
            row = await control.ledger.flip(outcome.flip_id)
            assert words in row.reason
            assert row.hold_ms is not None

    in_world(work)


def test_a_long_transaction_of_the_monolith_is_waited_for_no_longer_than_the_budget(
    in_world: InWorld,
) -> None:
    async def work(world: World) -> None:
        config = FlipConfig(hold_ms_max=600, old_transaction_ms_max=100)
        async with world.control(config=config) as control:
            await shadowing(world, control)
            url = world.application_url
            async with await psycopg.AsyncConnection.connect(url) as writer:
                await writer.execute("UPDATE orders SET updated_at = updated_at")
                look = await control.switch.look("BTC-USD", "flip")
                assert "have been open for more than 100 ms" in look.reasons[0]
                # One that begins after the preflight is met by the fence itself.
                stage = await control.ledger.stage("BTC-USD")
                flip = await control.ledger.begin(
                    stage, "flip", actor="ann", reason="", evidence={}
                )
                outcome = await control.switch.carry(flip)
                assert outcome.outcome == "aborted"
                assert "pid" in outcome.reasons[0]
                steps = await control.ledger.steps(flip.id)
                assert [(one.step, one.state) for one in steps] == [
                    ("hold", "done"),
                    ("fence", "failed"),
                    ("release", "done"),
                ]
            await still_legacy(world, control, 1)

    in_world(work)


def test_a_mismatch_that_comes_after_the_gate_stops_the_flip(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control(config=SHORT) as control:
            await shadowing(world, control)
            flip = await control.switch.begin("BTC-USD", "flip", ACT)
            await world.evidence(seen=1001, mismatched=1)
            outcome = await control.switch.carry(flip)
            assert outcome.outcome == "aborted"
            assert "differ since the gate passed" in outcome.reasons[0]

    in_world(work)


def test_an_aborted_flip_can_be_tried_again(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control(config=SHORT) as control:
            await shadowing(world, control)
            world.shadow.consumes = False
            assert (await flipped(control)).outcome == "aborted"
            world.shadow.consumes = True
            await world.evidence()
            outcome = await flipped(control)
            assert (outcome.outcome, outcome.epoch) == ("done", 4)
            assert await world.fence_owner() == ("engine", 4)
            assert await world.engine_mode() == ("live", 4)

    in_world(work)


def test_without_a_passing_gate_nothing_is_begun(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            await world.evidence(seen=50, matched=50)
            with pytest.raises(NotNow) as refused:
                await control.switch.begin("BTC-USD", "flip", ACT)
            assert "50 operations compared, 100 wanted" in refused.value.reasons[0]
            assert await control.ledger.newest_flip("BTC-USD") is None

    in_world(work)


def test_an_instrument_that_is_halted_in_the_engine_is_not_flipped(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            await world.send("operator", Role.ADMIN, [trading_command(instrument=1, halted=True)])
            with pytest.raises(NotNow) as refused:
                await control.switch.begin("BTC-USD", "flip", ACT)
            (reason,) = refused.value.reasons
            assert "`railswitch limits BTC-USD --open --execute`" in reason
            look = await control.switch.look("BTC-USD", "flip")
            assert [(one.name, one.seen) for one in look.findings if not one.ok] == [
                ("trading", "halted")
            ]
            assert await control.ledger.newest_flip("BTC-USD") is None
            await world.send("operator", Role.ADMIN, [trading_command(instrument=1, halted=False)])
            assert (await flipped(control)).outcome == "done"

    in_world(work)


def test_a_second_flip_is_told_who_runs_the_first(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            world.shadow.consumes = False
            flip = await control.switch.begin("BTC-USD", "flip", ACT)
            running = asyncio.create_task(control.switch.carry(flip))
            with pytest.raises(FlipRunning, match="started by ann"):
                await control.switch.begin("BTC-USD", "flip", ActRequest(actor="bob"))
            world.shadow.consumes = True
            assert (await running).outcome == "done"

    in_world(work)


async def no_worker(world: World, control: Control) -> str:
    await world.leave_workers()

    async def forgotten() -> bool:
        return not control.workers.heard()

    await until(forgotten, "the workers forgotten")
    return "no proxy worker has reported"


async def no_engine(world: World, control: Control) -> str:
    await world.engine.stop()
    return "engine"


async def no_fence(world: World, control: Control) -> str:
    await world.rows("DROP TABLE railswitch.fence")
    return "railswitch legacy install"


@pytest.mark.parametrize("remove", [no_worker, no_engine, no_fence])
def test_the_preflight_names_what_is_missing(
    in_world: InWorld,
    remove: Callable[[World, Control], Awaitable[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bridge.engine_admin.ENGINE_CONTROL_S", 0.5)

    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            words = await remove(world, control)
            look = await control.switch.look("BTC-USD", "flip")
            assert not look.ready
            assert words in "; ".join(look.reasons)

    in_world(work)


def test_a_look_changes_nothing(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            before = await control.ledger.snapshot()
            look = await control.switch.look("BTC-USD", "flip")
            assert look.ready, look.reasons
            assert len(look.plan) == 7
            assert all(finding.ok for finding in look.findings)
            assert await control.ledger.snapshot() == before
            assert await control.ledger.newest_flip("BTC-USD") is None

    in_world(work)
