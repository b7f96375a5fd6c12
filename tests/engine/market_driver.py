"""What the tests of the market share: a market with sessions and an instrument, spoken to in
commands and events.
"""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from engine.core_market import RustMarket
from engine.errors import EngineImplementationUnavailable
from engine.limits import RULES
from engine.market import Market, create_market, restore_market
from engine.reference import PythonMarket
from engine.reject import Reason
from engine.types import (
    GATEWAY_KINDS,
    Command,
    CommandKind,
    Event,
    EventFlag,
    EventKind,
    MassCancelFlag,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderState,
    OrderType,
    RestingOrder,
    Role,
    Side,
    TimeInForce,
)
from engine.wire import (
    account_limits_command,
    decode_events,
    decode_order_states,
    decode_resting_orders,
    encode_commands,
    instrument_command,
    instrument_limits_command,
    kill_switch_command,
    mass_cancel_command,
    pack_new_aux,
    price_band_command,
    session_command,
    trading_command,
)

CONTROL, PROXY, SHADOW, READER = 1, 2, 3, 4  # session numbers
BTC, ETH = 1, 2  # instrument numbers
PRICE_MAX, QTY_MAX = 1_000_000, 1_000
SELL, BUY = Side.SELL, Side.BUY


def market_or_skip(implementation: str) -> Market:
    try:
        return create_market(implementation)
    except EngineImplementationUnavailable as error:
        pytest.skip(f"SKIPPED, not passed: {error}")


def restore_or_skip(implementation: str, snapshot: bytes) -> Market:
    market_or_skip(implementation)
    return restore_market(implementation, snapshot)


def bounded_market(
    implementation: str, *, per_book: int | None = None, shard: int | None = None, **bounds: int
) -> Market:
    """A market whose bounds can be reached in a test: those of its constructor."""
    market_or_skip(implementation)
    if per_book is not None:
        bounds["open_orders_per_book_max"] = per_book
    if shard is not None:
        bounds["open_orders_max"] = shard
    return PythonMarket(**bounds) if implementation == "python" else RustMarket(**bounds)


def new(
    order_id: int,
    side: int = BUY,
    price_ticks: int = 100,
    qty_lots: int = 5,
    *,
    session: int = PROXY,
    instrument: int = BTC,
    epoch: int = 1,
    ref: int = 0,
    account: int = 7,
    ord_type: int = OrderType.LIMIT,
    tif: int = TimeInForce.GTC,
    flags: int = 0,
    stp: int = 0,
    aux: int = 0,
) -> Command:
    return Command(
        kind=CommandKind.NEW,
        side=side,
        ord_type=ord_type,
        tif=tif,
        flags=flags,
        stp=stp,
        aux=aux,
        session=session,
        instrument=instrument,
        epoch=epoch,
        ref=ref,
        account=account,
        order_id=order_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
    )


def ioc(order_id: int, side: int, price_ticks: int, qty_lots: int, **rest: int) -> Command:
    return new(order_id, side, price_ticks, qty_lots, tif=TimeInForce.IOC, **rest)


def market_order(order_id: int, side: int, qty_lots: int, **rest: int) -> Command:
    return new(order_id, side, 0, qty_lots, ord_type=OrderType.MARKET, tif=TimeInForce.IOC, **rest)


def fok(order_id: int, side: int, price_ticks: int, qty_lots: int, **rest: int) -> Command:
    return new(order_id, side, price_ticks, qty_lots, tif=TimeInForce.FOK, **rest)


def day(order_id: int, side: int, price_ticks: int, qty_lots: int = 5, **rest: int) -> Command:
    return new(order_id, side, price_ticks, qty_lots, tif=TimeInForce.DAY, **rest)


def gtd(
    order_id: int, side: int, price_ticks: int, expiry_s: int, qty_lots: int = 5, **rest: int
) -> Command:
    aux = pack_new_aux(expiry_s=expiry_s)
    return new(order_id, side, price_ticks, qty_lots, tif=TimeInForce.GTD, aux=aux, **rest)


def post_only(order_id: int, side: int, price_ticks: int, **rest: int) -> Command:
    return new(order_id, side, price_ticks, flags=OrderFlag.POST_ONLY, **rest)


def iceberg(
    order_id: int, side: int, price_ticks: int, qty_lots: int, display_lots: int, **rest: int
) -> Command:
    aux = pack_new_aux(part_lots=display_lots)
    return new(order_id, side, price_ticks, qty_lots, flags=OrderFlag.DISPLAY, aux=aux, **rest)


def at_least(
    order_id: int, side: int, price_ticks: int, qty_lots: int, minimum_lots: int, **rest: int
) -> Command:
    aux = pack_new_aux(part_lots=minimum_lots)
    return new(order_id, side, price_ticks, qty_lots, flags=OrderFlag.MIN_QTY, aux=aux, **rest)


