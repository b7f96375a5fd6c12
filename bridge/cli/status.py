"""`railswitch status`: what runs, and who answers for each instrument."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import time

import msgspec
from rich.console import Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from bridge import app
from bridge.cli.common import Context, add_config_options, add_json_option, context
from bridge.cli.control_client import ControlClient
from bridge.cli.exits import Exit
from bridge.cli.output import console, duration, micros, print_json, table, word
from bridge.control.messages import InstrumentStatus, Status, WorkerStatus
from bridge.datadir import Child
from bridge.errors import ControlUnreachable

DESCRIPTION = """\
Every instrument: its stage and epoch, who answers, its gate and the first reason, what was
compared, latencies of both sides. What runs, how far write-back is, what is wrong and what to do.
Asks the control process; when that does not answer it reads the control store, and says so.
"""

EXAMPLE = """\
  railswitch status
  railswitch status --watch
  railswitch status --json | jq '.instruments[] | {symbol, stage, gate}'"""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints."""

    status: Status
    from_control: bool  # False: control did not answer, and its store was read
    processes: tuple[Child, ...]  # of the `railswitch up` on this data directory


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="show it again every second")
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    if args.json:
        shown = _ask(where)
        print_json({**msgspec.to_builtins(shown.status), **_around(shown)})
    elif args.watch:
        _watch(where)
    else:
        console().print(_drawn(_ask(where)))
    return Exit.DONE


def _ask(where: Context) -> Shown:
    run = where.directory.running()
    processes = run.children if run is not None else ()
    try:
        answer = ControlClient(where.config.control.listen).status()
    except ControlUnreachable as error:
        answer = asyncio.run(app.status_without_control(where.config, str(error)))
        return Shown(status=answer, from_control=False, processes=processes)
    return Shown(status=answer, from_control=True, processes=processes)


def _around(shown: Shown) -> dict[str, object]:
    return {
        "from_control": shown.from_control,
        "processes": msgspec.to_builtins(shown.processes),
    }


def _watch(where: Context) -> None:
    with (
        Live(console=console(), auto_refresh=False) as live,
        contextlib.suppress(KeyboardInterrupt),
    ):
        while True:
            live.update(_drawn(_ask(where)), refresh=True)
            time.sleep(1.0)


def _drawn(shown: Shown) -> RenderableType:
    status = shown.status
    parts: list[RenderableType] = []
    if not shown.from_control:
        parts.append(
            "[yellow]control could not be asked; this was read from the control store[/yellow]"
        )
    parts += [_summary(status), "", _stages(status)]
    shadowed = [one for one in status.instruments if one.run]
    if shadowed:
        parts += ["", _comparison(shadowed)]
    if status.workers:
        parts += ["", _workers(status.workers)]
    if shown.processes:
        parts += ["", _processes(shown.processes)]
    parts += [f"[yellow]![/yellow] {escape(one)}" for one in status.problems]
    return Group(*parts)


def _summary(status: Status) -> str:
    engine, back = status.engine, status.write_back
    words = [
        f"control {escape(status.control)}" if status.control == "leads" else "no control",
        f"engine {engine.implementation}, shard {engine.shard}, at {engine.seq}"
        if engine.reachable
        else "engine does not answer",
        f"write-back {back.behind if back.behind is not None else '?'} behind"
        + (f", {duration(back.lag_ms / 1000)}" if back.lag_ms is not None else ""),
        f"{len(status.workers)} proxy workers, {sum(one.held for one in status.workers)} held",
    ]
    return " · ".join(words)


def _stages(status: Status) -> Table:
    made = table("instrument", "stage", ">epoch", "answers", "gate", "why")
    for one in status.instruments:
        stage = f"{one.stage}, {one.running.flip.direction}" if one.running else str(one.stage)
        made.add_row(
            one.symbol,
            word(stage),
            str(one.epoch),
            "engine" if one.stage.answered_by_engine else "monolith",
            word(one.gate),
            escape(one.gate_reason),
        )
    return made


def _comparison(instruments: list[InstrumentStatus]) -> Table:
    made = table(
        *("instrument", ">seen", ">matched", ">known", ">differ", ">uncomp.", ">gaps", ">pending"),
        *(">dark", ">coverage", "book", ">lag", ">monolith P50", ">P99", ">engine P50", ">P99"),
    )
    for one in instruments:
        counts, legacy, engine = one.counts, one.legacy_latency, one.engine_latency
        book = {True: "equal", False: "different", None: "-"}[one.book_equal]
        made.add_row(
            f"{one.symbol} (tainted)" if one.taint else one.symbol,
            *(str(n) for n in (counts.seen, counts.matched, counts.known, counts.mismatched)),
            *(str(n) for n in (counts.uncomparable, counts.gaps, counts.pending, counts.dark)),
            "-" if one.coverage is None else f"{one.coverage:.2%}",
            word(book),
            duration(None if one.lag_ms is None else one.lag_ms / 1000),
            micros(legacy.p50_us, legacy.count),
            micros(legacy.p99_us, legacy.count),
            micros(engine.p50_us, engine.count),
            micros(engine.p99_us, engine.count),
        )
    return made


def _workers(workers: tuple[WorkerStatus, ...]) -> Table:
    made = table(
        *("proxy worker", "plane", ">pid", ">heard", ">clients", ">requests", ">held"),
        *(">captured", "dropped", ">spooled", ">not ahead", "upstreams down"),
    )
    for one in workers:
        age = f"{duration(one.age_s)} ago"
        dropped = [f"{reason} {count}" for reason, count in one.dropped_by_reason.items() if count]
        made.add_row(
            escape(one.worker),
            one.implementation,
            str(one.pid),
            f"[red]silent, {age}[/red]" if one.silent else age,
            *(str(n) for n in (one.clients, one.requests, one.held, one.captured)),
            escape(", ".join(dropped)) or "-",
            f"{one.spooled_bytes / 1e6:.1f} MB" if one.spooled_bytes else "-",
            str(one.ahead_late + one.ahead_failed or "-"),
            f"[red]{escape(', '.join(one.upstreams_down))}[/red]" if one.upstreams_down else "-",
        )
    return made


def _processes(processes: tuple[Child, ...]) -> Table:
    made = table("process", "state", ">pid", ">restarts", "")
    for one in processes:
        made.add_row(
            one.name, word(one.state), str(one.pid or "-"), str(one.restarts), escape(one.told)
        )
    return made
