"""`railswitch init`: a first railswitch.toml from the monolith's own database and routes."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from pathlib import Path

from rich.markup import escape

from bridge.cli.common import add_json_option
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, problem, progress, table
from bridge.config import DEFAULT_FILE
from bridge.errors import ConfigError
from bridge.limits import ONBOARD_ROUTES_BYTES_MAX
from bridge.onboard import routes as routes_of
from bridge.onboard.finding import Confidence, Finding
from bridge.onboard.recognise import Recognised, recognise
from bridge.onboard.recognise_http import http_findings
from bridge.onboard.recognise_legacy import legacy_findings
from bridge.onboard.recognise_tables import Wanted
from bridge.onboard.reflect import read_database
from bridge.onboard.render import plain, render
from bridge.onboard.routes import Routes

DESCRIPTION = """\
Reads the schema of the monolith's database and a few of its rows, recognises orders, fills,
instruments and balances, and writes a railswitch.toml that says at each line how sure it is and
why. What it could not decide stands there as "DECIDE", with what was seen: no command accepts the
file until a person has decided. Never writes to the database. Exits with 1 if it recognised no
table of orders or none of fills; the file is written all the same.
"""

EXAMPLE = """\
  bin/rails routes > routes.txt
  railswitch init --database-url postgresql://railswitch@db/exchange --routes routes.txt
  railswitch init --database-url postgresql://railswitch@db/exchange --orders spot_orders --force"""

_CHOICES_SHOWN = 3


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--database-url", required=True, metavar="URL", help="of the monolith's PostgreSQL"
    )
    parser.add_argument(
        "--routes", metavar="FILE", help="what `bin/rails routes` printed, plain or --expanded"
    )
    parser.add_argument(
        "--upstream", default="", metavar="URL", help="of the monolith: http://host:port"
    )
    parser.add_argument("--orders", default="", metavar="TABLE", help="if it is not the obvious")
    parser.add_argument("--fills", default="", metavar="TABLE", help="if it is not the obvious")
    parser.add_argument(
        "--output", default=DEFAULT_FILE, metavar="FILE", help=f"default: ./{DEFAULT_FILE}"
    )
    parser.add_argument("--force", action="store_true", help="write over a file that is there")
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    output = Path(args.output)
    if output.exists() and not args.force:
        problem(f"{output} is there already; --force writes over it, --output FILE elsewhere")
        return Exit.REFUSED
    if not args.database_url.startswith(("postgresql://", "postgres://")):
        raise ConfigError("--database-url must begin with postgresql://")
    routes = _routes(args.routes)
    wanted = Wanted(orders=args.orders, fills=args.fills)
    with progress("reading the schema and some rows", quiet=args.json):
        database = read_database(args.database_url, wanted)
    for what, name in (("--orders", args.orders), ("--fills", args.fills)):
        if name and database.table(name) is None:
            raise ConfigError(f"{what} {name}: the database has no such table that is shown to us")
    recognised = recognise(database, wanted)
    findings = [
        *legacy_findings(args.database_url, args.upstream),
        *recognised.findings,
        *http_findings(routes, recognised),
    ]
    _write(output, render(recognised, findings, routes))
    if args.json:
        print_json(_document(output, recognised, findings, routes))
    else:
        _print(output, recognised, findings, routes)
    return Exit.DONE if recognised.is_exchange else Exit.FAILED


def _routes(name: str | None) -> Routes | None:
    if name is None:
        return None
    path = Path(name)
    if path.is_file() and path.stat().st_size > ONBOARD_ROUTES_BYTES_MAX:
        raise ConfigError(f"{name} is too large for a list of routes")
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ConfigError(f"--routes {name} can't be read: {error}") from error
    found = routes_of.read(text)
    if not found.lines:
        raise ConfigError(f"{name} holds no route: it should be what `bin/rails routes` prints")
    return found


def _write(output: Path, text: str) -> None:
    """Only its owner may read it: the URL of the database may have a password."""
    try:
        output.unlink(missing_ok=True)
        opened = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(opened, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise ConfigError(f"{output} can't be written: {error}") from error


def _document(
    output: Path, recognised: Recognised, findings: list[Finding], routes: Routes | None
) -> dict[str, object]:
    shown = [one for one in findings if one.key != "legacy.database_url"]
    return {
        "file": str(output),
        "parts": recognised.parts,
        "looked": recognised.looked,
        "not_readable": recognised.not_readable,
        "findings": plain(shown),
        "decisions": [one.key for one in shown if one.undecided],
        "routes": routes,
    }


def _print(
    output: Path, recognised: Recognised, findings: list[Finding], routes: Routes | None
) -> None:
    out = console()
    rows = table("recognised", "table", "confidence", "why")
    for part in recognised.parts:
        sure = "" if part.confidence is Confidence.GUESS else str(part.confidence)
        rows.add_row(part.what, escape(part.table or "-"), sure or "not decided", escape(part.why))
    out.print(rows)
    for one in recognised.looked:
        out.print(f"looked at {escape(one.told)}")
    if recognised.not_readable:
        out.print(f"this role may not read: {escape(', '.join(recognised.not_readable))}")
    if routes is not None:
        out.print(f"{len(routes.proposed)} of {routes.lines} routes are order entry")
    counts = Counter(one.confidence for one in findings)
    certain, likely = counts[Confidence.CERTAIN], counts[Confidence.LIKELY]
    decisions = [one for one in findings if one.undecided]
    out.print(f"\n{certain} keys certain, {likely} likely, {len(decisions)} to be decided:")
    for decision in decisions:
        shown = ", ".join(decision.choices[:_CHOICES_SHOWN]) or "-"
        out.print(f"  {escape(decision.key)}: {escape(shown)}")
        out.print(f"       {escape(decision.why)}")
    out.print(f"\nWrote {escape(str(output))}. Next:")
    out.print(f'  1. write what you decided in the place of each "DECIDE" of {escape(str(output))}')
    out.print(f"  2. railswitch doctor --config {escape(str(output))}")
    out.print(f"  3. railswitch mapping check --config {escape(str(output))}")
