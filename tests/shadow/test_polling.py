"""What only the reader that polls has: its table, its windows, and what it leaves behind."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import psycopg
import pytest
from change_sources import Polling, ready
from legacy_side import MAPPING, SCALES, SLOT, application, insert_order, run, take
from test_sources import order_ids, watermark

from bridge.config import WalConfig
from bridge.sandbox import servers
from bridge.sandbox.processes import free_port
from bridge.sandbox.provision import provision
from bridge.sandbox.servers import EmbeddedPostgres
from shadow.errors import ChangesLost, LegacyNotReady, SlotNotCreated, UndecodableChange
from shadow.legacy import polling, polling_slots
from shadow.legacy.database import connected
from shadow.legacy.polled import Polled, Translator
from shadow.legacy.polling import ChangePoll


@pytest.fixture
def side(legacy_database: str) -> Polling:
    found = ready(Polling, legacy_database)
    assert isinstance(found, Polling)
    return found


def rows(side: Polling, query: str) -> list[Any]:
    with psycopg.connect(side.database) as admin:
        return admin.execute(query.encode()).fetchall()


def kept(side: Polling) -> int:
    return int(rows(side, "SELECT count(*) FROM railswitch.changes")[0][0])


def test_what_is_recorded_is_deleted_and_nothing_else(
    side: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling, "CLEAN_S", 0.0)
    monkeypatch.setattr(polling, "CLEAN_WINDOWS_MAX", 1)

    async def main() -> None:
        with application(side.database) as app:
            async with side.reading() as reading:
                for _ in range(3):
                    insert_order(app)
                    (seen,) = await take(reading, 1)
                reading.confirm(seen.end_lsn)
                while await asyncio.to_thread(kept, side):
                    pass
                insert_order(app)
                await take(reading, 1)
            assert kept(side) == 1
            assert rows(side, "SELECT count(*) FROM railswitch.change_windows") == [(1,)]

    run(main())


def test_nothing_is_written_while_no_slot_wants_it(side: Polling) -> None:
    with application(side.database) as app:
        insert_order(app)
        assert kept(side) == 1
        assert run(side.drop_slot())
        assert kept(side) == 0
        insert_order(app)
        run(side.write_mark("m"))
        assert kept(side) == 0


def test_two_slots_have_everything_each_and_what_both_have_had_is_deleted(side: Polling) -> None:
    async def main() -> None:
        await polling_slots.create_slot(side.url, "other", MAPPING)
        other = ChangePoll(side.url, "other", MAPPING, SCALES)
        with application(side.database) as app:
            expected = [[insert_order(app)] for _ in range(3)]
        async with side.reading() as reading:
            taken = await take(reading, 3)
            reading.confirm(taken[-1].end_lsn)
        assert kept(side) == 3
        await other.open()
        assert [order_ids(one) for one in await take(other, 3)] == expected
        await other.close()
        assert kept(side) == 3
        assert await polling_slots.drop_slot(side.url, "other")
        assert kept(side) == 0
        async with side.reading(taken[-1].end_lsn) as reading:
            with application(side.database) as app:
                last = insert_order(app)
            assert order_ids((await take(reading, 1))[0]) == [last]

    run(main())


def test_a_long_absence_comes_in_several_windows(
    side: Polling, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(polling_slots, "WINDOW_TRANSACTIONS_MAX", 4)
    monkeypatch.setattr(polling, "POLL_WINDOWS_MAX", 1)
    with application(side.database) as app:
        expected = [[insert_order(app)] for _ in range(11)]

    async def main() -> None:
        async with side.reading() as reading:
            taken = await take(reading, 7)
            reading.confirm(taken[-1].end_lsn)  # in the middle of a window
        async with side.reading(taken[-1].end_lsn) as reading:
            taken += await take(reading, 4)
            assert [order_ids(one) for one in taken] == expected

    run(main())
    assert rows(side, "SELECT array_length(xids, 1) FROM railswitch.change_windows") == [(4,), (3,)]


def test_a_slot_that_waits_for_an_open_writer_names_it(side: Polling) -> None:
    run(side.drop_slot())
    with application(side.database) as app:
        app.execute("BEGIN")
        insert_order(app)
        making = polling_slots.create_slot(side.url, SLOT, MAPPING, timeout_s=0.3)
        with pytest.raises(SlotNotCreated, match=rf"pid {app.info.backend_pid} \(exchange\)"):
            run(making)
        app.execute("ROLLBACK")
        insert_order(app)
        assert kept(side) == 0, "nobody would ever delete it"
    run(side.create_slot())


def test_who_is_killed_while_a_slot_is_made_leaves_nothing_for_the_next_one(side: Polling) -> None:
    run(side.drop_slot())
    with psycopg.connect(side.database, autocommit=True) as admin:
        admin.execute("SELECT setval('railswitch.capturing', 2)")
    with application(side.database) as app:
        insert_order(app)
        assert kept(side) == 1
        run(side.create_slot())
        assert kept(side) == 0


def test_changes_are_found_by_index_alone_whatever_lies_between(side: Polling) -> None:
    """Behind an old open transaction the dead rows of hours may lie, which no vacuum can take."""
    query = polling_slots.find(SLOT, commit_times=False).as_string()
    with psycopg.connect(side.database) as admin:
        admin.execute("SET enable_seqscan = off")
        plan = "\n".join(row[0] for row in admin.execute(f"EXPLAIN {query}".encode()))
    assert "BitmapOr" in plan
    assert plan.count("Bitmap Index Scan on changes_pkey") == 2


def test_an_order_that_a_trigger_of_the_monolith_changes_once_more_is_inserted_first(
    side: Polling,
) -> None:
    """Triggers fire by name, and the change within one is written down before it has ended."""
    with application(side.database) as app:
        app.execute(
            "CREATE FUNCTION a_match() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
            " UPDATE orders SET lock_version = 2 WHERE id = NEW.id; RETURN NULL; END $$"
        )
        app.execute(
            "CREATE TRIGGER a_match AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION a_match()"
        )
        insert_order(app)
    assert rows(side, "SELECT op FROM railswitch.changes ORDER BY seq") == [("I",), ("U",)]


def test_what_was_read_and_an_old_snapshot_keeps_is_not_kept_for_us(side: Polling) -> None:
    async def main() -> None:
        with psycopg.connect(side.database) as old, application(side.database) as app:
            old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM railswitch.changes")
            async with side.reading() as reading:
                for _ in range(200):
                    insert_order(app)
                taken = await take(reading, 200)
                reading.confirm(taken[-1].end_lsn)
            async with connected(side.url) as connection:
                while True:
                    found = await polling_slots.standing(connection, side.url, SLOT, MAPPING)
                    if found.retained_bytes == 0:
                        return

    run(main())


@pytest.mark.parametrize(
    "statement",
    [
        'DROP TRIGGER "0_railswitch_capture" ON orders',
        'ALTER TABLE trades DISABLE TRIGGER "0_railswitch_capture"',
        "ALTER TABLE trades DISABLE TRIGGER ALL; ALTER TABLE trades ENABLE TRIGGER ALL",
        "DROP TRIGGER railswitch_capture ON railswitch.fence",
    ],
)
def test_a_trigger_that_is_missing_is_an_error_that_says_what_to_do(
    side: Polling, statement: str
) -> None:
    async def main() -> None:
        known = await watermark(side)
        with application(side.database) as app:
            app.execute(statement.encode())
            with pytest.raises(LegacyNotReady, match="legacy install --polling --execute"):
                async with side.reading(known):
                    pass
            side.install()
        with pytest.raises(ChangesLost, match="were made again after slot"):
            async with side.reading(known):
                pass

    run(main())


def test_writers_need_no_privilege_of_ours_and_old_snapshots_are_captured(side: Polling) -> None:
    async def main() -> None:
        await side.drop_slot()
        with psycopg.connect(side.database, autocommit=True) as other:
            other.execute("DROP ROLE IF EXISTS clerk")
            other.execute("CREATE ROLE clerk")
            other.execute("GRANT SELECT, INSERT ON orders TO clerk")
            other.execute("GRANT USAGE ON SEQUENCE orders_id_seq TO clerk")
            other.execute("SET ROLE clerk")
            other.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            other.execute("SELECT FROM orders")  # its snapshot knows nothing of the slot
            await side.create_slot()
            expected = insert_order(other)
            other.execute("COMMIT")
            async with side.reading() as reading:
                assert order_ids((await take(reading, 1))[0]) == [expected]
            other.execute("RESET ROLE")
            other.execute("DROP OWNED BY clerk")
            other.execute("DROP ROLE clerk")

    run(main())


def test_a_database_that_was_set_back_begins_again_beyond_what_was_read(side: Polling) -> None:
    async def main() -> None:
        known = await watermark(side) + 2**33
        own = side.sources(WalConfig()).changes()
        with pytest.raises(ChangesLost, match="was made again") as lost:
            await own.open(known)
        assert lost.value.slot_lsn > known
        await own.open(lost.value.slot_lsn)
        with application(side.database) as app:
            expected = insert_order(app)
        (read,) = await take(own, 1)
        assert order_ids(read) == [expected]
        assert read.commit_lsn >= lost.value.slot_lsn
        await own.close()

    run(main())


def test_commit_times_order_what_did_not_wait_and_restarts_are_survived(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a server that has no logical decoding."""
    monkeypatch.setitem(servers._POSTGRES_SETTINGS, "track_commit_timestamp", "on")
    monkeypatch.setitem(servers._POSTGRES_SETTINGS, "wal_level", "replica")
    server = EmbeddedPostgres(server_directory / "timed", port=free_port(), fsync=False)
    server.start()
    try:
        provision(server.url())
        side = ready(Polling, server.url("exchange"))

        async def main() -> None:
            with application(side.database) as early, application(side.database) as late:
                early.execute("BEGIN")
                first = insert_order(early)
                second = insert_order(late)
                late.execute("BEGIN")
                third = insert_order(late)
                early.execute("COMMIT")
                late.execute("COMMIT")
            async with side.reading() as reading:
                taken = await take(reading, 3)
                assert [order_ids(one) for one in taken] == [[second], [first], [third]]
                times = [one.committed_at_us for one in taken]
                assert times == sorted(times)
                await asyncio.to_thread(server.stop)
                await asyncio.to_thread(server.start)
                with application(side.database) as app:
                    expected = insert_order(app)
                assert order_ids((await take(reading, 1))[0]) == [expected]

        run(main())
    finally:
        server.remove()


@pytest.mark.parametrize(
    "polled",
    [
        Polled("orders", "I", None, b"{"),
        Polled("orders", "I", None, b"[1]"),
        Polled("members", "I", None, b"{}"),
    ],
)
def test_a_row_that_is_none_of_ours_is_no_silence(polled: Polled) -> None:
    with pytest.raises(UndecodableChange, match=r"railswitch\.changes"):
        Translator(MAPPING).messages(polled)
