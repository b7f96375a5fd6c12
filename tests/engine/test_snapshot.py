"""The canonical state: the same bytes from both markets, and no bytes taken that neither could have
written.
"""

from __future__ import annotations

import struct

import pytest
from market_driver import (
    BTC,
    BUY,
    ETH,
    PROXY,
    SELL,
    SHADOW,
    TIME_PASSES,
    Driver,
    at_least,
    changed,
    day,
    gtd,
    halt,
    iceberg,
    kill,
    limit_account,
    limit_instrument,
    market_or_skip,
    new,
    opened,
    price_band,
    reduce,
    restore_or_skip,
    session_options,
    set_mode,
    stop,
    stop_limit,
)

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.market import restore_market, state_hash
from engine.reject import Reason
from engine.snapshot import decode_state, encode_state
from engine.types import EventKind, Mode, OrderFlag, TimeInForce

# Offsets in `_layout`: header, four sessions, two accounts, then two instruments with their orders.
_SESSIONS = 40
_ACCOUNTS = _SESSIONS + 4 * 48
_BTC = _ACCOUNTS + 2 * 56
_BTC_ORDERS = _BTC + 104
_BTC_STOPS = _BTC_ORDERS + 4 * 72
_ETH = _BTC_STOPS + 2 * 72


def traded(implementation: str) -> Driver:
    """BTC live with four orders, one of them partly filled, another an iceberg, and two stops; ETH
    halted in shadow with one order; two accounts with settings.
    """
    driver = opened(market_or_skip(implementation))
    driver.batch(
        [
            limit_account(7, rate_max=50, group=3),
            kill(9),
            limit_instrument(
                tick_ticks=1, lot_lots=1, qty_lots_max=1_000, notional_max=5_000, day_end_s=60
            ),
            iceberg(1, SELL, 110, 5, 2),
            day(2, BUY, 90, 5, flags=OrderFlag.POST_ONLY),
            new(3, BUY, 91, 5, account=8, stp=4),
            new(4, SELL, 91, 2),
            new(5, BUY, 91, 1),
            new(10, BUY, 110, 1, account=8),
            stop(6, BUY, 120, 7),
            stop_limit(7, SELL, 80, 79, 8, tif=TimeInForce.DAY, stp=2),
            reduce(7, 3),
            session_options(PROXY, 1),
            set_mode(Mode.SHADOW, 4, instrument=ETH),
            price_band(5, 500, instrument=ETH),
            gtd(8, SELL, 7, 10_000, 9, session=SHADOW, instrument=ETH),
            halt(instrument=ETH),
        ]
    )
    return driver


@pytest.fixture
def snapshot(implementation: str) -> bytes:
    return traded(implementation).market.snapshot()


def _layout() -> bytes:
    """The documented layout, put together by hand."""

    def session(number: int, role: int, options: int, last_ref: int, name: bytes) -> bytes:
        return struct.pack("<HBB4xQ32s", number, role, options, last_ref, name)

    def account(number: int, group: int, rate_max: int, rate_count: int, killed: int) -> bytes:
        return struct.pack("<QQQQQQIB3x", number, group, 0, 0, rate_max, 0, rate_count, killed)

    def order(  # id, account, price, leaves, ordered, displayed, stop price; then the small ones
        *numbers: int, expiry: int = 0, display: int = 0, codes: tuple[int, ...]
    ) -> bytes:
        return struct.pack("<QQqQQQqIIHBBBBBx", *numbers, expiry, display, *codes)

    btc = (BTC, Mode.LIVE, 1, 4, 2, 60, 0, b"BTC-USD", 1, 1_000_000, 1_000, 1, 1, 5_000, 110)
    eth = (ETH, Mode.SHADOW, 4, 1, 0, 0, 1, b"ETH-USD", 5, 500, 1_000, 1, 1, 0, 0)
    instrument = "<IIIIIIB7x16sqqQQQQq"
    return b"".join(
        [
            b"RSWSNAP2" + struct.pack("<QQIIIxxxx", 24, 24_000, 4, 2, 2),
            session(1, 3, 0, 9, b"control"),
            session(2, 1, 1, 9, b"proxy-0"),
            session(3, 2, 0, 1, b"shadow-feed"),
            session(4, 4, 0, 0, b"reader"),
            account(7, 3, 50, 7, 0),
            account(9, 0, 0, 0, 1),
            struct.pack(instrument, *btc),
            order(3, 8, 91, 3, 5, 3, 0, codes=(2, BUY, 2, 1, 0, 4)),
            order(5, 7, 91, 1, 1, 1, 0, codes=(2, BUY, 2, 1, 0, 0)),
            order(2, 7, 90, 5, 5, 5, 0, expiry=60, codes=(2, BUY, 2, 0, 1, 0)),
            order(1, 7, 110, 4, 5, 1, 0, display=2, codes=(2, SELL, 2, 1, 2, 0)),
            order(6, 7, 0, 7, 7, 7, 120, codes=(2, BUY, 3, 1, 0, 0)),
            order(7, 7, 79, 3, 8, 3, 80, expiry=60, codes=(2, SELL, 4, 0, 0, 2)),
            struct.pack(instrument, *eth),
            order(8, 7, 7, 9, 9, 9, 0, expiry=10_000, codes=(3, SELL, 2, 6, 0, 0)),
        ]
    )


