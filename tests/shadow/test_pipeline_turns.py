"""What keeps commands waiting is short: the loop's turns, and how long feeding stands still."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from itertools import islice

import pytest
from harness import BTC, Snapshot, World, buy, play, sell, shadow

from bridge.bench.synthetic import random_flow
from shadow.limits import LATENCY_SAMPLES_MAX
from shadow.settle import Settler

pytestmark = pytest.mark.usefixtures("impatient")


def test_feeding_stands_still_from_the_moment_at_which_a_position_is_taken(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow.books.BOOK_CHECK_SNAPSHOT_S", 30.0)

    async def scenario(world: World) -> None:
        connecting, connected, held, taken = (asyncio.Event() for _ in range(4))
        read = world.open_orders

        async def slowly(symbols: Sequence[str], hold: Callable[[], None]) -> Snapshot:
            connecting.set()
            await connected.wait()
            hold()
            held.set()
            await taken.wait()
            return await read(symbols, hold)

        await shadow(world)
        async with world.running():
            await world.loaded()
            monkeypatch.setattr(world, "open_orders", slowly)
            await connecting.wait()
            await world.place(sell(100))
            await world.settled(1)
            connected.set()
            await held.wait()
            fed = world.shard.market.last_seq
            await world.place(buy(100))
            await world.happened(lambda: world.slot.given >= world.slot.log[-1].end_lsn)
            for _ in range(100):
                await asyncio.sleep(0)  # turns in which it would be fed
            assert world.shard.market.last_seq == fed
            since_s = time.time()
            taken.set()
            assert (await world.settled(2)).counts.matched == 2
            found = await world.until(lambda one: (one.book_checked_at_s or 0.0) >= since_s)
            assert found.book_equal

    play(control_database, scenario)


def test_many_that_become_ready_at_once_are_judged_in_several_turns(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow.pipeline.TURN_SETTLED_MAX", 4)
    told: list[bool] = []
    advance = Settler.advance
    monkeypatch.setattr(Settler, "advance", lambda *given: told.append(advance(*given)) or told[-1])

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.redis.is_away = True  # so that all of them wait
            captures = [
                (await world.do(done, captured=False)).capture
                for done in islice(random_flow(world.monolith, [BTC], seed=3), 60)
            ]
            await world.until(lambda one: one.counts.pending > 0)
            told.clear()
            world.redis.add([world.timed(one) for one in captures])
            world.redis.is_away = False
            found = await world.settled(60)
            assert found.counts.matched == 60
            assert told.count(False) >= 5

    play(control_database, scenario)


def test_every_latency_is_counted_however_many_different_ones_there_are(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LATENCY_SAMPLES_MAX > 3
    monkeypatch.setattr("shadow.recorder.LATENCY_SAMPLES_MAX", 3)

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            for done in islice(random_flow(world.monolith, [BTC], seed=5), 40):
                await world.do(done)
            found = await world.settled(40)
            assert found.counts.matched == 40
            await world.until(lambda one: one.engine_latency.count == 40)

    play(control_database, scenario)
