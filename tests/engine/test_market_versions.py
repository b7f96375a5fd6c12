"""The rules that journals of the previous release are replayed under, whichever the implementation:
the same tests over both.
"""

from __future__ import annotations

import pytest
from market_driver import (
    BTC,
    BUY,
    CONTROL,
    PROXY,
    SELL,
    TIME_PASSES,
    Driver,
    bounded_market,
    cancel,
    changed,
    clear,
    day,
    define,
    disconnected,
    fok,
    gtd,
    halt,
    iceberg,
    ioc,
    is_live,
    kill,
    limit_account,
    limit_instrument,
    market_order,
    mass_cancel,
    mass_cancel_everywhere,
    new,
    opened,
    post_only,
    price_band,
    reduce,
    replace,
    session_options,
    set_mode,
    stop,
)

from engine.reject import Reason
from engine.types import Command, CommandKind, Mode, Role
from engine.wire import session_command


@pytest.mark.parametrize(
    "command",
    [
        new(1),
        ioc(1, BUY, 100, 5),
        market_order(1, BUY, 5),
        define(3, "LTC-USD"),
        set_mode(Mode.LIVE, 2),
        session_command(session=9, name="proxy-1", role=Role.TRADE),
    ],
)
def test_what_the_first_rules_knew_they_know(driver: Driver, command: Command) -> None:
    assert driver.reason(command, rules=1) is Reason.NONE


@pytest.mark.parametrize(
    "command",
    [
        day(1, BUY, 100),
        gtd(1, BUY, 100, 10**9),
        fok(1, BUY, 100, 5),
        post_only(1, BUY, 100),
        iceberg(1, BUY, 100, 5, 1),
        stop(1, BUY, 100),
        new(1, stp=1),
        changed(new(1), aux=1),
        changed(market_order(1, BUY, 5), tif=1),
    ],
)
def test_other_orders_are_no_orders_yet(driver: Driver, command: Command) -> None:
    assert driver.reason(command, rules=1) is Reason.BAD_FIELD
    assert driver.ids() == driver.stop_ids() == []


@pytest.mark.parametrize(
    "command",
    [
        reduce(1, 1),
        replace(1, 90, 5),
        mass_cancel(),
        mass_cancel_everywhere(),
        limit_instrument(),
        price_band(1, 5),
        halt(),
        limit_account(),
        kill(),
        TIME_PASSES,
        session_options(PROXY, 1),
        disconnected(PROXY),
    ],
)
def test_other_kinds_are_unknown_and_use_up_their_reference(
    driver: Driver, command: Command
) -> None:
    """As of any unknown kind, the instrument in its field says whether it is live."""
    driver.batch([new(1), limit_account(7, group=1)])
    before = driver.market.instruments(), driver.market.accounts(), driver.market.orders(BTC)
    strange = changed(command, session=PROXY, instrument=BTC)
    [event] = driver.send(strange, rules=1)
    assert event.reason is Reason.UNKNOWN_KIND
    assert is_live(event)
    [proxy] = [each for each in driver.market.sessions() if each.session == PROXY]
    assert proxy.last_ref == driver.refs[PROXY] == event.ref
    after = driver.market.instruments(), driver.market.accounts(), driver.market.orders(BTC)
    assert after == before


def test_the_first_rules_met_no_bound_on_prices(implementation: str) -> None:
    driver = opened(bounded_market(implementation, levels_per_side_max=1, stops_per_book_max=1))
    driver.send(new(1, BUY, 90))
    assert driver.reason(new(2, BUY, 91)) is Reason.LEVELS_FULL
    orders = [new(order_id, BUY, 80 + order_id) for order_id in (2, 3, 4, 5)]
    answers = driver.batch(orders, rules=1)
    assert [events[0].reason for events in answers] == [Reason.NONE] * 4
    assert driver.reason(new(6, BUY, 95)) is Reason.LEVELS_FULL
    assert driver.reason(new(6, BUY, 90)) is Reason.NONE


def test_both_rules_may_follow_each_other(driver: Driver) -> None:
    driver.batch([new(1, SELL, 100), cancel(9)], rules=1)
    driver.batch([stop(2, SELL, 100, 5, account=8), limit_account(9, open_orders_max=1)])
    driver.send(new(3, BUY, 90, 5, account=9))
    answers = driver.batch([ioc(4, BUY, 100, 1), new(5, account=9)], rules=1)
    assert [event.kind.name for event in answers[0]] == ["ACCEPTED", "FILL", "TRIGGERED", "FILL"]
    assert answers[1][0].kind.name == "ACCEPTED"
    driver.batch([set_mode(Mode.SHADOW, 2), clear(session=CONTROL)], rules=1)
    assert driver.ids() == driver.stop_ids() == []


@pytest.mark.parametrize("rules", [0, 3, -1, 2**32])
def test_rules_that_never_were_are_refused(driver: Driver, rules: int) -> None:
    before = driver.market.snapshot()
    with pytest.raises(ValueError, match=f"no rules {rules}"):
        driver.send(changed(new(1), kind=CommandKind.NEW), rules=rules)
    assert driver.market.snapshot() == before
