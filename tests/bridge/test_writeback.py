"""What the engine did with live orders stands in the legacy's tables once, whatever happens
meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
import redis.asyncio as redis
from switch_world import BTC, CONFIG, PATIENCE_S, SCALES, Control, InWorld, World, shadowing, until

from bridge.control.messages import ActRequest
from bridge.stage import WRITTEN_CHANNEL
from bridge.tasks import ended
from bridge.writeback import WriteBack, WriteBackSettings
from bridge.writeback_rows import Frame
from engine.client import TailBatch
from engine.types import OrderType, Role, Side, TimeInForce

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


async def recorded(world: World, from_seq: int) -> list[TailBatch]:
    """The engine's own frames, to its head."""
    frames: list[TailBatch] = []
    async with world.session("status", Role.READ_ONLY) as client:
        head_seq = (await client.status()).seq
        tail = client.tail(from_seq)
        async for frame in tail:
            frames.append(frame)
            if frame.last_seq >= head_seq:
                break
    return frames


async def stopped(one: WriteBack) -> str:
    """Runs it until it stops: why it did."""
    task = asyncio.create_task(one.run())
    told = one.trouble

    async def has_stopped() -> bool:
        return bool(one.trouble) and one.trouble != told

    try:
        await until(has_stopped, "the write-back stopped")
    finally:
        await ended(task)
    return one.trouble


