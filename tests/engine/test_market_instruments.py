"""Instruments, their limits, and the bounds of every market, whichever the implementation: the same
tests over both.
"""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    CONTROL,
    ETH,
    SELL,
    SHADOW,
    Driver,
    at_least,
    bounded_market,
    brief,
    cancel,
    changed,
    clear,
    day,
    define,
    fok,
    gtd,
    halt,
    iceberg,
    ioc,
    kill,
    limit_account,
    limit_instrument,
    market_order,
    mass_cancel,
    new,
    opened,
    price_band,
    reduce,
    replace,
    set_mode,
    stop,
    stop_limit,
)

from engine import limits
from engine.reject import Reason
from engine.snapshot import InstrumentState
from engine.types import Command, EventFlag, EventKind, MassCancelScope, Mode

U64_MAX = 2**64 - 1
I64_MAX = 2**63 - 1


def state_of(driver: Driver, instrument: int = BTC) -> InstrumentState:
    [state] = [each for each in driver.market.instruments() if each.instrument == instrument]
    return state


# --- instruments


def test_an_instrument_begins_closed_at_epoch_zero(driver: Driver) -> None:
    [event] = driver.send(define(3, "LTC-USD", price_ticks_max=9, qty_lots_max=8))
    assert (event.kind, event.price_ticks, event.qty_lots) == (EventKind.INSTRUMENT, 9, 8)
    name = event.contra_id.to_bytes(8, "little") + event.order_id.to_bytes(8, "little")
    assert name.rstrip(b"\0") == b"LTC-USD"
    state = driver.market.instruments()[-1]
    assert (state.instrument, state.name, state.mode, state.epoch) == (3, "LTC-USD", Mode.CLOSED, 0)
    assert (state.open_orders, state.price_ticks_max, state.qty_lots_max) == (0, 9, 8)


def test_an_instrument_keeps_its_name_and_a_name_its_instrument(driver: Driver) -> None:
    assert driver.reason(define(BTC, "BTC-EUR")) is Reason.INSTRUMENT_MISMATCH
    assert driver.reason(define(3, "BTC-USD")) is Reason.INSTRUMENT_MISMATCH
    assert driver.reason(define(BTC, "ETH-USD")) is Reason.INSTRUMENT_MISMATCH
    assert driver.reason(define(BTC, "BTC-USD")) is Reason.NONE


@pytest.mark.parametrize(
    ("price_ticks_max", "qty_lots_max", "reason"),
    [(0, 1, Reason.BAD_PRICE), (-(2**63), 1, Reason.BAD_PRICE), (1, 0, Reason.BAD_QUANTITY)],
)
def test_limits_that_allow_nothing_are_refused(
    driver: Driver, price_ticks_max: int, qty_lots_max: int, reason: Reason
) -> None:
    for number, name in ((BTC, "BTC-USD"), (3, "LTC-USD")):
        command = define(number, name, price_ticks_max=price_ticks_max, qty_lots_max=qty_lots_max)
        assert driver.reason(command) is reason
    assert len(driver.market.instruments()) == 2


def test_new_limits_hold_for_new_orders_and_leave_the_book_alone(driver: Driver) -> None:
    driver.send(new(1, SELL, 500, 50))
    driver.send(define(BTC, "BTC-USD", price_ticks_max=400, qty_lots_max=10))
    assert driver.ids() == [1]
    assert driver.reason(new(2, BUY, 500, 5)) is Reason.PRICE_TOO_HIGH
    assert driver.reason(new(2, BUY, 400, 50)) is Reason.QUANTITY_TOO_LARGE
    assert driver.fills(market_order(3, BUY, 10)) == [(1, 500, 10)]


def test_instruments_are_bounded(driver: Driver) -> None:
    room = limits.INSTRUMENTS_MAX - len(driver.market.instruments())
    driver.batch([define(100 + number, f"I{number}") for number in range(room)])
    assert len(driver.market.instruments()) == limits.INSTRUMENTS_MAX
    assert driver.reason(define(99_999, "one more")) is Reason.BOOK_FULL
    assert driver.reason(define(BTC, "BTC-USD")) is Reason.NONE


