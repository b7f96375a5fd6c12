"""Shadowing begins, and begins again for one instrument, while everybody goes on writing."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator

import pytest
from change_sources import WAYS, Streaming, ready
from harness import BTC, ETH, World, play
from legacy_side import application, insert_order, run, take, wait_for
from test_pipeline_legacy import Clients, begin, comparing, exchange

from bridge.sandbox.matching import Faults
from shadow.operation import Mark, OrderImage, OrderInserted, OrderUpdated, Status


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def side(request: pytest.FixtureRequest, legacy_database: str) -> Streaming:
    found: Streaming = request.param(legacy_database)
    found.install()
    return found


def test_a_snapshot_and_the_changes_from_it_meet_without_gap_or_overlap(side: Streaming) -> None:
    run(side.create_slot())
    stop = threading.Event()

    def write() -> None:
        with application(side.database) as app:
            while not stop.is_set():
                with app.transaction():
                    order_id = insert_order(app)
                    insert_order(app, side=1, price="300")
                app.execute("UPDATE orders SET state = 2 WHERE id = %s", [order_id])

    async def main() -> None:
        snapshots = []
        history: list[tuple[int, OrderImage]] = []
        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        async with side.reading() as reading:  # windows and snapshots are cut beside each other
            try:
                for _ in range(4):
                    snapshots.append(await side.snapshots().open_orders((BTC, ETH)))
            finally:
                stop.set()
                for writer in writers:
                    await asyncio.to_thread(writer.join)
            await side.write_mark("end")
            while True:
                (transaction,) = await take(reading, 1)
                if isinstance(transaction.changes[0], Mark):
                    break
                for change in transaction.changes:
                    assert isinstance(change, OrderInserted | OrderUpdated)
                    history.append((transaction.commit_lsn, change.order))
        for snapshot in snapshots:
            at = {one.order_id: one for lsn, one in history if lsn < snapshot.lsn}
            still_open = {n: one for n, one in at.items() if one.status is Status.OPEN}
            assert {one.order_id: one for one in snapshot.orders} == still_open
        assert any(lsn >= snapshots[0].lsn for lsn, _ in history)

    run(main())


def test_a_transaction_that_is_long_open_holds_up_neither_polling_nor_its_snapshot(
    legacy_database: str,
) -> None:
    side = ready(WAYS[1], legacy_database)

    async def main() -> None:
        with application(side.database) as old, application(side.database) as app:
            old.execute("BEGIN")
            first = insert_order(old)
            second = insert_order(app)
            async with side.reading() as reading:
                (read,) = await take(reading, 1)
                assert isinstance(read.changes[0], OrderInserted)
                assert read.changes[0].order.order_id == second
                snapshot = await side.snapshots().open_orders((BTC,))
                assert [one.order_id for one in snapshot.orders] == [second]
                old.execute("COMMIT")
                (late,) = await take(reading, 1)
                assert isinstance(late.changes[0], OrderInserted)
                assert late.changes[0].order.order_id == first
                assert late.commit_lsn >= snapshot.lsn > read.commit_lsn

    run(main())


def test_a_slot_waits_for_those_whose_first_rows_nobody_captured(legacy_database: str) -> None:
    side = WAYS[1](legacy_database)
    side.install()

    async def main() -> None:
        with application(side.database) as old:
            old.execute("BEGIN")
            insert_order(old)
            making = asyncio.create_task(side.create_slot())
            with application(side.database) as app:
                await asyncio.to_thread(wait_for, lambda: _is_capturing(side))
                insert_order(app)
            assert not making.done()
            old.execute("COMMIT")
            await making
            expected = insert_order(old)
        async with side.reading() as reading:
            (read,) = await take(reading, 1)
            assert isinstance(read.changes[0], OrderInserted)
            assert read.changes[0].order.order_id == expected

    run(main())


def _is_capturing(side: Streaming) -> bool:
    with application(side.database) as app:
        row = app.execute("SELECT last_value FROM railswitch.capturing").fetchone()
    return row == (2,)


@contextlib.asynccontextmanager
async def trading(clients: Clients) -> AsyncIterator[None]:
    """All the time, on both instruments."""
    stop = asyncio.Event()

    async def trade() -> None:
        while not stop.is_set():
            await clients.trade(8)

    task = asyncio.create_task(trade())
    try:
        yield
    finally:
        stop.set()
        await task


@pytest.mark.usefixtures("impatient")
def test_it_begins_among_running_writers_and_the_books_are_equal(
    control_database: str, legacy_database: str, side: Streaming
) -> None:
    async def scenario(world: World) -> None:
        async with exchange(legacy_database, Faults()) as market:
            clients = Clients(world, market, seed=1)
            await clients.trade(40)
            async with trading(clients):
                await begin(world)
                async with comparing(world, side):
                    for symbol in (BTC, ETH):
                        await world.until(
                            lambda one: one.book_equal is not None and one.counts.matched > 30,
                            symbol,
                        )
            async with comparing(world, side):
                for symbol in (BTC, ETH):
                    found = await world.until(
                        lambda one: one.counts.pending == 0 and one.counts.seen > 30, symbol
                    )
                    assert (found.run, found.book_equal, found.taint) == (1, True, "")
                    assert found.counts.mismatched == found.counts.uncomparable == 0
        assert await world.verdicts(BTC) == await world.verdicts(ETH) == []

    play(control_database, scenario)


@pytest.mark.usefixtures("impatient")
def test_one_instrument_is_loaded_again_and_the_other_loses_nothing(
    control_database: str, legacy_database: str, side: Streaming
) -> None:
    async def scenario(world: World) -> None:
        faults = Faults(priority={BTC: 1.0})
        async with exchange(legacy_database, faults) as market:
            await begin(world)
            async with comparing(world, side):
                for symbol in (BTC, ETH):
                    await world.loaded(symbol)
                clients = Clients(world, market, seed=4)
                async with trading(clients):
                    await world.until(lambda one: len(one.mismatches) > 0, BTC)
                    faults.priority.clear()
                    await world.until(
                        lambda one: one.run > 1 and one.taint == "" and one.book_equal is True, BTC
                    )
                found = await world.settled(clients.done[ETH], ETH)
                assert (found.run, found.taint) == (1, "")
                assert found.counts.matched == found.counts.seen == clients.done[ETH]
                assert found.counts.dark == found.counts.gaps == 0

    play(control_database, scenario)
