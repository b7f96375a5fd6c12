"""Requests as commands: exactly what the monolith would take, and its very words for the rest."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sandbox_config import CONFIG

from engine.types import Command, CommandKind, OrderType, Side, TimeInForce
from shadow.legacy.convert import scales
from shadow.legacy.mapping import Route
from shadow.normalise import (
    Fields,
    Refusal,
    account_of,
    cancel_command,
    order_id_of,
    place_command,
    request_fields,
)

SCALES = scales(CONFIG.instruments)
WORDS = CONFIG.mapping.words
PLACE, CANCEL, READ = CONFIG.mapping.routes
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
GOOD = {"market": "BTC-USD", "side": "buy", "price": "236.47", "quantity": "2.0"}
COMMAND = Command(
    kind=CommandKind.NEW,
    side=Side.BUY,
    ord_type=OrderType.LIMIT,
    tif=TimeInForce.GTC,
    instrument=1,
    epoch=5,
    account=7,
    order_id=11,
    price_ticks=23647,
    qty_lots=200_000_000,
)


def read(body: bytes, content_type: str = JSON, query: str = "", route: Route = PLACE) -> Any:
    fields = request_fields(route, {}, query, content_type, body)
    if isinstance(fields, Refusal):
        return fields
    return place_command(fields, 7, 11, SCALES.get(fields.symbol or ""), WORDS, epoch=5)


def errors(**changes: object) -> dict[str, str]:
    """What is wrong with an otherwise good order; a field that is None is left out."""
    order = {key: value for key, value in (GOOD | changes).items() if value is not ABSENT}
    found = read(json.dumps({"order": order}).encode())
    if isinstance(found, Command):
        return {}
    assert found.status == 422
    return dict(found.errors)


ABSENT = object()


@pytest.mark.parametrize(
    ("body", "content_type", "query"),
    [
        (json.dumps({"order": GOOD}).encode(), JSON, ""),
        (json.dumps(GOOD).encode(), JSON, ""),
        (json.dumps(GOOD | {"unknown": 1}).encode(), "application/json; charset=utf-8", ""),
        (json.dumps({"order": GOOD | {"price": 236.47, "quantity": 2}}).encode(), JSON, ""),
        (json.dumps({"order": GOOD | {"price": "+0236.470"}}).encode(), JSON, ""),
        (json.dumps({"order": GOOD | {"order_type": "limit"}}).encode(), JSON, "page=2"),
        (
            b"order[market]=BTC-USD&order[side]=buy&order%5Bprice%5D=236.47&order[quantity]=2.0",
            FORM,
            "",
        ),
        (
            b"",
            "",
            "order[market]=BTC-USD&order[side]=buy&order[price]=236.47&order[quantity]=2",
        ),
    ],
)
def test_every_form_of_the_same_order(body: bytes, content_type: str, query: str) -> None:
    assert read(body, content_type, query) == COMMAND


def test_the_query_wins_over_the_body_and_as_a_whole() -> None:
    body = json.dumps({"order": GOOD}).encode()
    found = read(body, JSON, "order[price]=1")
    assert found.status == 422
    assert [field for field, _ in found.errors] == ["market", "side", "quantity"]


def test_the_path_wins_over_both() -> None:
    route = Route(action="cancel", method="DELETE", path="/orders/:id", fields={"order_id": "id"})
    fields = request_fields(route, {"id": "3"}, "id=2", JSON, b'{"id":1}')
    assert isinstance(fields, Fields)
    assert order_id_of(fields) == 3


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", JSON),
        (b"{", JSON),
        (b"nonsense", JSON),
        (b"\xff", JSON),
        (b"[1]", JSON),
        (b'"order"', JSON),
        (b"{}", JSON),
        (b'{"other":1}', JSON),
        (b'{"order":null,"market":"BTC-USD"}', JSON),
        (b'{"order":{}}', JSON),
        (b'{"order":"buy"}', JSON),
        (b"[" * 60_000, JSON),
        (json.dumps({"order": GOOD}).encode(), "text/plain"),
        (json.dumps({"order": GOOD}).encode(), ""),
        (b"market=BTC-USD", FORM),
        (b"order[price]=1&order[price][x]=2", FORM),
        (b"order[price]=%ff", FORM),
        (b"\xff", FORM),
    ],
)
def test_what_has_no_order_in_it_is_a_400(body: bytes, content_type: str) -> None:
    assert read(body, content_type) == Refusal(status=400)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {}),
        ({"market": "XXX"}, {"market": "must exist"}),
        ({"market": ABSENT}, {"market": "must exist"}),
        ({"market": 1}, {"market": "must exist"}),
        ({"side": "hold"}, {"side": "is not included in the list"}),
        ({"side": ABSENT}, {"side": "is not included in the list"}),
        ({"side": None}, {"side": "is not included in the list"}),
        ({"order_type": "stop"}, {"order_type": "is not included in the list"}),
        ({"order_type": None}, {"order_type": "is not included in the list"}),
        ({"time_in_force": "day"}, {"time_in_force": "is not included in the list"}),
        ({"price": ABSENT}, {"price": "can't be blank"}),
        ({"price": None}, {"price": "can't be blank"}),
        ({"price": " "}, {"price": "can't be blank"}),
        ({"price": ["1"]}, {"price": "can't be blank"}),
        ({"price": True}, {"price": "is not a number"}),
        ({"price": "1e2"}, {"price": "is not a number"}),
        ({"price": "1,5"}, {"price": "is not a number"}),
        ({"price": "0x1"}, {"price": "is not a number"}),
        ({"price": "\u0661"}, {"price": "is not a number"}),
        ({"price": 1e30}, {"price": "is not a number"}),
        ({"price": "0"}, {"price": "must be greater than 0"}),
        ({"price": -1}, {"price": "must be greater than 0"}),
        ({"price": "-0.001"}, {"price": "must be greater than 0"}),
        ({"price": "1.001"}, {"price": "must be a multiple of 0.01"}),
        ({"price": "99999999999.001"}, {"price": "must be a multiple of 0.01"}),
        ({"price": "1000000000"}, {}),
        ({"price": "1000000000.01"}, {"price": "must be less than or equal to 1000000000"}),
        ({"price": "9" * 500}, {"price": "must be less than or equal to 1000000000"}),
        ({"price": "1." + "0" * 500}, {}),
        ({"price": "1." + "0" * 500 + "1"}, {"price": "must be a multiple of 0.01"}),
        ({"quantity": "0.000000001"}, {"quantity": "must be a multiple of 0.00000001"}),
        ({"quantity": ABSENT}, {"quantity": "can't be blank"}),
        ({"quantity": 10**30}, {"quantity": "must be less than or equal to 1000000000"}),
        ({"order_type": "market", "price": None}, {}),
        ({"order_type": "market", "price": ""}, {}),
        ({"order_type": "market", "price": "1"}, {"price": "must be blank"}),
        ({"order_type": "market", "price": "x"}, {"price": "must be blank"}),
        ({"order_type": "market", "price": None, "time_in_force": "day"}, {}),
        # without the market its tick and lot are unknown
        ({"market": "XXX", "price": "1.001"}, {"market": "must exist"}),
        ({"market": "XXX", "price": "x"}, {"market": "must exist", "price": "is not a number"}),
    ],
)
def test_each_field_has_its_first_message(
    changes: dict[str, Any], expected: dict[str, str]
) -> None:
    assert errors(**changes) == expected


def test_errors_come_in_the_order_of_the_fields() -> None:
    wrong = dict.fromkeys(
        ("quantity", "price", "time_in_force", "order_type", "side", "market"), "x"
    )
    assert list(errors(**wrong)) == [
        *("market", "side", "order_type", "time_in_force", "price", "quantity")
    ]


def test_a_market_order_is_immediate_and_has_no_price() -> None:
    order = {"market": "BTC-USD", "side": "sell", "order_type": "market", "quantity": "1"}
    command = read(json.dumps(order).encode())
    assert (command.ord_type, command.tif, command.price_ticks) == (1, TimeInForce.IOC, 0)
    assert command.side == Side.SELL


def test_who_is_nobody_is_refused_first() -> None:
    fields = request_fields(PLACE, {}, "", JSON, b'{"order":{"side":"x"}}')
    assert isinstance(fields, Fields)
    assert place_command(fields, 0, 1, None, WORDS) == Refusal(status=401)
    assert cancel_command(fields, 0, 1) == Refusal(status=401)


@pytest.mark.parametrize(
    ("header", "account"),
    [
        ("7", 7),
        (" 7\t", 7),
        ("007", 7),
        ("9223372036854775807", 2**63 - 1),
        ("9223372036854775808", 0),
        ("", 0),
        ("0", 0),
        ("-7", 0),
        ("7.0", 0),
        ("7 8", 0),
        ("\u0667", 0),
    ],
)
def test_accounts(header: str, account: int) -> None:
    assert account_of(header) == account


@pytest.mark.parametrize(
    ("text", "order_id"),
    [("17", 17), ("017", 17), ("0", 0), ("x", 0), ("17x", 0), ("", 0), ("-1", 0), ("9" * 20, 0)],
)
def test_order_ids(text: str, order_id: int) -> None:
    fields = request_fields(CANCEL, {"id": text}, "", "", b"")
    assert isinstance(fields, Fields)
    command = cancel_command(fields, 7, 2, epoch=3)
    if not order_id:
        assert command == Refusal(status=404)
        return
    assert command == Command(
        kind=CommandKind.CANCEL, instrument=2, epoch=3, account=7, order_id=order_id
    )


def test_other_monoliths_without_a_root_and_with_other_words() -> None:
    route = Route(
        action="place",
        method="POST",
        path="/orders",
        fields={
            "symbol": "query.pair",
            "side": "type",
            "price": "rate",
            "quantity": "amounts.base",
        },
    )
    fields = request_fields(
        route, {}, "pair=SOL-USD", JSON, b'{"type":"buy","rate":0.125,"amounts":{"base":"0.5"}}'
    )
    assert isinstance(fields, Fields)
    assert fields.symbol == "SOL-USD"
    command = place_command(fields, 1, 2, SCALES["SOL-USD"], WORDS)
    assert isinstance(command, Command)
    assert (command.price_ticks, command.qty_lots) == (125, 5000)
