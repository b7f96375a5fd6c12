"""Peatio's daemons, as far as their rows go: what an exchange of that family writes, and when.

`peatio_3.sql` and `peatio_2015.sql` are the tables of its two generations; `peatio_3.toml` and
`peatio_2015.toml` map them. The API writes an order, a worker locks
its funds and gives it to the matching daemon, which keeps the books in memory; another worker
writes each trade, with both of its orders, and each cancel, in the daemon's order, but later. The
workers that lock funds run side by side: they commit in another order than the daemon was told.

`Exchange` decides what happens and in which order it commits; `peatio_rows` writes it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Literal, NamedTuple

PENDING, WAIT, DONE, CANCEL = "pending", "wait", "done", "cancel"
Generation = Literal["3", "2015"]


@dataclass
class Order:
    id: int
    market: str
    side: Literal["buy", "sell"]
    price: int | None  # ticks; None: a market order
    origin_volume: int  # lots
    member: int
    origin_locked: int  # of a buy: ticks times lots; of a sell: lots
    at_ms: int
    volume: int = 0
    locked: int = 0
    funds_received: int = 0
    trades_count: int = 0
    state: str = PENDING

    def __post_init__(self) -> None:
        self.volume, self.locked = self.origin_volume, self.origin_locked


class Trade(NamedTuple):
    maker: int
    taker: int
    price: int
    amount: int


class Write(NamedTuple):
    """One row of a transaction, as it is left."""

    verb: Literal["insert", "update", "trade"]
    order: Order  # a copy; of a trade: the ask
    trade: Trade | None = None
    bid: Order | None = None


class Committed(NamedTuple):
    at_ms: int
    writes: list[Write]


@dataclass
class _InBook:
    id: int
    side: str
    price: int | None
    volume: int
    locked: int


class Matching:
    """The daemon of one market: books in memory. Maker in the trade row is the lower id."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self.book: list[_InBook] = []  # in order of arrival

    def submit(self, order: Order) -> list[Trade]:
        """Trades in the order in which they are published; what is left of a limit order rests."""
        came = _InBook(order.id, order.side, order.price, order.volume, order.origin_locked)
        trades = []
        while came.volume:
            counter = self._best(came)
            if counter is None:
                break
            assert counter.price is not None
            amount = self._amount(came, counter)
            if not amount:
                break
            trades.append(Trade(counter.id, came.id, counter.price, amount))
            came.volume -= amount
            counter.volume -= amount
            if came.side == "buy":
                came.locked -= amount * counter.price
            if not counter.volume:
                self.book.remove(counter)
        if came.price is not None and came.volume:
            self.book.append(came)
        return trades

    def cancel(self, order_id: int) -> None:
        self.book = [one for one in self.book if one.id != order_id]

    def _amount(self, came: _InBook, counter: _InBook) -> int:
        amount = min(came.volume, counter.volume)
        assert counter.price is not None
        if came.price is not None or came.side == "sell":
            return amount
        if self._generation == "2015":
            return min(amount, came.locked // counter.price)
        return amount if counter.price * amount <= came.locked else 0

    def _best(self, came: _InBook) -> _InBook | None:
        sign = 1 if came.side == "buy" else -1
        crossed = [
            one
            for one in self.book
            if one.side != came.side
            and one.price is not None
            and (came.price is None or sign * one.price <= sign * came.price)
        ]
        return min(crossed, key=lambda one: sign * (one.price or 0), default=None)


@dataclass
class Settings:
    generation: Generation = "3"
    market: str = "btcusd"
    workers: int = 3  # that lock funds side by side: so far apart may neighbours commit
    market_share: float = 0.1
    cancel_share: float = 0.25
    prices: int = 4  # on either side of the middle
    lag_ms: int = 20  # of the worker that writes trades
    first_id: int = 1
    wrong: Callable[[Trade], Trade] = field(default=lambda trade: trade)


class Exchange:
    """One market. The same seed does the same."""

    def __init__(self, seed: int, settings: Settings) -> None:
        self.settings = settings
        self.orders: dict[int, Order] = {}
        self.swapped = 0  # pairs of orders that committed in another order than the daemon had them
        self.handled: list[tuple[str, int]] = []  # what the daemon did: ("place" or "cancel", id)
        self.trades: list[Trade] = []
        self._chance = Random(seed)
        self._matching = Matching(settings.generation)
        self._due: list[tuple[float, int, Callable[[], list[Write]]]] = []
        self._number = 0
        self._written_ms = 0.0  # of the worker that writes trades
        self._opened_ms: dict[int, float] = {}
        self._now_ms = 0
        self._next_id = settings.first_id
        self._ids: list[int] = []

    def run(self, actions: int) -> Iterator[Committed]:
        """So many orders and cancels, one each millisecond, and all that follows from them."""
        for _ in range(actions):
            self._now_ms += 1
            self._act()
            yield from self._committed(self._now_ms)
        yield from self._committed(float("inf"))

    def _act(self) -> None:
        mine = [one.id for one in self._matching.book]
        if mine and self._chance.random() < self.settings.cancel_share:
            order_id = self._chance.choice(mine)
            if order_id in self._opened_ms:
                self._cancel(order_id)
                return
        self._place()

    def _place(self) -> None:
        order = self._random_order()
        self.orders[order.id] = order
        at_once = self.settings.generation == "2015"
        jitter = self._chance.random() * self.settings.workers
        opened_ms = self._now_ms + jitter
        if at_once:  # the request's own transaction opens it
            order.state = WAIT
            self._at(opened_ms, lambda: [Write("insert", _copy(order))])
        else:
            self._at(self._now_ms - 0.5, lambda: [Write("insert", _copy(order))])
            self._at(opened_ms, lambda: self._open(order))
        later = [one for one, at_ms in self._opened_ms.items() if at_ms > opened_ms]
        self.swapped += len(later)
        self._opened_ms[order.id] = opened_ms
        self.handled.append(("place", order.id))
        for trade in self._matching.submit(order):
            self.trades.append(trade)
            self._when_opened((trade.maker, trade.taker), self._execute, trade)
        if order.price is None:
            self._when_opened((order.id,), self._end, order.id)

    def _cancel(self, order_id: int) -> None:
        self.handled.append(("cancel", order_id))
        self._matching.cancel(order_id)
        self._when_opened((order_id,), self._end, order_id)

    def _random_order(self) -> Order:
        chance, settings = self._chance, self.settings
        side: Literal["buy", "sell"] = "buy" if chance.random() < 0.5 else "sell"
        volume = chance.randint(1, 30)
        price: int | None = 100 + chance.randint(-settings.prices, settings.prices)
        if chance.random() < settings.market_share:
            price = None
        locked = volume
        if side == "buy":
            locked = volume * price if price else int(volume * 100 * chance.uniform(0.4, 1.2))
        member = chance.randint(1, 5)
        number = self._id()
        return Order(number, settings.market, side, price, volume, member, locked, self._now_ms)

    def _id(self) -> int:
        """Rows are inserted side by side as well."""
        if not self._ids:
            self._ids = list(range(self._next_id, self._next_id + self.settings.workers))
            self._next_id += self.settings.workers
            self._chance.shuffle(self._ids)
        return self._ids.pop()

    # --- what the workers write

    def _open(self, order: Order) -> list[Write]:
        order.state = WAIT
        return [Write("update", _copy(order))]

    def _execute(self, trade: Trade) -> list[Write]:
        trade = self.settings.wrong(trade)
        maker, taker = self.orders[trade.maker], self.orders[trade.taker]
        for order in (maker, taker):
            order.volume -= trade.amount
            income = trade.amount if order.side == "buy" else trade.amount * trade.price
            order.locked -= trade.amount * trade.price if order.side == "buy" else trade.amount
            order.funds_received += income
            order.trades_count += 1
            if not order.volume:
                order.state = DONE
        ask, bid = (maker, taker) if maker.side == "sell" else (taker, maker)
        booked = Trade(min(maker.id, taker.id), max(maker.id, taker.id), trade.price, trade.amount)
        return [
            Write("update", _copy(maker)),
            Write("update", _copy(taker)),
            Write("trade", _copy(ask), booked, _copy(bid)),
        ]

    def _end(self, order_id: int) -> list[Write]:
        order = self.orders[order_id]
        if order.state != WAIT:
            return []
        order.state = CANCEL
        return [Write("update", _copy(order))]

    # --- when

    def _when_opened(
        self, ids: tuple[int, ...], what: Callable[..., list[Write]], argument: Trade | int
    ) -> None:
        """By the one worker, in the daemon's order, once the orders are there."""
        opened = max(self._opened_ms.get(one, 0.0) for one in ids)
        lag_ms = self.settings.lag_ms
        self._written_ms = max(self._written_ms, opened + 0.01, self._now_ms + lag_ms)
        self._at(self._written_ms, lambda: what(argument))

    def _at(self, at_ms: float, what: Callable[[], list[Write]]) -> None:
        self._number += 1
        heapq.heappush(self._due, (at_ms, self._number, what))

    def _committed(self, until_ms: float) -> Iterator[Committed]:
        while self._due and self._due[0][0] <= until_ms:
            at_ms, _, what = heapq.heappop(self._due)
            writes = what()
            if writes:
                yield Committed(round(at_ms), writes)


def _copy(order: Order) -> Order:
    same = Order(**{name: getattr(order, name) for name in order.__dataclass_fields__})
    same.volume, same.locked = order.volume, order.locked
    return same
