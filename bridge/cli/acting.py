"""What `flip`, `rollback` and `stage` share: ask for a dry run or act, and show what comes."""

from __future__ import annotations

import argparse
import getpass
import socket
from collections.abc import Iterator

from rich.markup import escape

from bridge.cli.common import (
    Context,
    add_config_options,
    add_execute_option,
    add_json_option,
    context,
)
from bridge.cli.control_client import ControlClient, Line
from bridge.cli.exits import Exit
from bridge.cli.output import console, duration, print_json_line, progress, table, word
from bridge.control.messages import ActOutcome, ActRequest, DryRun, Refused, StageRequest
from bridge.gate import Decision, Fail, Pass
from bridge.steps import StepUpdate

_OUTCOMES = {"done": Exit.DONE, "aborted": Exit.FAILED, "unfinished": Exit.FAILED}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("symbol", help="the instrument, as the monolith writes it")
    add_execute_option(parser)
    parser.add_argument("--reason", default="", help="kept in the journal of flips")
    parser.add_argument("--actor", default=_actor(), help="who acts (default: user@machine)")
    add_config_options(parser)
    add_json_option(parser, "one JSON line for each step, the last one the outcome")


def run(args: argparse.Namespace, what: str, body: ActRequest | StageRequest) -> Exit:
    where: Context = context(args)
    symbol = where.instrument(args.symbol)
    client = ControlClient(where.config.control.listen)
    lines = client.act(symbol, what, body)
    return _printed_json(lines) if args.json else _printed(lines, f"{what} {symbol}")


def gate_exit(decision: Decision) -> Exit:
    if isinstance(decision, Pass):
        return Exit.DONE
    return Exit.FAILED if isinstance(decision, Fail) else Exit.INCONCLUSIVE


def gate_word(decision: Decision) -> str:
    return type(decision).__name__.lower()


def print_gate(decision: Decision) -> None:
    out = console()
    out.print(f"gate of {decision.symbol}: {word(gate_word(decision))}")
    checks = table("", "check", "seen", "wanted")
    for check in decision.checks:
        checks.add_row(word(check.outcome), check.name, escape(check.seen), escape(check.wanted))
    out.print(checks)
    if isinstance(decision, Pass):
        out.print(escape(decision.statement))
    for reason in decision.reasons:
        out.print(f"  - {escape(reason)}")


def _printed_json(lines: Iterator[Line]) -> Exit:
    code = Exit.DONE
    for line in lines:
        print_json_line(line)
        code = _exit(line)
    return code


def _printed(lines: Iterator[Line], what: str) -> Exit:
    code = Exit.DONE
    with progress(what):
        for line in lines:
            _print(line)
            code = _exit(line)
    return code


def _exit(line: Line) -> Exit:
    if isinstance(line, ActOutcome):
        return _OUTCOMES[line.outcome]
    if isinstance(line, DryRun) and not line.ready:
        if line.gate is not None and not isinstance(line.gate, Pass):
            return gate_exit(line.gate)
        return Exit.REFUSED
    return Exit.REFUSED if isinstance(line, Refused) else Exit.DONE


def _print(line: Line) -> None:
    out = console()
    if isinstance(line, StepUpdate):
        _print_step(line)
    elif isinstance(line, DryRun):
        _print_dry_run(line)
    elif isinstance(line, ActOutcome):
        held = f", held for {duration(line.hold_ms / 1000)}" if line.hold_ms is not None else ""
        out.print(
            f"{line.action} of {line.symbol}: {word(line.outcome)}; "
            f"it is {word(line.stage)} at epoch {line.epoch}{held}"
        )
        for reason in line.reasons:
            out.print(f"  - {escape(reason)}")
        out.print(f"next: {escape(line.next)}")
    else:
        out.print(f"{word('failed')}: {escape(line.error)}")
        for reason in line.reasons:
            out.print(f"  - {escape(reason)}")
        out.print(f"next: {escape(line.next)}")


def _print_step(step: StepUpdate) -> None:
    if step.state == "intended":
        return  # the next line about it says how it went
    shown = {key: value for key, value in step.detail.items() if value not in (None, "")}
    detail = "  ".join(
        f"{key}={value:.1f}" if isinstance(value, float) else f"{key}={value}"
        for key, value in shown.items()
    )
    console().print(
        f"  {step.n:>2} {step.step:<10} {word(step.state, 8)} {step.elapsed_ms:>8.1f} ms  "
        f"{escape(detail)}".rstrip()
    )


def _print_dry_run(line: DryRun) -> None:
    out = console()
    if line.gate is not None:
        print_gate(line.gate)
        out.print()
    out.print(f"{line.symbol} is {word(line.stage)} at epoch {line.epoch}.")
    if line.findings:
        out.print("before it begins:")
        findings = table("", "looked at", "seen")
        for one in line.findings:
            findings.add_row(word("ok" if one.ok else "fail"), one.name, escape(one.seen))
        out.print(findings)
    out.print(f"{line.action} would:")
    for n, step in enumerate(line.plan, 1):
        out.print(f"  {n}. {escape(step)}")
    if line.reasons:
        out.print("not now, because:")
        for reason in line.reasons:
            out.print(f"  - {escape(reason)}")
    out.print(f"next: {escape(line.next)}")
    out.print("Nothing has been changed.")


def _actor() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (OSError, KeyError):
        return f"unknown@{socket.gethostname()}"
