"""`railswitch doctor`: what is configured, reachable, permitted, and what to do about the rest."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from rich.markup import escape

from bridge.cli.common import Context, add_config_options, add_json_option, context
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, progress, word
from bridge.diagnosis import services
from bridge.diagnosis.finding import Finding, Level
from bridge.diagnosis.legacy import legacy_findings
from bridge.diagnosis.proxy import proxy_findings

DESCRIPTION = """\
Looks at everything railswitch needs and changes nothing: the monolith's database (change stream,
privileges, tables, fence), upstream, the proxy, the control store, Redis, the engine, ports and
disk.
For each finding it says what follows from it and what to do. Exits with 1 if anything fails.
"""

EXAMPLE = """\
  railswitch doctor
  railswitch doctor --json | jq '.findings[] | select(.level != "ok")'"""


def configure(parser: argparse.ArgumentParser) -> None:
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    with progress("looking", quiet=args.json):
        found = list(_findings(where))
    failed = sum(one.level is Level.FAIL for one in found)
    if args.json:
        print_json({"config": str(where.path), "failed": failed, "findings": found})
    else:
        _print(where, found)
    return Exit.FAILED if failed else Exit.DONE


def _findings(where: Context) -> Iterator[Finding]:
    config = where.config
    yield from legacy_findings(config)
    yield from services.upstream_findings(config)
    yield from proxy_findings(config, where.directory.path)
    yield from services.store_findings(config.control.database_url)
    yield from services.redis_findings(config.redis.url)
    yield from services.engine_findings(config)
    yield from services.port_findings(config, where.directory)
    yield from services.disk_findings(where.directory)


def _print(where: Context, found: list[Finding]) -> None:
    out = console()
    out.print(f"configuration: {where.path}")
    area = ""
    for one in found:
        if one.area != area:
            area = one.area
            out.print(f"\n[bold]{area}[/bold]")
        out.print(f"  {word(one.level, 4)} {one.check}: {escape(one.seen)}")
        if one.level is not Level.OK:
            out.print(f"       so:   {escape(one.consequence)}")
            out.print(f"       next: {escape(one.next_step)}")
    counts = [f"{sum(one.level is level for one in found)} {level}" for level in Level]
    out.print(f"\n{', '.join(counts)}")
