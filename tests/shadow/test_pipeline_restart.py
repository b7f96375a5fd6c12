"""The shadow stops or is killed anywhere, and starts again: every operation counts exactly once,
and the engine executes each exactly once.
"""

from __future__ import annotations

import asyncio
import random
from itertools import islice

import pytest
from harness import BTC, ETH, World, play

from bridge.bench.synthetic import random_flow
from shadow.errors import PositionMoved

pytestmark = pytest.mark.usefixtures("impatient")


async def shadow(world: World, *symbols: str) -> None:
    for symbol in symbols:
        await world.stage(symbol, "shadow", 1, stage_from="off")


@pytest.mark.parametrize("killed", [False, True], ids=["stopped", "killed"])
def test_every_operation_counts_once_over_many_restarts(
    control_database: str, killed: bool
) -> None:
    async def scenario(world: World) -> None:
        chooser = random.Random(7)
        flow = random_flow(world.monolith, [BTC, ETH], seed=11)
        await shadow(world, BTC, ETH)
        async with world.running():
            await world.loaded(BTC)
            await world.loaded(ETH)
        done = []
        for _ in range(8):
            async with world.running(killed=killed):
                for one in islice(flow, 40):
                    done.append(await world.do(one))
                    if chooser.random() < 0.3:
                        await asyncio.sleep(chooser.random() / 200)
        async with world.running():
            for symbol in (BTC, ETH):
                wanted = sum(symbol.encode() in one.capture.response_body for one in done)
                found = await world.settled(wanted, symbol)
                assert found.counts.seen == found.counts.matched == wanted
                assert found.counts.dark == found.counts.gaps == 0
                found = await world.until(lambda one: one.book_equal is True, symbol)
                assert (found.run, found.taint) == (1, "")
        assert await world.verdicts(BTC) == await world.verdicts(ETH) == []

    play(control_database, scenario)


def test_refused_orders_count_once_over_restarts(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC)
        async with world.running():
            await world.loaded()
        for _ in range(5):
            async with world.running(killed=True):
                for _ in range(4):
                    body = b'{"order":{"market":"BTC-USD","side":"left"}}'
                    fields = ("side", "price", "quantity")
                    told = ("is not included in the list", "can't be blank", "can't be blank")
                    errors = ",".join(
                        f'"{field}":["{text}"]' for field, text in zip(fields, told, strict=True)
                    )
                    answer = f'{{"errors":{{{errors}}}}}'.encode()
                    capture = world.monolith.capture("place", 5, body, 422, answer)
                    world.redis.add([world.timed(capture)])
                    await asyncio.sleep(0.01)
        async with world.running():
            found = await world.settled(20)
            assert found.counts.seen == found.counts.matched == 20

    play(control_database, scenario)


def test_a_load_that_was_interrupted_is_done_again(control_database: str) -> None:
    async def scenario(world: World) -> None:
        flow = random_flow(world.monolith, [BTC], seed=3)
        for one in islice(flow, 60):
            await world.do(one)
        await shadow(world, BTC)
        begun = asyncio.Event()
        send = world.load.send

        async def stall(commands: object, *, timeout_s: float) -> list[object]:
            begun.set()
            await asyncio.Event().wait()
            return []

        world.load.send = stall  # type: ignore[assignment, method-assign]
        async with world.running(killed=True):
            await begun.wait()
        world.load.send = send  # type: ignore[method-assign]
        async with world.running():
            assert (await world.loaded()).run == 1
            for one in islice(flow, 60):
                await world.do(one)
            found = await world.settled(60)
            assert found.counts.matched == 60
            found = await world.until(lambda one: one.book_equal is not None)
            assert found.book_equal

    play(control_database, scenario)


def test_a_marker_passed_before_a_restart_is_not_passed_again(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC)
        async with world.running():
            await world.loaded()
            for one in islice(random_flow(world.monolith, [BTC], seed=5), 20):
                await world.do(one)
            await world.settled(20)
            flip_id = await world.flip(BTC, "flip")
            await world.mark_fence(BTC, flip_id, "engine", 2)
            await world.mark_fence(BTC, flip_id, "legacy", 3)
        world.slot.confirmed = 0  # the server gives everything again
        async with world.running():
            for one in islice(random_flow(world.monolith, [BTC], seed=6), 20):
                await world.do(one)
            found = await world.settled(40)
            assert found.counts.matched == found.counts.seen == 40
            assert found.run == 1

    play(control_database, scenario)


def test_a_second_shadow_stops_the_first(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC)
        stop = asyncio.Event()
        first = world.pipeline()
        running = asyncio.create_task(first.run(stop))
        await world.loaded()
        async with world.running():
            with pytest.raises(PositionMoved):
                async with asyncio.timeout(10):
                    await running
        await first._store.close()

    play(control_database, scenario)
