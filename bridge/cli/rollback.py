"""`railswitch rollback`: let the monolith answer for an instrument again."""

from __future__ import annotations

import argparse

from bridge.cli import acting
from bridge.cli.exits import Exit
from bridge.control.messages import ActRequest

DESCRIPTION = """\
Prints what it would do. With --execute it takes a live instrument back: new orders are held, the
engine is frozen, everything that it traded is written to the monolith's database, both books are
compared, and the monolith answers again, with every order and fill. It needs no gate.
"""

EXAMPLE = """\
  railswitch rollback BTC-USD             # the plan; changes nothing
  railswitch rollback BTC-USD --execute"""


def configure(parser: argparse.ArgumentParser) -> None:
    acting.configure(parser)


def run(args: argparse.Namespace) -> Exit:
    body = ActRequest(actor=args.actor, reason=args.reason, execute=args.execute)
    return acting.run(args, "rollback", body)
