"""The change stream of a real server: order, wholeness, and what happens when something dies."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import psycopg
import pytest
from legacy_side import (
    SLOT,
    application,
    confirmed_lsn,
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
from shadow.legacy.changes import ChangeStream, create_slot
from shadow.legacy.snapshot import write_mark
from shadow.operation import (
    LegacyTransaction,
    OrderInserted,
    OrderUpdated,
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


def test_the_position_moves_while_only_another_database_is_written(
    legacy: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "PROGRESS_S", 0.0)

    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with psycopg.connect(database, autocommit=True) as other:
                other.execute("CREATE TABLE notes AS SELECT 1 AS n")
                (end,) = other.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchone()  # type: ignore[misc]
                async for note in stream.transactions():
                    stream.confirm(note.end_lsn)
                    if note.end_lsn >= end:
                        break
        assert confirmed_lsn(legacy) >= end

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