def test_the_bytes_are_as_documented(implementation: str, snapshot: bytes) -> None:
    assert snapshot == _layout()
    empty = market_or_skip(implementation).snapshot()
    assert empty == b"RSWSNAP2" + bytes(32)


def test_a_restored_market_is_the_same_and_goes_on_the_same(
    implementation: str, snapshot: bytes
) -> None:
    original = traded(implementation).market
    restored = restore_or_skip(implementation, snapshot)
    restored.check()
    assert restored.snapshot() == snapshot
    assert state_hash(restored) == state_hash(original)
    assert restored.instruments() == original.instruments()
    assert restored.sessions() == original.sessions()
    assert restored.accounts() == original.accounts()
    assert restored.next_expiry_ns() == original.next_expiry_ns()
    answers = []
    for market in (original, restored):
        driver = Driver(market)
        driver.refs = {2: 9}
        orders = [new(11, SELL, 80, 20), new(12, BUY, 200, 20), new(13, SELL, 150, 9, account=8)]
        answers.append(driver.batch([*orders, new(14, BUY, 150, 1), TIME_PASSES], at_s=20_000))
    assert answers[0] == answers[1]
    assert {event.kind for events in answers[0] for event in events} >= {
        *(EventKind.FILL, EventKind.TRIGGERED, EventKind.CANCELED),
    }
    assert original.snapshot() == restored.snapshot()


def test_what_has_entered_is_an_order_like_others(implementation: str) -> None:
    """What it was before, a stop or one with a minimum, is done with, and nowhere written down."""
    driver = opened(market_or_skip(implementation))
    driver.batch([stop_limit(1, BUY, 100, 90, 5), new(2, SELL, 100, 3), new(3, BUY, 100, 1)])
    driver.send(at_least(4, BUY, 100, 5, 2))
    [book, _] = decode_state(driver.market.snapshot()).books
    assert [(order.order_id, order.flags, order.stop_price_ticks) for order in book] == [
        *((4, 0, 0), (1, 0, 0)),
    ]


def test_each_reads_what_the_other_wrote() -> None:
    python, rust = (traded(each).market for each in ("python", "rust"))
    assert python.snapshot() == rust.snapshot()
    assert restore_market("rust", python.snapshot()).snapshot() == rust.snapshot()
    assert restore_market("python", rust.snapshot()).snapshot() == python.snapshot()


