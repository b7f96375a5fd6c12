"""`railswitch demo`: the whole story on this machine, in a few minutes."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import tempfile
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.live import Live
from rich.markup import escape
from rich.padding import Padding
from rich.text import Text

from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, problem, progress, table, word
from bridge.cli.parity import side_by_side
from bridge.control.messages import InstrumentStatus
from bridge.errors import DemoFailed
from bridge.limits import DEMO_TELL_S
from bridge.sandbox.demo import FAULTS, QUICK, Demo, Tempo
from bridge.sandbox.demo_flow import FlowDemo
from bridge.sandbox.demo_report import DemoReport, StoryLine, duration, render_html
from bridge.sandbox.demo_story import Story
from bridge.sandbox.demo_world import DEMO_GATE, FLOW_GATE, World

DESCRIPTION = """\
Starts a small monolith and everything of railswitch as real processes on loopback, drives orders
through the proxy, shadows three instruments, flips one under load, kills the engine, rolls back,
flips again, and audits every order at the end. Writes demo-report.html and demo-report.json.
Exits 0 only if everything held. Nothing outside a temporary directory is touched.
"""

EXAMPLE = """\
  railswitch demo
  railswitch demo --quick                 # the same story, told faster
  railswitch demo --flow events.csv.xz    # with recorded order flow instead of generated"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--quick", action="store_true", help="dwell less on each part")
    parser.add_argument("--flow", metavar="FILE", help="recorded order flow, .csv or .csv.xz")
    parser.add_argument("--seed", type=int, default=1, help="of the generated orders (default: 1)")
    parser.add_argument("--report-dir", default=".", metavar="DIR", help="default: here")
    parser.add_argument("--keep", action="store_true", help="keep the processes' files and logs")
    parser.add_argument("--json", action="store_true", help="the report on stdout, for programs")


def run(args: argparse.Namespace) -> Exit:
    directory = Path(tempfile.mkdtemp(prefix="railswitch-demo-"))
    directory.chmod(0o711)  # PostgreSQL may run as another user, who must be able to enter
    failed = True
    try:
        report = _told(args, directory)
        _write(report, Path(args.report_dir))
        failed = not report.ok
    finally:
        if args.keep or failed:
            problem(f"configuration and logs are in {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    if args.json:
        print_json(report)
    else:
        _print_summary(report, Path(args.report_dir))
    return Exit.FAILED if failed else Exit.DONE


def _told(args: argparse.Namespace, directory: Path) -> DemoReport:
    world = World(
        directory,
        faults=() if args.flow else FAULTS,
        gate=FLOW_GATE if args.flow else DEMO_GATE,
        seed=args.seed,
    )
    teller = _Teller()
    tell, watch = (_silent, _silent) if args.json else (teller.tell, teller.watch)
    tell(
        StoryLine(at_s=0.0, text="a monolith with its PostgreSQL starts, and railswitch before it")
    )
    with progress("starting", quiet=args.json):
        world.start()
    with world:
        story = Story(world, tell, watch)
        if args.flow:
            return asyncio.run(FlowDemo(story, Path(args.flow)).run())
        return asyncio.run(
            Demo(story, seed=args.seed, tempo=QUICK if args.quick else Tempo()).run()
        )


class _Teller:
    """The story on stdout. Parity grows in place on a terminal, elsewhere line by line."""

    def __init__(self) -> None:
        self._out = console()
        self._live = Live(console=self._out, auto_refresh=False, transient=True)
        self._told_at_s = 0.0

    def tell(self, line: StoryLine) -> None:
        self._live.stop()
        self._told_at_s = 0.0
        text = Text(f"{line.at_s:6.1f} s  ", style="dim")
        indent = " " * len(text)
        room = max(40, min(self._out.width, 110) - len(indent))
        text.append(f"\n{indent}".join(textwrap.wrap(line.text, room)), style="not dim")
        self._out.print(text)

    def watch(self, instruments: Sequence[InstrumentStatus]) -> None:
        if self._out.is_terminal:
            self._live.start()
            self._live.update(_parity(instruments), refresh=True)
        elif time.monotonic() - self._told_at_s >= DEMO_TELL_S:
            self._told_at_s = time.monotonic()
            self._out.print(_parity(instruments))


def _parity(instruments: Sequence[InstrumentStatus]) -> Padding:
    made = table("", ">seen", ">match", ">differ", ">pending", ">fills", ">dark", "gate")
    for one in instruments:
        c = one.counts
        numbers = (c.seen, c.matched, c.mismatched, c.pending, c.fills, c.dark)
        made.add_row(one.symbol, *(f"{n:,}" for n in numbers), word(one.gate))
    return Padding(made, (0, 0, 0, 10))


def _silent(_: object) -> None:
    """With --json only the report is printed."""


def _write(report: DemoReport, directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "demo-report.html").write_text(render_html(report))
        encoded = msgspec.json.format(msgspec.json.encode(report), indent=2)
        (directory / "demo-report.json").write_bytes(encoded + b"\n")
    except OSError as error:
        raise DemoFailed(f"the report can't be written to {directory}: {error.strerror}") from error


def _print_summary(report: DemoReport, directory: Path) -> None:
    out = console()
    made = table("phase of BTC-USD", "answered by", ">requests", ">P50", ">P99", ">worst")
    for one in report.latency:
        row = (duration(us) for us in (one.p50_us, one.p99_us, one.max_us))
        made.add_row(one.phase, one.answered_by, f"{one.count:,}", *row)
    out.print()
    out.print(made)
    out.print()
    audit = table("audit", "", "")
    for check in report.audit:
        audit.add_row(word("ok" if check.ok else "fail"), check.name, escape(check.detail))
    out.print(audit)
    out.print()
    for instrument in report.instruments:
        for root in instrument.roots[:1]:
            out.print(
                f"the first operation of {instrument.symbol} that differs, order {root.order_id}:"
            )
            out.print(side_by_side(root))
            out.print()
    flips = ", ".join(f"{f.direction} {f.hold_ms:.0f} ms" for f in report.flips)
    out.print(
        f"{report.orders_sent:,} requests sent, {report.orders_answered:,} answered, "
        f"{report.orders_lost} orders lost, {report.orders_duplicated} duplicated; "
        f"{report.fills_compared:,} fills compared; holds: {flips}"
    )
    for failure in report.failures:
        problem(failure)
    out.print(f"the whole report: {directory / 'demo-report.html'}")
