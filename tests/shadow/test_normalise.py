"""Requests as commands: exactly what the monolith would take, and its very words for the rest."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from sandbox_config import CONFIG

from engine.types import Command, CommandKind, OrderType, Side, TimeInForce
from shadow.answer import uuid_of
from shadow.legacy.convert import scales
from shadow.legacy.mapping import Route
from shadow.normalise import (
    Fields,
    Filter,
    Refusal,
    account_of,
    cancel_command,
    cancel_filter,
    order_id_of,
    place_command,
    request_fields,
)
from shadow.refusals import REASONS

SCALES = scales(CONFIG.instruments)
WORDS = CONFIG.mapping.words
PLACE, CANCEL_MANY, PLACE_MANY, CANCEL_ALL, CANCEL, READ = CONFIG.mapping.routes
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


def elements(
    route: Route, body: bytes, content_type: str = JSON, query: str = "", method: str = "POST"
) -> list[dict[str, object]] | int:
    """The values of a bulk request's elements, or the status that it is refused with."""
    fields = request_fields(route, {}, query, content_type, body, method=method)
    if isinstance(fields, Refusal):
        return fields.status
    return [one.values for one in fields.each]


MANY: list[tuple[bytes, str, list[dict[str, object]] | int]] = [
    (b'{"orders":[{"side":"buy"},{"price":1.10}]}', JSON, [{"side": "buy"}, {"price": "1.10"}]),
    (b'{"orders":[{"side":"buy"},null,7,"x",[1]]}', JSON, [{"side": "buy"}]),
    (b'{"orders":[{}]}', JSON, [{}]),
    (b'{"orders":[]}', JSON, 400),
    (b'{"orders":[null]}', JSON, 400),
    (b'{"orders":["x"]}', JSON, 400),
    (b'{"orders":{"0":{"side":"buy"}}}', JSON, 400),
    (b'{"orders":null}', JSON, 400),
    (b'[{"side":"buy"}]', JSON, 400),
    (b"{}", JSON, 400),
    (b"", JSON, 400),
    (
        b"orders[][side]=buy&orders[][price]=1&orders[][side]=sell&orders[][price]=2",
        FORM,
        [{"side": "buy", "price": "1"}, {"side": "sell", "price": "2"}],
    ),
    (
        b"orders[][side]=buy&orders[][market][x]=1&orders[][side]",
        FORM,
        [{"side": "buy", "symbol": {"x": "1"}}, {"side": None}],
    ),
    (b"orders[]=1&orders[][side]=buy&orders[]", FORM, [{"side": "buy"}]),
    (b"orders[0][side]=buy", FORM, 400),
    (b"orders[][side]=buy&orders=1", FORM, 400),
    (b"orders=1&orders[][side]=buy", FORM, 400),
    (b"orders[][side]=%zz", FORM, 400),
    (b"orders[][side]=buy", "text/plain", 400),
    (b"orders[][side]=buy", "", [{"side": "buy"}]),
]


@pytest.mark.parametrize(("body", "content_type", "expected"), MANY)
def test_orders_of_one_request_are_read_one_by_one(
    body: bytes, content_type: str, expected: object
) -> None:
    assert elements(PLACE_MANY, body, content_type) == expected


@pytest.mark.parametrize(
    ("body", "content_type", "query", "expected"),
    [
        (b'{"ids":[1,"2",null,true]}', JSON, "", [1, "2", True]),
        (b'{"ids":[1,{"id":2}]}', JSON, "", 400),
        (b'{"ids":[[1]]}', JSON, "", 400),
        (b'{"ids":7}', JSON, "", 400),
        (b"ids[]=1&ids[]=2", FORM, "", ["1", "2"]),
        (b"ids[]=1&ids[]", FORM, "", ["1"]),
        (b"", "", "ids[]=1&ids%5B%5D=+2", ["1", " 2"]),
        (b'{"ids":[1]}', JSON, "ids[]=2", ["2"]),
        (b"ids=1,2", FORM, "", 400),
    ],
)
def test_ids_of_one_request_are_plain_values(
    body: bytes, content_type: str, query: str, expected: object
) -> None:
    found = elements(CANCEL_MANY, body, content_type, query)
    assert found == (
        [{"order_id": one} for one in expected] if isinstance(expected, list) else expected
    )


