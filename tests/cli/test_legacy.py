"""Install and uninstall: a dry run that changes nothing, and no trace afterwards."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from running_cli import railswitch, write_config

from bridge.sandbox.provision import APPLICATION_ROLE, as_role


def traces(url: str) -> list[str]:
    """What of ours is in the database."""
    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT nspname::text FROM pg_namespace WHERE nspname = 'railswitch'"
            " UNION ALL SELECT tgname::text FROM pg_trigger WHERE tgname LIKE '%railswitch%'"
            " UNION ALL SELECT pubname::text FROM pg_publication"
            " UNION ALL SELECT slot_name::text FROM pg_replication_slots"
            "           WHERE database = current_database()"
        ).fetchall()
    return [row[0] for row in rows]


def test_dry_run_prints_sql_and_changes_nothing(tmp_path: Path, legacy_database: str) -> None:
    file = write_config(tmp_path, legacy_database)
    ran = railswitch("legacy", "install", "--config", str(file))
    assert ran.code == 0
    assert "CREATE OR REPLACE TRIGGER railswitch_guard" in ran.out
    assert "--execute" in ran.err
    assert traces(legacy_database) == []


def test_what_it_prints_is_what_it_runs(tmp_path: Path, legacy_database: str) -> None:
    file = write_config(tmp_path, legacy_database)
    ran = railswitch("legacy", "install", "--json", "--config", str(file))
    owner = as_role(legacy_database, APPLICATION_ROLE)
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(ran.json["sql"].encode())
    printed = sorted(traces(legacy_database))
    assert printed
    executed = railswitch("legacy", "install", "--execute", "--json", "--config", str(file))
    assert executed.json["executed"]
    assert sorted(traces(legacy_database)) == printed


@pytest.mark.parametrize("changes", ["stream", "poll"])
def test_what_polling_needs_is_put_in_when_it_is_asked_for_or_configured(
    tmp_path: Path, legacy_database: str, changes: str
) -> None:
    file = write_config(tmp_path, legacy_database)
    file.write_text(file.read_text().replace("[legacy]", f'[legacy]\nchanges = "{changes}"', 1))
    words = ("--polling",) if changes == "stream" else ()
    plain = railswitch("legacy", "install", "--config", str(file))
    assert ("railswitch.change_slots" in plain.out) == (changes == "poll")
    ran = railswitch("legacy", "install", *words, "--execute", "--config", str(file))
    assert ran.code == 0, ran.err
    found = traces(legacy_database)
    assert (found.count("0_railswitch_capture"), found.count("railswitch_capture")) == (2, 2)
    assert railswitch("legacy", "uninstall", "--execute", "--config", str(file)).code == 0
    assert traces(legacy_database) == []


def test_uninstall_needs_no_role_with_replication_where_changes_are_polled(
    tmp_path: Path, legacy_database: str
) -> None:
    file = write_config(tmp_path, legacy_database)
    file.write_text(file.read_text().replace("[legacy]", '[legacy]\nchanges = "poll"', 1))
    assert railswitch("legacy", "install", "--execute", "--config", str(file)).code == 0
    with psycopg.connect(legacy_database, autocommit=True) as admin:
        admin.execute("ALTER ROLE railswitch NOREPLICATION")
        try:
            ran = railswitch("legacy", "uninstall", "--execute", "--config", str(file))
        finally:
            admin.execute("ALTER ROLE railswitch REPLICATION")
    assert ran.code == 0, ran.err
    assert traces(legacy_database) == []


def test_uninstall_leaves_no_trace(tmp_path: Path, legacy_database: str) -> None:
    file = write_config(tmp_path, legacy_database)
    assert railswitch("legacy", "install", "--execute", "--config", str(file)).code == 0
    with psycopg.connect(legacy_database, autocommit=True) as connection:
        connection.execute("SELECT pg_create_logical_replication_slot('railswitch', 'pgoutput')")
    assert traces(legacy_database) != []
    ran = railswitch("legacy", "uninstall", "--execute", "--config", str(file))
    assert ran.code == 0, ran.err
    assert traces(legacy_database) == []


def test_uninstall_is_refused_while_the_engine_owns_an_instrument(
    tmp_path: Path, legacy_database: str
) -> None:
    file = write_config(tmp_path, legacy_database)
    assert railswitch("legacy", "install", "--execute", "--config", str(file)).code == 0
    with psycopg.connect(legacy_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO railswitch.fence (symbol, owner, epoch, flip_id)"
            " VALUES ('BTC-USD', 'engine', 2, 1)"
        )
    before = traces(legacy_database)
    ran = railswitch("legacy", "uninstall", "--execute", "--config", str(file))
    assert ran.code == 1
    assert "BTC-USD" in ran.err
    assert "railswitch rollback" in ran.err
    assert traces(legacy_database) == before


def test_without_a_role_to_install_as_it_still_prints(tmp_path: Path, legacy_database: str) -> None:
    file = write_config(tmp_path, legacy_database)
    text = "\n".join(line for line in file.read_text().splitlines() if "install_url" not in line)
    file.write_text(text)
    assert "CREATE SCHEMA" in railswitch("legacy", "install", "--config", str(file)).out
    ran = railswitch("legacy", "install", "--execute", "--config", str(file))
    assert ran.code == 2
    assert "legacy.install_url" in ran.err
