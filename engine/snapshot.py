"""The state of a market as canonical bytes: equal states give equal bytes, in every implementation.

Little-endian, nothing between the parts:

    header      8 B "RSWSNAP1", u64 last_seq, u64 last_ts_ns (of the last command),
                u32 sessions, u32 instruments
    session     u16 number, u8 role, 5 B zero, u64 last_ref, 32 B name; ascending by number
    instrument  u32 number, u32 mode, u32 epoch, u32 open orders, 16 B name,
                i64 price_ticks_max, u64 qty_lots_max, then its orders; ascending by number
    order       48 B (engine.wire): bids then asks, best price first, then oldest first

Reading refuses whatever a market could not have written: a snapshot is restored whole or not at
all.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.types import Mode, RestingOrder, Role, Side
from engine.wire import RESTING_ORDER_BYTES, decode_resting_orders, encode_resting_order

MAGIC = b"RSWSNAP1"

_HEADER = struct.Struct("<8sQQII")
_SESSION = struct.Struct("<HB5sQ32s")
_INSTRUMENT = struct.Struct("<IIII16sqQ")


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    session: int  # the number that commands carry
    name: str
    role: Role
    last_ref: int  # the highest reference that the session has used


class InstrumentState(msgspec.Struct, frozen=True, kw_only=True):
    instrument: int
    name: str
    mode: Mode
    epoch: int
    open_orders: int
    price_ticks_max: int
    qty_lots_max: int


class MarketState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a market is. What it holds next to this can be worked out from it."""

    last_seq: int
    last_ts_ns: int
    sessions: tuple[SessionState, ...]  # ascending by number
    instruments: tuple[InstrumentState, ...]  # ascending by number
    books: tuple[tuple[RestingOrder, ...], ...]  # one for each instrument, in the same order


def encode_state(state: MarketState) -> bytes:
    parts = [
        _HEADER.pack(
            MAGIC, state.last_seq, state.last_ts_ns, len(state.sessions), len(state.instruments)
        )
    ]
    parts += [
        _SESSION.pack(each.session, each.role, bytes(5), each.last_ref, each.name.encode())
        for each in state.sessions
    ]
    for each, book in zip(state.instruments, state.books, strict=True):
        parts.append(
            _INSTRUMENT.pack(
                each.instrument,
                each.mode,
                each.epoch,
                len(book),
                each.name.encode(),
                each.price_ticks_max,
                each.qty_lots_max,
            )
        )
        parts += map(encode_resting_order, book)
    return b"".join(parts)


def decode_state(data: bytes | memoryview) -> MarketState:
    """Raises SnapshotUnreadable, with what is wrong and where, for anything that `encode_state`
    can't have written.
    """
    reader = _Reader(bytes(data))
    magic, last_seq, last_ts_ns, n_sessions, n_instruments = reader.take(_HEADER, "the header")
    _require(magic == MAGIC, "it does not begin with RSWSNAP1")
    _require(n_instruments <= limits.INSTRUMENTS_MAX, "it counts too many instruments")
    sessions = tuple(_session(reader) for _ in range(n_sessions))
    _require(_ascending(each.session for each in sessions), "its sessions don't ascend")
    _require(len({each.name for each in sessions}) == n_sessions, "two sessions have one name")
    books = [_instrument(reader) for _ in range(n_instruments)]
    instruments = tuple(instrument for instrument, _ in books)
    _require(_ascending(each.instrument for each in instruments), "its instruments don't ascend")
    _require(
        len({each.name for each in instruments}) == n_instruments, "two instruments have one name"
    )
    ids = [order.order_id for _, book in books for order in book]
    _require(len(ids) <= limits.OPEN_ORDERS_MAX, "it holds too many open orders")
    _require(len(set(ids)) == len(ids), "two open orders have one id")
    _require(reader.left == 0, f"{reader.left} bytes follow its end")
    return MarketState(
        last_seq=last_seq,
        last_ts_ns=last_ts_ns,
        sessions=sessions,
        instruments=instruments,
        books=tuple(book for _, book in books),
    )


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, layout: struct.Struct, what: str) -> tuple[Any, ...]:
        return layout.unpack(self.take_bytes(layout.size, what))

    def take_bytes(self, size: int, what: str) -> bytes:
        _require(size <= self.left, f"it ends inside {what}")
        self._at += size
        return self._data[self._at - size : self._at]


def _session(reader: _Reader) -> SessionState:
    session, role, padding, last_ref, name = reader.take(_SESSION, "a session")
    _require(role in set(Role), f"session {session} has the unknown role {role}")
    _require(not any(padding), f"session {session}: its padding is not zero")
    return SessionState(
        session=session, name=_name(name, f"session {session}"), role=Role(role), last_ref=last_ref
    )


def _instrument(reader: _Reader) -> tuple[InstrumentState, tuple[RestingOrder, ...]]:
    number, mode, epoch, open_orders, name, price_ticks_max, qty_lots_max = reader.take(
        _INSTRUMENT, "an instrument"
    )
    what = f"instrument {number}"
    _require(mode in set(Mode), f"{what} has the unknown mode {mode}")
    _require(price_ticks_max > 0, f"{what}: its highest price is not positive")
    _require(qty_lots_max > 0, f"{what}: its largest quantity is zero")
    _require(open_orders <= limits.OPEN_ORDERS_PER_BOOK_MAX, f"{what} has too many open orders")
    instrument = InstrumentState(
        instrument=number,
        name=_name(name, what),
        mode=Mode(mode),
        epoch=epoch,
        open_orders=open_orders,
        price_ticks_max=price_ticks_max,
        qty_lots_max=qty_lots_max,
    )
    records = reader.take_bytes(open_orders * RESTING_ORDER_BYTES, f"the orders of {what}")
    orders = tuple(decode_resting_orders(records))
    # Reading drops an order's padding; were it not zero, writing the order again would give other
    # bytes.
    _require(records == b"".join(map(encode_resting_order, orders)), f"{what}: padding not zero")
    for order in orders:
        _require(order.side in set(Side), f"order {order.order_id} has no side")
        _require(order.price_ticks > 0, f"order {order.order_id}: its price is not positive")
        _require(0 < order.leaves_lots <= order.qty_lots, f"order {order.order_id}: its leaves")
    _require(
        all(_ranks(left, right) for left, right in pairwise(orders)),
        f"the orders of {what} are not in their priority",
    )
    bids = [order.price_ticks for order in orders if order.side == Side.BUY]
    asks = [order.price_ticks for order in orders if order.side == Side.SELL]
    _require(not bids or not asks or bids[0] < asks[0], f"the book of {what} is crossed")
    return instrument, orders


def _ranks(left: RestingOrder, right: RestingOrder) -> bool:
    """Whether the two may stand next to each other in this order."""
    if left.side != right.side:
        return left.side == Side.BUY
    if left.side == Side.BUY:
        return left.price_ticks >= right.price_ticks
    return left.price_ticks <= right.price_ticks


def _name(padded: bytes, what: str) -> str:
    name = padded.rstrip(b"\0")
    _require(name != b"" and b"\0" not in name, f"{what}: its name is empty or holds a zero byte")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise SnapshotUnreadable(f"not a snapshot: {what}: its name is not UTF-8") from None


def _ascending(numbers: Iterable[int]) -> bool:
    return all(left < right for left, right in pairwise(numbers))


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise SnapshotUnreadable(f"not a snapshot: {problem}")
