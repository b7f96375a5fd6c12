"""The change stream of a real server: order, wholeness, and what happens when something dies."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from legacy_side import (
    INSERT_TRADE,
    MAPPING,
    PUBLICATION,
    SCALES,
    SLOT,
    application,
    confirmed_lsn,
    cut,
    insert_order,
    install,
    ours,
    run,
    streaming,
    take,
)

from bridge.sandbox.processes import free_port
from bridge.sandbox.provision import provision
from bridge.sandbox.servers import EmbeddedPostgres
from shadow.legacy import changes, replication
from shadow.legacy.changes import ChangeStream, create_slot, drop_slot
from shadow.legacy.snapshot import write_mark
from shadow.operation import (
    FillInserted,
    LegacyTransaction,
    Mark,
    OrderInserted,
    OrderUpdated,
    Unreadable,
)


@pytest.fixture
def legacy(legacy_database: str) -> str:
    """A sandbox exchange with the publication and the slot."""
    install(legacy_database)
    run(create_slot(ours(legacy_database), SLOT))
    return legacy_database


def order_ids(transaction: LegacyTransaction) -> list[int]:
    inserted = [one for one in transaction.changes if isinstance(one, OrderInserted)]
    return [one.order.order_id for one in inserted]


async def wait_a_turn() -> None:
    """Lets the stream's own task run."""
    await asyncio.sleep(0)


def test_transactions_come_whole_and_in_commit_order(legacy: str) -> None:
    with application(legacy) as early, application(legacy) as late:
        early.execute("BEGIN")
        first = insert_order(early)
        with late.transaction():
            second = insert_order(late)
            late.execute(INSERT_TRADE)
        third = insert_order(early)
        early.execute("COMMIT")

        async def main() -> None:
            async with streaming(ours(legacy)) as stream:
                one, other = await take(stream, 2)
                assert order_ids(one) == [second]
                assert isinstance(one.changes[1], FillInserted)
                assert order_ids(other) == [first, third]
                assert one.end_lsn <= other.commit_lsn < other.end_lsn

        run(main())


WRITERS = 3
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["write", "commit", "roll back"]), st.integers(0, WRITERS - 1)),
        st.tuples(st.sampled_from(["take", "take and confirm", "cut", "restart"]), st.just(0)),
    ),
    max_size=30,
)


