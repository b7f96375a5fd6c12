"""The open orders of all instruments, by id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from engine.reference.accounts import Accounts
from engine.reference.instrument import Instrument
from engine.reference.order import Order


class OpenOrders:
    """The only place where an open order appears, becomes smaller or goes: so that all that is
    derived from open orders (ids, expiries, the sums of accounts) follows them.
    """

    def __init__(self, instruments: Mapping[int, Instrument], accounts: Accounts) -> None:
        self._instruments = instruments
        self._accounts = accounts
        self._by_id: dict[int, Order] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, order_id: int) -> bool:
        return order_id in self._by_id

    def __getitem__(self, order_id: int) -> Order:
        return self._by_id[order_id]

    def get(self, order_id: int) -> Order | None:
        return self._by_id.get(order_id)

    def add(self, order: Order) -> None:
        """With what it displays: a stop waits, another order rests, behind those that are there."""
        instrument = self._instruments[order.instrument]
        if order.is_stop:
            instrument.stops.add(order)
        else:
            instrument.book.rest(order)
        self._by_id[order.order_id] = order
        self._accounts.opened(order)
        if order.expiry_s:
            instrument.expiries.add((order.expiry_s, order.order_id))

    def remove(self, order: Order) -> None:
        instrument = self._instruments[order.instrument]
        if order.is_stop:
            instrument.stops.remove(order)
        else:
            instrument.book.remove(order)
        self._forget(order)

    def take(self, maker: Order, lots: int) -> None:
        """A resting order has met a taker: so much of what it displays is gone."""
        self._instruments[maker.instrument].book.take(maker, lots)
        self._accounts.lessened(maker, lots)
        if maker.leaves_lots == 0:
            self._forget(maker)

    def reduce(self, order: Order, leaves_lots: int) -> None:
        """It has less left, and keeps its place."""
        self._accounts.lessened(order, order.leaves_lots - leaves_lots)
        order.leaves_lots = leaves_lots
        order.displayed_lots = min(order.displayed_lots, leaves_lots)

    def _forget(self, order: Order) -> None:
        del self._by_id[order.order_id]
        self._accounts.closed(order)
        if order.expiry_s:
            self._instruments[order.instrument].expiries.remove((order.expiry_s, order.order_id))

    def check(self) -> None:
        """Raises AssertionError where the index differs from what is in the instruments."""
        count = 0
        for order in self._all():
            assert self._by_id.get(order.order_id) is order, f"{order.order_id} is not indexed"
            count += 1
        assert count == len(self._by_id), "the index holds orders that no instrument has"

    def _all(self) -> Iterator[Order]:
        for instrument in self._instruments.values():
            yield from instrument.orders()

    def values(self) -> Iterator[Order]:
        """In no particular order: never for what others see."""
        return iter(self._by_id.values())
