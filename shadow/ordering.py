"""What the monolith did, told by one of its transactions: an operation for each order that it took
or canceled.

Pure. The feed order between transactions is their commit order; within one it is the order in
which the rows were written. A transaction that holds several operations (a bulk job) is taken
apart: fills belong to their taker, and an order that several of them touched is shown to each as
that one left it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from shadow.operation import (
    Cancel,
    Change,
    FillInserted,
    LegacyFill,
    LegacyTransaction,
    Operation,
    OrderDeleted,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Place,
    Requeue,
    Status,
    Touch,
    Unexplained,
    Unreadable,
    counterparty,
)
from shadow.quantities import as_ordered


def operations(tx: LegacyTransaction) -> list[Operation]:
    """In the order in which they must be fed. Empty for our own write-back and for markers."""
    if tx.ours:
        return []
    if len(tx.changes) == 1 and isinstance(tx.changes[0], OrderInserted):
        order = tx.changes[0].order  # the most frequent transaction, without what others need
        return [_place_of(order, (), (order,))]
    rows = _Rows(tx.changes)
    found = [*rows.places(), *rows.others()]
    if rows.unreadable:
        found = _without_unreadable(found, rows.unreadable)
    found.sort(key=lambda placed: placed[0])
    return [operation for _, operation in found]


_Placed = tuple[int, Operation]  # position among the changes, and what was found there


class _Rows:
    """The changes of one transaction, by what they are about."""

    def __init__(self, changes: Iterable[Change]) -> None:
        self.inserted: dict[int, OrderImage] = {}
        self.last: dict[int, OrderImage] = {}
        self.position: dict[int, int] = {}  # of the insert, or else of the newest update
        self.fills: dict[int, list[LegacyFill]] = {}  # by the order that came in
        self.makers: set[int] = set()  # those that were met
        self.deleted: dict[int, int] = {}
        self.unreadable: list[tuple[int, Unreadable]] = []
        filled: list[tuple[int, LegacyFill]] = []
        for position, change in enumerate(changes):
            if isinstance(change, FillInserted):
                filled.append((position, change.fill))
            else:
                self._add(position, change)
        for position, fill in filled:
            self._fill(position, fill)

    def _fill(self, position: int, fill: LegacyFill) -> None:
        """A new order that met one from before came in, however the two are booked."""
        incoming = fill.taker_order_id
        if incoming not in self.inserted and fill.maker_order_id in self.inserted:
            incoming = fill.maker_order_id
        self.fills.setdefault(incoming, []).append(fill)
        self.makers.add(counterparty(fill, incoming))
        self.position.setdefault(incoming, position)

    def _add(self, position: int, change: Change) -> None:
        match change:
            case OrderInserted(order=order):
                self.inserted[order.order_id] = self.last[order.order_id] = order
                self.position[order.order_id] = position
            case OrderUpdated(order=order):
                self.last[order.order_id] = order
                if order.order_id not in self.inserted:
                    self.position[order.order_id] = position
            case OrderDeleted(order_id=order_id):
                self.deleted[order_id] = position
            case Unreadable():
                self.unreadable.append((position, change))

    def places(self) -> Iterable[_Placed]:
        """Backwards, so that each is shown without what later ones took from the same orders."""
        taken_later: dict[int, int] = {}
        for order_id in reversed(self.inserted):
            order = self.inserted[order_id]
            fills = tuple(self.fills.get(order_id, ()))
            makers = sorted({counterparty(fill, order_id) for fill in fills})
            after = tuple(
                _as_left(self.last[one], taken_later.get(one, 0))
                for one in (order_id, *makers)
                if one in self.last
            )
            for fill in fills:
                maker = counterparty(fill, order_id)
                taken_later[maker] = taken_later.get(maker, 0) + fill.qty_lots
            yield self.position[order_id], self._place(order, fills, after)

    def _place(
        self, order: OrderImage, fills: tuple[LegacyFill, ...], after: tuple[OrderImage, ...]
    ) -> Operation:
        if order.order_id in self.deleted:
            return _unexplained(order, "it was written and deleted in one transaction")
        return _place_of(order, fills, after)

    def others(self) -> Iterable[_Placed]:
        """Orders that were there before: canceled, filled as a taker, written again, deleted."""
        for order_id, order in self.last.items():
            if order_id in self.inserted or order_id in self.makers or order_id in self.fills:
                continue
            yield self.position[order_id], _alone(order)
        for taker, fills in self.fills.items():
            if taker not in self.inserted:
                reason = "it was filled in a later transaction than the one that wrote it"
                unexplained = Unexplained(symbol=fills[0].symbol, order_id=taker, reason=reason)
                yield self.position[taker], unexplained
        for order_id, position in self.deleted.items():
            if order_id not in self.inserted:
                reason = "its row was deleted"
                yield position, Unexplained(symbol="", order_id=order_id, reason=reason)


def _place_of(
    order: OrderImage, fills: tuple[LegacyFill, ...], after: tuple[OrderImage, ...]
) -> Operation:
    if after[0].status is Status.PENDING:
        return _unexplained(
            order,
            "it was not handled in the transaction that wrote it: the monolith matches "
            "asynchronously, which is not supported",
        )
    return Place(order=as_ordered(order, after[0], fills), fills=fills, after=after)


def _alone(order: OrderImage) -> Operation:
    if order.status is Status.CANCELED:
        return Cancel(order=order)
    if order.status is Status.REJECTED:
        return _unexplained(order, "it turned rejected after it had been taken")
    return Touch(order=order)


def _unexplained(order: OrderImage, reason: str) -> Unexplained:
    return Unexplained(symbol=order.symbol, order_id=order.order_id, reason=reason)


def _as_left(image: OrderImage, taken_later_lots: int) -> OrderImage:
    if not taken_later_lots:
        return image
    leaves_lots = None if image.leaves_lots is None else image.leaves_lots + taken_later_lots
    return msgspec.structs.replace(image, leaves_lots=leaves_lots, status=Status.OPEN)


def _without_unreadable(
    found: Sequence[_Placed], unreadable: Sequence[tuple[int, Unreadable]]
) -> list[_Placed]:
    """An operation that a row belongs to which can't be read is not known: it turns unexplained."""
    result = list(found)
    for position, row in unreadable:
        hit = False
        for index, (at, operation) in enumerate(result):
            if _may_belong(row, operation):
                hit = True
                result[index] = (at, _spoilt(operation, row))
        if not hit:
            result.append(
                (
                    position,
                    Unexplained(symbol=row.symbol, order_id=row.order_id, reason=row.reason),
                )
            )
    return result


def _may_belong(row: Unreadable, operation: Operation) -> bool:
    symbol, ids = _about(operation)
    if row.symbol and symbol and row.symbol != symbol:
        return False
    return row.order_id == 0 or row.order_id in ids


def _about(operation: Operation) -> tuple[str, set[int]]:
    match operation:
        case Place(order=order, fills=fills):
            met = (counterparty(fill, order.order_id) for fill in fills)
            return order.symbol, {order.order_id, *met}
        case Cancel(order=order) | Touch(order=order) | Requeue(order=order):
            return order.symbol, {order.order_id}
        case Unexplained(symbol=symbol, order_id=order_id):
            return symbol, {order_id}


def _spoilt(operation: Operation, row: Unreadable) -> Unexplained:
    if isinstance(operation, Unexplained):
        return operation
    return _unexplained(operation.order, row.reason)
