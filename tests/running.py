"""What several fixtures need: fresh databases, and the sandbox monolith as a process."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql

from bridge.sandbox.provision import APPLICATION_ROLE, as_role
from bridge.sandbox.servers import EmbeddedPostgres

ROOT = Path(__file__).parents[1]
_numbers = itertools.count(1)


def create_database(server: EmbeddedPostgres, template: str, owner: str = "postgres") -> str:
    """The name of a new copy of `template`."""
    name = f"test{next(_numbers)}"
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}")
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute(statement.format(*map(sql.Identifier, (name, template, owner))))
    return name


@contextmanager
def fresh_database(
    server: EmbeddedPostgres, template: str, owner: str = "postgres"
) -> Iterator[str]:
    """Its URL, as superuser."""
    name = create_database(server, template, owner)
    try:
        yield server.url(name)
    finally:
        _drop_database(server, name)


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


def monolith_command(database_url: str, *options: str) -> list[str]:
    url = as_role(database_url, APPLICATION_ROLE)
    command = [sys.executable, "-m", "bridge.sandbox.monolith", "--database-url", url]
    return [*command, "--port", "0", *options]


@contextmanager
def running_monolith(database_url: str, *options: str) -> Iterator[str]:
    """Its base URL, on a free port."""
    process = subprocess.Popen(
        monolith_command(database_url, *options), stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        try:
            assert process.stdout is not None
            base_url = process.stdout.readline().strip()
            assert base_url, "the monolith did not start; its reason is on stderr"
            yield base_url
        finally:
            process.terminate()