def test_a_snapshot_decodes_to_values_and_back(snapshot: bytes) -> None:
    state = decode_state(snapshot)
    assert (state.last_seq, [each.name for each in state.sessions][1]) == (24, "proxy-0")
    assert [each.open_orders for each in state.instruments] == [4, 1]
    assert [[order.order_id for order in book] for book in state.books] == [[3, 5, 2, 1], [8]]
    assert [[order.order_id for order in stops] for stops in state.stops] == [[6, 7], []]
    assert [(each.account, each.open_orders, each.open_qty) for each in state.accounts] == [
        *((7, 6, 29), (9, 0, 0)),
    ]
    assert encode_state(state) == snapshot
    assert decode_state(memoryview(snapshot)) == state


def test_a_snapshot_cut_anywhere_is_refused(implementation: str, snapshot: bytes) -> None:
    restore_or_skip(implementation, snapshot)
    for length in range(len(snapshot)):
        with pytest.raises(SnapshotUnreadable, match="not a snapshot: it ends inside"):
            restore_market(implementation, snapshot[:length])


def _patched(at: int, data: bytes) -> bytes:
    layout = _layout()
    return layout[:at] + data + layout[at + len(data) :]


def _u32(number: int) -> bytes:
    return struct.pack("<I", number)


def _i64(number: int) -> bytes:
    return struct.pack("<q", number)


def _in_order(position: int, at: int, data: bytes) -> bytes:
    """In one of BTC's orders, or after the fourth of its stops."""
    return _patched(_BTC_ORDERS + 72 * position + at, data)


_FIRST, _THIRD, _ICEBERG, _STOP, _STOP_LIMIT = 0, 2, 3, 4, 5  # positions