def stop(order_id: int, side: int, stop_ticks: int, qty_lots: int = 5, **rest: int) -> Command:
    return new(order_id, side, 0, qty_lots, ord_type=OrderType.STOP, aux=stop_ticks, **rest)


def stop_limit(
    order_id: int, side: int, stop_ticks: int, price_ticks: int, qty_lots: int = 5, **rest: int
) -> Command:
    ord_type = OrderType.STOP_LIMIT
    return new(order_id, side, price_ticks, qty_lots, ord_type=ord_type, aux=stop_ticks, **rest)


def reduce(order_id: int, leaves_lots: int, **rest: int) -> Command:
    return changed(cancel(order_id, **rest), kind=CommandKind.REDUCE, qty_lots=leaves_lots)


def replace(
    order_id: int, price_ticks: int, qty_lots: int, new_id: int | None = None, **rest: int
) -> Command:
    return changed(
        cancel(order_id, **rest),
        kind=CommandKind.REPLACE,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        aux=order_id if new_id is None else new_id,
    )


def mass_cancel(
    scope: int = MassCancelScope.ACCOUNT,
    *,
    instrument: int = BTC,
    epoch: int = 1,
    account: int = 7,
    side: int = 0,
    session: int = PROXY,
) -> Command:
    command = mass_cancel_command(
        scope=scope,
        instrument=instrument,
        epoch=epoch,
        account=account if scope == MassCancelScope.ACCOUNT else 0,
        side=side,
    )
    return changed(command, session=session)


def mass_cancel_everywhere(
    scope: int = MassCancelScope.ACCOUNT, *, account: int = 7, side: int = 0, session: int = PROXY
) -> Command:
    command = mass_cancel_command(
        scope=scope,
        account=account if scope == MassCancelScope.ACCOUNT else 0,
        side=side,
        flags=MassCancelFlag.EVERY_INSTRUMENT,
    )
    return changed(command, session=session)


def cancel(
    order_id: int,
    *,
    session: int = PROXY,
    instrument: int = BTC,
    epoch: int = 1,
    ref: int = 0,
    account: int = 7,
) -> Command:
    return Command(
        kind=CommandKind.CANCEL,
        session=session,
        instrument=instrument,
        epoch=epoch,
        ref=ref,
        account=account,
        order_id=order_id,
    )


def set_mode(mode: int, epoch: int, *, instrument: int = BTC, session: int = CONTROL) -> Command:
    return Command(
        kind=CommandKind.MODE, session=session, instrument=instrument, epoch=epoch, aux=mode
    )


def clear(*, instrument: int = BTC, session: int = SHADOW) -> Command:
    return Command(kind=CommandKind.CLEAR, session=session, instrument=instrument)


def define(
    instrument: int,
    name: str,
    *,
    price_ticks_max: int = PRICE_MAX,
    qty_lots_max: int = QTY_MAX,
    session: int = CONTROL,
) -> Command:
    command = instrument_command(
        instrument=instrument,
        name=name,
        price_ticks_max=price_ticks_max,
        qty_lots_max=qty_lots_max,
    )
    return changed(command, session=session)


def limit_instrument(instrument: int = BTC, *, session: int = CONTROL, **limits: int) -> Command:
    wide = {
        "tick_ticks": 1,
        "lot_lots": 1,
        "qty_lots_max": QTY_MAX,
        "notional_max": 0,
        "day_end_s": 0,
    }
    command = instrument_limits_command(instrument=instrument, **wide | limits)
    return changed(command, session=session)


def price_band(
    lowest: int, highest: int, *, instrument: int = BTC, session: int = CONTROL
) -> Command:
    command = price_band_command(
        instrument=instrument, price_ticks_min=lowest, price_ticks_max=highest
    )
    return changed(command, session=session)


def halt(*, halted: bool = True, instrument: int = BTC, session: int = CONTROL) -> Command:
    return changed(trading_command(instrument=instrument, halted=halted), session=session)


def limit_account(account: int = 7, *, session: int = CONTROL, **limits: int) -> Command:
    wide = {"open_orders_max": 0, "open_qty_max": 0, "rate_max": 0, "group": 0}
    return changed(account_limits_command(account=account, **wide | limits), session=session)


def kill(account: int = 7, *, killed: bool = True, session: int = CONTROL) -> Command:
    return changed(kill_switch_command(account=account, killed=killed), session=session)


TIME_PASSES = Command(kind=CommandKind.TIME)


def session_options(session: int, options: int) -> Command:
    return Command(kind=CommandKind.SESSION_OPTIONS, session=session, aux=options)


def disconnected(session: int) -> Command:
    return Command(kind=CommandKind.DISCONNECTED, session=session)


