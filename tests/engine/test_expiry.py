"""Orders expire when their time has come, by time that is journalled."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest
from engine_harness import (
    WAIT_S,
    open_market,
    orders,
    run,
    seen,
    service,
    started,
    until,
)
from market_driver import BTC, changed, new, set_mode

from engine import limits
from engine.reject import Reason
from engine.types import EventKind, Mode, Role, TimeInForce
from engine.wire import encode_commands


class Clock:
    """The wall clock, and what a test adds to it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead_ns = 0
        real = time.time_ns
        monkeypatch.setattr(time, "time_ns", lambda: real() + self.ahead_ns)

    def expiry(self, after_s: int) -> int:
        """The field `aux` of an order good till then."""
        return (time.time_ns() // 10**9 + after_s) << 32


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_orders_expire_when_their_time_has_come_though_nobody_sends_anything(
    tmp_path: Path, clock: Clock, implementation: str
) -> None:
    async def story() -> None:
        async with service(tmp_path, implementation=implementation) as port:
            await open_market(port)
            async with started(port) as one, seen(port) as found:
                await one.send(
                    [
                        changed(new(1), tif=TimeInForce.GTD, aux=clock.expiry(100)),
                        changed(new(2), tif=TimeInForce.GTD, aux=clock.expiry(500)),
                        changed(new(3), tif=TimeInForce.DAY),
                        new(4),
                    ],
                    timeout_s=WAIT_S,
                )
                clock.ahead_ns += 200 * 10**9
                await until(lambda: found.of(EventKind.TIME), "time passes in the journal")
                assert found.ids(Reason.EXPIRED) == [1]
                clock.ahead_ns += 2 * 86_400 * 10**9
                await until(lambda: len(found.of(EventKind.TIME)) == 2, "and passes again")
                assert sorted(found.ids(Reason.EXPIRED)) == [1, 2, 3]
                assert [each.order_id for each in (await one.book(BTC)).orders] == [4]

    run(story())


def test_what_expired_while_the_engine_was_away_goes_when_it_is_back(
    tmp_path: Path, clock: Clock
) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                good_till = changed(new(1), tif=TimeInForce.GTD, aux=clock.expiry(100))
                await one.send([good_till], timeout_s=WAIT_S)
        clock.ahead_ns += 200 * 10**9
        async with service(tmp_path) as port, seen(port) as found:
            await until(lambda: found.ids(Reason.EXPIRED) == [1], "it expires")

    run(story())


def test_more_orders_than_one_command_expires_follow_in_the_next(
    tmp_path: Path, clock: Clock
) -> None:
    count = limits.MASS_CANCEL_MAX + 100

    async def story() -> None:
        async with service(tmp_path, implementation="python") as port:
            await open_market(port)
            async with started(port) as one, seen(port) as found:
                aux = clock.expiry(100)
                rest = [changed(new(n), tif=6, aux=aux) for n in range(1, count + 1)]
                await one.send_batch(encode_commands(rest), timeout_s=60)
                clock.ahead_ns += 200 * 10**9
                await until(lambda: len(found.of(EventKind.TIME)) == 2, "both times")
                told = [(event.qty_lots, event.leaves_lots) for event in found.of(EventKind.TIME)]
                assert told == [(limits.MASS_CANCEL_MAX, 100), (100, 0)]

    run(story())


def test_time_is_not_journalled_while_nothing_is_due(tmp_path: Path, clock: Clock) -> None:
    """Neither without orders that expire, nor for those of an instrument that is closed."""

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one, started(port, "control", Role.ADMIN) as control:
                good_till = changed(new(1), tif=TimeInForce.GTD, aux=clock.expiry(100))
                await one.send([good_till, new(2)], timeout_s=WAIT_S)
                (answer,) = await control.send([set_mode(Mode.CLOSED, 2)], timeout_s=WAIT_S)
                clock.ahead_ns += 200 * 10**9
                for _ in range(5):
                    await asyncio.sleep(limits.EXPIRY_LOOK_S)
                status = await one.status()
                assert status.seq == answer.seq
                async with seen(port) as found:
                    await control.send([set_mode(Mode.LIVE, 3)], timeout_s=WAIT_S)
                    await until(lambda: found.ids(Reason.EXPIRED) == [1], "it expires")

    run(story())


def test_a_flood_does_not_keep_orders_from_expiring(tmp_path: Path, clock: Clock) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one, seen(port) as found:
                good_till = changed(
                    new(1, price_ticks=50), tif=TimeInForce.GTD, aux=clock.expiry(100)
                )
                await one.send([good_till], timeout_s=WAIT_S)
                clock.ahead_ns += 200 * 10**9
                first = 10
                while not found.ids(Reason.EXPIRED):
                    await one.send_batch(encode_commands(orders(first, 1_000)), timeout_s=WAIT_S)
                    first += 1_000
                    assert first < 100_000

    run(story())
