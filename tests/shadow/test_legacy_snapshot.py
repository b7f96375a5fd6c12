"""Open orders at an exact position of a running market."""

from __future__ import annotations

import asyncio
import threading

import msgspec
import psycopg
import pytest
from legacy_side import (
    MAPPING,
    SCALES,
    SLOT,
    application,
    insert_order,
    install,
    ours,
    run,
    streaming,
    take,
    wait_for,
)

from bridge.sandbox.provision import as_role
from engine.types import Side
from shadow.errors import LegacyNotReady, LegacyUnavailable, SlotNotCreated
from shadow.legacy.changes import create_slot
from shadow.legacy.database import connected
from shadow.legacy.mapping import Enumerated
from shadow.legacy.snapshot import open_orders_at, read_open_orders, write_mark
from shadow.operation import (
    Mark,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Status,
    Unreadable,
)

BOTH = ("BTC-USD", "ETH-USD")


@pytest.fixture
def legacy(legacy_database: str) -> str:
    install(legacy_database)
    return legacy_database


def ids(orders: tuple[OrderImage | Unreadable, ...]) -> list[int]:
    return [one.order_id for one in orders]


def test_a_snapshot_and_the_stream_from_it_meet_without_gap_or_overlap(legacy: str) -> None:
    """Several writers go on placing and canceling while snapshots are taken."""
    url = ours(legacy)
    run(create_slot(url, SLOT))
    stop = threading.Event()

    def write() -> None:
        with application(legacy) as app:
            while not stop.is_set():
                with app.transaction():
                    order_id = insert_order(app)
                    insert_order(app, side=1, price="300")
                app.execute("UPDATE orders SET state = 2 WHERE id = %s", [order_id])

    async def main() -> None:
        snapshots = []
        writers = [threading.Thread(target=write) for _ in range(3)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(4):
                snapshots.append(await open_orders_at(url, MAPPING, SCALES, BOTH))
        finally:
            stop.set()
            for writer in writers:
                await asyncio.to_thread(writer.join)
        await write_mark(url, "end")
        history: list[tuple[int, OrderImage]] = []
        async with streaming(url) as stream:
            while True:
                (transaction,) = await take(stream, 1)
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


def test_orders_come_by_symbol_and_side_best_price_first_then_in_queue_order(legacy: str) -> None:
    with application(legacy) as app:
        first_sell = insert_order(app, side=1, price="300")
        low_buy = insert_order(app, price="9")
        high_buy = insert_order(app, price="100")
        best_sell = insert_order(app, side=1, price="299.99")
        late_buy = insert_order(app, price="100")
        early_buy = insert_order(app, price="100")
        app.execute("UPDATE orders SET created_at = '2015-01-01' WHERE id = %s", [early_buy])
        ether = insert_order(app, market="ETH-USD")
        insert_order(app, market="SOL-USD", price="1", quantity="1")
        insert_order(app, state=2)
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, ("ETH-USD", "BTC-USD")))
    buys = [early_buy, high_buy, late_buy, low_buy]
    assert ids(snapshot.orders) == [ether, *buys, best_sell, first_sell]


def test_an_unreadable_row_comes_last_with_its_reason(legacy: str) -> None:
    with application(legacy) as app:
        odd = insert_order(app, price="1.001")
        even = insert_order(app, price="1.00")
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH))
    assert ids(snapshot.orders) == [even, odd]
    assert isinstance(snapshot.orders[1], Unreadable)


def test_no_symbols_is_a_position_and_no_orders(legacy: str) -> None:
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, ()))
    assert snapshot.orders == ()
    assert snapshot.lsn > 0


def test_values_are_written_as_in_the_change_stream(legacy: str) -> None:
    """A boolean is "t" there, and "true" where it is cast to text."""
    with application(legacy) as app:
        app.execute("ALTER TABLE orders ALTER side TYPE boolean USING side = 0")
        app.execute("ALTER TABLE orders ALTER market_id TYPE char(10)")
        order_id = insert_order(app, side="t")
    side = Enumerated(column="side", map={"t": "buy", "f": "sell"})
    mapping = msgspec.structs.replace(
        MAPPING, orders=msgspec.structs.replace(MAPPING.orders, side=side)
    )
    scales = {"BTC-USD   ": msgspec.structs.replace(SCALES["BTC-USD"], symbol="BTC-USD   ")}
    snapshot = run(open_orders_at(ours(legacy), mapping, scales, tuple(scales)))
    (read,) = snapshot.orders
    assert isinstance(read, OrderImage)
    assert (read.order_id, read.side) == (order_id, Side.BUY)


def test_a_writer_that_does_not_end_is_named(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("BEGIN")
        insert_order(app)
        with pytest.raises(SlotNotCreated, match=rf"pid {app.info.backend_pid} \(exchange\)"):
            run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH, timeout_s=0.3))


def test_nothing_is_left_behind(legacy: str) -> None:
    run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH))
    with psycopg.connect(legacy, autocommit=True) as admin:
        slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
        # The server ends our session a moment later.
        wait_for(lambda: admin.execute(slots).fetchone() == (0,))


def test_the_lack_of_a_privilege_is_named_with_the_next_step(legacy_database: str) -> None:
    with pytest.raises(LegacyNotReady, match=r"denied for table orders.*legacy install"):
        run(open_orders_at(ours(legacy_database), MAPPING, SCALES, BOTH))
    with pytest.raises(LegacyUnavailable, match="a role with REPLICATION"):
        run(open_orders_at(as_role(legacy_database, "exchange"), MAPPING, SCALES, BOTH))


def test_open_orders_are_read_as_a_transaction_sees_them(legacy: str) -> None:
    async def main() -> None:
        async with connected(ours(legacy)) as connection:
            with application(legacy) as app:
                first = insert_order(app)
                app.execute("BEGIN")
                second = insert_order(app)
                before = await read_open_orders(connection, MAPPING, SCALES, "BTC-USD")
                app.execute("COMMIT")
            after = await read_open_orders(connection, MAPPING, SCALES, "BTC-USD")
            assert (ids(before), ids(after)) == ([first], [first, second])
            assert await read_open_orders(connection, MAPPING, SCALES, "ETH-USD") == ()

    run(main())
