"""The monolith's open orders against the engine's book: order by order, place by place.

Pure. An order's ordered quantity is not compared: one that rested when shadowing began was loaded
with what it had left.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple

from engine.types import RestingOrder, Side
from shadow.limits import BOOK_DIFFERENCES_KEPT_MAX
from shadow.operation import OrderImage, Unreadable, open_lots


class Place(NamedTuple):
    order_id: int
    account: int
    price_ticks: int
    leaves_lots: int


class BookCheck(NamedTuple):
    equal: bool
    order_id: int  # of the first place that differs
    differences: list[dict[str, Any]]  # the first few, as plain data
    differing: int = 0  # all of them

    def reasons(self) -> tuple[str, ...]:
        """Why a flip or rollback can't go on with these books; () when they are equal."""
        if self.equal:
            return ()
        first = [one["what"] for one in self.differences[:3]]
        return (f"the books differ in {self.differing} orders", *first)


def compare_books(
    legacy: Iterable[OrderImage | Unreadable],
    engine: Iterable[RestingOrder],
    *,
    by_place: bool = True,
) -> BookCheck:
    """Both of one instrument, each side of the market in queue order; without `by_place`, the
    monolith's rows don't say in which.
    """
    rows, resting = list(legacy), list(engine)
    differences: list[dict[str, Any]] = []
    for side in Side:
        ours = [_resting(order) for order in resting if order.side == side]
        theirs = [_image(row) for row in rows if isinstance(row, OrderImage) and row.side == side]
        if not by_place:
            ours.sort()
            theirs.sort()
        if ours != theirs:
            differences.extend(_differences(side, theirs, ours))
    for row in rows:
        if isinstance(row, Unreadable):
            what = f"order {row.order_id} of the monolith can't be read: {row.reason}"
            differences.append({"order_id": row.order_id, "what": what})
    first = int(differences[0]["order_id"]) if differences else 0
    kept = differences[:BOOK_DIFFERENCES_KEPT_MAX]
    return BookCheck(not differences, first, kept, len(differences))


def _differences(
    side: Side, legacy: Sequence[Place], engine: Sequence[Place]
) -> Iterable[dict[str, Any]]:
    """Orders that one side lacks or has otherwise; if there are none, the places in the queue."""
    ours = {place.order_id: place for place in engine}
    theirs = {place.order_id: place for place in legacy}
    found = [
        _told(side, order_id, theirs.get(order_id), ours.get(order_id))
        for order_id in dict.fromkeys([*theirs, *ours])
        if theirs.get(order_id) != ours.get(order_id)
    ]
    if found:
        return found
    pairs = enumerate(zip_longest(legacy, engine), start=1)
    return [
        {
            "side": side.name.lower(),
            "order_id": left.order_id,
            "what": f"place {place} of the queue belongs to another order",
            "legacy": left.order_id,
            "engine": right.order_id,
        }
        for place, (left, right) in pairs
        if left != right
    ]


def _told(side: Side, order_id: int, legacy: Place | None, engine: Place | None) -> dict[str, Any]:
    if engine is None:
        what = f"order {order_id} is open in legacy and not in the engine"
    elif legacy is None:
        what = f"order {order_id} is open in the engine and not in legacy"
    else:
        pairs = zip(Place._fields, legacy, engine, strict=True)
        parts = (
            f"{name} {left} in legacy, {right} in the engine"
            for name, left, right in pairs
            if left != right
        )
        what = f"order {order_id}: " + "; ".join(parts)
    return {
        "side": side.name.lower(),
        "order_id": order_id,
        "what": what,
        "legacy": legacy._asdict() if legacy else None,
        "engine": engine._asdict() if engine else None,
    }


def _image(row: OrderImage) -> Place:
    return Place(row.order_id, row.account, row.price_ticks, open_lots(row))


def _resting(order: RestingOrder) -> Place:
    return Place(order.order_id, order.account, order.price_ticks, order.leaves_lots)
