"""What `railswitch init` concludes from a schema and its rows: never more than they say."""

from __future__ import annotations

import random
import string
import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.onboard.finding import Confidence, Finding, certain, guess
from bridge.onboard.names import words
from bridge.onboard.recognise import Recognised, recognise
from bridge.onboard.recognise_http import http_findings
from bridge.onboard.recognise_legacy import legacy_findings
from bridge.onboard.recognise_words import by_name, meaning, said
from bridge.onboard.render import render
from bridge.onboard.seen import Column, Database, Kind, Row, Sample, Table
from bridge.onboard.toml import comment, key, written

KINDS: tuple[Kind, ...] = (
    *("integer", "numeric", "text", "uuid", "boolean", "timestamp", "timestamptz", "other"),
)
WORD = st.text(string.ascii_lowercase, min_size=5, max_size=9)


def value(kind: Kind, chance: random.Random) -> str | None:
    made: dict[Kind, str] = {
        "integer": str(chance.randint(0, 3)),
        "numeric": f"{chance.randint(1, 999) / 8}",
        "text": chance.choice(("red", "green", "blue")),
        "boolean": chance.choice(("true", "false")),
        "timestamp": f"2015-05-01 00:00:{chance.randint(10, 59)}",
    }
    return made.get(kind)


@st.composite
def databases(draw: st.DrawFn) -> Database:
    chance = random.Random(draw(st.integers(0, 2**32)))
    tables = []
    for name in draw(st.lists(WORD, min_size=1, max_size=4, unique=True)):
        named = draw(
            st.lists(
                st.tuples(WORD, st.sampled_from(KINDS)),
                min_size=1,
                max_size=9,
                unique_by=lambda one: one[0],
            )
        )
        columns = (
            Column(name="id", kind="integer", type="bigint"),
            *(Column(name=one, kind=kind, type=kind) for one, kind in named),
        )
        rows: tuple[Row, ...] = tuple(
            {"id": str(n), **{one: value(kind, chance) for one, kind in named}}
            for n in range(draw(st.sampled_from((0, 40))))
        )
        tables.append(
            Table(
                schema="public",
                bare=name,
                columns=columns,
                key=("id",),
                sequence=f"{name}_id_seq",
                sample=Sample(newest=rows, whole=True),
            )
        )
    return Database(tables=tuple(tables))


@given(databases())
def test_random_words_make_nothing_certain(database: Database) -> None:
    assert sure(recognise(database)) == set()


def sure(recognised: Recognised) -> set[str]:
    return {one.key for one in recognised.findings if one.confidence is Confidence.CERTAIN}


def exchange(rows: int, chance: random.Random) -> Database:
    """Tables with the right names and rows that mean nothing."""

    def table(name: str, columns: dict[str, Kind], rows: list[dict[str, Any]]) -> Table:
        made = tuple(Column(name=one, kind=kind, type=kind) for one, kind in columns.items())
        sample = Sample(newest=tuple(rows), whole=True)
        return Table(
            schema="public",
            bare=name,
            columns=made,
            key=("id",),
            sequence=f"{name}_id_seq",
            sample=sample,
        )

    orders: dict[str, Kind] = {
        "id": "integer",
        "market_id": "integer",
        "member_id": "integer",
        "side": "integer",
        "order_type": "integer",
        "time_in_force": "integer",
        "price": "numeric",
        "quantity": "numeric",
        "remaining_quantity": "numeric",
        "state": "integer",
        "created_at": "timestamp",
        "updated_at": "timestamp",
    }
    trades: dict[str, Kind] = {
        "id": "integer",
        "market_id": "integer",
        "maker_order_id": "integer",
        "taker_order_id": "integer",
        "price": "numeric",
        "quantity": "numeric",
        "total": "numeric",
        "taker_side": "integer",
        "created_at": "timestamp",
    }

    def made(columns: dict[str, Kind], n: int) -> dict[str, Any]:
        row = {name: value(kind, chance) for name, kind in columns.items()}
        refers = {
            name: str(chance.randint(1, rows)) for name in columns if name.endswith("order_id")
        }
        return row | refers | {"id": str(n)}

    return Database(
        tables=(
            table("orders", orders, [made(orders, n) for n in range(1, rows + 1)]),
            table("trades", trades, [made(trades, n) for n in range(1, rows + 1)]),
        )
    )


@given(st.integers(0, 2**32), st.sampled_from((0, 3, 30, 200)))
def test_rows_that_mean_nothing_prove_nothing(seed: int, rows: int) -> None:
    """Whatever their names promise."""
    found = sure(recognise(exchange(rows, random.Random(seed))))
    meanings = {key for key in found if ".map." in key or key.endswith((".total", "_rule"))}
    assert meanings == set()
    assert not found & {"mapping.orders.price", "mapping.orders.quantity", "mapping.orders.leaves"}


@given(databases(), st.booleans())
def test_whatever_was_recognised_is_valid_toml_with_every_decision_in_it(
    database: Database, named: bool
) -> None:
    recognised = recognise(exchange(30, random.Random(1)) if named else database)
    findings = [
        *legacy_findings("postgresql://a@b/c", ""),
        *recognised.findings,
        *http_findings(None, recognised),
    ]
    text = render(recognised, findings, None)
    tomllib.loads(text)
    assert text.count('= "DECIDE"') == sum(one.undecided for one in findings)


