"""The published oracle `tracebook-conformance`: its first-in-first-out profiles hold of our engine.

The fixed cases of each profile and a campaign of generated traces, compared with the tool's own
engine: outcome, trades in order, and the whole resting state with its queues, after each event.
"""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tracebook_adapter
from market_driver import market_or_skip
from tracebook.conformance import (
    ConformanceSuite,
    copy_bundled_conformance_suite,
    run_campaign,
    run_conformance_suite,
    run_qualification,
)
from tracebook_adapter import EngineAdapter

PROFILES = ("fifo-limit-v1", "fifo-partial-fill-v1", "fifo-full-v1")


@pytest.mark.parametrize("profile", PROFILES)
def test_the_engine_qualifies_for_each_first_in_first_out_profile(
    profile: str, implementation: str
) -> None:
    market_or_skip(implementation)
    result = run_qualification(
        lambda config: EngineAdapter(config, implementation),
        profile=profile,
        traces=10,
        events_per_trace=200,
    )
    assert result.fixed_cases_passed == len(result.selected_cases)
    assert result.campaign.conformant, result.campaign.failure
    assert result.coverage_complete, result.campaign.semantic_coverage
    assert result.qualified


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> ConformanceSuite:
    return copy_bundled_conformance_suite(tmp_path_factory.mktemp("tracebook") / "suite")


def test_self_trade_prevention_is_theirs_too(suite: ConformanceSuite, implementation: str) -> None:
    market_or_skip(implementation)
    cases = [case for case in suite.cases if case.name.startswith("stp-")]
    assert len(cases) == 3
    report = run_conformance_suite(
        dataclasses.replace(suite, cases=tuple(cases)),
        lambda config: EngineAdapter(config, implementation),
    )
    assert report["conformant"], report


class LosesItsPlace(EngineAdapter):
    """An engine with a defect: what is reduced goes to the end of its queue."""

    def _reduce(self, event: Any) -> Any:
        reduced = super()._reduce(event)
        order = self._open_orders(event.symbol).get(reduced.order_id)
        if order is None or not reduced.qty_lots:
            return reduced
        return self._of_order(
            event,
            tracebook_adapter.CommandKind.REPLACE,
            price_ticks=order[0],
            qty_lots=reduced.qty_lots,
            aux=reduced.order_id,
        )


def test_an_engine_with_a_defect_does_not_qualify(implementation: str) -> None:
    """What passes above could fail."""
    market_or_skip(implementation)
    campaign = run_campaign(
        lambda config: LosesItsPlace(config, implementation), traces=5, events_per_trace=100
    )
    assert not campaign.conformant


def test_the_adapter_is_a_process_too(tmp_path: Path) -> None:
    """As others run the tool: its own command, our adapter as the candidate."""
    adapter = f"{sys.executable} {tracebook_adapter.__file__} python"
    tool = [sys.executable, "-m", "tracebook.conformance.cli", "qualify", "--traces", "1"]
    options = ["--output-dir", str(tmp_path / "evidence"), "--candidate-cmd", adapter]
    ran = subprocess.run([*tool, *options], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stdout + ran.stderr
