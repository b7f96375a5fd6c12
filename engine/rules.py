"""What a command must look like, and who may send it when: the parts of a check that need no book.

Pure functions on plain values. Each returns the first reason that holds, in the numeric order of
`engine.reject`; `Reason.NONE` is false, so that they can be joined with `or`.

Rules have versions, so that a journal replays to what it was when it was written. Version 1 is the
previous release's: limit and market orders, GTC or IOC, and cancels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from engine.limits import DAY_S, ICEBERG_PARTS_MAX, RULES, RULES_OLDEST
from engine.reject import Reason
from engine.types import (
    GATEWAY_KINDS,
    Command,
    CommandKind,
    MassCancelFlag,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderType,
    Role,
    SelfTradePrevention,
    SessionOption,
    Side,
    TimeInForce,
)
from engine.wire import COMMAND_DTYPE, instrument_name, session_name, unpack_new_aux

STOPS: Final = frozenset({OrderType.STOP, OrderType.STOP_LIMIT})
PRICED: Final = frozenset({OrderType.LIMIT, OrderType.STOP_LIMIT})
RESTING: Final = frozenset({TimeInForce.DAY, TimeInForce.GTC, TimeInForce.GTD})

_SIDES: Final = frozenset(Side)
_MODES: Final = frozenset(Mode)
_ROLES: Final = frozenset(Role)
_SCOPES: Final = frozenset(MassCancelScope)
_SELF_TRADE_PREVENTIONS: Final = frozenset(SelfTradePrevention)
_OFF_OR_ON: Final = frozenset({0, 1})

_NONE, _POST_ONLY = OrderFlag(0), OrderFlag.POST_ONLY
_DISPLAY, _MIN_QTY = OrderFlag.DISPLAY, OrderFlag.MIN_QTY

# The flags that an order of this type and time in force may have. What is not here is no order.
COMBINATIONS: Final[dict[tuple[int, int], frozenset[int]]] = {
    (OrderType.MARKET, TimeInForce.IOC): frozenset({_NONE, _MIN_QTY}),
    (OrderType.MARKET, TimeInForce.FOK): frozenset({_NONE}),
    (OrderType.LIMIT, TimeInForce.IOC): frozenset({_NONE, _MIN_QTY}),
    (OrderType.LIMIT, TimeInForce.FOK): frozenset({_NONE}),
    **{
        (OrderType.LIMIT, tif): frozenset(
            {_NONE, _MIN_QTY, _POST_ONLY, _DISPLAY, _POST_ONLY | _DISPLAY}
        )
        for tif in RESTING
    },
    **{
        (ord_type, tif): frozenset({_NONE})
        for ord_type in STOPS
        for tif in (TimeInForce.DAY, TimeInForce.GTC)
    },
}
_COMBINATIONS_1: Final = frozenset(
    {
        (OrderType.LIMIT, TimeInForce.GTC),
        (OrderType.LIMIT, TimeInForce.IOC),
        (OrderType.MARKET, TimeInForce.IOC),
    }
)

# The fields that a command of each kind gives a meaning to, beside `kind`, `session` and `ref`. The
# others must be 0.
_FIELDS_1: Final[dict[int, str]] = {
    CommandKind.NEW: "side ord_type tif instrument epoch account order_id price_ticks qty_lots",
    CommandKind.CANCEL: "instrument epoch account order_id",
    CommandKind.INSTRUMENT: "instrument account order_id price_ticks qty_lots",
    CommandKind.MODE: "instrument epoch aux",
    CommandKind.CLEAR: "instrument epoch",
    CommandKind.SESSION: "account order_id price_ticks qty_lots aux",
}
_FIELDS_2: Final[dict[int, str]] = {
    **_FIELDS_1,
    CommandKind.NEW: f"{_FIELDS_1[CommandKind.NEW]} flags stp aux",
    CommandKind.REDUCE: "instrument epoch account order_id qty_lots",
    CommandKind.REPLACE: "instrument epoch account order_id price_ticks qty_lots aux",
    CommandKind.MASS_CANCEL: "side flags instrument epoch account aux",
    CommandKind.INSTRUMENT_LIMITS: "instrument account order_id price_ticks qty_lots aux",
    CommandKind.PRICE_BAND: "instrument price_ticks aux",
    CommandKind.TRADING: "instrument aux",
    CommandKind.ACCOUNT_LIMITS: "account order_id price_ticks qty_lots aux",
    CommandKind.KILL_SWITCH: "account aux",
    CommandKind.TIME: "",
    CommandKind.SESSION_OPTIONS: "aux",
    CommandKind.DISCONNECTED: "",
}

NAMES: Final = Command.__struct_fields__
assert COMMAND_DTYPE.names == NAMES

# By version, then by kind.
_FIELDS_OF: Final[dict[int, dict[int, frozenset[str]]]] = {
    version: {kind: frozenset(names.split()) for kind, names in fields.items()}
    for version, fields in {1: _FIELDS_1, 2: _FIELDS_2}.items()
}
_MUST_BE_ZERO: Final = {
    version: {
        kind: tuple(name for name in NAMES if name not in names | {"kind", "session", "ref"})
        for kind, names in fields.items()
    }
    for version, fields in _FIELDS_OF.items()
}
FIELDS: Final = _FIELDS_OF[RULES]
VERSIONS: Final = frozenset(_FIELDS_OF)
assert min(VERSIONS) == RULES_OLDEST

_ENTRY: Final = frozenset(
    {
        CommandKind.NEW,
        CommandKind.CANCEL,
        CommandKind.REDUCE,
        CommandKind.REPLACE,
        CommandKind.MASS_CANCEL,
    }
)

# Which kinds a session of each role may send; the gateway's own are asked for by nobody.
PERMITTED: Final[dict[Role, frozenset[int]]] = {
    Role.TRADE: _ENTRY,
    Role.SHADOW: _ENTRY | {CommandKind.CLEAR},
    Role.ADMIN: frozenset(
        {
            CommandKind.MASS_CANCEL,
            CommandKind.INSTRUMENT,
            CommandKind.MODE,
            CommandKind.CLEAR,
            CommandKind.INSTRUMENT_LIMITS,
            CommandKind.PRICE_BAND,
            CommandKind.TRADING,
            CommandKind.ACCOUNT_LIMITS,
            CommandKind.KILL_SWITCH,
        }
    ),
    Role.READ_ONLY: frozenset(),
}


class OrderLimits(msgspec.Struct, frozen=True, kw_only=True):
    """What the prices and quantities of an instrument's orders must be."""

    price_ticks_max: int
    qty_lots_max: int
    price_ticks_min: int = 1
    tick_ticks: int = 1
    lot_lots: int = 1
    notional_max: int = 0  # price times quantity; 0: no limit