def test_a_body_without_a_type_is_a_form_of_a_post_alone() -> None:
    assert elements(CANCEL_MANY, b"ids[]=1", "", method="POST") == [{"order_id": "1"}]
    assert elements(CANCEL_MANY, b"ids[]=1", "", method="DELETE") == 400


def test_elements_take_what_the_request_says_of_all_and_may_be_wrapped() -> None:
    fields = {"symbol": "batch.market", "side": "each.side", "price": "each.at.price"}
    route = Route(action="place", method="POST", path="/batch", each="batch.orders", fields=fields)
    body = b'{"market":"BTC-USD","orders":[{"side":"buy"},{"at":{"price":"1"}}],"batch_no":1}'
    found = request_fields(route, {}, "", JSON, body)
    assert isinstance(found, Fields)
    assert found.values == {"symbol": "BTC-USD"}
    assert [one.values for one in found.each] == [
        {"symbol": "BTC-USD", "side": "buy"},
        {"symbol": "BTC-USD", "price": "1"},
    ]
    bare = msgspec.structs.replace(route, each="_json", fields={"side": "each.side"})
    assert elements(bare, b'[{"side":"buy"},{"side":"sell"}]') == [
        {"side": "buy"},
        {"side": "sell"},
    ]


def test_a_bulk_request_names_all_its_instruments() -> None:
    body = b'{"orders":[{"market":"BTC-USD"},{"market":"ETH-USD"},{"market":1},{"side":"buy"}]}'
    fields = request_fields(PLACE_MANY, {}, "", JSON, body)
    assert isinstance(fields, Fields)
    assert (fields.symbol, fields.symbols) == (None, {"BTC-USD", "ETH-USD"})


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", Filter(None, 0)),
        ("market=&side=+", Filter(None, 0)),
        ("market=BTC-USD&side=sell", Filter("BTC-USD", Side.SELL)),
        ("side=middle", Filter(None, -1)),
        ("market[]=BTC-USD", Refusal(status=400)),
    ],
)
def test_a_cancel_of_everything_may_be_filtered(query: str, expected: Filter | Refusal) -> None:
    fields = request_fields(CANCEL_ALL, {}, query, "", b"", method="DELETE")
    assert isinstance(fields, Fields)
    assert cancel_filter(fields, WORDS) == expected


def test_a_filter_admits_what_it_names_and_an_unknown_word_nothing() -> None:
    assert Filter(None, 0).admits("BTC-USD", Side.BUY)
    assert Filter("BTC-USD", Side.BUY).admits("BTC-USD", Side.BUY)
    assert not Filter("BTC-USD", Side.BUY).admits("ETH-USD", Side.BUY)
    assert not Filter("BTC-USD", Side.BUY).admits("BTC-USD", Side.SELL)
    assert not Filter(None, -1).admits("BTC-USD", Side.SELL)


@pytest.mark.parametrize(("depth", "is_read"), [(99, True), (100, False), (1000, False)])
def test_what_is_nested_too_deeply_is_refused_as_by_ruby(depth: int, is_read: bool) -> None:
    order = b'"order":{"side":"buy"}'
    deep = b'{%b,"x":%b%b}' % (order, b"[" * depth, b"]" * depth)
    assert (request_fields(PLACE, {}, "", JSON, deep) != Refusal(status=400)) is is_read
    form = b"order[side]=buy&x" + b"[a]" * depth + b"=1"
    assert (request_fields(PLACE, {}, "", FORM, form) != Refusal(status=400)) is is_read


def test_more_parameters_than_rack_takes_are_refused() -> None:
    most = b"order[side]=buy" + b"&a=1" * 4095
    assert isinstance(request_fields(PLACE, {}, "", FORM, most), Fields)
    assert request_fields(PLACE, {}, "", FORM, most + b"&a=1") == Refusal(status=400)


ANYWHERE = Route(
    action="place",
    method="POST",
    path="/orders/:market",
    fields={
        "symbol": "path.market",
        "side": ("order.side", "side"),
        "ord_type": ("order.kind", "query.kind"),
        "price": ("order.price", "price"),
        "quantity": ("order.quantity", "quantity"),
    },
    defaults={"side": "buy", "ord_type": "limit"},
)


