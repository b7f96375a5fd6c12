"""`railswitch legacy install|uninstall`: our part in the monolith's database."""

from __future__ import annotations

import argparse
import asyncio

from bridge import fence
from bridge.cli.common import (
    Context,
    add_config_options,
    add_execute_option,
    add_json_option,
    context,
)
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json, problem, progress
from bridge.diagnosis.asking import WRITER_ROLE
from bridge.errors import BridgeError, NotConfigured

DESCRIPTION = """\
install prints the SQL that it would run in the monolith's database: the fence (triggers on the
orders and fills tables), the publication of both tables, and the grants for the role `railswitch`.
No column is added and no row is changed; everything of ours is in the schema `railswitch`. With
--execute it runs, with a lock timeout, and gives up rather than hold up the monolith. Running it
again changes nothing. uninstall removes all of it, the replication slot too, and is refused while
the engine answers for any instrument.
"""

EXAMPLE = """\
  railswitch legacy install                # read what would be done
  railswitch legacy install --execute      # do it, as legacy.install_url
  railswitch legacy install --polling      # also what a database without logical decoding needs
  railswitch legacy uninstall --execute    # leave no trace"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("install", "uninstall"))
    parser.add_argument(
        "--polling",
        action="store_true",
        help='of install: also the triggers and the table that legacy.changes = "poll" needs',
    )
    add_execute_option(parser)
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    polling = args.polling or where.config.legacy.changes == "poll"
    script = _script(where, args.what, polling=polling)
    if args.execute:
        if not where.config.legacy.install_url:
            raise NotConfigured(
                f"legacy.install_url is not set in {where.path}: set it to a role that owns the "
                "tables, or let an administrator run what this prints without --execute"
            )
        with progress(f"{args.what}ing", quiet=args.json):
            asyncio.run(_execute(where, args.what, polling=polling))
    if args.json:
        print_json({"what": args.what, "executed": args.execute, "sql": script})
    elif args.execute:
        console().print(f"{args.what}ed. `railswitch doctor` looks at the result.")
    else:
        print(script)
        problem("nothing has been done; --execute does it")
    return Exit.DONE


def _script(where: Context, what: str, *, polling: bool) -> str:
    config = where.config
    names = (config.mapping, config.legacy.publication, WRITER_ROLE)
    if what == "uninstall":
        return fence.uninstall_sql(*names)
    if config.legacy.install_url:
        try:
            return asyncio.run(fence.plan(config.legacy.install_url, *names, polling=polling))
        except BridgeError as error:
            problem(f"{error}\nThe SQL below is for a database without the role {WRITER_ROLE}.")
    script = fence.install_sql(*names)
    return f"{script}\n{fence.polling_sql(config.mapping, WRITER_ROLE)}" if polling else script


async def _execute(where: Context, what: str, *, polling: bool) -> None:
    legacy = where.config.legacy
    names = (where.config.mapping, legacy.publication, WRITER_ROLE)
    if what == "install":
        await fence.install(legacy.install_url, *names, polling=polling)
    else:
        await fence.uninstall(legacy.install_url, *names, url=legacy.database_url, slot=legacy.slot)
