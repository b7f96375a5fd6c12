"""The flip, with real servers and a real engine around it: its order, its budget, its refusals."""

from __future__ import annotations

from conftest import InWorld
from switch_world import World, shadowing

from bridge.control.messages import ActRequest
from engine.types import Side

ACT = ActRequest(actor="ann", execute=True)


def test_a_flip_gives_the_instrument_to_the_engine_and_all_records_agree(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            flip = await control.switch.begin("BTC-USD", "flip", ACT)
            outcome = await control.switch.carry(flip)
            assert outcome.outcome == "done", outcome
            assert outcome.hold_ms is not None
            assert (outcome.stage, outcome.epoch) == ("live", 2)
            assert await world.fence_owner() == ("engine", 2)
            assert await world.engine_mode() == ("live", 2)
            answer = await world.live_order(2, Side.SELL, "100", "0.5")
            assert answer.events[1].qty_lots

    in_world(work)
