"""`railswitch bench`: measures the parts on this machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bridge.bench.figures import tables
from bridge.bench.page import rewritten
from bridge.cli.common import add_json_option
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, progress, table
from bridge.errors import ConfigError
from bridge.implementation import chosen_implementation

# Each is a module of bridge.bench with a function `run`, which takes those of the options below
# that it names and returns a plain document, conditions included.
PARTS = {
    "core": "the engine in process: batches of commands, no socket, no journal",
    "engine": "the engine service over loopback, durable before each answer",
    "recovery": "the engine's way back from its journal: replay, snapshot, verify",
    "proxy": "the proxy, beside a direct connection, nginx and nginx's mirror",
    "pipeline": "the comparison: from the monolith's commit to the verdict",
    "legacy": "the change stream: from the monolith's database to the engine",
}
# With `--soak`, in place of proxy; in the page it has a section of its own.
SOAK = {"soak": "one proxy worker under a steady load, its shadow side ten times too slow"}
_SECTIONS = ("core", "engine", "recovery", "proxy", "soak", "pipeline", "legacy")
_MODULES = {"soak": "proxy_soak"}
_OF_THE_PROXY = ("proxy", "soak")

DESCRIPTION = """\
Measures parts of railswitch on this machine, one after the other, and prints each figure with its
conditions. Latencies count from the moment at which a request was due. Nothing of yours is touched:
it starts what it needs and removes it again. Stop what else runs here, or the figures are about
that.
"""

EXAMPLE = """\
  railswitch bench                                  # all parts, some seconds each
  railswitch bench engine --rate 1000000 --seconds 60 --ladder
  railswitch bench proxy --soak 600
  railswitch bench core --json > bench-core.json
  railswitch bench core --write docs/performance.md"""

_ENGINE_RATE = 100_000
_RECOVERY_COMMANDS_MIN = 20_000  # a thousand instruments, and something to do for them


def configure(parser: argparse.ArgumentParser) -> None:
    what = "; ".join(f"{name}: {summary}" for name, summary in PARTS.items())
    parser.add_argument("part", nargs="*", help=f"{what} (default: all)")
    _add_sizes(parser)
    parser.add_argument(
        "--soak",
        type=_number(float, 3),
        metavar="SECONDS",
        help="of proxy: in place of the comparison, memory under a steady load for so long",
    )
    parser.add_argument("--ladder", action="store_true", help="of engine: then ever higher rates")
    parser.add_argument("--unix", action="store_true", help="of engine: a Unix socket, not TCP")
    parser.add_argument("--seed", type=_number(int, 0), default=1, help="of the workloads (1)")
    parser.add_argument("--implementation", default="", help="rust or python (default: as `up`)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("bench-data"),
        help="decides which disk is measured (./bench-data); what is written there is removed",
    )
    parser.add_argument(
        "--export", type=Path, metavar="FILE", help="of core: write the pair's commands there"
    )
    parser.add_argument(
        "--write", type=Path, metavar="PAGE", help="put the tables between the marks of this page"
    )
    add_json_option(parser)


def _add_sizes(parser: argparse.ArgumentParser) -> None:
    def add(name: str, kind: Callable[[str], Any], default: Any, help_: str) -> None:
        parser.add_argument(name, type=kind, default=default, help=help_)

    count, seconds = _number(int, 1), _number(float, 0.1)
    commands = _number(int, _RECOVERY_COMMANDS_MIN)
    add("--rate", count, _ENGINE_RATE, f"offered to engine per second ({_ENGINE_RATE})")
    add("--seconds", seconds, 5.0, "of engine, and of each turn of proxy (5)")
    add("--offered", count, 5_000, "to proxy per second, in an open loop (5000)")
    add("--soak-rate", count, 3_000, "offered to proxy per second with --soak (3000)")
    add("--commands", count, 1_000_000, "of core, for each workload and round (1000000)")
    add("--rounds", count, 5, "of core, recovery and proxy (5)")
    add("--recovery-commands", commands, 10_000_000, "in the journal of recovery (10000000)")
    add("--connections", count, 32, "of proxy (32)")
    add("--operations", count, 20_000, "of pipeline (20000)")
    add("--changes", _number(int, 8), 40_000, "of legacy; more show its memory (40000)")
    add("--changes-rate", count, 2_000, "of legacy, written per second for its latencies (2000)")


def run(args: argparse.Namespace) -> Exit:
    parts = args.part or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"no part {unknown[0]} to measure: choose of {', '.join(PARTS)}")
    if args.soak is not None:
        parts = ["soak" if part == "proxy" else part for part in parts]
    options = {
        part: {**vars(args), "implementation": _implementation(part, args.implementation)}
        for part in parts
    }
    if args.write is not None:
        _write(args.write, {})  # whether it can be, before minutes have gone by
    results: dict[str, Any] = {}
    for part in parts:
        with progress(f"measuring: {_said(part)}", quiet=args.json):
            results[part] = _measure(part, options[part])
        if args.write is not None:
            _write(args.write, {part: results[part]})
        if not args.json:
            _print(part, results[part])
    with contextlib.suppress(OSError):
        args.directory.rmdir()  # only if nothing is left in it
    if args.json:
        print_json(results)
    return Exit.DONE


def _implementation(part: str, asked_for: str) -> str:
    if part in _OF_THE_PROXY:
        return asked_for  # its workers choose, as in operation
    return chosen_implementation(asked_for, os.environ)[0]


def _measure(part: str, options: dict[str, Any]) -> Any:
    function = importlib.import_module(f"bridge.bench.{_MODULES.get(part, part)}").run
    wanted = inspect.signature(function).parameters
    given = {name: value for name, value in options.items() if name in wanted}
    with contextlib.redirect_stdout(sys.stderr):  # ours is for the result
        result = function(**given)
        return asyncio.run(result) if inspect.iscoroutine(result) else result


def _said(part: str) -> str:
    return {**PARTS, **SOAK}[part]


def _write(page: Path, results: dict[str, Any]) -> None:
    try:
        before = page.read_text()
        after = rewritten(before, results, list(_SECTIONS))
        if results:
            page.write_text(after)
    except OSError as error:
        raise ConfigError(f"{page}: {error.strerror or error}") from error
    except ConfigError as error:
        raise ConfigError(f"{page}: {error}") from None


def _print(part: str, result: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]{part}[/bold]  {_said(part)}\n")
    for one in tables(part, result):
        first, *others = one.columns
        side = "" if one.title == "conditions" else ">"
        shown = table(first, *(f"{side}{name}" for name in others), title=one.title)
        for row in one.rows:
            shown.add_row(*row)
        out.print(shown)
        out.print()


def _number(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    """For argparse: a number that is not below `least`."""

    def parsed(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        # "nan" is not at least anything
        if value is None or not least <= value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text!r} is no number of at least {least:g}")
        return value

    return parsed
