"""`railswitch mapping check`: does the mapping make sense of what the monolith has written?"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.markup import escape

from bridge.cli.common import Context, add_config_options, add_json_option, context
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, table, word
from bridge.errors import ConfigError
from bridge.limits import PROGRESS_AFTER_S
from bridge.mapping_check import check
from shadow.legacy.audit_types import Audit, Oddity, ValueTold, counted
from shadow.legacy.database import target
from shadow.limits import AUDIT_ORDERS, AUDIT_ORDERS_MAX

DESCRIPTION = """\
check reads the newest orders and the fills that concern them through [mapping], rebuilds each
instrument's book from them, and says what does not add up: rows that can't be read, fills that no
order explains, quantities that don't sum, sides that are swapped, makers that were not resting.
Each with the key of the configuration, a few of the rows, and what to do. It reads by primary key
in one read-only transaction, and changes nothing. Exits with 1 if there is a problem.
"""

EXAMPLE = """\
  railswitch mapping check
  railswitch mapping check BTC-USD --last 50000
  railswitch mapping check --json | jq '.oddities[] | .key + ": " + .seen'"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("check",))
    parser.add_argument(
        "symbols", metavar="SYMBOL", nargs="*", help="only these instruments (default: all orders)"
    )
    parser.add_argument(
        "--last",
        type=int,
        default=AUDIT_ORDERS,
        metavar="N",
        help=f"the newest N orders (default: {AUDIT_ORDERS})",
    )
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    if not 1 <= args.last <= AUDIT_ORDERS_MAX:
        raise ConfigError(f"--last {args.last}: from 1 to {AUDIT_ORDERS_MAX}")
    symbols = [where.instrument(symbol) for symbol in args.symbols]
    with _progress(quiet=args.json) as progress:
        found = asyncio.run(check(where.config, symbols, last=args.last, progress=progress))
    if args.json:
        print_json({"config": str(where.path), "problems": found.problems, **_fields(found)})
    else:
        _print(where, found)
    return Exit.FAILED if found.problems else Exit.DONE


def _fields(found: Audit) -> dict[str, object]:
    return {name: getattr(found, name) for name in found.__struct_fields__}


def _print(where: Context, found: Audit) -> None:
    out = console()
    out.print(f"configuration: {where.path}")
    out.print(f"{target(where.config.legacy.database_url)}")
    out.print(
        f"{counted(found.orders, 'order')} read, {found.hidden} outside the filter,"
        f" {found.unconfigured} of instruments that are not configured,"
        f" {found.unreadable} unreadable; {counted(found.fills, 'fill')}"
    )
    if found.instruments:
        made = table(
            *("instrument", ">orders", ">fills", ">open buys", ">open sells"),
            *(">best bid", ">best ask"),
        )
        for one in found.instruments:
            numbers = (one.orders, one.fills, one.open_buys, one.open_sells)
            made.add_row(one.symbol, *map(str, numbers), one.best_bid or "-", one.best_ask or "-")
        out.print()
        out.print(made)
    if found.values:
        out.print()
        for line in _values(found.values):
            out.print(escape(line))
    for oddity in found.oddities:
        _print_oddity(out, oddity)
    notes = len(found.oddities) - found.problems
    out.print(f"\n{counted(found.problems, 'problem')}, {counted(notes, 'note')}")


def _values(values: tuple[ValueTold, ...]) -> Iterator[str]:
    """A line for each column: what its values are taken for."""
    keys = dict.fromkeys(one.key for one in values)
    width = max(map(len, keys))
    for key in keys:
        shown = [
            f"{one.value} = {one.word or '?'} ({one.orders or 'never'})"
            for one in values
            if one.key == key
        ]
        yield f"{key:{width}}  {'  '.join(shown)}"


def _print_oddity(out: Console, one: Oddity) -> None:
    out.print(f"\n{word(one.weight, 7)} {one.check}: {escape(one.seen)}")
    out.print(f"        key:  {escape(one.key)}")
    if one.rows:
        out.print(f"        rows: {escape(', '.join(one.rows))}")
    out.print(f"        so:   {escape(one.consequence)}")
    out.print(f"        next: {escape(one.next_step)}")


@contextlib.contextmanager
def _progress(*, quiet: bool) -> Iterator[Callable[[str], None]]:
    """On stderr, for what takes longer than a moment."""
    told_at = time.monotonic()
    err = Console(file=sys.stderr)

    def tell(text: str) -> None:
        nonlocal told_at
        if not quiet and time.monotonic() - told_at > PROGRESS_AFTER_S:
            told_at = time.monotonic()
            print(f"railswitch: {text}", file=sys.stderr)

    if quiet or not err.is_terminal:
        yield tell
        return
    with err.status("reading") as status:
        yield lambda text: status.update(text)
