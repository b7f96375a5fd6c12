"""What a command does that nothing speaks against: each function changes the state and tells it in
events, in their order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec

from engine.reference import events
from engine.reference.instrument import Instrument
from engine.reference.matching import Execution
from engine.reference.order import Order
from engine.reference.state import Session, State
from engine.reject import Reason
from engine.rules import OrderLimits
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    MassCancelFlag,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderType,
    Role,
    SelfTradePrevention,
    Side,
    TimeInForce,
)
from engine.wire import instrument_name, session_name, unpack_new_aux


def perform(state: State, command: Command) -> list[Event]:
    """For commands that `engine.reference.refusals` has no reason against."""
    return _PERFORM[command.kind](state, command)


# --- one order


def _new(state: State, command: Command) -> list[Event]:
    instrument = state.instruments[command.instrument]
    order = _ordered(state, command, instrument)
    state.accounts.count_order(order.account, state.now_s)
    execution = Execution(state, instrument)
    execution.events.append(events.accepted(order, command.aux))
    execution.enter(order, _minimum_lots(command))
    return execution.events


def _ordered(state: State, command: Command, instrument: Instrument) -> Order:
    is_stop = command.ord_type in (OrderType.STOP, OrderType.STOP_LIMIT)
    part_lots, given_expiry_s = (0, 0) if is_stop else unpack_new_aux(command.aux)
    is_day = command.tif == TimeInForce.DAY
    return Order(
        instrument=command.instrument,
        order_id=command.order_id,
        account=command.account,
        side=Side(command.side),
        price_ticks=command.price_ticks,
        qty_lots=command.qty_lots,
        leaves_lots=command.qty_lots,
        session=command.session,
        ord_type=OrderType(command.ord_type),
        tif=TimeInForce(command.tif),
        flags=command.flags & ~OrderFlag.MIN_QTY,  # done with once the order has entered
        stp=SelfTradePrevention(command.stp),
        stop_price_ticks=command.aux if is_stop else 0,
        expiry_s=instrument.day_ends_s(state.now_s) if is_day else given_expiry_s,
        display_lots=part_lots if command.flags & OrderFlag.DISPLAY else 0,
    )


def _minimum_lots(command: Command) -> int:
    """What must trade at once, or nothing does."""
    if command.tif == TimeInForce.FOK:
        return command.qty_lots
    return unpack_new_aux(command.aux)[0] if command.flags & OrderFlag.MIN_QTY else 0


def _cancel(state: State, command: Command) -> list[Event]:
    order = state.orders[command.order_id]
    state.orders.remove(order)
    return [events.canceled(order, Reason.BY_REQUEST)]


def _reduce(state: State, command: Command) -> list[Event]:
    order = state.orders[command.order_id]
    lots = order.leaves_lots - command.qty_lots
    state.orders.reduce(order, command.qty_lots)
    return [events.reduced(order, lots)]


def _replace(state: State, command: Command) -> list[Event]:
    """The order goes, and enters again as another."""
    order = state.orders[command.order_id]
    state.orders.remove(order)
    state.accounts.count_order(order.account, state.now_s)
    old_leaves_lots = order.leaves_lots
    order.order_id = command.aux
    order.price_ticks = command.price_ticks
    order.qty_lots = order.leaves_lots = command.qty_lots
    order.session = command.session
    execution = Execution(state, state.instruments[command.instrument])
    execution.events.append(
        events.replaced(order, old_id=command.order_id, old_leaves_lots=old_leaves_lots)
    )
    execution.enter(order)
    return execution.events


# --- many orders


def _mass_cancel(state: State, command: Command) -> list[Event]:
    if command.flags & MassCancelFlag.EVERY_INSTRUMENT:
        is_shadow = state.sessions[command.session].role is Role.SHADOW
        instruments = _in_mode(state, Mode.SHADOW if is_shadow else Mode.LIVE)
    else:
        instruments = iter([state.instruments[command.instrument]])
    orders = (
        order
        for instrument in instruments
        for order in instrument.orders()
        if command.side in (0, order.side) and _in_scope(command, order)
    )
    told, left = _cancel_some(state, orders, Reason.MASS_CANCEL)
    return [*told, _mass_canceled(command, len(told), left)]


def _in_scope(command: Command, order: Order) -> bool:
    if command.aux == MassCancelScope.ACCOUNT:
        return order.account == command.account
    return command.aux == MassCancelScope.INSTRUMENT or order.session == command.session


def _disconnected(state: State, command: Command) -> list[Event]:
    """What a session that is gone has entered and left open, where it is live."""
    orders = (
        order
        for instrument in _in_mode(state, Mode.LIVE)
        for order in instrument.orders()
        if order.session == command.session
    )
    told, left = _cancel_some(state, orders, Reason.DISCONNECTED)
    return [*told, _mass_canceled(command, len(told), left)]


def _time(state: State, command: Command) -> list[Event]:
    """Orders whose time has come expire, in instruments that are not closed."""
    orders = (
        state.orders[order_id]
        for instrument in state.ascending()
        if instrument.mode is not Mode.CLOSED
        for order_id in instrument.due(state.now_s)
    )
    told, left = _cancel_some(state, orders, Reason.EXPIRED)
    return [*told, Event(kind=EventKind.TIME, qty_lots=len(told), leaves_lots=left)]


def _in_mode(state: State, mode: Mode) -> Iterator[Instrument]:
    return (instrument for instrument in state.ascending() if instrument.mode is mode)


def _cancel_some(state: State, orders: Iterable[Order], reason: Reason) -> tuple[list[Event], int]:
    """Cancels the first of them, as many as one command may; and how many it leaves."""
    found = list(orders)
    now = found[: state.bounds.mass_cancel_max]
    for order in now:
        state.orders.remove(order)
    return [events.canceled(order, reason) for order in now], len(found) - len(now)


def _mass_canceled(command: Command, canceled: int, left: int) -> Event:
    return Event(
        kind=EventKind.MASS_CANCELED,
        instrument=command.instrument,
        side=command.side,
        contra_id=command.account,
        qty_lots=canceled,
        leaves_lots=left,
    )


# --- instruments


def _define_instrument(state: State, command: Command) -> list[Event]:
    """Its limits hold for orders to come; what is open already stays."""
    instrument = state.instruments.get(command.instrument)
    highest_ticks, qty_lots_max = command.price_ticks, command.qty_lots
    if instrument is None:
        limits = OrderLimits(price_ticks_max=highest_ticks, qty_lots_max=qty_lots_max)
        state.define_instrument(command.instrument, instrument_name(command), limits)
    else:
        instrument.limits = msgspec.structs.replace(
            instrument.limits,
            price_ticks_max=highest_ticks,
            price_ticks_min=min(instrument.limits.price_ticks_min, highest_ticks),
            qty_lots_max=qty_lots_max,
        )
    return [_echo(EventKind.INSTRUMENT, command)]  # account and order id: the name


def _limit_instrument(state: State, command: Command) -> list[Event]:
    instrument = state.instruments[command.instrument]
    instrument.limits = msgspec.structs.replace(
        instrument.limits,
        tick_ticks=command.account,
        lot_lots=command.order_id,
        notional_max=command.price_ticks,
        qty_lots_max=command.qty_lots,
    )
    instrument.day_end_s = command.aux
    return [_echo(EventKind.INSTRUMENT_LIMITS, command)]


def _set_price_band(state: State, command: Command) -> list[Event]:
    instrument = state.instruments[command.instrument]
    instrument.limits = msgspec.structs.replace(
        instrument.limits, price_ticks_min=command.aux, price_ticks_max=command.price_ticks
    )
    return [_echo(EventKind.PRICE_BAND, command)]


def _halt_or_open(state: State, command: Command) -> list[Event]:
    state.instruments[command.instrument].is_halted = bool(command.aux)
    return [Event(kind=EventKind.TRADING, instrument=command.instrument, contra_id=command.aux)]


def _change_mode(state: State, command: Command) -> list[Event]:
    instrument = state.instruments[command.instrument]
    instrument.mode = Mode(command.aux)
    instrument.epoch = command.epoch
    return [
        Event(
            kind=EventKind.MODE,
            instrument=command.instrument,
            contra_id=command.aux,
            leaves_lots=command.epoch,
        )
    ]


def _clear(state: State, command: Command) -> list[Event]:
    """It begins again: without orders, and as if it had never traded."""
    instrument = state.instruments[command.instrument]
    orders = list(instrument.orders())
    for order in orders:
        state.orders.remove(order)
    instrument.last_price_ticks = 0
    return [Event(kind=EventKind.CLEARED, instrument=command.instrument, qty_lots=len(orders))]


# --- accounts and sessions


def _limit_account(state: State, command: Command) -> list[Event]:
    state.accounts.limit(
        command.account,
        open_orders_max=command.order_id,
        open_qty_max=command.qty_lots,
        rate_max=command.price_ticks,
        group=command.aux,
    )
    return [_echo(EventKind.ACCOUNT_LIMITS, command)]


def _switch_account(state: State, command: Command) -> list[Event]:
    state.accounts.kill(command.account, killed=bool(command.aux))
    return [_echo(EventKind.KILL_SWITCH, command)]


def _define_session(state: State, command: Command) -> list[Event]:
    state.sessions[command.session] = Session(name=session_name(command), role=Role(command.aux))
    # account, order id, price and quantity: the name
    return [_echo(EventKind.SESSION, command, contra_leaves_lots=command.session)]


def _set_options(state: State, command: Command) -> list[Event]:
    state.sessions[command.session].options = command.aux
    return [
        Event(
            kind=EventKind.SESSION_OPTIONS,
            contra_id=command.aux,
            contra_leaves_lots=command.session,
        )
    ]


def _echo(kind: EventKind, command: Command, contra_leaves_lots: int = 0) -> Event:
    """What was set is what the command says."""
    return Event(
        kind=kind,
        instrument=command.instrument,
        order_id=command.order_id,
        contra_id=command.account,
        price_ticks=command.price_ticks,
        qty_lots=command.qty_lots,
        leaves_lots=command.aux,
        contra_leaves_lots=contra_leaves_lots,
    )


_PERFORM: Final[dict[int, Callable[[State, Command], list[Event]]]] = {
    CommandKind.NEW: _new,
    CommandKind.CANCEL: _cancel,
    CommandKind.REDUCE: _reduce,
    CommandKind.REPLACE: _replace,
    CommandKind.MASS_CANCEL: _mass_cancel,
    CommandKind.INSTRUMENT: _define_instrument,
    CommandKind.MODE: _change_mode,
    CommandKind.CLEAR: _clear,
    CommandKind.SESSION: _define_session,
    CommandKind.INSTRUMENT_LIMITS: _limit_instrument,
    CommandKind.PRICE_BAND: _set_price_band,
    CommandKind.TRADING: _halt_or_open,
    CommandKind.ACCOUNT_LIMITS: _limit_account,
    CommandKind.KILL_SWITCH: _switch_account,
    CommandKind.TIME: _time,
    CommandKind.SESSION_OPTIONS: _set_options,
    CommandKind.DISCONNECTED: _disconnected,
}
