"""What accounts may do, whichever the implementation: the same tests over both."""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    CONTROL,
    ETH,
    PROXY,
    SELL,
    SHADOW,
    Driver,
    cancel,
    changed,
    clear,
    day,
    define,
    fok,
    iceberg,
    ioc,
    kill,
    limit_account,
    limit_instrument,
    market_order,
    new,
    post_only,
    reduce,
    replace,
    set_mode,
    stop,
    stop_limit,
)

from engine.reject import Reason
from engine.snapshot import AccountState
from engine.types import Command, EventFlag, EventKind, Mode

U64_MAX = 2**64 - 1


def open_now(driver: Driver, account: int = 7) -> tuple[int, int]:
    state = driver.market.account(account)
    return state.open_orders, state.open_qty


# --- settings


def test_settings_are_set_together_and_told(driver: Driver) -> None:
    assert driver.market.accounts() == ()
    assert driver.market.account(7) == AccountState(account=7)
    [event] = driver.send(
        limit_account(7, open_orders_max=5, open_qty_max=U64_MAX, rate_max=3, group=U64_MAX)
    )
    assert (event.kind, event.contra_id, event.flags) == (
        *(EventKind.ACCOUNT_LIMITS, 7, EventFlag.LAST),
    )
    assert (event.order_id, event.qty_lots, event.price_ticks, event.leaves_lots) == (
        *(5, U64_MAX, 3, U64_MAX),
    )
    [event] = driver.send(kill(5))
    assert (event.kind, event.contra_id, event.leaves_lots, event.flags) == (
        *(EventKind.KILL_SWITCH, 5, 1, EventFlag.LAST),
    )
    limited = AccountState(
        account=7, open_orders_max=5, open_qty_max=U64_MAX, rate_max=3, group=U64_MAX
    )
    assert driver.market.accounts() == (AccountState(account=5, killed=True), limited)
    driver.send(limit_account(7, group=1))
    assert driver.market.account(7) == AccountState(account=7, group=1)
    driver.batch([limit_account(7), kill(5, killed=False)])
    assert driver.market.accounts() == ()


def test_limits_leave_the_kill_switch_alone(driver: Driver) -> None:
    driver.batch([kill(7), limit_account(7, group=1), limit_account(7)])
    assert driver.market.accounts() == (AccountState(account=7, killed=True),)


# --- the kill switch


def test_a_killed_account_may_only_lessen(driver: Driver) -> None:
    driver.batch([new(1, BUY, 90), new(2, BUY, 90), kill(7)])
    for command in (new(4), ioc(4, BUY, 100, 1), stop(4, BUY, 200), replace(1, 91, 5)):
        assert driver.reason(command) is Reason.ACCOUNT_KILLED
    assert driver.reason(new(4, account=8)) is Reason.NONE
    assert driver.reason(reduce(1, 1)) is Reason.NONE
    assert driver.reason(cancel(2)) is Reason.NONE
    driver.send(kill(7, killed=False))
    assert driver.reason(new(6)) is Reason.NONE


def test_a_killed_accounts_orders_stay_in_the_book(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100), kill(7)])
    assert driver.fills(new(2, BUY, 100, account=8)) == [(1, 100, 5)]


def test_the_switch_holds_for_the_shadow_too(driver: Driver) -> None:
    driver.batch([set_mode(Mode.SHADOW, 1, instrument=ETH), kill(7)])
    order = new(1, session=SHADOW, instrument=ETH)
    assert driver.reason(order) is Reason.ACCOUNT_KILLED


# --- open orders and their quantity


@pytest.mark.parametrize(
    "order",
    [
        new(9, BUY, 80),
        day(9, BUY, 80),
        post_only(9, BUY, 80),
        iceberg(9, BUY, 80, 5, 1),
        stop(9, BUY, 200),
        stop_limit(9, BUY, 200, 200),
        new(9, BUY, 100),  # it would trade
    ],
)
def test_what_may_stay_open_is_limited(driver: Driver, order: Command) -> None:
    driver.batch([new(1, SELL, 100, account=8), new(2, BUY, 90), stop(3, BUY, 150)])
    driver.send(limit_account(7, open_orders_max=2))
    assert driver.reason(order) is Reason.ACCOUNT_OPEN_ORDERS
    driver.send(limit_account(7, open_qty_max=14))
    assert driver.reason(order) is Reason.ACCOUNT_OPEN_QUANTITY
    for command in (ioc(8, BUY, 80, 9), fok(8, BUY, 80, 9), market_order(8, SELL, 1)):
        assert driver.reason(command) is Reason.NONE
    driver.send(limit_account(7, open_orders_max=3, open_qty_max=15))
    assert driver.reason(order) is Reason.NONE


def test_limits_count_all_instruments(driver: Driver) -> None:
    driver.batch([set_mode(Mode.LIVE, 1, instrument=ETH), limit_account(7, open_orders_max=2)])
    driver.batch([new(1), new(2, instrument=ETH)])
    assert driver.reason(new(3)) is Reason.ACCOUNT_OPEN_ORDERS
    assert driver.reason(new(3, account=8)) is Reason.NONE
    assert open_now(driver) == (2, 10)


