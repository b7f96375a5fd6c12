"""The fence in a real database: whoever writes, at whatever isolation, however busy it is."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from legacy_side import (
    INSERT_TRADE,
    SLOT,
    application,
    give,
    insert_order,
    install,
    ours,
    run,
    streaming,
    take,
    wait_for,
)
from psycopg.errors import ObjectNotInPrerequisiteState, SerializationFailure

from bridge import fence
from bridge.errors import BridgeError, FenceBusy, FenceUnknown, StaleEpoch
from bridge.fence import FenceRow
from shadow.legacy.changes import create_slot
from shadow.legacy.database import connected
from shadow.legacy.snapshot import write_mark
from shadow.operation import Mark, Marker, OrderInserted

BTC = "BTC-USD"
ISOLATIONS = ["REPEATABLE READ", "SERIALIZABLE"]


@pytest.fixture
def legacy(legacy_database: str) -> str:
    """A sandbox exchange with the fence."""
    install(legacy_database)
    return legacy_database


@contextmanager
def in_thread(work: Callable[[], object]) -> Iterator[list[object]]:
    """Runs it beside the body; what it returned or raised is in the list after the body."""
    outcome: list[object] = []

    def run_it() -> None:
        try:
            outcome.append(work())
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=run_it)
    thread.start()
    try:
        yield outcome
    finally:
        thread.join()


def wait_until_waiting(database: str, mode: str) -> None:
    """Until somebody waits for an advisory lock in this mode."""
    query = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND mode = %s AND database = (SELECT oid FROM pg_database WHERE datname ="
        " current_database()))"
    )
    with psycopg.connect(database, autocommit=True) as admin:
        wait_for(lambda: admin.execute(query, [mode]).fetchone() == (True,))


@contextmanager
def writer(database: str) -> Iterator[psycopg.Connection[Any]]:
    """Our own write-back's connection."""
    with psycopg.connect(ours(database), autocommit=True) as connection:
        yield connection


# --- who may write -------------------------------------------------------------------------------


def test_legacy_writes_what_nobody_has_taken(legacy: str) -> None:
    with application(legacy) as app:
        order_id = insert_order(app)
        app.execute(INSERT_TRADE)
        app.execute("UPDATE orders SET state = 2")
        app.execute("DELETE FROM orders WHERE id = %s", [order_id])
        app.execute("TRUNCATE orders, trades")
        insert_order(app, market="DOGE-USD")
    assert run(fence.read(ours(legacy))) == {}


def test_every_kind_of_legacy_write_is_refused_once_the_engine_owns(legacy: str) -> None:
    with application(legacy) as app:
        insert_order(app)
        app.execute(INSERT_TRADE)
        give(legacy)
        for statement in (
            "UPDATE orders SET state = 2 WHERE market_id = 'BTC-USD'",
            "DELETE FROM orders WHERE market_id = 'BTC-USD'",
            "UPDATE trades SET price = 1",
            "DELETE FROM trades",
            INSERT_TRADE,
            "TRUNCATE orders",
            "TRUNCATE trades",
        ):
            with pytest.raises(ObjectNotInPrerequisiteState, match="BTC-USD"):
                app.execute(statement.encode())
        with pytest.raises(ObjectNotInPrerequisiteState) as refused:
            insert_order(app)
    assert refused.value.diag.message_primary == (
        "instrument BTC-USD is owned by the matching engine (epoch 1):"
        " legacy may not write its orders"
    )
    assert refused.value.diag.table_name == "orders"


@pytest.mark.parametrize("symbol", ["BTC-USD", "SOL-USD"])  # either side of the other one
def test_a_row_moves_neither_from_nor_to_an_instrument_of_the_engine(
    legacy: str, symbol: str
) -> None:
    with application(legacy) as app:
        here, there = insert_order(app, market=symbol), insert_order(app, market="ETH-USD")
        give(legacy, symbol=symbol)
        for order_id, market in ((here, "ETH-USD"), (there, symbol)):
            with pytest.raises(ObjectNotInPrerequisiteState, match=symbol):
                app.execute("UPDATE orders SET market_id = %s WHERE id = %s", [market, order_id])


