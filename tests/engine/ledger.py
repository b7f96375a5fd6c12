"""What the events alone say: a second, dull book-keeping of every order, without any matching.

It takes each event for true only if everything told before allows it, so that whoever follows the
events (write-back, market data, a client) has the books that the market has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from engine.reject import Reason
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    OrderFlag,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from engine.wire import unpack_new_aux

_STOPS = (OrderType.STOP, OrderType.STOP_LIMIT)
_AT_ONCE = (TimeInForce.IOC, TimeInForce.FOK)


@dataclass
class Open:
    order_id: int
    instrument: int
    side: int
    ord_type: int
    tif: int
    price_ticks: int
    leaves_lots: int
    account: int
    stp: int
    display_lots: int
    place: int  # in its queue: ascending
    stop_price_ticks: int = 0
    post_only: bool = False
    displayed_lots: int = 0  # 0: as much as it may

    def shown_lots(self) -> int:
        most = min(self.display_lots or self.leaves_lots, self.leaves_lots)
        return min(self.displayed_lots or most, most)


class Ledger:
    """Feed it every command with its events; each claim is an assertion."""

    def __init__(self) -> None:
        self.orders: dict[int, Open] = {}
        self.last_ticks: dict[int, int] = {}
        self._groups: dict[int, int] = {}
        self._place = 0
        self._filled_lots = 0  # by the command's own order
        self._canceled_orders = 0  # by the command
        self._traded: list[tuple[int, int, int]] = []  # by the command: instrument, price, place

    def add(self, command: Command | None, events: list[Event]) -> None:
        """`command` is None where its kind is none."""
        assert [event.sub for event in events] == list(range(len(events)))
        assert [bool(event.flags & 1) for event in events] == [False] * (len(events) - 1) + [True]
        if events[0].kind is EventKind.REJECTED:
            assert len(events) == 1, "a rejected command changes nothing"
            return
        assert command is not None
        self._filled_lots = self._canceled_orders = 0
        self._traded = []
        for event in events:
            getattr(self, f"_{event.kind.name.lower()}", self._other)(command, event)
        if command.kind == CommandKind.NEW:
            self._check_promises(command, events)
        for instrument in {event.instrument for event in events}:
            self._check_not_crossed(instrument)
        for instrument, price_ticks, place in self._traded:
            self._check_no_stop_missed_it(instrument, price_ticks, place)

    # --- what orders become

    def _accepted(self, command: Command, event: Event) -> None:
        assert event.order_id not in self.orders
        assert event.leaves_lots == event.qty_lots == command.qty_lots
        is_iceberg = command.flags & OrderFlag.DISPLAY and event.ord_type not in _STOPS
        self._enter(
            Open(
                order_id=event.order_id,
                instrument=event.instrument,
                side=event.side,
                ord_type=event.ord_type,
                tif=event.tif,
                price_ticks=event.price_ticks,
                leaves_lots=event.leaves_lots,
                account=event.contra_id,
                stp=command.stp,
                display_lots=unpack_new_aux(command.aux)[0] if is_iceberg else 0,
                place=0,
                stop_price_ticks=command.aux if event.ord_type in _STOPS else 0,
                post_only=bool(command.flags & OrderFlag.POST_ONLY),
            )
        )

    def _replaced(self, command: Command, event: Event) -> None:
        old = self.orders.pop(event.contra_id)
        assert old.leaves_lots == event.contra_leaves_lots
        assert event.order_id not in self.orders
        self._enter(
            replace(
                old,
                order_id=event.order_id,
                price_ticks=event.price_ticks,
                leaves_lots=event.leaves_lots,
                displayed_lots=0,
            )
        )

    def _triggered(self, command: Command, event: Event) -> None:
        stop = self.orders.pop(event.order_id)
        assert stop.ord_type == event.ord_type
        assert stop.ord_type in _STOPS
        assert stop.leaves_lots == event.leaves_lots
        assert self.last_ticks[stop.instrument], "nothing has been traded that could set it off"
        if stop.ord_type == OrderType.STOP:
            self._enter(replace(stop, ord_type=OrderType.MARKET, tif=TimeInForce.IOC))
        else:
            self._enter(replace(stop, ord_type=OrderType.LIMIT))

    def _enter(self, order: Open) -> None:
        self._place += 1
        order.place = self._place
        self.orders[order.order_id] = order

    def _reduced(self, command: Command, event: Event) -> None:
        order = self.orders[event.order_id]
        assert order.leaves_lots - event.qty_lots == event.leaves_lots > 0
        order.leaves_lots = event.leaves_lots

    # --- what happens between them

    def _fill(self, command: Command, event: Event) -> None:
        taker, maker = self._met(event)
        own = self._are_one(taker.account, maker.account)
        assert not own or taker.stp == SelfTradePrevention.NONE, "a self-trade"
        assert not taker.post_only or command.kind != CommandKind.NEW
        self.last_ticks[taker.instrument] = event.price_ticks
        self._traded.append((taker.instrument, event.price_ticks, self._place))
        if command.order_id == taker.order_id:
            self._filled_lots += event.qty_lots
        self._take(taker, maker, event)

    def _prevented(self, command: Command, event: Event) -> None:
        taker, maker = self._met(event)
        assert taker.stp == SelfTradePrevention.DECREMENT
        assert self._are_one(taker.account, maker.account)
        self._take(taker, maker, event)

    def _met(self, event: Event) -> tuple[Open, Open]:
        taker, maker = self.orders[event.order_id], self.orders[event.contra_id]
        assert (taker.instrument, taker.side) == (event.instrument, event.side)
        assert (maker.instrument, maker.side) == (event.instrument, 3 - event.side)
        assert maker.ord_type == OrderType.LIMIT
        assert maker.price_ticks == event.price_ticks, "a trade is at the maker's price"
        if taker.ord_type == OrderType.LIMIT:
            beyond = event.price_ticks - taker.price_ticks
            assert (beyond if taker.side == Side.BUY else -beyond) <= 0, "beyond its limit"
        assert self._queue(maker.instrument, maker.side)[0] is maker, "not the first in the queue"
        return taker, maker

    def _take(self, taker: Open, maker: Open, event: Event) -> None:
        assert 0 < event.qty_lots == min(taker.leaves_lots, maker.shown_lots())
        left_lots = maker.shown_lots() - event.qty_lots
        for order, leaves_lots in ((taker, event.leaves_lots), (maker, event.contra_leaves_lots)):
            order.leaves_lots -= event.qty_lots
            assert order.leaves_lots == leaves_lots
            if not leaves_lots:
                del self.orders[order.order_id]
        maker.displayed_lots = left_lots
        if not left_lots:
            self._place += 1
            maker.place = self._place

    # --- the end of them

    def _canceled(self, command: Command, event: Event) -> None:
        order = self.orders.pop(event.order_id)
        assert (event.qty_lots, event.leaves_lots) == (order.leaves_lots, 0)
        assert (event.side, event.instrument) == (order.side, order.instrument)
        self._canceled_orders += 1
        if event.reason is Reason.UNFILLED:
            has_minimum = command.kind == CommandKind.NEW and command.flags & OrderFlag.MIN_QTY
            assert order.tif in _AT_ONCE or has_minimum

    def _cleared(self, command: Command, event: Event) -> None:
        here = [one for one in self.orders.values() if one.instrument == event.instrument]
        assert event.qty_lots == len(here)
        for order in here:
            del self.orders[order.order_id]
        self.last_ticks[event.instrument] = 0

    def _mass_canceled(self, command: Command, event: Event) -> None:
        assert event.qty_lots == self._canceled_orders

    def _time(self, command: Command, event: Event) -> None:
        assert event.qty_lots == self._canceled_orders

    def _account_limits(self, command: Command, event: Event) -> None:
        self._groups[event.contra_id] = event.leaves_lots

    def _other(self, command: Command, event: Event) -> None:
        """Changes no order."""

    # --- what must hold

    def _check_promises(self, command: Command, events: list[Event]) -> None:
        order = self.orders.get(command.order_id)
        filled_lots = self._filled_lots
        is_stop = command.ord_type in _STOPS
        if command.tif == TimeInForce.FOK:
            assert filled_lots in (0, command.qty_lots), "filled in part"
            if not filled_lots and command.stp == SelfTradePrevention.NONE:
                assert self._within_reach(command) < command.qty_lots, "it could have been filled"
        if command.tif in _AT_ONCE:
            assert order is None, "it rests"
        if command.flags & OrderFlag.MIN_QTY:
            assert not filled_lots or filled_lots >= unpack_new_aux(command.aux)[0]
        if command.flags & OrderFlag.POST_ONLY:
            assert len(events) == 1, "it did not just rest"
        if order is not None and not is_stop:
            assert order.ord_type == OrderType.LIMIT

    def _within_reach(self, command: Command) -> int:
        """Of a new order that has traded nothing."""
        lots = 0
        for maker in self._queue(command.instrument, 3 - command.side):
            beyond = maker.price_ticks - command.price_ticks
            beyond = beyond if command.side == Side.BUY else -beyond
            if command.ord_type == OrderType.MARKET or beyond <= 0:
                lots += maker.leaves_lots
        return lots

    def _check_not_crossed(self, instrument: int) -> None:
        bids, asks = (self._queue(instrument, side) for side in (Side.BUY, Side.SELL))
        assert not bids or not asks or bids[0].price_ticks < asks[0].price_ticks, "crossed"

    def _check_no_stop_missed_it(self, instrument: int, price_ticks: int, place: int) -> None:
        for stop in self._waiting(instrument):
            beyond = (price_ticks - stop.stop_price_ticks) * (1 if stop.side == Side.BUY else -1)
            assert stop.place > place or beyond < 0, f"{stop.order_id} waits for what was traded"

    def _are_one(self, account: int, other: int) -> bool:
        group = self._groups.get(account, 0)
        return account == other or (group != 0 and group == self._groups.get(other, 0))

    def _queue(self, instrument: int, side: int) -> list[Open]:
        """Its resting orders: best price first, then by place."""
        sign = -1 if side == Side.BUY else 1
        resting = [
            one
            for one in self.orders.values()
            if one.instrument == instrument
            and one.side == side
            and one.ord_type == OrderType.LIMIT
            and one.tif not in _AT_ONCE
        ]
        return sorted(resting, key=lambda one: (sign * one.price_ticks, one.place))

    def book(self, instrument: int) -> list[tuple[int, int, int]]:
        """(id, leaves, displayed) of what rests: bids, then asks."""
        return [
            (one.order_id, one.leaves_lots, one.shown_lots())
            for side in (Side.BUY, Side.SELL)
            for one in self._queue(instrument, side)
        ]

    def stops(self, instrument: int) -> list[tuple[int, int]]:
        """(id, leaves), oldest first."""
        waiting = sorted(self._waiting(instrument), key=lambda one: one.place)
        return [(one.order_id, one.leaves_lots) for one in waiting]

    def _waiting(self, instrument: int) -> list[Open]:
        orders = self.orders.values()
        return [o for o in orders if o.instrument == instrument and o.ord_type in _STOPS]
