"""The book that a monolith's daemon keeps in memory, as far as its fills have proven it: price-time
priority, in which orders that came at the same time stand in no order until a fill gives one.

Everything can be taken back to a mark, so that an order of handling can be tried.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sortedcontainers import SortedDict

from engine.types import OrderType, Side, TimeInForce
from shadow.limits import REORDER_ORDERS_MAX, REORDER_S
from shadow.operation import OrderImage

MarketBuy = Literal["quantity", "stop_level", "partial_by_funds"]
_REORDER_US = int(REORDER_S * 1_000_000)


class Opened(NamedTuple):
    """When an order was given to the daemon, as nearly as its commit tells."""

    at_us: int
    number: int  # of the instrument's orders and cancels, in commit order

    def is_beside(self, other: Opened) -> bool:
        """The daemon may have had the two in either order."""
        near = abs(self.number - other.number) <= REORDER_ORDERS_MAX
        return near and abs(self.at_us - other.at_us) <= _REORDER_US


class Resting(NamedTuple):
    order: OrderImage
    leaves_lots: int
    opened: Opened


class Take(NamedTuple):
    maker: int
    price_ticks: int
    qty_lots: int


class Walk(NamedTuple):
    """What an order does when it comes in now."""

    takes: tuple[Take, ...]
    leaves_lots: int
    cut_lots: int  # of the leaves: what it can't pay for
    queues: dict[int, list[int]]  # price -> queue, where the fills prove another one than was known
    passed: frozenset[int] = frozenset()  # orders that were known to be before some that it met
    stopped_at: int = 0  # the order that it can't pay for, or not whole; 0: none
    canceled: tuple[int, ...] = ()  # orders that must have been canceled before it


def rests(order: OrderImage) -> bool:
    return order.ord_type == OrderType.LIMIT and order.tif == TimeInForce.GTC


class LaterBook:
    def __init__(self, market_buy: MarketBuy) -> None:
        self._market_buy = market_buy
        self._levels: dict[int, SortedDict] = {side: SortedDict() for side in Side}
        self._resting: dict[int, Resting] = {}
        self._entered: set[int] = set()  # orders that came in, as long as they are remembered
        self._canceled: set[int] = set()  # likewise
        self._undo: list[tuple[Any, ...]] = []

    def __iter__(self) -> Iterator[Resting]:
        return iter(self._resting.values())

    def get(self, order_id: int) -> Resting | None:
        return self._resting.get(order_id)

    def has_entered(self, order_id: int) -> bool:
        return order_id in self._entered

    def walk(
        self,
        order: OrderImage,
        qty_lots: int,
        met: Mapping[int, int],
        without: Collection[int] = (),
    ) -> Walk:
        """`met`: the lots of its fills that have been seen, by the other order."""
        left = qty_lots
        funds = self._funds(order)
        takes: list[Take] = []
        queues: dict[int, list[int]] = {}
        passed: set[int] = set()
        for price, queue in self._crossed(order):
            rest = [one for one in queue if one not in without]
            is_other = False
            while rest and left:
                index = self._next(rest, left, met)
                lots = self._payable(
                    min(left, self._resting[rest[index]].leaves_lots), price, funds
                )
                if not lots:
                    return Walk(tuple(takes), left, left, queues, frozenset(passed), rest[index])
                is_other = is_other or index > 0
                passed.update(rest[:index])
                maker = rest.pop(index)
                takes.append(Take(maker, price, lots))
                left -= lots
                funds = None if funds is None else funds - lots * price
                if is_other:
                    before = [take.maker for take in takes if take.price_ticks == price]
                    queues[price] = before + rest
                if left and lots < self._resting[maker].leaves_lots:
                    return Walk(tuple(takes), left, left, queues, frozenset(passed), maker)
            if not left:
                break
        return Walk(tuple(takes), left, 0, queues, frozenset(passed))

    def enter(self, order: OrderImage, walk: Walk, opened: Opened) -> None:
        levels = self._levels[_opposite(order.side)]
        for price, queue in walk.queues.items():
            self._set_level(levels, _key(_opposite(order.side), price), queue)
        for take in walk.takes:
            maker = self._resting[take.maker]
            self._leave(maker, maker.leaves_lots - take.qty_lots)
        self._undo.append(("entered", order.order_id))
        self._entered.add(order.order_id)
        if walk.leaves_lots and rests(order):
            self._rest(Resting(order, walk.leaves_lots, opened))

    def cancel(self, order_id: int) -> None:
        if order_id in self._resting:
            self._undo.append(("canceled", order_id))
            self._canceled.add(order_id)
            self._leave(self._resting[order_id], 0)

    def has_canceled(self, order_id: int) -> bool:
        return order_id in self._canceled

    def requeued(self, order: OrderImage, walk: Walk) -> list[Resting]:
        """Those that must be put to the end of their queue, one after the other, for the walk."""
        side = _opposite(order.side)
        found: list[Resting] = []
        for price, wanted in walk.queues.items():
            place = {one: n for n, one in enumerate(self._levels[side][_key(side, price)])}
            kept = 1
            while kept < len(wanted) and place[wanted[kept]] > place[wanted[kept - 1]]:
                kept += 1
            found.extend(self._resting[one] for one in wanted[kept:])
        return found

    def forget(self, order_id: int) -> None:
        """An order that can't be met any more; not to be undone."""
        self._entered.discard(order_id)
        self._canceled.discard(order_id)

    # --- trying

    def mark(self) -> int:
        return len(self._undo)

    def rewind(self, mark: int) -> None:
        while len(self._undo) > mark:
            match self._undo.pop():
                case "level", levels, key, None:
                    del levels[key]
                case "level", levels, key, queue:
                    levels[key] = queue
                case "resting", order_id, None:
                    del self._resting[order_id]
                case "resting", order_id, resting:
                    self._resting[order_id] = resting
                case "entered", order_id:
                    self._entered.discard(order_id)
                case "canceled", order_id:
                    self._canceled.discard(order_id)

    def keep(self) -> None:
        """What has been done by now stays."""
        self._undo.clear()

    # --- inside

    def _funds(self, order: OrderImage) -> int | None:
        bounded = (
            self._market_buy != "quantity"
            and order.side == Side.BUY
            and order.ord_type == OrderType.MARKET
        )
        return order.funds if bounded else None

    def _payable(self, lots: int, price_ticks: int, funds: int | None) -> int:
        if funds is None or lots * price_ticks <= funds:
            return lots
        return funds // price_ticks if self._market_buy == "partial_by_funds" else 0

    def _crossed(self, order: OrderImage) -> Iterator[tuple[int, Sequence[int]]]:
        side = _opposite(order.side)
        limit = None if order.ord_type == OrderType.MARKET else _key(side, order.price_ticks)
        for key, queue in self._levels[side].items():
            if limit is not None and key > limit:
                return
            yield abs(key), queue

    def _next(self, queue: Sequence[int], left: int, met: Mapping[int, int]) -> int:
        """Index of the order that is met next: the first, unless fills have shown another one."""
        if not met:
            return 0
        first = self._resting[queue[0]].opened
        for index, order_id in enumerate(queue):
            resting = self._resting[order_id]
            if index and not resting.opened.is_beside(first):
                return 0
            if met.get(order_id) == min(left, resting.leaves_lots):
                return index
        return 0

    def _rest(self, resting: Resting) -> None:
        order = resting.order
        levels = self._levels[order.side]
        key = _key(order.side, order.price_ticks)
        self._undo.append(("resting", order.order_id, None))
        self._resting[order.order_id] = resting
        self._set_level(levels, key, [*levels.get(key, ()), order.order_id])

    def _leave(self, resting: Resting, leaves_lots: int) -> None:
        order = resting.order
        self._undo.append(("resting", order.order_id, resting))
        if leaves_lots:
            self._resting[order.order_id] = resting._replace(leaves_lots=leaves_lots)
            return
        del self._resting[order.order_id]
        levels = self._levels[order.side]
        key = _key(order.side, order.price_ticks)
        self._set_level(levels, key, [one for one in levels[key] if one != order.order_id])

    def _set_level(self, levels: SortedDict, key: int, queue: list[int]) -> None:
        self._undo.append(("level", levels, key, levels.get(key)))
        if queue:
            levels[key] = queue
        else:
            del levels[key]


def _key(side: int, price_ticks: int) -> int:
    """Best price first."""
    return -price_ticks if side == Side.BUY else price_ticks


def _opposite(side: int) -> int:
    return Side.SELL if side == Side.BUY else Side.BUY
