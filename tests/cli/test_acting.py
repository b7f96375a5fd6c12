"""What the command line makes of the control API's answers: its words and its exit codes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from running_cli import Ran, railswitch, write_config

from bridge.cli.exits import Exit
from bridge.config import load
from bridge.config_rules import host_port
from bridge.control.messages import ActOutcome, DryRun, GateReport, Refused
from bridge.gate import Check, Decision, Fail, Inconclusive, Outcome, Pass
from bridge.preflight import Finding
from bridge.stage import Stage
from bridge.steps import StepUpdate

CHECKS = (
    Check(name="stage", outcome=Outcome.OK, seen="shadow", wanted="shadow"),
    Check(name="fills", outcome=Outcome.TOO_LITTLE, seen="3", wanted=">= 200", reason="3 fills"),
)
PASS = Pass(symbol="BTC-USD", compared=3000, bound=0.001, statement="no mismatch", checks=CHECKS)
FAIL = Fail(symbol="BTC-USD", reasons=("2 operations differ",), checks=CHECKS)
TOO_LITTLE = Inconclusive(symbol="BTC-USD", reasons=("3 fills compared",), checks=CHECKS)


class Control:
    """Answers every request with what a test has put here, and keeps what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.lines: list[Any] = []
        self.asked: list[tuple[str, str, Any]] = []
        self.file: Path

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        given = msgspec.json.decode(body) if body else None
        self.asked.append((handler.command, handler.path, given))
        handler.send_response(self.status)
        handler.end_headers()
        for line in self.lines:
            handler.wfile.write(msgspec.json.encode(line) + b"\n")

    def cli(self, *words: str) -> Ran:
        return railswitch(*words, "--config", str(self.file))


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    made = Control()
    made.file = write_config(tmp_path)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(host_port(load(made.file).control.listen), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield made
        server.shutdown()
        thread.join()


def step(name: str, state: str, **detail: Any) -> StepUpdate:
    return StepUpdate(
        flip_id=1,
        symbol="BTC-USD",
        direction="flip",
        n=0,
        step=name,
        state=state,
        elapsed_ms=12.5,
        detail=detail,
    )


def outcome(what: str, *reasons: str) -> ActOutcome:
    return ActOutcome(
        symbol="BTC-USD",
        action="flip",
        outcome=what,  # type: ignore[arg-type]
        stage=Stage.LIVE,
        epoch=2,
        hold_ms=98.2,
        reasons=reasons,
        next="look at it",
    )


def dry_run(gate: Decision | None, *reasons: str) -> DryRun:
    return DryRun(
        symbol="BTC-USD",
        action="flip",
        stage=Stage.SHADOW,
        epoch=1,
        ready=not reasons,
        gate=gate,
        findings=(Finding(name="proxies", ok=not reasons, seen="2 heard"),),
        reasons=reasons,
        plan=("hold: new orders", "fence: the database"),
        next="go on",
    )


@pytest.mark.parametrize(
    ("decision", "code"),
    [(PASS, Exit.DONE), (FAIL, Exit.FAILED), (TOO_LITTLE, Exit.INCONCLUSIVE)],
)
def test_gate_has_an_exit_code_for_each_answer(
    control: Control, decision: Decision, code: Exit
) -> None:
    control.lines = [
        GateReport(symbol="BTC-USD", stage=Stage.SHADOW, epoch=1, decision=decision, statement="x")
    ]
    ran = control.cli("gate", "BTC-USD")
    assert ran.code == code
    assert type(decision).__name__.lower() in ran.out
    assert ">= 200" in ran.out
    assert all(reason in ran.out for reason in decision.reasons)
    assert control.cli("gate", "BTC-USD", "--json").json["decision"]["symbol"] == "BTC-USD"


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (dry_run(PASS), Exit.DONE),
        (dry_run(FAIL, "the gate says fail"), Exit.FAILED),
        (dry_run(TOO_LITTLE, "the gate says inconclusive"), Exit.INCONCLUSIVE),
        (dry_run(PASS, "no proxy worker has reported"), Exit.REFUSED),
    ],
)
def test_dry_run_prints_gate_findings_and_plan_and_asks_for_nothing_else(
    control: Control, answer: DryRun, code: Exit
) -> None:
    control.lines = [answer]
    ran = control.cli("flip", "BTC-USD")
    assert ran.code == code
    assert "1. hold: new orders" in ran.out
    assert "2 heard" in ran.out
    assert "Nothing has been changed." in ran.out
    assert all(reason in ran.out for reason in answer.reasons)
    ((method, path, body),) = control.asked
    assert (method, path) == ("POST", "/instruments/BTC-USD/flip")
    assert body["execute"] is False
    assert "@" in body["actor"]


@pytest.mark.parametrize(
    ("last", "code"), [("done", Exit.DONE), ("aborted", Exit.FAILED), ("unfinished", Exit.FAILED)]
)
def test_executing_streams_the_steps_and_ends_with_the_outcome(
    control: Control, last: str, code: Exit
) -> None:
    control.lines = [
        step("hold", "intended"),
        step("hold", "done", workers=2),
        outcome(last, "because"),
    ]
    ran = control.cli("flip", "BTC-USD", "--execute", "--drill", "3", "--reason", "CHG-7")
    assert ran.code == code
    assert "hold" in ran.out
    assert "workers=2" in ran.out
    assert "held for 98 ms" in ran.out
    assert "because" in ran.out
    _, _, body = control.asked[0]
    assert body["execute"] is True
    assert body["drill_s"] == 3.0
    assert body["reason"] == "CHG-7"


def test_json_gives_each_line_as_it_came(control: Control) -> None:
    control.lines = [step("hold", "done"), outcome("done")]
    ran = control.cli("flip", "BTC-USD", "--execute", "--json")
    assert ran.code == 0
    lines = [msgspec.json.decode(line) for line in ran.out.splitlines()]
    assert [line["type"] for line in lines] == ["step", "outcome"]


def test_refusal_shows_its_reasons_and_the_next_step(control: Control) -> None:
    control.status = 409
    control.lines = [
        Refused(error="BTC-USD can't be flipped now", reasons=("lag", "fills"), next="wait")
    ]
    ran = control.cli("flip", "BTC-USD", "--execute")
    assert ran.code == Exit.REFUSED
    assert ran.out == ""
    assert ran.err.splitlines() == [
        *("railswitch: BTC-USD can't be flipped now", "  - lag", "  - fills", "next: wait"),
    ]


def test_store_that_control_can_not_reach_is_unreachable_not_refused(control: Control) -> None:
    control.status = 503
    control.lines = [Refused(error="the control store does not answer")]
    assert control.cli("rollback", "BTC-USD", "--execute").code == Exit.UNREACHABLE


def test_control_that_ends_in_the_middle_says_where_to_look(control: Control) -> None:
    control.lines = [step("fence", "intended")]
    ran = control.cli("flip", "BTC-USD", "--execute")
    assert ran.code == Exit.UNREACHABLE
    assert "railswitch status" in ran.err


def test_stage_sends_what_is_wanted(control: Control) -> None:
    control.lines = [outcome("done")]
    assert control.cli("stage", "ETH-USD", "shadow", "--execute").code == 0
    ((_, path, body),) = control.asked
    assert path == "/instruments/ETH-USD/stage"
    assert (body["stage"], body["execute"]) == ("shadow", True)
