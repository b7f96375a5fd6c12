"""The parity report over a real control store."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest
from psycopg.types.json import Jsonb
from running_cli import Ran, railswitch, write_config

VERDICT = {
    "symbol": "BTC-USD",
    "operation": "place",
    "order_id": 4711,
    "verdict": "mismatch",
    "differences": [
        {
            "kind": "priority",
            "what": "the second order of the queue traded first",
            "legacy": {"maker": 12},
            "engine": {"maker": 11},
        }
    ],
}


@pytest.fixture
def store(control_database: str) -> str:
    """BTC-USD in shadow, five operations seen of which one differs; ETH-USD off."""
    with psycopg.connect(control_database) as connection:
        connection.execute(
            "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
            " VALUES ('BTC-USD', 1, 'shadow', 1), ('ETH-USD', 2, 'off', 0)"
        )
        connection.execute(
            "INSERT INTO railswitch.shadow_instrument"
            " (symbol, run, first_run, epoch, loaded_at, pending, book_equal)"
            " VALUES ('BTC-USD', 1, 1, 1, now(), 1, true)"
        )
        connection.execute(
            "INSERT INTO railswitch.parity_count"
            " (symbol, run, window_at, seen, matched, mismatched, fills, dark)"
            " VALUES ('BTC-USD', 1, date_trunc('minute', now()), 4, 3, 1, 7, 2)"
        )
        connection.execute(
            "INSERT INTO railswitch.verdict"
            " (symbol, run, operation, order_id, verdict, kinds, root_order_id, body)"
            " VALUES ('BTC-USD', 1, 'place', 4711, 'mismatch', '{priority}', 0, %s)",
            [Jsonb(VERDICT)],
        )
    return control_database


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_config(tmp_path)


def report(file: Path, store: str, *words: str) -> Ran:
    return railswitch("parity", "report", *words, "--config", str(file), "--database-url", store)


def test_report_closes_and_shows_both_sides_of_the_first_divergence(file: Path, store: str) -> None:
    ran = report(file, store)
    assert ran.code == 1
    assert (
        "5 seen = 3 matched + 0 known + 1 pending + 1 differ + 0 uncomparable + 0 gaps" in ran.out
    )
    assert "parity 75.0000% · coverage 100.0000%" in ran.out
    assert "2 dark" in ran.out
    assert "place of order 4711" in ran.out
    assert '{"maker":12}' in ran.out
    assert '{"maker":11}' in ran.out
    assert "never shadowed: ETH-USD" in ran.out


def test_the_word_report_may_be_left_out(file: Path, store: str) -> None:
    where = ("--config", str(file), "--database-url", store)
    ran = railswitch("parity", "BTC-USD", *where)
    assert ran.code == 1
    assert "BTC-USD  shadow" in ran.out
    assert "ETH-USD" not in ran.out
    assert "not BTC-USD ETH-USD" in railswitch("parity", "BTC-USD", "ETH-USD", *where).err


def test_json_has_all_of_it(file: Path, store: str) -> None:
    (one,) = report(file, store, "BTC-USD", "--json").json["instruments"]
    assert one["counts"]["mismatched"] == 1
    assert (one["parity"], one["coverage"]) == (0.75, 1.0)
    assert one["kinds"] == {"priority": 1}
    assert one["roots"][0]["order_id"] == 4711


def test_dark_operations_are_told_with_who_wrote_them(file: Path, store: str) -> None:
    assert "dark: 2 (2 by writers not seen)" in report(file, store).out
    with psycopg.connect(store) as connection:
        connection.execute(
            "INSERT INTO railswitch.dark_writer VALUES ('BTC-USD', 1, 'app', 'rake orders', 1)"
        )
        connection.execute(
            "INSERT INTO railswitch.writer_seen VALUES ('app', 'sidekiq 6.5 [exchange]', 9)"
        )
    said = " ".join(report(file, store).out.split())
    assert "dark: 2 (1 by role app, application 'rake orders'; 1 by writers not seen)" in said
    assert (
        "seen writing to that database: role app, application 'sidekiq 6.5 [exchange]' (9 times)"
        in said
    )
    (one,) = report(file, store, "BTC-USD", "--json").json["instruments"]
    assert one["dark_writers"] == [{"role": "app", "application": "rake orders", "count": 1}]
    assert one["dark_not_seen"] == 1
    assert [seen["count"] for seen in one["writers_seen"]] == [9]


def test_nothing_that_differs_exits_with_0(file: Path, store: str) -> None:
    assert report(file, store, "ETH-USD").code == 0
