"""`railswitch parity report`: how the engine's results compare with the monolith's."""

from __future__ import annotations

import argparse
import asyncio
import time

import msgspec
from rich.markup import escape
from rich.table import Table

from bridge import app
from bridge.cli.common import add_config_options, add_json_option, context
from bridge.cli.exits import Exit
from bridge.cli.output import console, duration, print_json, table, word
from bridge.errors import ConfigError
from shadow import writers
from shadow.report import report
from shadow.store_rows import Parity, Root
from shadow.verdict import Counts, OperationVerdict

DESCRIPTION = """\
Reads from the control store what was compared and what came of it: counts that close to the last
order, coverage beside parity, mismatches by kind, the first divergences with both sides next to
each other and the number of operations that follow from each. Exits with 1 if anything differs.
"""

EXAMPLE = """\
  railswitch parity report BTC-USD
  railswitch parity report --json | jq '.instruments[] | {symbol, parity, coverage, kinds}'"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", nargs="?", default="report", metavar="report", help="may be left out"
    )
    parser.add_argument("symbol", nargs="?", help="the instrument (default: all)")
    parser.add_argument(
        "--limit", type=int, default=3, metavar="N", help="how many first divergences (3)"
    )
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    named = _named(args.what, args.symbol)
    symbol = where.instrument(named) if named else None
    found = asyncio.run(app.parity(where.config, symbol))
    if args.json:
        print_json(report(found))
    else:
        _print(found, args.limit)
    return Exit.FAILED if any(one.evidence.counts.mismatched for one in found) else Exit.DONE


def _named(what: str, symbol: str | None) -> str | None:
    """
    >>> _named("report", None), _named("report", "BTC-USD"), _named("BTC-USD", None)
    (None, 'BTC-USD', 'BTC-USD')
    """
    if what == "report":
        return symbol
    if symbol:
        raise ConfigError(f"`railswitch parity` shows one instrument or all, not {what} {symbol}")
    return what


def _print(found: list[Parity], limit: int) -> None:
    out = console()
    shown = [one for one in found if one.evidence.run]
    for one in shown:
        _print_one(one, limit)
    quiet = [one.evidence.symbol for one in found if not one.evidence.run]
    if quiet:
        out.print(f"never shadowed: {', '.join(quiet)}")
    if not found:
        out.print("no instrument is known yet: start `railswitch up`")


def _print_one(parity: Parity, limit: int) -> None:
    out, evidence = console(), parity.evidence
    told = report([parity])["instruments"][0]
    loaded = duration(max(0.0, evidence.now_s - evidence.loaded_at_s))
    out.print(
        f"[bold]{evidence.symbol}[/bold]  {word(evidence.stage)}, epoch {evidence.epoch}, "
        f"load {evidence.run}, {loaded} ago"
    )
    counts = evidence.counts
    out.print(f"  {closing(counts)}")
    out.print(
        f"  parity {_percent(told['parity'])} · coverage {_percent(told['coverage'])} · "
        f"{counts.fills} fills compared · {counts.dark} dark · {counts.reordered} reordered"
    )
    if counts.dark:
        _print_dark(parity)
    if counts.seen:
        out.print(f"  {told['statement']}")
    book = {True: "equal", False: "different", None: "never compared"}[evidence.book_equal]
    out.print(f"  book {word(book)}" + _taint(evidence.taint))
    if parity.kinds:
        kinds = table("kind", ">times")
        for kind, times in parity.kinds.items():
            kinds.add_row(kind, str(times))
        out.print(kinds)
    for rule, hits in parity.known.items():
        out.print(f"  known difference {rule}: {hits} times")
    for root in parity.roots[:limit]:
        _print_root(root)
    for difference in parity.book_differences[:limit]:
        out.print(f"  book: {escape(str(difference))}")
    out.print()


def _print_dark(parity: Parity) -> None:
    out, evidence = console(), parity.evidence
    dark, by = evidence.counts.dark, evidence.dark_writers
    out.print(f"  dark: {dark} ({escape(writers.told(dark, by))})")
    if parity.writers_seen and writers.not_seen(dark, by):
        seen = "; ".join(f"{one.writer} ({one.count} times)" for one in parity.writers_seen)
        out.print(f"  seen writing to that database: {escape(seen)}")


def closing(counts: Counts) -> str:
    """
    >>> closing(Counts(seen=3, matched=2, gaps=1))
    '3 seen = 2 matched + 0 known + 0 pending + 0 differ + 0 uncomparable + 1 gaps'
    """
    parts = {
        "matched": counts.matched,
        "known": counts.known,
        "pending": counts.pending,
        "differ": counts.mismatched,
        "uncomparable": counts.uncomparable,
        "gaps": counts.gaps,
    }
    sign = "=" if counts.closes() else "is not"
    return f"{counts.seen} seen {sign} " + " + ".join(f"{n} {name}" for name, n in parts.items())


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.4%}"


def _taint(taint: str) -> str:
    return f" · [yellow]tainted: {escape(taint)}[/yellow]" if taint else ""


def _print_root(root: Root) -> None:
    out, verdict = console(), root.verdict
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(root.at_s))
    out.print(
        f"  first divergence in load {root.run}: {verdict.operation} of order {verdict.order_id} "
        f"at {at} UTC; {root.dependants} operations follow from it"
    )
    if verdict.reason:
        out.print(f"    {escape(verdict.reason)}")
    out.print(side_by_side(verdict))


def side_by_side(verdict: OperationVerdict) -> Table:
    """What differs, both sides next to each other."""
    sides = table("kind", "what differs", "monolith", "engine")
    for one in verdict.differences:
        sides.add_row(one.kind, escape(one.what), _side(one.legacy), _side(one.engine))
    return sides


def _side(value: object) -> str:
    """A list of fills takes a line for each."""
    if value is None:
        return "-"
    lines = value if isinstance(value, list) else [value]
    return "\n".join(escape(msgspec.json.encode(line).decode()) for line in lines)
