"""What a capture tells: of one order, of each of several, and of every order of an account."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from sandbox_config import CONFIG

from engine.types import Side
from shadow.capture import Capture, Outcome
from shadow.exchanges import Exchanges, Kind, Told
from shadow.legacy.convert import scales
from shadow.legacy.mapping import Key
from shadow.normalise import Fields, Filter, Refusal

EXCHANGES = Exchanges(CONFIG.mapping, scales(CONFIG.instruments))
BUY = {"market": "BTC-USD", "side": "buy", "price": "10", "quantity": "1"}
SELL = {"market": "ETH-USD", "side": "sell", "price": "20", "quantity": "2"}
BAD = {"market": "BTC-USD", "side": "up", "price": "10", "quantity": "1"}
ERRORS = {"errors": {"side": ["is not included in the list"]}}


def capture(
    action: str, method: str, target: str, request: Any, status: int, answer: Any, **more: Any
) -> Capture:
    return Capture(
        worker="w",
        number=1,
        action=action,
        method=method,
        target=target,
        path_params=more.pop("path_params", {}),
        content_type="application/json",
        request_body=json.dumps(request).encode() if request is not None else b"",
        account=7,
        request_id="r",
        outcome=more.pop("outcome", Outcome.ANSWERED),
        status=status,
        response_body=json.dumps(answer, separators=(",", ":")).encode(),
        sent_mono_ns=1,
        answered_mono_ns=2,
        sent_at_ns=3,
    )


def placed_many(orders: list[Any], status: int, answer: Any, **more: Any) -> list[Told]:
    path = "/api/v1/orders/batch"
    return EXCHANGES.read(
        capture("place", "POST", path, {"orders": orders}, status, answer, **more)
    )


def canceled_many(ids: list[Any], status: int, answer: Any) -> list[Told]:
    path = "/api/v1/orders/batch"
    return EXCHANGES.read(capture("cancel", "DELETE", path, {"ids": ids}, status, answer))


def facts(told: list[Told]) -> list[tuple[Kind, int, str]]:
    return [(one.kind, one.order_id, one.symbol) for one in told]


def test_each_order_of_a_bulk_request_is_told_with_its_own_part_of_both_sides() -> None:
    answer = {"orders": [{"id": 5, "market": "BTC-USD"}, ERRORS, {"id": 6, "market": "ETH-USD"}]}
    told = placed_many([BUY, BAD, SELL], 201, answer)
    assert facts(told) == [
        (Kind.PLACED, 5, "BTC-USD"),
        (Kind.PLACE_REFUSED, 0, "BTC-USD"),
        (Kind.PLACED, 6, "ETH-USD"),
    ]
    answers = [(one.capture.status, one.capture.response_body) for one in told]
    assert answers == [
        (201, b'{"order":{"id":5,"market":"BTC-USD"}}'),
        (422, msgspec.json.encode(ERRORS)),
        (201, b'{"order":{"id":6,"market":"ETH-USD"}}'),
    ]
    asked = [EXCHANGES.asked(one) for one in told]
    assert [one.symbol for one in asked if isinstance(one, Fields)] == [
        "BTC-USD",
        "BTC-USD",
        "ETH-USD",
    ]
    assert not any(one.alone for one in told)
    assert EXCHANGES.wish(told[1]) is None
    wish = EXCHANGES.wish(told[2])
    assert wish is not None
    assert (wish.instrument, wish.side, wish.price_ticks) == (2, Side.SELL, 2000)


@pytest.mark.parametrize(
    ("status", "outcome", "kind"),
    [
        (0, Outcome.UPSTREAM_FAILED, Kind.PLACE_UNKNOWN),
        (500, Outcome.ANSWERED, Kind.PLACE_UNKNOWN),
        (201, Outcome.ANSWERED, Kind.PLACE_UNKNOWN),  # and an answer that is no list
        (401, Outcome.ANSWERED, Kind.PLACE_REFUSED),
    ],
)
def test_a_bulk_answer_that_lists_nothing_says_the_same_of_each_order(
    status: int, outcome: Outcome, kind: Kind
) -> None:
    told = placed_many([BUY, SELL], status, {"error": "x"}, outcome=outcome)
    assert facts(told) == [(kind, 0, "BTC-USD"), (kind, 0, "ETH-USD")]


def test_an_answer_of_another_length_counts_by_the_ids_that_it_names() -> None:
    told = placed_many([BUY, BAD, SELL], 201, {"orders": [{"id": 5, "market": "BTC-USD"}]})
    assert facts(told) == [(Kind.PLACED, 5, "BTC-USD")]
    unlike = EXCHANGES.asked(told[0])
    assert isinstance(unlike, Refusal)
    assert unlike.errors == (("orders", "the answer lists 1 orders, the request 3"),)
    told = canceled_many([5, 6], 200, {"orders": [{"id": 6, "market": "BTC-USD"}]})
    assert facts(told) == [(Kind.CANCELED, 6, "BTC-USD"), (Kind.CANCEL_UNKNOWN, 5, "")]


def test_each_id_of_a_bulk_cancel_is_told_with_what_became_of_it() -> None:
    not_open = {"errors": {"state": ["is not open"]}}
    missing = {"errors": {"base": ["Not Found"]}}
    told = canceled_many(
        [5, "6", "x"], 200, {"orders": [{"id": 5, "market": "BTC-USD"}, not_open, missing]}
    )
    assert facts(told) == [
        (Kind.CANCELED, 5, "BTC-USD"),
        (Kind.CANCEL_REFUSED, 6, ""),
        (Kind.CANCEL_REFUSED, 0, ""),
    ]
    assert [one.capture.status for one in told] == [200, 422, 404]


def test_a_cancel_of_everything_tells_of_the_orders_that_its_answer_lists() -> None:
    listed = {"orders": [{"id": 5, "market": "BTC-USD"}, {"id": 6, "market": "ETH-USD"}]}
    told = EXCHANGES.read(capture("cancel_all", "DELETE", "/api/v1/orders", None, 200, listed))
    assert facts(told) == [(Kind.CANCELED, 5, "BTC-USD"), (Kind.CANCELED, 6, "ETH-USD")]
    assert told[0].capture.response_body == b'{"order":{"id":5,"market":"BTC-USD"}}'
    empty = capture("cancel_all", "DELETE", "/api/v1/orders", None, 200, {"orders": []})
    assert EXCHANGES.read(empty) == []


def test_one_without_an_answer_may_have_canceled_whatever_its_filter_admits() -> None:
    target = "/api/v1/orders?market=BTC-USD&side=sell"
    lost = capture("cancel_all", "DELETE", target, None, 0, None, outcome=Outcome.UPSTREAM_FAILED)
    (told,) = EXCHANGES.read(lost)
    assert (told.kind, told.symbol) == (Kind.CANCEL_ALL_UNKNOWN, "BTC-USD")
    assert told.filter == Filter("BTC-USD", Side.SELL)
    assert EXCHANGES.read(capture("cancel_all", "DELETE", target, None, 401, {})) == []


def test_routes_of_one_action_are_told_apart_by_the_path() -> None:
    single = capture(
        "cancel",
        "DELETE",
        "//api/v1/orders/5.json",
        None,
        200,
        {"order": {"id": 5, "market": "BTC-USD"}},
        path_params={"id": "5"},
    )
    assert facts(EXCHANGES.read(single)) == [(Kind.CANCELED, 5, "BTC-USD")]
    form = capture("cancel", "POST", "/api/v1/orders/batch/", None, 200, {"orders": [{"id": 5}]})
    form = msgspec.structs.replace(
        form,
        content_type="application/x-www-form-urlencoded",
        request_body=b"_method=delete&ids[]=5",
    )
    assert facts(EXCHANGES.read(form)) == [(Kind.CANCELED, 5, "")]


def test_orders_of_a_monolith_whose_ids_are_uuids_are_known_by_their_numbers() -> None:
    uuid = "00000000-0000-0001-0000-000000000003"
    orders = msgspec.structs.replace(CONFIG.mapping.orders, id=Key(column="id", form="uuid"))
    mapping = msgspec.structs.replace(CONFIG.mapping, orders=orders)
    exchanges = Exchanges(mapping, scales(CONFIG.instruments))
    answer = {"order": {"id": uuid, "market": "BTC-USD"}}
    (placed,) = exchanges.read(capture("place", "POST", "/api/v1/orders", BUY, 201, answer))
    path = {"path_params": {"id": uuid}}
    target = f"/api/v1/orders/{uuid}"
    (canceled,) = exchanges.read(
        capture("cancel", "DELETE", target, None, 422, {"errors": {}}, **path)
    )
    assert (placed.kind, placed.order_id, placed.symbol) == (Kind.PLACED, 2, "BTC-USD")
    assert (canceled.kind, canceled.order_id) == (Kind.CANCEL_REFUSED, 2)


def test_errors_of_an_order_of_a_list_may_be_a_list() -> None:
    refused = {"errors": ["market.order.invalid_volume_or_price"]}
    told = placed_many([BUY, BAD], 201, {"orders": [{"id": 1, "market": "BTC-USD"}, refused]})
    assert [(one.kind, one.order_id) for one in told] == [(Kind.PLACED, 1), (Kind.PLACE_REFUSED, 0)]
    assert told[1].capture.status == 422
