"""Sources that are away are waited for, and instruments are handed over at fence markers."""

from __future__ import annotations

import asyncio
from itertools import islice
from typing import Any

import msgspec
import psycopg
import pytest
from harness import BTC, World, buy, play, sell, shadow

from bridge.bench.synthetic import random_flow
from engine.types import Mode
from shadow.errors import ChangesLost, LegacyUnavailable

pytestmark = pytest.mark.usefixtures("impatient")


# --- what is away


def test_an_engine_that_is_away_loses_nothing(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.shard.present.clear()
            for done in islice(random_flow(world.monolith, [BTC], seed=2), 50):
                await world.do(done)
            found = await world.until(lambda one: "does not answer" in one.taint)
            assert found.counts.pending > 0
            world.shard.present.set()
            found = await world.settled(50)
            assert found.counts.matched == 50

    play(control_database, scenario)


def test_captures_that_cannot_be_read_are_waited_for(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.redis.is_away = True
            await world.until(lambda one: "Redis" in one.taint)
            for done in islice(random_flow(world.monolith, [BTC], seed=3), 50):
                await world.do(done)
            await world.until(lambda one: one.counts.pending == 50)
            world.redis.is_away = False
            found = await world.settled(50)
            assert (found.counts.matched, found.counts.dark) == (50, 0)

    play(control_database, scenario)


def test_a_broken_change_stream_is_opened_again(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            world.slot.failures.extend([LegacyUnavailable("away"), LegacyUnavailable("away")])
            await world.place(sell(101))
            found = await world.settled(2)
            assert found.counts.matched == 2

    play(control_database, scenario)


def test_lost_changes_leave_a_mark_in_the_counts_and_load_again(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.settled(1)
            lost = world.monolith.place(sell(101)).tx
            world.slot.failures.append(ChangesLost("made again", slot_lsn=lost.end_lsn))
            found = await world.loaded(run=2)
            await world.place(buy(101))
            found = await world.settled(3)
            assert (found.counts.matched, found.counts.uncomparable) == (2, 1)

    play(control_database, scenario)


def test_a_slot_that_was_given_up_begins_behind_what_was_recorded(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.settled(1)
            world.slot.log.clear()
            world.slot.confirmed = 0
            world.slot.flows.clear()  # nothing new is read before the old watermark is confirmed
            world.slot.failures.append(ChangesLost("given up", slot_lsn=0))
            await world.loaded(run=2)
            world.slot.flows.set()
            await world.place(buy(100))
            found = await world.settled(3)
            assert (found.counts.matched, found.counts.uncomparable) == (2, 1)

    play(control_database, scenario)


def test_what_must_be_told_of_the_sources_is_in_the_status(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        pipeline = world.pipeline(warning=lambda: "the server keeps much")
        stop = asyncio.Event()
        running = asyncio.create_task(pipeline.run(stop))
        async with asyncio.timeout(20):
            while (await world.reader.resume()).position.trouble != "the server keeps much":  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        stop.set()
        await running
        await pipeline._store.close()

    play(control_database, scenario)


def test_a_restart_between_lost_changes_and_the_load_still_loads(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.settled(1)
            lost = world.monolith.place(sell(101)).tx
            world.shard.present.clear()
            world.slot.failures.append(ChangesLost("made again", slot_lsn=lost.end_lsn))
            await _load_begun(world)
        world.shard.present.set()
        async with world.running():
            await world.loaded(run=2)

    play(control_database, scenario)


def test_a_store_that_breaks_the_connection_loses_nothing(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            flow = random_flow(world.monolith, [BTC], seed=4)
            async with await psycopg.AsyncConnection.connect(
                world.url, autocommit=True
            ) as connection:
                for done in islice(flow, 100):
                    await world.do(done)
                    if done.capture.number % 10 == 0:
                        await connection.execute(
                            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE application_name = 'railswitch shadow'"
                            " AND datname = current_database()"
                        )
            found = await _settled_though_cut(world, 100)
            assert found.counts.matched == found.counts.seen == 100

    play(control_database, scenario)


async def _settled_though_cut(world: World, operations: int) -> Any:
    """Our own reader's connection was cut too."""
    while True:
        try:
            return await world.settled(operations)
        except Exception as error:
            if "does not answer" not in str(error):
                raise


async def _load_begun(world: World) -> None:
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(
                "SELECT loading FROM railswitch.shadow_instrument WHERE symbol = %s", (BTC,)
            )
            if await cursor.fetchone() == (True,):
                return


# --- handing over


async def _marker_passed(world: World, flip_id: int) -> None:
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(
                "SELECT marker_flip_id FROM railswitch.shadow_instrument WHERE symbol = %s", (BTC,)
            )
            if await cursor.fetchone() == (flip_id,):
                return


def test_a_fence_marker_is_told_when_all_before_it_is_compared(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            for done in islice(random_flow(world.monolith, [BTC], seed=5), 50):
                await world.do(done)
            flip_id = await world.flip(BTC, "flip")
            await world.mark_fence(BTC, flip_id, "engine", 2)
            await _marker_passed(world, flip_id)
            found = await world.evidence()
            assert (found.counts.matched, found.counts.pending) == (50, 0)
            # Live: what is written back is ours, and is not fed again.
            sent = world.feed.sent
            world.shard.mode(1, Mode.LIVE, 2)
            await world.stage(BTC, "live", 2, stage_from="shadow")
            written = world.monolith.place(sell(150)).tx
            await world.slot.append(msgspec.structs.replace(written, ours=True))
            await world.slot.append(world.monolith.transaction())
            assert world.feed.sent == sent

    play(control_database, scenario)


def test_a_flip_that_was_given_up_goes_on_in_the_same_run(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            flip_id = await world.flip(BTC, "flip")
            await world.mark_fence(BTC, flip_id, "engine", 2)
            await _marker_passed(world, flip_id)
            await world.mark_fence(BTC, flip_id, "legacy", 3)
            await world.stage(BTC, "shadow", 3, stage_from="shadow")
            await world.place(buy(100))
            found = await world.settled(2)
            assert (found.run, found.counts.matched) == (1, 2)
            await world.until(lambda one: one.epoch == 3)

    play(control_database, scenario)


def test_a_rollback_begins_a_new_run_with_the_engine_s_own_book(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            flip_id = await world.flip(BTC, "flip")
            await world.mark_fence(BTC, flip_id, "engine", 2)
            await _marker_passed(world, flip_id)
            await world.stage(BTC, "live", 2, stage_from="shadow")
            back_id = await world.flip(BTC, "rollback")
            await world.stage(BTC, "shadow", 3, stage_from="live")
            await world.mark_fence(BTC, back_id, "legacy", 3)
            await world.place(buy(100))
            found = await world.until(lambda one: one.run == 2 and one.counts.matched == 1)
            assert (found.counts.seen, found.epoch) == (1, 3)  # evidence begins anew
            found = await world.until(lambda one: one.book_equal is not None)
            assert found.book_equal
            assert world.snapshots > 0

    play(control_database, scenario)


def test_a_marker_does_not_wait_for_captures_that_may_be_on_their_way(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.redis.is_away = True
            done = await world.place(sell(100), captured=False)
            flip_id = await world.flip(BTC, "flip")
            await world.mark_fence(BTC, flip_id, "engine", 2)
            await _marker_passed(world, flip_id)
            found = await world.evidence()
            assert (found.counts.matched, found.counts.pending) == (1, 0)
            world.redis.is_away = False
            world.redis.add([world.timed(done.capture)])  # here it is
            await world.mark_fence(BTC, flip_id, "legacy", 3)
            await world.place(buy(90))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.dark, found.counts.gaps) == (2, 0, 0)

    play(control_database, scenario)


def test_nothing_is_loaded_before_the_stream_has_begun_that_goes_on_from_it(
    control_database: str,
) -> None:
    """What committed between a snapshot and a slot made after it would be in neither."""

    async def scenario(world: World) -> None:
        await shadow(world)
        world.slot.failures.extend(LegacyUnavailable("not yet") for _ in range(3))
        async with world.running():
            await world.happened(lambda: not world.slot.failures or world.snapshots > 0)
            assert (len(world.slot.failures), world.snapshots) == (0, 0)
            await world.loaded()

    play(control_database, scenario)