def test_clear_empties_one_book_and_frees_its_ids(driver: Driver) -> None:
    driver.send(set_mode(Mode.SHADOW, 1, instrument=ETH))
    feed = [new(order_id, session=SHADOW, instrument=ETH) for order_id in (1, 2, 3)]
    driver.batch([*feed, new(4)])
    [event] = driver.send(clear(instrument=ETH))
    assert (event.kind, event.qty_lots, event.flags) == (EventKind.CLEARED, 3, EventFlag.LAST)
    assert (driver.ids(ETH), driver.ids(BTC)) == ([], [4])
    assert driver.reason(new(1, session=SHADOW, instrument=ETH)) is Reason.NONE
    assert driver.send(clear(instrument=ETH, session=CONTROL))[0].qty_lots == 1


def test_a_live_book_is_not_cleared(driver: Driver) -> None:
    driver.send(new(1))
    for session in (SHADOW, CONTROL):
        assert driver.reason(clear(session=session)) is Reason.INSTRUMENT_LIVE
    assert driver.ids() == [1]


# --- steps, bands, notional


def test_an_instrument_begins_with_the_widest_limits(driver: Driver) -> None:
    state = state_of(driver)
    assert (state.price_ticks_min, state.tick_ticks, state.lot_lots) == (1, 1, 1)
    assert (state.notional_max, state.day_end_s, state.halted) == (0, 0, False)
    assert (state.last_price_ticks, state.pending_stops) == (0, 0)


def test_limits_are_set_and_told(driver: Driver) -> None:
    command = limit_instrument(
        tick_ticks=5, lot_lots=10, qty_lots_max=50, notional_max=9_000, day_end_s=3_600
    )
    [event] = driver.send(command)
    assert event.kind is EventKind.INSTRUMENT_LIMITS
    assert (event.contra_id, event.order_id, event.qty_lots) == (5, 10, 50)
    assert (event.price_ticks, event.leaves_lots, event.instrument) == (9_000, 3_600, BTC)
    state = state_of(driver)
    assert (state.tick_ticks, state.lot_lots, state.qty_lots_max) == (5, 10, 50)
    assert (state.notional_max, state.day_end_s) == (9_000, 3_600)
    [event] = driver.send(price_band(20, 30))
    assert (event.kind, event.price_ticks, event.leaves_lots) == (EventKind.PRICE_BAND, 30, 20)
    state = state_of(driver)
    assert (state.price_ticks_min, state.price_ticks_max) == (20, 30)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (limit_instrument(qty_lots_max=0), Reason.BAD_QUANTITY),
        (limit_instrument(99), Reason.UNKNOWN_INSTRUMENT),
        (price_band(0, 5), Reason.BAD_PRICE),
        (price_band(6, 5), Reason.BAD_PRICE),
        (price_band(1, 0), Reason.BAD_PRICE),
        (changed(price_band(1, 1), price_ticks=-1, aux=U64_MAX), Reason.BAD_PRICE),
        (changed(price_band(1, 1), price_ticks=I64_MAX, aux=I64_MAX + 1), Reason.BAD_PRICE),
        (price_band(I64_MAX, I64_MAX), Reason.NONE),
        (price_band(1, 5, instrument=99), Reason.UNKNOWN_INSTRUMENT),
        (halt(instrument=99), Reason.UNKNOWN_INSTRUMENT),
        (limit_instrument(tick_ticks=U64_MAX, lot_lots=U64_MAX), Reason.NONE),
    ],
)
def test_limits_have_edges(driver: Driver, command: Command, reason: Reason) -> None:
    before = state_of(driver)
    assert driver.reason(command) is reason
    assert (state_of(driver) == before) == (reason is not Reason.NONE)


def test_a_lower_ceiling_takes_the_floor_with_it(driver: Driver) -> None:
    driver.batch([price_band(20, 30), define(BTC, "BTC-USD", price_ticks_max=25)])
    assert (state_of(driver).price_ticks_min, state_of(driver).price_ticks_max) == (20, 25)
    driver.send(define(BTC, "BTC-USD", price_ticks_max=15))
    assert (state_of(driver).price_ticks_min, state_of(driver).price_ticks_max) == (15, 15)
    driver.send(define(BTC, "BTC-USD", price_ticks_max=30))
    assert state_of(driver).price_ticks_min == 15


