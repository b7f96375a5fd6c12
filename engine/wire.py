"""Fixed-width layouts, little-endian: 64-byte commands, 80-byte events, 48-byte resting orders,
72-byte states of orders, 32-byte market data records.

The same bytes are the wire payload, the journal record and the argument of `Market.apply`, so
that nothing is encoded twice. The NumPy dtypes describe them for whoever handles whole batches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import msgspec
import numpy as np

from engine.limits import U32_MAX
from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventKind, OrderState, RestingOrder

COMMAND_BYTES = 64
EVENT_BYTES = 80
RESTING_ORDER_BYTES = 48
ORDER_STATE_BYTES = 72
DEPTH_BYTES = 32
DISPLAYED_ORDER_BYTES = 32

_COMMAND = struct.Struct("<BBBBBBHIIQQQqQQ")
_EVENT = struct.Struct("<BBBBHBxIIQQQQqQQQ")
_RESTING_ORDER = struct.Struct("<QQqQQB7x")
_ORDER_STATE = struct.Struct("<QQqQQQqIIHBBBBBx")
_DEPTH = struct.Struct("<B7xqQI4x")
_DISPLAYED_ORDER = struct.Struct("<QqQB7x")
_TEXT_16 = struct.Struct("<QQ")
_TEXT_32 = struct.Struct("<QQqQ")

COMMAND_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("side", "u1"),
        ("ord_type", "u1"),
        ("tif", "u1"),
        ("flags", "u1"),
        ("stp", "u1"),
        ("session", "<u2"),
        ("instrument", "<u4"),
        ("epoch", "<u4"),
        ("ref", "<u8"),
        ("account", "<u8"),
        ("order_id", "<u8"),
        ("price_ticks", "<i8"),
        ("qty_lots", "<u8"),
        ("aux", "<u8"),
    ]
)
EVENT_DTYPE = np.dtype(
    [
        ("kind", "u1"),
        ("side", "u1"),
        ("ord_type", "u1"),
        ("tif", "u1"),
        ("reason", "<u2"),
        ("flags", "u1"),
        ("pad", "u1"),
        ("instrument", "<u4"),
        ("sub", "<u4"),
        ("seq", "<u8"),
        ("ref", "<u8"),
        ("order_id", "<u8"),
        ("contra_id", "<u8"),
        ("price_ticks", "<i8"),
        ("qty_lots", "<u8"),
        ("leaves_lots", "<u8"),
        ("contra_leaves_lots", "<u8"),
    ]
)
# One price of `Market.depth`: bids, then asks, best first.
DEPTH_DTYPE = np.dtype(
    {
        "names": ["side", "price_ticks", "displayed_lots", "orders"],
        "formats": ["u1", "<i8", "<u8", "<u4"],
        "offsets": [0, 8, 16, 24],
        "itemsize": DEPTH_BYTES,
    }
)
# One order of `Market.displayed_orders`: bids, then asks, best first, then oldest first.
DISPLAYED_ORDER_DTYPE = np.dtype(
    {
        "names": ["order_id", "price_ticks", "displayed_lots", "side"],
        "formats": ["<u8", "<i8", "<u8", "u1"],
        "offsets": [0, 8, 16, 24],
        "itemsize": DISPLAYED_ORDER_BYTES,
    }
)
assert _COMMAND.size == COMMAND_DTYPE.itemsize == COMMAND_BYTES
assert _EVENT.size == EVENT_DTYPE.itemsize == EVENT_BYTES
assert _RESTING_ORDER.size == RESTING_ORDER_BYTES
assert _ORDER_STATE.size == ORDER_STATE_BYTES
assert _DEPTH.size == DEPTH_BYTES
assert _DISPLAYED_ORDER.size == DISPLAYED_ORDER_BYTES


def encode_command(command: Command) -> bytes:
    """Raises struct.error for a number that its field can't hold."""
    return _COMMAND.pack(
        command.kind,
        command.side,
        command.ord_type,
        command.tif,
        command.flags,
        command.stp,
        command.session,
        command.instrument,
        command.epoch,
        command.ref,
        command.account,
        command.order_id,
        command.price_ticks,
        command.qty_lots,
        command.aux,
    )


def encode_commands(commands: Iterable[Command]) -> bytes:
    return b"".join(map(encode_command, commands))