def test_orders_and_fills_are_written_as_the_monolith_writes_them(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            answer = await world.live_order(2, Side.SELL, "100", "1.5")
            market = await world.live_order(
                2,
                Side.SELL,
                "1",
                "5",
                ord_type=OrderType.MARKET,
                tif=TimeInForce.IOC,
                price_ticks=0,
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


async def unwritten(world: World) -> list[TailBatch]:
    """Frames of three live orders that nobody has written back yet."""
    async with world.control() as control:
        await live(world, control)
        await caught_up(control)
        written_seq = control.write_back.written_seq
    for _ in range(3):
        await world.live_order(2, Side.SELL, "120", "1")
    await world.rows("UPDATE railswitch.written SET seq = %s", written_seq)
    return await recorded(world, written_seq + 1)


async def orders_at_120(world: World) -> int:
    ((count,),) = await world.rows("SELECT count(*) FROM orders WHERE price = 120")
    return int(count)


def drop_one(frames: list[TailBatch]) -> list[TailBatch]:
    return [*frames[:1], *frames[2:]]


def repeat_one(frames: list[TailBatch]) -> list[TailBatch]:
    return [frames[0], frames[0], *frames[1:]]


def from_later(frames: list[TailBatch]) -> list[TailBatch]:
    return frames[1:]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [(drop_one, "a gap"), (repeat_one, "a repeat"), (from_later, "a gap")],
)
def test_a_gap_or_a_repeat_stops_it_and_nothing_is_written(
    in_world: InWorld, spoil: Callable[[list[TailBatch]], list[TailBatch]], word: str
) -> None:
    async def work(world: World) -> None:
        frames = await unwritten(world)
        before = await world.rows("SELECT seq FROM railswitch.written")
        one = write_back(world, Recorded(spoil(frames), frames[-1].last_seq))
        assert word in await stopped(one)
        assert await world.rows("SELECT seq FROM railswitch.written") == before
        assert await orders_at_120(world) == 0

    in_world(work)


def test_a_watermark_that_someone_else_moves_stops_it(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        frames = await unwritten(world)
        one = write_back(world, Recorded(frames, frames[-1].last_seq))
        moved = asyncio.Event()
        prepare = one._watermark  # the moment between reading the watermark and writing

        async def late(connection: Any) -> int:
            seq = await prepare(connection)
            if not moved.is_set():
                await world.rows("UPDATE railswitch.written SET seq = seq + 1")
                moved.set()
            return seq

        one._watermark = late  # type: ignore[method-assign]
        assert "another write-back has moved it" in await stopped(one)
        assert await orders_at_120(world) == 0

    in_world(work)


def test_two_at_once_write_everything_once(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        frames = await unwritten(world)
        both = [write_back(world, Recorded(frames, frames[-1].last_seq)) for _ in range(2)]
        tasks = [asyncio.create_task(one.run()) for one in both]

        async def done() -> bool:
            return all(one.written_seq == frames[-1].last_seq for one in both)

        try:
            await until(done, "both at the end")
        finally:
            await ended(*tasks)
        assert await orders_at_120(world) == 3

    in_world(work)


def test_a_deadlock_with_the_monolith_is_tried_again(
    in_world: InWorld, caplog: pytest.LogCaptureFixture
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            bids = await world.rows("SELECT id FROM orders WHERE side = 0 ORDER BY id")
            first, last = bids[0][0], bids[-1][0]
            async with await psycopg.AsyncConnection.connect(world.super_url) as other:
                lock = "SELECT id FROM orders WHERE id = %s FOR UPDATE"
                await other.execute("SET deadlock_timeout = '1h'")
                await other.execute(lock, (last,))
                sold = await world.live_order(2, Side.SELL, "99", "3")

                async def waiting() -> bool:
                    return bool(
                        await world.rows(
                            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
                            " AND application_name = 'railswitch write-back'"
                            " AND datname = current_database()"
                        )
                    )

                await until(waiting, "the write-back waiting for a row")
                # Against the order in which everybody locks: the write-back has this one.
                await other.execute(lock, (first,))
                await other.rollback()
            await control.write_back.drain(sold.seq)
            assert await world.rows("SELECT count(*) FROM trades") == [(3,)]

    in_world(work)
    assert "deadlock" not in caplog.text  # it did not even stop


def test_at_the_very_first_start_it_begins_at_the_engine_s_head(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        one = write_back(world, Recorded([], 41), ever_live=False)
        task = asyncio.create_task(one.run())

        async def runs() -> bool:
            return one.running

        await until(runs, "the write-back running")
        await ended(task)
        assert await world.rows("SELECT shard, seq FROM railswitch.written") == [(1, 41)]

    in_world(work)


def test_a_lost_watermark_is_never_made_up(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        one = write_back(world, Recorded([], 41), ever_live=True)
        assert "no watermark of shard 1" in await stopped(one)
        assert await world.rows("SELECT * FROM railswitch.written") == []

    in_world(work)


def test_an_engine_on_an_older_journal_is_noticed(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        await world.rows("INSERT INTO railswitch.written (shard, seq) VALUES (1, 50)")
        assert "another journal" in await stopped(write_back(world, Recorded([], 41)))

    in_world(work)


def test_a_table_that_can_t_take_the_rows_is_named(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        await world.rows(
            "ALTER TABLE orders ADD COLUMN desk text NOT NULL;"
            "ALTER TABLE trades ALTER COLUMN price TYPE numeric(20, 1)"
        )
        trouble = await stopped(write_back(world, Recorded([], 0)))
        assert "orders.desk needs a value" in trouble
        assert "trades.price keeps 1 digits" in trouble

    in_world(work)


def test_without_the_fence_it_says_what_to_install(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        await world.rows("DROP TABLE railswitch.written")
        trouble = await stopped(write_back(world, Recorded([], 0)))
        assert "railswitch legacy install" in trouble

    in_world(work)


def test_the_shadow_s_orders_are_not_written_and_the_watermark_follows_all_the_same(
    in_world: InWorld,
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            before = await world.rows("SELECT count(*) FROM orders")
            head_seq = await control.engine.head_seq()

            async def followed() -> bool:
                return await world.rows("SELECT seq FROM railswitch.written") == [(head_seq,)]

            await until(followed, "the watermark at the head")
            assert await world.rows("SELECT count(*) FROM orders") == before

    in_world(work)


def test_readers_are_told_how_far_it_is_after_it_is_durable(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            async with (
                redis.Redis.from_url(world.redis_url) as client,
                client.pubsub() as subscription,
            ):
                await subscription.subscribe(WRITTEN_CHANNEL)
                await subscription.get_message(timeout=PATIENCE_S)
                answer = await world.live_order(2, Side.SELL, "100", "1")
                seq = 0
                while seq < answer.seq:
                    message = await subscription.get_message(timeout=PATIENCE_S)
                    assert message is not None
                    shard, seq = map(int, message["data"].split())
                    assert shard == 1
                    rows = await world.rows("SELECT seq FROM railswitch.written")
                    assert rows[0][0] >= seq

    in_world(work)


def test_what_it_says_is_written_is_on_the_disk_whatever_the_database_s_default(
    in_world: InWorld,
) -> None:
    async def work(world: World) -> None:
        await world.rows(
            "CREATE TABLE seen (mode text);"
            "CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN"
            " INSERT INTO public.seen VALUES (current_setting('synchronous_commit'));"
            " RETURN NEW; END $$;"
            "CREATE TRIGGER see AFTER INSERT ON trades FOR EACH ROW EXECUTE FUNCTION see();"
            "ALTER ROLE railswitch SET synchronous_commit = off"
        )
        async with world.control() as control:
            await live(world, control)
            await world.live_order(2, Side.SELL, "100", "1")
            await caught_up(control)
        assert await world.rows("SELECT DISTINCT mode FROM seen") == [("on",)]

    in_world(work)