_STEPPED = (
    limit_instrument(tick_ticks=5, lot_lots=10, qty_lots_max=100, notional_max=5_000),
    price_band(20, 200),
)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (new(1, BUY, 100, 50), Reason.NONE),
        (new(1, BUY, 100, 60), Reason.NOTIONAL_TOO_LARGE),
        (new(1, BUY, 101, 50), Reason.PRICE_OFF_TICK),
        (new(1, BUY, 100, 55), Reason.QUANTITY_OFF_LOT),
        (new(1, BUY, 15, 50), Reason.PRICE_TOO_LOW),
        (new(1, BUY, 20, 50), Reason.NONE),
        (new(1, BUY, 205, 50), Reason.PRICE_TOO_HIGH),
        (new(1, BUY, 20, 110), Reason.QUANTITY_TOO_LARGE),
        (market_order(1, BUY, 100), Reason.NONE),
        (market_order(1, BUY, 15), Reason.QUANTITY_OFF_LOT),
        (stop(1, BUY, 100, 100), Reason.NONE),
        (stop(1, BUY, 0, 100), Reason.BAD_STOP_PRICE),
        (stop(1, BUY, 15, 100), Reason.BAD_STOP_PRICE),
        (stop(1, BUY, 205, 100), Reason.BAD_STOP_PRICE),
        (stop(1, BUY, 101, 100), Reason.BAD_STOP_PRICE),
        (changed(stop(1, BUY, 100, 100), aux=U64_MAX), Reason.BAD_STOP_PRICE),
        (changed(stop(1, BUY, 100, 100), price_ticks=5), Reason.BAD_PRICE),
        (stop_limit(1, BUY, 100, 100, 50), Reason.NONE),
        (stop_limit(1, BUY, 100, 100, 60), Reason.NOTIONAL_TOO_LARGE),
        (stop_limit(1, BUY, 100, 101, 50), Reason.PRICE_OFF_TICK),
        (stop_limit(1, BUY, 100, 0, 50), Reason.BAD_PRICE),
        (stop_limit(1, BUY, 101, 100, 50), Reason.BAD_STOP_PRICE),
        (iceberg(1, BUY, 100, 50, 10), Reason.NONE),
        (iceberg(1, BUY, 100, 50, 0), Reason.BAD_DISPLAY_QUANTITY),
        (iceberg(1, BUY, 100, 50, 50), Reason.BAD_DISPLAY_QUANTITY),
        (iceberg(1, BUY, 100, 50, 40), Reason.NONE),
        (iceberg(1, BUY, 100, 50, 15), Reason.BAD_DISPLAY_QUANTITY),
        (at_least(1, BUY, 100, 50, 0), Reason.BAD_MINIMUM_QUANTITY),
        (at_least(1, BUY, 100, 50, 60), Reason.BAD_MINIMUM_QUANTITY),
        (at_least(1, BUY, 100, 50, 15), Reason.BAD_MINIMUM_QUANTITY),
        (at_least(1, BUY, 100, 50, 50), Reason.NONE),
        (fok(1, BUY, 101, 50), Reason.PRICE_OFF_TICK),
        (day(1, BUY, 101, 50), Reason.PRICE_OFF_TICK),
        (gtd(1, BUY, 101, 10**9, 50), Reason.PRICE_OFF_TICK),
    ],
)
def test_orders_keep_to_steps_and_bands(driver: Driver, command: Command, reason: Reason) -> None:
    driver.batch(_STEPPED)
    assert driver.reason(command) is reason


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        (replace(1, 105, 40), Reason.NONE),
        (replace(1, 100, 60), Reason.NOTIONAL_TOO_LARGE),
        (replace(1, 101, 50), Reason.PRICE_OFF_TICK),
        (replace(1, 100, 45), Reason.QUANTITY_OFF_LOT),
        (replace(1, 15, 50), Reason.PRICE_TOO_LOW),
        (replace(1, 205, 10), Reason.PRICE_TOO_HIGH),
        (replace(1, 0, 10), Reason.BAD_PRICE),
        (replace(1, 100, 0), Reason.BAD_QUANTITY),
        (replace(1, 20, 110), Reason.QUANTITY_TOO_LARGE),
        (replace(2, 0, 100), Reason.NONE),
        (replace(2, 100, 100), Reason.BAD_PRICE),
        (replace(2, 0, 15), Reason.QUANTITY_OFF_LOT),
        (replace(3, 20, 100), Reason.NONE),
        (replace(3, 0, 100), Reason.BAD_PRICE),
        (replace(3, 101, 10), Reason.PRICE_OFF_TICK),
        (reduce(1, 20), Reason.NONE),
        (reduce(1, 15), Reason.QUANTITY_OFF_LOT),
        (reduce(1, 50), Reason.BAD_QUANTITY),
        (reduce(1, 0), Reason.BAD_QUANTITY),
        (reduce(1, U64_MAX), Reason.BAD_QUANTITY),
        (reduce(2, 10), Reason.NONE),
    ],
)
def test_changes_keep_to_steps_and_bands(driver: Driver, command: Command, reason: Reason) -> None:
    orders = [new(1, BUY, 100, 50), stop(2, BUY, 150, 50), stop_limit(3, BUY, 150, 100, 50)]
    driver.batch([*_STEPPED, *orders])
    assert driver.reason(command) is reason


