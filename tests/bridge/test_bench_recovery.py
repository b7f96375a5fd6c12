"""The benchmark of recovery: its journal is one that the engine recovers, to the same state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bridge.bench import recovery
from bridge.bench.figures import tables

COMMANDS = 20_000


def report(directory: Path, implementation: str) -> dict[str, Any]:
    return recovery.run(
        recovery_commands=COMMANDS, implementation=implementation, directory=directory, rounds=1
    )


@pytest.mark.parametrize("implementation", ["python", "rust"])
def test_every_way_back_leads_to_the_state_that_the_commands_made(
    tmp_path: Path, implementation: str
) -> None:
    found = report(tmp_path, implementation)
    assert found["same_state_hash"]
    for name in ("verify", "replay", "replay_cold"):
        assert found[name]["commands"] == COMMANDS
        assert found[name]["commands_per_s"]["median"] > 0
    assert 0 < found["snapshot"]["tail_commands"] < COMMANDS
    assert found["snapshot_made"]["commands"] + found["snapshot"]["tail_commands"] == COMMANDS
    assert {"cores", "kernel", "file_system", "python"} <= set(found["conditions"])
    assert list(tmp_path.iterdir()) == []
    assert "the same in all" in tables("recovery", found)[0].title


def test_another_state_would_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "state_hash", lambda market: "another")
    found = report(tmp_path, "rust")
    assert not found["same_state_hash"]
    assert "DIFFERENT" in tables("recovery", found)[0].title
