"""What was ordered, of rows that say only what is left."""

from __future__ import annotations

import msgspec
from test_ordering import fill, filled, image, transaction

from shadow.feed import command_of
from shadow.operation import (
    FillInserted,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Place,
    Status,
    Unexplained,
    ordered_lots,
)
from shadow.ordering import operations


def left(order: OrderImage) -> OrderImage:
    return msgspec.structs.replace(order, qty_lots=None)


def only_place(*changes: OrderInserted | OrderUpdated | FillInserted) -> Place:
    (place,) = operations(transaction(*changes))
    assert isinstance(place, Place)
    return place


def test_a_row_written_before_it_is_matched_says_what_was_ordered() -> None:
    place = only_place(
        OrderInserted(order=left(image(2))),
        OrderUpdated(order=left(filled(1))),
        FillInserted(fill=fill(1, 2, 4)),
        OrderUpdated(order=left(image(2, leaves=6))),
    )
    assert ordered_lots(place.order) == 10
    assert command_of(place, 1, 5).qty_lots == 10
    assert place.after[0].leaves_lots == 6


def test_a_row_written_once_when_it_has_been_matched_adds_its_fills() -> None:
    place = only_place(
        OrderUpdated(order=left(filled(1))),
        FillInserted(fill=fill(1, 2, 4)),
        OrderInserted(order=left(image(2, leaves=6))),
    )
    assert command_of(place, 1, 5).qty_lots == 10


def test_what_a_row_says_of_its_quantity_is_kept() -> None:
    place = only_place(
        OrderInserted(order=image(2, qty=9, leaves=5)), FillInserted(fill=fill(1, 2, 4))
    )
    assert ordered_lots(place.order) == 9


def test_of_several_orders_of_one_transaction_leaves_that_are_not_said_stay_unsaid() -> None:
    untold = msgspec.structs.replace(filled(1), leaves_lots=None)
    first, second = operations(
        transaction(
            OrderInserted(order=image(2)),
            FillInserted(fill=fill(1, 2, 4)),
            OrderInserted(order=image(3)),
            FillInserted(fill=fill(1, 3, 6)),
            OrderUpdated(order=untold),
        )
    )
    assert isinstance(first, Place)
    assert isinstance(second, Place)
    assert (first.after[1].leaves_lots, first.after[1].status) == (None, Status.OPEN)
    assert (second.after[1].leaves_lots, second.after[1].status) == (None, Status.FILLED)


def test_a_new_order_came_in_even_where_it_is_booked_as_maker() -> None:
    """It waited for a lock that a later one held: its id is the lower one."""
    place = only_place(
        OrderInserted(order=image(5)),
        OrderUpdated(order=filled(6)),
        FillInserted(fill=fill(5, 6)),
        OrderUpdated(order=filled(5)),
    )
    assert place.order.order_id == 5
    assert [one.order_id for one in place.after] == [5, 6]
    (later,) = operations(transaction(OrderUpdated(order=filled(5)), FillInserted(fill=fill(5, 6))))
    assert isinstance(later, Unexplained)
