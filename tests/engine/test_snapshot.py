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
    SELL,
    SHADOW,
    Driver,
    changed,
    market_or_skip,
    new,
    opened,
    restore_or_skip,
    set_mode,
)

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.market import restore_market, state_hash
from engine.reject import Reason
from engine.snapshot import decode_state, encode_state
from engine.types import Mode, RestingOrder
from engine.wire import encode_resting_order

# Offsets in `_layout`: header, then four sessions, then two instruments with their orders.
_SESSIONS, _INSTRUMENTS = 32, 32 + 4 * 48


def traded(implementation: str) -> Driver:
    """BTC live with four orders, one of them partly filled; ETH in shadow with one."""
    driver = opened(market_or_skip(implementation))
    driver.batch(
        [
            new(1, SELL, 110, 5),
            new(2, BUY, 90, 5),
            new(3, BUY, 91, 5, account=8),
            new(4, SELL, 91, 2),
            new(5, BUY, 91, 1),
            set_mode(Mode.SHADOW, 4, instrument=ETH),
            new(6, SELL, 7, 9, session=SHADOW, instrument=ETH),
        ]
    )
    return driver


@pytest.fixture
def snapshot(implementation: str) -> bytes:
    return traded(implementation).market.snapshot()


def _layout() -> bytes:
    """The documented layout, put together by hand."""

    def session(number: int, role: int, last_ref: int, name: bytes) -> bytes:
        return struct.pack("<HB5xQ32s", number, role, last_ref, name)

    def instrument(number: int, mode: int, epoch: int, orders: int, name: bytes) -> bytes:
        return struct.pack("<IIII16sqQ", number, mode, epoch, orders, name, 1_000_000, 1_000)

    def order(order_id: int, account: int, price: int, leaves: int, qty: int, side: int) -> bytes:
        return struct.pack("<QQqQQB7x", order_id, account, price, leaves, qty, side)

    return b"".join(
        [
            b"RSWSNAP1" + struct.pack("<QQII", 14, 13_000 + 1_000, 4, 2),
            session(1, 3, 4, b"control"),
            session(2, 1, 5, b"proxy-0"),
            session(3, 2, 1, b"shadow-feed"),
            session(4, 4, 0, b"reader"),
            instrument(BTC, Mode.LIVE, 1, 4, b"BTC-USD"),
            order(3, 8, 91, 3, 5, BUY),
            order(5, 7, 91, 1, 1, BUY),
            order(2, 7, 90, 5, 5, BUY),
            order(1, 7, 110, 5, 5, SELL),
            instrument(ETH, Mode.SHADOW, 4, 1, b"ETH-USD"),
            order(6, 7, 7, 9, 9, SELL),
        ]
    )


def test_the_bytes_are_as_documented(implementation: str, snapshot: bytes) -> None:
    assert snapshot == _layout()
    empty = market_or_skip(implementation).snapshot()
    assert empty == b"RSWSNAP1" + bytes(24)


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
    answers = []
    for market in (original, restored):
        driver = Driver(market)
        driver.refs = {2: 5}
        answers.append(driver.batch([new(7, SELL, 90, 20), new(8, BUY, 200, 20)]))
    assert answers[0] == answers[1]
    assert original.snapshot() == restored.snapshot()


def test_each_reads_what_the_other_wrote() -> None:
    python, rust = (traded(each).market for each in ("python", "rust"))
    assert python.snapshot() == rust.snapshot()
    assert restore_market("rust", python.snapshot()).snapshot() == rust.snapshot()
    assert restore_market("python", rust.snapshot()).snapshot() == python.snapshot()


def test_a_snapshot_decodes_to_values_and_back(snapshot: bytes) -> None:
    state = decode_state(snapshot)
    assert (state.last_seq, [each.name for each in state.sessions][1]) == (14, "proxy-0")
    assert [each.open_orders for each in state.instruments] == [4, 1]
    assert [[order.order_id for order in book] for book in state.books] == [[3, 5, 2, 1], [6]]
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