@given(st.text())
def test_names_and_comments_of_a_database_can_not_leave_their_line(text: str) -> None:
    printable = text.encode("utf-8", "ignore").decode()
    line = f"{key(printable)} = {written(printable)}  {comment(printable)}"
    assert tomllib.loads(line + "\nlast = 1") == {printable: printable, "last": 1} or (
        printable == "last"
    )


@pytest.mark.parametrize(
    ("what", "value", "word"),
    [
        ("side", "OrderBid", "buy"),
        ("side", "ASK", "sell"),
        ("side", "0", ""),
        ("side", "1", ""),
        ("side", "B", ""),
        ("side", "buy_sell", ""),
        ("ord_type", "LIMIT", "limit"),
        ("ord_type", "stop_limit", ""),
        ("ord_type", "0", ""),
        ("tif", "GTC", "gtc"),
        ("tif", "good_till_cancelled", "gtc"),
        ("tif", "day", ""),
        ("tif", "fok", ""),
        ("status", "Cancelled", "canceled"),
        ("status", "partially-filled", "open"),
        ("status", "done", ""),
        ("status", "closed", ""),
        ("status", "wait", ""),
        ("status", "100", ""),
    ],
)
def test_a_value_means_what_it_says_and_nothing_else(what: str, value: str, word: str) -> None:
    assert meaning(what, value) == word


def test_a_comment_and_a_name_say_what_numbers_and_booleans_mean() -> None:
    column = Column(name="side", kind="integer", type="integer", comment="0: bid, 1: ask")
    assert said("side", column) == {"0": "buy", "1": "sell"}
    column = Column(name="is_sell", kind="boolean", type="boolean")
    assert by_name("side", column) == {"true": "sell", "false": "buy"}


def test_words_of_names() -> None:
    assert words("makerOrderIDs") == words("maker_order_ids") == ("maker", "order", "id")
    assert words("ORDERS") == ("order",)
    assert words("statuses") != words("status")


def test_what_says_one_thing_and_does_another_is_left_open() -> None:
    """A column of sides in which `bid` orders sell above their price."""
    orders, trades = crossed("ask", "bid")
    found = {one.key: one for one in recognise(Database(tables=(orders, trades))).findings}
    one = found["mapping.orders.side.map.bid"]
    assert one.undecided
    assert "but the rows say sell" in one.why
    right, trades = crossed("bid", "ask")
    found = {one.key: one for one in recognise(Database(tables=(right, trades))).findings}
    assert found["mapping.orders.side.map.bid"] == certain(
        "mapping.orders.side.map.bid",
        "buy",
        "the value says so; 20 fills below the order's limit, 0 above it",
    )


def crossed(buyer: str, seller: str) -> tuple[Table, Table]:
    """Twenty buyers who take at less than their limit, and twenty sellers at more."""
    orders, trades = [], []
    for n in range(40):
        side, other, better = (buyer, seller, 101) if n % 2 else (seller, buyer, 99)
        for at, (its, price) in enumerate(((other, 100), (side, better)), 1):
            row = {"id": str(2 * n + at), "side": its, "price": str(price), "quantity": "1"}
            orders.append(row | {"market_id": "x", "created_at": "2015-05-01 00:00:00"})
        trades.append(
            {
                "id": str(n + 1),
                "maker_order_id": str(2 * n + 1),
                "market_id": "x",
                "taker_order_id": str(2 * n + 2),
                "price": "100",
                "quantity": "1",
                "created_at": "2015-05-01 00:00:00",
            }
        )
    kinds: dict[str, Kind] = {
        "price": "numeric",
        "quantity": "numeric",
        "side": "text",
        "market_id": "text",
        "created_at": "timestamp",
    }

    def table(name: str, rows: list[dict[str, str]]) -> Table:
        columns = tuple(
            Column(name=one, kind=kinds.get(one, "integer"), type="") for one in rows[0]
        )
        return Table(
            schema="public",
            bare=name,
            columns=columns,
            key=("id",),
            sample=Sample(newest=tuple(rows), whole=True),
        )

    return table("orders", orders), table("trades", trades)


def test_too_few_cases_prove_nothing() -> None:
    orders, trades = crossed("x", "y")
    few = msgspec.structs.replace(
        trades, sample=Sample(newest=trades.sample.newest[:8], whole=True)
    )
    many = recognise(Database(tables=(orders, trades)))
    assert "mapping.orders.side.map.x" in sure(many)
    assert "mapping.orders.side.map.x" not in sure(recognise(Database(tables=(orders, few))))


def test_one_case_against_it_is_enough() -> None:
    orders, trades = crossed("x", "y")
    first = orders.sample.newest[3] | {"side": "y"}
    rows = (*orders.sample.newest[:3], first, *orders.sample.newest[4:])
    changed = msgspec.structs.replace(orders, sample=Sample(newest=rows, whole=True))
    assert "mapping.orders.side.map.y" not in sure(recognise(Database(tables=(changed, trades))))


def test_a_decision_has_its_choices_above_it() -> None:
    finding: Finding = guess("mapping.matching", "why not", '"later"', '"in_transaction"')
    text = render(recognise(Database(tables=())), [finding], None)
    assert text.index("# DECIDE: why not") < text.index('#   matching = "later"')
    assert text.index('#   matching = "in_transaction"') < text.index('matching = "DECIDE"')