def test_notional_is_counted_beyond_64_bits(driver: Driver) -> None:
    wide = define(BTC, "BTC-USD", price_ticks_max=I64_MAX, qty_lots_max=U64_MAX)
    driver.batch([wide, limit_instrument(qty_lots_max=U64_MAX, notional_max=I64_MAX)])
    assert driver.reason(new(1, BUY, I64_MAX, U64_MAX)) is Reason.NOTIONAL_TOO_LARGE
    assert driver.reason(new(1, BUY, 2, 2**63)) is Reason.NOTIONAL_TOO_LARGE
    assert driver.reason(new(1, BUY, I64_MAX, 1)) is Reason.NONE
    assert driver.reason(new(2, BUY, 1, I64_MAX)) is Reason.NONE


# --- halts


def test_a_halted_instrument_takes_what_lessens_its_orders_and_nothing_else(
    driver: Driver,
) -> None:
    driver.batch([new(order_id, BUY, 90 + order_id) for order_id in (1, 2, 3)])
    [event] = driver.send(halt())
    assert (event.kind, event.contra_id, event.instrument) == (EventKind.TRADING, 1, BTC)
    assert state_of(driver).halted
    for command in (new(4), ioc(4, BUY, 90, 1), stop(4, BUY, 90), replace(1, 91, 5)):
        assert driver.reason(command) is Reason.INSTRUMENT_HALTED
    assert driver.reason(reduce(1, 1)) is Reason.NONE
    assert driver.reason(cancel(2)) is Reason.NONE
    assert driver.told(mass_cancel()) == [
        "canceled 3 5 MASS_CANCEL",
        "canceled 1 1 MASS_CANCEL",
        "mass_canceled 2 left 0",
    ]
    driver.batch([set_mode(Mode.LIVE, 1, instrument=ETH), halt(halted=False)])
    assert not state_of(driver).halted
    assert driver.reason(new(4)) is Reason.NONE


def test_a_halt_is_of_one_instrument(driver: Driver) -> None:
    driver.batch([set_mode(Mode.LIVE, 1, instrument=ETH), halt(instrument=ETH)])
    assert driver.reason(new(1)) is Reason.NONE
    assert driver.reason(new(2, instrument=ETH)) is Reason.INSTRUMENT_HALTED


# --- bounds


