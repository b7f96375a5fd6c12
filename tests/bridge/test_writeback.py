"""What the engine did with live orders stands in the legacy's tables once, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import psycopg
import pytest
from conftest import InWorld
from switch_world import BTC, CONFIG, SCALES, Control, World, shadowing, until

from bridge.control.messages import ActRequest
from bridge.stage import WRITTEN_CHANNEL
from bridge.writeback import WriteBack, WriteBackSettings
from bridge.writeback_rows import Frame
from engine.client import TailBatch
from engine.types import OrderType, Side, TimeInForce

ACT = ActRequest(actor="ann", execute=True)


async def live(world: World, control: Control) -> None:
    await shadowing(world, control)
    outcome = await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))
    assert outcome.outcome == "done", outcome


async def caught_up(control: Control) -> None:
    await control.write_back.drain(await control.engine.head_seq())


def write_back(world: World, source: Any, *, ever_live: bool = True) -> WriteBack:
    async def was_live() -> bool:
        return ever_live

    settings = WriteBackSettings(
        url=world.legacy_url, shard=1, mapping=CONFIG.mapping, scales=tuple(SCALES.values())
    )
    return WriteBack(settings, source, ever_live=was_live, announce=lambda _: None)


class Recorded:
    """A source that gives recorded frames, spoiled as a test wants, and then nothing more."""

    def __init__(self, frames: list[TailBatch], head_seq: int) -> None:
        self.frames, self.head = frames, head_seq

    async def head_seq(self) -> int:
        return self.head

    async def tail(self, from_seq: int) -> AsyncIterator[Frame]:
        for frame in self.frames:
            if frame.last_seq >= from_seq:
                yield frame
        await asyncio.Event().wait()


async def recorded(control: Control, from_seq: int) -> list[TailBatch]:
    """The engine's own frames, to its head."""
    head_seq, frames = await control.engine.head_seq(), []
    tail = control.engine.tail(from_seq)
    async for frame in tail:
        frames.append(frame)
        if frame.last_seq >= head_seq:
            break
    await tail.aclose()  # type: ignore[attr-defined]
    return frames


async def stopped(one: WriteBack, world: World) -> str:
    """Runs it until it stops: why it did."""
    task = asyncio.create_task(one.run())
    told = one.trouble

    async def has_stopped() -> bool:
        return bool(one.trouble) and one.trouble != told

    try:
        await until(has_stopped, "the write-back stopped")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return one.trouble


