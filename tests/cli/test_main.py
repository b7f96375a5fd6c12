"""The frame of the command line: help, usage errors, faults without a trace, exit codes."""

from __future__ import annotations

from pathlib import Path

import pytest
from running_cli import railswitch, railswitch_process, write_config

from bridge import errors as bridge_errors
from bridge.cli import main as cli
from bridge.cli.exits import Exit, exit_code
from bridge.errors import AlreadyRunning, BridgeError, ControlUnreachable, StoreUnreachable
from engine.errors import EngineError, EngineImplementationUnavailable


def test_help_lists_the_verbs_and_the_exit_codes() -> None:
    ran = railswitch_process("--help")
    assert ran.code == 0
    assert all(f"    {verb} " in ran.out for verb in cli.VERBS)
    assert "exit codes:" in ran.out


@pytest.mark.parametrize("verb", ["up", "flip", "doctor", "sandbox"])
def test_help_of_a_verb_has_its_example_and_the_exit_codes(verb: str) -> None:
    ran = railswitch(verb, "--help")
    assert ran.code == 0
    assert f"example:\n  railswitch {verb}" in ran.out
    assert "exit codes:" in ran.out


@pytest.mark.parametrize("words", [(), ("flup",), ("flip",), ("status", "--colour")])
def test_usage_errors_say_what_is_wrong_and_exit_with_2(words: tuple[str, ...]) -> None:
    ran = railswitch(*words)
    assert ran.code == Exit.USAGE
    assert ran.err.startswith("railswitch: ")
    assert "--help" in ran.err
    assert ran.out == ""


def test_missing_configuration_says_where_it_was_looked_for(tmp_path: Path) -> None:
    ran = railswitch("status", cwd=tmp_path)
    assert ran.code == Exit.USAGE
    assert str(tmp_path / "railswitch.toml") in ran.err
    assert "--config" in ran.err


def test_wrong_key_is_named_with_the_file_and_the_nearest_one(tmp_path: Path) -> None:
    file = write_config(tmp_path, more="\n[flip]\nhold_max_ms = 5\n")
    ran = railswitch_process("doctor", "--config", str(file))
    assert ran.code == Exit.USAGE
    line = file.read_text().splitlines().index("hold_max_ms = 5") + 1
    assert f"{file}:{line}: unknown key `flip.hold_max_ms`" in ran.err
    assert "`hold_ms_max`" in ran.err


def test_unknown_instrument_names_the_known_ones(tmp_path: Path) -> None:
    ran = railswitch("flip", "LTC-USD", "--config", str(write_config(tmp_path)))
    assert ran.code == Exit.USAGE
    assert "BTC-USD, ETH-USD, SOL-USD" in ran.err


@pytest.mark.parametrize(
    "words", [("gate", "BTC-USD"), ("flip", "BTC-USD", "--execute"), ("rollback", "BTC-USD")]
)
def test_control_that_does_not_answer_is_named_with_what_to_do(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    ran = railswitch(*words, "--config", str(write_config(tmp_path)))
    assert ran.code == Exit.UNREACHABLE
    assert "control at 127.0.0.1:" in ran.err
    assert "railswitch up" in ran.err


def test_nothing_started_and_no_store_configured_says_what_to_start(tmp_path: Path) -> None:
    ran = railswitch("parity", "report", "--config", str(write_config(tmp_path)))
    assert ran.code == Exit.USAGE
    assert "railswitch up" in ran.err


def test_store_that_does_not_answer_is_told_apart_from_a_defect(tmp_path: Path) -> None:
    ran = railswitch(
        *("parity", "report", "--config", str(write_config(tmp_path))),
        *("--database-url", "postgresql://nobody@127.0.0.1:1/none"),
    )
    assert ran.code == Exit.UNREACHABLE


def test_defects_are_told_apart_and_their_trace_is_shown_only_when_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(words: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(cli, "parser", broken)
    assert cli.main(["status"]) == Exit.DEFECT
    shown = capsys.readouterr().err
    assert "This is a defect in railswitch" in shown
    assert "Traceback" not in shown
    assert cli.main(["status", "--debug"]) == Exit.DEFECT
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AlreadyRunning("x"), Exit.REFUSED),
        (ControlUnreachable("x"), Exit.UNREACHABLE),
        (StoreUnreachable("x"), Exit.UNREACHABLE),
        (EngineImplementationUnavailable("x"), Exit.USAGE),
        (EngineError("x"), Exit.FAILED),
        (PermissionError("x"), Exit.FAILED),
        (KeyboardInterrupt(), Exit.INTERRUPTED),
        (AssertionError("x"), Exit.DEFECT),
    ],
)
def test_errors_have_their_exit_codes(error: BaseException, code: Exit) -> None:
    assert exit_code(error) is code


def test_no_operating_fault_counts_as_a_defect() -> None:
    kinds = [kind for kind in vars(bridge_errors).values() if isinstance(kind, type)]
    faults = [kind for kind in kinds if issubclass(kind, BridgeError)]
    assert len(faults) > 10
    assert [kind for kind in faults if exit_code(kind("x")) is Exit.DEFECT] == []
