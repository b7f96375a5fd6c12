"""The stops of one instrument that wait for a trade at their price."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedList

from engine.reference.order import Order
from engine.types import Side


def is_triggered(stop: Order, low_ticks: int, high_ticks: int) -> bool:
    """Whether trades at prices from `low_ticks` to `high_ticks` reach its stop price."""
    if stop.side is Side.BUY:
        return high_ticks >= stop.stop_price_ticks
    return low_ticks <= stop.stop_price_ticks


class PendingStops:
    """In the order in which they began to wait; and by stop price, to be found when it trades."""

    def __init__(self) -> None:
        self._next_entry = 0
        self._orders: dict[int, Order] = {}  # by entry, ascending
        self._by_price: dict[Side, SortedList[tuple[int, int]]] = {
            Side.BUY: SortedList(),
            Side.SELL: SortedList(),
        }  # (stop price, entry)

    def __len__(self) -> int:
        return len(self._orders)

    def orders(self) -> Iterator[Order]:
        """Oldest first."""
        return iter(self._orders.values())

    def add(self, stop: Order) -> None:
        """At the end."""
        stop.entry = self._next_entry
        self._next_entry += 1
        self._orders[stop.entry] = stop
        self._by_price[stop.side].add((stop.stop_price_ticks, stop.entry))

    def remove(self, stop: Order) -> None:
        del self._orders[stop.entry]
        self._by_price[stop.side].remove((stop.stop_price_ticks, stop.entry))

    def triggered(self, low_ticks: int, high_ticks: int) -> list[Order]:
        """Those that trades at these prices set off, oldest first. They stay until removed."""
        buys = self._by_price[Side.BUY].irange(maximum=(high_ticks + 1,), inclusive=(True, False))
        sells = self._by_price[Side.SELL].irange(minimum=(low_ticks,))
        entries = sorted(entry for each in (buys, sells) for _, entry in each)
        return [self._orders[entry] for entry in entries]

    def check(self, last_price_ticks: int) -> None:
        """Raises AssertionError. What the last trade set off must not wait any more."""
        entries = list(self._orders)
        assert entries == sorted(entries), "the stops are not in the order of their entry"
        assert all(entry < self._next_entry for entry in entries), "an entry from the future"
        expected: dict[Side, list[tuple[int, int]]] = {Side.BUY: [], Side.SELL: []}
        for entry, stop in self._orders.items():
            what = f"the stop {stop.order_id}"
            assert stop.entry == entry, f"{what} is filed under another entry"
            assert stop.is_stop, f"{what} is none"
            assert stop.stop_price_ticks > 0, f"{what} has no stop price"
            assert 0 < stop.leaves_lots <= stop.qty_lots, f"{what}: its leaves"
            assert stop.displayed_lots == stop.leaves_lots, f"{what} hides something"
            if last_price_ticks:
                missed = is_triggered(stop, last_price_ticks, last_price_ticks)
                assert not missed, f"{what} waits for what has been traded"
            expected[stop.side].append((stop.stop_price_ticks, entry))
        for side, by_price in self._by_price.items():
            by_price._check()
            assert list(by_price) == sorted(expected[side]), "the index by price differs"
