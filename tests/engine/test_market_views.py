"""What a market shows of itself beside its events, whichever the implementation: the same tests
over both.
"""

from __future__ import annotations

import numpy as np
import pytest
from market_driver import (
    BTC,
    BUY,
    ETH,
    PRICE_MAX,
    SELL,
    Driver,
    define,
    iceberg,
    market_or_skip,
    new,
    reduce,
    set_mode,
    stop,
)

from engine.errors import UnknownInstrument
from engine.types import Mode
from engine.wire import DEPTH_DTYPE, DISPLAYED_ORDER_DTYPE

U64_MAX = 2**64 - 1
Level = tuple[int, int, int, int]


def depth(driver: Driver, levels: int, instrument: int = BTC) -> list[Level]:
    """(side, price, displayed, orders)"""
    rows = np.frombuffer(driver.market.depth(instrument, levels), DEPTH_DTYPE)
    found: list[Level] = rows.tolist()
    return found


def displayed(driver: Driver, count: int) -> list[tuple[int, int, int, int]]:
    """(order id, price, displayed, side)"""
    rows = np.frombuffer(driver.market.displayed_orders(BTC, count), DISPLAYED_ORDER_DTYPE)
    found: list[tuple[int, int, int, int]] = rows.tolist()
    return found


@pytest.fixture
def full(driver: Driver) -> Driver:
    driver.batch(
        [
            new(1, BUY, 90, 5),
            new(2, BUY, 91, 6),
            iceberg(3, BUY, 91, 50, 4),
            new(4, SELL, 101, 7),
            iceberg(5, SELL, 100, 9, 2),
            new(6, SELL, 102, 8),
            stop(7, BUY, 150),
        ]
    )
    return driver


def test_depth_is_what_is_displayed_at_the_best_prices(full: Driver) -> None:
    whole = [(1, 91, 10, 2), (1, 90, 5, 1), (2, 100, 2, 1), (2, 101, 7, 1), (2, 102, 8, 1)]
    assert depth(full, 10) == whole
    assert depth(full, 2) == whole[:4]
    assert depth(full, 1) == [whole[0], whole[2]]
    assert depth(full, 0) == depth(full, 5, ETH) == []


def test_depth_follows_fills_and_reductions(full: Driver) -> None:
    full.batch([new(8, SELL, 91, 8, account=8), reduce(6, 1)])
    assert depth(full, 10) == [
        *((1, 91, 2, 1), (1, 90, 5, 1), (2, 100, 2, 1), (2, 101, 7, 1), (2, 102, 1, 1)),
    ]


def test_orders_are_shown_best_price_first_then_oldest(full: Driver) -> None:
    bids = [(2, 91, 6, BUY), (3, 91, 4, BUY), (1, 90, 5, BUY)]
    asks = [(5, 100, 2, SELL), (4, 101, 7, SELL), (6, 102, 8, SELL)]
    assert displayed(full, 10) == bids + asks
    assert displayed(full, 2) == bids[:2] + asks[:2]
    full.send(new(8, SELL, 91, 10, account=8))  # all that is displayed: 3 comes back
    assert displayed(full, 1) == [(3, 91, 4, BUY), asks[0]]


def test_the_sum_of_a_price_ends_where_its_field_does(driver: Driver) -> None:
    driver.send(define(BTC, "BTC-USD", price_ticks_max=PRICE_MAX, qty_lots_max=U64_MAX))
    driver.batch([new(1, BUY, 90, U64_MAX), new(2, BUY, 90, 5), new(3, SELL, 91, U64_MAX)])
    assert depth(driver, 1) == [(1, 90, U64_MAX, 2), (2, 91, U64_MAX, 1)]


def test_resting_orders_are_listed_with_all_they_have(full: Driver) -> None:
    assert [(order.order_id, order.leaves_lots) for order in full.orders()] == [
        *((2, 6), (3, 50), (1, 5), (5, 9), (4, 7), (6, 8)),
    ]
    assert full.stop_ids() == [7]
    assert full.stop_ids(ETH) == []


@pytest.mark.parametrize("number", [99, -1, 2**32])
def test_nothing_is_shown_of_what_there_is_not(driver: Driver, number: int) -> None:
    market = driver.market
    for look in (
        lambda: market.orders(number),
        lambda: market.stops(number),
        lambda: market.depth(number, 5),
        lambda: market.displayed_orders(number, 5),
    ):
        with pytest.raises(UnknownInstrument, match=f"no instrument {number}"):
            look()


def test_an_instrument_counts_its_orders_and_its_stops(full: Driver) -> None:
    btc, eth = full.market.instruments()
    assert (btc.open_orders, btc.pending_stops) == (6, 1)
    assert (eth.open_orders, eth.pending_stops) == (0, 0)
    assert full.market.account(7).open_orders == 7
    full.send(set_mode(Mode.CLOSED, 2))
    assert depth(full, 1) == [(1, 91, 10, 2), (2, 100, 2, 1)]


def test_an_empty_market_shows_nothing(implementation: str) -> None:
    market = market_or_skip(implementation)
    assert market.instruments() == market.sessions() == market.accounts() == ()
    assert market.next_expiry_ns() is None
    assert market.account(2**64 - 1).open_orders == 0
