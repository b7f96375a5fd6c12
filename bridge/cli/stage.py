"""`railswitch stage`: put an instrument into shadow, or take it out again."""

from __future__ import annotations

import argparse

from bridge.cli import acting
from bridge.cli.exits import Exit
from bridge.control.messages import StageRequest
from bridge.stage import Stage

DESCRIPTION = """\
shadow: the engine follows the instrument's orders from now on and is compared; it starts from the
monolith's open orders, on a running market, and clients notice nothing. off: it no longer follows,
and what was compared so far does not count any more. The monolith answers in both. To let the
engine answer, see `railswitch flip`; to take it back, `railswitch rollback`.
"""

EXAMPLE = """\
  railswitch stage BTC-USD shadow             # what would be done
  railswitch stage BTC-USD shadow --execute
  railswitch stage BTC-USD off --execute"""


def configure(parser: argparse.ArgumentParser) -> None:
    acting.configure(parser)
    parser.add_argument("stage", choices=("shadow", "off"))


def run(args: argparse.Namespace) -> Exit:
    body = StageRequest(
        actor=args.actor, stage=Stage(args.stage), reason=args.reason, execute=args.execute
    )
    return acting.run(args, "stage", body)
