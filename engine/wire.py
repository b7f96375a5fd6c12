"""Fixed-width layouts, little-endian: 64-byte commands, 80-byte events, 48-byte resting orders.

The same bytes are the wire payload, the journal record and the argument of `Market.apply`, so
that nothing is encoded twice. The NumPy dtypes describe them for whoever handles whole batches.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np

from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventKind, RestingOrder

COMMAND_BYTES = 64
EVENT_BYTES = 80
RESTING_ORDER_BYTES = 48

_COMMAND = struct.Struct("<BBBBBBHIIQQQqQQ")
_EVENT = struct.Struct("<BBBBHBxIIQQQQqQQQ")
_RESTING_ORDER = struct.Struct("<QQqQQB7x")
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
assert _COMMAND.size == COMMAND_DTYPE.itemsize == COMMAND_BYTES
assert _EVENT.size == EVENT_DTYPE.itemsize == EVENT_BYTES
assert _RESTING_ORDER.size == RESTING_ORDER_BYTES


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


def decode_events(data: bytes | memoryview) -> Iterator[Event]:
    for kind, side, ord_type, tif, reason, flags, instrument, sub, seq, *rest in _EVENT.iter_unpack(
        data
    ):
        ref, order_id, contra_id, price_ticks, qty_lots, leaves_lots, contra_leaves_lots = rest
        yield Event(
            kind=EventKind(kind),
            side=side,
            ord_type=ord_type,
            tif=tif,
            reason=Reason(reason),
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
