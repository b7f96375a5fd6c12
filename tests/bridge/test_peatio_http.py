"""Two generations of Peatio's API, said by configuration alone: what its clients send is read, and
what they are told is written as Peatio does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from bridge import config
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.reply import refused
from bridge.proxy.route import Router, settle
from engine.reject import Reason
from engine.types import Command, OrderType, Side, TimeInForce
from shadow.answer import FillView, OrderView, Traded
from shadow.answer_check import compare_answer
from shadow.answer_values import times_and_uuids
from shadow.capture import Capture, Outcome
from shadow.exchanges import Exchanges, Kind
from shadow.legacy.convert import scales
from shadow.normalise import Fields, Refusal, cancel_filter, place_command, request_fields
from shadow.operation import Status

JSON, FORM = "application/json", "application/x-www-form-urlencoded"


class Monolith:
    def __init__(self, name: str) -> None:
        read = config.load(Path(__file__).parent / f"{name}.toml")
        self.mapping = read.mapping
        self.scales = scales(read.instruments)
        self.dialect = Dialect(
            self.mapping.responses, self.mapping.words, self.scales, errors=self.mapping.errors
        )
        self.router = Router(self.mapping.routes, method_override=self.mapping.method_override)
        self.exchanges = Exchanges(self.mapping, self.scales)

    def request(
        self, target: str, body: bytes = b"", content_type: str = JSON, method: str = "POST"
    ) -> Fields | Refusal:
        """As the proxy reads it."""
        path, _, query = target.partition("?")
        found = self.router.match(method.encode(), target.encode(), b"", content_type.encode())
        assert found is not None, path
        match = settle(found, content_type.encode(), body)
        assert match is not None
        return request_fields(match[0], match[1], query, content_type, body, method=method)

    def place(self, fields: Fields | Refusal) -> Command | Refusal:
        assert isinstance(fields, Fields)
        scale = self.scales.get(fields.symbol or "")
        return place_command(fields, 7, 42, scale, self.mapping.words)

    def refusal(self, target: str, body: bytes, content_type: str = JSON) -> tuple[int, bytes]:
        found = self.place(self.request(target, body, content_type))
        assert isinstance(found, Refusal)
        return self.dialect.render_refusal(found)

    def differs(self, legacy: tuple[int, bytes], ours: tuple[int, bytes]) -> bool:
        return bool(compare_answer(legacy, ours, times_and_uuids(self.mapping.responses)))


THREE, OLD = Monolith("peatio_3"), Monolith("peatio_2015")
ORDERS = "/api/v2/market/orders"
VIEW = OrderView(
    order_id=10440269,
    symbol="ethusd",
    side=Side.BUY,
    ord_type=OrderType.LIMIT,
    tif=TimeInForce.GTC,
    price_ticks=16082,
    qty_lots=310_000,
    leaves_lots=310_000,
    status=Status.OPEN,
    created_at_us=1_584_028_916_000_000,
    updated_at_us=1_584_028_916_000_000,
    traded=Traded(count=0, ticks_times_lots=0),
)
PENDING = (
    b'{"id":10440269,"uuid":"0b9e3f5c-1111-4a3b-9c4d-5e6f70819203","side":"buy","ord_type":"limit"'
    b',"price":"160.82","avg_price":"0.0","state":"pending","market":"ethusd","market_type":"spot"'
    b',"created_at":"2020-03-12T17:01:56+01:00","updated_at":"2020-03-12T17:01:56+01:00"'
    b',"origin_volume":"31.0","remaining_volume":"31.0","executed_volume":"0.0"'
    b',"maker_fee":"0.0015","taker_fee":"0.002","trades_count":0}'
)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"market":"ethusd","side":"buy","volume":"31","price":"160.82"}', JSON),
        (b'{"market":"ethusd","side":"buy","volume":31,"ord_type":"limit","price":160.82}', JSON),
        (b"market=ethusd&side=buy&volume=31.0&ord_type=limit&price=160.82", FORM),
    ],
)
def test_an_order_of_version_3(body: bytes, content_type: str) -> None:
    command = THREE.place(THREE.request(ORDERS, body, content_type))
    assert isinstance(command, Command)
    assert (command.side, command.price_ticks, command.qty_lots) == (Side.BUY, 16082, 310_000)


def test_a_market_order_has_no_price() -> None:
    body = b'{"market":"ethusd","side":"sell","volume":"1","ord_type":"market"}'
    command = THREE.place(THREE.request(ORDERS, body))
    assert isinstance(command, Command)
    assert (command.ord_type, command.tif) == (OrderType.MARKET, TimeInForce.IOC)


def test_the_answer_of_version_3_is_the_one_before_matching() -> None:
    fill = FillView(price_ticks=16000, qty_lots=5, maker_order_id=3, taker_order_id=10440269)
    matched = msgspec.structs.replace(
        VIEW,
        leaves_lots=VIEW.leaves_lots - 5,
        fills=(fill,),
        traded=Traded(count=1, ticks_times_lots=16000 * 5),
    )
    for view in (VIEW, matched):
        assert not THREE.differs((201, PENDING), THREE.dialect.render_placed(view))
    wrong = PENDING.replace(b"31.0", b"31", 1)
    assert THREE.differs((201, wrong), THREE.dialect.render_placed(VIEW))


def test_a_cancel_of_version_3_shows_the_order_as_it_waits() -> None:
    view = msgspec.structs.replace(
        VIEW,
        leaves_lots=300_000,
        status=Status.CANCELED,
        traded=Traded(count=3, ticks_times_lots=16001 * 10_000),
    )
    waits = (
        PENDING.replace(b"pending", b"wait")
        .replace(b'"avg_price":"0.0"', b'"avg_price":"160.01"')
        .replace(b'"remaining_volume":"31.0"', b'"remaining_volume":"30.0"')
        .replace(b'"executed_volume":"0.0"', b'"executed_volume":"1.0"')
        .replace(b'"trades_count":0', b'"trades_count":3')
    )
    assert not THREE.differs((201, waits), THREE.dialect.render_canceled(view))


@pytest.mark.parametrize(
    ("changes", "errors"),
    [
        ({"market": "ltcusd"}, ["market.spot_market.doesnt_exist_or_not_enabled"]),
        ({"market": None}, ["market.order.missing_market"]),
        ({"side": "hold"}, ["market.order.invalid_side"]),
        ({"volume": "0"}, ["market.order.non_positive_volume"]),
        ({"volume": "1.00001"}, ["market.order.invalid_volume_or_price"]),
        ({"price": "160.825"}, ["market.order.invalid_volume_or_price"]),
        ({"ord_type": "market"}, ["market.order.market_order_price"]),
        (
            {"side": "hold", "volume": "-1"},
            ["market.order.invalid_side", "market.order.non_positive_volume"],
        ),
    ],
)
def test_a_refusal_of_version_3(changes: dict[str, Any], errors: list[str]) -> None:
    order = {"market": "ethusd", "side": "buy", "volume": "1", "price": "160.82"} | changes
    body = msgspec.json.encode({key: value for key, value in order.items() if value is not None})
    assert THREE.refusal(ORDERS, body) == (422, msgspec.json.encode({"errors": errors}))


def test_what_else_version_3_refuses() -> None:
    said = THREE.dialect.render_refusal
    assert said(Refusal(status=401)) == (401, b'{"errors":["jwt.decode_and_verify"]}')
    assert THREE.dialect.render_not_found() == (404, b'{"errors":["record.not_found"]}')
    closed = refused(Reason.INSTRUMENT_HALTED, THREE.dialect)
    assert (closed.status, closed.body) == (
        422,
        b'{"errors":["market.spot_market.doesnt_exist_or_not_enabled"]}',
    )


def capture(monolith: Monolith, action: str, target: str, body: bytes, answer: bytes) -> Capture:
    found = monolith.router.match(b"POST", target.encode(), b"", JSON.encode())
    assert found is not None
    match = settle(found, JSON.encode(), body)
    assert match is not None
    return Capture(
        worker="w",
        number=1,
        action=action,
        method="POST",
        target=target,
        path_params=match[1],
        content_type=JSON,
        request_body=body,
        account=7,
        request_id="r",
        outcome=Outcome.ANSWERED,
        status=201,
        response_body=answer,
        sent_mono_ns=1,
        answered_mono_ns=2,
        sent_at_ns=3,
    )


@pytest.mark.parametrize("named", ["10440269", "0b9e3f5c-1111-4a3b-9c4d-5e6f70819203"])
def test_a_cancel_by_id_or_by_uuid_is_told_apart_by_its_answer(named: str) -> None:
    one = capture(THREE, "cancel", f"{ORDERS}/{named}/cancel", b"", PENDING)
    (told,) = THREE.exchanges.read(one)
    assert (told.kind, told.order_id, told.symbol) == (Kind.CANCELED, 10440269, "ethusd")


def test_a_cancel_of_everything() -> None:
    fields = THREE.request(f"{ORDERS}/cancel", b'{"market":"ethusd","side":"sell"}')
    assert isinstance(fields, Fields)
    which = cancel_filter(fields, THREE.mapping.words)
    assert which == ("ethusd", Side.SELL)
    answer = b"[%b]" % PENDING
    (told,) = THREE.exchanges.read(capture(THREE, "cancel_all", f"{ORDERS}/cancel", b"", answer))
    assert (told.kind, told.order_id) == (Kind.CANCELED, 10440269)


@pytest.mark.parametrize(
    ("target", "body"),
    [
        ("/api/v2/orders", b"market=btccny&side=buy&volume=2&price=3000.5&tonce=1&signature=x"),
        ("/api/v2/orders?market=btccny&side=buy&volume=2&price=3000.5", b""),
        (
            "/markets/btccny/order_bids",
            b"order_bid[price]=3000.5&order_bid[origin_volume]=2&authenticity_token=abc",
        ),
    ],
)
def test_an_order_of_2015(target: str, body: bytes) -> None:
    command = OLD.place(OLD.request(target, body, FORM))
    assert isinstance(command, Command)
    found = (command.side, command.price_ticks, command.qty_lots, command.ord_type)
    assert found == (Side.BUY, 300_050, 20_000, OrderType.LIMIT)


def test_several_orders_of_2015_in_one_request() -> None:
    body = (
        b"market=btccny&orders[][side]=buy&orders[][volume]=1&orders[][price]=3000"
        b"&orders[][side]=sell&orders[][volume]=2&orders[][price]=3001"
    )
    fields = OLD.request("/api/v2/orders/multi", body, FORM)
    assert isinstance(fields, Fields)
    commands = [OLD.place(one) for one in fields.each]
    sides = [one.side for one in commands if isinstance(one, Command)]
    assert sides == [Side.BUY, Side.SELL]


def test_answers_of_2015() -> None:
    view = msgspec.structs.replace(VIEW, symbol="btccny")
    told = (
        b'{"id":10440269,"side":"buy","ord_type":"limit","price":"160.82","avg_price":"0.0"'
        b',"state":"wait","market":"btccny","created_at":"2020-03-13T00:01:56+08:00"'
        b',"volume":"31.0","remaining_volume":"31.0","executed_volume":"0.0","trades_count":0}'
    )
    assert not OLD.differs((201, told), OLD.dialect.render_placed(view))
    answer = b"[%b]" % told
    (one,) = OLD.exchanges.read(capture(OLD, "cancel_all", "/api/v2/orders/clear", b"", answer))
    assert one.order_id == 10440269
    (one,) = OLD.exchanges.read(
        capture(OLD, "cancel", "/api/v2/order/delete", b'{"id":10440269}', b"")
    )
    assert one.order_id == 10440269


def test_refusals_of_2015() -> None:
    body = b"market=btccny&side=buy&volume=2&price=-1"
    status, said = OLD.refusal("/api/v2/orders", body, FORM)
    message = "Failed to create order. Reason: price must be greater than 0"
    assert (status, msgspec.json.decode(said)) == (
        400,
        {"error": {"code": 2002, "message": message}},
    )
    status, said = OLD.dialect.render_not_found()
    assert (status, msgspec.json.decode(said)["error"]["code"]) == (400, 2003)
