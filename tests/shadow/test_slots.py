"""The replication slot and what must be in place: made once, owned by one, never silently short."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from change_sources import Streaming, ready
from legacy_side import (
    MAPPING,
    PUBLICATION,
    SCALES,
    SLOT,
    application,
    cut,
    insert_order,
    install,
    ours,
    run,
    streaming,
    take,
)

from bridge.sandbox import servers
from bridge.sandbox.provision import as_role, provision
from bridge.sandbox.servers import EmbeddedPostgres
from shadow.errors import (
    ChangesLost,
    LegacyNotReady,
    LegacyUnavailable,
    SlotBusy,
    SlotMissing,
    SlotNotCreated,
)
from shadow.legacy import source
from shadow.legacy.changes import ChangeStream, create_slot, drop_slot
from shadow.legacy.publication import Published
from shadow.legacy.snapshot import write_mark
from shadow.operation import (
    Mark,
    OrderInserted,
)


@pytest.fixture
def legacy(legacy_database: str) -> str:
    """A sandbox exchange with the publication and the slot."""
    install(legacy_database)
    run(create_slot(ours(legacy_database), SLOT))
    return legacy_database


def test_a_slot_is_made_once_and_dropped_once(legacy_database: str) -> None:
    url = ours(legacy_database)
    assert run(create_slot(url, SLOT))
    assert not run(create_slot(url, SLOT))
    assert run(drop_slot(url, SLOT))
    assert not run(drop_slot(url, SLOT))


def test_a_slot_that_waits_for_an_open_writer_names_it(legacy: str) -> None:
    run(drop_slot(ours(legacy), SLOT))
    with application(legacy) as app:
        app.execute("BEGIN")
        insert_order(app)
        with pytest.raises(SlotNotCreated, match=rf"pid {app.info.backend_pid} \(exchange\)"):
            run(create_slot(ours(legacy), SLOT, timeout_s=0.3))
        app.execute("ROLLBACK")
    assert run(create_slot(ours(legacy), SLOT))


def test_a_slot_that_is_read_is_not_dropped(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)):
            with pytest.raises(SlotBusy, match="stop `railswitch shadow` first"):
                await drop_slot(ours(legacy), SLOT, busy_s=0)

    run(main())


def test_a_slot_dropped_while_the_stream_is_cut_ends_it_with_that_reason(legacy: str) -> None:
    async def main() -> None:
        async with streaming(ours(legacy)) as stream:
            with psycopg.connect(legacy, autocommit=True) as admin:
                # The slot's name is taken away from under it, whoever is quicker.
                while True:
                    cut(legacy)
                    try:
                        admin.execute("SELECT pg_drop_replication_slot(%s)", [SLOT])
                        break
                    except psycopg.errors.ObjectInUse:
                        continue
            with pytest.raises(SlotMissing):
                await take(stream, 1)
            await create_slot(ours(legacy), SLOT)
            await stream.open()
            await write_mark(ours(legacy), "m")
            assert (await take(stream, 1))[0].changes == (Mark(id="m"),)

    run(main())


def test_a_slot_of_that_name_in_another_database_is_not_taken_for_ours(
    legacy_database: str, database: str
) -> None:
    run(create_slot(database, SLOT))
    with pytest.raises(LegacyNotReady, match="so it is not ours: choose another name"):
        run(create_slot(ours(legacy_database), SLOT))


# --- what must be in place -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("DROP PUBLICATION railswitch", "publication railswitch does not exist"),
        ("ALTER PUBLICATION railswitch DROP TABLE trades", "does not hold trades"),
        (
            "ALTER PUBLICATION railswitch SET TABLE orders (id), trades",
            r"columns .*price.* that mapping.orders names",
        ),
        (
            "ALTER PUBLICATION railswitch SET TABLE orders WHERE (id > 5), trades",
            "all rows of orders .* for it has a filter",
        ),
        ("ALTER PUBLICATION railswitch SET (publish = 'insert')", "leaves out"),
    ],
)
def test_an_unsuitable_publication_is_named(legacy: str, statement: str, what: str) -> None:
    async def main() -> None:
        with pytest.raises(LegacyNotReady, match=what):
            async with streaming(ours(legacy)):
                pass

    with application(legacy) as app:
        app.execute(statement.encode())
    run(main())


def test_a_publication_younger_than_the_slot_has_lost_changes(legacy: str) -> None:
    async def main() -> None:
        with application(legacy) as app:
            app.execute("DROP PUBLICATION railswitch")
            insert_order(app)
        install(legacy)
        with pytest.raises(ChangesLost, match="orders, trades came into publication railswitch"):
            async with streaming(ours(legacy)):
                pass
        await drop_slot(ours(legacy), SLOT)
        await create_slot(ours(legacy), SLOT)
        async with streaming(ours(legacy)):
            pass

    run(main())


def test_a_publication_that_left_updates_out_for_a_while_has_lost_changes(legacy: str) -> None:
    """In this process, whatever the slot has come to; and in the next one."""

    def change() -> None:
        with application(legacy) as app:
            app.execute("ALTER PUBLICATION railswitch SET (publish = 'insert')")
            app.execute("ALTER PUBLICATION railswitch SET (publish = 'insert, update, delete')")

    async def main() -> None:
        published = Published()
        async with streaming(ours(legacy), published=published):
            pass
        change()
        for known in (published, None):
            with pytest.raises(ChangesLost, match="publication railswitch was changed"):
                async with streaming(ours(legacy), published=known):
                    pass

    run(main())


def test_what_install_finds_as_it_must_be_is_not_changed(legacy: str) -> None:
    async def main() -> None:
        published = Published()
        async with streaming(ours(legacy), published=published):
            pass
        install(legacy)
        async with streaming(ours(legacy), published=published):
            pass

    run(main())


def test_a_slot_beside_an_older_one_that_nobody_reads_can_be_read(legacy_database: str) -> None:
    """The server lets it begin with that one's old view of the catalogue."""

    async def main() -> None:
        url = ours(legacy_database)
        await create_slot(url, "forgotten")
        install(legacy_database)
        side = Streaming(legacy_database)
        source = side.sources().changes()
        await source.open()
        await source.close()
        await drop_slot(url, "forgotten")

    run(main())


