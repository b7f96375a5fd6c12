"""Two books of one instrument, order by order and place by place. Pure: the readers are elsewhere.

The legacy side is what its database says, in the queue order that the mapping gives; the engine
side is its book. An order's ordered quantity is not compared: one that rested when shadowing began
was loaded with what it had left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest

import msgspec

from bridge.limits import BOOK_DIFFERENCES_SHOWN_MAX
from engine.types import RestingOrder, Side
from shadow.operation import OrderImage, Unreadable


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """An open order as either side has it."""

    order_id: int
    account: int
    side: int
    price_ticks: int
    leaves_lots: int


class BookDifference(msgspec.Struct, frozen=True, kw_only=True):
    side: str  # "buy", "sell"
    place: int  # in the side's queue, from 1: best price first, then first in first out
    what: str
    legacy: Place | None = None
    engine: Place | None = None


class BookComparison(msgspec.Struct, frozen=True, kw_only=True):
    orders_legacy: int
    orders_engine: int
    differing: int  # places that differ; after a missing order all later places of its side do
    differences: tuple[BookDifference, ...] = ()  # the first few
    unreadable: tuple[str, ...] = ()  # rows of the monolith that have no exact numbers

    @property
    def equal(self) -> bool:
        return self.differing == 0 and not self.unreadable

    def reasons(self) -> tuple[str, ...]:
        if self.equal:
            return ()
        first = [f"{one.side} place {one.place}: {one.what}" for one in self.differences[:3]]
        count = f"the books differ at {self.differing} places"
        return (count, *first, *self.unreadable[:3])


def compare_books(
    legacy: Iterable[OrderImage | Unreadable], engine: Iterable[RestingOrder]
) -> BookComparison:
    """Both of one instrument. Each side's orders come in queue order; the sides may be mixed."""
    readable: list[Place] = []
    unreadable: list[str] = []
    for row in legacy:
        if isinstance(row, Unreadable):
            unreadable.append(f"order {row.order_id}: {row.reason}")
        else:
            readable.append(_place(row))
    resting = [_place(order) for order in engine]
    found = [
        difference
        for side in Side
        for difference in _side_differences(side, _of_side(readable, side), _of_side(resting, side))
    ]
    return BookComparison(
        orders_legacy=len(readable) + len(unreadable),
        orders_engine=len(resting),
        differing=len(found),
        differences=tuple(found[:BOOK_DIFFERENCES_SHOWN_MAX]),
        unreadable=tuple(unreadable[:BOOK_DIFFERENCES_SHOWN_MAX]),
    )


def _place(order: OrderImage | RestingOrder) -> Place:
    return Place(
        order_id=order.order_id,
        account=order.account,
        side=order.side,
        price_ticks=order.price_ticks,
        leaves_lots=order.leaves_lots,
    )


def _of_side(places: Sequence[Place], side: Side) -> list[Place]:
    return [place for place in places if place.side == side]


def _side_differences(
    side: Side, legacy: Sequence[Place], engine: Sequence[Place]
) -> Iterable[BookDifference]:
    in_legacy = {place.order_id for place in legacy}
    in_engine = {place.order_id for place in engine}
    for number, (theirs, ours) in enumerate(zip_longest(legacy, engine), start=1):
        if theirs != ours:
            yield BookDifference(
                side=side.name.lower(),
                place=number,
                what=_what(theirs, ours, in_legacy, in_engine),
                legacy=theirs,
                engine=ours,
            )


def _what(
    theirs: Place | None, ours: Place | None, in_legacy: set[int], in_engine: set[int]
) -> str:
    if theirs is not None and theirs.order_id not in in_engine:
        return f"order {theirs.order_id} is open in legacy and not in the engine"
    if ours is not None and ours.order_id not in in_legacy:
        return f"order {ours.order_id} is open in the engine and not in legacy"
    if theirs is None or ours is None or theirs.order_id != ours.order_id:
        return (
            f"legacy has order {theirs.order_id if theirs else 'none'} here, "
            f"the engine {ours.order_id if ours else 'none'}"
        )
    names = ("account", "price_ticks", "leaves_lots")
    parts = [
        f"{name} {getattr(theirs, name)} in legacy, {getattr(ours, name)} in the engine"
        for name in names
        if getattr(theirs, name) != getattr(ours, name)
    ]
    return f"order {theirs.order_id}: " + "; ".join(parts)
