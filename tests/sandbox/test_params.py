"""The monolith's own reading of a request, and the proxy's, must come to the same answer."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import bridge.sandbox
from bridge import config
from bridge.sandbox.params import (
    MarketRules,
    NewOrder,
    filter_params,
    ids_params,
    order_params,
    orders_params,
    validate,
)
from bridge.sandbox.rack import BadRequest
from engine.types import Command, OrderType, Side, TimeInForce
from shadow.legacy.convert import scales
from shadow.normalise import (
    Refusal,
    cancel_filter,
    order_id_of,
    place_command,
    request_fields,
)

CONFIG = config.load(Path(bridge.sandbox.__file__).with_name("railswitch.toml"))
SCALES = scales(CONFIG.instruments)
PLACE, CANCEL_MANY, PLACE_MANY, CANCEL_ALL, *_ = CONFIG.mapping.routes
RULES = {
    one.symbol: MarketRules(symbol=one.symbol, tick=Decimal(one.tick), lot=Decimal(one.lot))
    for one in CONFIG.instruments
}
SIDES = {Side.BUY: 0, Side.SELL: 1}
TYPES = {OrderType.LIMIT: 0, OrderType.MARKET: 1}
TIFS = {TimeInForce.GTC: 0, TimeInForce.IOC: 1}
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
GOOD = {"market": "BTC-USD", "side": "buy", "price": "236.47", "quantity": "2.0"}


def by_monolith(content_type: str, query: str, body: bytes) -> Any:
    try:
        order = validate(order_params(content_type, query, body), 7, RULES)
    except BadRequest:
        return 400
    if not isinstance(order, NewOrder):
        return [(field, messages[0]) for field, messages in order.items()]
    scale = SCALES[order.market]
    price_ticks = 0 if order.price is None else scale.ticks(order.price)
    codes = (order.side, order.order_type, order.time_in_force)
    return (order.market, *codes, price_ticks, scale.lots(order.quantity))


def by_proxy(content_type: str, query: str, body: bytes) -> Any:
    fields = request_fields(PLACE, {}, query, content_type, body)
    if isinstance(fields, Refusal):
        return fields.status
    scale = SCALES.get(fields.symbol or "")
    command = place_command(fields, 7, 1, scale, CONFIG.mapping.words)
    if not isinstance(command, Command):
        return list(command.errors) if command.errors else command.status
    assert scale is not None
    codes = (
        SIDES[Side(command.side)],
        TYPES[OrderType(command.ord_type)],
        TIFS[TimeInForce(command.tif)],
    )
    return (scale.symbol, *codes, command.price_ticks, command.qty_lots)


VALUES: list[Any] = [
    *(None, "", " ", "\t", True, False, [], {}, [1], {"a": 1}, "x", "buy", "SELL", "limit"),
    *("market", "gtc", "ioc", "BTC-USD", "SOL-USD", 0, 1, -1, 1.5, 1e-9, 1e30, 10**30, -0.0),
    *(
        "0",
        "0.0",
        "+1",
        "-1",
        "1.",
        ".1",
        "1.0000000000000000000000",
        "01.10",
        "1e5",
        "1_0",
        "\uff11",
    ),
    *("1000000000", "1000000000.01", "1000000001", "0.00000001", "0.000000001", "NaN", "Infinity"),
    *("1 ", " 1", "9" * 60, "0." + "0" * 40 + "1", "1,5", "0x10", "\uff11"),
]
FIELDS = ("market", "side", "order_type", "time_in_force", "price", "quantity")


@pytest.mark.parametrize("field", FIELDS)
def test_both_read_every_kind_of_value_alike(field: str) -> None:
    for value in VALUES:
        for base in (GOOD, GOOD | {"order_type": "market", "price": None}):
            body = json.dumps({"order": base | {field: value}}).encode()
            assert by_monolith(JSON, "", body) == by_proxy(JSON, "", body), (field, value)
            body = json.dumps(base | {field: value}).encode()
            assert by_monolith(JSON, "", body) == by_proxy(JSON, "", body), (field, value, "root")


@pytest.mark.parametrize("field", FIELDS)
def test_both_read_an_absent_field_alike(field: str) -> None:
    given = {"order_type": "limit", "time_in_force": "ioc"} | GOOD
    body = json.dumps({"order": {key: given[key] for key in given if key != field}}).encode()
    assert by_monolith(JSON, "", body) == by_proxy(JSON, "", body)


BODIES: list[tuple[str, str, bytes]] = [
    (JSON, "", b""),
    (JSON, "", b"{"),
    (JSON, "", b"[]"),
    (JSON, "", b"3"),
    (JSON, "", b"null"),
    (JSON, "", b"{}"),
    (JSON, "", b'{"order":null}'),
    (JSON, "", b'{"order":{}}'),
    (JSON, "", b'{"order":[]}'),
    (JSON, "", b'{"order":"x"}'),
    (JSON, "", b'{"order":{"price":NaN}}'),
    (JSON, "", b'{"other":1}'),
    (JSON, "", b'{"order":{"other":1}}'),
    (JSON, "", b'\xff{"order":{}}'),
    (JSON, "", b'{"market":"BTC-USD","order":{"side":"buy"}}'),
    (JSON, "", b'{"order":{"price":1.10,"price":2}}'),
    (JSON, "", b'{"order":{"market":"BTC-USD","side":"buy","price":1.10,"quantity":1.5E0}}'),
    (JSON + "; charset=utf-8", "", json.dumps({"order": GOOD}).encode()),
    ("text/plain", "", json.dumps({"order": GOOD}).encode()),
    ("", "", json.dumps({"order": GOOD}).encode()),
    (JSON, "order[price]=9", json.dumps({"order": GOOD}).encode()),
    (JSON, "price=9", json.dumps(GOOD).encode()),
    (JSON, "order=9", json.dumps({"order": GOOD}).encode()),
    (FORM, "", b"order[market]=BTC-USD&order[side]=sell&order[price]=1&order[quantity]=2"),
    (FORM, "", b"order%5Bmarket%5D=BTC-USD&order%5Bside%5D=sell&order%5Bprice%5D=+1"),
    (FORM, "", b"market=BTC-USD&side=sell&price=1&quantity=2"),
    (FORM, "", b"order=1&order[price]=2"),
    (FORM, "", b"order[price]=1&order[price][x]=2"),
    (FORM, "", b"order[price][x]=2"),
    (FORM, "", b"order[]=2"),
    (FORM, "", b"order[price=2"),
    (FORM, "", b"order[price]=%ff"),
    (FORM, "", b"\xff=1"),
    (FORM, "", b"order[market]=BTC-USD&order[side]=&order[price]"),
]


@pytest.mark.parametrize(("content_type", "query", "body"), BODIES)
def test_both_read_every_kind_of_body_alike(content_type: str, query: str, body: bytes) -> None:
    assert by_monolith(content_type, query, body) == by_proxy(content_type, query, body)


def by_monolith_many(content_type: str, query: str, body: bytes, method: str) -> Any:
    """The orders as they are given, and the ids: each of them, or 400."""
    found: list[Any] = []
    for read in (orders_params, ids_params):
        try:
            found.append(read(content_type, query, body, method))
        except BadRequest:
            found.append(400)
    return found


def by_proxy_many(content_type: str, query: str, body: bytes, method: str) -> Any:
    found: list[Any] = []
    for route in (PLACE_MANY, CANCEL_MANY):
        fields = request_fields(route, {}, query, content_type, body, method=method)
        if isinstance(fields, Refusal):
            found.append(400)
        elif route is CANCEL_MANY:
            found.append([order_id_of(one) or None for one in fields.each])
        else:
            names = PLACE_MANY.fields
            found.append([{names[k][5:]: v for k, v in one.values.items()} for one in fields.each])
    return found


NAMES = st.sampled_from(
    [
        *("orders[][market]", "orders[][side]", "orders[][price]", "orders[][quantity]"),
        *("orders[]", "orders", "orders[0][side]", "ids[]", "ids", "ids[a]", "ids[][x]"),
        *("orders[][side][x]", "orders[][side][]", "a[][b][]", "a[][b][c]", "order[price", "a[]b"),
        *("", "[]", "%5B%5D", "ids%5B%5D", "%zz", "%ff"),
    ]
)
PAIRS = st.builds(
    "{}{}{}".format,
    NAMES,
    st.sampled_from(["=", "=", "=", ""]),
    st.sampled_from(["1", "buy", "+2", "%20"]),
)
FORM_BODIES = st.lists(PAIRS, max_size=8).map(lambda pairs: "&".join(pairs).encode())
JSON_VALUES = st.recursive(
    st.sampled_from([None, True, 1, "2", "buy", "", -3]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["market", "side", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)
JSON_BODIES = st.dictionaries(
    st.sampled_from(["orders", "ids", "order", "x"]), JSON_VALUES, max_size=3
).map(lambda value: json.dumps(value).encode())


@given(
    sent=st.one_of(
        st.tuples(st.just(JSON), JSON_BODIES),
        st.tuples(st.sampled_from([FORM, "", FORM + ",x"]), FORM_BODIES),
    ),
    query=FORM_BODIES.map(bytes.decode),
    method=st.sampled_from(["POST", "DELETE"]),
)
def test_both_read_every_list_alike(sent: tuple[str, bytes], query: str, method: str) -> None:
    content_type, body = sent
    known = set(PLACE_MANY.fields.values())
    theirs = by_monolith_many(content_type, query, body, method)
    if theirs[0] != 400:  # strong parameters leave the others out
        theirs[0] = [{k: v for k, v in one.items() if f"each.{k}" in known} for one in theirs[0]]
    assert theirs == by_proxy_many(content_type, query, body, method)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", (None, None)),
        ("market=BTC-USD&side=sell", ("BTC-USD", 1)),
        ("market=+&side=", (None, None)),
        ("side=middle", (None, -1)),
        ("market[]=x", 400),
    ],
)
def test_both_filter_a_cancel_of_everything_alike(query: str, expected: Any) -> None:
    try:
        theirs: Any = filter_params(query)
    except BadRequest:
        theirs = 400
    fields = request_fields(CANCEL_ALL, {}, query, "", b"")
    assert not isinstance(fields, Refusal)
    ours: Any = cancel_filter(fields, CONFIG.mapping.words)
    if isinstance(ours, Refusal):
        ours = ours.status
    else:
        ours = ours.symbol, {0: None, -1: -1}.get(ours.side, SIDES.get(ours.side))
    assert theirs == ours == expected
