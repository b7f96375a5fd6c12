"""`PythonMarket.check` finds what is broken: else the tests that call it would prove nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from market_driver import (
    BTC,
    BUY,
    SELL,
    bounded_market,
    gtd,
    kill,
    limit_account,
    new,
    opened,
    stop,
    stop_limit,
)

from engine.reference import PythonMarket
from engine.reference.state import State
from engine.types import Mode, Role


def filled() -> PythonMarket:
    market = PythonMarket()
    driver = opened(market)
    driver.batch(
        [
            limit_account(7, rate_max=9),
            kill(8),
            new(1, SELL, 110),
            new(2, BUY, 100, 2),
            new(3, SELL, 100, 2),
            gtd(4, BUY, 90, 10**9),
            stop(5, BUY, 120),
            stop_limit(6, SELL, 80, 70),
            stop(7, BUY, 130),
        ]
    )
    return market


def _lose_an_account(state: State) -> None:
    del state.accounts._open[7]


def _miscount_quantity(state: State) -> None:
    state.accounts._open[7].lots += 1


def _miscount_orders(state: State) -> None:
    state.accounts._open[7].orders -= 1


def _keep_an_account_without_settings(state: State) -> None:
    state.accounts._settings[8].killed = False


def _count_without_a_rate(state: State) -> None:
    state.accounts._settings[8].rate_count = 1


def _change_the_defaults(state: State) -> None:
    state.accounts.settings(99).group = 1


def _lose_an_expiry(state: State) -> None:
    state.instruments[BTC].expiries.clear()


def _invent_an_expiry(state: State) -> None:
    state.instruments[BTC].expiries.add((5, 1))


def _lose_an_id(state: State) -> None:
    del state.orders._by_id[1]


def _keep_an_id(state: State) -> None:
    state.orders._by_id[99] = state.orders[1]


def _lose_a_stop_price(state: State) -> None:
    state.instruments[BTC].stops._by_price[BUY].pop()


def _lose_a_stop(state: State) -> None:
    stops = state.instruments[BTC].stops._orders
    del stops[next(iter(stops))]


def _swap_stops(state: State) -> None:
    stops = state.instruments[BTC].stops._orders
    first = next(iter(stops))
    stops[first] = stops.pop(first)


def _miss_a_trade(state: State) -> None:
    state.instruments[BTC].last_price_ticks = 120


def _rest_a_stop(state: State) -> None:
    state.instruments[BTC].book.rest(state.orders[6])


def _wait_as_a_limit_order(state: State) -> None:
    state.orders[5].trigger()


def _forget_who_entered(state: State) -> None:
    state.orders[1].session = 99


def _move_an_order(state: State) -> None:
    state.orders[1].instrument = 2


def _forget_a_name(state: State) -> None:
    del state.numbers["BTC-USD"]


def _turn_the_band(state: State) -> None:
    limits = state.instruments[BTC].limits
    state.instruments[BTC].limits = type(limits)(
        price_ticks_max=1, qty_lots_max=1, price_ticks_min=2
    )


def _give_options(state: State) -> None:
    session = state.sessions[1]
    assert session.role is Role.ADMIN
    session.options = 1


DAMAGES = [
    _lose_an_account,
    _miscount_quantity,
    _miscount_orders,
    _keep_an_account_without_settings,
    _count_without_a_rate,
    _lose_an_expiry,
    _invent_an_expiry,
    _lose_an_id,
    _keep_an_id,
    _lose_a_stop_price,
    _lose_a_stop,
    _swap_stops,
    _miss_a_trade,
    _rest_a_stop,
    _wait_as_a_limit_order,
    _forget_who_entered,
    _move_an_order,
    _forget_a_name,
    _turn_the_band,
    _give_options,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_finds_what_is_broken(damage: Callable[[State], None]) -> None:
    market = filled()
    market.check()
    damage(market._state)
    with pytest.raises(AssertionError):
        market.check()


def test_check_finds_changed_defaults() -> None:
    market = filled()
    _change_the_defaults(market._state)
    try:
        with pytest.raises(AssertionError, match="the defaults have changed"):
            market.check()
    finally:
        market._state.accounts.settings(99).group = 0
    market.check()


@pytest.mark.parametrize(
    ("bounds", "problem"),
    [
        ({"open_orders_per_book_max": 4}, "too full"),
        ({"open_orders_max": 4}, "the shard is too full"),
        ({"stops_per_book_max": 2}, "too many stops"),
        ({"accounts_max": 1}, "too many accounts"),
        ({"levels_per_side_max": 0, "stops_per_book_max": 3}, ""),
    ],
)
def test_check_finds_what_is_out_of_bounds(bounds: dict[str, int], problem: str) -> None:
    narrow = bounded_market("python", **bounds)
    assert isinstance(narrow, PythonMarket)
    state = filled()._state
    assert state.instruments[BTC].mode is Mode.LIVE
    state.bounds = narrow._state.bounds
    if problem:
        with pytest.raises(AssertionError, match=problem):
            state.check()
    else:
        state.check()  # triggered stops may open prices beyond the bound
