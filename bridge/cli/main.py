"""`railswitch`: finds the verb, runs it, turns what goes wrong into a sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
import traceback
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

from bridge.cli import exits
from bridge.cli.exits import Exit
from bridge.cli.output import problem

# Verb -> what it does, in the order of the help. Its module, bridge.cli.<verb>, is imported when it
# is asked for, and gives DESCRIPTION, EXAMPLE, configure(parser) and run(args) -> Exit.
VERBS = {
    "init": "write a first railswitch.toml from the monolith's database and routes",
    "up": "start and watch everything on this machine",
    "status": "what runs, and who answers for each instrument",
    "doctor": "what is configured, reachable and permitted, and what to do about the rest",
    "config": "check the configuration file; its schema for editors",
    "mapping": "does the mapping make sense of what the monolith has written",
    "stage": "put an instrument into shadow, or take it out again",
    "parity": "how the engine's results compare with the monolith's",
    "gate": "may this instrument be flipped, and why not",
    "flip": "let the engine answer for an instrument",
    "rollback": "let the monolith answer for it again",
    "limits": "what instruments and accounts may do in the engine: bands, halts, kill switch",
    "legacy": "install or remove the fence in the monolith's database",
    "sandbox": "run a small exchange with Rails' manners to try everything on",
    "demo": "the whole story on this machine, in a few minutes",
    "bench": "measure the parts on this machine",
    "market": "an instrument's best prices, depth and last trades",
    "journal": "is an engine's journal whole, what is in it, what can be mended",
    "engine": "run one engine process",
    "control": "run the control process",
    "shadow": "run the shadow process",
    "proxy": "run the proxy",
}

_EPILOG = """\
Nothing is changed without --execute: flip, rollback, stage, limits, legacy and journal repair print
what they would do.

start here:
  railswitch demo            see all of it happen
  railswitch doctor          check your own set-up
  railswitch VERB --help     what a verb does, with an example

"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        problem(f"{message}\nSee `{self.prog} --help`.")
        raise SystemExit(Exit.USAGE)


def main(argv: Sequence[str] | None = None) -> int:
    """Never raises, never shows a traceback for an operating fault; returns the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        args = parser(words).parse_args(words)
        return int(args.run(args))
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else Exit.DONE
    except BrokenPipeError:
        sys.stderr.close()  # whoever read our output has gone; there is nobody left to tell
        return Exit.DONE
    except BaseException as error:
        return _failed(error, debug=debug)


def parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """With all verbs listed; only the one that `words` asks for is imported and configured."""
    top = _Parser(
        prog="railswitch",
        description="Moves a Rails exchange to a fast matching engine, one instrument at a time.",
        epilog=_EPILOG + exits.HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    verbs = top.add_subparsers(metavar="VERB", required=True, parser_class=_Parser)
    wanted = next((word for word in words if not word.startswith("-")), "")
    for name, summary in VERBS.items():
        if name == wanted:
            _add(verbs, name, summary)
        else:
            verbs.add_parser(name, help=summary, add_help=False)
    return top


def verb_module(name: str) -> ModuleType:
    return importlib.import_module(f"bridge.cli.{name}")


def _add(verbs: argparse._SubParsersAction[_Parser], name: str, summary: str) -> None:
    module = verb_module(name)
    sub = verbs.add_parser(
        name,
        help=summary,
        description=module.DESCRIPTION,
        epilog=f"example:\n{module.EXAMPLE}\n\n{exits.HELP}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    sub.add_argument("--debug", action="store_true", help="show the trace of a failure")
    sub.set_defaults(run=module.run)
    module.configure(sub)


def _failed(error: BaseException, *, debug: bool) -> Exit:
    code = exits.exit_code(error)
    if debug:
        traceback.print_exception(error)
    if code is Exit.INTERRUPTED:
        problem("interrupted")
    elif code is Exit.DEFECT:
        problem(
            f"{type(error).__name__}: {error}\nThis is a defect in railswitch; "
            "the same command with --debug shows where."
        )
    else:
        problem(str(error))
    return code


if __name__ == "__main__":
    sys.exit(main())
