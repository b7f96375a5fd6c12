"""The comparison on the sandbox's real database: several writers at once, read from the change
stream, loaded from an exported snapshot, and no difference but those that were put there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import pytest
from change_sources import WAYS, Streaming
from harness import BTC, ETH, World, play

from bridge.sandbox import render
from bridge.sandbox.exchange import Exchange, NotOpen
from bridge.sandbox.matching import Faults
from bridge.sandbox.params import NewOrder
from bridge.sandbox.pool import Pool
from bridge.sandbox.provision import as_role
from shadow.capture import Capture, Outcome
from shadow.verdict import Evidence, Kind

pytestmark = pytest.mark.usefixtures("impatient")


class Clients:
    """What reaches the monolith through one proxy worker."""

    def __init__(self, world: World, exchange: Exchange, seed: int) -> None:
        self.done = {BTC: 0, ETH: 0}
        self._world = world
        self._exchange = exchange
        self._chance = Random(seed)
        self._number = 0
        self._open: list[tuple[str, int, int]] = []

    async def trade(self, count: int) -> None:
        """By four clients at once: what they do overlaps."""
        await asyncio.gather(*(self._one_client(count // 4) for _ in range(4)))

    async def _one_client(self, count: int) -> None:
        for _ in range(count):
            if self._open and self._chance.random() < 0.3:
                await self._cancel(*self._open.pop(self._chance.randrange(len(self._open))))
            else:
                await self._place()

    async def _place(self) -> None:
        chance, symbol = self._chance, self._chance.choice((BTC, ETH))
        side, market = chance.randint(0, 1), chance.random() < 0.1
        price = Decimal(23604 + chance.randint(-2, 2)) / 100
        order = NewOrder(
            market=symbol,
            member=chance.randint(1, 5),
            side=side,
            order_type=int(market),
            time_in_force=1 if market else int(chance.random() < 0.1),
            price=None if market else price,
            quantity=Decimal(chance.randint(1, 30)) / 10,
        )
        fields = {
            "market": symbol,
            "side": ("buy", "sell")[side],
            "order_type": ("limit", "market")[order.order_type],
            "time_in_force": ("gtc", "ioc")[order.time_in_force],
            "price": None if order.price is None else str(order.price),
            "quantity": str(order.quantity),
        }
        sent_ns = time.monotonic_ns()
        row, trades = await self._exchange.place(order)
        answer = {"order": render.order(row, trades)}
        self._capture("place", order.member, {"order": fields}, 201, answer, sent_ns, {})
        self.done[symbol] += 1
        if row["state"] == 0:
            self._open.append((symbol, row["id"], order.member))

    async def _cancel(self, symbol: str, order_id: int, member: int) -> None:
        sent_ns = time.monotonic_ns()
        row = await self._exchange.cancel(order_id, member)
        assert row is not None
        gone = isinstance(row, NotOpen)
        answer = (
            {"errors": {"state": ["is not open"]}} if gone else {"order": render.order(row)}  # type: ignore[arg-type]
        )
        path = {"id": str(order_id)}
        self._capture("cancel", member, None, 422 if gone else 200, answer, sent_ns, path)
        self.done[symbol] += 1

    def _capture(
        self,
        action: str,
        member: int,
        request: Any,
        status: int,
        answer: Any,
        sent_ns: int,
        path: dict[str, str],
    ) -> None:
        self._number += 1
        capture = Capture(
            worker="proxy",
            number=self._number,
            action=action,
            method="POST" if action == "place" else "DELETE",
            target="/api/v1/orders" + "".join(f"/{value}" for value in path.values()),
            path_params=path,
            content_type="application/json" if request else "",
            request_body=msgspec.json.encode(request) if request else b"",
            account=member,
            request_id=str(self._number),
            outcome=Outcome.ANSWERED,
            status=status,
            response_body=msgspec.json.encode(answer),
            sent_mono_ns=sent_ns,
            answered_mono_ns=time.monotonic_ns(),
            sent_at_ns=time.time_ns(),
        )
        self._world.redis.add([capture])


@asynccontextmanager
async def exchange(database: str, faults: Faults) -> AsyncIterator[Exchange]:
    pool = Pool(as_role(database, "exchange"), 4)
    try:
        yield Exchange(pool, faults, Random(3))
    finally:
        await pool.close()


@asynccontextmanager
async def comparing(world: World, side: Streaming) -> AsyncIterator[None]:
    sources = side.sources()
    pipeline = world.pipeline(changes=sources.changes, snapshots=sources.snapshots())
    stop = asyncio.Event()
    task = asyncio.create_task(pipeline.run(stop))
    try:
        yield
        assert not task.done()
    finally:
        stop.set()
        await task
        await pipeline._store.close()


async def begin(world: World) -> None:
    for symbol in (BTC, ETH):
        await world.stage(symbol, "shadow", 1, stage_from="off")


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def side(request: pytest.FixtureRequest, legacy_database: str) -> Streaming:
    """No slot: the shadow makes its own."""
    found: Streaming = request.param(legacy_database)
    found.install()
    return found


def test_writers_at_once_are_followed_without_a_difference_over_restarts(
    control_database: str, legacy_database: str, side: Streaming
) -> None:

    async def scenario(world: World) -> None:
        async with exchange(legacy_database, Faults()) as market:
            before = Clients(world, market, seed=1)
            await before.trade(80)  # it is a running market
            world.redis.entries.clear()
            await begin(world)
            clients = Clients(world, market, seed=2)
            async with comparing(world, side):
                await world.loaded(BTC)
                await world.loaded(ETH)
                await clients.trade(120)
            await clients.trade(40)
            async with comparing(world, side):
                await clients.trade(120)
                for symbol in (BTC, ETH):
                    found = await world.settled(clients.done[symbol], symbol)
                    assert found.counts.matched == found.counts.seen == clients.done[symbol]
                    assert found.counts.dark == found.counts.gaps == 0
                    assert found.counts.fills > 10
                    found = await world.until(lambda one: one.book_equal is not None, symbol)
                    assert (found.book_equal, found.taint) == (True, "")
                    assert found.lag_ms is not None
        assert await world.verdicts(BTC) == await world.verdicts(ETH) == []

    play(control_database, scenario)


async def _until_found(world: World, clients: Clients, symbol: str, kind: Kind) -> Evidence:
    """Whether a fault shows, and whether as this kind first, is left to chance, but not for long:
    who was passed over may also have been met for another quantity, or not at all.
    """
    for _ in range(20):
        await clients.trade(100)
        found = await world.settled(clients.done[symbol], symbol)
        if kind in {one.kind for root in found.mismatches for one in root.differences}:
            return found
    raise AssertionError(f"no {kind} of {symbol} was found: {found.mismatches}")


def test_each_fault_of_the_monolith_is_found_with_its_kind(
    control_database: str, legacy_database: str, side: Streaming
) -> None:

    async def scenario(world: World) -> None:
        faults = Faults(priority={BTC: 1.0}, rounding={ETH: 1.0})
        async with exchange(legacy_database, faults) as market:
            await begin(world)
            async with comparing(world, side):
                await world.loaded(BTC)
                await world.loaded(ETH)
                clients = Clients(world, market, seed=4)
                await _until_found(world, clients, BTC, Kind.PRIORITY)
                found = await _until_found(world, clients, ETH, Kind.ROUNDING)
                assert {one.kind for root in found.mismatches for one in root.differences} == {
                    Kind.ROUNDING
                }
                # A rounded price parts no books: all the other orders still agree.
                assert found.counts.mismatched + found.counts.matched == found.counts.seen
                assert (found.run, found.taint) == (1, "")

    play(control_database, scenario)
