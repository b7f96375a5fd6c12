"""The in-process benchmark: what it reports belongs to what it did."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.bench import core
from engine.errors import EngineImplementationUnavailable

COMMANDS = 12_000  # past the first cancels of the flow; not a multiple of the batch


def report(implementation: str) -> dict[str, Any]:
    try:
        return core.run(commands=COMMANDS, seed=3, implementation=implementation)
    except EngineImplementationUnavailable as error:
        pytest.skip(f"SKIPPED, not passed: {error}")


@pytest.mark.parametrize("implementation", ["python", "rust"])
def test_it_reports_its_conditions_its_mix_and_what_became_of_the_commands(
    implementation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(implementation)
    assert found["implementation"] == implementation
    assert found["commands"] == COMMANDS
    assert {"cores", "kernel", "load_average_before", "load_average_after"} <= set(
        found["conditions"]
    )
    assert sum(found["mix"].values()) == pytest.approx(1, abs=0.01)
    events = found["events"]
    taken = events["accepted"] + events["rejected"]
    assert taken < COMMANDS <= taken + events["canceled"]
    assert events["fill"] > 0
    assert found["commands_per_s"] == pytest.approx(1e9 / found["ns_per_command"], rel=0.01)
    assert str(found["mix"]) in capsys.readouterr().out


def test_the_same_seed_makes_the_same_market_in_both() -> None:
    python, rust = report("python"), report("rust")
    assert python["state_hash"] == rust["state_hash"]
    assert python["events"] == rust["events"]
    assert python["open_orders_after"] == rust["open_orders_after"]
