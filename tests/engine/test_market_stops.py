"""Stops: waiting, going off, and what they set off in turn, whichever the implementation: the same
tests over both.
"""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    ETH,
    SELL,
    SHADOW,
    Driver,
    brief,
    cancel,
    changed,
    clear,
    iceberg,
    ioc,
    kill,
    new,
    reduce,
    replace,
    set_mode,
    stop,
    stop_limit,
)

from engine.reject import Reason
from engine.types import (
    Event,
    EventFlag,
    EventKind,
    Mode,
    OrderState,
    OrderType,
    SelfTradePrevention,
    TimeInForce,
)


def trade(driver: Driver, price_ticks: int) -> list[str]:
    """One lot changes hands at this price; what the taker's command brings."""
    driver.send(new(1_000, SELL, price_ticks, 1))
    return driver.told(ioc(1_001, BUY, price_ticks, 1))


def test_a_stop_waits_without_being_seen(driver: Driver) -> None:
    events = driver.send(stop(1, BUY, 105, 5))
    assert [(event.kind, event.ord_type, event.price_ticks) for event in events] == [
        (EventKind.ACCEPTED, OrderType.STOP, 0)
    ]
    assert events[0].contra_leaves_lots == 105
    driver.send(stop_limit(2, SELL, 95, 94, 6, tif=TimeInForce.DAY, stp=1))
    assert driver.ids() == []
    assert driver.stops() == [
        OrderState(
            order_id=1,
            account=7,
            price_ticks=0,
            leaves_lots=5,
            qty_lots=5,
            displayed_lots=5,
            stop_price_ticks=105,
            expiry_s=0,
            display_lots=0,
            session=2,
            side=BUY,
            ord_type=OrderType.STOP,
            tif=TimeInForce.GTC,
            flags=0,
            stp=0,
        ),
        OrderState(
            order_id=2,
            account=7,
            price_ticks=94,
            leaves_lots=6,
            qty_lots=6,
            displayed_lots=6,
            stop_price_ticks=95,
            expiry_s=86_400,
            display_lots=0,
            session=2,
            side=SELL,
            ord_type=OrderType.STOP_LIMIT,
            tif=TimeInForce.DAY,
            flags=0,
            stp=1,
        ),
    ]
    assert driver.market.instruments()[0].pending_stops == 2
    assert driver.market.account(7).open_orders == 2


def test_a_triggered_stop_becomes_a_market_order(driver: Driver) -> None:
    driver.batch([stop(1, BUY, 105, 5, tif=TimeInForce.DAY), new(2, SELL, 110, 3, account=8)])
    driver.send(new(3, SELL, 105, 1))
    events = driver.send(ioc(4, BUY, 105, 1))
    assert [brief(event) for event in events] == [
        "accepted 4",
        "fill 4x3 1@105 0/0",
        "triggered 1",
        "fill 1x2 3@110 2/0",
        "canceled 1 2 UNFILLED",
    ]
    triggered, fill, rest = events[2:]
    assert triggered == Event(
        kind=EventKind.TRIGGERED,
        side=BUY,
        ord_type=OrderType.STOP,
        tif=TimeInForce.DAY,
        flags=EventFlag.LIVE,
        instrument=BTC,
        sub=2,
        seq=11,
        ref=4,
        order_id=1,
        contra_id=7,
        qty_lots=5,
        leaves_lots=5,
        contra_leaves_lots=105,
    )
    for event in (fill, rest):
        assert (event.ord_type, event.tif, event.ref) == (OrderType.MARKET, TimeInForce.IOC, 4)
    assert (rest.price_ticks, rest.flags) == (0, EventFlag.LAST | EventFlag.LIVE)
    assert driver.market.account(7).open_orders == 0


def test_a_triggered_stop_limit_becomes_a_limit_order(driver: Driver) -> None:
    driver.batch([stop_limit(1, BUY, 105, 107, 5, tif=TimeInForce.DAY), new(2, SELL, 106, 2)])
    events = driver.send(new(3, SELL, 105, 1)) + driver.send(ioc(4, BUY, 105, 1))
    assert [brief(event) for event in events[3:]] == ["triggered 1", "fill 1x2 2@106 3/0"]
    assert [(event.ord_type, event.tif) for event in events[3:]] == [
        (OrderType.STOP_LIMIT, TimeInForce.DAY),
        (OrderType.LIMIT, TimeInForce.DAY),
    ]
    assert events[3].price_ticks == 107
    assert (driver.ids(), driver.stop_ids()) == ([1], [])
    [canceled] = driver.send(cancel(1))
    assert (canceled.ord_type, canceled.tif, canceled.price_ticks) == (
        OrderType.LIMIT,
        TimeInForce.DAY,
        107,
    )


