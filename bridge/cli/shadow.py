"""`railswitch shadow`: the process that follows the monolith and compares."""

from __future__ import annotations

import argparse

from bridge import app
from bridge.cli import process
from bridge.cli.exits import Exit

DESCRIPTION = """\
Runs the shadow process: reads the monolith's changes in commit order, joins them with what the
proxies captured, feeds the engine, and compares the results. It makes its replication slot when it
first starts, and goes on from its watermark after every other start. The monolith is only read.
"""

EXAMPLE = """\
  railswitch shadow --config railswitch.toml"""


def configure(parser: argparse.ArgumentParser) -> None:
    process.configure(parser)


def run(args: argparse.Namespace) -> Exit:
    return process.run(args, app.run_shadow)
