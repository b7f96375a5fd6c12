"""`railswitch gate`: may this instrument be flipped, and why not."""

from __future__ import annotations

import argparse

from bridge.cli.acting import gate_exit, print_gate
from bridge.cli.common import add_config_options, add_json_option, context
from bridge.cli.control_client import ControlClient
from bridge.cli.exits import Exit
from bridge.cli.output import print_json

DESCRIPTION = """\
Asks what was recorded of an instrument in shadow: orders and fills compared, mismatches, coverage,
taint, dark traffic, equality of the books, latency, lag. Every check says what it saw and what it
wanted. pass exits with 0, fail with 1, inconclusive (too little to go on) with 3. A pass with no
mismatch states the bound that it proves.
"""

EXAMPLE = """\
  railswitch gate BTC-USD
  railswitch gate BTC-USD --json && railswitch flip BTC-USD --execute"""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("symbol", help="the instrument, as the monolith writes it")
    add_config_options(parser)
    add_json_option(parser)


def run(args: argparse.Namespace) -> Exit:
    where = context(args)
    report = ControlClient(where.config.control.listen).gate(where.instrument(args.symbol))
    if args.json:
        print_json(report)
    else:
        print_gate(report.decision)
    return gate_exit(report.decision)
