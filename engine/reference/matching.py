"""What an order does when it enters: it trades with what it meets, the rest stays open or is
canceled, and its trades set off stops, which do the same.
"""

from __future__ import annotations

from collections import deque
from itertools import takewhile

from engine.reference import events
from engine.reference.instrument import Instrument
from engine.reference.order import Order
from engine.reference.state import State
from engine.reject import Reason
from engine.types import Event, EventKind, SelfTradePrevention

_CANCELS_MAKER = (SelfTradePrevention.CANCEL_MAKER, SelfTradePrevention.CANCEL_BOTH)
_CANCELS_TAKER = (SelfTradePrevention.CANCEL_TAKER, SelfTradePrevention.CANCEL_BOTH)


class Execution:
    """All that one order sets off in its instrument. `events` tells it."""

    def __init__(self, state: State, instrument: Instrument) -> None:
        self.events: list[Event] = []
        self._state = state
        self._instrument = instrument
        self._triggered: deque[Order] = deque()  # set off, not executed yet; open no more

    def enter(self, order: Order, minimum_lots: int = 0) -> None:
        """A new or replaced order, which is not open now. If less than the minimum can trade at
        once, it is canceled whole.

        Stops go off one after the other, in the order in which they were set off: whatever each of
        them sets off in turn comes after those that wait already. One of a killed account is
        canceled instead: it would trade.
        """
        if not order.is_stop:
            self._execute(order, minimum_lots)
        elif self._instrument.triggers(order):
            self._triggered.append(order)
        else:
            order.display()
            self._state.orders.add(order)
        while self._triggered:
            stop = self._triggered.popleft()
            if self._state.accounts.settings(stop.account).killed:
                self.events.append(events.canceled(stop, Reason.ACCOUNT_KILLED))
                continue
            self.events.append(events.triggered(stop))
            stop.trigger()
            self._execute(stop)

    def _execute(self, taker: Order, minimum_lots: int = 0) -> None:
        if minimum_lots and self._reachable_lots(taker, minimum_lots) < minimum_lots:
            self.events.append(events.canceled(taker, Reason.UNFILLED))
            return
        prices_ticks = self._match(taker)
        if taker.leaves_lots and taker.rests:
            taker.display()
            self._state.orders.add(taker)
        elif taker.leaves_lots:
            self.events.append(events.canceled(taker, Reason.UNFILLED))
        if prices_ticks:
            self._set_off(min(prices_ticks), max(prices_ticks))

    def _set_off(self, low_ticks: int, high_ticks: int) -> None:
        for stop in self._instrument.stops.triggered(low_ticks, high_ticks):
            self._state.orders.remove(stop)
            self._triggered.append(stop)

    # --- trading

    def _match(self, taker: Order) -> list[int]:
        """Until nothing is left of the taker, or there is nothing that it meets. Returns the prices
        of its fills.
        """
        prices_ticks: list[int] = []
        while taker.leaves_lots:
            maker = self._instrument.book.met_by(taker.side, taker.limit_ticks)
            if maker is None:
                break
            if taker.stp is not SelfTradePrevention.NONE and self._is_own(taker, maker):
                self._prevent(taker, maker)
            else:
                self._meet(EventKind.FILL, taker, maker)
                prices_ticks.append(maker.price_ticks)
                self._instrument.last_price_ticks = maker.price_ticks
        return prices_ticks

    def _is_own(self, taker: Order, maker: Order) -> bool:
        return self._state.accounts.are_one(taker.account, maker.account)

    def _prevent(self, taker: Order, maker: Order) -> None:
        """They must not trade: what happens instead is as the taker has it."""
        if taker.stp is SelfTradePrevention.DECREMENT:
            self._meet(EventKind.PREVENTED, taker, maker)
            return
        if taker.stp in _CANCELS_MAKER:
            self.events.append(events.canceled(maker, Reason.SELF_TRADE))
            self._state.orders.remove(maker)
        if taker.stp in _CANCELS_TAKER:
            self.events.append(events.canceled(taker, Reason.SELF_TRADE))
            taker.leaves_lots = 0

    def _meet(self, kind: EventKind, taker: Order, maker: Order) -> None:
        """Both lose as much as the smaller one has; of the maker counts what it displays."""
        lots = min(taker.leaves_lots, maker.displayed_lots)
        taker.leaves_lots -= lots
        self._state.orders.take(maker, lots)
        self.events.append(events.met(kind, taker, maker, lots))

    # --- how much could trade

    def _reachable_lots(self, taker: Order, enough_lots: int) -> int:
        """What the taker would get within its limit, counted until it is enough. Quantity behind an
        order that ends its matching, or takes from it without a trade, is not counted.
        """
        reachable_lots = 0
        for level in self._instrument.book.levels_met_by(taker.side, taker.limit_ticks):
            if reachable_lots >= enough_lots:
                break
            others = [maker for maker in level if not self._is_own(taker, maker)]
            if taker.stp is SelfTradePrevention.NONE:
                reachable_lots += sum(maker.leaves_lots for maker in level)
            elif taker.stp is SelfTradePrevention.CANCEL_MAKER or len(others) == len(level):
                reachable_lots += sum(maker.leaves_lots for maker in others)
            else:
                # What icebergs ahead of the own order hide would come back behind it.
                ahead = takewhile(lambda maker: not self._is_own(taker, maker), level)
                return reachable_lots + sum(maker.displayed_lots for maker in ahead)
        return reachable_lots
