"""The reference's book and its stops by themselves: what the markets' tests can't see from
outside.
"""

from __future__ import annotations

import doctest
from collections.abc import Callable
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.reference.book
import engine.wire
from engine.reference.book import Book
from engine.reference.order import Order
from engine.types import Side

BUY, SELL = Side.BUY, Side.SELL
Taken = tuple[int, int, int, int]


def order(
    order_id: int, side: Side, price_ticks: int, qty_lots: int = 5, display_lots: int = 0
) -> Order:
    made = Order(
        instrument=1,
        order_id=order_id,
        account=7,
        side=side,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        leaves_lots=qty_lots,
        display_lots=display_lots,
    )
    made.display()
    return made


def book_of(*orders: Order) -> Book:
    book = Book()
    for each in orders:
        book.rest(each)
    return book


def ids(book: Book) -> list[int]:
    return [each.order_id for each in book.orders()]


def matched(book: Book, side: Side, limit_ticks: int | None, qty_lots: int) -> list[Taken]:
    """Takes all that there is: (maker, price, quantity, what is left of the maker) in turn."""
    taken = []
    while qty_lots and (maker := book.met_by(side, limit_ticks)) is not None:
        lots = min(qty_lots, maker.displayed_lots)
        qty_lots -= lots
        book.take(maker, lots)
        taken.append((maker.order_id, maker.price_ticks, lots, maker.leaves_lots))
    return taken


@pytest.mark.parametrize("module", [engine.reference.book, engine.wire])
def test_its_documentation_is_true(module: ModuleType) -> None:
    results = doctest.testmod(module)
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
    assert book.met_by(BUY, None) is None


def test_matching_takes_what_it_needs_and_says_what_is_left_of_the_maker() -> None:
    book = book_of(order(1, BUY, 90), order(2, BUY, 91))
    assert matched(book, SELL, 90, 7) == [(2, 91, 5, 0), (1, 90, 2, 3)]
    assert (ids(book), len(book)) == ([1], 1)


def test_the_levels_met_are_those_within_the_limit() -> None:
    book = book_of(*(order(number, SELL, 100 + number // 2) for number in range(6)))
    for limit_ticks, met in ((99, []), (101, [[0, 1], [2, 3]]), (None, [[0, 1], [2, 3], [4, 5]])):
        levels = book.levels_met_by(BUY, limit_ticks)
        assert [[each.order_id for each in level] for level in levels] == met


def test_an_order_leaves_from_wherever_it_stands() -> None:
    orders = [order(number, SELL, 100) for number in range(5)]
    book = book_of(*orders)
    for gone, left in ((2, [0, 1, 3, 4]), (0, [1, 3, 4]), (4, [1, 3])):
        book.remove(orders[gone])
        book.check()
        assert ids(book) == left


@given(
    st.lists(
        st.tuples(
            st.sampled_from([BUY, SELL]), st.integers(1, 6), st.integers(1, 9), st.integers(0, 4)
        ),
        max_size=60,
    )
)
def test_quantity_is_neither_made_nor_lost(entries: list[tuple[Side, int, int, int]]) -> None:
    """What was ordered is traded twice over, once on each side, or still open."""
    book, ordered, traded = Book(), 0, 0
    for number, (side, price_ticks, qty_lots, display_lots) in enumerate(entries):
        ordered += qty_lots
        filled = sum(lots for _, _, lots, _ in matched(book, side, price_ticks, qty_lots))
        traded += filled
        if filled < qty_lots:
            new = order(number, side, price_ticks, qty_lots, display_lots)
            new.leaves_lots -= filled
            new.display()
            book.rest(new)
        book.check()
    assert ordered == 2 * traded + sum(each.leaves_lots for each in book.orders())


def _lose_a_level(book: Book) -> None:
    next(book.orders()).price_ticks = 89


def _overfill(book: Book) -> None:
    next(book.orders()).leaves_lots = 6


def _hide(book: Book) -> None:
    next(book.orders()).displayed_lots = 4


def _show_too_much(book: Book) -> None:
    next(book.orders()).display_lots = 4


def _cross(book: Book) -> None:
    book.rest(order(9, SELL, 90))


def _miscount(book: Book) -> None:
    book._open_orders += 1


@pytest.mark.parametrize(
    "damage", [_lose_a_level, _overfill, _hide, _show_too_much, _cross, _miscount]
)
def test_check_finds_what_is_broken(damage: Callable[[Book], None]) -> None:
    book = book_of(order(1, BUY, 90), order(2, SELL, 110))
    book.check()
    damage(book)
    with pytest.raises(AssertionError):
        book.check()
