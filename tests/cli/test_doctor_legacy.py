"""What doctor finds in the monolith's database beyond what stops everything, and that the SQL it
gives mends it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest
from legacy_rows import fill_tables, market
from running_cli import railswitch, write_config
from test_doctor import looked, run_sql

from bridge.config import Config, load
from bridge.diagnosis import legacy_data, legacy_privileges, legacy_server, legacy_slot, legacy_wal
from bridge.diagnosis.asking import Legacy
from bridge.diagnosis.finding import Finding, Level
from bridge.diagnosis.legacy import legacy_findings
from bridge.sandbox.provision import RAILSWITCH_ROLE, as_role

NOTIFY = """
    CREATE FUNCTION notify_orders() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM pg_notify('orders', NEW.id::text); RETURN NULL; END$$;
    CREATE TRIGGER tell AFTER INSERT OR UPDATE ON orders FOR EACH ROW
    EXECUTE FUNCTION notify_orders()"""

PARTITIONED = """
    DROP PUBLICATION railswitch;
    ALTER TABLE trades RENAME TO trades_of_2014;
    CREATE TABLE trades (LIKE trades_of_2014 INCLUDING ALL) PARTITION BY RANGE (id);
    CREATE TABLE trades_of_2015 PARTITION OF trades FOR VALUES FROM (1) TO (1000000);
    CREATE PUBLICATION railswitch FOR TABLE orders, trades"""
NO_KEY = "ALTER TABLE trades DROP CONSTRAINT trades_pkey"
ACCOUNTS = """
    CREATE TABLE accounts (id bigserial PRIMARY KEY, balance numeric, locked numeric);
    GRANT SELECT ON accounts TO railswitch;
    INSERT INTO accounts (balance) VALUES (1);
    INSERT INTO orders (market_id, member_id, side, order_type, price, quantity,
                        remaining_quantity, created_at, updated_at)
    VALUES ('BTC-USD', 1, 0, 0, 1, 1, 1, now(), now())"""


@pytest.fixture
def file(tmp_path: Path, legacy_database: str) -> Path:
    made = write_config(tmp_path, legacy_database)
    ran = railswitch("legacy", "install", "--execute", "--config", str(made))
    assert ran.code == 0, ran.err
    return made


@pytest.mark.parametrize(
    ("statement", "level", "check", "says"),
    [
        (NOTIFY, Level.WARN, "triggers of orders", "tell (notify_orders)"),
        (
            f"{NOTIFY}; ALTER TABLE orders ENABLE ALWAYS TRIGGER tell",
            *(Level.WARN, "triggers of orders", "tell (notify_orders, ALWAYS)"),
        ),
        (
            f"{NOTIFY}; ALTER TABLE orders ENABLE REPLICA TRIGGER tell",
            *(Level.OK, "triggers of orders", "only on a replica"),
        ),
        (
            "CREATE TABLE orders_of_2014 () INHERITS (orders)",
            *(Level.FAIL, "kind of orders", "1 tables inherit from it"),
        ),
        (
            "DROP PUBLICATION railswitch; ALTER TABLE trades SET UNLOGGED",
            *(Level.FAIL, "kind of trades", "ALTER TABLE trades SET LOGGED"),
        ),
        (
            "ALTER TABLE trades RENAME TO deals; CREATE VIEW trades AS SELECT * FROM deals",
            *(Level.FAIL, "kind of trades", "a view"),
        ),
        (
            PARTITIONED,
            *(Level.FAIL, "kind of trades", "SET (publish_via_partition_root = true)"),
        ),
        (
            f"{PARTITIONED}; ALTER PUBLICATION railswitch SET (publish_via_partition_root = true)",
            *(Level.OK, "kind of trades", "partitioned, published under its own name"),
        ),
        (
            "ALTER TABLE orders ENABLE ROW LEVEL SECURITY",
            *(Level.FAIL, "row security of orders", "ALTER ROLE railswitch BYPASSRLS"),
        ),
        (
            "ALTER ROLE railswitch IN DATABASE {database} SET lock_timeout = '1s'",
            *(Level.WARN, "timeouts", "ALTER ROLE railswitch SET lock_timeout = 0"),
        ),
        (
            "ALTER ROLE railswitch IN DATABASE {database} SET synchronous_commit = off",
            *(Level.WARN, "synchronous_commit", "SET synchronous_commit = on"),
        ),
        (
            "ALTER DATABASE {database} SET timezone = 'Asia/Tokyo'",
            *(Level.WARN, "time zone of orders", "Asia/Tokyo, the mapping's UTC"),
        ),
        (
            f"ALTER TABLE trades REPLICA IDENTITY FULL; {NO_KEY}",
            *(Level.FAIL, "lookups in trades", "CREATE UNIQUE INDEX CONCURRENTLY ON trades (id)"),
        ),
        (
            "CREATE PUBLICATION theirs FOR TABLE orders (id, state)",
            *(Level.OK, "publication theirs", "columns id, state"),
        ),
        (
            "CREATE PUBLICATION theirs FOR TABLE orders WHERE (state = 0)",
            *(Level.FAIL, "publication theirs", "WHERE (state = 0)"),
        ),
        (
            "ALTER TABLE trades ALTER created_at TYPE bigint USING 0",
            *(Level.FAIL, "forms of trades", "created_at is bigint, the mapping says timestamp"),
        ),
        (
            "ALTER TABLE orders ADD region text NOT NULL",
            *(Level.WARN, "write-back", "region"),
        ),
        (
            "REVOKE USAGE ON SCHEMA public FROM PUBLIC, railswitch",
            *(Level.FAIL, "privileges", "GRANT USAGE ON SCHEMA public TO railswitch"),
        ),
        (
            ACCOUNTS,
            *(Level.WARN, "funds", "orders change rows of accounts"),
        ),
        (
            "SELECT 1",
            Level.WARN,
            "max_slot_wal_keep_size",
            "ALTER SYSTEM SET max_slot_wal_keep_size",
        ),
    ],
)
def test_what_would_hurt_is_found(
    file: Path, legacy_database: str, statement: str, level: Level, check: str, says: str
) -> None:
    with psycopg.connect(legacy_database) as connection:
        text = statement.replace("{database}", f'"{connection.info.dbname}"')
        connection.execute(text.encode())
    one = looked(file)[check]
    assert (one.level, says in f"{one.seen} {one.next_step}") == (level, True), one
    if level is not Level.OK:
        assert one.consequence


@pytest.mark.parametrize(
    "what",
    [
        "orders (id, state)",
        "orders (state, price)",
        "orders WHERE (state = 0)",
        "orders WHERE (id > 5)",
    ],
)
@pytest.mark.parametrize("identity", ["DEFAULT", "FULL"])
def test_a_publication_is_told_that_makes_updates_fail_and_no_other(
    file: Path, legacy_database: str, what: str, identity: str
) -> None:
    run_sql(
        legacy_database,
        f"ALTER TABLE orders REPLICA IDENTITY {identity}",
        f"CREATE PUBLICATION theirs FOR TABLE {what}",
    )
    try:
        run_sql(legacy_database, "UPDATE orders SET state = state")
        fails = False
    except psycopg.errors.InvalidColumnReference:
        fails = True
    assert (looked(file)["publication theirs"].level is Level.FAIL) == fails


def test_the_trigger_it_proposes_spares_write_back(file: Path, legacy_database: str) -> None:
    run_sql(legacy_database, NOTIFY)
    proposed = looked(file)["triggers of orders"].next_step.partition(": ")[2]
    assert proposed.startswith("CREATE OR REPLACE TRIGGER tell")
    run_sql(legacy_database, proposed)
    assert looked(file)["triggers of orders"].level is Level.OK


def test_a_sequence_that_is_behind_is_found_and_mended(file: Path, legacy_database: str) -> None:
    assert looked(file)["order ids"].level is Level.OK
    run_sql(
        legacy_database,
        "INSERT INTO orders (id, market_id, member_id, side, order_type, price, quantity,"
        " remaining_quantity, created_at, updated_at)"
        " VALUES (900, 'BTC-USD', 1, 0, 0, 1, 1, 1, now(), now())",
    )
    behind = looked(file)["order ids"]
    assert behind.level is Level.FAIL
    run_sql(legacy_database, behind.next_step)
    assert looked(file)["order ids"].level is Level.OK


def test_a_slot_that_nobody_reads_is_told(
    file: Path, legacy_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(legacy_slot, "SLOT_KEPT_BYTES_MAX", -1)
    run_sql(legacy_database, "SELECT pg_create_logical_replication_slot('theirs', 'pgoutput')")
    try:
        one = looked(file)["slot theirs"]
        assert one.level is Level.WARN
        assert "SELECT pg_drop_replication_slot('theirs')" in one.next_step
    finally:
        run_sql(legacy_database, "SELECT pg_drop_replication_slot('theirs')")


def test_the_log_on_disk_is_told_to_who_may_see_it(file: Path, legacy_database: str) -> None:
    assert "GRANT pg_monitor TO railswitch" in looked(file)["log on disk"].next_step
    ours = as_role(legacy_database, RAILSWITCH_ROLE)
    file.write_text(file.read_text().replace(ours, legacy_database))
    assert "MiB" in looked(file)["log on disk"].seen


def test_a_mapping_at_odds_with_the_rows_is_found(file: Path, legacy_database: str) -> None:
    assert looked(file)["empty, mapping.orders.table"].level is Level.WARN
    fill_tables(legacy_database, market())
    assert "add up" in looked(file)["rows"].seen
    text = file.read_text()
    swapped = text.replace('"0" = "buy", "1" = "sell"', '"0" = "sell", "1" = "buy"', 1)
    assert swapped != text
    file.write_text(swapped)
    one = looked(file)["sides, mapping.orders.side.map"]
    assert one.level is Level.FAIL
    assert one.area == "mapping"
    assert "the sides are swapped" in one.seen


def test_instruments_of_a_table_that_is_not_there(file: Path) -> None:
    symbol = 'symbol = { column = "market_id", table = "pairs" }'
    file.write_text(file.read_text().replace('symbol = "market_id"', symbol))
    found = looked(file)
    assert "no table pairs" in found["instruments of orders"].seen
    assert found["rows"].level is Level.FAIL


def test_a_database_that_is_polled_needs_no_change_stream(file: Path) -> None:
    text = file.read_text()
    polled = text.replace("[legacy]\n", '[legacy]\nchanges = "poll"\n')
    assert polled != text
    file.write_text(polled)
    found = looked(file)
    assert "no trigger on orders, trades" in found["changes to poll"].seen
    assert not {"slot", "wal senders", "max_slot_wal_keep_size"} & set(found)
    assert railswitch("legacy", "install", "--execute", "--config", str(file)).code == 0
    assert looked(file)["changes to poll"].level is Level.OK


class Told:
    """A server that answers what it is told to: for what no server of the tests can be."""

    def __init__(self, config: Config, version: int = 160000, **answers: Any) -> None:
        self.config, self.mapping, self.version = config, config.mapping, version
        self.existing = self.tables = (config.mapping.orders, config.mapping.fills)
        self.connection = self
        self.info = self
        self.backend_pid = 7
        self.polls = False
        self.user, self.dbname = "railswitch", "exchange"
        self.sees_others = answers.pop("sees_others", True)
        self._answers = answers

    def rows(self, query: str, *_: Any) -> Any:
        for word, answer in self._answers.items():
            if word in query:
                return answer
        raise AssertionError(query)

    def value(self, query: str, *_: Any) -> Any:
        return self.rows(query)


def findings(check: Any, file: Path, version: int = 160000, **answers: Any) -> list[Finding]:
    legacy = cast(Legacy, Told(load(file), version, **answers))
    return list(cast("Iterator[Finding]", check(legacy)))


@pytest.mark.parametrize(
    ("check", "version", "answers", "level", "says"),
    [
        (legacy_server._version, 130011, {}, Level.FAIL, "upgrade the server"),
        (legacy_server._version, 150004, {}, Level.OK, "no slot survives a failover"),
        (legacy_server._version, 170002, {}, Level.OK, "PostgreSQL 17.2"),
        (legacy_server._standby, 0, {"recovery": True}, Level.FAIL, "name the primary"),
        (legacy_server._pooler, 0, {"backend_pid": 8}, Level.FAIL, "PgBouncer"),
        (legacy_server._pooler, 0, {"backend_pid": 7}, Level.OK, "yes"),
        (legacy_server._failover, 160000, {"physical": 1}, Level.WARN, "before 17"),
        (
            legacy_server._failover,
            170000,
            {"physical": 1, "SELECT failover": False},
            *(Level.WARN, "failover => true"),
        ),
        (
            legacy_privileges._role,
            0,
            {"rolvaliduntil": [("railswitch", True, 3.0, -1)]},
            *(Level.WARN, "VALID UNTIL 'infinity'"),
        ),
        (
            legacy_privileges._role,
            0,
            {"rolvaliduntil": [("railswitch", True, None, 5)]},
            *(Level.WARN, "CONNECTION LIMIT -1"),
        ),
        (
            legacy_slot._slot,
            0,
            {"wal_status": [("pgoutput", False, "lost", True, None, None, None)]},
            *(Level.FAIL, "SELECT pg_drop_replication_slot('railswitch')"),
        ),
        (
            legacy_slot._slot,
            0,
            {"wal_status": [("pgoutput", False, "extended", True, 5 << 30, 1 << 30, None)]},
            *(Level.WARN, "keeps 5.0 GiB, 1.0 GiB more before it is lost"),
        ),
        (
            legacy_slot._slot,
            0,
            {
                "wal_status": [("pgoutput", True, "reserved", True, 0, None, 5)],
                "pg_stat_activity": [("debezium", "connector", "10.0.0.1", False)],
            },
            *(Level.FAIL, "pid 5, debezium connector from 10.0.0.1"),
        ),
        (
            legacy_slot._slot,
            0,
            {"wal_status": [], "max_replication_slots": [(10, 1)]},
            *(Level.FAIL, "max_replication_slots = 11"),
        ),
        (legacy_slot._senders, 0, {"senders": [(10, 1)]}, Level.FAIL, "max_wal_senders = 12"),
        (
            legacy_wal._kept_wal,
            160000,
            {"keep_size": "1024", "wal_bytes": float(4 << 30)},
            *(Level.WARN, "stands still for 0.2 h loses its slot"),
        ),
        (
            legacy_wal._kept_wal,
            160000,
            {"keep_size": "-1", "wal_bytes": float(4 << 30)},
            *(Level.WARN, "max_slot_wal_keep_size = '32GB'"),
        ),
        (legacy_wal._kept_wal, 130000, {"keep_size": "1024"}, Level.OK, "growth unknown"),
        (
            legacy_wal._wal_on_disk,
            0,
            {"EXECUTE": True, "pg_ls_waldir": [(9 << 30, 1024)]},
            *(Level.WARN, "9.0 GiB, max_wal_size 1.0 GiB"),
        ),
        (
            legacy_wal._archiver,
            0,
            {"archiver": [(True, "00000001 at 2015-05-01")]},
            *(Level.WARN, "failed on 00000001"),
        ),
        (
            legacy_data._old_transactions,
            0,
            {"backend_xid": [(5, "exchange", 70.0, "sidekiq", "idle in transaction", "10:00:00")]},
            *(Level.WARN, "pid 5 (exchange, sidekiq) has been writing for 70.0 s; idle in"),
        ),
    ],
)
def test_what_a_server_of_the_tests_can_not_be(
    tmp_path: Path, check: Any, version: int, answers: dict[str, Any], level: Level, says: str
) -> None:
    found = findings(check, write_config(tmp_path), version, **answers, sees_others=True)
    one = found[-1]
    assert one.level is level, found
    shown = f"{one.seen} {one.consequence} {one.next_step}"
    assert says in shown


def test_a_prepared_transaction_is_told_by_its_name(tmp_path: Path, database: str) -> None:
    with psycopg.connect(database) as connection:
        legacy = Told(load(write_config(tmp_path)), pg_prepared_xacts=[("it's", "jobs", 900.0)])
        legacy.connection = cast(Any, connection)
        (one,) = legacy_data._prepared_transactions(cast(Legacy, legacy))
    assert "it's of jobs, prepared 900 s ago" in one.seen
    assert "ROLLBACK PREPARED 'it''s'" in one.next_step


def test_every_finding_that_is_not_ok_says_what_follows(file: Path) -> None:
    found = list(legacy_findings(load(file)))
    assert len(found) > 25
    for one in found:
        assert (one.level is Level.OK) == (not one.consequence)
        assert (one.level is Level.OK) == (not one.next_step)
        assert not re.search(r"\bNone\b", one.seen)
