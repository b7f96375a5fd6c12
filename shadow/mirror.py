"""The engine's open orders of one instrument, as far as its answers have been judged.

Pure bookkeeping: it answers whether an order is open, whose it is and what it has left, at exactly
the operation that is being judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from engine.types import Event, EventKind, OrderType, RestingOrder, TimeInForce


class Open(NamedTuple):
    account: int
    price_ticks: int
    leaves_lots: int


class Mirror:
    def __init__(self, orders: Iterable[RestingOrder] = (), *, seq: int = 0) -> None:
        """`seq`: the state after this command, whose effect is in `orders` already."""
        self._seq = seq
        self._open = {
            order.order_id: Open(order.account, order.price_ticks, order.leaves_lots)
            for order in orders
        }

    def __len__(self) -> int:
        return len(self._open)

    def get(self, order_id: int) -> Open | None:
        return self._open.get(order_id)

    def is_ahead_of(self, seq: int) -> bool:
        """It holds what came later than this command already."""
        return self._seq > seq

    def apply(self, seq: int, events: Sequence[Event]) -> None:
        """The events of one command; one that is known already changes nothing."""
        if seq <= self._seq:
            return
        self._seq = seq
        first = events[0]
        if first.kind is EventKind.CANCELED:
            self._open.pop(first.order_id, None)
        elif first.kind is EventKind.ACCEPTED:
            self._place(first, events)

    def _place(self, accepted: Event, events: Sequence[Event]) -> None:
        leaves_lots = accepted.leaves_lots
        for event in events:
            if event.kind is EventKind.FILL:
                leaves_lots = event.leaves_lots
                self._left(event.contra_id, event.contra_leaves_lots)
        if leaves_lots and accepted.ord_type == OrderType.LIMIT and accepted.tif == TimeInForce.GTC:
            self._open[accepted.order_id] = Open(
                accepted.contra_id, accepted.price_ticks, leaves_lots
            )

    def _left(self, order_id: int, leaves_lots: int) -> None:
        known = self._open.get(order_id)
        if known is None:
            return
        if leaves_lots:
            self._open[order_id] = known._replace(leaves_lots=leaves_lots)
        else:
            del self._open[order_id]
