"""How `railswitch journal` says what it found."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from rich.markup import escape

from bridge.cli.output import console, table, word
from engine.journal_diff import Difference, Side
from engine.journal_dump import Dumped
from engine.journal_repair import Plan
from engine.journal_verify import SnapshotFound, Verified
from engine.snapshotter import Taken

_LOST_SHOWN = 10


def print_verified(found: Verified) -> None:
    out = console()
    state = word("ok" if found.is_good else "fail")
    out.print(f"{state}  journal of shard {found.shard} in {escape(found.directory)}")
    rows = table("what", "")
    rows.show_header = False
    rows.add_row(
        "segments",
        f"{found.segments}, {found.bytes / 2**20:,.1f} MiB; "
        f"sequences {found.first_seq} to {found.last_seq}",
    )
    rules = ", ".join(f"{count} under rules {one}" for one, count in sorted(found.rules.items()))
    rows.add_row("frames", f"{found.frames} ({rules}), {found.commands} commands")
    if found.frames:
        rows.add_row("times", f"{instant(found.first_ts_ns)} to {instant(found.last_ts_ns)}")
        rows.add_row("chain", found.chain)
    if found.damage:
        rows.add_row("damage", f"{escape(found.place)}: {escape(found.damage)}")
        rows.add_row("next", f"railswitch journal repair {escape(found.directory)}")
    elif found.missing:
        rows.add_row("missing", escape(found.missing))
    else:
        rows.add_row("tail", _tail(found))
    for one in found.snapshots:
        rows.add_row("snapshot", _snapshot(one))
    if found.state_hash:
        rows.add_row("state", f"{found.state_hash} at {found.last_seq}; every invariant holds")
    if found.may_be_archived:
        rows.add_row(
            "archive",
            f"{len(found.may_be_archived)} segments may be moved away, up to "
            f"{found.may_be_archived[-1]}",
        )
    out.print(rows)


def _tail(found: Verified) -> str:
    if not found.torn_bytes:
        return "whole"
    return (
        f"{found.torn_bytes} bytes of a write that was cut short: never answered, and cut by the "
        f"next engine that starts"
    )


def _snapshot(one: SnapshotFound) -> str:
    told = f"sequence {one.seq}: "
    if one.problem:
        return told + f"{word('fail')} {escape(one.problem)}"
    replay = f"; the replay is {word(one.replay)}" if one.replay else ""
    return told + word("ok") + replay


def print_command(one: Dumped) -> None:
    """One line for the command, one more for each event."""
    print(f"{one.seq:>12}  {instant(one.at_ns)}  {_fields(one.command)}")
    for event in one.events or ():
        print(f"{'':>12}  {'':>30}  -> {_fields(event)}")


def print_difference(found: Difference) -> None:
    out = console()
    if not found.what:
        state = word("equal" if found.is_equal else "fail")
        out.print(f"{state}  sequences {found.first_seq} to {found.equal_until_seq}")
    else:
        out.print(f"{word('different')}  {escape(found.what)}")
        equal = f"sequences {found.first_seq} to {found.equal_until_seq}"
        out.print(f"  equal: {equal if found.equal_until_seq >= found.first_seq else 'nothing'}")
    for one in (found.left, found.right):
        _print_side(one)


def _print_side(one: Side) -> None:
    out = console()
    out.print(f"  {escape(one.directory)}: ends at {one.last_seq}")
    if one.frame is not None:
        out.print(f"    frame {one.frame[0]} to {one.frame[1]}")
    if one.command is not None and one.at_ns is not None:
        out.print(f"    {instant(one.at_ns)}  {escape(_fields(one.command))}")
    if one.state_hash:
        out.print(f"    state of what both have: {one.state_hash}")
    if one.damage:
        out.print(f"    {word('fail')} {escape(one.damage)}")


def print_taken(taken: Taken | None) -> None:
    if taken is None:
        console().print("there is a snapshot of everything before the last segment already")
    else:
        console().print(
            f"{escape(str(taken.path))}: {taken.commands} commands replayed in "
            f"{taken.seconds:.1f} s"
        )


def print_plan(plan: Plan, *, done: bool) -> None:
    out = console()
    if plan.is_whole:
        out.print(f"nothing to repair: whole up to sequence {plan.keeps_until_seq}")
        return
    out.print(f"damage  {escape(plan.place)}: {escape(plan.damage)}")
    if plan.refused:
        return
    verb = "kept" if done else "would be kept"
    out.print(f"{verb}: everything up to sequence {plan.keeps_until_seq}")
    if plan.taken_from_copy:
        out.print(f"  of that from {escape(plan.copy)}: {plan.taken_from_copy} commands")
    _print_loss(plan)
    for names, what in ((plan.rewrites, "written again"), (plan.moves, "moved aside")):
        if names:
            out.print(f"{what}: {', '.join(names)}")
    out.print(f"what was there before: {escape(plan.aside)}")


def _print_loss(plan: Plan) -> None:
    out = console()
    if not plan.loses:
        out.print(f"{word('ok')}  nothing is lost")
        return
    seqs = Counter(one.path for one in plan.lost)
    count = sum(one.last_seq - one.first_seq + 1 for one in plan.lost)
    out.print(
        f"{word('fail')}  lost: every command from sequence {plan.keeps_until_seq + 1} on. "
        f"They may have been answered: tell whoever relies on those answers"
    )
    if plan.lost_bytes:
        out.print(f"  {plan.lost_bytes} bytes that can't be read")
    if plan.lost:
        out.print(f"  {len(plan.lost)} whole frames with {count} commands, in {len(seqs)} files")
    for one in plan.lost[:_LOST_SHOWN]:
        out.print(
            f"    {one.path} at {one.offset}: {one.first_seq} to {one.last_seq}, "
            f"{instant(one.ts_ns)}"
        )
    if len(plan.lost) > _LOST_SHOWN:
        out.print(f"    and {len(plan.lost) - _LOST_SHOWN} more; --json lists them")


def instant(ns: int) -> str:
    """
    >>> instant(1_700_000_000_000_001_000)
    '2023-11-14T22:13:20.000001000Z'
    """
    seconds, rest = divmod(ns, 10**9)
    try:
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
    except (OverflowError, ValueError, OSError):
        return f"{ns} ns"


def _fields(values: dict[str, Any]) -> str:
    kind, *rest = values.items()
    told = " ".join(f"{name}={value}" for name, value in rest)
    return f"{kind[1]:<14} {told}".rstrip() if isinstance(kind[1], str) else f"{kind[1]} {told}"