_DAMAGED = {
    "header": {
        "nothing": (b"", "ends inside the header"),
        "magic": (_patched(0, b"RSWSNAP1"), "does not begin with"),
        "padding": (_patched(36, b"\1"), "padding"),
        "more": (_layout() + b"\0", "1 bytes follow its end"),
        "sessions too high": (_patched(24, _u32(2**32 - 1)), ""),
        "sessions too low": (_patched(24, _u32(3)), ""),
        "instruments too high": (_patched(28, _u32(2**32 - 1)), "too many instruments"),
        "instruments too low": (_patched(28, _u32(1)), ""),
        "accounts too high": (_patched(32, _u32(2**32 - 1)), "too many .*accounts"),
        "accounts too low": (_patched(32, _u32(1)), ""),
    },
    "session": {
        "twice": (_patched(_SESSIONS, b"\2"), "sessions don't ascend"),
        "role 0": (_patched(_SESSIONS + 2, b"\0"), "role"),
        "role 5": (_patched(_SESSIONS + 2, b"\5"), "role"),
        "options of an administrator": (_patched(_SESSIONS + 3, b"\1"), "options"),
        "options 2": (_patched(_SESSIONS + 48 + 3, b"\2"), "options"),
        "padding": (_patched(_SESSIONS + 7, b"\1"), "padding"),
        "without name": (_patched(_SESSIONS + 16, bytes(7)), "its name"),
        "name not UTF-8": (_patched(_SESSIONS + 16, b"\xff"), "its name"),
        "name with zero": (_patched(_SESSIONS + 17, b"\0"), "its name"),
        "name twice": (_patched(_SESSIONS + 16, b"proxy-0"), "two sessions have one name"),
    },
    "account": {
        "twice": (_patched(_ACCOUNTS, b"\x09"), "accounts don't ascend"),
        "no settings": (_patched(_ACCOUNTS + 56 + 52, b"\0"), "no settings"),
        "killed 2": (_patched(_ACCOUNTS + 52, b"\2"), "kill switch"),
        "padding": (_patched(_ACCOUNTS + 55, b"\1"), "padding"),
        "rate too high": (_patched(_ACCOUNTS + 39, b"\x80"), "rate"),
        "counted without rate": (_patched(_ACCOUNTS + 56 + 48, b"\1"), "counts"),
        "second without count": (_patched(_ACCOUNTS + 56 + 40, b"\1"), "counts"),
        "second ahead": (_patched(_ACCOUNTS + 40, b"\1"), "future"),
    },
    "instrument": {
        "twice": (_patched(_BTC, _u32(ETH)), "don't ascend"),
        "mode 3": (_patched(_BTC + 4, _u32(3)), "mode"),
        "mode 256": (_patched(_BTC + 4, _u32(256)), "mode"),
        "orders too low": (_patched(_BTC + 12, _u32(3)), ""),
        "orders too high": (
            _patched(_BTC + 12, _u32(limits.OPEN_ORDERS_PER_BOOK_MAX - 1)),
            "too many open orders",
        ),
        "stops too low": (_patched(_BTC + 16, _u32(1)), ""),
        "stops too high": (
            _patched(_BTC + 16, _u32(limits.STOPS_PER_BOOK_MAX + 1)),
            "too many",
        ),
        "day end": (_patched(_BTC + 20, _u32(86_400)), "day"),
        "halted 2": (_patched(_BTC + 24, b"\2"), "halted"),
        "padding": (_patched(_BTC + 31, b"\1"), "padding"),
        "no name": (_patched(_BTC + 32, bytes(16)), "its name"),
        "name twice": (_patched(_BTC + 32, b"ETH-USD"), "two instruments have one name"),
        "lowest 0": (_patched(_BTC + 48, bytes(8)), "lowest price|price band"),
        "lowest above highest": (_patched(_BTC + 48, _i64(1_000_001)), "lowest price|price band"),
        "highest 0": (_patched(_BTC + 56, bytes(8)), "highest price|price band"),
        "highest < 0": (_patched(_BTC + 63, b"\x80"), "highest price|price band"),
        "quantity 0": (_patched(_BTC + 64, bytes(8)), "quantity"),
        "tick 0": (_patched(_BTC + 72, bytes(8)), "tick or lot"),
        "lot 0": (_patched(_BTC + 80, bytes(8)), "tick or lot"),
        "notional": (_patched(_BTC + 95, b"\x80"), "notional"),
        "last price": (_patched(_BTC + 103, b"\x80"), "last price"),
    },
    "order": {
        "side 0": (_in_order(_FIRST, 66, b"\0"), "side"),
        "side 3": (_in_order(_FIRST, 66, b"\3"), "side"),
        "padding": (_in_order(_FIRST, 71, b"\1"), "padding"),
        "price 0": (_in_order(_FIRST, 16, bytes(8)), "not positive"),
        "price < 0": (_in_order(_FIRST, 23, b"\x80"), "not positive"),
        "leaves 0": (_in_order(_FIRST, 24, bytes(8)), "its leaves"),
        "leaves > ordered": (_in_order(_FIRST, 24, b"\6"), "its leaves"),
        "displays less": (_in_order(_FIRST, 40, b"\2"), "displays"),
        "displays more": (_in_order(_FIRST, 40, b"\4"), "displays"),
        "iceberg displays none": (_in_order(_ICEBERG, 40, b"\0"), "displays"),
        "iceberg displays too much": (_in_order(_ICEBERG, 40, b"\3"), "displays"),
        "iceberg without display": (_in_order(_ICEBERG, 60, b"\0"), "display quantity"),
        "display of no iceberg": (_in_order(_FIRST, 60, b"\1"), "display quantity"),
        "stop price": (_in_order(_FIRST, 48, b"\1"), "stop price|its type"),
        "expiry of a GTC": (_in_order(_FIRST, 56, b"\1"), "expiry"),
        "DAY without expiry": (_in_order(_THIRD, 56, b"\0"), "expiry"),
        "session": (_in_order(_FIRST, 64, b"\x09"), "session"),
        "market order": (_in_order(_FIRST, 67, b"\1"), "limit order|its type"),
        "stop in the book": (_in_order(_FIRST, 67, b"\4"), "limit order|its type"),
        "IOC": (_in_order(_THIRD, 68, b"\3"), "time in force"),
        "flags": (_in_order(_FIRST, 69, b"\4"), "flags"),
        "flags that no order has": (_in_order(_FIRST, 69, b"\x30"), "flags"),
        "self-trade prevention": (_in_order(_FIRST, 70, b"\5"), "self-trade"),
        "id on two instruments": (_in_order(_FIRST, 0, b"\x08"), "one id|the id 8"),
        "id twice in a book": (_in_order(_FIRST, 0, b"\5"), "one id|the id 5"),
        "id of a stop": (_in_order(_FIRST, 0, b"\6"), "one id|the id 6"),
        "bids ascend": (_in_order(_FIRST, 16, b"\x50"), "in their priority|its place"),
        "locked": (_in_order(_FIRST, 16, b"\x6e"), "cross|its place"),
        "ask first": (_in_order(_FIRST, 66, b"\2"), "in their priority|its place"),
    },
    "stop": {
        "limit order|its type": (_in_order(_STOP, 67, b"\2"), "stop"),
        "type 5": (_in_order(_STOP, 67, b"\5"), "stop"),
        "stop price 0": (_in_order(_STOP, 48, bytes(8)), "stop price"),
        "stop price < 0": (_in_order(_STOP, 55, b"\x80"), "stop price"),
        "price of a stop": (_in_order(_STOP, 16, b"\1"), "price"),
        "price 0 of a stop-limit": (_in_order(_STOP_LIMIT, 16, bytes(8)), "price"),
        "GTD": (_in_order(_STOP_LIMIT, 68, b"\6"), "time in force"),
        "flags": (_in_order(_STOP, 69, b"\1"), "flags"),
        "displays less": (_in_order(_STOP, 40, b"\6"), "displays"),
        "leaves > ordered": (_in_order(_STOP, 24, b"\x08"), "leaves"),
        "traded buy": (_in_order(_STOP, 48, b"\x6e"), "traded"),
        "traded sell": (_in_order(_STOP_LIMIT, 48, b"\x6e"), "traded"),
    },
}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(*case, id=f"{part}: {name}")
        for part, cases in _DAMAGED.items()
        for name, case in cases.items()
    ],
)
def test_what_no_market_wrote_is_refused(implementation: str, data: bytes, problem: str) -> None:
    market_or_skip(implementation)
    with pytest.raises(SnapshotUnreadable, match=f"not a snapshot: .*({problem})"):
        restore_market(implementation, data)


