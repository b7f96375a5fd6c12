"""What every market does, whichever the implementation: the same tests over both."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

import pytest
from market_driver import (
    BTC,
    BUY,
    ETH,
    PRICE_MAX,
    QTY_MAX,
    SELL,
    Driver,
    cancel,
    changed,
    define,
    ioc,
    market_or_skip,
    market_order,
    new,
    opened,
    restore_or_skip,
    set_mode,
)

from engine.errors import EngineImplementationUnavailable
from engine.market import create_market, restore_market, state_hash
from engine.reject import Reason
from engine.snapshot import MarketState, encode_state
from engine.types import (
    Command,
    Event,
    EventFlag,
    EventKind,
    Mode,
    OrderType,
    RestingOrder,
    TimeInForce,
)
from engine.wire import encode_command, encode_commands

U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1


# --- orders and fills


def test_a_limit_order_is_accepted_and_rests(driver: Driver) -> None:
    assert driver.send(new(1, BUY, 100, 5)) == [
        Event(
            kind=EventKind.ACCEPTED,
            side=BUY,
            ord_type=OrderType.LIMIT,
            tif=TimeInForce.GTC,
            flags=EventFlag.LAST | EventFlag.LIVE,
            instrument=BTC,
            seq=8,
            ref=1,
            order_id=1,
            contra_id=7,
            price_ticks=100,
            qty_lots=5,
            leaves_lots=5,
        )
    ]
    assert driver.orders() == [
        RestingOrder(order_id=1, account=7, price_ticks=100, leaves_lots=5, qty_lots=5, side=BUY)
    ]


def test_a_fill_says_who_met_whom_at_the_makers_price(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5, account=8))
    accepted, fill = driver.send(new(2, BUY, 103, 7))
    assert (accepted.kind, accepted.flags, accepted.leaves_lots) == (
        EventKind.ACCEPTED,
        EventFlag.LIVE,
        7,
    )
    assert fill == Event(
        kind=EventKind.FILL,
        side=BUY,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        flags=EventFlag.LAST | EventFlag.LIVE,
        instrument=BTC,
        sub=1,
        seq=9,
        ref=2,
        order_id=2,
        contra_id=1,
        price_ticks=100,
        qty_lots=5,
        leaves_lots=2,
        contra_leaves_lots=0,
    )
    rest = RestingOrder(order_id=2, account=7, price_ticks=103, leaves_lots=2, qty_lots=7, side=BUY)
    assert driver.orders() == [rest]


def test_the_best_price_comes_first_then_the_oldest(driver: Driver) -> None:
    for order_id, price in ((1, 102), (2, 101), (3, 101), (4, 103)):
        driver.send(new(order_id, SELL, price, 5))
    assert driver.fills(new(5, BUY, 103, 18)) == [
        (2, 101, 5),
        (3, 101, 5),
        (1, 102, 5),
        (4, 103, 3),
    ]
    for order_id, price in ((6, 90), (7, 91), (8, 91), (9, 89)):
        driver.send(new(order_id, BUY, price, 5))
    assert driver.fills(new(10, SELL, 89, 18)) == [(7, 91, 5), (8, 91, 5), (6, 90, 5), (9, 89, 3)]


def test_a_sweep_stops_at_its_own_limit(driver: Driver) -> None:
    for order_id, price in ((1, 100), (2, 101), (3, 102)):
        driver.send(new(order_id, SELL, price, 5))
    assert driver.fills(new(4, BUY, 101, 100)) == [(1, 100, 5), (2, 101, 5)]
    assert driver.ids() == [4, 3]


def test_a_partly_filled_maker_keeps_its_place(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5))
    driver.send(new(2, SELL, 100, 5))
    driver.send(new(3, BUY, 100, 2))
    assert driver.fills(new(4, BUY, 100, 4)) == [(1, 100, 3), (2, 100, 1)]


def test_what_an_ioc_does_not_get_is_canceled_and_never_rests(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 3))
    events = driver.send(ioc(2, BUY, 100, 5))
    assert [event.kind for event in events] == [
        EventKind.ACCEPTED,
        EventKind.FILL,
        EventKind.CANCELED,
    ]
    assert events[2] == Event(
        kind=EventKind.CANCELED,
        side=BUY,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.IOC,
        reason=Reason.UNFILLED,
        flags=EventFlag.LAST | EventFlag.LIVE,
        instrument=BTC,
        sub=2,
        seq=9,
        ref=2,
        order_id=2,
        contra_id=7,
        price_ticks=100,
        qty_lots=2,
    )
    assert driver.ids() == []


def test_a_filled_ioc_has_nothing_to_cancel(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5))
    assert [event.kind for event in driver.send(ioc(2, BUY, 100, 5))] == [
        EventKind.ACCEPTED,
        EventKind.FILL,
    ]


def test_a_market_order_takes_any_price_and_never_rests(driver: Driver) -> None:
    driver.send(new(1, SELL, PRICE_MAX, 2))
    driver.send(new(2, SELL, 1, 2))
    events = driver.send(market_order(3, BUY, 5))
    assert [(e.kind, e.price_ticks, e.qty_lots, e.leaves_lots) for e in events] == [
        (EventKind.ACCEPTED, 0, 5, 5),
        (EventKind.FILL, 1, 2, 3),
        (EventKind.FILL, PRICE_MAX, 2, 1),
        (EventKind.CANCELED, 0, 1, 0),
    ]
    assert driver.ids() == []


def test_a_market_order_in_an_empty_book_is_accepted_and_canceled(driver: Driver) -> None:
    kinds = [event.kind for event in driver.send(market_order(1, SELL, 5))]
    assert kinds == [EventKind.ACCEPTED, EventKind.CANCELED]


def test_one_order_sweeps_five_thousand(driver: Driver) -> None:
    driver.batch([new(order_id, SELL, 100, 1) for order_id in range(1, 5_001)])
    qty_max = define(BTC, "BTC-USD", qty_lots_max=10_000)
    driver.send(qty_max)
    fills = driver.fills(new(6_000, BUY, 100, 5_001))
    assert fills == [(order_id, 100, 1) for order_id in range(1, 5_001)]
    assert [order.leaves_lots for order in driver.orders()] == [1]


def test_the_book_is_listed_bids_then_asks_best_first_then_oldest(driver: Driver) -> None:
    for order_id, side, price in (
        (1, SELL, 110),
        (2, BUY, 90),
        (3, BUY, 91),
        (4, SELL, 109),
        (5, BUY, 91),
        (6, SELL, 110),
    ):
        driver.send(new(order_id, side, price))
    assert driver.ids() == [3, 5, 2, 4, 1, 6]


# --- cancels


def test_a_cancel_answers_with_the_order_and_what_was_open(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5))
    driver.send(new(2, BUY, 100, 2))
    assert driver.send(cancel(1)) == [
        Event(
            kind=EventKind.CANCELED,
            side=SELL,
            ord_type=OrderType.LIMIT,
            tif=TimeInForce.GTC,
            reason=Reason.BY_REQUEST,
            flags=EventFlag.LAST | EventFlag.LIVE,
            instrument=BTC,
            seq=10,
            ref=3,
            order_id=1,
            contra_id=7,
            price_ticks=100,
            qty_lots=3,
        )
    ]
    assert driver.ids() == []


def test_what_is_not_open_cannot_be_canceled(driver: Driver) -> None:
    driver.batch([new(1, SELL), new(2, BUY)])
    assert driver.reason(cancel(1)) is Reason.UNKNOWN_ORDER  # filled
    driver.batch([new(3), cancel(3)])
    assert driver.reason(cancel(3)) is Reason.UNKNOWN_ORDER  # canceled
    assert driver.reason(cancel(4)) is Reason.UNKNOWN_ORDER  # never there


def test_a_cancel_names_the_instrument_and_the_account_of_the_order(driver: Driver) -> None:
    driver.send(set_mode(Mode.LIVE, 1, instrument=ETH))
    driver.send(new(1))
    assert driver.reason(cancel(1, instrument=ETH)) is Reason.UNKNOWN_ORDER
    assert driver.reason(cancel(1, account=8)) is Reason.NOT_OWNER
    assert driver.ids() == [1]


@pytest.mark.parametrize(("gone", "left"), [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])])
def test_a_cancel_leaves_the_rest_of_the_queue_in_place(
    driver: Driver, gone: int, left: list[int]
) -> None:
    driver.batch([new(order_id, SELL, 100, 1) for order_id in (1, 2, 3)])
    driver.send(cancel(gone))
    assert driver.ids() == left
    assert [maker for maker, _, _ in driver.fills(new(9, BUY, 100, 2))] == left


def test_the_next_level_is_best_when_the_last_of_the_best_goes(driver: Driver) -> None:
    driver.batch([new(1, BUY, 101), new(2, BUY, 100), cancel(1)])
    assert driver.fills(new(3, SELL, 101)) == []
    assert driver.fills(new(4, SELL, 100, 5)) == [(2, 100, 5)]


# --- identity of orders


def test_an_id_that_is_open_is_refused_before_anything_trades(driver: Driver) -> None:
    driver.batch([new(1, BUY, 90), new(2, SELL, 100)])
    before = driver.market.orders(BTC)
    assert driver.reason(new(1, BUY, 100)) is Reason.DUPLICATE_ORDER_ID
    assert driver.market.orders(BTC) == before


def test_an_id_is_taken_on_every_instrument_of_the_shard(driver: Driver) -> None:
    driver.send(set_mode(Mode.LIVE, 1, instrument=ETH))
    driver.send(new(1))
    assert driver.reason(new(1, instrument=ETH)) is Reason.DUPLICATE_ORDER_ID
    driver.send(cancel(1))
    assert driver.reason(new(1, instrument=ETH)) is Reason.NONE


def test_an_id_is_free_again_after_fill_and_cancel(driver: Driver) -> None:
    driver.batch([new(1, SELL), new(2, BUY), new(1, SELL), cancel(1)])
    assert driver.reason(new(1)) is Reason.NONE
    assert driver.reason(ioc(2, BUY, 50, 1)) is Reason.NONE
    assert driver.reason(new(2, BUY, 50)) is Reason.NONE


@pytest.mark.parametrize("order_id", [0, 1, 2**63, U64_MAX])
def test_every_number_is_an_order_id(driver: Driver, order_id: int) -> None:
    driver.send(new(order_id, account=U64_MAX))
    assert driver.ids() == [order_id]
    assert driver.reason(new(order_id)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(cancel(order_id, account=U64_MAX)) is Reason.NONE


# --- numbers


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (new(1, BUY, 1), Reason.NONE),
        (new(1, BUY, PRICE_MAX), Reason.NONE),
        (new(1, BUY, 0), Reason.BAD_PRICE),
        (new(1, BUY, -1), Reason.BAD_PRICE),
        (new(1, SELL, -(2**63)), Reason.BAD_PRICE),
        (new(1, BUY, PRICE_MAX + 1), Reason.PRICE_TOO_HIGH),
        (new(1, SELL, I64_MAX), Reason.PRICE_TOO_HIGH),
        (changed(market_order(1, BUY, 1), price_ticks=1), Reason.BAD_PRICE),
        (changed(market_order(1, BUY, 1), price_ticks=-1), Reason.BAD_PRICE),
        (new(1, BUY, 100, 0), Reason.BAD_QUANTITY),
        (market_order(1, BUY, 0), Reason.BAD_QUANTITY),
        (new(1, BUY, 100, 1), Reason.NONE),
        (new(1, BUY, 100, QTY_MAX), Reason.NONE),
        (new(1, BUY, 100, QTY_MAX + 1), Reason.QUANTITY_TOO_LARGE),
        (new(1, BUY, 100, U64_MAX), Reason.QUANTITY_TOO_LARGE),
        (market_order(1, SELL, U64_MAX), Reason.QUANTITY_TOO_LARGE),
    ],
)
def test_prices_and_quantities_have_edges(driver: Driver, command: Command, reason: Reason) -> None:
    assert driver.reason(command) is reason


def test_the_widest_limits_hold_the_largest_numbers(driver: Driver) -> None:
    driver.send(define(BTC, "BTC-USD", price_ticks_max=I64_MAX, qty_lots_max=U64_MAX))
    driver.batch([new(order_id, SELL, I64_MAX, U64_MAX) for order_id in (1, 2, 3)])
    assert driver.fills(new(4, BUY, I64_MAX, U64_MAX)) == [(1, I64_MAX, U64_MAX)]
    assert driver.fills(new(5, BUY, I64_MAX, 1)) == [(2, I64_MAX, 1)]
    assert [order.leaves_lots for order in driver.orders()] == [U64_MAX - 1, U64_MAX]


# --- batches


def test_a_batch_is_its_commands_one_by_one(implementation: str) -> None:
    commands = [
        new(1, SELL, 100, 5),
        new(2, BUY, 100, 3),
        changed(new(3), kind=99),
        ioc(4, BUY, 100, 9),
        cancel(1),
    ]
    one, many = (opened(market_or_skip(implementation)) for _ in range(2))
    assert one.batch(commands) == [many.send(command) for command in commands]
    assert one.market.snapshot() == many.market.snapshot()


def test_every_command_is_numbered_without_gaps(driver: Driver) -> None:
    events = driver.batch([new(1), changed(new(2), kind=99), cancel(9), market_order(3, SELL, 9)])
    assert [[(e.seq, e.sub) for e in each] for each in events] == [
        [(8, 0)],
        [(9, 0)],
        [(10, 0)],
        [(11, 0), (11, 1), (11, 2)],
    ]
    lasts = [[bool(e.flags & EventFlag.LAST) for e in each] for each in events]
    assert lasts == [[True], [True], [True], [False, False, True]]
    assert driver.market.last_seq == 11


def test_a_batch_may_be_any_bytes_or_none(driver: Driver) -> None:
    assert driver.market.apply(b"", 0) == b""
    data = encode_commands([new(1, ref=1), new(2, ref=2)])
    driver.market.apply(memoryview(b"x" + data)[1:], 10)
    driver.market.apply(memoryview(bytearray(encode_command(new(3, ref=3)))), 10)
    assert driver.ids() == [1, 2, 3]


@pytest.mark.parametrize("length", [1, 63, 65, 127])
def test_a_batch_of_another_length_changes_nothing(driver: Driver, length: int) -> None:
    before = driver.market.snapshot()
    with pytest.raises(ValueError, match=f"{length} bytes is not made of 64-byte commands"):
        driver.market.apply(encode_commands([new(1, ref=1)] * 2)[:length], 10)
    assert driver.market.snapshot() == before


@pytest.mark.parametrize("ts_ns", [-1, 2**64])
def test_a_time_outside_its_field_changes_nothing(driver: Driver, ts_ns: int) -> None:
    before = driver.market.snapshot()
    with pytest.raises(ValueError, match="is no time"):
        driver.market.apply(encode_command(new(1, ref=1)), ts_ns)
    assert driver.market.snapshot() == before


def test_each_command_has_its_microsecond_and_time_never_goes_back(driver: Driver) -> None:
    market = driver.market
    market.apply(encode_commands([new(1, ref=1), new(2, ref=2), new(3, ref=3)]), 10**9)
    assert market.last_ts_ns == 10**9 + 2_000
    market.apply(encode_command(new(4, ref=4)), 5)
    assert market.last_ts_ns == 10**9 + 2_000
    market.apply(encode_commands([new(5, ref=5), new(6, ref=6)]), U64_MAX)
    assert market.last_ts_ns == U64_MAX


def test_a_batch_beyond_the_last_sequence_number_changes_nothing(implementation: str) -> None:
    state = MarketState(last_seq=U64_MAX - 1, last_ts_ns=0, sessions=(), instruments=(), books=())
    market = restore_or_skip(implementation, encode_state(state))
    with pytest.raises(ValueError, match="sequence numbers are used up"):
        market.apply(encode_commands([new(1), new(2)]), 10)
    market.apply(encode_command(new(1)), 10)
    assert market.last_seq == U64_MAX


def test_the_core_lets_other_threads_run_while_it_works() -> None:
    market = opened(market_or_skip("rust")).market
    batch = encode_commands(new(ref, BUY, 100, ref=ref) for ref in range(1, 20_001))
    switch_interval = sys.getswitchinterval()
    sys.setswitchinterval(3_600)  # from here on a thread runs until it gives up by itself
    try:
        ran_meanwhile = any(_ran_meanwhile(lambda: market.apply(batch, 10)) for _ in range(200))
    finally:
        sys.setswitchinterval(switch_interval)
    assert ran_meanwhile


def _ran_meanwhile(work: Callable[[], object]) -> bool:
    begun, done = threading.Event(), threading.Event()

    def run() -> None:
        begun.set()
        work()
        done.set()

    thread = threading.Thread(target=run)
    thread.start()
    begun.wait()
    ran = not done.is_set()
    thread.join()
    return ran


# --- which implementation


def test_the_hash_is_of_the_whole_state(driver: Driver) -> None:
    hashes = [state_hash(driver.market)]
    for command in (new(1), cancel(1), changed(new(2), kind=99)):
        driver.send(command)
        hashes.append(state_hash(driver.market))
    assert len(set(hashes)) == 4
    assert all(len(each) == 32 for each in hashes)


def test_a_market_says_which_it_is(implementation: str) -> None:
    assert market_or_skip(implementation).implementation == implementation


def test_an_implementation_that_does_not_exist_is_refused_by_name() -> None:
    for make in (create_market, lambda name: restore_market(name, b"")):
        with pytest.raises(EngineImplementationUnavailable, match="'java': choose python or rust"):
            make("java")


def test_without_the_core_rust_is_refused_and_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "engine._core", None)  # what an import meets that fails
    for make in (create_market, lambda name: restore_market(name, b"")):
        with pytest.raises(EngineImplementationUnavailable, match=r"install Rust .*=python"):
            make("rust")
    assert create_market("python").implementation == "python"
