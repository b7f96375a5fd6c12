"""What the tests of the switch share, and the plane that a test of the proxy runs on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import proxy_rig
import pytest
from running_proxy import PLANES
from switch_world import InWorld, World

from bridge.proxy.planes import VARIABLE

TEST_S = 60.0
# Every test of these modules runs on both planes, but for those that are marked `one_plane`.
_ON_BOTH = ("test_proxy_", "test_traps", "test_capture_faults")
# Of the first, those that know of no plane.
_ON_NONE = ("test_proxy_own_requests", "test_proxy_redact")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "one_plane(why): of the asyncio plane's own parts, or of no plane at all"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__
    if not name.startswith(_ON_BOTH) or name in _ON_NONE:
        return
    if metafunc.definition.get_closest_marker("one_plane") is None:
        metafunc.parametrize("plane", PLANES, indirect=True)


@pytest.fixture(autouse=True)
def plane(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The one that `Front` is made with, and workers that nobody tells otherwise."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if not hasattr(request, "param"):
        return "python"
    chosen = str(request.param)
    monkeypatch.setattr(proxy_rig, "PLANE", chosen)
    monkeypatch.setenv(VARIABLE, chosen)
    return chosen


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
