"""`railswitch bench`: measures the parts on this machine."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import inspect
import os
import sys
from pathlib import Path
from typing import Any

from bridge.cli.common import add_json_option
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, progress
from bridge.errors import ConfigError
from bridge.implementation import chosen_implementation

# Each is a module of bridge.bench with a function `run`, which takes those of the options below
# that it names and returns a plain document, conditions included.
PARTS = {
    "core": "the engine in process: batches of commands, no socket, no journal",
    "engine": "the engine service over loopback, durable before each answer",
    "proxy": "the proxy, beside a direct connection",
    "pipeline": "the comparison: from the monolith's commit to the verdict",
}

DESCRIPTION = """\
Measures parts of railswitch on this machine, one after the other, and prints each figure with its
conditions. Latencies count from the moment at which a request was due. Nothing of yours is touched:
it starts what it needs and removes it again. Stop what else runs here, or the figures are about
that.
"""

EXAMPLE = """\
  railswitch bench                                  # all parts, a few seconds each
  railswitch bench engine --rate 1000000 --seconds 60
  railswitch bench core --json > bench-core.json"""

_ENGINE_RATE = 100_000


def configure(parser: argparse.ArgumentParser) -> None:
    what = "; ".join(f"{name}: {summary}" for name, summary in PARTS.items())
    parser.add_argument("part", nargs="*", help=f"{what} (default: all)")
    parser.add_argument("--rate", type=int, help=f"offered to engine per second ({_ENGINE_RATE})")
    parser.add_argument("--seconds", type=float, default=5.0, help="of engine, and of proxy (5)")
    parser.add_argument("--commands", type=int, default=2_000_000, help="of core (2000000)")
    parser.add_argument("--connections", type=int, default=32, help="of proxy (32)")
    parser.add_argument("--operations", type=int, default=20_000, help="of pipeline (20000)")
    parser.add_argument("--seed", type=int, default=1, help="of core")
    parser.add_argument("--implementation", default="", help="rust or python (default: as `up`)")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("bench-data"),
        help="decides which disk is measured (./bench-data); what is written there is removed",
    )
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    parts = args.part or list(PARTS)
    unknown = [part for part in parts if part not in PARTS]
    if unknown:
        raise ConfigError(f"no part {unknown[0]} to measure: choose of {', '.join(PARTS)}")
    implementation, _ = chosen_implementation(args.implementation, os.environ)
    results: dict[str, Any] = {}
    for part in parts:
        options = {**vars(args), "implementation": implementation}
        options["rate"] = args.rate or _ENGINE_RATE
        with progress(f"measuring: {PARTS[part]}", quiet=args.json):
            results[part] = _measure(part, options)
        if not args.json:
            _print(part, results[part])
    with contextlib.suppress(OSError):
        args.directory.rmdir()  # only if nothing is left in it
    if args.json:
        print_json(results)
    return Exit.DONE


def _measure(part: str, options: dict[str, Any]) -> Any:
    function = importlib.import_module(f"bridge.bench.{part}").run
    wanted = inspect.signature(function).parameters
    given = {name: value for name, value in options.items() if name in wanted}
    with contextlib.redirect_stdout(sys.stderr):  # ours is for the result
        result = function(**given)
        return asyncio.run(result) if inspect.iscoroutine(result) else result


def _print(part: str, result: dict[str, Any]) -> None:
    out = console()
    out.print(f"[bold]{part}[/bold]  {PARTS[part]}")
    for key, value in _flat(result):
        out.print(f"  {key:<40} {value}")
    out.print()


def _flat(value: Any, path: str = "") -> list[tuple[str, str]]:
    if isinstance(value, dict):
        return [
            pair
            for key, one in value.items()
            for pair in _flat(one, f"{path}.{key}" if path else str(key))
        ]
    return [(path, f"{value:,}" if isinstance(value, int) else str(value))]
