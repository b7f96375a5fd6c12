"""Who has a transaction open that writes, asked of a real PostgreSQL, and its changes with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import psycopg
import pytest
from change_sources import WAYS, Streaming
from harness import BTC, World, play, shadow

from bridge.sandbox.provision import as_role
from shadow.legacy.writers import sampled
from shadow.writers import Writer, Writers

RAKE = "rake orders:close"
ORDER = f"""
    INSERT INTO orders (market_id, member_id, side, order_type, price, quantity,
                        remaining_quantity, created_at, updated_at)
    VALUES ('{BTC}', 1, 0, 0, 1, 1, 1, now(), now())"""
APPLICATION, WATCHER = "an_application", "a_watcher"


@pytest.fixture
def watched(database: str) -> Iterator[str]:
    """A database with a table, a role that writes to it and one that may do nothing."""
    with psycopg.connect(database, autocommit=True) as connection:
        for statement in (
            f"CREATE ROLE {APPLICATION} LOGIN",
            f"CREATE ROLE {WATCHER} LOGIN",
            "CREATE TABLE orders (id bigserial PRIMARY KEY)",
            f"GRANT ALL ON orders, orders_id_seq TO {APPLICATION}",
        ):
            connection.execute(statement)
    yield database
    with psycopg.connect(database, autocommit=True) as connection:
        for role in (APPLICATION, WATCHER):
            connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


def writing(url: str, application: str) -> tuple[psycopg.Connection, int]:
    """A session that has written an order and not committed it, and its transaction."""
    connection = psycopg.connect(url, application_name=application)
    row = connection.execute(
        "INSERT INTO orders DEFAULT VALUES RETURNING pg_current_xact_id()::text"
    ).fetchone()
    assert row is not None
    return connection, int(row[0])


def watch(url: str, until: Callable[[Writers], bool]) -> Writers:
    async def main() -> Writers:
        async with sampled(url) as found, asyncio.timeout(10):
            while not until(found):  # noqa: ASYNC110  it looks by itself, again and again
                await asyncio.sleep(0.01)
            return found

    return asyncio.run(main())


def test_a_transaction_that_is_held_open_is_its_sessions(watched: str) -> None:
    session, xid = writing(watched, RAKE)
    with session:
        found = watch(as_role(watched, WATCHER), lambda one: one.of(xid) is not None)
    assert found.of(xid) == Writer(urlsplit(watched).username or "", RAKE)
    assert found.of(xid + 1) is None


def test_it_takes_no_right_to_see_another_roles_transaction(watched: str) -> None:
    session, xid = writing(as_role(watched, APPLICATION), "console")
    with session:
        found = watch(as_role(watched, WATCHER), lambda one: one.of(xid) is not None)
    assert found.of(xid) == Writer(APPLICATION, "console")


def test_sessions_that_only_read_and_other_databases_are_not_writers(
    watched: str, control_database: str
) -> None:
    elsewhere = psycopg.connect(control_database)
    elsewhere.execute("SELECT pg_current_xact_id()")
    reader = psycopg.connect(watched, application_name="a report")
    reader.execute("SELECT count(*) FROM orders")
    session, xid = writing(watched, RAKE)
    with elsewhere, reader, session:
        found = watch(as_role(watched, WATCHER), lambda one: one.of(xid) is not None)
    assert [writer.application for writer in found.take_seen()] == [RAKE]


def test_a_lost_connection_is_opened_again(
    watched: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("shadow.legacy.writers.RECONNECT_BACKOFF_S_MAX", 0.01)
    first, one = writing(watched, RAKE)
    second = psycopg.connect(watched, application_name="console")

    async def main() -> None:
        async with sampled(as_role(watched, WATCHER)) as found, asyncio.timeout(10):
            while found.of(one) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            first.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'railswitch writers'"
            )
            row = second.execute("SELECT pg_current_xact_id()::text").fetchone()
            assert row is not None
            while found.of(int(row[0])) is None:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    with first, second:
        asyncio.run(main())
    assert "dark operations have no writer meanwhile" in caplog.text


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_the_changes_bring_the_same_transaction(
    control_database: str, legacy_database: str, way: type[Streaming]
) -> None:
    """A rake task holds its transaction open, and writes its order behind a savepoint."""
    side = way(legacy_database)
    side.install()

    async def scenario(world: World) -> None:
        await shadow(world)
        async with sampled(side.url) as world.writers:
            sources = side.sources()
            pipeline = world.pipeline(changes=sources.changes, snapshots=sources.snapshots())
            stop = asyncio.Event()
            task = asyncio.create_task(pipeline.run(stop))
            await world.loaded()
            task_session = psycopg.connect(
                as_role(legacy_database, "exchange"), application_name=RAKE
            )
            with task_session, task_session.transaction():
                row = task_session.execute("SELECT pg_current_xact_id()::text").fetchone()
                assert row is not None
                with task_session.transaction():
                    task_session.execute(ORDER)
                await world.happened(lambda: world.writers.of(int(row[0])) is not None)
            found = await world.until(lambda one: one.counts.dark == 1)
            stop.set()
            await task
            await pipeline._store.close()
        (writer,) = found.dark_writers
        assert (writer.role, writer.application, writer.count) == ("exchange", RAKE, 1)

    play(control_database, scenario)
