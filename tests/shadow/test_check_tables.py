"""Every problem of the mapping's tables that needs no database is found, in a sentence that names
its key.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest
from legacy_side import CONFIG
from odd_forms import FORMS

from shadow.legacy.check_mapping import problems
from shadow.legacy.mapping import Mapping, OrdersTable
from shadow.legacy.shorthand import expanded


def changed(table: str, **changes: Any) -> Mapping:
    """The sandbox's mapping with these keys; None takes one out."""
    whole = msgspec.to_builtins(CONFIG.mapping)
    merged = {key: one for key, one in (whole[table] | changes).items() if one is not None}
    return msgspec.convert(expanded(whole | {table: merged}), Mapping)


def found(table: str, **changes: Any) -> list[str]:
    return problems(changed(table, **changes), CONFIG.instruments)


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_work_have_no_problems(name: str) -> None:
    assert problems(FORMS[name].mapping(), CONFIG.instruments[:2]) == []


ORDERS: dict[str, tuple[dict[str, Any], str]] = {
    "no quantity at all": (
        {"quantity": None, "leaves": None, "filled": "filled"},
        "`mapping.orders`: name the column of quantity, of leaves, or of both; filled is not",
    ),
    "two keys, one column": (
        {"filled": "quantity"},
        '`mapping.orders`: quantity and filled all name column "quantity"',
    ),
    "a version that is something else": (
        {"lock_version": "id"},
        '`mapping.orders`: id and lock_version all name column "id"',
    ),
    "an unknown word for NULL": (
        {"status": {"column": "state", "map": {"1": "filled", "2": "canceled"}, "null": "live"}},
        '`mapping.orders.status.null` = "live" is not one of canceled, filled, open, pending',
    ),
    "an unknown word for the rest": (
        {"tif": {"other": "day"}},
        '`mapping.orders.tif.other` = "day" is not one of gtc, ioc',
    ),
    "a state left out": (
        {"status": {"column": "state", "map": {"1": "filled"}, "null": "open"}},
        "`mapping.orders.status.map`: no value means canceled",
    ),
    "one boolean, two meanings": (
        {"side": {"column": "side", "map": {"t": "buy", "true": "sell", "f": "sell"}}},
        '`mapping.orders.side.map`: "t" and "true" are one boolean, and mean two things',
    ),
    "a side without a column": (
        {"side": {"other": "buy"}},
        "`mapping.orders.side.column` names no column",
    ),
    "a map without a column": (
        {"tif": {"map": {"0": "gtc"}}},
        "`mapping.orders.tif.column` names no column",
    ),
    "no kind at all": ({"ord_type": {}}, "`mapping.orders.ord_type.column` names no column"),
    "a status that shares its column": (
        {"tif": {"column": "state", "map": {"0": "gtc", "1": "gtc", "2": "ioc"}}},
        '`mapping.orders`: tif and status all name column "state"',
    ),
    "a shared column with a value of one meaning": (
        {
            "ord_type": {"column": "kind", "map": {"l": "limit", "m": "market"}},
            "tif": {"column": "kind", "map": {"l": "gtc"}},
        },
        '`mapping.orders.tif.map`: "m" of column "kind" means nothing here',
    ),
    "an exponent of a decimal": (
        {"price": {"column": "price", "exponent": -2}},
        '`mapping.orders.price.exponent` is of form = "integer" alone',
    ),
    "funds with an exponent of a decimal": (
        {"funds": {"column": "locked", "exponent": 2}},
        '`mapping.orders.funds.exponent` is of form = "integer" alone',
    ),
    "an exponent out of range": (
        {"price": {"column": "price", "form": "integer", "exponent": -19}},
        "`mapping.orders.price.exponent` must be from -18 to 18",
    ),
    "a scale that can't say the tick": (
        {"price": {"column": "price", "form": "integer", "exponent": -1}},
        "`mapping.orders.price` counts 0.1, and BTC-USD has steps of 0.01",
    ),
    "a scale that can't say the lot": (
        {"leaves": {"column": "remaining_quantity", "form": "integer"}},
        "`mapping.orders.leaves` counts 1, and BTC-USD has steps of 0.00000001",
    ),
    "a zone that is none": (
        {"created_at": {"column": "created_at", "zone": "Mars/Olympus"}},
        '`mapping.orders.created_at.zone` = "Mars/Olympus" is no time zone',
    ),
    "an epoch with a zone": (
        {"updated_at": {"column": "updated_at", "form": "epoch_s", "zone": "Asia/Tokyo"}},
        '`mapping.orders.updated_at.zone` is of form = "timestamp" alone',
    ),
    "a map and a table": (
        {"symbol": {"column": "m", "map": {"1": "BTC-USD"}, "table": "markets"}},
        "`mapping.orders.symbol`: give map or table, not both",
    ),
    "a table without a key": (
        {"symbol": {"column": "m", "table": "markets", "key": ""}},
        '`mapping.orders.symbol.key` names no column of "markets"',
    ),
    "a table that is none": (
        {"symbol": {"column": "m", "table": "a.b.c"}},
        '`mapping.orders.symbol.table` = "a.b.c" is neither "table" nor "schema.table"',
    ),
    "an instrument without a value": (
        {"symbol": {"column": "m", "map": {"1": "BTC-USD", "2": "ETH-USD"}}},
        "`mapping.orders.symbol.map`: no value means SOL-USD",
    ),
    "two markets in one book": (
        {
            "symbol": {
                "column": "m",
                "map": {"1": "BTC-USD", "2": "ETH-USD", "3": "SOL-USD", "4": "BTC-USD"},
            }
        },
        '`mapping.orders.symbol.map`: 2 values mean "BTC-USD"',
    ),
    "a filter without values": (
        {"where": {"kind": []}},
        '`mapping.orders.where`: "kind" needs a column and at least one value',
    ),
    "a filter on the state": (
        {"where": {"state": ["0", "1"]}},
        '`mapping.orders.where`: "state" is mapped as status: a filter on it would hide',
    ),
    "a filter on the side": (
        {"where": {"side": "0"}},
        '`mapping.orders.where`: "side" is mapped as side',
    ),
    "a filter that does not say what to write": (
        {"where": {"kind": ["spot", "swap"]}},
        '`mapping.orders.where`: "kind" may be spot, swap; say in `mapping.orders.write`',
    ),
    "a constant that the filter hides": (
        {"where": {"kind": "spot"}, "write": {"kind": "margin"}},
        '`mapping.orders.write`: "kind" = "margin" would write rows that `mapping.orders.where`',
    ),
    "a constant for a mapped column": (
        {"write": {"price": "1"}},
        '`mapping.orders.write`: "price" is mapped as price and written by that',
    ),
}


