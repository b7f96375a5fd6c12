"""What both readers of changes promise: whole transactions, none lost, and a loss that is told."""

from __future__ import annotations

import asyncio
from typing import Any

import psycopg
import pytest
from change_sources import WAYS, Streaming, ready
from legacy_side import (
    INSERT_TRADE,
    SLOT,
    application,
    give,
    insert_order,
    run,
    take,
)

from bridge.config import WalConfig
from shadow.errors import ChangesLost, LegacyNotReady, ShadowError, SlotBusy, SlotMissing
from shadow.legacy import changes, polling, source
from shadow.legacy.assemble import Assembler
from shadow.legacy.source import Source
from shadow.operation import (
    FillInserted,
    LegacyTransaction,
    Mark,
    Marker,
    OrderDeleted,
    OrderInserted,
    OrderUpdated,
    Unreadable,
)


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def side(request: pytest.FixtureRequest, legacy_database: str) -> Streaming:
    return ready(request.param, legacy_database)


@pytest.fixture
def watchful(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "INSPECT_S", 0.02)


def order_ids(transaction: LegacyTransaction) -> list[int]:
    inserted = [one for one in transaction.changes if isinstance(one, OrderInserted)]
    return [one.order.order_id for one in inserted]


async def failure(reading: Source) -> ShadowError:
    """Of a source that can't go on."""
    try:
        async with asyncio.timeout(20):
            async for _ in reading.transactions():
                pass
    except ShadowError as error:
        return error
    raise AssertionError("it ended without an error")


def test_a_transaction_comes_whole_and_after_those_that_it_waited_for(side: Streaming) -> None:
    with application(side.database) as early, application(side.database) as late:
        early.execute("BEGIN")
        first = insert_order(early)
        with late.transaction():
            second = insert_order(late)
            late.execute(INSERT_TRADE)
        early.execute("UPDATE orders SET state = 2 WHERE id = %s", [second])
        third = insert_order(early)
        early.execute("COMMIT")

    async def main() -> None:
        async with side.reading() as reading:
            one, other = await take(reading, 2)
            assert order_ids(one) == [second]
            assert isinstance(one.changes[1], FillInserted)
            assert order_ids(other) == [first, third]
            assert one.end_lsn <= other.commit_lsn < other.end_lsn
            assert one.committed_at_us <= other.committed_at_us

    run(main())


def test_rows_are_the_same_in_every_detail(side: Streaming) -> None:
    """Numbers, times and words as PostgreSQL writes them, whatever the writer's own settings."""
    with application(side.database) as app:
        app.execute("SET datestyle = 'SQL, DMY'; SET timezone = 'Asia/Kolkata'")
        order_id = insert_order(app, price="236.47000", quantity="0.00000001")
        app.execute("UPDATE orders SET created_at = '01/05/2015 00:00:00.25'")
        app.execute("DELETE FROM orders")

    async def main() -> None:
        async with side.reading() as reading:
            inserted, updated, deleted = [one.changes[0] for one in await take(reading, 3)]
            assert isinstance(inserted, OrderInserted)
            assert (inserted.order.price_ticks, inserted.order.qty_lots) == (23647, 1)
            assert isinstance(updated, OrderUpdated)
            assert updated.order.created_at_us == 1_430_438_400_250_000
            assert deleted == OrderDeleted(order_id=order_id)

    run(main())


def test_a_cut_connection_is_mended_and_nothing_comes_twice(side: Streaming) -> None:
    async def main() -> None:
        async with side.reading() as reading:
            with application(side.database) as app:
                for _ in range(3):
                    expected = insert_order(app)
                    assert order_ids((await take(reading, 1))[0]) == [expected]
                    side.cut()
            await side.write_mark("m")
            assert (await take(reading, 1))[0].changes == (Mark(id="m"),)
            assert reading.status().reconnects >= 1
            assert reading.status().last_error

    run(main())


def test_what_was_confirmed_is_not_kept_and_what_was_not_comes_again(side: Streaming) -> None:
    async def main() -> None:
        with application(side.database) as app:
            expected = [[insert_order(app)] for _ in range(2)]
            async with side.reading() as reading:
                before = await take(reading, 2)
                reading.confirm(before[1].end_lsn)
            expected += [[insert_order(app)] for _ in range(2)]
        # As after a crash: the watermark says more than what the server was told.
        async with side.reading(before[1].end_lsn) as reading:
            again = await take(reading, 2)
            assert [order_ids(one) for one in again] == expected[2:]
        async with side.reading() as reading:
            assert await take(reading, 2) == again  # at the same positions
        assert before[1].end_lsn <= side.retained() <= again[0].commit_lsn

    run(main())


def test_what_was_not_delivered_cannot_be_confirmed(side: Streaming) -> None:
    async def main() -> None:
        async with side.reading() as reading:
            with pytest.raises(ValueError, match="has not been delivered"):
                reading.confirm(2**60)

    run(main())


