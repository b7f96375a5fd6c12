"""`railswitch mapping check` on a real database: what it reads, what it says, and what it leaves
alone.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
from legacy_rows import BTC, S_US, fill_tables, market
from running_cli import railswitch, write_config

from bridge.config import load
from bridge.mapping_check import check
from bridge.sandbox.provision import RAILSWITCH_ROLE, as_role
from shadow.errors import LegacyNotReady

OPERATIONS = 400

GRANTS = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO railswitch"
UUIDS = """
    CREATE FUNCTION told(id bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$SELECT ('00000000-0000-4000-8000-' || lpad(to_hex(id), 12, '0'))::uuid$$;
    ALTER TABLE orders ALTER id DROP DEFAULT, ALTER id TYPE uuid USING told(id);
    ALTER TABLE trades ALTER id DROP DEFAULT, ALTER id TYPE uuid USING told(id),
        ALTER maker_order_id TYPE uuid USING told(maker_order_id),
        ALTER taker_order_id TYPE uuid USING told(taker_order_id);
    CREATE INDEX ON orders (created_at); CREATE INDEX ON trades (created_at)"""


@pytest.fixture
def filled(tmp_path: Path, legacy_database: str) -> tuple[Path, str]:
    """The configuration and a superuser's URL of a database with orders and fills that add up."""
    fill_tables(legacy_database, market(OPERATIONS, until_us=int(time.time()) * S_US))
    with psycopg.connect(legacy_database, autocommit=True) as connection:
        connection.execute(GRANTS)
    return write_config(tmp_path, legacy_database), legacy_database


def run_sql(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def configured(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def checked(file: Path, *words: str) -> tuple[int, Any]:
    ran = railswitch("mapping", "check", *words, "--json", "--config", str(file))
    return ran.code, ran.json


def test_rows_that_add_up_are_said_to(filled: tuple[Path, str]) -> None:
    file, _ = filled
    ran = railswitch("mapping", "check", "--config", str(file))
    assert ran.code == 0, ran.out
    assert "0 problems, 0 notes" in ran.out
    assert "0 = buy" in ran.out
    code, document = checked(file)
    assert code == 0
    assert document["oddities"] == []
    assert {one["symbol"] for one in document["instruments"]} == {"BTC-USD", "ETH-USD"}
    assert document["orders"] > 0
    assert document["fills"] > 0


@pytest.mark.parametrize(
    ("old", "new", "key"),
    [
        (
            'side = { column = "side", map = { "0" = "buy", "1" = "sell" } }',
            'side = { column = "side", map = { "0" = "sell", "1" = "buy" } }',
            "mapping.orders.side.map",
        ),
        ('"2" = "canceled"', '"2" = "open", "3" = "canceled"', "mapping.orders.status.map"),
        ('"2" = "canceled"', '"3" = "canceled"', "mapping.orders.status.map"),
        ('tick = "0.01"', 'tick = "1"', "instruments.tick"),
        (
            'created_at = "created_at"',
            'created_at = { column = "created_at", zone = "America/New_York" }',
            "mapping.orders.created_at.zone",
        ),
        (
            'price = "price"',
            'price = "price"\nwhere = { time_in_force = "0" }',
            "mapping.orders.where",
        ),
        (
            'maker_order = "maker_order_id"\ntaker_order = "taker_order_id"',
            'maker_order = "taker_order_id"\ntaker_order = "maker_order_id"',
            "mapping.fills.maker_order",
        ),
    ],
)
def test_a_mapping_that_is_wrong_is_found_by_its_key(
    filled: tuple[Path, str], old: str, new: str, key: str
) -> None:
    file, _ = filled
    configured(file, old, new)
    code, document = checked(file)
    assert code == 1
    assert key in {one["key"] for one in document["oddities"] if one["weight"] == "problem"}
    assert document["problems"] > 0


@pytest.mark.parametrize(
    ("values", "key", "seen"),
    [
        ("'BTC-USD', 0, 0, NULL, 1", "mapping.orders.price", "price is NULL"),
        ("'BTC-USD', 0, 0, 1, -1", "mapping.orders.quantity", "quantity is negative"),
        ("'BTC-USD', 0, 0, 1.001, 1", "instruments.tick", "no multiple of the tick 0.01"),
        ("'BTC-USD', 7, 0, 1, 1", "mapping.orders.side.map", "side = '7' is not in the map"),
    ],
)
def test_a_row_that_is_wrong_is_found_by_its_id(
    filled: tuple[Path, str], values: str, key: str, seen: str
) -> None:
    file, url = filled
    run_sql(
        url,
        "INSERT INTO orders (market_id, side, order_type, price, quantity, member_id,"
        f" remaining_quantity, created_at, updated_at) VALUES ({values}, 1, 1, now(), now())",
    )
    with psycopg.connect(url) as connection:
        newest = connection.execute("SELECT max(id) FROM orders").fetchone()
    assert newest is not None
    ran = railswitch("mapping", "check", "--config", str(file))
    assert ran.code == 1
    assert seen in ran.out
    assert f"key:  {key}" in ran.out
    assert f"rows: orders {newest[0]}" in ran.out


def test_an_unknown_symbol_is_a_note_with_its_count(filled: tuple[Path, str]) -> None:
    file, url = filled
    run_sql(
        url,
        "INSERT INTO orders (market_id, side, order_type, price, quantity, member_id,"
        " remaining_quantity, created_at, updated_at)"
        " VALUES ('DOGE-USD', 0, 0, 1, 1, 1, 1, now(), now())",
    )
    code, document = checked(file)
    (one,) = document["oddities"]
    assert code == 0
    assert one["weight"] == "note"
    assert "'DOGE-USD' (1)" in one["seen"]


def test_a_column_that_is_not_there_is_named(filled: tuple[Path, str]) -> None:
    file, _ = filled
    configured(file, 'price = "price"', 'price = "rate"')
    ran = railswitch("mapping", "check", "--config", str(file))
    assert ran.code == 1
    assert "rate" in ran.err
    assert "[mapping]" in ran.err


def test_only_the_newest_orders_are_read_and_older_makers_looked_up(
    filled: tuple[Path, str],
) -> None:
    file, _ = filled
    code, document = checked(file, "--last", "40")
    assert (code, document["orders"], document["oddities"]) == (0, 40, [])
    code, document = checked(file, BTC, "--last", "30")
    assert (code, document["orders"], document["oddities"]) == (0, 30, [])
    assert [one["symbol"] for one in document["instruments"]] == [BTC]


def test_fills_that_were_not_read_are_not_missed(
    filled: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = filled
    monkeypatch.setattr("shadow.legacy.recent.AUDIT_FILLS_PAGE", 7)
    code, whole = checked(file)
    assert (code, whole["oddities"]) == (0, [])
    monkeypatch.setattr("shadow.legacy.recent.AUDIT_FILLS_PER_ORDER", 0.1)
    code, cut = checked(file, "--last", "400")
    assert (code, cut["oddities"]) == (0, [])
    assert cut["fills"] < whole["fills"]


def test_a_quiet_instrument_beside_a_busy_one_has_no_wrong_clock(
    filled: tuple[Path, str],
) -> None:
    file, url = filled
    run_sql(
        url,
        f"UPDATE orders SET created_at = created_at - interval '10 minutes',"
        f" updated_at = updated_at - interval '10 minutes' WHERE market_id = '{BTC}';"
        f" UPDATE trades SET created_at = created_at - interval '10 minutes',"
        f" updated_at = updated_at - interval '10 minutes' WHERE market_id = '{BTC}'",
    )
    code, document = checked(file, BTC)
    assert (code, document["oddities"]) == (0, [])


def test_instruments_of_another_table(filled: tuple[Path, str]) -> None:
    file, _ = filled
    other = 'symbol = { column = "market_id", table = "markets", key = "id", name = "id" }'
    configured(file, 'symbol = "market_id"', other)
    configured(file, 'symbol = "market_id"', other)
    code, document = checked(file, BTC)
    assert (code, document["oddities"]) == (0, [])
    assert document["instruments"][0]["orders"] > 0


def test_ids_that_are_uuids(filled: tuple[Path, str]) -> None:
    file, url = filled
    run_sql(url, UUIDS)
    configured(file, 'id = "id"', 'id = { column = "id", form = "uuid" }')
    configured(file, 'id = "id"', 'id = { column = "id", form = "uuid" }')
    code, document = checked(file, "--last", "100")
    assert (code, document["orders"], document["oddities"]) == (0, 100, [])
    assert document["fills"] > 0


def test_an_adapter_is_asked(filled: tuple[Path, str]) -> None:
    file, url = filled
    run_sql(url, "UPDATE orders SET side = 1 - side")
    assert checked(file)[0] == 1
    (file.parent / "sides.py").write_text(
        "class Sides:\n"
        "    def order_row(self, row):\n"
        "        return row | {'side': str(1 - int(row['side']))}\n"
    )
    configured(file, "[mapping]", '[mapping]\nadapter = "sides:Sides"')
    assert checked(file)[0] == 0


def test_a_market_that_trades_while_it_is_looked_at(filled: tuple[Path, str]) -> None:
    """Then an order that is hours old is not the newest."""
    file, url = filled
    run_sql(url, "UPDATE orders SET created_at = created_at - interval '9 hours 20 minutes'")
    run_sql(url, "UPDATE trades SET created_at = created_at - interval '9 hours 20 minutes'")
    assert checked(file)[0] == 0

    def trade(_: str) -> None:
        run_sql(
            url,
            "INSERT INTO orders (market_id, side, order_type, price, quantity, member_id,"
            " remaining_quantity, created_at, updated_at) VALUES ('BTC-USD', 0, 0, 1, 1, 1, 1,"
            " now() - interval '9 hours', now())",
        )

    found = asyncio.run(check(load(file), last=1000, progress=trade))
    assert [(one.check, one.key) for one in found.oddities] == [
        ("times", "mapping.orders.created_at.zone")
    ]


def test_a_lock_or_a_scan_is_not_waited_for(filled: tuple[Path, str]) -> None:
    file, url = filled
    with psycopg.connect(url) as holder:
        holder.execute("LOCK TABLE orders")
        with pytest.raises(LegacyNotReady, match="given up"):
            asyncio.run(check(load(file), last=10, statement_s=0.2))


def test_nothing_to_check_is_no_success_without_a_word(
    tmp_path: Path, legacy_database: str
) -> None:
    run_sql(legacy_database, GRANTS)
    code, document = checked(write_config(tmp_path, legacy_database))
    assert code == 0
    assert [one["check"] for one in document["oddities"]] == ["empty"]


def test_what_takes_long_says_how_far_it_is(
    filled: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, _ = filled
    assert railswitch("mapping", "check", "--config", str(file)).err == ""
    monkeypatch.setattr("bridge.cli.mapping.PROGRESS_AFTER_S", -1)
    ran = railswitch("mapping", "check", "--config", str(file))
    assert "reading the last 10000 orders" in ran.err
    assert "fills looked at" in ran.err
    assert railswitch("mapping", "check", "--json", "--config", str(file)).err == ""


def test_what_can_not_be_asked(tmp_path: Path) -> None:
    file = write_config(tmp_path)
    assert railswitch("mapping", "check", "DOGE", "--config", str(file)).code == 2
    assert railswitch("mapping", "check", "--last", "0", "--config", str(file)).code == 2
    away = railswitch("mapping", "check", "--config", str(file))
    assert away.code == 5
    assert RAILSWITCH_ROLE in away.err
    assert as_role("postgresql://postgres@127.0.0.1:1/none", RAILSWITCH_ROLE) not in away.out
