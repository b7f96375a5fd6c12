"""What a command must look like, and who may send it when: the parts of a check that need no book.

Pure functions on plain values. Each returns the first reason that holds, in the numeric order of
`engine.reject`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from engine.reject import Reason
from engine.types import Command, CommandKind, Mode, OrderType, Role, Side, TimeInForce
from engine.wire import COMMAND_DTYPE, instrument_name, session_name

_SIDES: Final = frozenset(Side)
_ORDER_TYPES: Final = frozenset(OrderType)
_TIMES_IN_FORCE: Final = frozenset(TimeInForce)
_MODES: Final = frozenset(Mode)
_ROLES: Final = frozenset(Role)

# The fields that a command of each kind gives a meaning to, beside `kind`, `session` and `ref`. The
# others must be 0.
FIELDS: Final[dict[int, frozenset[str]]] = {
    CommandKind.NEW: frozenset(
        [
            "side",
            "ord_type",
            "tif",
            "instrument",
            "epoch",
            "account",
            "order_id",
            "price_ticks",
            "qty_lots",
        ]
    ),
    CommandKind.CANCEL: frozenset(["instrument", "epoch", "account", "order_id"]),
    CommandKind.INSTRUMENT: frozenset(
        ["instrument", "account", "order_id", "price_ticks", "qty_lots"]
    ),
    CommandKind.MODE: frozenset(["instrument", "epoch", "aux"]),
    CommandKind.CLEAR: frozenset(["instrument", "epoch"]),
    CommandKind.SESSION: frozenset(["account", "order_id", "price_ticks", "qty_lots", "aux"]),
}

# Which kinds a session of each role may send. SESSION is the gateway's own and is asked for by
# nobody.
PERMITTED: Final[dict[Role, frozenset[int]]] = {
    Role.TRADE: frozenset({CommandKind.NEW, CommandKind.CANCEL}),
    Role.SHADOW: frozenset({CommandKind.NEW, CommandKind.CANCEL, CommandKind.CLEAR}),
    Role.ADMIN: frozenset({CommandKind.INSTRUMENT, CommandKind.MODE, CommandKind.CLEAR}),
    Role.READ_ONLY: frozenset(),
}

_ALWAYS_READ: Final = frozenset({"kind", "session", "ref"})
NAMES: Final = Command.__struct_fields__
_MUST_BE_ZERO: Final = {
    kind: tuple(name for name in NAMES if name not in fields | _ALWAYS_READ)
    for kind, fields in FIELDS.items()
}
assert COMMAND_DTYPE.names == NAMES


def well_formed(command: Command) -> bool:
    """Whether each field is 0 where it means nothing, and one of its codes where it has codes."""
    if any(getattr(command, name) for name in _MUST_BE_ZERO[command.kind]):
        return False
    if command.kind == CommandKind.NEW:
        return (
            command.side in _SIDES
            and command.ord_type in _ORDER_TYPES
            and command.tif in _TIMES_IN_FORCE
            and (command.ord_type != OrderType.MARKET or command.tif == TimeInForce.IOC)
        )
    if command.kind == CommandKind.MODE:
        return command.aux in _MODES
    if command.kind == CommandKind.INSTRUMENT:
        return _is_name(instrument_name, command)
    if command.kind == CommandKind.SESSION:
        return command.aux in _ROLES and command.ref == 0 and _is_name(session_name, command)
    return True


def entry_refusal(command: Command, role: Role, mode: Mode, epoch: int) -> Reason:
    """Whether a session of this role may send orders and cancels to an instrument in this mode."""
    if mode is Mode.CLOSED:
        return Reason.INSTRUMENT_CLOSED
    if role is Role.SHADOW:
        return Reason.INSTRUMENT_LIVE if mode is Mode.LIVE else Reason.NONE
    if mode is Mode.SHADOW:
        return Reason.INSTRUMENT_IN_SHADOW
    return Reason.STALE_EPOCH if command.epoch != epoch else Reason.NONE


def mode_refusal(command: Command, mode: Mode, epoch: int) -> Reason:
    """A new epoch may bring any mode. Within an epoch a mode may be repeated, and what is closed
    may open.
    """
    if command.epoch > epoch:
        return Reason.NONE
    if command.epoch == epoch and (command.aux == mode or mode is Mode.CLOSED):
        return Reason.NONE
    return Reason.STALE_EPOCH


def number_refusal(command: Command, price_ticks_max: int, qty_lots_max: int) -> Reason:
    """Price and quantity of a new order."""
    if command.ord_type == OrderType.MARKET:
        if command.price_ticks != 0:
            return Reason.BAD_PRICE
    elif command.price_ticks <= 0:
        return Reason.BAD_PRICE
    elif command.price_ticks > price_ticks_max:
        return Reason.PRICE_TOO_HIGH
    if command.qty_lots == 0:
        return Reason.BAD_QUANTITY
    return Reason.QUANTITY_TOO_LARGE if command.qty_lots > qty_lots_max else Reason.NONE


def _is_name(read: Callable[[Command], str], command: Command) -> bool:
    try:
        name = read(command)
    except UnicodeDecodeError:
        return False
    return name != "" and "\0" not in name