def test_a_replacement_takes_the_room_of_its_order(driver: Driver) -> None:
    driver.batch([new(1, BUY, 90, 5), new(2, BUY, 90, 5)])
    driver.send(limit_account(7, open_orders_max=2, open_qty_max=12))
    assert driver.reason(replace(1, 91, 8)) is Reason.ACCOUNT_OPEN_QUANTITY
    assert driver.reason(replace(1, 91, 7)) is Reason.NONE
    driver.send(limit_account(7, open_orders_max=1))
    assert driver.reason(replace(1, 91, 1)) is Reason.ACCOUNT_OPEN_ORDERS


def test_what_is_open_follows_every_change(driver: Driver) -> None:
    steps: list[tuple[Command, tuple[int, int]]] = [
        (new(1, SELL, 100, 9), (1, 9)),
        (new(2, BUY, 100, 2, account=8), (1, 7)),
        (ioc(3, BUY, 100, 1), (1, 6)),  # with itself
        (iceberg(4, SELL, 101, 20, 5), (2, 26)),
        (new(5, BUY, 101, 13, account=8), (1, 13)),
        (reduce(4, 10), (1, 10)),
        (replace(4, 102, 8), (1, 8)),
        (stop(6, BUY, 103, 4), (2, 12)),
        (new(7, SELL, 104, 2), (3, 14)),
        (new(8, BUY, 102, 1, account=8), (3, 13)),
        (new(9, BUY, 104, 9, account=8), (0, 0)),  # fills 4 and 7; 6 goes off and finds nothing
    ]
    for command, expected in steps:
        driver.send(command)
        assert open_now(driver) == expected
    assert open_now(driver, 8) == (0, 0)


def test_clear_and_triggers_give_the_room_back(driver: Driver) -> None:
    driver.batch([stop_limit(1, BUY, 100, 90, 5), new(2, SELL, 100, 1), new(3, BUY, 100, 1)])
    assert open_now(driver) == (1, 5)  # rests now
    driver.batch([set_mode(Mode.SHADOW, 2), clear()])
    assert open_now(driver) == (0, 0)


def test_sums_outgrow_64_bits(driver: Driver) -> None:
    driver.batch([define(BTC, "BTC-USD", qty_lots_max=U64_MAX)])
    driver.batch([new(order_id, BUY, 90, U64_MAX) for order_id in (1, 2)])
    assert open_now(driver) == (2, U64_MAX)  # told so far and no further
    driver.send(limit_account(7, open_qty_max=U64_MAX))
    assert driver.reason(new(3, BUY, 90, 1)) is Reason.ACCOUNT_OPEN_QUANTITY
    driver.send(cancel(1))
    assert driver.reason(new(3, BUY, 90, 1)) is Reason.ACCOUNT_OPEN_QUANTITY
    driver.batch([reduce(2, U64_MAX - 1)])
    assert driver.reason(new(3, BUY, 90, 1)) is Reason.NONE


# --- rates


def test_new_orders_and_replacements_of_a_second_are_limited(driver: Driver) -> None:
    driver.send(limit_account(7, rate_max=3), at_s=10)
    accepted = [new(1), ioc(2, BUY, 1, 1), replace(1, 90, 5)]
    assert [driver.reason(command, at_s=10) for command in accepted] == [Reason.NONE] * 3
    for command in (new(3), market_order(3, BUY, 1), stop(3, BUY, 200), replace(1, 91, 5)):
        assert driver.reason(command, at_s=10) is Reason.ACCOUNT_RATE
    assert driver.reason(new(3, account=8)) is Reason.NONE
    assert driver.reason(reduce(1, 1)) is Reason.NONE
    assert driver.reason(cancel(1)) is Reason.NONE
    state = driver.market.account(7)
    assert (state.rate_second, state.rate_count) == (10, 3)
    assert driver.reason(new(4), at_s=11) is Reason.NONE
    state = driver.market.account(7)
    assert (state.rate_second, state.rate_count) == (11, 1)


def test_what_is_rejected_is_not_counted(driver: Driver) -> None:
    driver.send(limit_account(7, rate_max=2), at_s=10)
    driver.batch([new(1, BUY, 0), new(2, BUY, 90), new(2, BUY, 90), replace(9, 1, 1)])
    assert driver.reason(fok(3, BUY, 100, 5)) is Reason.NONE  # canceled, and yet accepted
    assert driver.reason(new(4)) is Reason.ACCOUNT_RATE


def test_a_new_rate_keeps_the_count_of_its_second(driver: Driver) -> None:
    driver.send(limit_account(7, rate_max=1), at_s=10)
    driver.batch([new(1), limit_account(7, rate_max=2)])
    assert driver.reason(new(2)) is Reason.NONE
    assert driver.reason(new(3)) is Reason.ACCOUNT_RATE
    driver.batch([limit_account(7), limit_account(7, rate_max=1)])
    assert driver.market.account(7).rate_count == 0
    assert driver.reason(new(3)) is Reason.NONE


def test_without_a_rate_nothing_is_counted(driver: Driver) -> None:
    driver.batch([limit_account(7, group=1), new(1)], at_s=10)
    state = driver.market.account(7)
    assert (state.rate_second, state.rate_count) == (0, 0)


def test_who_may_set_them(driver: Driver) -> None:
    for session in (PROXY, SHADOW):
        for command in (kill(), limit_account(), limit_instrument()):
            assert driver.reason(changed(command, session=session)) is Reason.NOT_PERMITTED
    assert driver.reason(kill(session=CONTROL)) is Reason.NONE