def test_a_role_without_replication_is_refused_with_the_servers_words(legacy: str) -> None:
    async def main() -> None:
        with pytest.raises(LegacyUnavailable, match="a role with REPLICATION"):
            async with streaming(as_role(legacy, "exchange")):
                pass
        with pytest.raises(LegacyNotReady, match="ALTER ROLE … REPLICATION"):
            await create_slot(as_role(legacy, "exchange"), "another")

    run(main())


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/x", "postgresql://%%%", "nonsense"])
def test_an_unreachable_database_is_named_without_its_password(url: str) -> None:
    stream = ChangeStream(url.replace("//", "//u:secret@"), SLOT, PUBLICATION, MAPPING, SCALES)
    with pytest.raises(LegacyUnavailable) as refused:
        run(stream.open())
    assert "secret" not in str(refused.value)


def test_wal_level_must_be_logical(server_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(servers._POSTGRES_SETTINGS, "wal_level", "replica")
    server = EmbeddedPostgres(server_directory / "replica", fsync=False)
    server.start()
    try:
        with pytest.raises(LegacyNotReady, match="set wal_level = logical"):
            run(create_slot(server.url(), SLOT))
        stream = ChangeStream(server.url(), SLOT, PUBLICATION, MAPPING, SCALES)
        with pytest.raises(LegacyNotReady, match="set wal_level = logical"):
            run(stream.open())
    finally:
        server.remove()


def test_a_slot_that_the_server_gave_up_is_told_and_made_anew(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(servers._POSTGRES_SETTINGS, "max_slot_wal_keep_size", "1MB")
    monkeypatch.setattr(source, "INSPECT_S", 0.02)
    server = EmbeddedPostgres(server_directory / "short", fsync=False)
    server.start()
    try:
        provision(server.url())
        side = ready(Streaming, server.url("exchange"))

        async def main() -> None:
            own = side.sources().changes()
            await own.open()
            with application(side.database) as app:
                insert_order(app)
                (seen,) = await take(own, 1)
                with psycopg.connect(side.database, autocommit=True) as admin:
                    for _ in range(4):
                        admin.execute("SELECT pg_logical_emit_message(false, 'x', 'x')")
                        admin.execute("SELECT pg_switch_wal()")
                    admin.execute("CHECKPOINT")
                with pytest.raises(ChangesLost, match="the server gave up replication slot"):
                    await take(own, 1)
                with pytest.raises(ChangesLost, match="was made again") as lost:
                    await own.open(seen.end_lsn)
                await own.open(lost.value.slot_lsn)
                expected = insert_order(app)
                ((change,),) = [one.changes for one in await take(own, 1)]
                assert isinstance(change, OrderInserted)
                assert change.order.order_id == expected
                await own.close()

        run(main())
    finally:
        server.remove()
