"""The state of a market as canonical bytes: equal states give equal bytes, in every implementation.

Little-endian, nothing between the parts:

    header      8 B "RSWSNAP2", u64 last_seq, u64 last_ts_ns (of the last command),
                u32 sessions, u32 instruments, u32 accounts, 4 B zero
    session     u16 number, u8 role, u8 options, 4 B zero, u64 last_ref, 32 B name;
                ascending by number
    account     u64 number, u64 group, u64 open_orders_max, u64 open_qty_max, u64 rate_max,
                u64 rate_second, u32 rate_count, u8 killed, 3 B zero; ascending by number; only
                those that have any settings of their own
    instrument  u32 number, u32 mode, u32 epoch, u32 open orders, u32 pending stops, u32 day_end_s,
                u8 halted, 7 B zero, 16 B name, i64 price_ticks_min, i64 price_ticks_max,
                u64 qty_lots_max, u64 tick, u64 lot, u64 notional_max, i64 last_price_ticks;
                then its orders, then its stops; ascending by number
    order       72 B (engine.wire): bids then asks, best price first, then oldest first
    stop        72 B (engine.wire): oldest first

Reading refuses whatever a market could not have written: a snapshot is restored whole or not at
all.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import msgspec

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.snapshot_orders import check_book, check_order, check_orders, check_stop, require
from engine.types import Mode, OrderState, Role, SessionOption
from engine.wire import ORDER_STATE_BYTES, decode_order_states, encode_order_state

MAGIC = b"RSWSNAP2"

_HEADER = struct.Struct("<8sQQIII4s")
_SESSION = struct.Struct("<HBB4sQ32s")
_ACCOUNT = struct.Struct("<QQQQQQIB3s")
_INSTRUMENT = struct.Struct("<IIIIIIB7s16sqqQQQQq")
_I64_MAX = 2**63 - 1


class SessionState(msgspec.Struct, frozen=True, kw_only=True):
    session: int  # the number that commands carry
    name: str
    role: Role
    last_ref: int  # the highest reference that the session has used
    options: int = 0  # SessionOption


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """An account with what it may do and what it has open, in all instruments. 0 is no limit."""

    account: int
    group: int = 0  # its orders don't trade with others of the group; 0: with its own only
    open_orders_max: int = 0
    open_qty_max: int = 0
    rate_max: int = 0  # new orders and replaces a second
    killed: bool = False  # cancels and reductions only
    open_orders: int = 0  # now, stops among them
    open_qty: int = 0  # now: the sum of what is left of them; not told beyond 64 bits
    rate_second: int = 0  # the second of the sequencer's clock that was counted last
    rate_count: int = 0  # in that second, while there is a limit


class InstrumentState(msgspec.Struct, frozen=True, kw_only=True):
    instrument: int
    name: str
    mode: Mode
    epoch: int
    open_orders: int  # resting
    price_ticks_max: int
    qty_lots_max: int
    price_ticks_min: int = 1
    tick_ticks: int = 1  # prices are multiples of it
    lot_lots: int = 1  # quantities are multiples of it
    notional_max: int = 0  # price times quantity; 0: no limit
    day_end_s: int = 0  # when DAY orders expire, in seconds after midnight UTC
    halted: bool = False
    last_price_ticks: int = 0  # of its last fill; 0: none yet
    pending_stops: int = 0


class MarketState(msgspec.Struct, frozen=True, kw_only=True):
    """All that a market is. What it holds next to this can be worked out from it."""

    last_seq: int
    last_ts_ns: int
    sessions: tuple[SessionState, ...]  # ascending by number
    instruments: tuple[InstrumentState, ...]  # ascending by number
    books: tuple[tuple[OrderState, ...], ...]  # one for each instrument, in the same order
    stops: tuple[tuple[OrderState, ...], ...] = ()  # likewise
    accounts: tuple[AccountState, ...] = ()  # ascending by number


def encode_state(state: MarketState) -> bytes:
    counts = (len(state.sessions), len(state.instruments), len(state.accounts))
    parts = [_HEADER.pack(MAGIC, state.last_seq, state.last_ts_ns, *counts, bytes(4))]
    parts += map(_encode_session, state.sessions)
    parts += map(_encode_account, state.accounts)
    for each, book, stops in zip(state.instruments, state.books, state.stops, strict=True):
        parts.append(_encode_instrument(each, len(book), len(stops)))
        parts += map(encode_order_state, (*book, *stops))
    return b"".join(parts)


def _encode_session(state: SessionState) -> bytes:
    return _SESSION.pack(
        state.session, state.role, state.options, bytes(4), state.last_ref, state.name.encode()
    )


def _encode_account(state: AccountState) -> bytes:
    return _ACCOUNT.pack(
        state.account,
        state.group,
        state.open_orders_max,
        state.open_qty_max,
        state.rate_max,
        state.rate_second,
        state.rate_count,
        state.killed,
        bytes(3),
    )


def _encode_instrument(state: InstrumentState, orders: int, stops: int) -> bytes:
    return _INSTRUMENT.pack(
        state.instrument,
        state.mode,
        state.epoch,
        orders,
        stops,
        state.day_end_s,
        state.halted,
        bytes(7),
        state.name.encode(),
        state.price_ticks_min,
        state.price_ticks_max,
        state.qty_lots_max,
        state.tick_ticks,
        state.lot_lots,
        state.notional_max,
        state.last_price_ticks,
    )


def decode_state(data: bytes | memoryview) -> MarketState:
    """Raises SnapshotUnreadable, with what is wrong and where, for anything that `encode_state`
    can't have written.
    """
    reader = _Reader(bytes(data))
    magic, last_seq, last_ts_ns, n_sessions, n_instruments, n_accounts, padding = reader.take(
        _HEADER, "the header"
    )
    require(magic == MAGIC, "it does not begin with RSWSNAP2")
    require(not any(padding), "the padding of its header is not zero")
    require(n_instruments <= limits.INSTRUMENTS_MAX, "it counts too many instruments")
    require(n_accounts <= limits.ACCOUNTS_MAX, "it counts too many accounts")
    sessions = tuple(_session(reader) for _ in range(n_sessions))
    require(_ascending(each.session for each in sessions), "its sessions don't ascend")
    require(len({each.name for each in sessions}) == n_sessions, "two sessions have one name")
    accounts = [_account(reader, last_ts_ns // 10**9) for _ in range(n_accounts)]
    require(_ascending(each.account for each in accounts), "its accounts don't ascend")
    parts = [_instrument(reader) for _ in range(n_instruments)]
    instruments = tuple(instrument for instrument, _, _ in parts)
    require(_ascending(each.instrument for each in instruments), "its instruments don't ascend")
    require(
        len({each.name for each in instruments}) == n_instruments, "two instruments have one name"
    )
    orders = [order for _, book, stops in parts for order in (*book, *stops)]
    check_orders(orders, {each.session for each in sessions})
    require(reader.left == 0, f"{reader.left} bytes follow its end")
    return MarketState(
        last_seq=last_seq,
        last_ts_ns=last_ts_ns,
        sessions=sessions,
        accounts=_with_open(accounts, orders),
        instruments=instruments,
        books=tuple(book for _, book, _ in parts),
        stops=tuple(stops for _, _, stops in parts),
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
        require(size <= self.left, f"it ends inside {what}")
        self._at += size
        return self._data[self._at - size : self._at]


def _session(reader: _Reader) -> SessionState:
    session, role, options, padding, last_ref, name = reader.take(_SESSION, "a session")
    what = f"session {session}"
    require(role in set(Role), f"{what} has the unknown role {role}")
    may = options in (0, SessionOption.CANCEL_ON_DISCONNECT) and (
        role == Role.TRADE or options == 0
    )
    require(may, f"{what} has options that its role can't have")
    require(not any(padding), f"{what}: its padding is not zero")
    return SessionState(
        session=session,
        name=_name(name, what),
        role=Role(role),
        last_ref=last_ref,
        options=options,
    )


def _account(reader: _Reader, now_s: int) -> AccountState:
    account, group, orders_max, qty_max, rate_max, second, count, killed, padding = reader.take(
        _ACCOUNT, "an account"
    )
    what = f"account {account}"
    require(not any(padding), f"{what}: its padding is not zero")
    require(killed in (0, 1), f"{what}: its kill switch is neither on nor off")
    require(any((group, orders_max, qty_max, rate_max, killed)), f"{what} has no settings")
    require(rate_max <= _I64_MAX, f"{what}: its rate is too high")
    counts = rate_max != 0 and count != 0
    require(counts or not (second or count), f"{what} counts without a limit")
    require(second <= now_s, f"{what} has counted in the future")
    return AccountState(
        account=account,
        group=group,
        open_orders_max=orders_max,
        open_qty_max=qty_max,
        rate_max=rate_max,
        killed=bool(killed),
        rate_second=second,
        rate_count=count,
    )


def _instrument(
    reader: _Reader,
) -> tuple[InstrumentState, tuple[OrderState, ...], tuple[OrderState, ...]]:
    number, mode, epoch, n_orders, n_stops, day_end_s, halted, padding, name, *rest = reader.take(
        _INSTRUMENT, "an instrument"
    )
    lowest, highest, qty_lots_max, tick_ticks, lot_lots, notional_max, last_ticks = rest
    what = f"instrument {number}"
    require(mode in set(Mode), f"{what} has the unknown mode {mode}")
    require(halted in (0, 1), f"{what} is neither halted nor open")
    require(not any(padding), f"{what}: its padding is not zero")
    require(day_end_s < limits.DAY_S, f"{what}: its day ends after it is over")
    require(highest > 0, f"{what}: its highest price is not positive")
    require(1 <= lowest <= highest, f"{what}: its lowest price is not in its band")
    require(qty_lots_max > 0, f"{what}: its largest quantity is zero")
    require(tick_ticks > 0 and lot_lots > 0, f"{what}: its tick or lot is zero")
    require(notional_max <= _I64_MAX, f"{what}: its notional is too large")
    require(last_ticks >= 0, f"{what}: its last price is negative")
    full = n_orders + n_stops > limits.OPEN_ORDERS_PER_BOOK_MAX
    require(not full, f"{what} has too many open orders")
    require(n_stops <= limits.STOPS_PER_BOOK_MAX, f"{what} has too many stops")
    instrument = InstrumentState(
        instrument=number,
        name=_name(name, what),
        mode=Mode(mode),
        epoch=epoch,
        open_orders=n_orders,
        price_ticks_max=highest,
        qty_lots_max=qty_lots_max,
        price_ticks_min=lowest,
        tick_ticks=tick_ticks,
        lot_lots=lot_lots,
        notional_max=notional_max,
        day_end_s=day_end_s,
        halted=bool(halted),
        last_price_ticks=last_ticks,
        pending_stops=n_stops,
    )
    orders = _orders(reader, n_orders, f"the orders of {what}")
    check_book(orders, what)
    icebergs = sum(order.display_lots > 0 for order in orders)
    require(icebergs <= limits.ICEBERGS_PER_BOOK_MAX, f"{what} has too many icebergs")
    stops = _orders(reader, n_stops, f"the stops of {what}")
    for stop in stops:
        check_stop(stop, last_ticks)
    return instrument, orders, stops


def _orders(reader: _Reader, count: int, what: str) -> tuple[OrderState, ...]:
    records = reader.take_bytes(count * ORDER_STATE_BYTES, what)
    orders = tuple(decode_order_states(records))
    # Reading drops an order's padding; were it not zero, writing the order again would give other
    # bytes.
    require(records == b"".join(map(encode_order_state, orders)), f"{what}: padding not zero")
    for order in orders:
        check_order(order)
    return orders


def _with_open(
    accounts: Iterable[AccountState], orders: Iterable[OrderState]
) -> tuple[AccountState, ...]:
    """The accounts with what they have open."""
    count: Counter[int] = Counter()
    lots: Counter[int] = Counter()
    for order in orders:
        count[order.account] += 1
        lots[order.account] += order.leaves_lots
    return tuple(
        msgspec.structs.replace(
            each,
            open_orders=count[each.account],
            open_qty=min(lots[each.account], limits.U64_MAX),
        )
        for each in accounts
    )


def _name(padded: bytes, what: str) -> str:
    name = padded.rstrip(b"\0")
    require(name != b"" and b"\0" not in name, f"{what}: its name is empty or holds a zero byte")
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise SnapshotUnreadable(f"not a snapshot: {what}: its name is not UTF-8") from None


def _ascending(numbers: Iterable[int]) -> bool:
    return all(left < right for left, right in pairwise(numbers))
