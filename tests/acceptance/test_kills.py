"""Every process is killed with -9 once while an instrument is in shadow and once while it is live:
nothing that a client was answered for may be lost, or be there twice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bridge.sandbox import processes
from bridge.sandbox.demo_audit import DemoAudit
from bridge.sandbox.demo_story import Story
from bridge.sandbox.demo_world import World
from bridge.sandbox.load import Load

SYMBOL = "BTC-USD"
GATE = {
    "operations_min": 100,
    "fills_min": 10,
    "shadow_s_min": 1.0,
    "engine_p99_us_max": 5_000_000.0,
    "engine_p999_us_max": 5_000_000.0,
}
PATIENCE_S = 60.0
GOES_ON = 30  # answers for the symbol after each kill, before the next one


@pytest.fixture
def world(server_directory: Path) -> Iterator[World]:
    number = sum(1 for _ in server_directory.glob("world-*"))
    world = World(server_directory / f"world-{number}", gate=GATE, seed=7)
    world.start()
    with world:
        yield world


def test_killing_each_process_in_shadow_loses_nothing(world: World) -> None:
    """The monolith answers all the while; what railswitch loses is coverage, and it says so."""
    audit = asyncio.run(_shadow_and_kill(world))
    assert audit.failures == ()
    assert audit.result.answered > 0
    assert audit.result.live_orders == 0


def test_killing_each_process_while_live_loses_nothing(world: World) -> None:
    """The engine answers, from a journal that survives; write-back goes on where it was."""
    audit = asyncio.run(_flip_and_kill(world))
    assert audit.failures == ()
    assert (audit.result.lost, audit.result.duplicated) == (0, 0)
    assert audit.result.live_orders > 0


async def _shadow_and_kill(world: World) -> DemoAudit:
    story, load = _story(world), _load(world)
    await load.start()
    try:
        await story.shadow(SYMBOL)
        await _counted(story, 20)
        await _kill_each(world, load)
    finally:
        result = await load.stop()
    return await story.audit([result])


async def _flip_and_kill(world: World) -> DemoAudit:
    story, load = _story(world), _load(world)
    await load.start()
    try:
        await story.shadow(SYMBOL)
        await story.until_gate_passes(SYMBOL)
        await story.flip(SYMBOL)
        await _kill_each(world, load)
        assert (await story.instrument(SYMBOL)).stage == "live"
    finally:
        result = await load.stop()
    return await story.audit([result])


def _story(world: World) -> Story:
    return Story(world, lambda line: None, lambda instruments: None)


def _load(world: World) -> Load:
    return Load(world.proxy_url, seed=7, rate_per_s=60.0, clients=8)


async def _counted(story: Story, operations: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while (await story.instrument(SYMBOL)).counts.matched < operations:
        assert time.monotonic() < deadline, "the shadow compares nothing"
        await asyncio.sleep(0.1)


async def _kill_each(world: World, load: Load) -> None:
    for part in ("engine", "control", "shadow", "proxy"):
        killed = world.kill(part)
        await _until(lambda part=part, killed=killed: world.pid(part) not in (0, killed), part)
        await _goes_on(load, part)
    store = world.data.part("postgres") / "data"
    redis = world.data.part("redis")
    for name, pid in (
        ("the control store", lambda: processes.read_pid(store / "postmaster.pid")),
        ("Redis", lambda: _redis_pid(redis)),
    ):
        killed = _kill(pid)
        await _until(lambda pid=pid, killed=killed: _another(pid(), killed), name)
        await _goes_on(load, name)
    _kill(lambda: world.monolith_postgres.pid)
    await _until(lambda: world.monolith_postgres.pid is None, "the monolith's database")
    await asyncio.to_thread(world.monolith_postgres.start)
    await _goes_on(load, "the monolith's database")


def _kill(pid: Callable[[], int | None]) -> int:
    found = pid()
    assert found
    os.kill(found, signal.SIGKILL)
    return found


def _another(pid: int | None, killed: int) -> bool:
    return pid is not None and pid != killed and processes.alive(pid)


def _redis_pid(directory: Path) -> int | None:
    files = list(directory.rglob("*.pid"))
    return processes.read_pid(files[0]) if files else None


async def _goes_on(load: Load, after: str) -> None:
    """Clients of the symbol are answered again."""
    orders = load.result.orders
    before = sum(one.wish.symbol == SYMBOL for one in list(orders.values()))

    def answered() -> bool:
        now = sum(one.wish.symbol == SYMBOL for one in list(orders.values()))
        return now >= before + GOES_ON

    await _until(answered, f"clients after {after} was killed")


async def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE_S:.0f} s"
        await asyncio.sleep(0.05)