@pytest.mark.parametrize(
    ("side", "price_ticks", "goes_off"),
    [
        (BUY, 99, False),
        (BUY, 100, True),
        (BUY, 101, True),
        (SELL, 99, True),
        (SELL, 100, True),
        (SELL, 101, False),
    ],
)
def test_a_stop_goes_off_at_its_price_and_beyond(
    driver: Driver, side: int, price_ticks: int, goes_off: bool
) -> None:
    driver.send(stop(1, side, 100))
    assert ("triggered 1" in trade(driver, price_ticks)) == goes_off
    assert driver.stop_ids() == ([] if goes_off else [1])


def test_a_stop_may_go_off_at_once(driver: Driver) -> None:
    trade(driver, 100)
    driver.send(new(1, SELL, 104, 2))
    assert driver.told(stop(2, BUY, 100, 2)) == ["accepted 2", "triggered 2", "fill 2x1 2@104 0/0"]
    assert driver.told(stop(3, BUY, 105, 2)) == ["accepted 3"]
    assert driver.told(stop_limit(4, SELL, 104, 103, 2)) == ["accepted 4", "triggered 4"]
    assert (driver.ids(), driver.stop_ids()) == ([4], [3])


def test_before_the_first_trade_every_stop_waits(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100), new(2, BUY, 90), stop(3, BUY, 1), stop(4, SELL, 1_000)])
    assert driver.stop_ids() == [3, 4]


def test_the_oldest_entry_goes_first_whatever_its_price_and_side(driver: Driver) -> None:
    driver.batch([stop(3, BUY, 101, 1), stop(1, SELL, 104, 1), stop(2, BUY, 100, 1)])
    driver.send(stop(4, BUY, 103, 1))
    assert trade(driver, 102)[2:] == [
        *("triggered 3", "canceled 3 1 UNFILLED"),
        *("triggered 1", "canceled 1 1 UNFILLED"),
        *("triggered 2", "canceled 2 1 UNFILLED"),
    ]
    assert driver.stop_ids() == [4]


def test_all_prices_of_a_sweep_count(driver: Driver) -> None:
    driver.batch([stop(1, BUY, 105, 1), stop(2, SELL, 99, 1), stop(3, SELL, 100, 1)])
    driver.batch([new(4, SELL, 100, 1), new(5, SELL, 105, 1)])
    assert driver.told(new(6, BUY, 105, 2))[3:] == [
        *("triggered 1", "canceled 1 1 UNFILLED"),
        *("triggered 3", "canceled 3 1 UNFILLED"),
    ]
    assert driver.stop_ids() == [2]


def test_stops_set_off_stops_which_wait_for_those_before_them(driver: Driver) -> None:
    """1 and 2 go off together; 3, set off by 1, comes after 2; 4, set off by 2, after 3."""
    driver.batch([stop(1, BUY, 100, 1), stop(2, BUY, 100, 1)])
    driver.batch([stop(4, BUY, 103, 1), stop(3, BUY, 102, 1), stop(5, BUY, 200, 1)])
    driver.batch([new(price, SELL, price, 1) for price in (102, 103, 104, 105)])
    assert trade(driver, 100)[2:] == [
        *("triggered 1", "fill 1x102 1@102 0/0"),
        *("triggered 2", "fill 2x103 1@103 0/0"),
        *("triggered 3", "fill 3x104 1@104 0/0"),
        *("triggered 4", "fill 4x105 1@105 0/0"),
    ]
    assert driver.stop_ids() == [5]


def test_a_stop_that_drives_the_price_sets_off_the_next(driver: Driver) -> None:
    driver.batch([new(1, BUY, 98, 2), new(2, BUY, 90, 5)])
    driver.batch([stop(3, SELL, 99, 3), stop_limit(4, SELL, 90, 95, 4), stop(5, SELL, 89, 1)])
    driver.send(new(6, SELL, 99, 1))
    assert driver.told(ioc(7, BUY, 99, 1))[2:] == [
        *("triggered 3", "fill 3x1 2@98 1/0", "fill 3x2 1@90 0/4"),
        "triggered 4",
    ]
    assert (driver.ids(), driver.stop_ids()) == ([2, 4], [5])


def test_a_rest_that_trades_later_sets_off_later(driver: Driver) -> None:
    driver.batch([stop(1, BUY, 105, 1), new(2, BUY, 105, 1)])
    assert driver.stop_ids() == [1]
    assert driver.told(new(3, SELL, 100, 1)) == [
        *("accepted 3", "fill 3x2 1@105 0/0"),
        *("triggered 1", "canceled 1 1 UNFILLED"),
    ]


def test_a_prevented_trade_sets_nothing_off(driver: Driver) -> None:
    driver.batch([stop(1, BUY, 100, 1), new(2, SELL, 100, 5)])
    prevented = new(3, BUY, 100, 5, stp=SelfTradePrevention.DECREMENT)
    assert driver.told(prevented) == ["accepted 3", "prevented 3x2 5@100 0/0"]
    assert driver.stop_ids() == [1]
    assert driver.market.instruments()[0].last_price_ticks == 0