@pytest.mark.parametrize("name", ORDERS)
def test_each_problem_of_the_orders_names_its_key(name: str) -> None:
    changes, sentence = ORDERS[name]
    told = found("orders", **changes)
    assert any(one.startswith(sentence) for one in told), told


NO_ROLES = {"maker_order": None, "taker_order": None}
FILLS: dict[str, tuple[dict[str, Any], str]] = {
    "nobody met": (NO_ROLES, "`mapping.fills`: which orders met? Name maker_order and taker_order"),
    "one of two": ({"maker_order": None}, "`mapping.fills`: which orders met?"),
    "one of the other two": (NO_ROLES | {"buy_order": "bid"}, "`mapping.fills`: which orders met?"),
    "both kinds": (
        {"buy_order": "bid", "sell_order": "ask"},
        "`mapping.fills`: name maker_order and taker_order, or buy_order and sell_order, not",
    ),
    "who rested can't be told": (
        NO_ROLES | {"buy_order": "bid", "sell_order": "ask", "taker_side": None},
        '`mapping.fills.maker_rule` = "resting", but buy_order and sell_order do not say which',
    ),
    "a side of the taker without a column": (
        {"taker_side": {"other": "buy"}},
        "`mapping.fills.taker_side.column` names no column",
    ),
    "a total that can't be said": (
        {"total": {"column": "total", "form": "integer", "exponent": -8}},
        "`mapping.fills.total` counts 0.00000001, and BTC-USD has steps of 0.0000000001",
    ),
    "an account that is an order": (
        {"maker_account": "maker_order_id"},
        '`mapping.fills`: maker_order and maker_account all name column "maker_order_id"',
    ),
    "a filter on the price": (
        {"where": {"price": "1"}},
        '`mapping.fills.where`: "price" is mapped as price',
    ),
}


@pytest.mark.parametrize("name", FILLS)
def test_each_problem_of_the_fills_names_its_key(name: str) -> None:
    changes, sentence = FILLS[name]
    told = found("fills", **changes)
    assert any(one.startswith(sentence) for one in told), told


def test_each_form_of_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[2] / "docs/reference/config.md").read_text()
    example = page.partition("### Forms of columns")[2].partition("```toml")[2].partition("```")[0]
    lines = [one for one in example.splitlines() if " = " in one and not one.startswith("#")]
    assert len(lines) > 12
    for line in lines:
        ((key, value),) = tomllib.loads(line).items()
        given = expanded({"orders": {key: value}})["orders"][key]
        orders = msgspec.to_builtins(CONFIG.mapping.orders) | {key: given}
        assert msgspec.to_builtins(msgspec.convert(orders, OrdersTable))[key]


def test_kinds_of_orders_may_be_filtered_out() -> None:
    """Those that railswitch does not know, as stop orders."""
    assert found("orders", where={"order_type": ["0", "1"]}) == []


def test_uuids_of_orders_need_no_sequence() -> None:
    assert found("orders", id={"column": "id", "form": "uuid"}, id_sequence="") == []


def test_uuids_of_accounts_are_refused() -> None:
    (told,) = found("orders", account={"column": "member_id", "form": "uuid"})
    assert told.startswith("`mapping.orders.account.form`: accounts must be integers")
