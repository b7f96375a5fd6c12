"""`railswitch engine`: one engine process."""

from __future__ import annotations

import argparse

from bridge import app
from bridge.cli import process
from bridge.cli.exits import Exit

DESCRIPTION = """\
Runs the matching engine of one shard: its books, its journal, its gateway. It recovers from its
journal first, and says when it is ready. SIGTERM stops it after what it has taken is durable.
`railswitch up` runs it for you; run it by itself to keep it on a machine of its own.
"""

EXAMPLE = """\
  railswitch engine --config railswitch.toml
  RAILSWITCH_ENGINE=python railswitch engine --config railswitch.toml"""


def configure(parser: argparse.ArgumentParser) -> None:
    process.configure(parser)


def run(args: argparse.Namespace) -> Exit:
    return process.run(args, app.run_engine)
