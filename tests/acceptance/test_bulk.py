"""Requests with several orders in them, through a whole flip: compared, mixed, cut short by kills,
and taken back. Whatever a client was told of any order of a list must be so, once.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import psycopg
import pytest

from bridge.sandbox.console import CONSOLE_MEMBER
from bridge.sandbox.demo_audit import DemoAudit
from bridge.sandbox.demo_story import Story
from bridge.sandbox.demo_world import World
from bridge.sandbox.flow_random import Mix
from bridge.sandbox.load import Load
from bridge.sandbox.told import LoadResult

BTC, ETH, SOL = "BTC-USD", "ETH-USD", "SOL-USD"
GATE = {
    "operations_min": 100,
    "fills_min": 10,
    "shadow_s_min": 1.0,
    "engine_p99_us_max": 5_000_000.0,
    "engine_p999_us_max": 5_000_000.0,
}
SEED = 11
PATIENCE_S = 60.0
COMPARED = 150  # operations of each instrument
LIVE, BACK = "live", "taken back"
MIXED = 30  # requests that both sides had a part in, before anything is killed
UNDER_WAY = 3  # requests, when something is killed
GOES_ON = 40  # answers after each blow


@pytest.fixture
def world(server_directory: Path) -> Iterator[World]:
    number = sum(1 for _ in server_directory.glob("bulk-*"))
    dark = [f"dark:{SOL}:2"]
    world = World(server_directory / f"bulk-{number}", gate=GATE, faults=dark, seed=SEED)
    world.start()
    with world:
        yield world


def test_bulk_requests_through_a_flip_two_kills_and_a_rollback(world: World) -> None:
    audit, result = asyncio.run(_story(world))
    assert audit.failures == ()
    assert (audit.result.lost, audit.result.duplicated) == (0, 0)
    assert audit.result.live_orders > 0
    assert audit.result.live_fills > 0
    assert {LIVE, BACK} <= {one.phase for one in result.orders.values()}
    canceled = sum(one.cancelled_remaining is not None for one in result.orders.values())
    assert canceled > result.statuses[200] // 2  # answers told of several


async def _story(world: World) -> tuple[DemoAudit, LoadResult]:
    story = Story(world, lambda line: None, lambda instruments: None)
    load = Load(world.proxy_url, seed=SEED, rate_per_s=60.0, clients=8, mix=Mix(bulk=0.4))
    await load.start()
    try:
        await _shadow(world, story, load)
        await story.until_gate_passes(BTC)
        await story.flip(BTC)
        load.phase(LIVE)
        await _until(lambda: _mixed(load.result) >= MIXED, "requests that both sides answer")
        await _all_matched(world, story, load, (ETH, SOL))
        for part in ("engine", "proxy"):
            await _until(lambda: _under_way(load.result) >= UNDER_WAY, "requests under way")
            killed = world.kill(part)
            await _until(lambda part=part, killed=killed: world.pid(part) not in (0, killed), part)
            await _goes_on(load, f"the {part} was killed")
        await story.roll_back(BTC)
        load.phase(BACK)
        await _goes_on(load, "the rollback")
    finally:
        result = await load.stop()
    return await story.audit([result]), result


async def _shadow(world: World, story: Story, load: Load) -> None:
    load.pause()
    await load.quiet()
    for symbol in (BTC, ETH, SOL):
        await story.shadow(symbol)
    load.resume()
    for symbol in (BTC, ETH, SOL):
        await _counted(story, symbol, lambda one: one.matched >= COMPARED)
    await _all_matched(world, story, load, (BTC, ETH, SOL))


async def _all_matched(world: World, story: Story, load: Load, symbols: Sequence[str]) -> None:
    """Every operation so far but the console's, which are all there is of dark traffic."""
    load.pause()
    await load.quiet()
    for symbol in symbols:
        # The console goes on: some operation of its instrument always waits.
        await _counted(story, symbol, lambda one, on=symbol == SOL: on or one.pending == 0)
        counts = (await story.instrument(symbol)).counts
        assert counts.closes(), counts
        assert (counts.mismatched, counts.gaps, counts.known) == (0, 0, 0), counts
        assert counts.fills > 0, counts
        if symbol == SOL:
            assert 0 < counts.dark <= _written_by_console(world), counts
        else:
            assert (counts.dark, counts.seen) == (0, counts.matched), counts
    load.resume()


def _written_by_console(world: World) -> int:
    with psycopg.connect(world.config.legacy.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM orders WHERE member_id = %s", [CONSOLE_MEMBER]
        ).fetchone()
    assert row is not None
    return int(row[0])


def _under_way(result: LoadResult) -> int:
    return result.requests - result.answered - sum(result.failed.values())


def _mixed(result: LoadResult) -> int:
    """Requests whose answer told of orders of both sides."""
    symbols: dict[str, set[str]] = defaultdict(set)
    for order in list(result.orders.values()):
        if order.phase == LIVE:
            symbols[order.request].add(order.wish.symbol)
    return sum(BTC in one and len(one) > 1 for one in symbols.values())


async def _counted(story: Story, symbol: str, condition: Callable[..., bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition((await story.instrument(symbol)).counts):
        counts = (await story.instrument(symbol)).counts
        assert time.monotonic() < deadline, f"{symbol}: {counts}"
        await asyncio.sleep(0.1)


async def _goes_on(load: Load, after: str) -> None:
    """Clients of the flipped instrument are answered again, and so are those of the others."""

    def told(symbol: str) -> int:
        return sum(one.wish.symbol == symbol for one in list(load.result.orders.values()))

    before = {symbol: told(symbol) for symbol in (BTC, ETH)}
    await _until(
        lambda: all(told(symbol) >= so_far + GOES_ON for symbol, so_far in before.items()),
        f"clients after {after}",
    )


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S:.0f} s"
        await asyncio.sleep(0.005)
