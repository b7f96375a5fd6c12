"""Our engine, as `tracebook-conformance` speaks to matching engines.

What that tool's contract has and ours has not, and how the one is told in the other:

* Its quantities are decimals: a lot here is 2**-40, so that halves of halves are whole lots. A
  quantity that is none is refused, never rounded.
* Prices off the tick grid are rounded to it by its contract and refused by ours: rounded here.
* Order ids are unique in a symbol there and in a shard here: the instrument goes in the upper bits.
* Its cancels, reductions and replacements name no owner: what the order was entered with is used.
* A reduction says what is taken off there and what is left here; one that leaves nothing is a
  cancel here. A replacement keeps what it does not name.
* A book begins with the first order for it: here an instrument is defined and taken live then.
* `clear` empties a live book: here an administrator's mass cancel of the instrument.
* Self-trade prevention is the book's there and the order's here: every order brings it, except
  those without an owner, who are never their own counterparty there.

As a process (`python tests/engine/tracebook_adapter.py rust`) it serves the tool's own protocol:
`tracebook-conformance qualify --profile fifo-full-v1 --output-dir DIR --candidate-cmd '...'`.
"""

from __future__ import annotations

import sys
from fractions import Fraction

from tracebook.conformance import (
    BookSnapshot,
    BookState,
    ConformanceConfig,
    ConformanceError,
    EngineMetadata,
    Observation,
    Outcome,
    RestingOrder,
    TradeFill,
    canonical_decimal,
    serve_stdio,
)
from tracebook.core.order import NO_OWNER, OrderSide, SelfTradePolicy
from tracebook.core.order import OrderType as TheirType
from tracebook.events import MarketEvent

from engine.limits import U64_MAX
from engine.market import create_market
from engine.reject import Reason
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    MassCancelScope,
    Mode,
    OrderType,
    Role,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from engine.wire import (
    decode_events,
    decode_resting_orders,
    encode_command,
    instrument_command,
    session_command,
)

_LOT = Fraction(1, 2**40)
_ID_BITS = 48
_ADMIN, _TRADER = 1, 2  # session numbers
_INSTRUCTIONS = {
    TheirType.LIMIT: (OrderType.LIMIT, TimeInForce.GTC),
    TheirType.IOC: (OrderType.LIMIT, TimeInForce.IOC),
    TheirType.FOK: (OrderType.LIMIT, TimeInForce.FOK),
    TheirType.MARKET: (OrderType.MARKET, TimeInForce.IOC),
}
_PREVENTION = {
    SelfTradePolicy.NONE: SelfTradePrevention.NONE,
    SelfTradePolicy.CANCEL_RESTING: SelfTradePrevention.CANCEL_MAKER,
    SelfTradePolicy.CANCEL_INCOMING: SelfTradePrevention.CANCEL_TAKER,
}
_CODES = {
    Reason.UNKNOWN_ORDER: "ORDER_NOT_ACTIVE",
    Reason.UNKNOWN_INSTRUMENT: "ORDER_NOT_ACTIVE",
    Reason.DUPLICATE_ORDER_ID: "DUPLICATE_ORDER_ID",
}


