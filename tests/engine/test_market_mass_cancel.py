"""Commands that cancel many orders, whichever the implementation: the same tests over both."""

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
    TIME_PASSES,
    Driver,
    bounded_market,
    changed,
    disconnected,
    gtd,
    is_live,
    kill,
    limit_account,
    mass_cancel,
    mass_cancel_everywhere,
    new,
    opened,
    set_mode,
    stop,
)

from engine.reject import Reason
from engine.types import Command, EventFlag, EventKind, MassCancelScope, Mode, Role, Side
from engine.wire import session_command

ACCOUNT, INSTRUMENT, SESSION = MassCancelScope
OTHER = 9  # another trading session
LTC_SHADOW = 3


@pytest.fixture
def busy(driver: Driver) -> Driver:
    """Two live instruments with orders of two accounts and two sessions; one in shadow."""
    driver.batch(
        [
            session_command(session=OTHER, name="proxy-1", role=Role.TRADE),
            set_mode(Mode.LIVE, 1, instrument=ETH),
        ]
    )
    driver.batch(
        [
            new(1, BUY, 90),
            new(2, BUY, 91, account=8),
            new(3, BUY, 91),
            new(4, SELL, 101, session=OTHER),
            new(5, SELL, 100, account=8, session=OTHER),
            stop(6, SELL, 50),
            stop(7, BUY, 150, session=OTHER),
            new(8, BUY, 90, instrument=ETH),
            new(9, SELL, 100, instrument=ETH, account=8),
        ]
    )
    return driver


def canceled(driver: Driver, command: Command) -> list[int]:
    """The ids that it cancels, in order; the last event counts them."""
    *events, last = driver.send(command)
    assert last.kind is EventKind.MASS_CANCELED
    assert (last.qty_lots, last.leaves_lots) == (len(events), 0)
    return [event.order_id for event in events]


@pytest.mark.parametrize(
    ("command", "ids"),
    [
        (mass_cancel(ACCOUNT, account=7), [3, 1, 4, 6, 7]),
        (mass_cancel(ACCOUNT, account=8), [2, 5]),
        (mass_cancel(ACCOUNT, account=9), []),
        (mass_cancel(ACCOUNT, account=7, side=Side.BUY), [3, 1, 7]),
        (mass_cancel(ACCOUNT, account=7, side=Side.SELL), [4, 6]),
        (mass_cancel(ACCOUNT, account=7, instrument=ETH), [8]),
        (mass_cancel_everywhere(ACCOUNT, account=7), [3, 1, 4, 6, 7, 8]),
        (mass_cancel_everywhere(ACCOUNT, account=8, side=Side.SELL), [5, 9]),
        (mass_cancel(SESSION), [2, 3, 1, 6]),
        (mass_cancel(SESSION, session=OTHER), [5, 4, 7]),
        (mass_cancel_everywhere(SESSION), [2, 3, 1, 6, 8, 9]),
        (mass_cancel(INSTRUMENT, session=CONTROL), [2, 3, 1, 5, 4, 6, 7]),
        (mass_cancel(INSTRUMENT, session=CONTROL, epoch=77, side=Side.BUY), [2, 3, 1, 7]),
        (mass_cancel_everywhere(INSTRUMENT, session=CONTROL), [2, 3, 1, 5, 4, 6, 7, 8, 9]),
        (mass_cancel(ACCOUNT, session=CONTROL, account=8), [2, 5]),
        (mass_cancel_everywhere(SESSION, session=CONTROL), []),
        (disconnected(PROXY), [2, 3, 1, 6, 8, 9]),
        (disconnected(OTHER), [5, 4, 7]),
        (disconnected(CONTROL), []),
    ],
)
def test_whose_orders_go_and_in_which_order(busy: Driver, command: Command, ids: list[int]) -> None:
    before = {*busy.ids(), *busy.stop_ids(), *busy.ids(ETH)}
    assert canceled(busy, command) == ids
    assert {*busy.ids(), *busy.stop_ids(), *busy.ids(ETH)} == before - set(ids)


def test_each_cancel_tells_its_order_and_the_last_event_the_command(busy: Driver) -> None:
    command = mass_cancel_everywhere(ACCOUNT, account=7, side=Side.BUY)
    events = busy.send(command)
    first, last = events[0], events[-1]
    assert [event.instrument for event in events] == [BTC, BTC, BTC, ETH, 0]
    assert all(event.reason is Reason.MASS_CANCEL for event in events[:-1])
    assert (first.order_id, first.side, first.price_ticks, first.qty_lots) == (3, BUY, 91, 5)
    assert (first.contra_id, first.leaves_lots, first.ref) == (7, 0, last.ref)
    assert [is_live(event) for event in events] == [True] * 4 + [False]
    assert (last.contra_id, last.side, last.reason, last.flags) == (
        *(7, Side.BUY, Reason.NONE, EventFlag.LAST),
    )
    [last] = busy.send(mass_cancel(ACCOUNT, account=8, side=Side.SELL, instrument=ETH))[1:]
    assert (last.instrument, last.contra_id, is_live(last)) == (ETH, 8, True)