def test_every_byte_may_be_damaged_and_nothing_slips_through(implementation: str) -> None:
    """A changed byte is refused, or is the snapshot of another market: byte for byte the same."""
    layout = _layout()
    restore_or_skip(implementation, layout)
    taken = 0
    for at in range(len(layout)):
        for flip in (0x01, 0x80):
            data = _patched(at, bytes([layout[at] ^ flip]))
            try:
                market = restore_market(implementation, data)
            except SnapshotUnreadable:
                continue
            market.check()
            assert market.snapshot() == data
            taken += 1
    assert 0 < taken < 2 * len(layout)


def test_the_core_restores_a_book_at_its_bound_and_adds_nothing_to_it() -> None:
    """The largest book that a snapshot may hold: 72 MB, all at one price."""
    market_or_skip("rust")
    count = limits.OPEN_ORDERS_PER_BOOK_MAX
    layout = _layout()
    order = layout[_BTC_ORDERS + 72 : _BTC_ORDERS + 2 * 72]
    header = layout[:28] + struct.pack("<II", 1, 0) + layout[36:_ACCOUNTS]
    instrument = bytearray(layout[_BTC:_BTC_ORDERS])
    instrument[12:20] = struct.pack("<II", count, 0)
    orders = b"".join(struct.pack("<Q", number) + order[8:] for number in range(count))
    driver = Driver(restore_market("rust", header + bytes(instrument) + orders))
    driver.refs = {2: 9}
    assert driver.reason(new(count, BUY, 4, 1)) is Reason.BOOK_FULL
    assert len(driver.market.orders(BTC)) == count * 48


def test_the_hash_does_not_depend_on_who_computes_it() -> None:
    python, rust = (traded(each).market for each in ("python", "rust"))
    assert state_hash(python) == state_hash(rust)
    driver = Driver(rust)
    driver.refs = {2: 9}
    driver.send(changed(new(9), kind=99))  # rejected, and still a state of its own
    assert state_hash(python) != state_hash(rust)