def changed(command: Command, **fields: int) -> Command:
    return Command(**{name: getattr(command, name) for name in command.__struct_fields__} | fields)


class Driver:
    """Sends commands with the next reference of their session, unless they bring one."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.refs: dict[int, int] = {}

    def batch(
        self, commands: Sequence[Command], *, at_s: int | None = None, rules: int = RULES
    ) -> list[list[Event]]:
        """The events of each command; a moment after the last one, or at a second since 1970."""
        data = encode_commands(self.referenced(command, rules) for command in commands)
        first_seq = self.market.last_seq + 1
        answers: list[list[Event]] = [[] for _ in commands]
        ts_ns = self.market.last_ts_ns + 1_000 if at_s is None else at_s * 10**9
        for event in decode_events(self.market.apply(data, ts_ns, rules=rules)):
            answers[event.seq - first_seq].append(event)
        self.market.check()
        return answers

    def send(self, command: Command, *, at_s: int | None = None, rules: int = RULES) -> list[Event]:
        return self.batch([command], at_s=at_s, rules=rules)[0]

    def told(self, command: Command, *, at_s: int | None = None) -> list[str]:
        """Its events in short: see `brief`."""
        return [brief(event) for event in self.send(command, at_s=at_s)]

    def reason(self, command: Command, *, at_s: int | None = None, rules: int = RULES) -> Reason:
        """Why it was rejected; NONE if it was not."""
        event = self.send(command, at_s=at_s, rules=rules)[0]
        return event.reason if event.kind is EventKind.REJECTED else Reason.NONE

    def referenced(self, command: Command, rules: int = RULES) -> Command:
        is_gateways = command.kind in GATEWAY_KINDS and rules > 1
        if command.ref or is_gateways or command.kind == CommandKind.SESSION:
            return command
        self.refs[command.session] = self.refs.get(command.session, 0) + 1
        return changed(command, ref=self.refs[command.session])

    def orders(self, instrument: int = BTC) -> list[RestingOrder]:
        return list(decode_resting_orders(self.market.orders(instrument)))

    def ids(self, instrument: int = BTC) -> list[int]:
        return [order.order_id for order in self.orders(instrument)]

    def stops(self, instrument: int = BTC) -> list[OrderState]:
        return list(decode_order_states(self.market.stops(instrument)))

    def stop_ids(self, instrument: int = BTC) -> list[int]:
        return [stop.order_id for stop in self.stops(instrument)]

    def fills(self, command: Command) -> list[tuple[int, int, int]]:
        """(maker, price, quantity) of each fill of a new order."""
        return [
            (event.contra_id, event.price_ticks, event.qty_lots)
            for event in self.send(command)
            if event.kind is EventKind.FILL
        ]


def brief(event: Event) -> str:
    """For comparing many events at a glance:

    "fill 2x1 5@100 0/3" is taker x maker, quantity@price, what is left of the taker / of the maker.
    "canceled 1 5 SELF_TRADE", "reduced 1 2 left 3": the order and the quantity that it lost.
    """
    name = event.kind.name.lower()
    if event.kind in (EventKind.FILL, EventKind.PREVENTED):
        return (
            f"{name} {event.order_id}x{event.contra_id} {event.qty_lots}@{event.price_ticks} "
            f"{event.leaves_lots}/{event.contra_leaves_lots}"
        )
    if event.kind is EventKind.CANCELED:
        return f"{name} {event.order_id} {event.qty_lots} {event.reason.name}"
    if event.kind is EventKind.REJECTED:
        return f"{name} {event.reason.name}"
    if event.kind is EventKind.REDUCED:
        return f"{name} {event.order_id} {event.qty_lots} left {event.leaves_lots}"
    if event.kind is EventKind.REPLACED:
        return f"{name} {event.contra_id} by {event.order_id}"
    if event.kind in (EventKind.MASS_CANCELED, EventKind.TIME):
        return f"{name} {event.qty_lots} left {event.leaves_lots}"
    return f"{name} {event.order_id}"


def is_live(event: Event) -> bool:
    return bool(event.flags & EventFlag.LIVE)


def opened(market: Market) -> Driver:
    """One session of each role; BTC-USD live at epoch 1, ETH-USD closed."""
    driver = Driver(market)
    driver.batch(
        [
            session_command(session=CONTROL, name="control", role=Role.ADMIN),
            session_command(session=PROXY, name="proxy-0", role=Role.TRADE),
            session_command(session=SHADOW, name="shadow-feed", role=Role.SHADOW),
            session_command(session=READER, name="reader", role=Role.READ_ONLY),
            define(BTC, "BTC-USD"),
            define(ETH, "ETH-USD"),
            set_mode(Mode.LIVE, 1),
        ]
    )
    return driver
