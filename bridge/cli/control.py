"""`railswitch control`: the process that changes stages."""

from __future__ import annotations

import argparse

from bridge import app
from bridge.cli import process
from bridge.cli.exits import Exit

DESCRIPTION = """\
Runs the control process: the API behind stage, gate, flip and rollback, write-back, and the watch
that takes a live instrument back when its limits are broken. Several may run: one leads, the others
stand by. A half-done flip that it finds at its start is finished, or taken back.
"""

EXAMPLE = """\
  railswitch control --config railswitch.toml"""


def configure(parser: argparse.ArgumentParser) -> None:
    process.configure(parser)


def run(args: argparse.Namespace) -> Exit:
    return process.run(args, app.run_control)
