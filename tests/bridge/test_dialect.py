"""The monolith's words, held against the sandbox monolith's own rendering."""

from __future__ import annotations

import doctest
import json
from datetime import datetime, timedelta
from decimal import Decimal
from types import ModuleType

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from proxy_rig import CONFIG, DIALECT, MAPPING, SCALES

from bridge.proxy.desk.dialect import Dialect, render_status
from bridge.sandbox import params, render
from bridge.sandbox.params import BadRequest, MarketRules, NewOrder
from engine.types import Command, OrderType, Side, TimeInForce
from shadow import answer, answer_check, answer_values, refusals
from shadow.answer import FillView, OrderView
from shadow.answer_values import decimal_text, time_text
from shadow.legacy.mapping import Responses, Words
from shadow.legacy.rows import ORDER_TYPES, TIMES_IN_FORCE
from shadow.normalise import Refusal, place_command, request_fields
from shadow.operation import Status

RULES = {
    one.symbol: MarketRules(symbol=one.symbol, tick=Decimal(one.tick), lot=Decimal(one.lot))
    for one in CONFIG.instruments
}
PLACE = MAPPING.routes[0]
STATES = {Status.OPEN: 0, Status.FILLED: 1, Status.CANCELED: 2}
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - as ActiveRecord stores it: UTC, without a zone


@pytest.mark.parametrize("module", [answer, answer_check, answer_values, refusals])
def test_the_examples_in_the_text(module: ModuleType) -> None:
    found = doctest.testmod(module)
    assert (found.failed, found.attempted > 0) == (0, True)


ticks = st.integers(1, 10**14)
lots = st.integers(1, 10**17)
fills = st.builds(
    FillView,
    price_ticks=ticks,
    qty_lots=lots,
    maker_order_id=st.integers(1, 2**63 - 1),
    taker_order_id=st.integers(1, 2**63 - 1),
)


@st.composite
def views(draw: st.DrawFn) -> OrderView:
    qty_lots = draw(lots)
    ord_type = draw(st.sampled_from(sorted(ORDER_TYPES.values())))
    market = ord_type is OrderType.MARKET
    return OrderView(
        order_id=draw(st.integers(1, 2**63 - 1)),
        symbol=draw(st.sampled_from(sorted(SCALES))),
        side=draw(st.sampled_from(Side)),
        ord_type=ord_type,
        tif=TimeInForce.IOC if market else draw(st.sampled_from(sorted(TIMES_IN_FORCE.values()))),
        price_ticks=0 if market else draw(ticks),
        qty_lots=qty_lots,
        leaves_lots=draw(st.integers(0, qty_lots)),
        status=draw(st.sampled_from(sorted(STATES))),
        created_at_us=draw(st.integers(0, 4_000_000_000_000_000)),
        updated_at_us=draw(st.integers(0, 4_000_000_000_000_000)),
        fills=tuple(draw(st.lists(fills, max_size=3))),
    )


@given(views())
def test_an_order_reads_as_the_monolith_writes_it(view: OrderView) -> None:
    scale = SCALES[view.symbol]
    row = {
        "id": view.order_id,
        "market_id": view.symbol,
        "side": 0 if view.side == Side.BUY else 1,
        "order_type": 0 if view.ord_type == OrderType.LIMIT else 1,
        "time_in_force": 0 if view.tif == TimeInForce.GTC else 1,
        "price": stored(scale.price(view.price_ticks)) if view.price_ticks else None,
        "quantity": stored(scale.quantity(view.qty_lots)),
        "remaining_quantity": stored(scale.quantity(view.leaves_lots)),
        "state": STATES[view.status],
        "created_at": EPOCH + timedelta(microseconds=view.created_at_us),
        "updated_at": EPOCH + timedelta(microseconds=view.updated_at_us),
    }
    trades = [
        {
            "price": stored(scale.price(fill.price_ticks)),
            "quantity": stored(scale.quantity(fill.qty_lots)),
            "maker_order_id": fill.maker_order_id,
        }
        for fill in view.fills
    ]
    theirs = msgspec.json.encode({"order": render.order(row, trades)})
    assert DIALECT.render_placed(view) == (201, theirs)
    assert DIALECT.render_canceled(view) == (200, theirs)


