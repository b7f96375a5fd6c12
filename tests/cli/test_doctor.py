"""Doctor over a real database: each thing that can be wrong is found, with what to do about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from running_cli import railswitch, write_config

from bridge.config import CaptureConfig, ProxyTls, load
from bridge.diagnosis import services
from bridge.diagnosis.finding import Finding, Level
from bridge.diagnosis.legacy import legacy_findings
from bridge.diagnosis.proxy import proxy_findings
from bridge.sandbox.provision import RAILSWITCH_ROLE, as_role


@pytest.fixture
def installed(tmp_path: Path, legacy_database: str) -> tuple[Path, str]:
    """The configuration of a database with everything in its place, and its superuser's URL."""
    file = write_config(tmp_path, legacy_database)
    ran = railswitch("legacy", "install", "--execute", "--config", str(file))
    assert ran.code == 0, ran.err
    return file, legacy_database


def looked(file: Path) -> dict[str, Finding]:
    return {one.check: one for one in legacy_findings(load(file))}


def run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_nothing_fails_after_install(installed: tuple[Path, str]) -> None:
    found = looked(installed[0])
    assert [one for one in found.values() if one.level is Level.FAIL] == []
    assert {"wal_level", "replication", "publication", "fence", "privileges"} <= set(found)


@pytest.mark.parametrize(
    ("statement", "check", "says"),
    [
        ("ALTER TABLE orders DROP CONSTRAINT orders_pkey CASCADE", "identity of orders", "primary"),
        ("ALTER TABLE trades REPLICA IDENTITY NOTHING", "identity of trades", "REPLICA IDENTITY"),
        ("ALTER TABLE orders RENAME COLUMN price TO rate", "columns of orders", "no price"),
        ("ALTER TABLE trades RENAME TO deals", "table trades", "mapping.fills.table"),
        (
            "ALTER TABLE trades ALTER COLUMN price TYPE float8",
            "numbers of trades",
            "price: double precision",
        ),
        ("REVOKE UPDATE ON orders FROM railswitch", "privileges", "no UPDATE on orders"),
        ("REVOKE USAGE ON SEQUENCE orders_id_seq FROM railswitch", "privileges", "orders_id_seq"),
        ("DROP PUBLICATION railswitch", "publication", "legacy install"),
        ("ALTER PUBLICATION railswitch DROP TABLE trades", "publication", "lacks trades"),
        (
            "ALTER PUBLICATION railswitch SET TABLE orders WHERE (id > 5), trades",
            "publication filters",
            "row filter",
        ),
        ("ALTER TABLE trades DISABLE TRIGGER railswitch_guard", "fence", "trigger on trades"),
        ("DROP TRIGGER railswitch_guard ON orders", "fence", "trigger on orders"),
    ],
)
def test_what_is_broken_is_found(
    installed: tuple[Path, str], statement: str, check: str, says: str
) -> None:
    file, url = installed
    run_sql(url, statement)
    one = looked(file)[check]
    assert one.level is Level.FAIL
    assert says in f"{one.seen} {one.next_step}"
    assert one.consequence
    assert one.next_step


def test_old_write_transaction_is_named(installed: tuple[Path, str]) -> None:
    file, url = installed
    run_sql(url, "GRANT pg_read_all_stats TO railswitch")
    file.write_text(file.read_text() + "\n[flip]\nold_transaction_ms_max = 0\n")
    with psycopg.connect(url) as writer:
        writer.execute("UPDATE markets SET state = state")
        one = looked(file)["old transactions"]
        assert one.level is Level.WARN
        assert str(writer.info.backend_pid) in one.seen
    assert looked(file)["old transactions"].level is Level.OK


def test_role_that_is_not_ours_and_may_not_replicate_is_found(installed: tuple[Path, str]) -> None:
    file, url = installed
    ours = as_role(url, RAILSWITCH_ROLE)
    file.write_text(file.read_text().replace(ours, as_role(url, "exchange")))
    found = looked(file)
    assert found["role"].level is Level.FAIL
    assert "ALTER ROLE railswitch REPLICATION" in found["replication"].next_step


def test_slot_is_told(installed: tuple[Path, str], control_database: str) -> None:
    file, url = installed
    assert looked(file)["slot"].level is Level.WARN
    make = "SELECT pg_create_logical_replication_slot('railswitch', 'pgoutput')"
    run_sql(url, make)
    assert looked(file)["slot"].level is Level.OK
    run_sql(url, "SELECT pg_drop_replication_slot('railswitch')")
    run_sql(control_database, make)
    assert looked(file)["slot"].level is Level.FAIL
    assert "another database" in looked(file)["slot"].seen


def test_unreachable_database_is_one_finding(tmp_path: Path) -> None:
    (one,) = legacy_findings(load(write_config(tmp_path)))
    assert one.level is Level.FAIL
    assert "legacy.database_url" in one.next_step


def test_services_are_told(tmp_path: Path, control_database: str, redis_url: str) -> None:
    store = list(services.store_findings(control_database))
    assert [one.level for one in store] == [Level.OK, Level.OK]
    assert [one.level for one in services.redis_findings(redis_url)] == [Level.OK]
    assert [one.level for one in services.redis_findings("redis://127.0.0.1:1")] == [Level.FAIL]
    upstream = services.upstream_findings(load(write_config(tmp_path)))
    assert [one.level for one in upstream] == [Level.FAIL]


def test_what_the_proxy_needs_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAILSWITCH_PROXY", raising=False)
    config = load(write_config(tmp_path))

    def told(**proxy: Any) -> dict[str, Level]:
        changed = msgspec.structs.replace(config.proxy, **proxy)
        looked_at = msgspec.structs.replace(config, proxy=changed)
        return {one.check: one.level for one in proxy_findings(looked_at, tmp_path / "data")}

    assert set(told().values()) <= {Level.OK, Level.WARN}
    assert {"data plane", "tls", "open files", "captures"} == set(told())
    missing = ProxyTls(certificate=str(tmp_path / "a.pem"), key=str(tmp_path / "b.pem"))
    assert told(tls=missing)["tls"] is Level.FAIL
    assert told(capture=CaptureConfig(spool_mb=0))["captures"] is Level.WARN
    assert told(capture=CaptureConfig(spool_mb=10**9))["captures"] is Level.WARN
    monkeypatch.setenv("RAILSWITCH_PROXY", "cobol")
    assert told()["data plane"] is Level.FAIL


def test_store_that_was_never_migrated_is_found(database: str) -> None:
    *_, migrated = services.store_findings(database)
    assert migrated.level is Level.FAIL
    assert "railswitch up" in migrated.next_step


def test_json_and_exit_code(installed: tuple[Path, str]) -> None:
    file, url = installed
    ran = railswitch("doctor", "--json", "--config", str(file))
    document: dict[str, Any] = ran.json
    assert ran.code == 1  # no monolith answers upstream
    failed = [one for one in document["findings"] if one["level"] == "fail"]
    assert [one["area"] for one in failed] == ["upstream"]
    assert document["failed"] == 1
    run_sql(url, "DROP PUBLICATION railswitch")
    text = railswitch("doctor", "--config", str(file))
    assert "next: `railswitch legacy install --execute`" in text.out
