"""`railswitch bench` gives each part what it asks for, and prints what came back."""

from __future__ import annotations

import argparse
import importlib
import inspect
from pathlib import Path

import pytest
from running_cli import railswitch

from bridge.bench.page import BEGIN, END
from bridge.cli import bench

SMALL = ("bench", "core", "--commands", "2048", "--rounds", "1")


@pytest.mark.parametrize("part", [*bench.PARTS, "proxy_soak"])
def test_every_part_is_there_and_asks_for_nothing_unknown(part: str) -> None:
    run = importlib.import_module(f"bridge.bench.{part}").run
    parser = argparse.ArgumentParser()
    bench.configure(parser)
    given = set(vars(parser.parse_args([])))
    assert set(inspect.signature(run).parameters) - given == set()


def test_json_has_the_figures_and_their_conditions_and_nothing_is_left(tmp_path: Path) -> None:
    directory = tmp_path / "bench"
    ran = railswitch(*SMALL, "--json", "--directory", str(directory))
    assert ran.code == 0
    assert ran.json["core"]["workloads"]["single pair"]["mix"]["commands"] == 2048
    assert ran.json["core"]["conditions"]["cores"] >= 1
    assert not directory.exists()


def test_people_get_tables_and_are_told_what_goes_on() -> None:
    ran = railswitch(*SMALL)
    assert ran.code == 0
    assert "commands/s through the batch call" in ran.out
    assert "one IOC fills" in ran.out
    assert "conditions" in ran.out
    assert "round 1 of 1" in ran.err


def test_the_page_gets_the_tables(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\n{END}\nafter\n")
    ran = railswitch(*SMALL, "--write", str(page))
    assert ran.code == 0
    assert page.read_text().startswith(f"before\n{BEGIN}\n\n### core\n")
    assert page.read_text().endswith(f"\n\n{END}\nafter\n")
    assert "| 1,000 instruments |" in page.read_text()


def test_the_soak_takes_the_place_of_the_comparison_and_keeps_its_figures(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}\n\n### proxy\n\nas it was\n\n{END}\n")
    words = ("--soak", "3", "--soak-rate", "100", "--directory", str(tmp_path / "bench"))
    ran = railswitch("bench", "proxy", *words, "--write", str(page))
    assert ran.code == 0
    assert "resident memory of the worker" in ran.out
    written = page.read_text()
    assert written.index("as it was") < written.index("### soak") < written.index("Resident memory")


def test_the_page_of_this_repository_has_its_marks() -> None:
    page = Path(__file__).parents[2] / "docs" / "performance.md"
    assert page.read_text().count(BEGIN) == page.read_text().count(END) == 1


@pytest.mark.parametrize("text", [None, "no marks"])
def test_a_page_that_can_not_be_written_is_told_before_anything_is_measured(
    tmp_path: Path, text: str | None
) -> None:
    page = tmp_path / "page.md"
    if text is not None:
        page.write_text(text)
    ran = railswitch(*SMALL, "--write", str(page))
    assert ran.code == 2
    assert str(page) in ran.err
    assert "making" not in ran.err


def test_an_export_that_can_not_be_written_is_told(tmp_path: Path) -> None:
    ran = railswitch(*SMALL, "--export", str(tmp_path / "none" / "pair"))
    assert ran.code == 2
    assert "No such file" in ran.err


def test_unknown_part_names_the_known_ones() -> None:
    ran = railswitch("bench", "disk")
    assert ran.code == 2
    assert "core, engine, recovery, proxy, pipeline" in ran.err


@pytest.mark.parametrize(
    "words",
    [
        ("--rate", "0"),
        ("--rate", "fast"),
        ("--rate", "1.5"),
        ("--seconds", "0"),
        ("--seconds", "nan"),
        ("--seconds", "inf"),
        ("--commands", "-1"),
        ("--rounds", "0"),
        ("--recovery-commands", "19999"),
        ("--connections", "0"),
        ("--operations", "0"),
        ("--offered", "0"),
        ("--soak", "1"),
        ("--soak-rate", "0"),
        ("--seed", "-1"),
    ],
)
def test_numbers_that_mean_nothing_are_refused(words: tuple[str, str]) -> None:
    ran = railswitch("bench", "core", *words)
    assert ran.code != 0
    assert words[0] in ran.err
    assert "no number of at least" in ran.err
    assert "making" not in ran.err