def when(holds: bool, reason: Reason) -> Reason:
    return reason if holds else Reason.NONE


# --- any command


def is_known(kind: int, version: int) -> bool:
    return kind in _MUST_BE_ZERO[version]


def is_gateways(kind: int, version: int) -> bool:
    """Whether the gateway sends it by itself, without a reference."""
    return is_known(kind, version) and kind in GATEWAY_KINDS


def concerns_instrument(command: Command, version: int) -> bool:
    """Whether the command's own event can be one of a live instrument. What others are about is no
    instrument, though a number may stand in that field.
    """
    if not is_known(command.kind, version):
        return True
    if command.kind == CommandKind.MASS_CANCEL:
        return not command.flags & MassCancelFlag.EVERY_INSTRUMENT
    return command.kind not in GATEWAY_KINDS | {CommandKind.ACCOUNT_LIMITS, CommandKind.KILL_SWITCH}


def well_formed(command: Command, version: int) -> bool:
    """Whether each field is 0 where it means nothing, and has a meaning where it has one. For
    known kinds only.
    """
    if any(getattr(command, name) for name in _MUST_BE_ZERO[version][command.kind]):
        return False
    if command.kind == CommandKind.NEW and version == 1:
        return command.side in _SIDES and (command.ord_type, command.tif) in _COMBINATIONS_1
    means_something = _MEANINGS.get(command.kind)
    return means_something is None or means_something(command)


