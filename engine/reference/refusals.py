"""Whether a command may be applied: what has to be known of the market to say so.

A command is checked completely before anything changes. Each function gives the first reason that
holds, in the numeric order of `engine.reject`; `Reason.NONE` is false.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine import limits, rules
from engine.reference.instrument import Instrument
from engine.reference.order import Order
from engine.reference.state import State
from engine.reject import Reason
from engine.rules import when
from engine.types import (
    Command,
    CommandKind,
    MassCancelFlag,
    Mode,
    OrderFlag,
    Role,
    Side,
    TimeInForce,
)
from engine.wire import instrument_name, session_name, unpack_new_aux


def refusal(state: State, command: Command, version: int) -> Reason:
    """Of any command, under these rules."""
    if not rules.is_known(command.kind, version):
        return Reason.UNKNOWN_KIND
    if not rules.well_formed(command, version):
        return Reason.BAD_FIELD
    if rules.is_gateways(command.kind, version):
        return _gateway_refusal(state, command)
    session = state.sessions.get(command.session)
    if session is None:
        return Reason.NOT_PERMITTED
    if command.ref <= session.last_ref:
        return Reason.REF_NOT_INCREASING
    if not rules.is_permitted(command, session.role):
        return Reason.NOT_PERMITTED
    if command.kind in (CommandKind.ACCOUNT_LIMITS, CommandKind.KILL_SWITCH):
        return _account_refusal(state, command)
    if command.kind == CommandKind.INSTRUMENT:
        return _definition_refusal(state, command)
    if command.kind == CommandKind.MASS_CANCEL and command.flags & MassCancelFlag.EVERY_INSTRUMENT:
        return Reason.NONE
    instrument = state.instruments.get(command.instrument)
    if instrument is None:
        return Reason.UNKNOWN_INSTRUMENT
    if command.kind in _ADMINISTRATION:
        return _ADMINISTRATION[command.kind](command, instrument)
    return rules.entry_refusal(
        command, session.role, instrument.mode, instrument.epoch
    ) or _order_refusal(state, command, instrument, version)


# --- the gateway's own


def _gateway_refusal(state: State, command: Command) -> Reason:
    if command.kind == CommandKind.TIME:
        return Reason.NONE
    session = state.sessions.get(command.session)
    if command.kind == CommandKind.SESSION:
        name = session_name(command)
        is_taken = any(each.name == name for each in state.sessions.values())
        return when(session is not None or is_taken, Reason.NOT_PERMITTED)
    if session is None:
        return Reason.NOT_PERMITTED
    wants_options = command.kind == CommandKind.SESSION_OPTIONS and command.aux != 0
    return when(wants_options and session.role is not Role.TRADE, Reason.NOT_PERMITTED)


# --- administration


def _definition_refusal(state: State, command: Command) -> Reason:
    """One number, one name, for good; what may change are the limits."""
    name = instrument_name(command)
    known = state.instruments.get(command.instrument)
    is_other = known is not None and known.name != name
    is_elsewhere = state.numbers.get(name, command.instrument) != command.instrument
    return (
        when(is_other or is_elsewhere, Reason.INSTRUMENT_MISMATCH)
        or when(command.price_ticks <= 0, Reason.BAD_PRICE)
        or when(command.qty_lots == 0, Reason.BAD_QUANTITY)
        or when(
            known is None and len(state.instruments) >= limits.INSTRUMENTS_MAX, Reason.BOOK_FULL
        )
    )


def _account_refusal(state: State, command: Command) -> Reason:
    """An account that gets settings of its own needs room for them."""
    if command.kind == CommandKind.KILL_SWITCH:
        sets_something = command.aux != 0
    else:
        sets_something = any((command.order_id, command.qty_lots, command.price_ticks, command.aux))
    needs_room = sets_something and not state.accounts.is_configured(command.account)
    is_full = state.accounts.configured >= state.bounds.accounts_max
    return when(needs_room and is_full, Reason.ACCOUNTS_FULL)


def _mode_refusal(command: Command, instrument: Instrument) -> Reason:
    return rules.mode_refusal(command, instrument.mode, instrument.epoch)


def _clear_refusal(command: Command, instrument: Instrument) -> Reason:
    return when(instrument.mode is Mode.LIVE, Reason.INSTRUMENT_LIVE)


def _limits_refusal(command: Command, instrument: Instrument) -> Reason:
    return when(command.qty_lots == 0, Reason.BAD_QUANTITY)


def _band_refusal(command: Command, instrument: Instrument) -> Reason:
    return when(not 1 <= command.aux <= command.price_ticks, Reason.BAD_PRICE)


def _trading_refusal(command: Command, instrument: Instrument) -> Reason:
    return Reason.NONE


_ADMINISTRATION: Final[dict[int, Callable[[Command, Instrument], Reason]]] = {
    CommandKind.MODE: _mode_refusal,
    CommandKind.CLEAR: _clear_refusal,
    CommandKind.INSTRUMENT_LIMITS: _limits_refusal,
    CommandKind.PRICE_BAND: _band_refusal,
    CommandKind.TRADING: _trading_refusal,
}


# --- orders


def _order_refusal(state: State, command: Command, instrument: Instrument, version: int) -> Reason:
    """In an instrument that this session may enter."""
    if command.kind == CommandKind.MASS_CANCEL:
        return Reason.NONE
    if command.kind == CommandKind.NEW:
        return _new_refusal(state, command, instrument, version)
    reason = Reason.NONE
    if command.kind == CommandKind.REPLACE:
        is_taken = command.aux != command.order_id and command.aux in state.orders
        reason = _trader_refusal(state, command, instrument) or when(
            is_taken, Reason.DUPLICATE_ORDER_ID
        )
        if reason is not Reason.NONE:
            return reason
    order = state.orders.get(command.order_id)
    if order is None or order.instrument != command.instrument:
        return Reason.UNKNOWN_ORDER
    if order.account != command.account:
        return Reason.NOT_OWNER
    if command.kind == CommandKind.REPLACE:
        return _replacement_refusal(state, command, instrument, order)
    if command.kind == CommandKind.REDUCE:
        return rules.reduction_refusal(order.leaves_lots, command.qty_lots, instrument.limits)
    return Reason.NONE


def _trader_refusal(state: State, command: Command, instrument: Instrument) -> Reason:
    """Orders that want to trade must be let; what lessens an account's orders always is."""
    return when(instrument.is_halted, Reason.INSTRUMENT_HALTED) or when(
        state.accounts.settings(command.account).killed, Reason.ACCOUNT_KILLED
    )


