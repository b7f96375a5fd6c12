"""Self-trade prevention, whichever the implementation: the same tests over both."""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    SELL,
    Driver,
    at_least,
    changed,
    fok,
    iceberg,
    ioc,
    limit_account,
    market_order,
    new,
    replace,
)

from engine.reject import Reason
from engine.types import EventKind, OrderType, SelfTradePrevention, TimeInForce

NONE, TAKER, MAKER, BOTH, DECREMENT = SelfTradePrevention


def test_without_a_mode_an_account_trades_with_itself(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5, stp=BOTH))  # the maker's mode does not matter
    assert driver.fills(new(2, BUY, 100, 5, stp=NONE)) == [(1, 100, 5)]


@pytest.mark.parametrize(
    ("mode", "told", "left"),
    [
        (TAKER, ["canceled 9 7 SELF_TRADE"], [(2, 5), (3, 5)]),
        (MAKER, ["canceled 2 5 SELF_TRADE", "fill 9x3 5@100 2/0"], [(9, 2)]),
        (BOTH, ["canceled 2 5 SELF_TRADE", "canceled 9 7 SELF_TRADE"], [(3, 5)]),
        (DECREMENT, ["prevented 9x2 5@100 2/0", "fill 9x3 2@100 0/3"], [(3, 3)]),
    ],
)
def test_the_takers_mode_decides_when_it_meets_its_own(
    driver: Driver, mode: SelfTradePrevention, told: list[str], left: list[tuple[int, int]]
) -> None:
    driver.batch(
        [new(1, SELL, 99, 5, account=8), new(2, SELL, 100, 5), new(3, SELL, 100, 5, account=8)]
    )
    assert driver.told(new(9, BUY, 100, 12, stp=mode)) == [
        "accepted 9",
        "fill 9x1 5@99 7/0",
        *told,
    ]
    assert [(order.order_id, order.leaves_lots) for order in driver.orders()] == left


@pytest.mark.parametrize("mode", [TAKER, MAKER, BOTH, DECREMENT])
def test_others_trade(driver: Driver, mode: SelfTradePrevention) -> None:
    driver.send(new(1, SELL, 100, 5, account=8))
    assert driver.fills(new(2, BUY, 100, 5, stp=mode)) == [(1, 100, 5)]


@pytest.mark.parametrize(
    ("own_group", "other_group", "prevented"),
    [(0, 0, False), (5, 0, False), (0, 5, False), (5, 6, False), (5, 5, True)],
)
def test_a_group_is_one(driver: Driver, own_group: int, other_group: int, prevented: bool) -> None:
    driver.batch([limit_account(7, group=own_group), limit_account(8, group=other_group)])
    driver.send(new(1, SELL, 100, 5, account=8))
    told = driver.told(new(2, BUY, 100, 5, stp=TAKER))
    assert ("canceled 2 5 SELF_TRADE" in told) == prevented


def test_the_group_of_now_counts(driver: Driver) -> None:
    driver.batch(
        [limit_account(7, group=5), limit_account(8, group=5), new(1, SELL, 100, account=8)]
    )
    driver.send(limit_account(8))
    assert driver.fills(new(2, BUY, 100, stp=TAKER)) == [(1, 100, 5)]


def test_events_of_prevention(driver: Driver) -> None:
    driver.send(new(1, SELL, 100, 5, tif=TimeInForce.DAY))
    events = driver.send(ioc(2, BUY, 103, 9, stp=DECREMENT))
    prevented, rest = events[1:]
    assert (prevented.kind, prevented.order_id, prevented.contra_id) == (EventKind.PREVENTED, 2, 1)
    assert (prevented.side, prevented.tif, prevented.reason) == (BUY, TimeInForce.IOC, Reason.NONE)
    assert (prevented.price_ticks, prevented.qty_lots, prevented.leaves_lots) == (100, 5, 4)
    assert (rest.kind, rest.reason, rest.qty_lots) == (EventKind.CANCELED, Reason.UNFILLED, 4)
    driver.send(new(3, SELL, 100, 5, tif=TimeInForce.DAY))
    maker, taker = driver.send(ioc(4, BUY, 103, 9, stp=BOTH))[1:]
    assert (maker.order_id, maker.side, maker.ord_type, maker.tif, maker.price_ticks) == (
        *(3, SELL, OrderType.LIMIT, TimeInForce.DAY, 100),
    )
    assert (taker.order_id, taker.side, taker.tif, taker.price_ticks, taker.leaves_lots) == (
        *(4, BUY, TimeInForce.IOC, 103, 0),
    )


