"""`railswitch journal`: is an engine's journal whole, what is in it, and what can be mended."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from bridge.cli import journal_text as text
from bridge.cli.common import add_execute_option, add_json_option
from bridge.cli.exits import Exit
from bridge.cli.output import print_json, print_json_line, problem, progress
from bridge.errors import ConfigError
from bridge.implementation import chosen_implementation
from engine.journal_diff import diff
from engine.journal_dump import Wanted, dump
from engine.journal_repair import plan_repair, repair
from engine.journal_verify import verify
from engine.journal_walk import Walk
from engine.market import IMPLEMENTATIONS
from engine.snapshotter import take_snapshot
from engine.types import CommandKind

DESCRIPTION = """\
Looks into an engine's journal directory. verify: segments, checksums, the chain of frames, the
snapshots; with --replay also states and invariants. dump: commands, with --events what became of
them. diff: where two journals part. snapshot: makes one at the beginning of the last segment. These
change nothing of the journal, and work while an engine writes to it. repair: says what could be
made of a damaged journal, and with --execute does it; it needs the engine stopped, and moves aside
what it replaces.
"""

EXAMPLE = """\
  railswitch journal verify railswitch-data/engine --replay
  railswitch journal dump railswitch-data/engine --from 1000 --to 1020 --events
  railswitch journal dump railswitch-data/engine --order 4711 --events --json
  railswitch journal diff railswitch-data/engine /backup/engine
  railswitch journal repair railswitch-data/engine --from /backup/engine --execute"""

_FILTERS = ("session", "instrument", "account", "order", "ref")


def configure(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(metavar="WHAT", required=True)
    one = _add(verbs, "verify", _verify, "is it whole, and are its snapshots")
    _add_replay(one, "apply every command too: compares states, checks invariants")
    one = _add(verbs, "dump", _dump, "its commands, and what became of them")
    one.add_argument("--from", dest="first", type=int, default=1, metavar="SEQ", help="from (1)")
    one.add_argument("--to", dest="last", type=int, metavar="SEQ", help="up to (the end)")
    one.add_argument("--events", action="store_true", help="with their events, computed again")
    one.add_argument("--kind", help="only commands of this kind, such as NEW or CANCEL")
    for name in _FILTERS:
        one.add_argument(f"--{name}", type=int, metavar="N", help=f"only with this {name} number")
    _add_implementation(one)
    one = _add(verbs, "diff", _diff, "where two journals part")
    one.add_argument("other", type=Path, metavar="OTHER", help="another journal directory")
    _add_replay(one, "apply what both have, and show the state that it makes")
    one = _add(verbs, "snapshot", _snapshot, "make one now")
    _add_implementation(one)
    one = _add(verbs, "repair", _repair, "what can be made of a damaged one")
    one.add_argument(
        "--from",
        dest="copy",
        type=Path,
        metavar="COPY",
        help="a copy of the directory, or a backup",
    )
    add_execute_option(one)


def run(args: argparse.Namespace) -> Exit:
    result: Exit = args.act(args)
    return result


def _add(
    verbs: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    act: Callable[[argparse.Namespace], Exit],
    summary: str,
) -> argparse.ArgumentParser:
    one = verbs.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
    one.add_argument("directory", type=Path, metavar="DIRECTORY", help="the journal directory")
    one.add_argument("--debug", action="store_true", help="show the trace of a failure")
    one.set_defaults(act=act)
    add_json_option(one)
    return one


def _add_replay(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("--replay", action="store_true", help=what)
    _add_implementation(parser)


def _add_implementation(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--implementation",
        choices=IMPLEMENTATIONS,
        default="",
        help="what commands are applied with (default: $RAILSWITCH_ENGINE, else the Rust core)",
    )


def _implementation(args: argparse.Namespace) -> str:
    return chosen_implementation(args.implementation, os.environ)[0]


def _verify(args: argparse.Namespace) -> Exit:
    with progress("reading the journal", quiet=args.json):
        found = verify(args.directory, implementation=_implementation(args) if args.replay else "")
    if args.json:
        print_json(found)
    else:
        text.print_verified(found)
    return Exit.DONE if found.is_good else Exit.FAILED


def _dump(args: argparse.Namespace) -> Exit:
    wanted = Wanted(
        from_seq=args.first,
        to_seq=args.last,
        kind=_kind(args.kind) if args.kind else None,
        session=args.session,
        instrument=args.instrument,
        account=args.account,
        order_id=args.order,
        ref=args.ref,
    )
    implementation = _implementation(args) if args.events else ""
    show = print_json_line if args.json else text.print_command
    for one in dump(args.directory, wanted, implementation=implementation):
        show(one)
    return Exit.DONE


def _kind(name: str) -> int:
    try:
        return CommandKind[name.upper()]
    except KeyError:
        if name.isdecimal():
            return int(name)
        kinds = ", ".join(kind.name for kind in CommandKind)
        raise ConfigError(f"there is no kind of command {name!r}: choose one of {kinds}") from None


def _diff(args: argparse.Namespace) -> Exit:
    implementation = _implementation(args) if args.replay else ""
    with progress("reading both journals", quiet=args.json):
        found = diff(args.directory, args.other, implementation=implementation)
    if args.json:
        print_json(found)
    else:
        text.print_difference(found)
    return Exit.DONE if found.is_equal else Exit.FAILED


def _snapshot(args: argparse.Namespace) -> Exit:
    shard = Walk(args.directory).shard
    with progress("replaying", quiet=args.json):
        taken = take_snapshot(args.directory, shard=shard, implementation=_implementation(args))
    if args.json:
        print_json(taken._asdict() | {"path": str(taken.path)} if taken else {"path": None})
    else:
        text.print_taken(taken)
    return Exit.DONE


def _repair(args: argparse.Namespace) -> Exit:
    with progress("reading every frame", quiet=args.json):
        act = repair if args.execute else plan_repair
        plan = act(args.directory, copy=args.copy)
    done = args.execute and not (plan.is_whole or plan.refused)
    if args.json:
        print_json({"executed": done, "plan": plan})
    else:
        text.print_plan(plan, done=done)
    if plan.refused:
        problem(plan.refused)
        return Exit.REFUSED
    if not (plan.is_whole or args.execute or args.json):
        problem("nothing has been done; --execute does it")
    return Exit.DONE
