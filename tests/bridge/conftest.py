"""What the tests of the switch share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from switch_world import InWorld, World

TEST_S = 60.0


@pytest.fixture
def in_world(
    control_database: str, legacy_database: str, redis_url: str, tmp_path: Path
) -> InWorld:
    """Runs a coroutine of the world: fenced exchange, control store, Redis, engine, stand-ins."""

    def run(work: Callable[[World], Awaitable[None]]) -> None:
        async def within() -> None:
            world = World(control_database, legacy_database, redis_url, tmp_path)
            try:
                async with asyncio.timeout(TEST_S):
                    await world.start()
                    await work(world)
            finally:
                await world.stop()

        asyncio.run(within())

    return run
