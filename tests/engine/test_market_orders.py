"""Times in force, flags, icebergs and changes of orders, whichever the implementation: the same
tests over both.
"""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    CONTROL,
    ETH,
    PROXY,
    SELL,
    TIME_PASSES,
    Driver,
    at_least,
    cancel,
    changed,
    day,
    fok,
    gtd,
    iceberg,
    is_live,
    limit_instrument,
    market_order,
    new,
    post_only,
    reduce,
    replace,
    session_options,
    set_mode,
    stop,
)

from engine.limits import U32_MAX
from engine.reject import Reason
from engine.types import (
    Command,
    Event,
    EventFlag,
    EventKind,
    Mode,
    OrderType,
    Role,
    TimeInForce,
)
from engine.wire import encode_commands, pack_new_aux, session_command

DAY_S = 86_400


# --- fill or kill, minimum


def test_a_fok_trades_whole_or_not_at_all(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5, account=8), new(2, SELL, 101, 5, account=8)])
    before = driver.market.orders(BTC)
    assert driver.told(fok(3, BUY, 100, 6)) == ["accepted 3", "canceled 3 6 UNFILLED"]
    assert driver.told(fok(3, BUY, 101, 11)) == ["accepted 3", "canceled 3 11 UNFILLED"]
    assert driver.market.orders(BTC) == before
    assert driver.told(fok(3, BUY, 101, 10)) == [
        "accepted 3",
        "fill 3x1 5@100 5/0",
        "fill 3x2 5@101 0/0",
    ]


def test_a_market_order_may_be_fill_or_kill(driver: Driver) -> None:
    driver.batch([new(1, BUY, 100, 5), new(2, BUY, 1, 5)])
    whole = changed(market_order(3, SELL, 11), tif=TimeInForce.FOK)
    assert driver.told(whole) == ["accepted 3", "canceled 3 11 UNFILLED"]
    assert driver.fills(changed(whole, qty_lots=10)) == [(1, 100, 5), (2, 1, 5)]


def test_what_icebergs_hide_counts_for_a_fok(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 100, 9, 2, account=8), new(2, SELL, 100, 3, account=8)])
    assert driver.told(fok(3, BUY, 100, 13)) == ["accepted 3", "canceled 3 13 UNFILLED"]
    fills = driver.fills(fok(3, BUY, 100, 12))
    assert fills == [(1, 100, 2), (2, 100, 3), (1, 100, 2), (1, 100, 2), (1, 100, 2), (1, 100, 1)]


@pytest.mark.parametrize("tif", [TimeInForce.GTC, TimeInForce.IOC, TimeInForce.DAY])
def test_less_than_the_minimum_is_nothing(driver: Driver, tif: int) -> None:
    driver.send(new(1, SELL, 100, 5))
    too_much = changed(at_least(2, BUY, 100, 9, 6), tif=tif)
    assert driver.told(too_much) == ["accepted 2", "canceled 2 9 UNFILLED"]
    assert driver.ids() == [1]
    enough = changed(at_least(2, BUY, 100, 9, 5), tif=tif)
    kept = tif != TimeInForce.IOC
    assert driver.told(enough)[:2] == ["accepted 2", "fill 2x1 5@100 4/0"]
    assert driver.ids() == ([2] if kept else [])


def test_the_minimum_is_of_the_entry_only(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5), at_least(2, BUY, 100, 9, 5)])
    assert driver.fills(new(3, SELL, 100, 1)) == [(2, 100, 1)]
    assert driver.told(replace(2, 99, 7)) == ["replaced 2 by 2"]


def test_a_market_order_may_have_a_minimum(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5))
    order = changed(at_least(2, BUY, 0, 9, 6), ord_type=OrderType.MARKET, tif=TimeInForce.IOC)
    assert driver.told(order) == ["accepted 2", "canceled 2 9 UNFILLED"]
    order = changed(order, aux=pack_new_aux(part_lots=5))
    assert driver.told(order) == ["accepted 2", "fill 2x1 5@100 4/0", "canceled 2 4 UNFILLED"]


# --- post only


