"""The reference book by itself: what the markets' tests can't see from outside."""

from __future__ import annotations

import doctest
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.book
from engine.book import Book, Order, Trade
from engine.types import Side

BUY, SELL = Side.BUY, Side.SELL


def order(order_id: int, side: Side, price_ticks: int, qty_lots: int = 5) -> Order:
    return Order(
        instrument=1,
        order_id=order_id,
        account=7,
        side=side,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        leaves_lots=qty_lots,
    )


def book_of(*orders: Order) -> Book:
    book = Book()
    for each in orders:
        book.rest(each)
    return book


def ids(book: Book) -> list[int]:
    return [each.order_id for each in book.orders()]


def test_its_documentation_is_true() -> None:
    results = doctest.testmod(engine.book)
    assert results.attempted > 0
    assert results.failed == 0


@pytest.mark.parametrize(
    ("side", "limit_ticks", "crosses"),
    [
        (BUY, 109, False),
        (BUY, 110, True),
        (BUY, 111, True),
        (BUY, None, True),
        (SELL, 91, False),
        (SELL, 90, True),
        (SELL, 89, True),
        (SELL, None, True),
    ],
)
def test_crossing_begins_at_the_best_price_of_the_other_side(
    side: Side, limit_ticks: int | None, crosses: bool
) -> None:
    book = book_of(order(1, BUY, 90), order(2, BUY, 80), order(3, SELL, 110), order(4, SELL, 120))
    assert book.crosses(side, limit_ticks) is crosses


def test_nothing_crosses_an_empty_side() -> None:
    book = book_of(order(1, BUY, 90))
    assert not book.crosses(BUY, None)
    assert book.match(BUY, None, 5) == []


def test_matching_takes_what_it_needs_and_says_what_is_left_of_the_maker() -> None:
    book = book_of(order(1, BUY, 90), order(2, BUY, 91))
    assert book.match(SELL, 90, 7) == [Trade(2, 91, 5, 0), Trade(1, 90, 2, 3)]
    assert (ids(book), len(book)) == ([1], 1)


def test_an_order_leaves_from_wherever_it_stands() -> None:
    orders = [order(number, SELL, 100) for number in range(5)]
    book = book_of(*orders)
    for gone, left in ((2, [0, 1, 3, 4]), (0, [1, 3, 4]), (4, [1, 3])):
        book.remove(orders[gone])
        book.check()
        assert ids(book) == left


@given(
    st.lists(
        st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 6), st.integers(1, 9)), max_size=60
    )
)
def test_quantity_is_neither_made_nor_lost(entries: list[tuple[Side, int, int]]) -> None:
    """What was ordered is traded twice over, once on each side, or still open."""
    book, ordered, traded = Book(), 0, 0
    for number, (side, price_ticks, qty_lots) in enumerate(entries):
        ordered += qty_lots
        filled = sum(trade.qty_lots for trade in book.match(side, price_ticks, qty_lots))
        traded += filled
        if filled < qty_lots:
            new = order(number, side, price_ticks, qty_lots)
            new.leaves_lots -= filled
            book.rest(new)
        book.check()
    assert ordered == 2 * traded + sum(each.leaves_lots for each in book.orders())


def _lose_a_level(book: Book) -> None:
    next(book.orders()).price_ticks = 89


def _overfill(book: Book) -> None:
    next(book.orders()).leaves_lots = 6


def _cross(book: Book) -> None:
    book.rest(order(9, SELL, 90))


def _miscount(book: Book) -> None:
    book._open_orders += 1


@pytest.mark.parametrize("damage", [_lose_a_level, _overfill, _cross, _miscount])
def test_check_finds_what_is_broken(damage: Callable[[Book], None]) -> None:
    book = book_of(order(1, BUY, 90), order(2, SELL, 110))
    book.check()
    damage(book)
    with pytest.raises(AssertionError):
        book.check()
