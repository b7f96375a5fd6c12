"""The comparison as a whole: a running market is loaded, followed, compared, restarted, handed over."""

from __future__ import annotations

from itertools import islice

from harness import BTC, ETH, World, play

from bridge.bench.synthetic import random_flow


async def shadow(world: World, symbol: str = BTC) -> None:
    await world.stage(symbol, "shadow", 1, stage_from="off")


def test_a_running_market_is_loaded_and_followed_without_a_difference(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        flow = random_flow(world.monolith, [BTC], seed=1)
        for done in islice(flow, 200):  # before shadowing begins: only the open orders matter
            await world.do(done)
        await shadow(world)
        async with world.running():
            await world.loaded()
            for done in islice(flow, 400):
                await world.do(done)
            found = await world.settled(400)
            assert found.counts.matched == found.counts.seen == 400
            assert found.counts.fills > 50
            assert found.counts.dark == found.counts.gaps == 0
            assert found.taint == ""
            assert found.engine_latency.count == found.legacy_latency.count == 400
            found = await world.until(lambda one: one.book_equal is not None)
            assert found.book_equal
        assert await world.verdicts() == []

    play(control_database, scenario)
