"""Transactions of the monolith turn into operations: one by one, several at once, and spoilt."""

from __future__ import annotations

import msgspec

from engine.types import OrderType, Side, TimeInForce
from shadow.operation import (
    Cancel,
    Change,
    FillInserted,
    LegacyFill,
    LegacyTransaction,
    Mark,
    Marker,
    OrderDeleted,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Place,
    Status,
    Touch,
    Unexplained,
    Unreadable,
)
from shadow.ordering import operations


def image(
    order_id: int, *, qty: int = 10, leaves: int | None = None, **changed: object
) -> OrderImage:
    order = OrderImage(
        symbol="BTC-USD",
        order_id=order_id,
        account=7,
        side=Side.BUY,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        price_ticks=100,
        qty_lots=qty,
        leaves_lots=qty if leaves is None else leaves,
        status=Status.OPEN,
        created_at_us=1,
    )
    return msgspec.structs.replace(order, **changed)


def filled(order_id: int, **changed: object) -> OrderImage:
    return image(order_id, leaves=0, status=Status.FILLED, **changed)


def fill(maker: int, taker: int, qty: int = 10) -> LegacyFill:
    return LegacyFill(
        symbol="BTC-USD",
        fill_id=maker * 1000 + taker,
        maker_order_id=maker,
        taker_order_id=taker,
        price_ticks=100,
        qty_lots=qty,
    )


def transaction(*changes: Change, ours: bool = False) -> LegacyTransaction:
    return LegacyTransaction(
        commit_lsn=100, end_lsn=110, xid=1, committed_at_us=1, ours=ours, changes=changes
    )


def test_an_order_that_rests_is_a_place_without_fills() -> None:
    order = image(1)
    assert operations(transaction(OrderInserted(order=order))) == [
        Place(order=order, fills=(), after=(order,))
    ]


def test_an_order_that_trades_carries_its_fills_and_all_it_left_behind() -> None:
    order, done = image(9, qty=15), image(9, qty=15, leaves=3)
    tx = transaction(
        OrderInserted(order=order),
        OrderUpdated(order=filled(5)),
        FillInserted(fill=fill(5, 9)),
        OrderUpdated(order=image(2, leaves=8)),
        FillInserted(fill=fill(2, 9, qty=2)),
        OrderUpdated(order=done),
    )
    assert operations(tx) == [
        Place(
            order=order,
            fills=(fill(5, 9), fill(2, 9, qty=2)),
            after=(done, image(2, leaves=8), filled(5)),
        )
    ]


def test_a_canceled_order_is_a_cancel_with_what_was_open() -> None:
    canceled = image(4, leaves=6, status=Status.CANCELED)
    assert operations(transaction(OrderUpdated(order=canceled))) == [Cancel(order=canceled)]


def test_an_unfilled_immediate_order_is_one_place_and_no_cancel() -> None:
    order = image(3, tif=TimeInForce.IOC)
    final = msgspec.structs.replace(order, status=Status.CANCELED)
    assert operations(transaction(OrderInserted(order=order), OrderUpdated(order=final))) == [
        Place(order=order, fills=(), after=(final,))
    ]


def test_a_bulk_cancel_is_taken_apart_in_the_order_of_its_rows() -> None:
    rows = [image(n, status=Status.CANCELED) for n in (8, 3, 5)]
    found = operations(transaction(*(OrderUpdated(order=row) for row in rows)))
    assert found == [Cancel(order=row) for row in rows]


def test_several_orders_in_one_transaction_keep_their_own_fills() -> None:
    """Order 5 is met by both: the first sees it as it left it, not as the second did."""
    tx = transaction(
        OrderInserted(order=image(8, qty=4)),
        OrderInserted(order=image(9, qty=6)),
        OrderUpdated(order=filled(5)),
        FillInserted(fill=fill(5, 8, qty=4)),
        FillInserted(fill=fill(5, 9, qty=6)),
        OrderUpdated(order=filled(8, qty=4)),
        OrderUpdated(order=filled(9, qty=6)),
    )
    first, second = operations(tx)
    assert first == Place(
        order=image(8, qty=4),
        fills=(fill(5, 8, qty=4),),
        after=(filled(8, qty=4), image(5, leaves=6)),
    )
    assert second == Place(
        order=image(9, qty=6),
        fills=(fill(5, 9, qty=6),),
        after=(filled(9, qty=6), filled(5)),
    )