def _is_new(command: Command) -> bool:
    flags = COMBINATIONS.get((command.ord_type, command.tif), frozenset())
    if command.flags not in flags or command.side not in _SIDES:
        return False
    if command.stp not in _SELF_TRADE_PREVENTIONS:
        return False
    if command.ord_type in STOPS:
        return True  # every `aux` is a stop price, if a bad one
    part_lots, expiry_s = unpack_new_aux(command.aux)
    has_part = command.flags & (OrderFlag.DISPLAY | OrderFlag.MIN_QTY)
    return (has_part or not part_lots) and (command.tif == TimeInForce.GTD or not expiry_s)


def _is_mass_cancel(command: Command) -> bool:
    every = command.flags == MassCancelFlag.EVERY_INSTRUMENT
    return (
        (command.side == 0 or command.side in _SIDES)
        and (command.flags == 0 or every)
        and command.aux in _SCOPES
        and (command.account == 0 or command.aux == MassCancelScope.ACCOUNT)
        and (not every or command.instrument == command.epoch == 0)
    )


def _is_instrument_limits(command: Command) -> bool:
    tick_ticks, lot_lots, notional_max = command.account, command.order_id, command.price_ticks
    return tick_ticks >= 1 and lot_lots >= 1 and notional_max >= 0 and command.aux < DAY_S


def _is_session(command: Command) -> bool:
    return command.aux in _ROLES and command.ref == 0 and _is_name(session_name, command)


def _is_name(read: Callable[[Command], str], command: Command) -> bool:
    try:
        name = read(command)
    except UnicodeDecodeError:
        return False
    return name != "" and "\0" not in name


_MEANINGS: Final[dict[int, Callable[[Command], bool]]] = {
    CommandKind.NEW: _is_new,
    CommandKind.MASS_CANCEL: _is_mass_cancel,
    CommandKind.INSTRUMENT: lambda command: _is_name(instrument_name, command),
    CommandKind.MODE: lambda command: command.aux in _MODES,
    CommandKind.SESSION: _is_session,
    CommandKind.INSTRUMENT_LIMITS: _is_instrument_limits,
    CommandKind.TRADING: lambda command: command.aux in _OFF_OR_ON,
    CommandKind.ACCOUNT_LIMITS: lambda command: command.price_ticks >= 0,
    CommandKind.KILL_SWITCH: lambda command: command.aux in _OFF_OR_ON,
    CommandKind.TIME: lambda command: command.session == command.ref == 0,
    CommandKind.SESSION_OPTIONS: lambda command: (
        command.ref == 0 and command.aux in (0, SessionOption.CANCEL_ON_DISCONNECT)
    ),
    CommandKind.DISCONNECTED: lambda command: command.ref == 0,
}


# --- who may send it, where


def is_permitted(command: Command, role: Role) -> bool:
    if command.kind == CommandKind.MASS_CANCEL and command.aux == MassCancelScope.INSTRUMENT:
        return role is Role.ADMIN
    return command.kind in PERMITTED[role]


def entry_refusal(command: Command, role: Role, mode: Mode, epoch: int) -> Reason:
    """Whether a session of this role may touch the orders of an instrument in this mode. Of a mass
    cancel by an administrator no epoch is asked.
    """
    if mode is Mode.CLOSED:
        return Reason.INSTRUMENT_CLOSED
    if role is Role.SHADOW:
        return when(mode is Mode.LIVE, Reason.INSTRUMENT_LIVE)
    if mode is Mode.SHADOW:
        return Reason.INSTRUMENT_IN_SHADOW
    return when(role is not Role.ADMIN and command.epoch != epoch, Reason.STALE_EPOCH)


