"""`railswitch bench` gives each part what it asks for, and prints what came back."""

from __future__ import annotations

import argparse
import importlib
import inspect
from pathlib import Path

import pytest
from running_cli import railswitch

from bridge.cli import bench


@pytest.mark.parametrize("part", bench.PARTS)
def test_every_part_is_there_and_asks_for_nothing_unknown(part: str) -> None:
    run = importlib.import_module(f"bridge.bench.{part}").run
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    given = set(vars(parser.parse_args([])))
    assert set(inspect.signature(run).parameters) - given == set()


def test_json_has_the_figures_and_their_conditions_and_nothing_is_left(tmp_path: Path) -> None:
    directory = tmp_path / "bench"
    ran = railswitch(
        *("bench", "core", "--commands", "4096", "--json", "--directory", str(directory)),
    )
    assert ran.code == 0
    assert ran.json["core"]["commands"] == 4096
    assert ran.json["core"]["conditions"]["cores"] >= 1
    assert not directory.exists()


def test_unknown_part_names_the_known_ones() -> None:
    ran = railswitch("bench", "disk")
    assert ran.code == 2
    assert "core, engine, proxy, pipeline" in ran.err
