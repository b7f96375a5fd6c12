"""Orders of every sort for the generator of commands (command_flow), and what is done to them."""

from __future__ import annotations

from flow_state import CONTROL, SECOND_NS, State

from engine.limits import U32_MAX, U64_MAX
from engine.types import CommandKind, MassCancelScope, OrderFlag, OrderType, TimeInForce
from engine.wire import pack_new_aux

# What an order may be, each as (order type, time in force, flags): all that the rules allow.
_RESTING_TIFS = (TimeInForce.DAY, TimeInForce.GTC, TimeInForce.GTD)
_RESTING_FLAGS = (0, 1, 2, 3, 4)  # post-only, display, both, minimum quantity
LIMITS = tuple((OrderType.LIMIT, tif, flags) for tif in _RESTING_TIFS for flags in _RESTING_FLAGS)
TAKERS = (
    (OrderType.LIMIT, TimeInForce.IOC, 0),
    (OrderType.LIMIT, TimeInForce.IOC, OrderFlag.MIN_QTY),
    (OrderType.LIMIT, TimeInForce.FOK, 0),
    (OrderType.MARKET, TimeInForce.IOC, 0),
    (OrderType.MARKET, TimeInForce.IOC, OrderFlag.MIN_QTY),
    (OrderType.MARKET, TimeInForce.FOK, 0),
)
STOPS = tuple(
    (ord_type, tif, 0)
    for ord_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    for tif in (TimeInForce.DAY, TimeInForce.GTC)
)
EVERY_ORDER = (*LIMITS, *TAKERS, *STOPS)


class Orders(State):
    def _new(self, kind: tuple[int, int, int]) -> bytes:
        ord_type, tif, flags = kind
        number, session, at = self.place()
        choose = self.random.random
        side = 1 if choose() < 0.5 else 2
        lot = self._lot(number)
        qty = self._quantity(number)
        is_priced = ord_type in (OrderType.LIMIT, OrderType.STOP_LIMIT)
        passive = flags & OrderFlag.POST_ONLY and choose() < 0.8
        return self.command(
            CommandKind.NEW,
            session,
            side=side,
            ord_type=ord_type,
            tif=tif,
            flags=flags,
            stp=int(5 * choose()) if choose() < 0.7 else 0,
            account=self.account(),
            order_id=1 + int(self.mix.ids * choose()),
            price_ticks=self._price(number, side, passive=bool(passive)) if is_priced else 0,
            qty_lots=qty,
            aux=self._aux(number, ord_type, tif, flags, qty, lot),
            **at,
        )

    def _aux(self, number: int, ord_type: int, tif: int, flags: int, qty: int, lot: int) -> int:
        if ord_type in (OrderType.STOP, OrderType.STOP_LIMIT):
            return self._stop_price(number)
        part = expiry_s = 0
        if flags & (OrderFlag.DISPLAY | OrderFlag.MIN_QTY):
            part = min(int(self.random.random() ** 2 * qty) // lot * lot, U32_MAX)
            part = part if self.random.random() < 0.03 else max(part, min(lot, U32_MAX))
        if tif == TimeInForce.GTD:
            seconds = self.random.choice((-1, 0, 1, 1, 2, 5, 30, 100, 10_000, 2**40))
            expiry_s = min(max(self.ts_ns // SECOND_NS + seconds, 0), U32_MAX)
        return pack_new_aux(part_lots=part, expiry_s=expiry_s)

    def _limit(self) -> bytes:
        return self._new(self.random.choice(LIMITS))

    def _taker(self) -> bytes:
        return self._new(self.random.choice(TAKERS))

    def _stop(self) -> bytes:
        return self._new(self.random.choice(STOPS))

    def _price(self, number: int, side: int, *, passive: bool = False) -> int:
        view = self.views.get(number)
        tick = view.state.tick_ticks if view else 1
        width = self.mix.width_ticks
        # Bids mostly below the middle and asks above, with enough overlap that they trade.
        offset = int(width * (self.random.random() * 1.3 - 0.3)) + (2 * width if passive else 0)
        price = self.middle + (-offset if side == 1 else offset) * (tick if tick < 1_000 else 1)
        price -= price % tick if self.random.random() < 0.98 else 0
        if self.random.random() < 0.01 and view is not None:
            price = view.state.price_ticks_max + self.random.choice((0, 1))
        return min(max(price, 0), 2**63 - 1)

    def _stop_price(self, number: int) -> int:
        view = self.views.get(number)
        tick = view.state.tick_ticks if view else 1
        around = (view.state.last_price_ticks if view else 0) or self.middle
        offset = int(self.mix.width_ticks * (self.random.random() * 2 - 1))
        price = around + offset * (tick if tick < 1_000 else 1)
        price -= price % tick if self.random.random() < 0.97 else 0
        return min(max(price, 0), U64_MAX)

    def _lot(self, number: int) -> int:
        view = self.views.get(number)
        return view.state.lot_lots if view else 1

    def _quantity(self, number: int) -> int:
        lot = self._lot(number)
        draw = self.random.random()
        if draw * 100 < self.mix.huge:
            return self.random.choice((U64_MAX, U64_MAX - 1, 2**63, 2**63 - 1, 2**32))
        if draw > 0.99:
            return self.random.choice((0, lot + 1, self.mix.qty_max * 2))
        return min((1 + int(self.mix.qty_max * self.random.random() ** 2)) * lot, U64_MAX)

    def _target(self, number: int) -> tuple[int, int, int, int]:
        """An open order, mostly: its id, account, price, leaves."""
        view = self.views.get(number)
        if view is None or not view.orders or self.random.random() < 0.05:
            return 1 + int(self.mix.ids * self.random.random()), self.account(), self.middle, 1
        orders = view.stops if view.stops and self.random.random() < 0.3 else view.orders
        order_id, account, price, leaves = self.random.choice(orders)
        if self.random.random() < 0.02:
            account = self.account()
        return order_id, account, price, leaves

    def _cancel(self) -> bytes:
        number, session, at = self.place()
        order_id, account, _, _ = self._target(number)
        return self.command(CommandKind.CANCEL, session, account=account, order_id=order_id, **at)

    def _change(self) -> bytes:
        number, session, at = self.place()
        order_id, account, price, leaves = self._target(number)
        choose = self.random.random
        at |= {"account": account, "order_id": order_id}
        if choose() < 0.4:
            left = int(leaves * choose()) or (1 if choose() < 0.9 else 0)
            lot = self._lot(number)
            left -= left % lot if choose() < 0.95 else 0
            return self.command(CommandKind.REDUCE, session, qty_lots=left, **at)
        if price and choose() < 0.8:
            price = self._price(number, 1 + int(2 * choose()))
        new_id = order_id if choose() < 0.4 else 1 + int(self.mix.ids * choose())
        return self.command(
            CommandKind.REPLACE,
            session,
            price_ticks=price,
            qty_lots=self._quantity(number),
            aux=new_id,
            **at,
        )

    def _mass(self) -> bytes:
        _, session, at = self.place()
        scope = self.random.choice(list(MassCancelScope))
        if self.random.random() < 0.4:
            session = CONTROL
        every = self.random.random() < 0.4
        return self.command(
            CommandKind.MASS_CANCEL,
            session,
            side=self.random.choice((0, 1, 2)),
            flags=int(every),
            account=self.account() if scope is MassCancelScope.ACCOUNT else 0,
            aux=scope,
            **({} if every else at),
        )