def test_other_instruments_go_on(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("BEGIN")
        insert_order(app, market="ETH-USD")
        give(legacy)  # not held up by a writer of another instrument
        app.execute("COMMIT")
        insert_order(app, market="ETH-USD")


def test_our_writer_may_write_only_what_the_engine_owns(legacy: str) -> None:
    with writer(legacy) as back:
        with pytest.raises(ObjectNotInPrerequisiteState, match=r"is owned by legacy \(epoch 0\)"):
            insert_order(back)
        give(legacy)
        order_id = insert_order(back)
        back.execute(INSERT_TRADE)
        back.execute("SELECT FROM orders WHERE id = %s FOR UPDATE", [order_id])
        back.execute("UPDATE orders SET state = 1 WHERE id = %s", [order_id])
        back.execute("SELECT nextval('orders_id_seq'), nextval('trades_id_seq')")
        back.execute("INSERT INTO railswitch.written (shard, seq) VALUES (1, 1)")
        back.execute("INSERT INTO railswitch.fill_map VALUES (1, 1, 0, 1)")
        give(legacy, "legacy", 2, 2)
        with pytest.raises(ObjectNotInPrerequisiteState, match="railswitch may not write its"):
            back.execute("UPDATE orders SET state = 0 WHERE id = %s", [order_id])
    with application(legacy) as app:
        insert_order(app)


def test_the_writer_is_known_by_how_it_logged_in(legacy: str) -> None:
    give(legacy)
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute("SET ROLE railswitch")
        with pytest.raises(ObjectNotInPrerequisiteState):
            insert_order(admin)


def test_restore_tools_that_switch_triggers_off_do_not_get_past(legacy: str) -> None:
    give(legacy)
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute("SET session_replication_role = replica")
        with pytest.raises(ObjectNotInPrerequisiteState):
            insert_order(admin)


def test_a_row_without_instrument_is_legacys_own_business(legacy: str) -> None:
    give(legacy)
    with application(legacy) as app:
        app.execute("ALTER TABLE orders ALTER market_id DROP NOT NULL")
        insert_order(app, market=None)
        app.execute("DELETE FROM orders")


# --- the moment of taking ------------------------------------------------------------------------


def test_a_writer_in_flight_is_waited_for_and_a_late_one_is_refused(legacy: str) -> None:
    with application(legacy) as early, application(legacy) as late:
        early.execute("BEGIN")
        insert_order(early)
        with in_thread(lambda: give(legacy)) as given:
            wait_until_waiting(legacy, "ExclusiveLock")
            with in_thread(lambda: insert_order(late)) as refused:
                wait_until_waiting(legacy, "ShareLock")
                assert run(fence.read(ours(legacy))) == {}
                insert_order(early)  # who came first is not held up by who waits
                early.execute("COMMIT")
        assert given == [None]
        assert isinstance(refused[0], ObjectNotInPrerequisiteState)
        assert early.execute("SELECT count(*) FROM orders").fetchone() == (2,)


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("taken_before", [False, True])
def test_a_snapshot_older_than_the_fence_lets_nobody_through(
    legacy: str, isolation: str, taken_before: bool
) -> None:
    if taken_before:  # then there is a row that the old snapshot sees
        give(legacy)
        give(legacy, "legacy", 2, 2)
    with application(legacy) as app:
        app.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        app.execute("SELECT count(*) FROM orders")
        give(legacy, "engine", 3, 3)
        with pytest.raises(SerializationFailure):
            insert_order(app)
        app.execute("ROLLBACK")
        app.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        with pytest.raises(ObjectNotInPrerequisiteState):
            insert_order(app)
        app.execute("ROLLBACK")
        with pytest.raises(ObjectNotInPrerequisiteState, match="only at isolation level"):
            app.execute(f"BEGIN ISOLATION LEVEL {isolation}; TRUNCATE orders".encode())


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_snapshot_older_than_our_writers_right_is_refused_too(
    legacy: str, isolation: str
) -> None:
    give(legacy)
    with writer(legacy) as back:
        back.execute(f"BEGIN ISOLATION LEVEL {isolation}".encode())
        back.execute("SELECT count(*) FROM orders")
        give(legacy, "legacy", 2, 2)
        with pytest.raises(SerializationFailure):
            insert_order(back)


def test_a_truncate_in_flight_is_waited_for(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("BEGIN")
        app.execute("TRUNCATE orders")
        with pytest.raises(FenceBusy):
            give(legacy, timeout_ms=200)
        app.execute("COMMIT")
    give(legacy)


def test_who_does_not_end_in_time_is_named_and_nothing_is_changed(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("BEGIN")
        insert_order(app)
        with pytest.raises(FenceBusy, match=rf"pid {app.info.backend_pid} \(exchange\)"):
            give(legacy, timeout_ms=200)
        app.execute("COMMIT")
        insert_order(app)
    assert run(fence.read(ours(legacy))) == {}


def test_no_legacy_row_follows_the_marker_under_busy_writers(legacy: str) -> None:
    url = ours(legacy)
    run(create_slot(url, SLOT))
    stop = threading.Event()
    wrote = threading.Semaphore(0)

    def write() -> int:
        refused = 0
        with application(legacy) as app:
            while not stop.is_set():
                try:
                    with app.transaction():
                        insert_order(app)
                        insert_order(app, side=1)
                    wrote.release()
                except ObjectNotInPrerequisiteState:
                    refused += 1
                    insert_order(app, market="ETH-USD")
                    wrote.release()
        return refused

    threads = [in_thread(write) for _ in range(6)]
    outcomes = [one.__enter__() for one in threads]
    try:
        for _ in range(60):
            wrote.acquire()
        give(legacy)
        for _ in range(60):
            wrote.acquire()
    finally:
        stop.set()
        for one in threads:
            one.__exit__(None, None, None)
    assert all(refused and not isinstance(refused[0], Exception) for refused in outcomes)

    async def main() -> list[str]:
        """The symbols of the orders, and where the marker came."""
        await write_mark(url, "end")
        came: list[str] = []
        async with streaming(url) as stream:
            while True:
                (transaction,) = await take(stream, 1)
                for change in transaction.changes:
                    if isinstance(change, Mark):
                        return came
                    if isinstance(change, Marker):
                        came.append("the marker")
                    else:
                        assert isinstance(change, OrderInserted)
                        came.append(change.order.symbol)

    came = run(main())
    marker = came.index("the marker")
    assert came[:marker].count(BTC) >= 120
    assert BTC not in came[marker:]
    assert "ETH-USD" in came[marker:]


# --- epochs --------------------------------------------------------------------------------------


def row(database: str) -> FenceRow:
    return run(fence.read(ours(database)))[BTC]


def test_the_fence_is_moved_marked_and_read(legacy: str) -> None:
    run(create_slot(ours(legacy), SLOT))
    give(legacy, "engine", 5, 9)
    expected = FenceRow(symbol=BTC, owner="engine", epoch=5, flip_id=9)
    assert run(fence.read(ours(legacy))) == {BTC: expected}

    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            (transaction,) = await take(stream, 1)
            assert transaction.changes == (Marker(symbol=BTC, flip_id=9, owner="engine", epoch=5),)

    run(main())


def test_the_same_again_changes_nothing(legacy: str) -> None:
    give(legacy, "engine", 5, 9)
    give(legacy, "engine", 5, 9)
    assert row(legacy).owner == "engine"


def test_a_flip_may_give_back_what_it_took_and_then_not_take_it_again(legacy: str) -> None:
    give(legacy, "engine", 5, 9)
    give(legacy, "legacy", 5, 9)
    with pytest.raises(StaleEpoch, match="flip 9 at epoch 5 comes too late"):
        give(legacy, "engine", 5, 9)
    assert row(legacy).owner == "legacy"


@pytest.mark.parametrize(("epoch", "flip_id"), [(4, 9), (4, 10), (5, 8)])
def test_who_is_older_is_refused(legacy: str, epoch: int, flip_id: int) -> None:
    give(legacy, "engine", 5, 9)
    with pytest.raises(StaleEpoch, match="given to engine at epoch 5 by flip 9"):
        give(legacy, "legacy", epoch, flip_id)
    assert row(legacy) == FenceRow(symbol=BTC, owner="engine", epoch=5, flip_id=9)


@pytest.mark.parametrize(("epoch", "flip_id"), [(6, 9), (6, 1), (5, 10)])
def test_who_is_newer_takes_it(legacy: str, epoch: int, flip_id: int) -> None:
    give(legacy, "engine", 5, 9)
    give(legacy, "legacy", epoch, flip_id)
    assert row(legacy) == FenceRow(symbol=BTC, owner="legacy", epoch=epoch, flip_id=flip_id)


def test_a_connection_may_be_kept_for_several(legacy: str) -> None:
    async def main() -> None:
        async with connected(ours(legacy)) as connection:
            for n in (1, 2):
                await fence.take(
                    connection, symbol=BTC, owner="engine", epoch=n, flip_id=n, timeout_ms=5000
                )

    run(main())
    assert row(legacy).epoch == 2


def test_a_database_that_falls_silent_while_committing_leaves_it_unknown_until_it_is_read(
    legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "FENCE_TIMEOUT_MARGIN_S", 0.1)
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute(
            "CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_sleep(0.5); RETURN NULL; END $$"
        )
        admin.execute(
            "CREATE CONSTRAINT TRIGGER slowly AFTER INSERT ON railswitch.fence"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION slowly()"
        )
    with pytest.raises(FenceUnknown, match="read the fence before going on"):
        give(legacy, timeout_ms=100)
    wait_for(lambda: BTC in run(fence.read(ours(legacy))))


def test_a_database_that_falls_silent_before_that_has_changed_nothing(
    legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fence, "FENCE_TIMEOUT_MARGIN_S", 0.1)

    async def main() -> None:
        async with connected(ours(legacy)) as connection:
            backend = connection.info.backend_pid
            os.kill(backend, signal.SIGSTOP)
            try:
                with pytest.raises(BridgeError, match="for 100 ms; nothing was changed"):
                    await fence.take(
                        connection, symbol=BTC, owner="engine", epoch=1, flip_id=1, timeout_ms=100
                    )
            finally:
                os.kill(backend, signal.SIGCONT)

    run(main())
    assert run(fence.read(ours(legacy))) == {}
    give(legacy)


def test_who_is_cancelled_while_waiting_leaves_no_lock_behind(legacy: str) -> None:
    async def main() -> None:
        with application(legacy) as app:
            app.execute("BEGIN")
            insert_order(app)
            taking = asyncio.create_task(
                fence.take(
                    ours(legacy), symbol=BTC, owner="engine", epoch=1, flip_id=1, timeout_ms=9000
                )
            )
            await asyncio.to_thread(wait_until_waiting, legacy, "ExclusiveLock")
            taking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await taking
            app.execute("COMMIT")
            insert_order(app)

    run(main())
    assert run(fence.read(ours(legacy))) == {}