def decode_commands(data: bytes | memoryview) -> Iterator[Command]:
    """Raises ValueError on an unknown kind, struct.error on a length that is no multiple of 64."""
    for (
        kind,
        side,
        ord_type,
        tif,
        flags,
        stp,
        session,
        instrument,
        epoch,
        *rest,
    ) in _COMMAND.iter_unpack(data):
        ref, account, order_id, price_ticks, qty_lots, aux = rest
        yield Command(
            kind=CommandKind(kind),
            side=side,
            ord_type=ord_type,
            tif=tif,
            flags=flags,
            stp=stp,
            session=session,
            instrument=instrument,
            epoch=epoch,
            ref=ref,
            account=account,
            order_id=order_id,
            price_ticks=price_ticks,
            qty_lots=qty_lots,
            aux=aux,
        )


def encode_event(event: Event) -> bytes:
    return _EVENT.pack(
        event.kind,
        event.side,
        event.ord_type,
        event.tif,
        event.reason,
        event.flags,
        event.instrument,
        event.sub,
        event.seq,
        event.ref,
        event.order_id,
        event.contra_id,
        event.price_ticks,
        event.qty_lots,
        event.leaves_lots,
        event.contra_leaves_lots,
    )


# A dictionary, for calling an enumeration costs several times as much as the rest of an event.
_EVENT_KINDS = {int(one): one for one in EventKind}
_REASONS = {int(one): one for one in Reason}


def decode_events(data: bytes | memoryview) -> Iterator[Event]:
    """Raises ValueError on an unknown kind or reason."""
    for (
        kind,
        side,
        ord_type,
        tif,
        reason,
        flags,
        instrument,
        sub,
        seq,
        ref,
        order_id,
        contra_id,
        price_ticks,
        qty_lots,
        leaves_lots,
        contra_leaves_lots,
    ) in _EVENT.iter_unpack(data):
        yield Event(
            kind=_EVENT_KINDS.get(kind) or EventKind(kind),
            side=side,
            ord_type=ord_type,
            tif=tif,
            reason=_REASONS[reason] if reason in _REASONS else Reason(reason),
            flags=flags,
            instrument=instrument,
            sub=sub,
            seq=seq,
            ref=ref,
            order_id=order_id,
            contra_id=contra_id,
            price_ticks=price_ticks,
            qty_lots=qty_lots,
            leaves_lots=leaves_lots,
            contra_leaves_lots=contra_leaves_lots,
        )


def encode_resting_order(order: RestingOrder) -> bytes:
    return _RESTING_ORDER.pack(
        order.order_id,
        order.account,
        order.price_ticks,
        order.leaves_lots,
        order.qty_lots,
        order.side,
    )


def decode_resting_orders(data: bytes | memoryview) -> Iterator[RestingOrder]:
    for order_id, account, price_ticks, leaves_lots, qty_lots, side in _RESTING_ORDER.iter_unpack(
        data
    ):
        yield RestingOrder(
            order_id=order_id,
            account=account,
            price_ticks=price_ticks,
            leaves_lots=leaves_lots,
            qty_lots=qty_lots,
            side=side,
        )


def encode_order_state(order: OrderState) -> bytes:
    return _ORDER_STATE.pack(*msgspec.structs.astuple(order))


def decode_order_states(data: bytes | memoryview) -> Iterator[OrderState]:
    for row in _ORDER_STATE.iter_unpack(data):
        yield OrderState(**dict(zip(OrderState.__struct_fields__, row, strict=True)))


def encode_depth(side: int, price_ticks: int, displayed_lots: int, orders: int) -> bytes:
    return _DEPTH.pack(side, price_ticks, displayed_lots, orders)


def encode_displayed_order(
    order_id: int, price_ticks: int, displayed_lots: int, side: int
) -> bytes:
    return _DISPLAYED_ORDER.pack(order_id, price_ticks, displayed_lots, side)


def pack_new_aux(*, part_lots: int = 0, expiry_s: int = 0) -> int:
    """The `aux` of a new order that is no stop: what an iceberg displays, or the least that must
    trade at once; and when a GTD order expires, in seconds since 1970.

    >>> unpack_new_aux(pack_new_aux(part_lots=5, expiry_s=1_800_000_000))
    (5, 1800000000)
    """
    for number in (part_lots, expiry_s):
        if not 0 <= number <= U32_MAX:
            raise ValueError(f"{number} does not fit the 32 bits that it has in `aux`")
    return expiry_s << 32 | part_lots


