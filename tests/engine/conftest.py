"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest
from market_driver import Driver, market_or_skip, opened


@pytest.fixture(params=["python", "rust"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(implementation: str) -> Driver:
    return opened(market_or_skip(implementation))