def test_orders_and_fills_are_written_as_the_monolith_writes_them(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            answer = await world.live_order(2, Side.SELL, "100", "1.5")
            market = await world.live_order(
                2, Side.SELL, "1", "5", ord_type=OrderType.MARKET, tif=TimeInForce.IOC, price_ticks=0
            )
            await caught_up(control)
            taker, at_us = answer.events[0].order_id, answer.at_ns // 1000
            rows = await world.rows(
                "SELECT market_id, member_id, side, order_type, time_in_force, price::text,"
                " quantity::text, remaining_quantity::text, state, lock_version, created_at,"
                " updated_at FROM orders WHERE id = %s",
                taker,
            )
            at = datetime.fromtimestamp(at_us / 1_000_000, UTC).replace(tzinfo=None)
            values = ("BTC-USD", 7, 1, 0, 0, "100.00000000", "1.50000000", "0.00000000", 1, 0)
            assert rows == [(*values, at, at)]
            rows = await world.rows(
                "SELECT order_type, time_in_force, price, remaining_quantity::text, state"
                " FROM orders WHERE id = %s",
                market.events[0].order_id,
            )
            assert rows == [(1, 1, None, "3.50000000", 2)]
            makers = await world.rows("SELECT id FROM orders WHERE price = 100 AND side = 0")
            trades = await world.rows(
                "SELECT market_id, maker_order_id, taker_order_id, price::text, quantity::text,"
                " taker_side, created_at = updated_at, created_at FROM trades"
                " WHERE taker_order_id = %s ORDER BY id",
                taker,
            )
            assert trades == [
                ("BTC-USD", makers[0][0], taker, "100.00000000", "1.00000000", 1, True, at),
                ("BTC-USD", makers[1][0], taker, "100.00000000", "0.50000000", 1, True, at),
            ]

    in_world(work)


def test_an_order_that_was_there_before_is_changed_under_its_lock_version(
    in_world: InWorld,
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            ((maker,),) = await world.rows("SELECT id FROM orders WHERE price = 105")
            for _ in range(2):
                await world.live_order(2, Side.BUY, "105", "0.5")
                await caught_up(control)
            await world.cancel(2, maker)
            await caught_up(control)
            rows = await world.rows(
                "SELECT remaining_quantity::text, state, lock_version, updated_at > created_at"
                " FROM orders WHERE id = %s",
                maker,
            )
            assert rows == [("1.00000000", 2, 3, True)]

    in_world(work)


def test_every_fill_is_mapped_to_its_row(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            answer = await world.live_order(2, Side.SELL, "99", "2.5")
            await caught_up(control)
            fills = [event for event in answer.events if event.kind.name == "FILL"]
            rows = await world.rows(
                "SELECT m.shard, m.seq, m.sub, t.maker_order_id, t.quantity::text"
                " FROM railswitch.fill_map m JOIN trades t ON t.id = m.fill_id ORDER BY m.sub"
            )
            assert rows == [
                (1, one.seq, one.sub, one.contra_id, f"{BTC.quantity(one.qty_lots):.8f}")
                for one in fills
            ]
            assert len(rows) == 3

    in_world(work)


def test_it_goes_on_after_every_loss_and_writes_nothing_twice(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            sent = []
            for n in range(40):
                sent.append(await world.live_order(2, Side(1 + n % 2), "102", "1"))
                if n % 10 == 5:
                    await world.rows(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'railswitch write-back'"
                        " AND datname = current_database()"
                    )

            async def done() -> bool:
                return control.write_back.written_seq >= sent[-1].seq

            await until(done, "everything written")
            ids = [one.events[0].order_id for one in sent]
            rows = await world.rows(
                "SELECT count(*), count(DISTINCT id) FROM orders WHERE id = ANY (%s)", ids
            )
            assert rows == [(40, 40)]
            fills = sum(event.kind.name == "FILL" for one in sent for event in one.events)
            assert await world.rows("SELECT count(*) FROM trades") == [(fills,)]
            assert await world.rows("SELECT count(*) FROM railswitch.fill_map") == [(fills,)]

    in_world(work)


def test_frames_that_come_twice_change_nothing(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            await world.live_order(2, Side.SELL, "100", "1")
            await caught_up(control)
            frames = await recorded(control, 1)
        before = await world.rows("SELECT * FROM orders ORDER BY id")
        again = write_back(world, Recorded([*frames, frames[-1]], frames[-1].last_seq))
        task = asyncio.create_task(again.run())

        async def runs() -> bool:
            return again.running

        await until(runs, "the write-back running")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await world.rows("SELECT * FROM orders ORDER BY id") == before
        assert await world.rows("SELECT count(*) FROM trades") == [(1,)]

    in_world(work)


def drop_one(frames: list[TailBatch]) -> list[TailBatch]:
    return [*frames[:1], *frames[2:]]


def repeat_one(frames: list[TailBatch]) -> list[TailBatch]:
    return [frames[0], frames[0], *frames[1:]]


@pytest.mark.parametrize(("spoil", "word"), [(drop_one, "a gap"), (repeat_one, "a repeat")])
def test_a_gap_or_a_repeat_stops_it_and_nothing_is_written(
    in_world: InWorld, spoil: Callable[[list[TailBatch]], list[TailBatch]], word: str
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            await caught_up(control)
            written_seq = control.write_back.written_seq
            await control.stop()
            for _ in range(3):
                await world.live_order(2, Side.SELL, "120", "1")
            async with world.control() as other:
                frames = await recorded(other, written_seq + 1)
        await world.rows("UPDATE railswitch.written SET seq = %s", written_seq)
        orders = await world.rows("SELECT count(*) FROM orders")
        one = write_back(world, Recorded(spoil(frames), frames[-1].last_seq))
        assert word in await stopped(one, world)
        assert await world.rows("SELECT seq FROM railswitch.written") == [(written_seq,)]
        assert await world.rows("SELECT count(*) FROM orders") == orders

    in_world(work)
