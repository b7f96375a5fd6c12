"""The in-process benchmark: what it reports belongs to what it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.bench import core
from bridge.bench.figures import tables
from bridge.bench.workload import single_pair
from engine.types import CommandKind
from engine.wire import COMMAND_DTYPE

COMMANDS = 5_000  # not a multiple of the batch


def report(implementation: str, **more: Any) -> dict[str, Any]:
    return core.run(commands=COMMANDS, seed=3, implementation=implementation, rounds=2, **more)


@pytest.mark.parametrize("implementation", ["python", "rust"])
def test_it_reports_its_conditions_its_mix_and_what_became_of_the_commands(
    implementation: str, capsys: pytest.CaptureFixture[str]
) -> None:
    found = report(implementation)
    assert found["implementation"] == implementation
    assert {"cores", "kernel", "python", "cpu_percent"} <= set(found["conditions"])
    pair, many = found["workloads"].values()
    for one in (pair, many):
        assert one["mix"]["commands"] == COMMANDS
        events = one["events"]
        assert "rejected" not in events
        assert events["replaced"] == round(one["mix"]["replace"] * COMMANDS)
        assert events["fill"] > 0
        rate = one["commands_per_s"]
        assert rate["lowest"] <= rate["median"] <= rate["highest"]
        assert one["ns_per_command"] == pytest.approx(1e9 / rate["median"], rel=0.05)
    worst = found["worst_operations"]
    assert [one["worst_us"] for one in worst] == sorted(
        (one["worst_us"] for one in worst), reverse=True
    )
    assert all(one["worst_us"] <= one["worst_seen_us"] for one in worst)
    assert str(single_pair(commands=COMMANDS, seed=3).mix) in capsys.readouterr().err
    assert len(tables("core", found)[0].rows) == 2


def test_the_same_seed_makes_the_same_market_in_both() -> None:
    python, rust = report("python")["workloads"], report("rust")["workloads"]
    for name, one in python.items():
        assert one["state_hash"] == rust[name]["state_hash"]
        assert one["events"] == rust[name]["events"]


def test_the_pairs_commands_can_be_had_as_they_are(tmp_path: Path) -> None:
    report("rust", export=tmp_path / "pair")
    rows = np.frombuffer((tmp_path / "pair").read_bytes(), COMMAND_DTYPE)
    assert rows["kind"][:4].tolist() == [
        *(CommandKind.SESSION, CommandKind.SESSION),
        *(CommandKind.INSTRUMENT, CommandKind.MODE),
    ]
    pair = single_pair(commands=COMMANDS, seed=3)
    assert rows["order_id"][-COMMANDS:].tolist() == pair.steady["order_id"].tolist()
    assert rows["ref"][4:].tolist() == list(range(1, len(rows) - 3))