def test_unknown_symbols_are_counted_and_the_position_moves(
    side: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PROGRESS_S", 0.0)

    async def main() -> None:
        before = side.retained()
        async with side.reading() as reading:
            with application(side.database) as app:
                insert_order(app, market="DOGE-USD")
            async for note in reading.transactions():
                assert note.changes == ()
                reading.confirm(note.end_lsn)
                if reading.status().rows_of_unknown_symbols == 1 and note.end_lsn > before:
                    break
        assert side.retained() >= note.end_lsn > before

    run(main())


def test_a_slow_consumer_bounds_what_is_read_ahead(
    side: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "BACKLOG_CHANGES_MAX", 10)
    monkeypatch.setattr(changes, "TURN_MESSAGES_MAX", 5)
    monkeypatch.setattr(polling, "BACKLOG_CHANGES_MAX", 10)
    monkeypatch.setattr(polling, "POLL_ROWS_MAX", 3)

    async def main() -> None:
        with application(side.database) as app:
            expected = [[insert_order(app)] for _ in range(100)]
        async with side.reading() as reading:
            taken: list[list[int]] = []
            while len(taken) < 100:
                (transaction,) = await take(reading, 1)
                taken.append(order_ids(transaction))
                reading.confirm(transaction.end_lsn)
                assert reading.status().backlog_changes <= 15
            assert taken == expected

    run(main())


def test_a_transaction_that_is_too_large_names_its_instruments_and_is_counted(
    side: Streaming, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the page, whatever its size; what comes after it is read as ever."""
    monkeypatch.setitem(Assembler.__init__.__kwdefaults__, "changes_max", 20)
    monkeypatch.setattr(polling, "POLL_ROWS_MAX", 7)

    async def main() -> None:
        with application(side.database) as app:
            with app.transaction():
                for _ in range(30):
                    insert_order(app)
            after = insert_order(app, market="ETH-USD")
        async with side.reading() as reading:
            large, small = await take(reading, 2)
            (change,) = large.changes
            assert isinstance(change, Unreadable)
            assert change.symbol == "BTC-USD"
            assert "more than 20 changed rows" in change.reason
            assert order_ids(small) == [after]
            assert reading.status().rows_dropped == 30

    run(main())


def test_the_schema_may_change_while_reading(side: Streaming) -> None:
    async def main() -> None:
        async with side.reading() as reading:
            with application(side.database) as app:
                insert_order(app)
                app.execute("ALTER TABLE orders ADD COLUMN note text DEFAULT 'x'")
                insert_order(app)
                app.execute("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
                app.execute("UPDATE orders SET note = repeat('y', 100000) WHERE id = 1")
                app.execute("UPDATE orders SET state = 2 WHERE id = 1")
                app.execute("ALTER TABLE orders ALTER COLUMN quantity TYPE numeric(40, 10)")
                app.execute("UPDATE orders SET state = 1 WHERE id = 1")
                app.execute("ALTER TABLE orders DROP COLUMN note")
                app.execute("UPDATE orders SET state = 2 WHERE id = 1")
                app.execute("ALTER TABLE orders RENAME COLUMN price TO limit_price")
                app.execute("UPDATE orders SET state = 0 WHERE id = 1")
            read = [one.changes[0] for one in await take(reading, 7)]
            assert [type(one) for one in read] == [
                *(OrderInserted, OrderInserted),
                *(OrderUpdated, OrderUpdated, OrderUpdated, OrderUpdated),
                Unreadable,
            ]
            assert isinstance(read[-1], Unreadable)
            assert "no column price any more; mapping.orders must follow" in read[-1].reason

    run(main())


def test_a_mapped_column_of_text_that_no_longer_fits_spoils_its_row_only(side: Streaming) -> None:
    async def main() -> None:
        async with side.reading() as reading:
            with application(side.database) as app:
                app.execute("ALTER TABLE orders ALTER COLUMN price TYPE text")
                insert_order(app, price="a lot")
                expected = insert_order(app, price="236.47")
            spoilt, good = await take(reading, 2)
            assert isinstance(spoilt.changes[0], Unreadable)
            assert order_ids(good) == [expected]

    run(main())


def test_a_truncated_table_is_told(side: Streaming) -> None:
    async def main() -> None:
        async with side.reading() as reading:
            with application(side.database) as app:
                app.execute("TRUNCATE orders")
            ((change,),) = [one.changes for one in await take(reading, 1)]
            assert isinstance(change, Unreadable)
            assert (change.symbol, change.reason) == ("", "orders was truncated")

    run(main())


_NEW = "CREATE TABLE new (LIKE orders INCLUDING ALL);"
REPLACED = {
    "renamed": "ALTER TABLE orders RENAME TO old_orders",
    "made again": "ALTER SEQUENCE orders_id_seq OWNED BY NONE;"
    f"{_NEW} DROP TABLE orders CASCADE; ALTER TABLE new RENAME TO orders",
    "swapped": f"{_NEW} ALTER TABLE orders RENAME TO old_orders; ALTER TABLE new RENAME TO orders",
}


@pytest.mark.parametrize("how", REPLACED)
@pytest.mark.usefixtures("watchful")
def test_a_table_that_was_replaced_is_no_quiet_market(side: Streaming, how: str) -> None:
    async def main() -> None:
        with application(side.database) as app:
            order_id = insert_order(app)
            async with side.reading() as reading:
                (seen,) = await take(reading, 1)
                assert order_ids(seen) == [order_id]
                app.execute(REPLACED[how].encode())
                error = await failure(reading)
            assert isinstance(error, LegacyNotReady)
            assert "legacy install" in str(error)
            if how != "renamed":
                side.install()
                with pytest.raises(ChangesLost):
                    async with side.reading(seen.end_lsn):
                        pass

    run(main())


def test_our_own_writes_and_markers_are_told_apart(side: Streaming) -> None:
    async def main() -> None:
        with psycopg.connect(side.url, autocommit=True) as writer:
            writer.execute("INSERT INTO railswitch.written (shard, seq) VALUES (1, 0)")
            await asyncio.to_thread(give, side.database, epoch=3, flip_id=7)
            with writer.transaction():
                message = '{"kind": "written", "shard": 1, "seq": 5}'
                writer.execute("SELECT pg_logical_emit_message(true, 'railswitch', %s)", [message])
                writer.execute("UPDATE railswitch.written SET seq = 5")
                insert_order(writer)
        await side.write_mark("here")
        async with side.reading() as reading:
            fence, own, mark = await take(reading, 3)
            marker = Marker(symbol="BTC-USD", flip_id=7, owner="engine", epoch=3)
            assert fence.changes == (marker,)
            assert own.ours
            assert mark.changes == (Mark(id="here"),)

    run(main())


# --- slots


def test_a_missing_slot_is_an_error_that_says_so(side: Streaming) -> None:
    async def main() -> None:
        assert await side.drop_slot()
        assert not await side.drop_slot()
        with pytest.raises(SlotMissing, match="somebody dropped it, and changes have been lost"):
            async with side.reading():
                pass

    run(main())


def test_a_slot_has_one_reader(side: Streaming) -> None:
    async def main() -> None:
        async with side.reading():
            with pytest.raises(SlotBusy, match="is read by another process"):
                await side.source().open(busy_s=0)
            second = side.source()
            waiting = asyncio.create_task(second.open(busy_s=20))
        await waiting
        await second.close()

    run(main())


async def watermark(side: Streaming) -> int:
    with application(side.database) as app:
        insert_order(app)
    async with side.reading() as reading:
        (seen,) = await take(reading, 1)
    return seen.end_lsn


def test_a_slot_made_again_has_lost_changes_and_begins_behind_them(side: Streaming) -> None:
    async def main() -> None:
        known = await watermark(side)
        with application(side.database) as app:
            insert_order(app)
            await side.drop_slot()
            await side.create_slot()
            with pytest.raises(ChangesLost, match="was made again, or something else") as lost:
                async with side.reading(known):
                    pass
            assert lost.value.slot_lsn > known
            async with side.reading(lost.value.slot_lsn) as reading:
                expected = insert_order(app)
                assert order_ids((await take(reading, 1))[0]) == [expected]

    run(main())


def test_a_server_that_was_set_back_has_lost_changes(side: Streaming) -> None:
    """What it writes next would lie before the watermark, and be taken for known."""

    async def main() -> None:
        known = await watermark(side)
        with pytest.raises(ChangesLost, match="was set back") as lost:
            async with side.reading(known + 2**33):
                pass
        assert lost.value.slot_lsn == 0

    run(main())


def test_the_shadow_makes_its_slot_and_makes_it_again_and_says_what_was_lost(
    side: Streaming,
) -> None:
    async def main() -> None:
        await side.drop_slot()
        own = side.sources().changes()
        await own.open()
        with application(side.database) as app:
            insert_order(app)
            (seen,) = await take(own, 1)
            await own.close()
            await side.drop_slot()
            insert_order(app)
            with pytest.raises(ChangesLost) as lost:
                await own.open(seen.end_lsn)
            await own.open(lost.value.slot_lsn)
            expected = insert_order(app)
            assert order_ids((await take(own, 1))[0]) == [expected]
            await own.close()

    run(main())


@pytest.mark.usefixtures("watchful")
def test_a_slot_that_keeps_too_much_is_told_and_then_given_up(side: Streaming) -> None:
    async def main() -> None:
        sources = side.sources(WalConfig(retained_mb_warn=1, retained_mb_max=3))
        own = sources.changes()
        await own.open()
        with application(side.database) as app:
            app.execute("ALTER TABLE orders ADD COLUMN note text STORAGE EXTERNAL")
            insert_order(app)
            grown = (
                "UPDATE orders SET note ="
                " (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 10000))"
            )
            while not sources.warning():
                await asyncio.to_thread(app.execute, grown)
            assert f"more than 1 MB for slot {SLOT}" in sources.warning()
            error: Any = None
            while error is None:
                await asyncio.to_thread(app.execute, grown)
                try:
                    async with asyncio.timeout(0.05):
                        async for _ in own.transactions():
                            pass
                except TimeoutError:
                    continue
                except ChangesLost as lost:
                    error = lost
        assert "more than legacy.wal.retained_mb_max = 3" in str(error)
        await own.close()
        assert not await side.drop_slot()  # it is gone
        await own.open()
        await own.close()

    run(main())