@pytest.mark.parametrize(("side", "best", "behind"), [(BUY, 100, 99), (SELL, 90, 91)])
def test_post_only_never_takes(driver: Driver, side: int, best: int, behind: int) -> None:
    driver.batch([new(1, BUY, 90), new(2, SELL, 100)])
    assert driver.reason(post_only(3, side, best)) is Reason.WOULD_TRADE
    assert driver.reason(post_only(3, side, best, account=8)) is Reason.WOULD_TRADE
    assert driver.told(post_only(3, side, behind)) == ["accepted 3"]
    assert driver.reason(replace(3, best, 5)) is Reason.WOULD_TRADE
    assert driver.reason(replace(3, behind, 6, 9)) is Reason.NONE
    assert driver.reason(replace(9, best, 6)) is Reason.WOULD_TRADE  # it is one still


def test_post_only_makes(driver: Driver) -> None:
    driver.send(post_only(1, SELL, 100))
    assert driver.fills(new(2, BUY, 100)) == [(1, 100, 5)]


# --- icebergs


def test_an_iceberg_comes_back_at_the_end_of_its_queue(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 100, 5, 2), new(2, SELL, 100, 3), new(3, SELL, 100, 3)])
    assert driver.ids() == [1, 2, 3]
    assert driver.told(new(4, BUY, 100, 1)) == ["accepted 4", "fill 4x1 1@100 0/4"]
    assert driver.ids() == [1, 2, 3]  # one of its part is left
    assert driver.told(new(5, BUY, 100, 2)) == [
        "accepted 5",
        "fill 5x1 1@100 1/3",
        "fill 5x2 1@100 0/2",
    ]
    assert driver.ids() == [2, 3, 1]
    assert driver.fills(new(6, BUY, 100, 100)) == [
        (2, 100, 2),
        (3, 100, 3),
        (1, 100, 2),
        (1, 100, 1),
    ]


def test_an_iceberg_takes_with_all_it_has(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 7))
    assert driver.told(iceberg(2, BUY, 100, 12, 3)) == ["accepted 2", "fill 2x1 7@100 5/0"]
    assert driver.fills(new(3, SELL, 100, 100)) == [(2, 100, 3), (2, 100, 2)]


def test_a_canceled_iceberg_tells_what_it_hid(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 100, 9, 2), new(2, BUY, 100, 1)])
    assert driver.told(cancel(1)) == ["canceled 1 8 BY_REQUEST"]


def test_an_iceberg_reduced_below_its_part_shows_less(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 100, 9, 4), new(2, SELL, 100, 5), reduce(1, 3)])
    assert driver.fills(new(3, BUY, 100, 6)) == [(1, 100, 3), (2, 100, 3)]


def test_a_replaced_iceberg_keeps_its_part(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 100, 9, 4), replace(1, 101, 10), new(2, SELL, 101, 5)])
    assert driver.fills(new(3, BUY, 101, 9)) == [(1, 101, 4), (2, 101, 5)]
    driver.send(replace(1, 100, 3))  # less than its part
    assert driver.fills(new(4, BUY, 100, 9)) == [(1, 100, 3)]


def test_an_iceberg_has_so_many_parts_at_most(driver: Driver) -> None:
    driver.send(limit_instrument(qty_lots_max=10_000))
    assert driver.reason(iceberg(1, SELL, 100, 2_001, 2)) is Reason.BAD_DISPLAY_QUANTITY
    assert driver.reason(iceberg(1, SELL, 100, 2_000, 2)) is Reason.NONE
    assert driver.reason(replace(1, 100, 2_001)) is Reason.BAD_DISPLAY_QUANTITY
    assert driver.reason(replace(1, 100, 1_999)) is Reason.NONE


# --- reductions


def test_a_reduction_keeps_the_place(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5), new(2, SELL, 100, 5)])
    assert driver.send(reduce(1, 2)) == [
        Event(
            kind=EventKind.REDUCED,
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
            leaves_lots=2,
        )
    ]
    assert driver.fills(new(3, BUY, 100, 3)) == [(1, 100, 2), (2, 100, 1)]


@pytest.mark.parametrize(("leaves", "accepted"), [(0, False), (1, True), (3, True), (4, False)])
def test_a_reduction_lessens_what_is_left(driver: Driver, leaves: int, accepted: bool) -> None:
    driver.batch([new(1, SELL, 100, 9), new(2, BUY, 100, 5)])
    reason = Reason.NONE if accepted else Reason.BAD_QUANTITY
    assert driver.reason(reduce(1, leaves)) is reason


