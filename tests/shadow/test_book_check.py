"""Two books are equal order by order and place by place, or their first differences are told."""

from __future__ import annotations

import msgspec

from engine.types import OrderType, RestingOrder, Side, TimeInForce
from shadow.book_check import compare_books
from shadow.operation import OrderImage, Status, Unreadable


def image(order_id: int, price: int = 100, leaves: int = 5, side: Side = Side.BUY) -> OrderImage:
    return OrderImage(
        symbol="BTC-USD",
        order_id=order_id,
        account=7,
        side=side,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=price,
        qty_lots=9,
        leaves_lots=leaves,
        status=Status.OPEN,
        created_at_us=1,
    )


def resting(
    order_id: int, price: int = 100, leaves: int = 5, side: Side = Side.BUY
) -> RestingOrder:
    return RestingOrder(
        order_id=order_id,
        account=7,
        price_ticks=price,
        leaves_lots=leaves,
        qty_lots=leaves,
        side=side,
    )


def test_equal_books() -> None:
    legacy = [image(1), image(2), image(3, 101, side=Side.SELL)]
    engine = [resting(1), resting(2), resting(3, 101, side=Side.SELL)]
    assert compare_books(legacy, engine) == (True, 0, [], 0)
    assert compare_books([], []).equal
    assert compare_books([], []).reasons() == ()


def test_the_sides_may_be_mixed_but_not_the_places() -> None:
    legacy = [image(3, 101, side=Side.SELL), image(1), image(2)]
    assert compare_books(legacy, [resting(1), resting(2), resting(3, 101, side=Side.SELL)]).equal
    check = compare_books([image(1), image(2)], [resting(2), resting(1)])
    assert (check.equal, check.order_id) == (False, 1)
    assert "place 1" in check.differences[0]["what"]


def test_orders_that_one_side_lacks_or_has_otherwise_are_told_apart() -> None:
    check = compare_books([image(1), image(2)], [resting(2, leaves=4), resting(3)])
    assert not check.equal
    assert [(one["order_id"], one["what"]) for one in check.differences] == [
        (1, "order 1 is open in legacy and not in the engine"),
        (2, "order 2: leaves_lots 5 in legacy, 4 in the engine"),
        (3, "order 3 is open in the engine and not in legacy"),
    ]


def test_a_missing_order_does_not_make_all_behind_it_differ() -> None:
    legacy = [image(n) for n in range(1, 50)]
    check = compare_books(legacy, [resting(n) for n in range(2, 50)])
    assert [one["order_id"] for one in check.differences] == [1]


def test_an_order_that_cannot_be_read_is_a_difference() -> None:
    check = compare_books([Unreadable(symbol="BTC-USD", order_id=4, reason="off the tick")], [])
    assert (check.equal, check.order_id) == (False, 4)
    assert "order 4 of the monolith can't be read: off the tick" in check.reasons()


def test_only_the_first_differences_are_kept() -> None:
    check = compare_books([image(n) for n in range(1, 500)], [])
    assert len(check.differences) < 50
    assert "499 orders" in check.reasons()[0]


def test_price_leaves_and_account_are_compared() -> None:
    for name, value in (("leaves_lots", 4), ("price_ticks", 102), ("account", 8)):
        order = msgspec.structs.replace(resting(1), **{name: value})
        check = compare_books([image(1)], [order])
        assert not check.equal
        assert name in check.reasons()[1]


def test_without_known_places_only_orders_are_compared() -> None:
    first, second = image(1), image(2)
    book = [resting(2), resting(1)]
    assert not compare_books([first, second], book).equal
    assert compare_books([first, second], book, by_place=False).equal
    assert not compare_books([first], book, by_place=False).equal
