"""One instrument: who may trade it, within which limits, and what is open in it."""

from __future__ import annotations

from collections.abc import Iterator

from sortedcontainers import SortedList

from engine.limits import DAY_S, U32_MAX
from engine.reference.book import Book
from engine.reference.order import Order
from engine.reference.stops import PendingStops, is_triggered
from engine.rules import OrderLimits
from engine.snapshot import InstrumentState
from engine.types import Mode


class Instrument:
    """Begins closed at epoch 0, open for trading once a mode lets somebody in."""

    def __init__(self, number: int, name: str, limits: OrderLimits) -> None:
        self.number = number
        self.name = name
        self.mode = Mode.CLOSED
        self.epoch = 0
        self.is_halted = False
        self.limits = limits
        self.day_end_s = 0  # after midnight UTC
        self.last_price_ticks = 0  # of its last fill; 0: none yet
        self.book = Book()
        self.stops = PendingStops()
        self.expiries: SortedList[tuple[int, int]] = SortedList()  # (second, order id)

    @property
    def open_orders(self) -> int:
        """How many rest or wait."""
        return len(self.book) + len(self.stops)

    def orders(self) -> Iterator[Order]:
        """Bids, asks, best price first, oldest first; then the stops, oldest first."""
        yield from self.book.orders()
        yield from self.stops.orders()

    def triggers(self, stop: Order) -> bool:
        """Whether a new stop need not wait."""
        last_ticks = self.last_price_ticks
        return last_ticks != 0 and is_triggered(stop, last_ticks, last_ticks)

    def day_ends_s(self, time_s: int) -> int:
        """When the trading day of this second is over: at the first end of a day after it."""
        days = (time_s - self.day_end_s) // DAY_S + 1
        return min(days * DAY_S + self.day_end_s, U32_MAX)

    def due(self, time_s: int) -> Iterator[int]:
        """The ids of the orders whose time has come: by second, then by id."""
        for _, order_id in self.expiries.irange(maximum=(time_s + 1,), inclusive=(True, False)):
            yield order_id

    def state(self) -> InstrumentState:
        return InstrumentState(
            instrument=self.number,
            name=self.name,
            mode=self.mode,
            epoch=self.epoch,
            open_orders=len(self.book),
            price_ticks_max=self.limits.price_ticks_max,
            qty_lots_max=self.limits.qty_lots_max,
            price_ticks_min=self.limits.price_ticks_min,
            tick_ticks=self.limits.tick_ticks,
            lot_lots=self.limits.lot_lots,
            notional_max=self.limits.notional_max,
            day_end_s=self.day_end_s,
            halted=self.is_halted,
            last_price_ticks=self.last_price_ticks,
            pending_stops=len(self.stops),
        )

    @classmethod
    def restored(cls, state: InstrumentState) -> Instrument:
        """Without its orders."""
        limits = OrderLimits(
            price_ticks_max=state.price_ticks_max,
            qty_lots_max=state.qty_lots_max,
            price_ticks_min=state.price_ticks_min,
            tick_ticks=state.tick_ticks,
            lot_lots=state.lot_lots,
            notional_max=state.notional_max,
        )
        instrument = cls(state.instrument, state.name, limits)
        instrument.mode = state.mode
        instrument.epoch = state.epoch
        instrument.is_halted = state.halted
        instrument.day_end_s = state.day_end_s
        instrument.last_price_ticks = state.last_price_ticks
        return instrument

    def check(self) -> None:
        """Raises AssertionError on the first invariant that does not hold."""
        self.book.check()
        self.stops.check(self.last_price_ticks)
        self.expiries._check()
        expected = sorted((each.expiry_s, each.order_id) for each in self.orders() if each.expiry_s)
        assert list(self.expiries) == expected, f"{self.number}: the index of expiries differs"
        limits = self.limits
        assert 1 <= limits.price_ticks_min <= limits.price_ticks_max, f"{self.number}: its band"
        for order in self.orders():
            assert order.instrument == self.number, f"order {order.order_id} is in a strange book"
            assert order.rests, f"order {order.order_id} must not stay open"