@pytest.mark.parametrize(("per_book", "shard"), [(2, 100), (100, 2)])
def test_a_full_book_takes_what_does_not_rest(
    implementation: str, per_book: int, shard: int
) -> None:
    driver = opened(bounded_market(implementation, per_book=per_book, shard=shard))
    driver.batch([new(1, SELL, 100, 5), new(2, BUY, 90, 5)])
    assert driver.reason(new(3, BUY, 99, 5)) is Reason.BOOK_FULL
    assert driver.reason(new(3, SELL, 91, 5)) is Reason.BOOK_FULL
    assert driver.reason(ioc(3, BUY, 99, 5)) is Reason.NONE
    assert driver.fills(market_order(4, BUY, 1)) == [(1, 100, 1)]
    # It fills a maker, and what is left of it takes the maker's room.
    assert driver.fills(new(5, BUY, 100, 9)) == [(1, 100, 4)]
    assert driver.ids() == [5, 2]
    driver.send(cancel(2))
    assert driver.reason(new(6)) is Reason.NONE


def test_a_full_book_leaves_room_in_the_others(implementation: str) -> None:
    driver = opened(bounded_market(implementation, per_book=1, shard=2))
    driver.batch([set_mode(Mode.LIVE, 1, instrument=ETH), new(1)])
    assert driver.reason(new(2)) is Reason.BOOK_FULL
    assert driver.reason(new(2, instrument=ETH)) is Reason.NONE


@pytest.mark.parametrize("command", [day(3, BUY, 80), gtd(3, BUY, 80, 10**9), stop(3, BUY, 200)])
def test_every_order_that_stays_open_needs_room(implementation: str, command: Command) -> None:
    driver = opened(bounded_market(implementation, per_book=2))
    driver.batch([new(1, BUY, 90), stop_limit(2, SELL, 50, 50)])
    assert driver.reason(command) is Reason.BOOK_FULL
    assert driver.reason(replace(1, 91, 50)) is Reason.NONE
    assert driver.reason(replace(2, 51, 50)) is Reason.NONE
    driver.send(cancel(2))
    assert driver.reason(command) is Reason.NONE


def test_a_stop_needs_room_though_it_would_go_off_at_once(implementation: str) -> None:
    driver = opened(bounded_market(implementation, per_book=2))
    driver.batch([new(1, SELL, 100, 1), new(2, BUY, 100, 1), new(3, SELL, 100, 9)])
    assert driver.reason(new(4, BUY, 90)) is Reason.NONE
    assert driver.reason(stop(5, BUY, 100)) is Reason.BOOK_FULL
    assert driver.reason(stop_limit(5, BUY, 100, 100)) is Reason.BOOK_FULL
    assert driver.reason(stop(5, SELL, 100)) is Reason.BOOK_FULL
    assert driver.told(new(5, BUY, 100)) == ["accepted 5", "fill 5x3 5@100 0/4"]


def test_prices_of_a_side_are_bounded(implementation: str) -> None:
    driver = opened(bounded_market(implementation, levels_per_side_max=2))
    driver.batch([new(1, BUY, 90), new(2, BUY, 91), new(3, SELL, 100)])
    assert driver.reason(new(4, BUY, 92)) is Reason.LEVELS_FULL
    assert driver.reason(new(4, BUY, 100)) is Reason.LEVELS_FULL  # it might rest there
    assert driver.reason(stop_limit(4, BUY, 95, 95)) is Reason.LEVELS_FULL
    assert driver.reason(replace(1, 92, 5)) is Reason.LEVELS_FULL
    assert driver.reason(replace(1, 91, 5)) is Reason.NONE
    assert driver.reason(new(4, SELL, 101)) is Reason.NONE
    assert driver.reason(new(5, BUY, 92)) is Reason.NONE
    assert driver.reason(ioc(6, BUY, 99, 5)) is Reason.NONE
    assert driver.reason(fok(6, BUY, 99, 5)) is Reason.NONE
    assert driver.reason(stop(7, BUY, 150)) is Reason.NONE
    assert driver.reason(stop_limit(8, BUY, 150, 91)) is Reason.NONE


def test_triggered_stops_may_open_further_prices_and_no_more(implementation: str) -> None:
    bounds = {"levels_per_side_max": 1, "stops_per_book_max": 3}
    driver = opened(bounded_market(implementation, **bounds))
    driver.batch([stop_limit(1, BUY, 100, 80), stop_limit(2, BUY, 100, 81)])
    driver.batch([stop(9, BUY, 150), new(3, SELL, 100, 1), new(4, BUY, 100, 1)])
    assert driver.ids() == [2, 1]
    assert driver.reason(replace(1, 82, 5)) is Reason.LEVELS_FULL
    driver.send(stop_limit(5, BUY, 120, 80))
    # Else each stop that waits could open one price more, again and again.
    assert driver.reason(replace(5, 82, 5)) is Reason.LEVELS_FULL
    assert driver.reason(replace(5, 81, 5)) is Reason.NONE
    assert driver.reason(replace(9, 0, 6)) is Reason.NONE