class Consumer:
    """One that keeps its effects and its watermark in one place, as a transaction would."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.effects: list[list[int]] = []
        self.watermark = 0
        self.stream = self._stream()

    def _stream(self) -> ChangeStream:
        return ChangeStream(self.url, SLOT, PUBLICATION, MAPPING, SCALES)

    async def apply_one(self, *, confirm: bool) -> LegacyTransaction:
        (transaction,) = await take(self.stream, 1)
        self.effects.append(order_ids(transaction))
        self.watermark = transaction.end_lsn
        if confirm:
            self.stream.confirm(self.watermark)
        return transaction

    async def restart(self) -> None:
        await self.stream.close()
        self.stream = self._stream()
        await self.stream.open(self.watermark)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
@example(
    steps=[
        *(("write", 0), ("write", 1), ("commit", 1), ("commit", 0)),
        *(("take", 0), ("take", 0), ("cut", 0), ("write", 2), ("commit", 2), ("take", 0)),
        *(("restart", 0), ("take and confirm", 0), ("cut", 0)),
    ]
)
def test_any_interleaving_is_applied_whole_in_commit_order_and_exactly_once(
    legacy: str, steps: list[tuple[str, int]]
) -> None:
    run(drop_slot(ours(legacy), SLOT))
    run(create_slot(ours(legacy), SLOT))

    async def main(writers: list[psycopg.Connection[Any]]) -> None:
        committed: list[list[int]] = []
        written: list[list[int]] = [[] for _ in writers]
        consumer = Consumer(ours(legacy))
        await consumer.stream.open()

        async def step(action: str, n: int) -> None:
            if action == "write":
                if not written[n]:
                    writers[n].execute("BEGIN")
                written[n].append(insert_order(writers[n]))
            elif action in ("commit", "roll back") and written[n]:
                writers[n].execute("COMMIT" if action == "commit" else "ROLLBACK")
                if action == "commit":
                    committed.append(written[n])
                written[n] = []
            elif action == "cut":
                cut(legacy)
            elif action == "restart":
                await consumer.restart()
            elif action.startswith("take") and len(consumer.effects) < len(committed):
                await consumer.apply_one(confirm="confirm" in action)

        for action, n in steps:
            await step(action, n)
        for n in range(WRITERS):
            await step("commit", n)
        await write_mark(consumer.url, "end")
        while not isinstance((await consumer.apply_one(confirm=False)).changes[0], Mark):
            pass
        await consumer.stream.close()
        assert consumer.effects[:-1] == committed

    with ExitStack() as stack:
        run(main([stack.enter_context(application(legacy)) for _ in range(WRITERS)]))


def test_a_cut_stream_goes_on_where_it_was_and_says_so(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with application(legacy) as app:
                first = insert_order(app)
                assert order_ids((await take(stream, 1))[0]) == [first]
                cut(legacy)
                second = insert_order(app)
                assert order_ids((await take(stream, 1))[0]) == [second]
            assert stream.status().reconnects == 1
            assert stream.status().connected
            assert stream.status().last_error

    run(main())


def test_what_was_confirmed_is_not_kept_and_what_was_not_comes_again(legacy: str) -> None:
    async def main() -> None:
        with application(legacy) as app:
            expected = [[insert_order(app)] for _ in range(3)]
        async with streaming(ours(legacy)) as stream:
            taken = await take(stream, 3)
            stream.confirm(taken[1].end_lsn)
        assert confirmed_lsn(legacy) == taken[1].end_lsn
        async with streaming(ours(legacy)) as stream:
            assert order_ids((await take(stream, 1))[0]) == expected[2]

    run(main())


def test_a_position_reaches_the_server_while_the_stream_runs(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with application(legacy) as app:
                insert_order(app)
            (transaction,) = await take(stream, 1)
            stream.confirm(transaction.end_lsn)
            while await asyncio.to_thread(confirmed_lsn, legacy) < transaction.end_lsn:
                pass

    run(main())


def test_what_was_not_delivered_cannot_be_confirmed(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with pytest.raises(ValueError, match="has not been delivered"):
                stream.confirm(2**60)

    run(main())


def test_other_tables_and_unknown_symbols_are_not_delivered_but_the_position_moves(
    legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PROGRESS_S", 0.0)

    async def main() -> None:
        before = confirmed_lsn(legacy)
        async with streaming(ours(legacy)) as stream:
            with application(legacy) as app:
                insert_order(app, market="DOGE-USD")
                app.execute("INSERT INTO members (email) VALUES ('new@example.com')")
            async for note in stream.transactions():
                assert note.changes == ()
                assert not note.ours
                stream.confirm(note.end_lsn)
                if stream.status().rows_of_unknown_symbols == 1 and note.end_lsn > before:
                    break
            await write_mark(ours(legacy), "m")
            (mark,) = await take(stream, 1)
            assert mark.end_lsn > note.end_lsn
        assert confirmed_lsn(legacy) >= note.end_lsn

    run(main())


def test_a_slow_consumer_bounds_what_is_read_ahead(
    legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "BACKLOG_CHANGES_MAX", 10)
    monkeypatch.setattr(changes, "TURN_MESSAGES_MAX", 5)

    async def main() -> None:
        with application(legacy) as app:
            expected = [[insert_order(app)] for _ in range(100)]
        async with streaming(ours(legacy)) as stream:
            taken: list[list[int]] = []
            while len(taken) < 100:
                (transaction,) = await take(stream, 1)
                taken.append(order_ids(transaction))
                stream.confirm(transaction.end_lsn)
                assert stream.status().backlog_changes <= 15
            assert taken == expected

    run(main())


def test_the_schema_may_change_while_streaming(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with application(legacy) as app:
                insert_order(app)
                app.execute("ALTER TABLE orders ADD COLUMN note text DEFAULT 'x'")
                insert_order(app)
                app.execute("ALTER TABLE orders ALTER COLUMN note SET STORAGE EXTERNAL")
                app.execute("UPDATE orders SET note = repeat('y', 100000) WHERE id = 1")
                app.execute("UPDATE orders SET state = 2 WHERE id = 1")
                app.execute("ALTER TABLE orders RENAME COLUMN price TO limit_price")
                app.execute("UPDATE orders SET state = 0 WHERE id = 1")
            kinds = [type(one.changes[0]) for one in await take(stream, 5)]
            assert kinds == [OrderInserted, OrderInserted, OrderUpdated, OrderUpdated, Unreadable]

    run(main())


def test_a_truncated_table_is_told(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with application(legacy) as app:
                app.execute("TRUNCATE orders")
            (transaction,) = await take(stream, 1)
            (change,) = transaction.changes
            assert isinstance(change, Unreadable)
            assert (change.symbol, change.reason) == ("", "orders was truncated")

    run(main())


def test_times_are_read_whatever_the_databases_own_style(legacy: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(legacy)["dbname"]
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET datestyle = 'SQL, DMY'".encode())
        admin.execute(f"ALTER DATABASE {name} SET timezone = 'Asia/Kolkata'".encode())

    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with application(legacy) as app:
                order_id = insert_order(app)
                app.execute("UPDATE orders SET created_at = '2015-05-01 00:00:00.25'")
            _, updated = await take(stream, 2)
            (change,) = updated.changes
            assert isinstance(change, OrderUpdated)
            assert change.order.order_id == order_id
            assert change.order.created_at_us == 1_430_438_400_250_000

    run(main())


def test_an_impatient_server_is_answered(legacy: str) -> None:
    name = psycopg.conninfo.conninfo_to_dict(legacy)["dbname"]
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {name} SET wal_sender_timeout = '500ms'".encode())

        async def main() -> None:
            async with streaming(ours(legacy)) as stream:
                query = (
                    "SELECT true FROM pg_stat_replication"
                    " JOIN pg_replication_slots ON pid = active_pid"
                    " WHERE slot_name = %s AND reply_time - backend_start > '1200ms'"
                )
                while admin.execute(query, [SLOT]).fetchone() is None:
                    await wait_a_turn()
                    assert stream.status().reconnects == 0

        run(main())


def test_a_server_that_falls_silent_is_left_and_read_again_when_it_speaks(
    legacy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PING_S", 0.1)
    monkeypatch.setattr(changes, "SILENCE_S", 0.4)
    monkeypatch.setattr(replication, "CLOSE_S", 0.1)

    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with psycopg.connect(legacy) as admin:
                row = admin.execute(
                    "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s", [SLOT]
                ).fetchone()
                assert row is not None
            os.kill(row[0], signal.SIGSTOP)
            try:
                while "no sign of life" not in stream.status().last_error:
                    await wait_a_turn()
            finally:
                os.kill(row[0], signal.SIGCONT)
            with application(legacy) as app:
                order_id = insert_order(app)
            assert order_ids((await take(stream, 1))[0]) == [order_id]
            assert stream.status().reconnects == 1

    run(main())


def test_a_server_that_goes_down_is_not_held_up_and_is_read_again_when_it_is_back(
    server_directory: Path,
) -> None:
    server = EmbeddedPostgres(server_directory / "restarting", port=free_port(), fsync=False)
    server.start()
    try:
        provision(server.url())
        exchange = server.url("exchange")
        install(exchange)

        async def main() -> None:
            await create_slot(ours(exchange), SLOT)
            async with streaming(ours(exchange)) as stream:
                with application(exchange) as app:
                    insert_order(app)
                stream.confirm((await take(stream, 1))[0].end_lsn)
                reader = asyncio.create_task(_confirm_all(stream))
                await asyncio.to_thread(server.stop)
                # Fast shutdown waits until the stream has confirmed; forced, it would be immediate.
                assert "immediate shutdown" not in server.log.read_text()
                await asyncio.to_thread(server.start)
                with application(exchange) as app:
                    second = insert_order(app)
                assert order_ids(await reader) == [second]

        run(main())
    finally:
        server.remove()


async def _confirm_all(stream: ChangeStream) -> LegacyTransaction:
    """The next transaction that holds something; notes of progress are confirmed on the way."""
    async for transaction in stream.transactions():
        stream.confirm(transaction.end_lsn)
        if transaction.changes:
            return transaction
    raise AssertionError("the stream ended")
