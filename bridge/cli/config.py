"""`railswitch config schema|check`: the configuration file itself, without anything behind it."""

from __future__ import annotations

import argparse
from pathlib import Path

from bridge import adapting, config, config_schema
from bridge.cli.exits import Exit
from bridge.cli.output import console, print_json

DESCRIPTION = """\
check reads a configuration file as every other verb would, and says what is wrong with it, each
with its line; it asks no database (`railswitch doctor` does). schema prints a JSON Schema of the
file, with which an editor completes its keys and shows what each one means.
"""

EXAMPLE = """\
  railswitch config check                             # the file that other verbs would take
  railswitch config check staging.toml
  railswitch config schema > railswitch.schema.json   # then, as the first line of the file:
                                                      #:schema ./railswitch.schema.json"""

_PAGE = Path(__file__).parents[2] / "docs/reference/config.md"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("check", "schema"))
    parser.add_argument(
        "file",
        nargs="?",
        metavar="FILE",
        help="to check (default: $RAILSWITCH_CONFIG, else ./railswitch.toml)",
    )


def run(args: argparse.Namespace) -> Exit:
    if args.what == "schema":
        print_json(schema())
        return Exit.DONE
    path = config.find(args.file)
    read = config.load(path)
    adapting.adapted(read.mapping.adapter)
    console().print(f"{path}: ok, {len(read.instruments)} instruments", soft_wrap=True)
    return Exit.DONE


def schema() -> config_schema.Schema:
    """Without descriptions where the documents are not installed beside the code."""
    page = _PAGE.read_text(encoding="utf-8") if _PAGE.is_file() else ""
    return config_schema.schema(page)
