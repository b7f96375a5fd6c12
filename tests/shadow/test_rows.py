"""Rows of the monolith as plain values, and what makes one unreadable."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from legacy_side import MAPPING, SCALES, order_row, trade_row

from engine.types import OrderType, Side, TimeInForce
from shadow.legacy.rows import (
    fill_columns,
    legacy_fill,
    order_columns,
    order_image,
    timestamp_us,
)
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