def unpack_new_aux(aux: int) -> tuple[int, int]:
    """Display or minimum quantity, and second of expiry."""
    return aux & U32_MAX, aux >> 32


def instrument_command(
    *, instrument: int, name: str, price_ticks_max: int, qty_lots_max: int, ref: int = 0
) -> Command:
    """The name (16 bytes of UTF-8 at most) travels in the fields `account` and `order_id`."""
    account, order_id = _TEXT_16.unpack(_padded(name, 16))
    return Command(
        kind=CommandKind.INSTRUMENT,
        instrument=instrument,
        ref=ref,
        account=account,
        order_id=order_id,
        price_ticks=price_ticks_max,
        qty_lots=qty_lots_max,
    )


def instrument_name(command: Command) -> str:
    return _TEXT_16.pack(command.account, command.order_id).rstrip(b"\0").decode()


def instrument_limits_command(
    *,
    instrument: int,
    tick_ticks: int,
    lot_lots: int,
    qty_lots_max: int,
    notional_max: int,
    day_end_s: int,
) -> Command:
    """Prices become multiples of the tick, quantities of the lot. The day ends so many seconds
    after midnight UTC. A notional of 0 is no limit.
    """
    return Command(
        kind=CommandKind.INSTRUMENT_LIMITS,
        instrument=instrument,
        account=tick_ticks,
        order_id=lot_lots,
        price_ticks=notional_max,
        qty_lots=qty_lots_max,
        aux=day_end_s,
    )


def price_band_command(*, instrument: int, price_ticks_min: int, price_ticks_max: int) -> Command:
    return Command(
        kind=CommandKind.PRICE_BAND,
        instrument=instrument,
        price_ticks=price_ticks_max,
        aux=price_ticks_min,
    )


def trading_command(*, instrument: int, halted: bool) -> Command:
    return Command(kind=CommandKind.TRADING, instrument=instrument, aux=int(halted))


def account_limits_command(
    *, account: int, open_orders_max: int, open_qty_max: int, rate_max: int, group: int
) -> Command:
    """All four at once; 0 is no limit, and no group. Rates are new orders and replaces a second."""
    return Command(
        kind=CommandKind.ACCOUNT_LIMITS,
        account=account,
        order_id=open_orders_max,
        price_ticks=rate_max,
        qty_lots=open_qty_max,
        aux=group,
    )


def kill_switch_command(*, account: int, killed: bool) -> Command:
    return Command(kind=CommandKind.KILL_SWITCH, account=account, aux=int(killed))


def mass_cancel_command(
    *,
    scope: int,
    instrument: int = 0,
    account: int = 0,
    side: int = 0,
    flags: int = 0,
    epoch: int = 0,
) -> Command:
    """One side of the books, or with 0 both. An account is named with MassCancelScope.ACCOUNT, an
    instrument without MassCancelFlag.EVERY_INSTRUMENT.
    """
    return Command(
        kind=CommandKind.MASS_CANCEL,
        side=side,
        flags=flags,
        instrument=instrument,
        epoch=epoch,
        account=account,
        aux=scope,
    )


def session_command(*, session: int, name: str, role: int) -> Command:
    """The name (32 bytes of UTF-8 at most) travels in `account`, `order_id`, `price_ticks` and
    `qty_lots`.
    """
    account, order_id, price_ticks, qty_lots = _TEXT_32.unpack(_padded(name, 32))
    return Command(
        kind=CommandKind.SESSION,
        session=session,
        account=account,
        order_id=order_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        aux=role,
    )


def session_name(command: Command) -> str:
    packed = _TEXT_32.pack(command.account, command.order_id, command.price_ticks, command.qty_lots)
    return packed.rstrip(b"\0").decode()


def _padded(name: str, size: int) -> bytes:
    encoded = name.encode()
    if not encoded or len(encoded) > size or b"\0" in encoded:
        raise ValueError(f"{name!r} must be 1 to {size} bytes of UTF-8 without a NUL")
    return encoded.ljust(size, b"\0")
