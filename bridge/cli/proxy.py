"""`railswitch proxy`: the processes that clients talk to."""

from __future__ import annotations

import argparse

from bridge import app
from bridge.cli import process
from bridge.cli.exits import Exit

DESCRIPTION = """\
Runs the proxy in front of the monolith, with proxy.workers processes on one port. Every request
goes to the monolith and its answer back, untouched, until an instrument is flipped. It needs the
control store at its start, to know who answers for what; afterwards it goes on without it. SIGTERM
stops it after the requests that it has begun.
"""

EXAMPLE = """\
  railswitch proxy --config railswitch.toml"""


def configure(parser: argparse.ArgumentParser) -> None:
    process.configure(parser)


def run(args: argparse.Namespace) -> Exit:
    return process.run(args, app.run_proxy)