def test_an_order_may_rest_and_be_met_in_the_same_transaction() -> None:
    tx = transaction(
        OrderInserted(order=image(8)),
        OrderInserted(order=image(9)),
        OrderUpdated(order=filled(8)),
        FillInserted(fill=fill(8, 9)),
        OrderUpdated(order=filled(9)),
    )
    first, second = operations(tx)
    assert first == Place(order=image(8), fills=(), after=(image(8),))
    assert second == Place(order=image(9), fills=(fill(8, 9),), after=(filled(9), filled(8)))


def test_places_and_cancels_keep_the_order_of_their_rows() -> None:
    tx = transaction(
        OrderUpdated(order=image(1, status=Status.CANCELED)),
        OrderInserted(order=image(8)),
        OrderUpdated(order=image(2, status=Status.CANCELED)),
    )
    assert [type(one) for one in operations(tx)] == [Cancel, Place, Cancel]


def test_our_own_write_back_is_never_an_operation() -> None:
    assert operations(transaction(OrderInserted(order=image(1)), ours=True)) == []


def test_markers_and_marks_are_no_operations() -> None:
    marker = Marker(symbol="BTC-USD", flip_id=1, owner="engine", epoch=2)
    assert operations(transaction(marker, Mark(id="m"))) == []


def test_an_order_written_again_as_it_was_is_a_touch() -> None:
    assert operations(transaction(OrderUpdated(order=image(1)))) == [Touch(order=image(1))]


def test_fills_that_come_in_a_later_transaction_are_unexplained() -> None:
    tx = transaction(
        OrderUpdated(order=filled(5)),
        OrderUpdated(order=filled(9)),
        FillInserted(fill=fill(5, 9)),
    )
    (found,) = operations(tx)
    assert isinstance(found, Unexplained)
    assert (found.symbol, found.order_id) == ("BTC-USD", 9)


def test_an_order_that_waits_for_its_matching_is_unexplained() -> None:
    (found,) = operations(transaction(OrderInserted(order=image(1, status=Status.PENDING))))
    assert isinstance(found, Unexplained)
    assert "asynchronously" in found.reason


def test_a_deleted_order_is_unexplained_without_a_symbol() -> None:
    (found,) = operations(transaction(OrderDeleted(order_id=3)))
    assert isinstance(found, Unexplained)
    assert (found.symbol, found.order_id) == ("", 3)


def test_an_unreadable_row_spoils_its_own_operation_alone() -> None:
    tx = transaction(
        OrderInserted(order=image(8)),
        OrderInserted(order=image(9)),
        Unreadable(symbol="BTC-USD", order_id=9, reason="price off the tick"),
    )
    assert operations(tx) == [
        Place(order=image(8), fills=(), after=(image(8),)),
        Unexplained(symbol="BTC-USD", order_id=9, reason="price off the tick"),
    ]


def test_an_unreadable_maker_spoils_the_order_that_met_it() -> None:
    tx = transaction(
        OrderInserted(order=image(9)),
        Unreadable(symbol="BTC-USD", order_id=5, reason="no such state"),
        FillInserted(fill=fill(5, 9)),
        OrderUpdated(order=filled(9)),
    )
    assert operations(tx) == [Unexplained(symbol="BTC-USD", order_id=9, reason="no such state")]


def test_an_unreadable_row_of_nobody_spoils_all_that_it_may_belong_to() -> None:
    tx = transaction(
        OrderInserted(order=image(8)),
        OrderInserted(order=image(9, symbol="ETH-USD")),
        Unreadable(symbol="", order_id=0, reason="garbage"),
    )
    assert [type(one) for one in operations(tx)] == [Unexplained, Unexplained]


def test_an_unreadable_row_alone_is_unexplained() -> None:
    row = Unreadable(symbol="BTC-USD", order_id=12, reason="price off the tick")
    assert operations(transaction(row)) == [
        Unexplained(symbol="BTC-USD", order_id=12, reason="price off the tick")
    ]
