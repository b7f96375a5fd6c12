"""Two books are equal only order by order and place by place."""

from __future__ import annotations

from typing import Any

from bridge.compare_books import BookComparison, compare_books
from bridge.limits import BOOK_DIFFERENCES_SHOWN_MAX
from engine.types import OrderType, RestingOrder, Side, TimeInForce
from shadow.operation import OrderImage, Status, Unreadable


def legacy(order_id: int, **changes: Any) -> OrderImage:
    values: dict[str, Any] = {
        "symbol": "BTC-USD",
        "order_id": order_id,
        "account": 7,
        "side": Side.BUY,
        "ord_type": OrderType.LIMIT,
        "tif": TimeInForce.GTC,
        "price_ticks": 100,
        "qty_lots": 10,
        "leaves_lots": 5,
        "status": Status.OPEN,
        "created_at_us": order_id,
    }
    return OrderImage(**{**values, **changes})


def engine(order_id: int, **changes: Any) -> RestingOrder:
    values: dict[str, Any] = {
        "order_id": order_id,
        "account": 7,
        "side": Side.BUY,
        "price_ticks": 100,
        "leaves_lots": 5,
        "qty_lots": 5,  # loaded with what it had left
    }
    return RestingOrder(**{**values, **changes})


def the_only(comparison: BookComparison) -> str:
    assert comparison.differing == 1
    return comparison.differences[0].what


def test_empty_books_are_equal() -> None:
    assert compare_books([], []).equal


def test_books_are_equal_whatever_the_order_of_the_sides() -> None:
    theirs = [legacy(1), legacy(3, side=Side.SELL), legacy(2)]
    ours = [engine(1), engine(2), engine(3, side=Side.SELL)]
    comparison = compare_books(theirs, ours)
    assert comparison.equal
    assert (comparison.orders_legacy, comparison.orders_engine) == (3, 3)
    assert comparison.reasons() == ()


def test_an_order_that_the_engine_lacks() -> None:
    assert "order 2 is open in legacy and not in the engine" in the_only(
        compare_books([legacy(1), legacy(2)], [engine(1)])
    )


def test_an_order_that_legacy_lacks() -> None:
    assert "order 2 is open in the engine and not in legacy" in the_only(
        compare_books([legacy(1)], [engine(1), engine(2)])
    )


def test_the_same_orders_in_another_queue_order_differ() -> None:
    comparison = compare_books([legacy(1), legacy(2)], [engine(2), engine(1)])
    assert comparison.differing == 2
    assert comparison.differences[0].place == 1
    assert "legacy has order 1 here, the engine 2" in comparison.differences[0].what


def test_leaves_price_and_account_are_compared() -> None:
    for change in ({"leaves_lots": 4}, {"price_ticks": 101}, {"account": 8}):
        name = next(iter(change))
        assert name in the_only(compare_books([legacy(1)], [engine(1, **change)]))


def test_an_unreadable_row_is_never_equal() -> None:
    row = Unreadable(symbol="BTC-USD", order_id=9, reason="price 0.001 is off the tick")
    comparison = compare_books([legacy(1), row], [engine(1)])
    assert not comparison.equal
    assert "order 9: price 0.001 is off the tick" in comparison.reasons()


def test_many_differences_are_counted_and_a_few_are_shown() -> None:
    comparison = compare_books([legacy(n) for n in range(1, 101)], [])
    assert comparison.differing == 100
    assert len(comparison.differences) == BOOK_DIFFERENCES_SHOWN_MAX
    assert "100 places" in comparison.reasons()[0]