def test_a_killed_account_can_cancel(busy: Driver) -> None:
    busy.send(kill(7))
    assert len(canceled(busy, mass_cancel_everywhere(ACCOUNT, account=7))) == 6


@pytest.mark.parametrize("scope", [ACCOUNT, SESSION])
@pytest.mark.parametrize(
    ("mode", "session", "reason"),
    [
        (Mode.CLOSED, PROXY, Reason.INSTRUMENT_CLOSED),
        (Mode.CLOSED, SHADOW, Reason.INSTRUMENT_CLOSED),
        (Mode.CLOSED, CONTROL, Reason.INSTRUMENT_CLOSED),
        (Mode.SHADOW, PROXY, Reason.INSTRUMENT_IN_SHADOW),
        (Mode.SHADOW, SHADOW, Reason.NONE),
        (Mode.SHADOW, CONTROL, Reason.INSTRUMENT_IN_SHADOW),
        (Mode.LIVE, PROXY, Reason.STALE_EPOCH),
        (Mode.LIVE, SHADOW, Reason.INSTRUMENT_LIVE),
        (Mode.LIVE, CONTROL, Reason.NONE),
    ],
)
def test_it_enters_an_instrument_as_orders_do(
    driver: Driver, scope: int, mode: Mode, session: int, reason: Reason
) -> None:
    driver.send(set_mode(mode, 2))
    assert driver.reason(mass_cancel(scope, session=session)) is reason


def test_whole_instruments_are_for_administrators(driver: Driver) -> None:
    for session in (PROXY, SHADOW):
        for command in (mass_cancel(INSTRUMENT), mass_cancel_everywhere(INSTRUMENT)):
            assert driver.reason(changed(command, session=session)) is Reason.NOT_PERMITTED
    unknown = mass_cancel(INSTRUMENT, session=CONTROL, instrument=99)
    assert driver.reason(unknown) is Reason.UNKNOWN_INSTRUMENT


def test_everywhere_is_where_the_session_may_enter(busy: Driver) -> None:
    busy.batch([set_mode(Mode.SHADOW, 2, instrument=ETH)])
    busy.send(new(10, BUY, 90, session=SHADOW, instrument=ETH))
    assert canceled(busy, mass_cancel_everywhere(ACCOUNT, account=8)) == [2, 5]
    shadows = busy.send(mass_cancel_everywhere(ACCOUNT, account=7, session=SHADOW))
    assert [(event.order_id, is_live(event)) for event in shadows] == [
        *((8, False), (10, False), (0, False)),
    ]
    assert canceled(busy, disconnected(PROXY)) == [3, 1, 6]
    assert busy.ids(ETH) == [9]
    busy.send(set_mode(Mode.CLOSED, 3))
    assert canceled(busy, mass_cancel_everywhere(INSTRUMENT, session=CONTROL)) == []


def test_what_is_left_by_one_is_told_and_taken_by_the_next(implementation: str) -> None:
    driver = opened(bounded_market(implementation, mass_cancel_max=2))
    driver.batch([gtd(order_id, BUY, 90, 1_000) for order_id in (3, 1, 2)], at_s=1)
    driver.batch([gtd(4, SELL, 100, 2_000), new(5, SELL, 101)])
    assert driver.told(disconnected(PROXY)) == [
        *("canceled 3 5 DISCONNECTED", "canceled 1 5 DISCONNECTED"),
        "mass_canceled 2 left 3",
    ]
    driver.batch([gtd(6, BUY, 90, 1_000), gtd(7, BUY, 90, 999)])
    assert driver.told(TIME_PASSES, at_s=1_000) == [
        *("canceled 7 5 EXPIRED", "canceled 2 5 EXPIRED", "time 2 left 1"),
    ]
    assert driver.told(TIME_PASSES, at_s=1_000) == ["canceled 6 5 EXPIRED", "time 1 left 0"]
    assert driver.told(mass_cancel_everywhere(SESSION)) == [
        *("canceled 4 5 MASS_CANCEL", "canceled 5 5 MASS_CANCEL", "mass_canceled 2 left 0"),
    ]


def test_what_was_canceled_counts_no_more(busy: Driver) -> None:
    busy.send(limit_account(7, open_orders_max=6))
    assert busy.reason(new(20)) is Reason.ACCOUNT_OPEN_ORDERS
    busy.send(mass_cancel(ACCOUNT, account=7))
    assert busy.market.account(7).open_orders == 1
    assert busy.reason(new(20)) is Reason.NONE
