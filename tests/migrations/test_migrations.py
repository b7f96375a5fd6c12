"""The control store's schema comes and goes, alone in its database and beside other things."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest

from migrations import MigrationFailed, downgrade, head, upgrade

_TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'railswitch'"


def _rows(url: str, statement: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def _tables(url: str) -> set[object]:
    return {name for (name,) in _rows(url, _TABLES)}


def test_upgrade_creates_everything_in_our_own_schema(database: str) -> None:
    upgrade(database)
    assert {"stage", "flip", "flip_step", "verdict", "shadow_run", "latency"} <= _tables(database)
    assert _rows(database, "SELECT version_num FROM railswitch.alembic_version") == [(head(),)]
    assert (
        _rows(database, "SELECT 1 FROM information_schema.tables WHERE table_schema = 'public'")
        == []
    )


def test_upgrade_twice_changes_nothing(database: str) -> None:
    upgrade(database)
    with psycopg.connect(database) as connection:
        connection.execute(
            "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
            " VALUES ('BTC-USD', 1, 'off', 0)"
        )
    upgrade(database)
    assert _rows(database, "SELECT symbol FROM railswitch.stage") == [("BTC-USD",)]


def test_processes_that_upgrade_at_once_do_not_disturb_each_other(database: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upgrade, [database] * 4))
    assert _rows(database, "SELECT version_num FROM railswitch.alembic_version") == [(head(),)]


def test_downgrade_leaves_no_table_of_ours_and_upgrade_comes_back(database: str) -> None:
    upgrade(database)
    downgrade(database, "base")
    assert _tables(database) <= {"alembic_version"}
    upgrade(database)
    assert "stage" in _tables(database)


def test_what_the_legacy_schema_holds_is_not_touched(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num text)")
        connection.execute("INSERT INTO alembic_version VALUES ('the application own')")
    upgrade(database)
    assert _rows(database, "SELECT version_num FROM public.alembic_version") == [
        ("the application own",)
    ]


def test_a_store_of_a_newer_version_is_refused_untouched(database: str) -> None:
    upgrade(database)
    with psycopg.connect(database) as connection:
        connection.execute("UPDATE railswitch.alembic_version SET version_num = '9999'")
    with pytest.raises(MigrationFailed, match="newer"):
        upgrade(database)
    assert "stage" in _tables(database)


def test_a_failed_upgrade_leaves_nothing_behind(database: str) -> None:
    with psycopg.connect(database) as connection:
        connection.execute("CREATE SCHEMA railswitch")
        connection.execute("CREATE TABLE railswitch.capture_gap (in_the_way integer)")
    with pytest.raises(MigrationFailed, match="capture_gap"):
        upgrade(database)
    assert _tables(database) == {"capture_gap"}


def test_an_unreachable_store_is_named_with_what_to_check() -> None:
    with pytest.raises(MigrationFailed, match=r"control\.database_url"):
        upgrade("postgresql://nobody@127.0.0.1:1/nothing")