@pytest.mark.parametrize("change", [reduce(1, 1), replace(1, 101, 5), replace(1, 101, 5, 2)])
def test_a_change_is_for_an_open_order_of_this_account_and_instrument(
    driver: Driver, change: Command
) -> None:
    driver.send(set_mode(Mode.LIVE, 1, instrument=ETH))
    assert driver.reason(change) is Reason.UNKNOWN_ORDER
    driver.send(new(1, SELL, 100))
    assert driver.reason(changed(change, instrument=ETH)) is Reason.UNKNOWN_ORDER
    assert driver.reason(changed(change, account=8)) is Reason.NOT_OWNER
    assert driver.reason(changed(change, epoch=2)) is Reason.STALE_EPOCH
    assert driver.reason(change) is Reason.NONE


# --- replacements


def test_a_replacement_enters_anew(driver: Driver) -> None:
    driver.batch([day(1, SELL, 100, 5), new(2, SELL, 100, 5), new(3, BUY, 100, 1)], at_s=DAY_S)
    assert driver.send(replace(1, 100, 9, 4)) == [
        Event(
            kind=EventKind.REPLACED,
            side=SELL,
            ord_type=OrderType.LIMIT,
            tif=TimeInForce.DAY,
            flags=EventFlag.LAST | EventFlag.LIVE,
            instrument=BTC,
            seq=11,
            ref=4,
            order_id=4,
            contra_id=1,
            price_ticks=100,
            qty_lots=9,
            leaves_lots=9,
            contra_leaves_lots=4,
        )
    ]
    assert driver.ids() == [2, 4]
    assert [order.qty_lots for order in driver.orders()] == [5, 9]
    assert driver.reason(cancel(1)) is Reason.UNKNOWN_ORDER
    assert driver.reason(new(1, SELL, 200)) is Reason.NONE
    assert driver.market.next_expiry_ns() == 2 * DAY_S * 10**9  # the day of its first entry


def test_a_replacement_may_keep_its_id_and_loses_its_place(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5), new(2, SELL, 100, 5)])
    assert driver.told(replace(1, 100, 4)) == ["replaced 1 by 1"]
    assert driver.ids() == [2, 1]
    assert [order.qty_lots for order in driver.orders()] == [5, 4]


def test_a_replacement_trades_at_once(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5), new(2, BUY, 90, 5)])
    assert driver.told(replace(2, 100, 8)) == ["replaced 2 by 2", "fill 2x1 5@100 3/0"]
    assert [(order.order_id, order.leaves_lots) for order in driver.orders()] == [(2, 3)]
    assert driver.told(replace(2, 99, 4)) == ["replaced 2 by 2"]


