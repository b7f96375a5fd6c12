"""`railswitch flip`: let the engine answer for an instrument."""

from __future__ import annotations

import argparse

from bridge.cli import acting
from bridge.cli.exits import Exit
from bridge.control.messages import ActRequest

DESCRIPTION = """\
Prints the gate, what was looked at beforehand, and the plan. With --execute it flips: new orders of
the instrument are held for a moment, the monolith's database is fenced, the shadow catches up, both
books are compared, and only then the engine answers. Until the commit every failure leads back to
the monolith by itself, and clients saw a slow request at most. It needs a gate that passes: there
is no way around it. --drill rehearses: flip, trade for some seconds, roll back.
"""

EXAMPLE = """\
  railswitch flip BTC-USD                       # the gate and the plan; changes nothing
  railswitch flip BTC-USD --execute --drill 5   # rehearse it: 5 seconds live, then back
  railswitch flip BTC-USD --execute --reason "CHG-1042" """.rstrip()


def configure(parser: argparse.ArgumentParser) -> None:
    acting.configure(parser)
    parser.add_argument(
        "--drill",
        type=float,
        nargs="?",
        const=5.0,
        default=0.0,
        metavar="SECONDS",
        help="roll back after so long (5 when no number is given)",
    )


def run(args: argparse.Namespace) -> Exit:
    body = ActRequest(
        actor=args.actor, reason=args.reason, execute=args.execute, drill_s=args.drill
    )
    return acting.run(args, "flip", body)