def test_decrement_takes_from_the_part_that_an_iceberg_shows(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 100, 5, 2), new(2, SELL, 100, 1, account=8)])
    assert driver.told(new(3, BUY, 100, 4, stp=DECREMENT)) == [
        *("accepted 3", "prevented 3x1 2@100 2/3"),
        *("fill 3x2 1@100 1/0", "prevented 3x1 1@100 0/2"),
    ]
    assert driver.ids() == [1]


def test_a_canceled_maker_loses_what_it_hid(driver: Driver) -> None:
    driver.send(iceberg(1, SELL, 100, 9, 2))
    assert driver.told(new(2, BUY, 100, 1, stp=MAKER)) == ["accepted 2", "canceled 1 9 SELF_TRADE"]
    assert driver.ids() == [2]


def test_a_replaced_order_keeps_its_mode(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5), new(2, BUY, 90, 5, stp=TAKER)])
    assert driver.told(replace(2, 100, 8)) == ["replaced 2 by 2", "canceled 2 8 SELF_TRADE"]


# --- fill or kill counts what it can reach


@pytest.mark.parametrize(
    ("mode", "reachable"),
    [(NONE, 5 + 3 + 4 + 2 + 6), (MAKER, 5 + 3 + 2 + 6), (TAKER, 8), (BOTH, 8), (DECREMENT, 8)],
)
def test_a_fok_counts_what_its_mode_lets_it_reach(
    driver: Driver, mode: SelfTradePrevention, reachable: int
) -> None:
    driver.batch(
        [
            new(1, SELL, 99, 5, account=8),
            new(2, SELL, 100, 3, account=8),
            new(3, SELL, 100, 4),  # its own
            new(4, SELL, 100, 2, account=8),
            new(5, SELL, 101, 6, account=8),
        ]
    )
    before = driver.market.orders(BTC)
    too_much = fok(9, BUY, 101, reachable + 1, stp=mode)
    assert driver.told(too_much) == ["accepted 9", f"canceled 9 {reachable + 1} UNFILLED"]
    assert driver.market.orders(BTC) == before
    events = driver.send(fok(9, BUY, 101, reachable, stp=mode))
    assert sum(event.qty_lots for event in events if event.kind is EventKind.FILL) == reachable
    assert [event.order_id for event in events if event.kind is EventKind.CANCELED] == (
        [3] if mode is MAKER else []
    )


@pytest.mark.parametrize(
    ("mode", "reachable", "traded"),
    [(NONE, 12, 12), (MAKER, 11, 11), (TAKER, 2, 2), (BOTH, 2, 2), (DECREMENT, 2, 11)],
)
def test_what_hides_behind_an_own_order_is_not_counted(
    driver: Driver, mode: SelfTradePrevention, reachable: int, traded: int
) -> None:
    """It may trade after all, where the own order takes only from the quantity."""
    driver.batch([iceberg(1, SELL, 100, 11, 2, account=8), new(2, SELL, 100, 1)])
    order = at_least(9, BUY, 100, 12, reachable, tif=TimeInForce.IOC, stp=mode)
    if reachable < 12:
        more = changed(order, aux=reachable + 1)
        assert driver.told(more) == ["accepted 9", "canceled 9 12 UNFILLED"]
    assert sum(lots for _, _, lots in driver.fills(order)) == traded


def test_hidden_parts_of_levels_before_the_own_order_are_in_reach(driver: Driver) -> None:
    driver.batch([iceberg(1, SELL, 99, 9, 2, account=8), new(2, SELL, 100, 5)])
    assert sum(lots for _, _, lots in driver.fills(fok(9, BUY, 100, 9, stp=TAKER))) == 9


def test_a_market_fok_reaches_every_price(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100, 5, account=8), new(2, SELL, 900_000, 5, account=8)])
    order = changed(market_order(3, BUY, 10, stp=TAKER), tif=TimeInForce.FOK)
    assert driver.fills(order) == [(1, 100, 5), (2, 900_000, 5)]
