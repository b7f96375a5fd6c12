"""The reference order book: price-time priority, written to be read. It is the specification of the
Rust core's book.

A side is its price levels in order; a level is its orders, first in first out. A book knows nothing
of sessions, modes or reasons: `engine.market` asks it only for what is allowed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import NamedTuple

from sortedcontainers import SortedDict

from engine.types import RestingOrder, Side


class Order:
    """An open order. Only `leaves_lots` ever changes, and only downwards."""

    __slots__ = (
        "account",
        "instrument",
        "leaves_lots",
        "order_id",
        "price_ticks",
        "qty_lots",
        "side",
    )

    def __init__(
        self,
        *,
        instrument: int,
        order_id: int,
        account: int,
        side: Side,
        price_ticks: int,
        qty_lots: int,
        leaves_lots: int,
    ) -> None:
        self.instrument = instrument
        self.order_id = order_id
        self.account = account
        self.side = side
        self.price_ticks = price_ticks
        self.qty_lots = qty_lots
        self.leaves_lots = leaves_lots


class Trade(NamedTuple):
    """One meeting of a taker with a maker, always at the maker's price."""

    maker_id: int
    price_ticks: int
    qty_lots: int
    maker_leaves_lots: int  # 0: the maker has left the book


# The orders of one price, oldest first. Not a plain dict: looking for the first key of a dict walks
# over the holes that removed keys leave, which makes a long queue quadratic.
Level = OrderedDict[int, Order]


class Book:
    """The open orders of one instrument.

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
    ...         )
    ...     )
    >>> [(each.maker_id, each.price_ticks, each.qty_lots) for each in book.match(Side.BUY, 101, 12)]
    [(2, 100, 5), (3, 100, 5), (1, 101, 2)]
    """

    def __init__(self) -> None:
        # Both ascend in price: the best bid is the last of its side, the best ask the first.
        self._levels: dict[Side, SortedDict[int, Level]] = {
            Side.BUY: SortedDict(),
            Side.SELL: SortedDict(),
        }
        self._open_orders = 0

    def __len__(self) -> int:
        """How many orders are open."""
        return self._open_orders

    def crosses(self, side: Side, limit_ticks: int | None) -> bool:
        """Whether a new order of this side would trade now. A limit of None is a market order's:
        any price will do.
        """
        best_ticks = self._best(_opposite(side))
        if best_ticks is None:
            return False
        if limit_ticks is None:
            return True
        return best_ticks <= limit_ticks if side is Side.BUY else best_ticks >= limit_ticks

    def match(self, side: Side, limit_ticks: int | None, qty_lots: int) -> list[Trade]:
        """Takes up to `qty_lots` from the other side: best price first, then oldest first, never
        beyond the limit.
        """
        levels = self._levels[_opposite(side)]
        trades: list[Trade] = []
        while qty_lots and self.crosses(side, limit_ticks):
            price_ticks, level = levels.peekitem(0 if side is Side.BUY else -1)
            maker = next(iter(level.values()))
            traded_lots = min(qty_lots, maker.leaves_lots)
            qty_lots -= traded_lots
            maker.leaves_lots -= traded_lots
            trades.append(Trade(maker.order_id, price_ticks, traded_lots, maker.leaves_lots))
            if maker.leaves_lots == 0:
                self.remove(maker)
        return trades

    def rest(self, order: Order) -> None:
        """Adds an order at the end of its price's queue. It must not cross: match it first."""
        level = self._levels[order.side].setdefault(order.price_ticks, OrderedDict())
        level[order.order_id] = order
        self._open_orders += 1

    def remove(self, order: Order) -> None:
        """Takes an open order out, wherever in its queue it stands; the others stay in place."""
        levels = self._levels[order.side]
        level = levels[order.price_ticks]
        del level[order.order_id]
        if not level:
            del levels[order.price_ticks]
        self._open_orders -= 1

    def orders(self) -> Iterator[Order]:
        """Bids, then asks; best price first, then oldest first."""
        for level in reversed(self._levels[Side.BUY].values()):
            yield from level.values()
        for level in self._levels[Side.SELL].values():
            yield from level.values()

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
                    assert 0 < order.leaves_lots <= order.qty_lots, f"order {order_id}: its leaves"
        assert count == self._open_orders, f"{count} orders are open, {self._open_orders} counted"
        bid_ticks, ask_ticks = self._best(Side.BUY), self._best(Side.SELL)
        if bid_ticks is not None and ask_ticks is not None:
            assert bid_ticks < ask_ticks, f"crossed: bid {bid_ticks}, ask {ask_ticks}"

    def _best(self, side: Side) -> int | None:
        levels = self._levels[side]
        if not levels:
            return None
        price_ticks: int = levels.peekitem(-1 if side is Side.BUY else 0)[0]
        return price_ticks


def resting(order: Order) -> RestingOrder:
    """What others may see of an open order."""
    return RestingOrder(
        order_id=order.order_id,
        account=order.account,
        price_ticks=order.price_ticks,
        leaves_lots=order.leaves_lots,
        qty_lots=order.qty_lots,
        side=order.side,
    )


def _opposite(side: Side) -> Side:
    return Side.SELL if side is Side.BUY else Side.BUY
