"""Decimals, times and ids as a monolith may write them."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox_config import CONFIG

from bridge.proxy.desk.dialect import Dialect
from engine.types import OrderType, Side, TimeInForce
from shadow.answer import FillView, OrderView, Traded, id_of_uuid, uuid_of
from shadow.answer_check import NOT_KNOWN, compare_answer
from shadow.answer_values import (
    decimal_text,
    fixed_text,
    float_text,
    plain_text,
    problems,
    time_text,
    times_and_uuids,
)
from shadow.legacy.convert import scales
from shadow.legacy.mapping import InstrumentConfig, Responses
from shadow.operation import Status

INSTRUMENT = InstrumentConfig(symbol="btcusd", id=1, tick="0.01", lot="0.0001")
SCALES = scales([INSTRUMENT])
WORDS = CONFIG.mapping.words
VIEW = OrderView(
    order_id=42,
    symbol="btcusd",
    side=Side.SELL,
    ord_type=OrderType.LIMIT,
    tif=TimeInForce.GTC,
    price_ticks=10_050,  # 100.50
    qty_lots=20_000,  # 2
    leaves_lots=15_000,
    status=Status.OPEN,
    created_at_us=1_714_521_600_123_999,  # 2024-05-01
    updated_at_us=1_704_067_200_000_000,  # 2024-01-01
    fills=(FillView(price_ticks=10_050, qty_lots=5_000, maker_order_id=7, taker_order_id=42),),
    traded=Traded(count=1, ticks_times_lots=10_050 * 5_000),
)


def shown(value: str | int | bool, view: OrderView = VIEW, **settings: Any) -> str:
    responses = Responses(order={"id": "id", "x": value}, fill={}, **settings)
    _, body = Dialect(responses, WORDS, SCALES).render_placed(view)
    return body.decode().removeprefix('{"id":42,"x":').removesuffix("}")


@pytest.mark.parametrize(
    ("value", "settings", "text"),
    [
        ("price", {}, '"100.5"'),
        ("quantity", {}, '"2.0"'),
        ("price", {"decimal": "plain"}, '"100.5"'),
        ("quantity", {"decimal": "plain"}, '"2"'),
        ("price", {"decimal": "fixed"}, '"100.50000000"'),
        ("leaves", {"decimal": "fixed", "decimal_places": 4}, '"1.5000"'),
        ("price", {"decimal": "number"}, "100.5"),
        ("quantity", {"decimal": "number"}, "2"),
        ("quantity", {"decimal": "float"}, "2.0"),
        ("price:fixed2", {"decimal": "number"}, '"100.50"'),
        ("filled:number", {}, "0.5"),
        ("quantity:fixed4", {"decimal": "plain"}, '"2.0000"'),
        ("id:text", {}, '"42"'),
        ("uuid", {}, '"7261696c-7377-8000-8000-00000000002a"'),
        ("trades_count", {}, "1"),
        ("trades_count:text", {}, '"1"'),
        ("average_price", {}, '"100.5"'),
        ("created_at", {}, '"2024-05-01T00:00:00.123Z"'),
        ("created_at", {"time": "iso8601_s"}, '"2024-05-01T00:00:00Z"'),
        ("created_at", {"time": "iso8601_us"}, '"2024-05-01T00:00:00.123999Z"'),
        ("created_at", {"time": "epoch_s"}, "1714521600"),
        ("created_at", {"time": "epoch_ms"}, "1714521600123"),
        ("created_at:epoch_s", {}, "1714521600"),
        ("created_at", {"zone": "Europe/Paris"}, '"2024-05-01T02:00:00.123+02:00"'),
        ("updated_at", {"zone": "Europe/Paris"}, '"2024-01-01T01:00:00.000+01:00"'),
        ("=spot", {}, '"spot"'),
        ("=", {}, '""'),
        ("null", {}, "null"),
        (0, {}, "0"),
        (True, {}, "true"),
    ],
)
def test_a_value_in_its_form(value: str | int | bool, settings: dict[str, Any], text: str) -> None:
    assert shown(value, **settings) == text


def test_a_fill_in_its_forms() -> None:
    responses = Responses(
        order={"id": "id", "x": "fills"},
        fill={"p": "price:number", "v": "quantity", "t": "total", "m": "maker_order_id:text"},
    )
    _, body = Dialect(responses, WORDS, SCALES).render_placed(VIEW)
    fill = b'{"p":100.5,"v":"0.5","t":"50.25","m":"7"}'
    assert body == b'{"id":42,"x":[%b]}' % fill


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("average_price", '"33.33"'),
        ("average_price:round4", '"33.3333"'),
        ("average_price:fixed6", '"33.333333"'),
        ("average_price:number", "33.33"),
    ],
)
def test_an_average_is_rounded_to_the_tick_or_as_the_form_says(form: str, text: str) -> None:
    lots = {"qty_lots": 3, "leaves_lots": 0}
    traded = Traded(count=2, ticks_times_lots=10_000)  # 1 lot at 20.00, 2 at 40.00
    assert shown(form, msgspec.structs.replace(VIEW, traded=traded, **lots)) == text


def test_an_average_is_rounded_half_up() -> None:
    traded = Traded(count=2, ticks_times_lots=2 * 100 + 1)
    view = msgspec.structs.replace(VIEW, traded=traded, qty_lots=2, leaves_lots=0)
    assert shown("average_price", view) == '"1.01"'


def test_without_fills_the_average_is_zero() -> None:
    view = msgspec.structs.replace(
        VIEW, leaves_lots=VIEW.qty_lots, traded=Traded(count=0, ticks_times_lots=0)
    )
    assert shown("average_price", view) == '"0.0"'


def test_what_is_not_known_of_an_order_is_not_compared_and_all_else_is() -> None:
    view = msgspec.structs.replace(VIEW, traded=None)
    responses = Responses(order={"id": "id", "avg": "average_price", "n": "trades_count"}, fill={})
    rendered = Dialect(responses, WORDS, SCALES).render_canceled(view)
    assert NOT_KNOWN in msgspec.json.decode(rendered[1]).values()
    assert compare_answer((200, b'{"id":42,"avg":"3.5","n":7}'), rendered) == ()
    assert compare_answer((200, b'{"id":41,"avg":"3.5","n":7}'), rendered)


def test_an_answer_to_a_place_and_to_a_cancel_may_show_other_values() -> None:
    responses = Responses(
        order={"id": "id", "state": "status", "left": "leaves"},
        placed={"state": "=pending", "left": "quantity", "trades": 0},
        canceled={"state": "=wait"},
    )
    dialect = Dialect(responses, WORDS, SCALES)
    assert dialect.render_placed(VIEW)[1] == b'{"id":42,"state":"pending","left":"2.0","trades":0}'
    assert dialect.render_canceled(VIEW)[1] == b'{"id":42,"state":"wait","left":"1.5"}'


def test_times_and_uuids_are_compared_by_their_form_and_nothing_else() -> None:
    responses = Responses(order={"id": "id", "at": "created_at:epoch_s", "u": "uuid"})
    rendered = Dialect(responses, WORDS, SCALES).render_placed(VIEW)
    by_form = times_and_uuids(responses)
    body = b'{"id":42,"at":%b,"u":"%b"}'
    drawn = b"0b9e3f5c-1111-4a3b-9c4d-5e6f70819203"
    assert compare_answer((201, body % (b"1588000000", drawn)), rendered, by_form) == ()
    assert compare_answer((201, body % (b"1588000000123", drawn)), rendered, by_form)
    assert compare_answer((201, body % (b"1588000000", b"abc")), rendered, by_form)
    assert compare_answer((201, body % (b"1588000000", drawn)), rendered)


def test_an_id_that_is_a_uuid_is_known_by_the_number_it_is_folded_to() -> None:
    view = msgspec.structs.replace(VIEW, order_id=2)
    rendered = Dialect(Responses(order={"id": "id"}), WORDS, SCALES).render_placed(view)
    uuid = b"00000000-0000-0001-0000-000000000003"
    assert compare_answer((201, b'{"id":"%b"}' % uuid), rendered) == ()
    assert compare_answer((201, b'{"id":"%b"}' % uuid.replace(b"3", b"4")), rendered)


decimals = st.integers(0, 10**15 - 1).flatmap(
    lambda digits: st.integers(0, 12).map(lambda places: Decimal(f"{digits}E-{places}"))
)


@given(decimals)
def test_every_form_says_the_same_number_exactly(number: Decimal) -> None:
    assert Decimal(decimal_text(number)) == number
    assert Decimal(plain_text(number)) == number
    assert Decimal(fixed_text(number, 12)) == number
    assert Decimal(float_text(number)) == number


@given(decimals)
def test_a_float_is_written_as_ruby_writes_it(number: Decimal) -> None:
    """Python writes the same shortest digits; it differs in where the exponent begins."""
    text, theirs = float_text(number), repr(float(number))
    assert float(text) == float(number)
    significand = text.partition("e")[0].replace(".", "").strip("0")
    assert significand == theirs.partition("e")[0].replace(".", "").strip("0")
    exponent = math.floor(number.copy_abs().log10()) if number else 0
    assert ("e" in text) == (not -4 <= exponent < 16)


@given(st.integers(1, 2**62 - 1))
def test_our_uuids_lead_back_to_the_order(order_id: int) -> None:
    assert id_of_uuid(uuid_of(order_id)) == order_id
    assert id_of_uuid(uuid_of(order_id).upper()) == order_id


@pytest.mark.parametrize(
    "text",
    ["", "42", uuid_of(42)[:-1], uuid_of(42) + "0", "0b9e3f5c-1111-4a3b-9c4d-5e6f70819203"],
)
def test_other_uuids_lead_nowhere(text: str) -> None:
    assert id_of_uuid(text) == 0


def test_a_time_is_cut_off_in_its_zone() -> None:
    assert time_text(999_999, "Asia/Kolkata", 0) == "1970-01-01T05:30:00+05:30"


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"zone": "Paris"}, '`mapping.responses.zone` = "Paris" is no name'),
        ({"decimal_places": 31}, "`mapping.responses.decimal_places`: from 0 to 30"),
        ({"order": {"p": "prize"}}, '`mapping.responses.order.p` = "prize" is not one of'),
        ({"order": {"p": "price:fixed1"}}, "a price of btcusd has 2 decimal places, not 1"),
        ({"order": {"p": "quantity:round2"}}, "after the colon is one of rails, plain"),
        ({"order": {"p": "price:iso8601_s"}}, "after the colon is one of rails, plain"),
        ({"order": {"p": "created_at:plain"}}, "after the colon is one of iso8601_ms"),
        ({"order": {"p": "id:plain"}}, "after the colon is one of text"),
        ({"order": {"p": "side:text"}}, "after the colon is none: it has one form only"),
        ({"order": {"p": "price:"}}, "after the colon is one of"),
        ({"placed": {"p": "nothing"}}, "`mapping.responses.placed.p`"),
        ({"canceled": {"p": "nothing"}}, "`mapping.responses.canceled.p`"),
        ({"order": {"p": "fills"}}, "`mapping.responses.fill`: an answer shows fills"),
        ({"fill": {"p": "status"}}, '`mapping.responses.fill.p` = "status" is not one of'),
        ({"decimal": "fixed", "decimal_places": 2, "order": {"q": "leaves"}}, "has 4 decimal"),
        ({"fill": {"t": "total:fixed4"}}, "a total of btcusd has 6 decimal places, not 4"),
    ],
)
def test_what_can_not_be_shown_so_is_refused(changes: dict[str, Any], says: str) -> None:
    responses = msgspec.convert({"order": {"id": "id"}, **changes}, Responses)
    (one,) = problems(responses, [INSTRUMENT])
    assert says in one


def test_the_sandbox_s_own_can_be_shown() -> None:
    assert list(problems(CONFIG.mapping.responses, CONFIG.instruments)) == []