def mode_refusal(command: Command, mode: Mode, epoch: int) -> Reason:
    """A new epoch may bring any mode. Within an epoch a mode may be repeated, and what is closed
    may open.
    """
    if command.epoch > epoch:
        return Reason.NONE
    if command.epoch == epoch and (command.aux == mode or mode is Mode.CLOSED):
        return Reason.NONE
    return Reason.STALE_EPOCH


# --- numbers


def number_refusal(ord_type: int, price_ticks: int, qty_lots: int, limits: OrderLimits) -> Reason:
    """Price and quantity of an order, new or replaced."""
    if ord_type not in PRICED:
        return (
            when(price_ticks != 0, Reason.BAD_PRICE)
            or when(qty_lots == 0, Reason.BAD_QUANTITY)
            or when(qty_lots > limits.qty_lots_max, Reason.QUANTITY_TOO_LARGE)
            or when(qty_lots % limits.lot_lots != 0, Reason.QUANTITY_OFF_LOT)
        )
    notional = price_ticks * qty_lots
    return (
        when(price_ticks <= 0, Reason.BAD_PRICE)
        or when(price_ticks > limits.price_ticks_max, Reason.PRICE_TOO_HIGH)
        or when(qty_lots == 0, Reason.BAD_QUANTITY)
        or when(qty_lots > limits.qty_lots_max, Reason.QUANTITY_TOO_LARGE)
        or when(price_ticks < limits.price_ticks_min, Reason.PRICE_TOO_LOW)
        or when(price_ticks % limits.tick_ticks != 0, Reason.PRICE_OFF_TICK)
        or when(qty_lots % limits.lot_lots != 0, Reason.QUANTITY_OFF_LOT)
        or when(0 < limits.notional_max < notional, Reason.NOTIONAL_TOO_LARGE)
    )


def stop_price_refusal(command: Command, limits: OrderLimits) -> Reason:
    """Of a new order of any type."""
    if command.ord_type not in STOPS:
        return Reason.NONE
    in_band = limits.price_ticks_min <= command.aux <= limits.price_ticks_max
    return when(not in_band or command.aux % limits.tick_ticks != 0, Reason.BAD_STOP_PRICE)


def display_refusal(command: Command, limits: OrderLimits) -> Reason:
    """Of a new order, iceberg or not."""
    if not command.flags & OrderFlag.DISPLAY:
        return Reason.NONE
    display_lots, _ = unpack_new_aux(command.aux)
    shows_a_part = 0 < display_lots < command.qty_lots and display_lots % limits.lot_lots == 0
    return when(not shows_a_part, Reason.BAD_DISPLAY_QUANTITY) or parts_refusal(
        display_lots, command.qty_lots
    )


def parts_refusal(display_lots: int, qty_lots: int) -> Reason:
    """Of an iceberg, new or replaced: in how many parts it would have to be shown."""
    return when(qty_lots > display_lots * ICEBERG_PARTS_MAX, Reason.BAD_DISPLAY_QUANTITY)


def minimum_refusal(command: Command, limits: OrderLimits) -> Reason:
    """Of a new order, whether it has a minimum or not."""
    if not command.flags & OrderFlag.MIN_QTY:
        return Reason.NONE
    minimum_lots, _ = unpack_new_aux(command.aux)
    possible = 0 < minimum_lots <= command.qty_lots and minimum_lots % limits.lot_lots == 0
    return when(not possible, Reason.BAD_MINIMUM_QUANTITY)


def reduction_refusal(leaves_lots: int, new_leaves_lots: int, limits: OrderLimits) -> Reason:
    return when(not 0 < new_leaves_lots < leaves_lots, Reason.BAD_QUANTITY) or when(
        new_leaves_lots % limits.lot_lots != 0, Reason.QUANTITY_OFF_LOT
    )
