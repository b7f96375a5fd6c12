"""A seeded stream of orders as a market's members would send them. Pure: its chance comes in."""

from __future__ import annotations

from decimal import Decimal
from random import Random

import msgspec

from bridge.sandbox.told import Wish


class LoadSymbol(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    tick: Decimal
    lot: Decimal
    middle: Decimal  # the price that the walk starts from
    weight: float = 1.0  # its share of the requests


class Mix(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of the requests; the rest are limit orders that rest. A cancel needs an open order."""

    cancel: float = 0.35
    crossing: float = 0.15  # limit, good till cancelled, at a price that probably trades
    ioc: float = 0.07
    market: float = 0.03
    bulk: float = 0.0  # apart from the others: requests that place or cancel several orders


class CancelWish(msgspec.Struct, frozen=True):
    order_id: int
    symbol: str


class BulkWish(msgspec.Struct, frozen=True):
    """One of three: new orders, orders to cancel, or every order of a symbol to cancel."""

    symbol: str  # of the first order, or of all
    places: tuple[Wish, ...] = ()
    cancels: tuple[int, ...] = ()


class Walk:
    """The middle price of one symbol in ticks: a random walk, drawn back to where it began."""

    def __init__(self, symbol: LoadSymbol, chance: Random) -> None:
        self.symbol = symbol
        self._chance = chance
        self._start_ticks = int(symbol.middle / symbol.tick)
        self.ticks = float(self._start_ticks)

    def step(self) -> int:
        self.ticks += self._chance.gauss(0, 1) * self._start_ticks * 2e-5
        self.ticks += (self._start_ticks - self.ticks) * 1e-4
        return max(2, round(self.ticks))


class Member:
    """One client: what it does next, given the orders that it believes to be open."""

    def __init__(self, number: int, walks: list[Walk], mix: Mix, chance: Random) -> None:
        self.number = number
        self._walks = walks
        self._weights = [walk.symbol.weight for walk in walks]
        self._mix = mix
        self._chance = chance
        self._open: dict[int, str] = {}  # order id -> symbol, oldest first

    def rests(self, order_id: int, symbol: str) -> None:
        self._open[order_id] = symbol

    def next(self) -> Wish | CancelWish:
        walk = self._chance.choices(self._walks, self._weights)[0]
        draw = self._chance.random()
        mix = self._mix
        if draw < mix.cancel and self._open:
            return self._cancel()
        draw = self._chance.uniform(mix.cancel, 1.0)
        if draw < mix.cancel + mix.market:
            return self._wish(walk, "market", "ioc", None)
        if draw < mix.cancel + mix.market + mix.ioc:
            return self._wish(walk, "limit", "ioc", crosses=True)
        return self._wish(
            walk, "limit", "gtc", crosses=draw < mix.cancel + mix.market + mix.ioc + mix.crossing
        )

    def bulk(self) -> BulkWish | None:
        """None: this time it asks for one order only, by `next`."""
        if not self._mix.bulk or self._chance.random() >= self._mix.bulk:
            return None
        draw = self._chance.random()
        if draw < 0.6 or not self._open:
            walks = self._chance.choices(self._walks, self._weights, k=self._chance.randint(2, 5))
            places = tuple(
                self._wish(walk, "limit", "gtc", self._chance.random() < 0.2) for walk in walks
            )
            return BulkWish(places[0].symbol, places=places)
        if draw < 0.9:
            count = min(len(self._open), self._chance.randint(1, 4))
            wishes = [self._cancel() for _ in range(count)]
            return BulkWish(wishes[0].symbol, cancels=tuple(one.order_id for one in wishes))
        symbol = next(reversed(self._open.values()))
        self._open = {one: its for one, its in self._open.items() if its != symbol}
        return BulkWish(symbol)

    def _cancel(self) -> CancelWish:
        """Mostly one of the newest, as in real flow: most cancels come soon."""
        ids = list(self._open)
        back = min(len(ids), 1 + int(self._chance.expovariate(0.2)))
        order_id = ids[-back]
        return CancelWish(order_id, self._open.pop(order_id))

    def _wish(self, walk: Walk, order_type: str, tif: str, crosses: bool | None) -> Wish:
        side = self._chance.choice(("buy", "sell"))
        middle = walk.step()
        price = None
        if crosses is not None:
            spread = max(1.0, middle * 2e-4)
            away = 1 + self._chance.expovariate(1 / spread)
            towards = 1 if (side == "buy") == crosses else -1
            price = max(1, middle + towards * round(away)) * walk.symbol.tick
        return Wish(
            symbol=walk.symbol.symbol,
            member=self.number,
            side=side,
            order_type=order_type,
            time_in_force=tif,
            price=price,
            quantity=self._quantity(walk.symbol),
        )

    def _quantity(self, symbol: LoadSymbol) -> Decimal:
        """Small ones often, large ones now and then, half of them round."""
        lots = int(10 ** self._chance.uniform(2, 4.5))
        if self._chance.random() < 0.5:
            lots = max(100, lots // 100 * 100)
        return lots * symbol.lot
