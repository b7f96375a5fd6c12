"""One instrument's flow of commands in exchange-core's proportions, made anew in integers.

A small book runs along, so that every command refers to what is really there: none is rejected. It
keeps about as many orders as it was told to; most commands move one of the older orders a
hundredth of its way to the last trade, some order, cancel or reduce, and a few take what rests.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left, insort
from collections import deque
from decimal import Decimal
from enum import IntEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.types import CommandKind, Side, TimeInForce

IntArray = npt.NDArray[np.int64]

OLDEST = 512  # what is canceled, reduced or moved is one of so many oldest orders
LOOK_EVERY_MAX = 512  # commands between two looks at how many orders rest on each side
PRICE_TICKS_MAX = 2_100_000  # above the highest start and all that may be added to it
QTY_LOTS_MAX = 100_000
_SIDES = (Side.BUY, Side.SELL)


class Column(IntEnum):
    """Of the rows that a flow makes. Order ids count from 0 within their instrument."""

    KIND = 0
    SIDE = 1
    TIF = 2
    ACCOUNT = 3
    ORDER_ID = 4
    PRICE_TICKS = 5
    QTY_LOTS = 6


class _Order:
    __slots__ = ("account", "key", "leaves", "order_id", "place", "side")

    def __init__(self, order_id: int, account: int, side: int, key: int, leaves: int) -> None:
        self.order_id = order_id
        self.account = account
        self.side = side  # 0 buys, 1 sells
        self.key = key  # the price; negative on the selling side, so that the best is the highest
        self.leaves = leaves
        self.place = -1  # among the oldest


class _Book:
    """Price and time, nothing more: enough to know what a command will find."""

    def __init__(self) -> None:
        self.counts = [0, 0]  # open orders, by side
        self.levels: tuple[dict[int, dict[int, _Order]], ...] = ({}, {})
        self._keys: tuple[list[int], list[int]] = ([], [])  # ascending: the best is the last
        self._oldest: list[_Order] = []  # the oldest orders, in any order
        self._younger: deque[_Order] = deque()  # the others by age; also some that are gone

    def add(self, order: _Order) -> None:
        """A new order that rests."""
        self.place(order)
        self.counts[order.side] += 1
        if len(self._oldest) < OLDEST:
            order.place = len(self._oldest)
            self._oldest.append(order)
        else:
            self._younger.append(order)

    def place(self, order: _Order) -> None:
        levels = self.levels[order.side]
        level = levels.get(order.key)
        if level is None:
            levels[order.key] = {order.order_id: order}
            insort(self._keys[order.side], order.key)
        else:
            level[order.order_id] = order

    def take_off(self, order: _Order) -> None:
        """It goes on living; to be placed again."""
        levels, keys = self.levels[order.side], self._keys[order.side]
        level = levels[order.key]
        del level[order.order_id]
        if not level:
            del levels[order.key]
            del keys[bisect_left(keys, order.key)]

    def forget(self, order: _Order) -> None:
        """It is filled or canceled, and off the book."""
        self.counts[order.side] -= 1
        order.leaves = 0
        if order.place < 0:
            return
        last = self._oldest.pop()
        if last is not order:
            self._oldest[order.place] = last
            last.place = order.place
        while self._younger:
            next_oldest = self._younger.popleft()
            if next_oldest.leaves:
                next_oldest.place = len(self._oldest)
                self._oldest.append(next_oldest)
                return

    def oldest(self) -> list[_Order]:
        return self._oldest

    def open_orders(self) -> list[_Order]:
        return self._oldest + [order for order in self._younger if order.leaves]

    def reachable(self, side: int, limit: int) -> int:
        """Lots that an order of `side` could trade at `limit` or better."""
        levels = self.levels[1 - side]
        sign = -1 if side else 1
        return sum(
            order.leaves
            for key, level in levels.items()
            if sign * abs(key) <= sign * limit
            for order in level.values()
        )

    def trade(self, side: int, limit: int, leaves: int) -> tuple[int, int]:
        """What is left of a taker, and the price of its last fill; 0 without one."""
        keys, levels = self._keys[1 - side], self.levels[1 - side]
        sign, price = -1 if side else 1, 0
        while leaves and keys and sign * abs(keys[-1]) <= sign * limit:
            price = abs(keys[-1])
            maker = next(iter(levels[keys[-1]].values()))
            traded = min(leaves, maker.leaves)
            leaves -= traded
            maker.leaves -= traded
            if not maker.leaves:
                self.take_off(maker)
                self.forget(maker)
        return leaves, price


class PairFlow:
    """`make` fills the three parts: what is on the book first, the flow itself, and the cancels of
    what is left. The book is empty before and after, so that all of it can be repeated.
    """

    def __init__(self, *, seed: int, resting: int, first_account: int, accounts: int) -> None:
        self.before: IntArray = _rows(array("q"))
        self.steady: IntArray = _rows(array("q"))
        self.after: IntArray = _rows(array("q"))
        self.resting = 0  # orders after the steady part
        self.levels = 0  # different prices, both sides
        self.trading = 0  # commands of the steady part that traded
        self.orders = 0  # ids used
        self._bits = random.Random(seed).getrandbits
        self._half = max(1, resting // 2)
        self._first_account, self._accounts = first_account, accounts
        self._book = _Book()
        self._out = array("q")
        middle = _start_price(self._bits(16) + self._bits(16))
        self._spread = max(1, min(middle // 20, 10_000))
        self._lowest, self._highest = middle - 5 * self._spread, middle + 5 * self._spread
        self._last = middle

    def make(self, commands: int) -> None:
        """`commands` is the length of the steady part."""
        for _ in range(2 * self._half):
            self._order(self._bits(1))
        self.before = self._taken()
        self.trading = 0
        self._steady(commands)
        self.steady = self._taken()
        self.resting = sum(self._book.counts)
        self.levels = sum(map(len, self._book.levels))
        for order in self._book.open_orders():
            self._say(CommandKind.CANCEL, order)
        self.after = self._taken()

    def _steady(self, commands: int) -> None:
        book, bits, out = self._book, self._bits, self._out
        hurried = min(512, 3 * self._half // 4)
        look_every = min(LOOK_EVERY_MAX, 2 * self._half + 1)
        seen = list(book.counts)
        for n in range(commands):
            side = bits(1)
            lack = self._half - seen[side]
            choices = 2 if lack > hurried else 10 if lack > 0 else 40
            chosen = bits(32) * choices >> 32
            if chosen < 2 or not book.oldest():
                if lack > 0:
                    self._order(side)
                elif not self._take(side):
                    seen = list(book.counts)
            elif chosen > 3:
                self._move()
            else:
                self._shrink(CommandKind.CANCEL if chosen == 2 else CommandKind.REDUCE)
            if n % look_every == 0:
                seen = list(book.counts)
        assert len(out) == commands * len(Column), "one command in each step"

    # --- the kinds of commands

    def _order(self, side: int) -> None:
        """A limit order, more often near the last trade than far from it, on its own side of it."""
        bits = self._bits
        near = bits(16)
        reach = 1 + (near * near * self._spread >> 32)
        away = abs(sum(bits(32) * reach >> 32 for _ in range(4)) // 2 - reach)
        price = self._last + (away if side else -away)
        qty = 1 + self._size(6)
        made = self._new(side, TimeInForce.GTC, price, qty)
        made.leaves = self._traded(side, price, qty)
        if made.leaves:
            self._book.add(made)

    def _take(self, side: int) -> bool:
        """An order that does not rest, at any price; whether it traded."""
        limit = self._lowest if side else self._highest
        before = self.trading
        if self._bits(5) == 0:
            qty = 1 + self._size(8)
            self._new(side, TimeInForce.FOK, limit, qty)
            if self._book.reachable(side, limit) >= qty:
                self._traded(side, limit, qty)
        else:
            qty = 1 + self._size(6)
            self._new(side, TimeInForce.IOC, limit, qty)
            self._traded(side, limit, qty)
        return self.trading > before

    def _move(self) -> None:
        """A hundredth of the way to the last trade, one tick at least; keeps its quantity."""
        order = self._any_old()
        price = abs(order.key)
        way = self._last - price
        step = way // 100 if way < 0 else -(-way // 100)
        price = min(price + (step or 1 - 2 * self._bits(1)), self._highest)
        self._say(CommandKind.REPLACE, order, price, order.leaves)
        self._book.take_off(order)
        order.key = -price if order.side else price
        order.leaves = self._traded(order.side, price, order.leaves)
        if order.leaves:
            self._book.place(order)
        else:
            self._book.forget(order)

    def _shrink(self, kind: CommandKind) -> None:
        """A cancel, or a reduction of an order that has more than one lot."""
        order = self._any_old()
        if kind == CommandKind.REDUCE:
            oldest = self._book.oldest()
            for at in range(order.place, order.place + len(oldest)):
                order = oldest[at % len(oldest)]
                if order.leaves > 1:
                    order.leaves -= 1 + (self._bits(32) * (order.leaves - 1) >> 32)
                    self._say(kind, order, 0, order.leaves)
                    return
        self._say(CommandKind.CANCEL, order)
        self._book.take_off(order)
        self._book.forget(order)

    # --- their parts

    def _new(self, side: int, tif: TimeInForce, price: int, qty: int) -> _Order:
        account = self._first_account + (self._bits(32) * self._accounts >> 32)
        order = _Order(self.orders, account, side, -price if side else price, qty)
        self.orders += 1
        self._out.extend((CommandKind.NEW, _SIDES[side], tif, account, order.order_id, price, qty))
        return order

    def _say(self, kind: CommandKind, order: _Order, price: int = 0, qty: int = 0) -> None:
        self._out.extend((kind, 0, 0, order.account, order.order_id, price, qty))

    def _traded(self, side: int, limit: int, qty: int) -> int:
        """What is left after trading."""
        leaves, price = self._book.trade(side, limit, qty)
        if price:
            self.trading += 1
            self._last = min(max(price, self._lowest), self._highest)
        return leaves

    def _any_old(self) -> _Order:
        oldest = self._book.oldest()
        return oldest[self._bits(32) * len(oldest) >> 32]

    def _size(self, sides: int) -> int:
        bits = self._bits
        return (bits(32) * sides >> 32) * (bits(32) * sides >> 32) * (bits(32) * sides >> 32)

    def _taken(self) -> IntArray:
        rows = _rows(self._out)
        del self._out[:]
        return rows


def _rows(values: array[Any]) -> IntArray:
    return np.array(values, np.int64).reshape(-1, len(Column))


def _start_price(sum_of_two: int) -> int:
    """10 to the power of 3.3 to 6.3, the middle the likeliest: of two draws of 16 bits."""
    return int(Decimal(10) ** (Decimal("3.3") + Decimal("1.5") * sum_of_two / 2**16))