_BTC_ORDERS = _INSTRUMENTS + 48
_ETH = _BTC_ORDERS + 4 * 48


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        pytest.param(b"", "ends inside the header", id="nothing"),
        pytest.param(_patched(0, b"RSWSNAP2"), "does not begin with", id="magic"),
        pytest.param(_layout() + b"\0", "1 bytes follow its end", id="more"),
        pytest.param(_patched(24, _u32(2**32 - 1)), "", id="sessions counted too high"),
        pytest.param(_patched(24, _u32(3)), "", id="sessions counted too low"),
        pytest.param(_patched(28, _u32(2**32 - 1)), "too many instruments", id="instruments high"),
        pytest.param(_patched(28, _u32(1)), "follow its end", id="instruments counted too low"),
        pytest.param(_patched(_SESSIONS, b"\2"), "sessions don't ascend", id="session twice"),
        pytest.param(_patched(_SESSIONS + 2, b"\0"), "unknown role", id="role 0"),
        pytest.param(_patched(_SESSIONS + 2, b"\5"), "unknown role", id="role 5"),
        pytest.param(_patched(_SESSIONS + 7, b"\1"), "padding", id="session padding"),
        pytest.param(_patched(_SESSIONS + 16, bytes(7)), "its name", id="session without name"),
        pytest.param(_patched(_SESSIONS + 16, b"\xff"), "its name", id="session name not UTF-8"),
        pytest.param(_patched(_SESSIONS + 17, b"\0"), "its name", id="session name with zero"),
        pytest.param(
            _patched(_SESSIONS + 16, b"proxy-0"), "two sessions have one name", id="session name"
        ),
        pytest.param(_patched(_INSTRUMENTS, _u32(ETH)), "don't ascend", id="instrument twice"),
        pytest.param(_patched(_INSTRUMENTS + 4, _u32(3)), "unknown mode", id="mode 3"),
        pytest.param(_patched(_INSTRUMENTS + 4, _u32(256)), "unknown mode", id="mode 256"),
        pytest.param(_patched(_INSTRUMENTS + 12, _u32(3)), "", id="orders counted too low"),
        pytest.param(
            _patched(_INSTRUMENTS + 12, _u32(limits.OPEN_ORDERS_PER_BOOK_MAX + 1)),
            "too many open orders",
            id="orders counted too high",
        ),
        pytest.param(_patched(_INSTRUMENTS + 16, bytes(16)), "its name", id="no name"),
        pytest.param(
            _patched(_INSTRUMENTS + 16, b"ETH-USD"), "two instruments have one name", id="name"
        ),
        pytest.param(_patched(_INSTRUMENTS + 32, bytes(8)), "highest price", id="price max 0"),
        pytest.param(_patched(_INSTRUMENTS + 39, b"\x80"), "highest price", id="price max < 0"),
        pytest.param(_patched(_INSTRUMENTS + 40, bytes(8)), "largest quantity", id="qty max 0"),
        pytest.param(_patched(_BTC_ORDERS + 40, b"\0"), "side", id="side 0"),
        pytest.param(_patched(_BTC_ORDERS + 40, b"\3"), "side", id="side 3"),
        pytest.param(_patched(_BTC_ORDERS + 47, b"\1"), "padding", id="order padding"),
        pytest.param(_patched(_BTC_ORDERS + 16, bytes(8)), "not positive", id="price 0"),
        pytest.param(_patched(_BTC_ORDERS + 23, b"\x80"), "not positive", id="price < 0"),
        pytest.param(_patched(_BTC_ORDERS + 24, bytes(8)), "its leaves", id="leaves 0"),
        pytest.param(_patched(_BTC_ORDERS + 24, b"\6"), "its leaves", id="leaves > ordered"),
        pytest.param(_patched(_BTC_ORDERS, b"\6"), "one id|the id 6", id="id on two instruments"),
        pytest.param(_patched(_BTC_ORDERS, b"\5"), "one id|the id 5", id="id twice in a book"),
        pytest.param(_patched(_BTC_ORDERS + 16, b"\x50"), "in their priority", id="bids ascend"),
        pytest.param(_patched(_BTC_ORDERS + 16, b"\x6e"), "cross", id="locked"),
        pytest.param(_patched(_BTC_ORDERS + 40, b"\2"), "in their priority", id="ask first"),
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
    """The largest book that a snapshot may hold: 48 MB, all at one price."""
    market_or_skip("rust")
    count = limits.OPEN_ORDERS_PER_BOOK_MAX
    order = encode_resting_order(
        RestingOrder(order_id=0, account=7, price_ticks=5, leaves_lots=1, qty_lots=1, side=BUY)
    )
    until_orders = _patched(_INSTRUMENTS + 12, _u32(count))[:_BTC_ORDERS]
    header = until_orders[:28] + _u32(1) + until_orders[32:]
    orders = b"".join(struct.pack("<Q", number) + order[8:] for number in range(count))
    driver = Driver(restore_market("rust", header + orders))
    driver.refs = {2: 5}
    assert driver.reason(new(count, BUY, 4, 1)) is Reason.BOOK_FULL
    assert driver.market.orders(BTC) == orders


def test_the_hash_does_not_depend_on_who_computes_it() -> None:
    python, rust = (traded(each).market for each in ("python", "rust"))
    assert state_hash(python) == state_hash(rust)
    driver = Driver(rust)
    driver.refs = {2: 5}
    driver.send(changed(new(9), kind=99))  # rejected, and still a state of its own
    assert state_hash(python) != state_hash(rust)
