"""Plain values between the monolith's database and the comparison. All numbers are ticks and
lots already.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Status(StrEnum):
    """Of an order, in FIX's words (OrdStatus 39)."""

    PENDING = "pending"
    OPEN = "open"
    FILLED = "filled"
    CANCELED = "canceled"
    REJECTED = "rejected"


class OrderImage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An order row of the monolith as a transaction left it."""

    symbol: str
    order_id: int
    account: int
    side: int  # engine.types.Side
    ord_type: int  # engine.types.OrderType
    tif: int  # engine.types.TimeInForce
    price_ticks: int  # 0 for a market order
    qty_lots: int | None  # as ordered; None: the row does not say
    leaves_lots: int | None  # None: the row does not say
    status: Status
    created_at_us: int  # application clock of the monolith, UTC, microseconds since 1970
    funds: int | None = None  # what a market buy may spend, in ticks times lots; None: no bound


def ordered_lots(order: OrderImage) -> int:
    """Of a `Place`'s order: `quantities.as_ordered` has seen to it that it is there."""
    assert order.qty_lots is not None
    return order.qty_lots


def open_lots(order: OrderImage) -> int:
    """Of an order of a snapshot, which works out what the row does not say."""
    assert order.leaves_lots is not None
    return order.leaves_lots


class LegacyFill(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A fill row of the monolith."""

    symbol: str
    fill_id: int
    maker_order_id: int
    taker_order_id: int
    price_ticks: int
    qty_lots: int


def counterparty(fill: LegacyFill, order_id: int) -> int:
    """The order that this one met, whichever of the two is booked as maker."""
    if fill.maker_order_id == order_id:
        return fill.taker_order_id
    return fill.maker_order_id


class OrderInserted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    order: OrderImage


class OrderUpdated(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    order: OrderImage


class OrderDeleted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    order_id: int


class FillInserted(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    fill: LegacyFill


class Marker(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """Our own message in the stream, written by the fence transaction (DESIGN.md section 7, step
    2).
    """

    symbol: str
    flip_id: int
    owner: str  # "engine" or "legacy"
    epoch: int


class Mark(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """Our own message: everything that committed before it was written has now been read."""

    id: str


class Unreadable(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """A row that the mapping can't turn into exact numbers. The order is uncomparable; the rest
    goes on.
    """

    symbol: str  # "" when not even that could be read
    order_id: int  # 0 when not even that could be read
    reason: str


Change = OrderInserted | OrderUpdated | OrderDeleted | FillInserted | Marker | Mark | Unreadable


class LegacyTransaction(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One committed transaction of the monolith; they arrive in commit order, whole."""

    commit_lsn: int  # position of the commit record: what a snapshot's position is compared with
    end_lsn: int  # the position just after it: what the slot is confirmed to
    xid: int
    committed_at_us: int  # server clock, UTC, microseconds since 1970
    ours: bool  # written by our own write-back: never fed back
    changes: tuple[Change, ...]


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """The monolith took a new order, and this is all that it did with it."""

    order: OrderImage  # as first written: the input
    fills: tuple[LegacyFill, ...]  # in the order in which they were written
    after: tuple[
        OrderImage, ...
    ]  # final image of every order touched, the new one first, then makers by id
    # Of a market buy: what the monolith's rule says that its funds don't pay for, by the book that
    # it met. The engine gets the order without it.
    cut_lots: int = 0
    reordered: bool = False  # fills have shown that it was not handled in commit order


class Cancel(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    order: OrderImage  # the final image; leaves_lots is what was canceled
    reordered: bool = False  # as of a Place


class Touch(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """An order written again without a fill or a cancel: nothing, or an amend behind our back."""

    order: OrderImage


class Requeue(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """Nothing that the monolith did: fills have shown that of orders which came at the same time
    this one stands behind the others, and the engine's queue must follow.
    """

    order: OrderImage  # leaves_lots is what it has left


class Unexplained(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag=True):
    """Changes that are no operation that the mapping knows. Taints the instrument."""

    symbol: str  # "" when not even that can be told
    order_id: int
    reason: str


Operation = Place | Cancel | Touch | Requeue | Unexplained
