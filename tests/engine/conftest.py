"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest
from flow_coverage import reports
from market_driver import Driver, market_or_skip, opened


@pytest.fixture(params=["python", "rust"])
def implementation(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def driver(implementation: str) -> Driver:
    return opened(market_or_skip(implementation))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the comparison of the two markets has met, where it ran."""
    for coverage in reports():
        if coverage.commands:
            terminalreporter.section(coverage.name)
            for line in coverage.table():
                terminalreporter.write_line(line)
