"""Defects that other matching engines had, each a test by its name: none of them is here. Those of
journals and services: test_defects_durable.

The numbers are those of the catalogue that the tests were written from.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from market_driver import (
    BTC,
    BUY,
    CONTROL,
    ETH,
    PROXY,
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
    set_mode,
)

from engine.reject import Reason
from engine.types import (
    Command,
    CommandKind,
    Event,
    EventKind,
    MassCancelFlag,
    MassCancelScope,
    Mode,
    OrderFlag,
    OrderType,
    SelfTradePrevention,
    TimeInForce,
)
from engine.wire import (
    DEPTH_DTYPE,
    decode_order_states,
    decode_resting_orders,
    instrument_limits_command,
    mass_cancel_command,
    pack_new_aux,
)

OTHER = 8  # an account beside the driver's 7


def sell(order_id: int, price_ticks: int, qty_lots: int, **fields: int) -> Command:
    return changed(new(order_id, SELL, price_ticks, qty_lots), **fields)


def buy(order_id: int, price_ticks: int, qty_lots: int, **fields: int) -> Command:
    return changed(new(order_id, BUY, price_ticks, qty_lots), **fields)


def stop(order_id: int, side: int, stop_price_ticks: int, qty_lots: int, **fields: int) -> Command:
    command = market_order(order_id, side, qty_lots)
    return changed(
        command, ord_type=OrderType.STOP, tif=TimeInForce.GTC, aux=stop_price_ticks, **fields
    )


def replace(order_id: int, price_ticks: int, qty_lots: int, new_id: int = 0) -> Command:
    return changed(
        cancel(order_id),
        kind=CommandKind.REPLACE,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
        aux=new_id or order_id,
    )


def reduce(order_id: int, leaves_lots: int) -> Command:
    return changed(cancel(order_id), kind=CommandKind.REDUCE, qty_lots=leaves_lots)


def depth(driver: Driver, instrument: int = BTC) -> list[tuple[int, int, int, int]]:
    """(side, price, displayed, orders) of every price."""
    levels = np.frombuffer(driver.market.depth(instrument, 1_000_000), DEPTH_DTYPE)
    return [tuple(map(int, level)) for level in levels.tolist()]


def of_kind(events: list[Event], kind: EventKind) -> list[Event]:
    return [event for event in events if event.kind is kind]


# --- priority and prices


def test_a_partly_filled_maker_keeps_its_place(driver: Driver) -> None:
    """1"""
    driver.batch([sell(1, 100, 5), sell(2, 100, 5)])
    assert driver.fills(ioc(3, BUY, 100, 2)) == [(1, 100, 2)]
    assert driver.ids() == [1, 2]
    assert driver.fills(ioc(4, BUY, 100, 4)) == [(1, 100, 3), (2, 100, 1)]


@pytest.mark.parametrize("tif", [TimeInForce.GTC, TimeInForce.IOC, TimeInForce.FOK])
def test_a_sweep_ends_at_its_own_limit(driver: Driver, tif: TimeInForce) -> None:
    """2"""
    driver.batch([sell(n, 100 + n, 5) for n in range(1, 5)])
    sweep = new(9, BUY, 102, 10 if tif is TimeInForce.FOK else 99, tif=tif)
    assert driver.fills(sweep) == [(1, 101, 5), (2, 102, 5)]
    assert [order.price_ticks for order in driver.orders() if order.side == SELL] == [103, 104]


def test_a_trade_is_at_the_makers_price(driver: Driver) -> None:
    """3"""
    driver.batch([sell(1, 100, 5), buy(2, 90, 5)])
    assert driver.fills(ioc(3, BUY, 150, 1)) == [(1, 100, 1)]
    assert driver.fills(ioc(4, SELL, 50, 1)) == [(2, 90, 1)]
    assert driver.fills(market_order(5, BUY, 1)) == [(1, 100, 1)]
    assert driver.fills(replace(2, 100, 3)) == [(1, 100, 3)]


def test_a_replace_through_the_spread_trades_and_never_rests_crossed(driver: Driver) -> None:
    """4"""
    driver.batch([sell(1, 100, 5), buy(2, 90, 8)])
    events = driver.send(replace(2, 110, 8))
    assert [event.kind for event in events] == [EventKind.REPLACED, EventKind.FILL]
    assert (events[1].contra_id, events[1].price_ticks, events[1].qty_lots) == (1, 100, 5)
    assert [(o.order_id, o.price_ticks, o.leaves_lots) for o in driver.orders()] == [(2, 110, 3)]


@pytest.mark.parametrize("change", [cancel, lambda n: reduce(n, 1), lambda n: replace(n, 100, 5)])
def test_a_filled_order_can_be_neither_canceled_nor_changed(
    driver: Driver, change: Callable[[int], Command]
) -> None:
    """5"""
    driver.batch([sell(1, 100, 5), buy(2, 100, 5)])
    for order_id in (1, 2):
        assert driver.reason(change(order_id)) is Reason.UNKNOWN_ORDER


@pytest.mark.parametrize(
    "order",
    [
        ioc(2, BUY, 100, 9),
        new(2, BUY, 100, 9, tif=TimeInForce.FOK),
        market_order(2, BUY, 9),
        changed(
            ioc(2, BUY, 100, 9), flags=OrderFlag.MIN_QTY, aux=pack_new_aux(part_lots=5, expiry_s=0)
        ),
    ],
    ids=["ioc", "fok", "market", "minimum"],
)
def test_what_must_trade_at_once_never_rests(driver: Driver, order: Command) -> None:
    """6"""
    driver.send(sell(1, 100, 5))
    last = driver.send(order)[-1]
    assert (last.kind, last.reason, last.leaves_lots) == (EventKind.CANCELED, Reason.UNFILLED, 0)
    assert 2 not in driver.ids()
    assert driver.reason(cancel(2)) is Reason.UNKNOWN_ORDER


# --- the book's structure


@pytest.mark.parametrize("leaves_by", ["cancel", "fill", "replace", "mass cancel"])
def test_the_best_price_is_not_stale_after_its_last_order_has_left(
    driver: Driver, leaves_by: str
) -> None:
    """7"""
    driver.batch([sell(1, 100, 5), sell(2, 101, 5)])
    mass = mass_cancel_command(
        scope=MassCancelScope.ACCOUNT, account=OTHER, instrument=BTC, epoch=1
    )
    if leaves_by == "mass cancel":
        driver.batch([cancel(1), sell(1, 100, 5, account=OTHER)])
    driver.send(
        {
            "cancel": cancel(1),
            "fill": ioc(3, BUY, 100, 5),
            "replace": replace(1, 102, 5),
            "mass cancel": changed(mass, session=PROXY),
        }[leaves_by]
    )
    assert depth(driver)[0][:2] == (SELL, 101)
    assert driver.fills(market_order(4, BUY, 1)) == [(2, 101, 1)]


def test_a_canceled_order_in_the_middle_leaves_the_others_in_their_order(driver: Driver) -> None:
    """8"""
    ids = list(range(1, 41))
    driver.batch([sell(n, 100, 1) for n in ids])
    chance = random.Random(8)
    while len(ids) > 1:
        gone = ids.pop(chance.randrange(1, len(ids)) if len(ids) > 2 else 0)
        driver.send(cancel(gone))
        assert driver.ids() == ids
    assert driver.fills(market_order(99, BUY, 1)) == [(ids[0], 100, 1)]


def test_a_live_id_is_refused_before_anything_matches(driver: Driver) -> None:
    """9"""
    driver.batch([sell(1, 100, 5), sell(2, 101, 5)])
    before = driver.orders()
    assert driver.reason(new(2, BUY, 100, 5)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(sell(1, 99, 5)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(replace(1, 100, 5, new_id=2)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(stop(1, BUY, 200, 5)) is Reason.DUPLICATE_ORDER_ID
    assert driver.orders() == before
    driver.batch([define(ETH, "ETH-USD"), set_mode(Mode.LIVE, 1, instrument=ETH)])
    assert driver.reason(new(1, instrument=ETH)) is Reason.DUPLICATE_ORDER_ID


@pytest.mark.parametrize("end", ["fill", "cancel", "replace", "unfilled"])
def test_an_id_can_be_used_again_once_its_order_is_gone(driver: Driver, end: str) -> None:
    """10"""
    driver.send(ioc(1, BUY, 100, 5) if end == "unfilled" else sell(1, 100, 5))
    if end == "fill":
        driver.send(ioc(2, BUY, 100, 5))
    elif end == "cancel":
        driver.send(cancel(1))
    elif end == "replace":
        driver.send(replace(1, 105, 5, new_id=2))
    assert driver.send(sell(1, 101, 7))[0].kind is EventKind.ACCEPTED
    assert driver.fills(ioc(9, BUY, 101, 7)) == [(1, 101, 7)]


def test_one_order_fills_five_thousand_at_one_price(driver: Driver) -> None:
    """11"""
    for start in range(0, 5_000, 1_000):
        driver.batch([sell(1 + start + n, 100, 1 + n % 3) for n in range(1_000)])
    total = sum(order.leaves_lots for order in driver.orders())
    driver.send(define(BTC, "BTC-USD", qty_lots_max=10**6))
    fills = driver.fills(market_order(9_999, BUY, total + 1))
    assert [maker for maker, _, _ in fills] == list(range(1, 5_001))
    assert sum(qty for _, _, qty in fills) == total
    assert driver.orders() == []


def test_what_does_not_fit_is_refused_with_its_reason_and_never_dropped(
    implementation: str,
) -> None:
    """12"""
    kind = type(market_or_skip(implementation))
    full = opened(kind(open_orders_per_book_max=3))
    full.batch([sell(n, 100 + n, 5) for n in (1, 2, 3)])
    assert full.reason(sell(4, 110, 5)) is Reason.BOOK_FULL
    assert full.reason(stop(4, BUY, 500, 5)) is Reason.BOOK_FULL
    levels = opened(kind(levels_per_side_max=2))
    levels.batch([sell(1, 101, 5), sell(2, 102, 5)])
    assert levels.reason(sell(3, 103, 5)) is Reason.LEVELS_FULL
    assert levels.reason(sell(3, 102, 5)) is Reason.NONE
    stops = opened(kind(stops_per_book_max=1))
    stops.send(stop(1, BUY, 500, 5))
    assert stops.reason(stop(2, BUY, 500, 5)) is Reason.STOPS_FULL
    assert full.ids() == [1, 2, 3]
    assert levels.ids() == [1, 2, 3]


def test_equal_prices_are_one_price(driver: Driver) -> None:
    """13: prices are whole ticks, and what is off the grid is refused rather than rounded"""
    driver.batch([sell(n, 30, 1) for n in (1, 2, 3)])
    driver.send(replace(1, 10 + 20, 1))
    assert depth(driver) == [(SELL, 30, 3, 3)]
    limits = instrument_limits_command(
        instrument=BTC, tick_ticks=10, lot_lots=1, qty_lots_max=100, notional_max=0, day_end_s=0
    )
    driver.send(changed(limits, session=CONTROL))
    assert driver.reason(sell(4, 31, 1)) is Reason.PRICE_OFF_TICK
    assert depth(driver) == [(SELL, 30, 3, 3)]


@pytest.mark.parametrize("new_id", [1, 50])
def test_a_replaced_order_is_still_the_one_that_its_id_finds(driver: Driver, new_id: int) -> None:
    """14"""
    driver.batch([sell(1, 100, 5), sell(2, 100, 5), sell(3, 101, 5)])
    driver.send(replace(1, 101, 4, new_id=new_id))
    if new_id != 1:
        assert driver.reason(cancel(1)) is Reason.UNKNOWN_ORDER
    reduced = driver.send(reduce(new_id, 3))[0]
    assert (reduced.order_id, reduced.price_ticks, reduced.leaves_lots) == (new_id, 101, 3)
    assert driver.ids() == [2, 3, new_id]
    assert driver.send(cancel(new_id))[0].qty_lots == 3
    assert driver.fills(market_order(9, BUY, 10)) == [(2, 100, 5), (3, 101, 5)]


# --- stops, prevention, quantities


def test_stops_set_each_other_off_until_no_more_do(driver: Driver) -> None:
    """15: each trade sets off the next stop, against the order in which they were entered"""
    steps = 30
    driver.batch([sell(100 + n, 100 + n, 1) for n in range(steps + 1)])
    driver.batch([stop(1 + n, BUY, 100 + n, 1) for n in reversed(range(steps))])
    events = driver.send(ioc(99, BUY, 100, 1))
    assert [event.order_id for event in of_kind(events, EventKind.TRIGGERED)] == [
        1 + n for n in range(steps)
    ]
    fills = [(event.contra_id, event.price_ticks) for event in of_kind(events, EventKind.FILL)]
    assert fills == [(100 + n, 100 + n) for n in range(steps + 1)]
    assert driver.market.stops(BTC) == b""


@pytest.mark.parametrize("stp", list(SelfTradePrevention))
def test_a_fill_or_kill_counts_only_what_it_can_reach(
    driver: Driver, stp: SelfTradePrevention
) -> None:
    """16: 4 of others, then 5 of its own, then 3 of others: whatever the mode, all or nothing"""
    reachable = {SelfTradePrevention.NONE: 12, SelfTradePrevention.CANCEL_MAKER: 7}.get(stp, 4)
    makers = [sell(1, 100, 4, account=OTHER), sell(2, 100, 5), sell(3, 101, 3, account=OTHER)]
    driver.batch(makers)
    before = driver.orders()
    killed = changed(new(8, BUY, 101, reachable + 1, tif=TimeInForce.FOK), stp=stp)
    events = driver.send(killed)
    assert [event.kind for event in events] == [EventKind.ACCEPTED, EventKind.CANCELED]
    assert events[1].reason is Reason.UNFILLED
    assert driver.orders() == before
    filled = driver.send(changed(new(9, BUY, 101, reachable, tif=TimeInForce.FOK), stp=stp))
    assert sum(event.qty_lots for event in of_kind(filled, EventKind.FILL)) == reachable
    assert not [event for event in filled if event.reason is Reason.UNFILLED]


def test_what_a_price_shows_goes_down_with_every_partial_fill(driver: Driver) -> None:
    """17"""
    driver.batch([sell(1, 100, 5), sell(2, 100, 5), sell(3, 101, 5)])
    driver.send(ioc(4, BUY, 100, 3))
    assert depth(driver) == [(SELL, 100, 7, 2), (SELL, 101, 5, 1)]
    driver.send(reduce(2, 1))
    assert depth(driver) == [(SELL, 100, 3, 2), (SELL, 101, 5, 1)]
    assert driver.fills(new(5, BUY, 100, 4, tif=TimeInForce.FOK)) == []
    assert driver.fills(new(6, BUY, 100, 3, tif=TimeInForce.FOK)) == [(1, 100, 2), (2, 100, 1)]


def test_a_mass_cancel_removes_in_the_order_of_the_book(driver: Driver) -> None:
    """18: instruments, then bids and asks from the best, then stops by age; never as hashes fall"""
    driver.send(set_mode(Mode.LIVE, 1, instrument=ETH))
    chance = random.Random(18)
    ids = iter(chance.sample(range(1, 10**15), 400))
    orders = []
    for n in range(300):
        instrument, side = chance.choice((BTC, ETH)), chance.choice((BUY, SELL))
        price = chance.randint(90, 99) + 20 * (side == SELL)
        account = 7 if n % 3 else OTHER
        orders.append(new(next(ids), side, price, 1, instrument=instrument, account=account))
    stops = [stop(next(ids), BUY, 500 + chance.randint(0, 9), 1) for _ in range(20)]
    driver.batch([*orders, *stops])
    expected = [
        order.order_id
        for instrument in (BTC, ETH)
        for order in (
            *decode_resting_orders(driver.market.orders(instrument)),
            *decode_order_states(driver.market.stops(instrument)),
        )
        if order.account == 7
    ]
    command = mass_cancel_command(
        scope=MassCancelScope.ACCOUNT, account=7, flags=MassCancelFlag.EVERY_INSTRUMENT
    )
    events = driver.send(changed(command, session=PROXY))
    assert [event.order_id for event in events[:-1]] == expected
    assert len(expected) == 220
    assert (events[-1].kind, events[-1].qty_lots) == (EventKind.MASS_CANCELED, 220)