def test_waiting_stops_are_bounded(implementation: str) -> None:
    driver = opened(bounded_market(implementation, stops_per_book_max=2))
    driver.batch([set_mode(Mode.LIVE, 1, instrument=ETH), stop(1, BUY, 100), stop(2, BUY, 100)])
    assert driver.reason(stop(3, BUY, 100)) is Reason.STOPS_FULL
    assert driver.reason(stop_limit(3, BUY, 100, 100)) is Reason.STOPS_FULL
    assert driver.reason(stop(3, BUY, 100, instrument=ETH)) is Reason.NONE
    assert driver.reason(replace(1, 0, 9)) is Reason.NONE
    driver.send(cancel(1))
    assert driver.reason(stop(4, BUY, 100)) is Reason.NONE


def test_accounts_with_settings_are_bounded(implementation: str) -> None:
    driver = opened(bounded_market(implementation, accounts_max=2))
    driver.batch([limit_account(1, group=5), kill(2)])
    assert driver.reason(kill(3)) is Reason.ACCOUNTS_FULL
    assert driver.reason(limit_account(3, rate_max=1)) is Reason.ACCOUNTS_FULL
    assert driver.reason(kill(3, killed=False)) is Reason.NONE  # sets nothing
    assert driver.reason(limit_account(3)) is Reason.NONE
    assert driver.reason(limit_account(2, rate_max=1)) is Reason.NONE
    driver.batch([limit_account(2), kill(2, killed=False)])
    assert driver.reason(kill(3)) is Reason.NONE


def test_one_mass_cancel_removes_so_many(implementation: str) -> None:
    driver = opened(bounded_market(implementation, mass_cancel_max=2))
    driver.batch([new(order_id, BUY, 100) for order_id in (1, 2, 3)])
    whole = mass_cancel(MassCancelScope.INSTRUMENT, session=CONTROL)
    assert [brief(event) for event in driver.send(whole)] == [
        "canceled 1 5 MASS_CANCEL",
        "canceled 2 5 MASS_CANCEL",
        "mass_canceled 2 left 1",
    ]
    assert driver.told(whole) == ["canceled 3 5 MASS_CANCEL", "mass_canceled 1 left 0"]


def test_both_implementations_have_the_same_bounds() -> None:
    core = pytest.importorskip("engine._core", reason="SKIPPED: the Rust core is not built here")
    for name in (
        "OPEN_ORDERS_PER_BOOK_MAX",
        "OPEN_ORDERS_MAX",
        "INSTRUMENTS_MAX",
        "COMMAND_STEP_NS",
        "LEVELS_PER_SIDE_MAX",
        "STOPS_PER_BOOK_MAX",
        "ICEBERGS_PER_BOOK_MAX",
        "MASS_CANCEL_MAX",
        "ACCOUNTS_MAX",
    ):
        assert getattr(core, name) == getattr(limits, name)


def test_a_book_holds_so_many_icebergs(implementation: str) -> None:
    """What one order can set off is bounded by their number and their parts."""
    driver = opened(bounded_market(implementation, icebergs_per_book_max=2))
    driver.send(iceberg(1, SELL, 105, 10, 1))
    driver.send(iceberg(2, BUY, 95, 10, 1))
    assert driver.reason(iceberg(3, SELL, 106, 10, 1)) is Reason.BOOK_FULL
    assert driver.reason(iceberg(3, SELL, 95, 10, 1)) is Reason.BOOK_FULL  # though it would trade
    assert driver.reason(new(3, SELL, 106)) is Reason.NONE
    assert driver.reason(replace(2, 94, 10, 4)) is Reason.NONE
    driver.send(cancel(4))
    assert driver.reason(iceberg(5, BUY, 94, 10, 1)) is Reason.NONE