def stored(number: Decimal) -> Decimal:
    """As a NUMERIC(n,8) column gives it back."""
    return number + Decimal("0E-8")


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False, allow_infinity=False),
    st.decimals(-(10**4), 10**11, allow_nan=False, places=3).map(str),
    st.decimals(0, 10**3, allow_nan=False, places=10).map(lambda one: format(one, "f")),
    st.sampled_from(
        ["buy", "sell", "limit", "market", "gtc", "ioc", "", " ", "BTC-USD", "SOL-USD"]
    ),
    st.text(max_size=5),
)
values = st.one_of(scalars, st.lists(scalars, max_size=2), st.just({}))
orders = st.fixed_dictionaries(
    {},
    optional={
        "market": st.one_of(st.sampled_from(["BTC-USD", "SOL-USD"]), values),
        "side": st.one_of(st.sampled_from(["buy", "sell"]), values),
        "order_type": st.one_of(st.sampled_from(["limit", "market"]), values),
        "time_in_force": st.one_of(st.sampled_from(["gtc", "ioc"]), values),
        "price": values,
        "quantity": values,
        "other": values,
    },
)
bodies = st.one_of(
    orders.map(lambda one: json.dumps({"order": one}).encode()),
    orders.map(lambda one: json.dumps(one).encode()),
    values.map(lambda one: json.dumps({"order": one}).encode()),
    st.binary(max_size=20),
)


@given(bodies, st.sampled_from(["application/json", "application/x-www-form-urlencoded", ""]))
def test_a_refusal_reads_as_the_monolith_writes_it(body: bytes, content_type: str) -> None:
    """And what it takes, we take, as the same order."""
    try:
        given_order = params.order_params(content_type, "", body)
    except BadRequest:
        expected: object = (400, b'{"status":400,"error":"Bad Request"}')
    else:
        theirs = params.validate(given_order, 7, RULES)
        expected = theirs
        if not isinstance(theirs, NewOrder):
            expected = (422, msgspec.json.encode({"errors": theirs}))
    assert ours(content_type, body) == expected


def ours(content_type: str, body: bytes) -> object:
    fields = request_fields(PLACE, {}, "", content_type, body)
    if isinstance(fields, Refusal):
        return DIALECT.render_refusal(fields)
    scale = SCALES.get(fields.symbol or "")
    command = place_command(fields, 7, 1, scale, MAPPING.words)
    if not isinstance(command, Command):
        return DIALECT.render_refusal(command)
    assert scale is not None
    return NewOrder(
        market=scale.symbol,
        member=command.account,
        side=0 if command.side == Side.BUY else 1,
        order_type=0 if command.ord_type == OrderType.LIMIT else 1,
        time_in_force=0 if command.tif == TimeInForce.GTC else 1,
        price=scale.price(command.price_ticks) if command.price_ticks else None,
        quantity=scale.quantity(command.qty_lots),
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ("0", "0.0"),
        ("0E-8", "0.0"),
        ("100", "100.0"),
        ("1E+2", "100.0"),
        ("1.50000000", "1.5"),
        ("1E-8", "0.00000001"),
        ("-2.50", "-2.5"),
        ("12345678901234567890123456789.5", "12345678901234567890123456789.5"),
    ],
)
def test_decimals(number: str, text: str) -> None:
    assert decimal_text(Decimal(number)) == text


def test_times_are_cut_not_rounded() -> None:
    assert time_text(999) == "1970-01-01T00:00:00.000Z"
    assert time_text(1_430_438_400_999_999) == "2015-05-01T00:00:00.999Z"


def test_refusals_without_fields() -> None:
    assert DIALECT.render_refusal(Refusal(status=401)) == (401, b'{"error":"Unauthorized"}')
    assert DIALECT.render_not_found() == (404, b'{"status":404,"error":"Not Found"}')
    assert DIALECT.render_not_open() == (422, b'{"errors":{"state":["is not open"]}}')
    assert render_status(503) == (503, b'{"status":503,"error":"Service Unavailable"}')


def test_other_keys_words_and_statuses() -> None:
    """Everything that is the monolith's own comes from the mapping, the order of keys included."""
    words = Words(
        side={"buy": "bid", "sell": "ask"},
        ord_type={"limit": "L", "market": "M"},
        tif={"gtc": "g", "ioc": "i"},
        status={"open": "wait", "filled": "done", "canceled": "cancel"},
    )
    responses = Responses(
        placed_status=200,
        canceled_status=202,
        order={"state": "status", "uid": "id", "kind": "side", "matches": "fills"},
        fill={"taker": "taker_order_id", "maker": "maker_order_id"},
    )
    other = Dialect(responses, words, SCALES)
    view = OrderView(
        order_id=5,
        symbol="BTC-USD",
        side=Side.SELL,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=1,
        qty_lots=1,
        leaves_lots=1,
        status=Status.OPEN,
        created_at_us=0,
        updated_at_us=0,
        fills=(FillView(price_ticks=1, qty_lots=1, maker_order_id=3, taker_order_id=5),),
    )
    body = b'{"state":"wait","uid":5,"kind":"ask","matches":[{"taker":5,"maker":3}]}'
    assert other.render_placed(view) == (200, body)
    assert other.render_canceled(view) == (202, body)
