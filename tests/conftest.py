"""Real servers for the tests, started once: a fresh database or an empty Redis for each test."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from running import create_database, fresh_database, running_monolith

from bridge.sandbox.servers import EmbeddedPostgres, EmbeddedRedis

# The same examples every time, so that a change is judged by itself; `RAILSWITCH_TESTS=explore`
# draws new ones, and prints how to have them again. `RAILSWITCH_TESTS=long`: the same ones, and as
# many more as tests/engine/test_market_flows.py says.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("long", derandomize=True, deadline=None)
settings.register_profile("explore", deadline=None, print_blob=True)
settings.load_profile(os.environ.get("RAILSWITCH_TESTS") or "same")


# Worlds of processes, with holds and budgets: they get the machine for themselves where others
# run two at a time (`.ci/run`).
ALONE = re.compile(
    r"tests/(acceptance|conformance)/"
    r"|tests/bridge/test_(flip|rollback|recover|watch|control|supervise|workers|writeback|bench)"
    r"|tests/bridge/test_proxy_(flip|master|worker|engine_kill)"
    r"|tests/engine/test_service|tests/cli/test_up|tests/rails/test_rails_migration"
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ALONE.search(item.nodeid):
            item.add_marker("alone")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "alone: nothing else may use the machine meanwhile")
    config.addinivalue_line(
        "markers", "monolith_options(*options): more options for the `monolith` fixture's process"
    )


def pytest_report_header() -> list[str]:
    return [f"matching engine: {_engine_in_use()}", f"planes of the proxy: {_planes_there()}"]


def _engine_in_use() -> str:
    wanted = os.environ.get("RAILSWITCH_ENGINE") or "rust"
    try:
        from engine.market import create_market

        return create_market(wanted).implementation
    except Exception as error:
        return f"{wanted} asked for, unavailable: {error}"


def _planes_there() -> str:
    try:
        import bridge.proxy._core  # noqa: F401
    except Exception as error:
        return f"python; rust is unavailable: {error}"
    return "python, rust"


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
    with fresh_database(postgres_server, "template1") as url:
        yield url


@pytest.fixture(scope="session")
def control_template(postgres_server: EmbeddedPostgres) -> str:
    from migrations import upgrade

    name = create_database(postgres_server, "template1")
    upgrade(postgres_server.url(name))
    return name


@pytest.fixture
def control_database(postgres_server: EmbeddedPostgres, control_template: str) -> Iterator[str]:
    """URL of a fresh control store, migrated."""
    with fresh_database(postgres_server, control_template) as url:
        yield url


@pytest.fixture(scope="session")
def legacy_template(postgres_server: EmbeddedPostgres) -> str:
    from bridge.sandbox.provision import provision

    provision(postgres_server.url(), database="exchange")
    return "exchange"


@pytest.fixture
def legacy_database(postgres_server: EmbeddedPostgres, legacy_template: str) -> Iterator[str]:
    """URL, as superuser, of a fresh sandbox exchange: schema, markets, members, no orders.

    `as_role(url, "exchange")` and `as_role(url, "railswitch")` of `bridge.sandbox.provision` give
    the application's and our own URL of it.
    """
    with fresh_database(postgres_server, legacy_template, owner="exchange") as url:
        yield url


@pytest.fixture
def monolith(legacy_database: str, request: pytest.FixtureRequest) -> Iterator[str]:
    """Base URL of a running sandbox monolith, two workers, on `legacy_database`.

    Mark the test with `monolith_options("--fault", "priority:ETH-USD:0.5")` for more options.
    """
    marker = request.node.get_closest_marker("monolith_options")
    with running_monolith(legacy_database, *(marker.args if marker else ())) as url:
        yield url