def test_a_triggered_stop_prevents_self_trades_as_it_was_told(driver: Driver) -> None:
    maker = SelfTradePrevention.CANCEL_MAKER
    driver.batch(
        [stop(1, BUY, 100, 2, stp=maker), new(2, SELL, 101, 5), new(3, SELL, 102, 5, account=8)]
    )
    assert trade(driver, 100)[2:] == [
        "triggered 1",
        "canceled 2 5 SELF_TRADE",
        "fill 1x3 2@102 0/3",
    ]


def test_stops_are_of_their_instrument(driver: Driver) -> None:
    driver.send(set_mode(Mode.LIVE, 1, instrument=ETH))
    driver.batch([stop(1, BUY, 100, instrument=ETH), stop(2, BUY, 100)])
    trade(driver, 100)
    assert (driver.stop_ids(ETH), driver.stop_ids()) == ([1], [])


def test_a_waiting_stop_has_its_id_and_can_be_canceled_and_reduced(driver: Driver) -> None:
    driver.batch([stop(1, BUY, 100), stop_limit(2, SELL, 90, 95)])
    assert driver.reason(new(1)) is Reason.DUPLICATE_ORDER_ID
    assert driver.reason(cancel(1, account=8)) is Reason.NOT_OWNER
    assert driver.told(reduce(2, 2)) == ["reduced 2 3 left 2"]
    [canceled] = driver.send(cancel(2))
    assert (canceled.ord_type, canceled.price_ticks, canceled.qty_lots) == (
        OrderType.STOP_LIMIT,
        95,
        2,
    )
    assert driver.told(cancel(1)) == ["canceled 1 5 BY_REQUEST"]
    assert driver.stop_ids() == []
    trade(driver, 100)
    assert driver.reason(cancel(1)) is Reason.UNKNOWN_ORDER


def test_a_replaced_stop_waits_behind_the_others(driver: Driver) -> None:
    driver.batch([stop_limit(1, BUY, 100, 100, 5), stop(2, BUY, 100, 5)])
    [event] = driver.send(replace(1, 101, 9, 3))
    assert (event.ord_type, event.price_ticks, event.contra_leaves_lots) == (
        OrderType.STOP_LIMIT,
        101,
        5,
    )
    assert driver.stop_ids() == [2, 3]
    assert [(stop.stop_price_ticks, stop.qty_lots) for stop in driver.stops()] == [
        (100, 5),
        (100, 9),
    ]
    assert trade(driver, 100)[2:] == ["triggered 2", "canceled 2 5 UNFILLED", "triggered 3"]
    assert [order.price_ticks for order in driver.orders()] == [101]


def test_clear_forgets_stops_and_the_last_price(driver: Driver) -> None:
    trade(driver, 100)
    driver.batch([stop(1, BUY, 105), new(2, BUY, 90), set_mode(Mode.SHADOW, 2)])
    assert driver.market.instruments()[0].last_price_ticks == 100
    [cleared] = driver.send(clear())
    assert (cleared.kind, cleared.qty_lots) == (EventKind.CLEARED, 2)
    assert driver.market.instruments()[0].last_price_ticks == 0
    assert driver.told(stop(1, BUY, 100, session=SHADOW)) == ["accepted 1"]
    assert driver.stop_ids() == [1]


def test_the_last_price_is_that_of_the_last_fill(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 1), new(2, SELL, 101, 1), new(3, BUY, 101, 2)])
    assert driver.market.instruments()[0].last_price_ticks == 101
    driver.batch([new(4, SELL, 99, 1), new(5, BUY, 101, 1), cancel(4)])
    assert driver.market.instruments()[0].last_price_ticks == 99


def test_a_stop_meets_icebergs_as_any_taker(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 102, 5, 2, account=8), stop(2, BUY, 100, 4)])
    assert trade(driver, 100)[2:] == [
        "triggered 2",
        "fill 2x1 2@102 2/3",
        "fill 2x1 2@102 0/1",
    ]


def test_a_stop_is_none_of_other_times_in_force(driver: Driver) -> None:
    for tif in (TimeInForce.IOC, TimeInForce.FOK, TimeInForce.GTD):
        assert driver.reason(changed(stop(1, BUY, 100), tif=tif)) is Reason.BAD_FIELD


def test_a_killed_account_s_stop_is_canceled_where_it_would_go_off(driver: Driver) -> None:
    driver.send(stop(50, BUY, 101, account=9))
    driver.send(kill(9))
    told = trade(driver, 101)
    assert told[-1] == "canceled 50 5 ACCOUNT_KILLED"
    assert "triggered 50" not in told
    assert driver.reason(cancel(50, account=9)) is Reason.UNKNOWN_ORDER
