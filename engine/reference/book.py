"""The order book: price-time priority.

A side is its price levels in order; a level is its orders, first in first out. A book knows nothing
of sessions, modes, accounts or reasons: the market asks it only for what is allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from itertools import islice

from sortedcontainers import SortedDict

from engine.limits import U64_MAX
from engine.reference.order import Order, opposite
from engine.types import Side
from engine.wire import encode_depth, encode_displayed_order

# The orders of one price, oldest first. Not a plain dict: looking for the first key of a dict walks
# over the holes that removed keys leave, which makes a long queue quadratic.
Level = OrderedDict[int, Order]


class Book:
    """The resting orders of one instrument.

    >>> book = Book()
    >>> for number, price in enumerate((101, 100, 100), start=1):
    ...     book.rest(
    ...         Order(
    ...             instrument=1,
    ...             order_id=number,
    ...             account=7,
    ...             side=Side.SELL,
    ...             price_ticks=price,
    ...             qty_lots=5,
    ...             leaves_lots=5,
    ...             displayed_lots=5,
    ...         )
    ...     )
    >>> [order.order_id for order in book.orders()]
    [2, 3, 1]
    >>> maker = book.met_by(Side.BUY, 100)
    >>> book.take(maker, 5)
    >>> book.met_by(Side.BUY, 100).order_id
    3
    """

    def __init__(self) -> None:
        # Both ascend in price: the best bid is the last of its side, the best ask the first.
        self._levels: dict[Side, SortedDict[int, Level]] = {
            Side.BUY: SortedDict(),
            Side.SELL: SortedDict(),
        }
        self._open_orders = 0
        self.icebergs = 0  # of them

    def __len__(self) -> int:
        """How many orders rest."""
        return self._open_orders

    # --- what it is

    def levels(self, side: Side) -> int:
        """How many different prices."""
        return len(self._levels[side])

    def has_level(self, side: Side, price_ticks: int) -> bool:
        return price_ticks in self._levels[side]

    def crosses(self, side: Side, limit_ticks: int | None) -> bool:
        """Whether a new order of this side would meet another one now. A limit of None is a market
        order's: any price will do.
        """
        best_ticks = self._best(opposite(side))
        return best_ticks is not None and _within(side, best_ticks, limit_ticks)

    def met_by(self, side: Side, limit_ticks: int | None) -> Order | None:
        """The order that a new one of this side meets first: the oldest of the best price."""
        if not self.crosses(side, limit_ticks):
            return None
        level: Level = self._levels[opposite(side)].peekitem(0 if side is Side.BUY else -1)[1]
        return next(iter(level.values()))

    def levels_met_by(self, side: Side, limit_ticks: int | None) -> Iterator[list[Order]]:
        """The orders of each price within the limit, best price first."""
        for price_ticks, level in self._best_first(opposite(side)):
            if not _within(side, price_ticks, limit_ticks):
                return
            yield list(level.values())

    def orders(self) -> Iterator[Order]:
        """Bids, then asks; best price first, then oldest first."""
        for side in (Side.BUY, Side.SELL):
            for _, level in self._best_first(side):
                yield from level.values()

    def depth(self, levels: int) -> bytes:
        return b"".join(
            encode_depth(
                side,
                price_ticks,
                min(sum(order.displayed_lots for order in level.values()), U64_MAX),
                len(level),
            )
            for side in (Side.BUY, Side.SELL)
            for price_ticks, level in islice(self._best_first(side), levels)
        )

    def displayed_orders(self, count: int) -> bytes:
        return b"".join(
            encode_displayed_order(order.order_id, order.price_ticks, order.displayed_lots, side)
            for side in (Side.BUY, Side.SELL)
            for order in islice(self._orders_of(side), count)
        )

    # --- what changes it

    def rest(self, order: Order) -> None:
        """Adds an order, with what it displays, at the end of its price's queue. It must not cross:
        match it first.
        """
        level = self._levels[order.side].setdefault(order.price_ticks, OrderedDict())
        level[order.order_id] = order
        self._open_orders += 1
        self.icebergs += order.display_lots > 0

    def remove(self, order: Order) -> None:
        """Takes a resting order out, wherever in its queue it stands; the others stay in place."""
        levels = self._levels[order.side]
        level = levels[order.price_ticks]
        del level[order.order_id]
        if not level:
            del levels[order.price_ticks]
        self._open_orders -= 1
        self.icebergs -= order.display_lots > 0

    def take(self, order: Order, lots: int) -> None:
        """Lessens a resting order by some of what it displays. With nothing left it is removed; an
        iceberg that has more shows its next part, at the end of its price's queue.
        """
        order.leaves_lots -= lots
        order.displayed_lots -= lots
        if order.leaves_lots == 0:
            self.remove(order)
        elif order.displayed_lots == 0:
            order.display()
            self._levels[order.side][order.price_ticks].move_to_end(order.order_id)

    # --- invariants

    def check(self) -> None:
        """Walks every invariant. Raises AssertionError on the first that does not hold."""
        count = 0
        for side, levels in self._levels.items():
            levels._check()  # the prices ascend, each once
            for price_ticks, level in levels.items():
                assert level, f"the level {price_ticks} is empty and still there"
                assert price_ticks > 0, f"the level {price_ticks} is not a price"
                count += len(level)
                for order_id, order in level.items():
                    assert order.order_id == order_id, f"{order_id} is filed under another id"
                    assert order.side is side, f"order {order_id} is on the wrong side"
                    assert order.price_ticks == price_ticks, f"order {order_id} is at a wrong price"
                    is_stop = order.is_stop or order.stop_price_ticks
                    assert not is_stop, f"order {order_id} is a stop and rests"
                    _check_quantities(order)
        assert count == self._open_orders, f"{count} orders rest, {self._open_orders} are counted"
        icebergs = sum(order.display_lots > 0 for order in self.orders())
        assert icebergs == self.icebergs, f"{icebergs} icebergs rest, {self.icebergs} are counted"
        bid_ticks, ask_ticks = self._best(Side.BUY), self._best(Side.SELL)
        if bid_ticks is not None and ask_ticks is not None:
            assert bid_ticks < ask_ticks, f"crossed: bid {bid_ticks}, ask {ask_ticks}"

    def _best(self, side: Side) -> int | None:
        levels = self._levels[side]
        if not levels:
            return None
        price_ticks: int = levels.peekitem(-1 if side is Side.BUY else 0)[0]
        return price_ticks

    def _best_first(self, side: Side) -> Iterator[tuple[int, Level]]:
        items = self._levels[side].items()
        return reversed(items) if side is Side.BUY else iter(items)

    def _orders_of(self, side: Side) -> Iterator[Order]:
        for _, level in self._best_first(side):
            yield from level.values()


def _within(side: Side, price_ticks: int, limit_ticks: int | None) -> bool:
    """Whether an order of this side takes that price."""
    if limit_ticks is None:
        return True
    return price_ticks <= limit_ticks if side is Side.BUY else price_ticks >= limit_ticks


def _check_quantities(order: Order) -> None:
    what = f"order {order.order_id}"
    assert 0 < order.leaves_lots <= order.qty_lots, f"{what}: its leaves"
    if order.display_lots:
        most = min(order.display_lots, order.leaves_lots)
        assert 0 < order.displayed_lots <= most, f"{what}: what it displays"
    else:
        assert order.displayed_lots == order.leaves_lots, f"{what} hides something"