class EngineAdapter:
    """One market, told one event of theirs after the other."""

    def __init__(self, config: ConformanceConfig, implementation: str) -> None:
        if config.matching_algorithm != "fifo":
            raise ConformanceError("this engine matches first in first out and not otherwise")
        self.metadata = EngineMetadata(
            "railswitch", "0.1.0", {"python": "Python", "rust": "Rust"}[implementation]
        )
        self._config = config
        self._market = create_market(implementation)
        self._refs = {_ADMIN: 0, _TRADER: 0}
        self._instruments: dict[str, int] = {}
        self._owners: dict[int, int] = {}
        for session, role in ((_ADMIN, Role.ADMIN), (_TRADER, Role.TRADE)):
            self._market.apply(
                encode_command(session_command(session=session, name=role.name, role=role)), 0
            )

    def apply(self, event: MarketEvent, index: int) -> Observation:
        if event.op in ("new", "clear"):
            self._open(event.symbol)
        events = self._send(getattr(self, f"_{event.op}")(event))
        state = self.snapshot()
        return Observation(
            index,
            _outcome(events[0], event.op),
            tuple(self._trade(event.symbol, one) for one in events if one.kind == EventKind.FILL),
            state.digest(),
            state.order_count,
        )

    def snapshot(self) -> BookState:
        return BookState(tuple(self._book(symbol) for symbol in sorted(self._instruments)))

    def close(self) -> None:
        self._market.check()

    # --- their operations as our commands

    def _new(self, event: MarketEvent) -> Command:
        assert event.order_id is not None
        ord_type, tif = _INSTRUCTIONS[event.order_type]
        stp = _PREVENTION[self._config.self_trade_policy]
        order_id = self._order_id(event)
        command = Command(
            kind=CommandKind.NEW,
            side=Side.BUY if event.side == OrderSide.BUY else Side.SELL,
            ord_type=ord_type,
            tif=tif,
            stp=SelfTradePrevention.NONE if event.owner == NO_OWNER else stp,
            session=_TRADER,
            instrument=self._instruments[event.symbol],
            epoch=1,
            account=event.owner & U64_MAX,
            order_id=order_id,
            price_ticks=0 if ord_type is OrderType.MARKET else self._ticks(event.price),
            qty_lots=_lots(event.quantity),
        )
        if order_id not in self._open_orders(event.symbol):
            self._owners[order_id] = event.owner
        return command

    def _cancel(self, event: MarketEvent) -> Command:
        return self._of_order(event, CommandKind.CANCEL)

    def _reduce(self, event: MarketEvent) -> Command:
        leaves_lots = self._leaves_lots(event)
        left_lots = leaves_lots - _lots(event.quantity)
        if leaves_lots and left_lots == 0:
            return self._cancel(event)
        # More than there is taken off can't be said: leaving all of it is refused as well.
        left_lots = leaves_lots if left_lots < 0 else left_lots
        return self._of_order(event, CommandKind.REDUCE, qty_lots=left_lots)

    def _replace(self, event: MarketEvent) -> Command:
        order = self._open_orders(event.symbol).get(self._order_id(event))
        price_ticks = order[0] if order and event.price is None else self._ticks(event.price)
        return self._of_order(
            event,
            CommandKind.REPLACE,
            price_ticks=price_ticks,
            qty_lots=order[1] if order and event.quantity is None else _lots(event.quantity),
            aux=self._order_id(event),
        )

    def _clear(self, event: MarketEvent) -> Command:
        return Command(
            kind=CommandKind.MASS_CANCEL,
            session=_ADMIN,
            instrument=self._instruments[event.symbol],
            aux=MassCancelScope.INSTRUMENT,
        )

    def _of_order(self, event: MarketEvent, kind: CommandKind, **rest: int) -> Command:
        order_id = self._order_id(event)
        return Command(
            kind=kind,
            session=_TRADER,
            instrument=self._instruments.get(event.symbol, 0),
            epoch=1,
            account=self._owners.get(order_id, 0) & U64_MAX,
            order_id=order_id,
            **rest,
        )

    # --- numbers and names

    def _order_id(self, event: MarketEvent) -> int:
        assert event.order_id is not None
        if event.order_id >= 1 << _ID_BITS:
            raise ConformanceError(f"order id {event.order_id} does not fit {_ID_BITS} bits")
        return self._instruments.get(event.symbol, 0) << _ID_BITS | event.order_id

    def _ticks(self, price: float | None) -> int:
        return round((price or 0) / self._config.tick_size)

    def _price(self, ticks: int) -> str:
        exact = Fraction(canonical_decimal(self._config.tick_size)) * ticks
        return canonical_decimal(float(exact))

    def _quantity(self, lots: int) -> str:
        return canonical_decimal(float(lots * _LOT), self._config.quantity_decimal_places)

    def _leaves_lots(self, event: MarketEvent) -> int:
        return self._open_orders(event.symbol).get(self._order_id(event), (0, 0))[1]

    def _open_orders(self, symbol: str) -> dict[int, tuple[int, int]]:
        if symbol not in self._instruments:
            return {}
        orders = decode_resting_orders(self._market.orders(self._instruments[symbol]))
        return {order.order_id: (order.price_ticks, order.leaves_lots) for order in orders}

    # --- the market

    def _open(self, symbol: str) -> None:
        if symbol in self._instruments:
            return
        number = self._instruments[symbol] = len(self._instruments) + 1
        name = f"{number}"  # theirs may be longer than ours
        define = instrument_command(
            instrument=number, name=name, price_ticks_max=2**62, qty_lots_max=2**62
        )
        live = Command(kind=CommandKind.MODE, instrument=number, epoch=1, aux=Mode.LIVE)
        for command in (define, live):
            self._send(_changed(command, session=_ADMIN))

    def _send(self, command: Command) -> list[Event]:
        self._refs[command.session] += 1
        command = _changed(command, ref=self._refs[command.session])
        time_ns = self._market.last_ts_ns + 1_000
        return list(decode_events(self._market.apply(encode_command(command), time_ns)))

    def _trade(self, symbol: str, event: Event) -> TradeFill:
        ids = [each & ((1 << _ID_BITS) - 1) for each in (event.order_id, event.contra_id)]
        bought, sold = ids if event.side == Side.BUY else reversed(ids)
        price, quantity = self._price(event.price_ticks), self._quantity(event.qty_lots)
        return TradeFill(symbol, bought, sold, price, quantity)

    def _book(self, symbol: str) -> BookSnapshot:
        sides: dict[int, list[RestingOrder]] = {Side.BUY: [], Side.SELL: []}
        for order in decode_resting_orders(self._market.orders(self._instruments[symbol])):
            sides[order.side].append(
                RestingOrder(
                    order_id=order.order_id & ((1 << _ID_BITS) - 1),
                    price=self._price(order.price_ticks),
                    remaining_quantity=self._quantity(order.leaves_lots),
                    owner=self._owners[order.order_id],
                )
            )
        return BookSnapshot(symbol, tuple(sides[Side.BUY]), tuple(sides[Side.SELL]))


def _lots(quantity: float | None) -> int:
    lots = Fraction(quantity or 0) / _LOT
    if lots.denominator != 1:
        raise ConformanceError(f"{quantity} is no whole number of lots of 2**-40")
    return int(lots)


def _outcome(event: Event, op: str) -> Outcome:
    if event.kind != EventKind.REJECTED:
        return Outcome("applied")
    other = "INVALID_REPLACEMENT" if op == "replace" else "INVALID_ORDER"
    return Outcome("rejected", _CODES.get(event.reason, other), event.reason.name)


def _changed(command: Command, **fields: int) -> Command:
    return Command(**{name: getattr(command, name) for name in command.__struct_fields__} | fields)


if __name__ == "__main__":
    sys.exit(serve_stdio(lambda config: EngineAdapter(config, sys.argv[1])))
