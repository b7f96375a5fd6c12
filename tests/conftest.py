"""Real servers for the tests, started once: a fresh database or an empty Redis for each test."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from bridge.sandbox.servers import EmbeddedPostgres, EmbeddedRedis

_ROOT = Path(__file__).parents[1]
_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "monolith_options(*options): more options for the `monolith` fixture's process"
    )


def pytest_report_header() -> str:
    return f"matching engine: {_engine_in_use()}"


def _engine_in_use() -> str:
    wanted = os.environ.get("RAILSWITCH_ENGINE") or "rust"
    try:
        from engine.market import create_market

        return create_market(wanted).implementation
    except Exception as error:
        return f"{wanted} asked for, unavailable: {error}"


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Not pytest's own directory: PostgreSQL's user couldn't enter that when we are root."""
    directory = Path(tempfile.mkdtemp(prefix="railswitch-tests-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_directory / "postgres", fsync=False)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def redis_server(server_directory: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(server_directory / "redis")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """Of an empty Redis. One test at a time: the next one that asks empties it again."""
    import redis

    with redis.Redis.from_url(redis_server.url) as connection:
        connection.flushall()
    return redis_server.url


@pytest.fixture
def database(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """URL of a fresh, empty database, as its superuser."""
    yield from _fresh_database(postgres_server, "template1")


@pytest.fixture(scope="session")
def control_template(postgres_server: EmbeddedPostgres) -> str:
    from migrations import upgrade

    name = _create_database(postgres_server, "template1")
    upgrade(postgres_server.url(name))
    return name


@pytest.fixture
def control_database(postgres_server: EmbeddedPostgres, control_template: str) -> Iterator[str]:
    """URL of a fresh control store, migrated."""
    yield from _fresh_database(postgres_server, control_template)


@pytest.fixture(scope="session")
def legacy_template(postgres_server: EmbeddedPostgres) -> str:
    from bridge.sandbox.provision import provision

    name = f"exchange{next(_numbers)}"
    provision(postgres_server.url(), database=name)
    return name


@pytest.fixture
def legacy_database(postgres_server: EmbeddedPostgres, legacy_template: str) -> Iterator[str]:
    """URL, as superuser, of a fresh sandbox exchange: schema, markets, members, no orders.

    `as_role(url, "exchange")` and `as_role(url, "railswitch")` of `bridge.sandbox.provision` give
    the application's and our own URL of it.
    """
    yield from _fresh_database(postgres_server, legacy_template, owner="exchange")


@pytest.fixture
def monolith(legacy_database: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Base URL of a running sandbox monolith, two workers, on `legacy_database`.

    Mark the test with `monolith_options("--fault", "priority:ETH-USD:0.5")` for more options.
    """
    marker = request.node.get_closest_marker("monolith_options")
    with running_monolith(legacy_database, *(marker.args if marker else ())) as url:
        yield url


@contextmanager
def running_monolith(database_url: str, *options: str) -> Iterator[str]:
    from bridge.sandbox.provision import APPLICATION_ROLE, as_role

    url = as_role(database_url, APPLICATION_ROLE)
    command = [sys.executable, "-m", "bridge.sandbox.monolith", "--database-url", url]
    process = subprocess.Popen(
        [*command, "--port", "0", *options], stdout=subprocess.PIPE, text=True, cwd=_ROOT
    )
    with process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            assert base_url, "the monolith did not start; its reason is on stderr"
            yield base_url
        finally:
            process.terminate()


def _fresh_database(
    server: EmbeddedPostgres, template: str, owner: str = "postgres"
) -> Iterator[str]:
    name = _create_database(server, template, owner)
    yield server.url(name)
    _drop_database(server, name)


def _create_database(server: EmbeddedPostgres, template: str, owner: str = "postgres") -> str:
    name = f"test{next(_numbers)}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement.format(*map(sql.Identifier, (name, template, owner))))
    return name


def _drop_database(server: EmbeddedPostgres, name: str) -> None:
    """With the replication slots that a test left in it: a server has only so many."""
    if server.pid is None:
        return
    with psycopg.connect(server.url(), autocommit=True) as connection:
        slots = connection.execute(
            "SELECT slot_name, pg_terminate_backend(active_pid, 5000)"
            " FROM pg_replication_slots WHERE database = %s",
            [name],
        ).fetchall()
        for slot, _ in slots:
            connection.execute(
                "SELECT pg_drop_replication_slot(slot_name)"
                " FROM pg_replication_slots WHERE slot_name = %s",
                [slot],
            )
        connection.execute(
            sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
        )