def _new_refusal(state: State, command: Command, instrument: Instrument, version: int) -> Reason:
    now = state.accounts.open(command.account)
    return (
        _trader_refusal(state, command, instrument)
        or when(command.order_id in state.orders, Reason.DUPLICATE_ORDER_ID)
        or rules.number_refusal(
            command.ord_type, command.price_ticks, command.qty_lots, instrument.limits
        )
        or rules.stop_price_refusal(command, instrument.limits)
        or rules.display_refusal(command, instrument.limits)
        or _room_refusal(state, command, instrument, version)
        or (
            _exposure_refusal(state, command, now.orders + 1, now.lots + command.qty_lots)
            if command.tif in rules.RESTING
            else Reason.NONE
        )
        or _rate_refusal(state, command)
        or rules.minimum_refusal(command, instrument.limits)
        or _expiry_refusal(state, command)
        or when(
            bool(command.flags & OrderFlag.POST_ONLY)
            and instrument.book.crosses(Side(command.side), command.price_ticks),
            Reason.WOULD_TRADE,
        )
    )


def _replacement_refusal(
    state: State, command: Command, instrument: Instrument, order: Order
) -> Reason:
    """It takes the room of the order before it."""
    now = state.accounts.open(command.account)
    lots = now.lots - order.leaves_lots + command.qty_lots
    needs_level = order.ord_type in rules.PRICED and _needs_level(
        state, instrument, order.side, command.price_ticks
    )
    return (
        rules.number_refusal(
            order.ord_type, command.price_ticks, command.qty_lots, instrument.limits
        )
        or (
            rules.parts_refusal(order.display_lots, command.qty_lots)
            if order.display_lots
            else Reason.NONE
        )
        or when(needs_level, Reason.LEVELS_FULL)
        or _exposure_refusal(state, command, now.orders, lots)
        or _rate_refusal(state, command)
        or when(
            bool(order.flags & OrderFlag.POST_ONLY)
            and instrument.book.crosses(order.side, command.price_ticks),
            Reason.WOULD_TRADE,
        )
    )


def _room_refusal(state: State, command: Command, instrument: Instrument, version: int) -> Reason:
    """Whether the book has room for a new order, if it may stay open."""
    if command.tif not in rules.RESTING:
        return Reason.NONE
    side, is_stop = Side(command.side), command.ord_type in rules.STOPS
    full = (
        instrument.open_orders >= state.bounds.open_orders_per_book_max
        or len(state.orders) >= state.bounds.open_orders_max
    )
    # What meets another order either goes, or removes one and so makes room for itself.
    makes_room = not is_stop and instrument.book.crosses(side, command.price_ticks)
    is_iceberg = not is_stop and bool(command.flags & OrderFlag.DISPLAY)
    icebergs_full = is_iceberg and instrument.book.icebergs >= state.bounds.icebergs_per_book_max
    needs_level = (
        version > 1
        and command.ord_type in rules.PRICED
        and _needs_level(state, instrument, side, command.price_ticks)
    )
    stops_full = is_stop and len(instrument.stops) >= state.bounds.stops_per_book_max
    return (
        when((full and not makes_room) or icebergs_full, Reason.BOOK_FULL)
        or when(needs_level, Reason.LEVELS_FULL)
        or when(stops_full, Reason.STOPS_FULL)
    )


def _needs_level(state: State, instrument: Instrument, side: Side, price_ticks: int) -> bool:
    """Whether an order at this price would be one price too many."""
    is_full = instrument.book.levels(side) >= state.bounds.levels_per_side_max
    return is_full and not instrument.book.has_level(side, price_ticks)


def _exposure_refusal(state: State, command: Command, orders: int, lots: int) -> Reason:
    """Whether its account may have so much open."""
    settings = state.accounts.settings(command.account)
    return when(0 < settings.open_orders_max < orders, Reason.ACCOUNT_OPEN_ORDERS) or when(
        0 < settings.open_qty_max < lots, Reason.ACCOUNT_OPEN_QUANTITY
    )


def _rate_refusal(state: State, command: Command) -> Reason:
    rate_max = state.accounts.settings(command.account).rate_max
    sent = state.accounts.orders_in(command.account, state.now_s)
    return when(0 < rate_max <= sent, Reason.ACCOUNT_RATE)


def _expiry_refusal(state: State, command: Command) -> Reason:
    if command.tif != TimeInForce.GTD:
        return Reason.NONE
    _, expiry_s = unpack_new_aux(command.aux)
    return when(expiry_s <= state.now_s, Reason.ALREADY_EXPIRED)