def test_a_replacement_takes_no_id_that_is_open(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100), new(2, SELL, 100), stop(3, BUY, 200)])
    assert driver.reason(replace(1, 100, 5, 2)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(replace(1, 100, 5, 3)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(replace(9, 100, 5, 2)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(replace(9, 100, 5, 9)) is Reason.UNKNOWN_ORDER
    assert driver.ids() == [1, 2]


def test_a_replacement_belongs_to_the_session_that_sent_it(driver: Driver) -> None:
    driver.send(session_command(session=9, name="proxy-1", role=Role.TRADE))
    driver.batch([new(1, BUY, 90), new(2, BUY, 91), replace(1, 92, 5, session=9)])
    for session, told in ((9, "canceled 1 5 DISCONNECTED"), (PROXY, "canceled 2 5 DISCONNECTED")):
        gone = changed(session_options(session, 0), kind=27)
        assert driver.told(gone) == [told, "mass_canceled 1 left 0"]


# --- days and dates


def test_orders_expire_when_their_time_has_come_in_order(driver: Driver) -> None:
    driver.send(set_mode(Mode.LIVE, 1, instrument=ETH))
    driver.batch(
        [
            gtd(5, BUY, 90, 1_001, 5, instrument=ETH),
            gtd(4, BUY, 90, 1_001, 5),
            gtd(3, SELL, 100, 1_001, 5),
            gtd(2, BUY, 91, 1_000, 5),
            gtd(1, BUY, 92, 1_002, 5),
            new(6, BUY, 80),
        ],
        at_s=999,
    )
    assert driver.market.next_expiry_ns() == 1_000 * 10**9
    assert driver.told(TIME_PASSES, at_s=999) == ["time 0 left 0"]
    events = driver.send(TIME_PASSES, at_s=1_001)
    assert [(event.instrument, event.order_id, event.reason) for event in events[:-1]] == [
        (BTC, 2, Reason.EXPIRED),
        (BTC, 3, Reason.EXPIRED),
        (BTC, 4, Reason.EXPIRED),
        (ETH, 5, Reason.EXPIRED),
    ]
    assert [is_live(event) for event in events] == [True] * 4 + [False]
    assert (events[-1].kind, events[-1].qty_lots, events[-1].instrument) == (EventKind.TIME, 4, 0)
    assert driver.market.next_expiry_ns() == 1_002 * 10**9
    assert driver.ids() == [1, 6]


def test_an_order_that_goes_takes_its_expiry_along(driver: Driver) -> None:
    driver.batch([gtd(1, BUY, 90, 1_000), gtd(2, BUY, 90, 1_000), gtd(3, BUY, 90, 1_000)], at_s=1)
    driver.batch([cancel(1), new(4, SELL, 90, 5), replace(3, 91, 5, 5)], at_s=2)
    assert driver.told(TIME_PASSES, at_s=2_000) == ["canceled 5 5 EXPIRED", "time 1 left 0"]
    assert driver.market.next_expiry_ns() is None


@pytest.mark.parametrize(("expiry_s", "reason"), [(0, 61), (999, 61), (1_000, 61), (1_001, 0)])
def test_a_date_must_lie_ahead(driver: Driver, expiry_s: int, reason: int) -> None:
    assert driver.reason(gtd(1, BUY, 90, expiry_s), at_s=1_000) == reason


@pytest.mark.parametrize(
    ("day_end_s", "at_s", "expiry_s"),
    [
        (0, 0, DAY_S),
        (0, DAY_S - 1, DAY_S),
        (0, DAY_S, 2 * DAY_S),
        (3_600, 0, 3_600),
        (3_600, 3_599, 3_600),
        (3_600, 3_600, DAY_S + 3_600),
        (86_399, 5 * DAY_S, 5 * DAY_S + 86_399),
        (0, U32_MAX - 5, U32_MAX),
        (0, 2**33, U32_MAX),
    ],
)
def test_a_day_ends_at_the_end_of_the_instruments_day(
    driver: Driver, day_end_s: int, at_s: int, expiry_s: int
) -> None:
    """The driver's own time is some microseconds into second 0."""
    driver.send(limit_instrument(day_end_s=day_end_s))
    driver.send(day(1, BUY, 90), at_s=at_s)
    driver.send(stop(2, BUY, 150, tif=TimeInForce.DAY), at_s=at_s)
    assert driver.market.next_expiry_ns() == expiry_s * 10**9
    if at_s < expiry_s:
        assert driver.told(TIME_PASSES, at_s=expiry_s - 1) == ["time 0 left 0"]
    assert driver.told(TIME_PASSES, at_s=expiry_s) == [
        "canceled 1 5 EXPIRED",
        "canceled 2 5 EXPIRED",
        "time 2 left 0",
    ]


def test_a_new_end_of_the_day_is_for_orders_to_come(driver: Driver) -> None:
    driver.send(day(1, BUY, 90), at_s=10)
    driver.send(limit_instrument(day_end_s=60))
    assert driver.market.next_expiry_ns() == DAY_S * 10**9
    driver.send(day(2, BUY, 90))
    assert driver.market.next_expiry_ns() == 60 * 10**9


def test_nothing_expires_where_it_is_closed(driver: Driver) -> None:
    driver.send(gtd(1, BUY, 90, 1_000), at_s=1)
    driver.send(set_mode(Mode.CLOSED, 2))
    assert driver.market.next_expiry_ns() is None
    assert driver.told(TIME_PASSES, at_s=2_000) == ["time 0 left 0"]
    driver.send(set_mode(Mode.SHADOW, 2))
    assert driver.market.next_expiry_ns() == 1_000 * 10**9
    [expired, time] = driver.send(TIME_PASSES)
    assert (expired.order_id, is_live(expired), time.qty_lots) == (1, False, 1)


def test_a_command_happens_at_its_own_moment_of_the_batch(driver: Driver) -> None:
    """The second command of the batch happens a microsecond later: in the next second."""
    ts_ns = 1_000 * 10**9 - 500
    driver.refs[PROXY] = 2
    data = encode_commands([gtd(1, BUY, 90, 1_000, ref=1), gtd(2, BUY, 90, 1_000, ref=2)])
    driver.market.apply(data, ts_ns)
    assert driver.ids() == [1]


def test_time_is_the_gateways(driver: Driver) -> None:
    for session in (PROXY, CONTROL):
        assert driver.reason(changed(TIME_PASSES, session=session, ref=9)) is Reason.BAD_FIELD
