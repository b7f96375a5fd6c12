"""Rows of the monolith as plain values, and what makes one unreadable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legacy_side import MAPPING, SCALES, order_row, trade_row

from engine.types import OrderType, Side, TimeInForce
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Amount, Mapping
from shadow.legacy.rows import (
    fill_columns,
    legacy_fill,
    order_columns,
    order_image,
)
from shadow.legacy.shorthand import expanded
from shadow.legacy.times import timestamp_us
from shadow.operation import LegacyFill, OrderImage, Status, Unreadable

TEXTS = st.text(st.sampled_from("0123456789.-+: NaE_\0é"), max_size=30)


def unreadable(**changes: str | None) -> Unreadable:
    read = order_image(order_row(**changes), MAPPING, SCALES)
    assert isinstance(read, Unreadable)
    return read


def test_an_order_row_becomes_integers_and_our_words() -> None:
    assert order_image(order_row(), MAPPING, SCALES) == OrderImage(
        symbol="BTC-USD",
        order_id=7,
        account=42,
        side=Side.BUY,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=23647,
        qty_lots=200_000_000,
        leaves_lots=150_000_000,
        status=Status.OPEN,
        created_at_us=1_430_438_400_250_000,
    )


def test_a_market_order_is_immediate_or_cancel_and_has_no_price() -> None:
    read = order_image(
        order_row(order_type="1", price=None, time_in_force="0", state="1"), MAPPING, SCALES
    )
    assert isinstance(read, OrderImage)
    assert (read.ord_type, read.tif, read.price_ticks) == (OrderType.MARKET, TimeInForce.IOC, 0)


def test_a_market_order_with_a_price_is_unreadable() -> None:
    assert "market order with price" in unreadable(order_type="1").reason


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"price": None}, "price is NULL"),
        ({"price": "236.475"}, "price 236.475 of BTC-USD is not a multiple of the tick 0.01"),
        ({"quantity": "-2"}, "quantity -2 of BTC-USD is negative"),
        ({"quantity": "0.000000001"}, "is not a multiple of the lot"),
        ({"price": "NaN"}, "NaN is not a plain decimal number"),
        ({"remaining_quantity": "2.1"}, "remaining_quantity is more than quantity"),
        ({"state": "9"}, "state = '9' is not in the mapping"),
        ({"side": "buy"}, "side = 'buy' is not in the mapping"),
        ({"member_id": None}, "member_id is NULL"),
        ({"member_id": "-1"}, "member_id = '-1' is no positive 64-bit integer"),
        ({"created_at": "infinity"}, "created_at = 'infinity' is no time"),
        ({"created_at": "01/05/2015 00:00"}, "is no time"),
        ({"market_id": "DOGE-USD"}, "market_id = 'DOGE-USD' is no configured instrument"),
    ],
)
def test_what_cannot_be_read_exactly_says_which_order_and_why(
    changes: dict[str, str | None], reason: str
) -> None:
    read = unreadable(**changes)
    assert reason in read.reason
    assert read.reason.startswith("orders: ")
    assert read.order_id == 7
    assert read.symbol == (changes.get("market_id") or "BTC-USD")


def test_an_order_without_symbol_and_id_is_still_reported() -> None:
    read = unreadable(market_id=None, id=None)
    assert (read.symbol, read.order_id) == ("", 0)


def test_an_absent_column_says_what_makes_postgresql_send_it() -> None:
    row = order_row()
    del row["price"]
    read = order_image(row, MAPPING, SCALES)
    assert isinstance(read, Unreadable)
    assert "REPLICA IDENTITY FULL" in read.reason


def test_the_named_columns_are_the_ones_that_are_read() -> None:
    row = {name: order_row()[name] for name in order_columns(MAPPING.orders)}
    assert isinstance(order_image(row, MAPPING, SCALES), OrderImage)
    row = {name: trade_row()[name] for name in fill_columns(MAPPING.fills)}
    assert isinstance(legacy_fill(row, MAPPING, SCALES), LegacyFill)


def test_two_database_values_may_mean_one_status() -> None:
    status = msgspec.structs.replace(
        MAPPING.orders.status, map={**MAPPING.orders.status.map, "5": "canceled"}
    )
    orders = msgspec.structs.replace(MAPPING.orders, status=status)
    mapping = msgspec.structs.replace(MAPPING, orders=orders)
    for value in ("2", "5"):
        read = order_image(order_row(state=value), mapping, SCALES)
        assert isinstance(read, OrderImage)
        assert read.status is Status.CANCELED


def test_a_fill_row_becomes_integers() -> None:
    assert legacy_fill(trade_row(), MAPPING, SCALES) == LegacyFill(
        symbol="BTC-USD",
        fill_id=3,
        maker_order_id=7,
        taker_order_id=9,
        price_ticks=23647,
        qty_lots=50_000_000,
    )


def test_an_unreadable_fill_names_itself_and_its_taker() -> None:
    read = legacy_fill(trade_row(price="1.001"), MAPPING, SCALES)
    assert isinstance(read, Unreadable)
    assert (read.symbol, read.order_id) == ("BTC-USD", 9)
    assert read.reason.startswith("trades 3: price 1.001")


def mapping_of(table: str, **changes: Any) -> Mapping:
    whole = msgspec.to_builtins(MAPPING)
    merged = {key: one for key, one in (whole[table] | changes).items() if one is not None}
    return msgspec.convert(expanded(whole | {table: merged}), Mapping)


def of_order(row: dict[str, str | None], **changes: Any) -> OrderImage | Unreadable:
    return order_image(row, mapping_of("orders", **changes), SCALES)


def of_fill(row: dict[str, str | None], **changes: Any) -> LegacyFill | Unreadable:
    return legacy_fill(row, mapping_of("fills", **changes), SCALES)


@pytest.mark.parametrize(("value", "side"), [("t", Side.BUY), ("f", Side.SELL), ("true", Side.BUY)])
def test_a_boolean_is_named_as_one_writes_it(value: str, side: Side) -> None:
    said = {"column": "side", "map": {"true": "buy", "false": "sell"}}
    read = of_order(order_row(side=value), side=said)
    assert isinstance(read, OrderImage)
    assert read.side is side


@pytest.mark.parametrize(
    ("value", "status"), [(None, Status.OPEN), ("1", Status.FILLED), ("99", Status.CANCELED)]
)
def test_null_and_every_other_value_may_have_a_word(value: str | None, status: Status) -> None:
    said = {"column": "state", "map": {"1": "filled"}, "null": "open", "other": "canceled"}
    read = of_order(order_row(state=value), status=said)
    assert isinstance(read, OrderImage)
    assert read.status is status


def test_without_a_column_every_row_says_the_same() -> None:
    read = of_order(order_row(), tif={"other": "ioc"})
    assert isinstance(read, OrderImage)
    assert read.tif is TimeInForce.IOC
    assert "time_in_force" not in order_columns(mapping_of("orders", tif={"other": "gtc"}).orders)


@pytest.mark.parametrize(
    ("text", "exponent", "ticks"),
    [("23647", -2, 23647), ("5", -1, 50), ("3", 2, 30000), ("0", -18, 0), ("7", 0, 700)],
)
def test_an_integer_counts_units(text: str, exponent: int, ticks: int) -> None:
    price = {"column": "price", "form": "integer", "exponent": exponent}
    read = of_order(order_row(price=text), price=price)
    assert isinstance(read, OrderImage)
    assert read.price_ticks == ticks


@pytest.mark.parametrize(
    ("text", "exponent", "reason"),
    [
        ("23647.0", -2, "23647.0 is not an integer"),
        ("23647", -3, "price 23.647 of BTC-USD is not a multiple of the tick 0.01"),
        ("-23647", -2, "price -236.47 of BTC-USD is negative"),
        ("1e3", -2, "is not an integer"),
        ("", -2, "is not an integer"),
        ("9" * 101, -2, "is not an integer"),
        ("9" * 18, 18, "is more than"),
        (None, -2, "price is NULL"),
    ],
)
def test_an_integer_that_is_no_price_says_why(text: str | None, exponent: int, reason: str) -> None:
    price = {"column": "price", "form": "integer", "exponent": exponent}
    read = of_order(order_row(price=text), price=price)
    assert isinstance(read, Unreadable)
    assert reason in read.reason


@pytest.mark.parametrize("text", ["", "1,5", " 1.5", "1.5 BTC", "0x1", "NaN", "1e-3"])
def test_a_string_that_is_no_plain_decimal_is_unreadable(text: str) -> None:
    read = of_order(order_row(quantity=text), quantity={"column": "quantity", "form": "text"})
    assert isinstance(read, Unreadable)
    assert "is not a plain decimal number" in read.reason


@pytest.mark.parametrize(
    ("changes", "quantities"),
    [
        ({"leaves": None}, (200_000_000, None)),
        ({"quantity": None}, (None, 150_000_000)),
        ({"leaves": None, "filled": "remaining_quantity"}, (200_000_000, 50_000_000)),
        ({"quantity": None, "filled": "quantity"}, (350_000_000, 150_000_000)),
        # of three columns the third is written, and not looked at
        ({"filled": "side"}, (200_000_000, 150_000_000)),
    ],
)
def test_two_quantities_say_all_and_one_says_itself(
    changes: dict[str, Any], quantities: tuple[int | None, int | None]
) -> None:
    read = of_order(order_row(), **changes)
    assert isinstance(read, OrderImage)
    assert (read.qty_lots, read.leaves_lots) == quantities


def test_more_filled_than_ordered_is_unreadable() -> None:
    row = order_row(remaining_quantity="2.5")
    read = of_order(row, leaves=None, filled="remaining_quantity")
    assert isinstance(read, Unreadable)
    assert "remaining_quantity is more than quantity" in read.reason


def test_a_symbol_may_be_a_code() -> None:
    symbol = {"column": "market_id", "map": {"3": "BTC-USD", "4": "DOGE-USD"}}
    read = of_order(order_row(market_id="3"), symbol=symbol)
    assert isinstance(read, OrderImage)
    assert read.symbol == "BTC-USD"
    for value, named in (("4", "DOGE-USD"), ("5", "5")):
        other = of_order(order_row(market_id=value), symbol=symbol)
        assert isinstance(other, Unreadable)
        assert other.symbol == named
        assert f"market_id = '{value}' is no configured instrument" in other.reason


def test_uuids_are_known_by_their_number() -> None:
    text = "5f0c1d3e-8a52-4a6b-9a41-0d2f3b4c5d6e"
    read = of_order(order_row(id=text), id={"column": "id", "form": "uuid"})
    assert isinstance(read, OrderImage)
    assert read.order_id == number_of(text, "uuid") > 0
    broken = of_order(order_row(id="7"), id={"column": "id", "form": "uuid"})
    assert isinstance(broken, Unreadable)
    assert "id = '7' is no UUID" in broken.reason


BY_SIDE = {
    "maker_order": None,
    "taker_order": None,
    "buy_order": "maker_order_id",
    "sell_order": "taker_order_id",
}


@pytest.mark.parametrize(
    ("buy", "sell", "taker_side", "changes", "pair"),
    [
        ("7", "9", "0", {}, (9, 7)),
        ("7", "9", "1", {}, (7, 9)),
        ("9", "7", None, {"taker_side": None, "maker_rule": "lower_id"}, (7, 9)),
        ("7", "9", None, {"taker_side": None, "maker_rule": "lower_id"}, (7, 9)),
        ("9", "7", "1", {"maker_rule": "lower_id"}, (7, 9)),
    ],
)
def test_who_bought_and_sold_says_who_met(
    buy: str, sell: str, taker_side: str | None, changes: dict[str, Any], pair: tuple[int, int]
) -> None:
    row = trade_row(maker_order_id=buy, taker_order_id=sell, taker_side=taker_side)
    read = of_fill(row, **BY_SIDE | changes)
    assert isinstance(read, LegacyFill)
    assert (read.maker_order_id, read.taker_order_id) == pair


def test_a_fill_that_does_not_say_who_took_is_unreadable() -> None:
    row = trade_row(taker_side=None)
    read = of_fill(row, **BY_SIDE)
    assert isinstance(read, Unreadable)
    assert "taker_side is NULL" in read.reason
    assert read.order_id == 0


@given(st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)))  # noqa: DTZ001
def test_a_time_without_a_zone_is_utc(moment: datetime) -> None:
    text = moment.isoformat(sep=" ").rstrip("0").rstrip(".") if moment.microsecond else str(moment)
    expected = moment.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    assert timestamp_us(text) == expected // timedelta(microseconds=1)


@given(
    st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)),  # noqa: DTZ001
    st.integers(-15 * 60, 15 * 60),
)
def test_a_time_with_a_zone_is_that_moment(moment: datetime, offset_min: int) -> None:
    there = moment.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    expected = there - datetime(1970, 1, 1, tzinfo=UTC)
    assert timestamp_us(str(there)) == expected // timedelta(microseconds=1)


def test_whole_hour_offsets_are_short_in_postgresql() -> None:
    assert timestamp_us("2015-05-01 02:00:00.5+02") == 1_430_438_400_500_000


@given(st.dictionaries(st.sampled_from(order_columns(MAPPING.orders)), st.none() | TEXTS))
def test_no_row_at_all_raises(changes: dict[str, str | None]) -> None:
    read = order_image(order_row(**changes), MAPPING, SCALES)
    assert isinstance(read, OrderImage | Unreadable)


def test_what_a_market_order_may_spend_is_in_ticks_times_lots_and_rounded_down() -> None:
    orders = msgspec.structs.replace(MAPPING.orders, funds=Amount(column="locked"))
    mapping = msgspec.structs.replace(MAPPING, orders=orders)
    assert "locked" in order_columns(orders)
    market = order_row(order_type="1", price=None, locked="12.00000000019")
    read = order_image(market, mapping, SCALES)
    assert isinstance(read, OrderImage)
    assert read.funds == 120_000_000_001
    negative = order_image(market | {"locked": "-1"}, mapping, SCALES)
    assert isinstance(negative, Unreadable)
    assert "funds" in negative.reason
    limit = order_image(order_row(locked=None), mapping, SCALES)
    assert isinstance(limit, OrderImage)
    assert limit.funds is None