@pytest.mark.parametrize(
    ("body", "content_type", "query"),
    [
        (b'{"order":{"side":"buy","price":"236.47","quantity":2}}', JSON, ""),
        (b'{"side":"buy","price":"236.47","quantity":2}', JSON, ""),
        (b'{"order":{"price":"236.47"},"quantity":2}', JSON, ""),
        (b'{"order":{"price":"236.47","quantity":2},"price":"1"}', JSON, "kind=limit"),
        (b"order[price]=236.47&quantity=2", FORM, ""),
        (b"price=236.47&quantity=2", FORM, ""),
    ],
)
def test_a_value_may_stand_in_several_places_or_in_none(
    body: bytes, content_type: str, query: str
) -> None:
    fields = request_fields(ANYWHERE, {"market": "BTC-USD"}, query, content_type, body)
    assert isinstance(fields, Fields)
    assert place_command(fields, 7, 11, SCALES["BTC-USD"], WORDS, epoch=5) == COMMAND


def test_a_default_is_what_a_request_does_not_say_and_nothing_else() -> None:
    for said in (b'{"side":"sell"}', b'{"side":null}', b'{"side":""}'):
        fields = request_fields(ANYWHERE, {"market": "BTC-USD"}, "", JSON, said)
        assert isinstance(fields, Fields)
        assert fields.values["side"] == json.loads(said)["side"]
        assert fields.values["ord_type"] == "limit"


def test_a_default_of_a_bulk_request_is_each_order_s() -> None:
    route = msgspec.structs.replace(PLACE_MANY, defaults={"side": "sell"})
    body = b'{"orders":[{"market":"BTC-USD","side":"buy"},{"market":"BTC-USD"}]}'
    fields = request_fields(route, {}, "", JSON, body)
    assert isinstance(fields, Fields)
    assert [one.values["side"] for one in fields.each] == ["buy", "sell"]


def test_an_error_names_the_field_as_its_first_place_does() -> None:
    fields = request_fields(ANYWHERE, {"market": "BTC-USD"}, "", JSON, b'{"price":"1"}')
    assert isinstance(fields, Fields)
    found = place_command(fields, 7, 11, SCALES["BTC-USD"], WORDS)
    assert isinstance(found, Refusal)
    assert found.errors == (("quantity", "can't be blank"),)
    assert found.reasons == ("quantity_missing",)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"market": "LTC-USD"}, "unknown_instrument"),
        ({"market": ABSENT}, "symbol_missing"),
        ({"side": "hold"}, "invalid_side"),
        ({"side": ABSENT}, "side_missing"),
        ({"order_type": "stop"}, "invalid_ord_type"),
        ({"time_in_force": "day"}, "invalid_tif"),
        ({"order_type": "market"}, "price_forbidden"),
        ({"price": ABSENT}, "price_missing"),
        ({"price": "x"}, "price_not_a_number"),
        ({"price": "-1"}, "price_not_positive"),
        ({"price": "0.001"}, "price_off_tick"),
        ({"price": "1000000001"}, "price_too_high"),
        ({"quantity": ""}, "quantity_missing"),
        ({"quantity": "1e3"}, "quantity_not_a_number"),
        ({"quantity": "0"}, "quantity_not_positive"),
        ({"quantity": "0.000000001"}, "quantity_off_lot"),
        ({"quantity": "1000000001"}, "quantity_too_large"),
    ],
)
def test_every_refusal_has_its_reason(changes: dict[str, object], reason: str) -> None:
    order = {key: value for key, value in (GOOD | changes).items() if value is not ABSENT}
    found = read(json.dumps({"order": order}).encode())
    assert isinstance(found, Refusal)
    assert [one.reason for one in found.faults] == [reason]
    assert reason in REASONS


def test_an_order_is_found_by_its_uuid() -> None:
    """By the one that its own answer showed; and of a monolith whose ids are UUIDs, by its
    number.
    """
    drawn = "00000000-0000-0001-0000-000000000003"
    fields = [
        request_fields(CANCEL, {"id": text}, "", "", b"") for text in (uuid_of(17), drawn, "17")
    ]
    ours, theirs, plain = [one for one in fields if isinstance(one, Fields)]
    assert (order_id_of(ours), order_id_of(theirs), order_id_of(plain)) == (17, 0, 17)
    assert (order_id_of(theirs, "uuid"), order_id_of(plain, "uuid")) == (2, 0)
