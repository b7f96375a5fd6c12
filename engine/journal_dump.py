"""Commands and events of a journal as people and programs read them: `railswitch journal dump`."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from engine.errors import JournalDamaged
from engine.journal_walk import Walk
from engine.limits import COMMAND_STEP_NS
from engine.market import Market
from engine.outcomes import command_ends, events_of
from engine.reject import Reason
from engine.replay import Frame
from engine.snapshot_file import best_state
from engine.types import CommandKind, EventKind
from engine.wire import COMMAND_BYTES, COMMAND_DTYPE, EVENT_DTYPE

_KIND_NAMES = {int(kind): kind.name for kind in CommandKind}
_EVENT_NAMES = {int(kind): kind.name for kind in EventKind}
_REASON_NAMES = {int(reason): reason.name for reason in Reason}
# Their events name a second order in `contra_id`.
_WITH_ANOTHER_ORDER = (EventKind.FILL, EventKind.PREVENTED, EventKind.REPLACED)
_TEXT = struct.Struct("<QQqQ")
_TEXT_FIELDS = ("account", "order_id", "price_ticks", "qty_lots")


class Wanted(NamedTuple):
    """Which commands; None: all."""

    from_seq: int = 1
    to_seq: int | None = None
    kind: int | None = None
    session: int | None = None
    instrument: int | None = None
    account: int | None = None
    order_id: int | None = None  # with events: also commands that it was touched by
    ref: int | None = None


class Dumped(msgspec.Struct, frozen=True, kw_only=True):
    seq: int
    at_ns: int
    rules: int
    command: dict[str, Any]  # what is not zero, `kind` by its name
    events: list[dict[str, Any]] | None = None  # None: not asked for


def dump(directory: Path, wanted: Wanted, *, implementation: str = "") -> Iterator[Dumped]:
    """With an implementation also the events, computed again.

    Raises JournalDamaged after the last readable frame if what follows is damaged, or where the
    events can't be computed because segments have been moved away.
    """
    from_seq = max(1, wanted.from_seq)
    market: Market | None = None
    if implementation:
        walk, market = _replaying(directory, from_seq, implementation)
    else:
        walk = Walk(directory, from_seq=from_seq)
    for frame in walk.frames():
        events = market.apply(frame.commands, frame.ts_ns, rules=frame.rules) if market else None
        if wanted.to_seq is not None and frame.first_seq > wanted.to_seq:
            return
        if frame.last_seq >= from_seq:
            yield from _of_frame(frame, wanted, events)
        if frame.last_seq == wanted.to_seq:
            return
    if walk.end is not None and walk.end.damage:
        raise JournalDamaged(f"the journal can't be read further: {walk.end.place}: {_why(walk)}")


def _replaying(directory: Path, from_seq: int, implementation: str) -> tuple[Walk, Market]:
    shard = Walk(directory).shard
    state = best_state(
        directory, shard=shard, implementation=implementation, until_seq=from_seq - 1
    )
    walk = Walk(directory, from_seq=state.link.next_seq)
    if walk.begin_seq != state.link.next_seq:
        raise JournalDamaged(
            f"{directory} begins with {walk.segments[0].name} and has no usable snapshot before "
            f"sequence {from_seq}: there is no state from which events could be computed. Ask for "
            f"later ones, or put the segments before it back"
        )
    return walk, state.market


def _why(walk: Walk) -> str:
    return walk.end.damage if walk.end else ""


def _of_frame(frame: Frame, wanted: Wanted, events: bytes | None) -> Iterator[Dumped]:
    rows = np.frombuffer(frame.commands, COMMAND_DTYPE)
    ends = None if events is None else command_ends(events, frame.length)
    for index in np.flatnonzero(_matches(rows, frame, wanted, events)).tolist():
        told = None
        if events is not None and ends is not None:
            told = described_events(events_of(events, ends, index, 1))
        yield Dumped(
            seq=frame.first_seq + index,
            at_ns=frame.ts_ns + index * COMMAND_STEP_NS,
            rules=frame.rules,
            command=described_command(
                frame.commands[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
            ),
            events=told,
        )


def _matches(rows: Any, frame: Frame, wanted: Wanted, events: bytes | None) -> Any:
    seqs = frame.first_seq + np.arange(frame.length)
    matches = seqs >= wanted.from_seq
    if wanted.to_seq is not None:
        matches &= seqs <= wanted.to_seq
    for name in ("kind", "session", "instrument", "account", "ref"):
        value = getattr(wanted, name)
        if value is not None:
            matches &= rows[name] == value
    if wanted.order_id is not None:
        concerned = rows["order_id"] == wanted.order_id
        if events is not None:
            concerned |= np.isin(seqs, _touching(events, wanted.order_id))
        matches &= concerned
    return matches


def _touching(events: bytes, order_id: int) -> Any:
    """Commands that some event of names the order."""
    told = np.frombuffer(events, EVENT_DTYPE)
    with_other = np.isin(told["kind"], _WITH_ANOTHER_ORDER)
    touched = (told["order_id"] == order_id) | (with_other & (told["contra_id"] == order_id))
    return told["seq"][touched]


def described_command(command: bytes) -> dict[str, Any]:
    """
    >>> from engine.wire import encode_command, session_command
    >>> described_command(encode_command(session_command(session=3, name="proxy-0", role=1)))
    {'kind': 'SESSION', 'session': 3, 'aux': 1, 'name': 'proxy-0'}
    """
    fields = _not_zero(np.frombuffer(command, COMMAND_DTYPE)[0], COMMAND_DTYPE)
    kind = fields.get("kind", 0)
    fields["kind"] = _KIND_NAMES.get(kind, kind)
    if kind in (CommandKind.SESSION, CommandKind.INSTRUMENT):
        used = _TEXT_FIELDS if kind == CommandKind.SESSION else _TEXT_FIELDS[:2]
        packed = _TEXT.pack(*(fields.pop(n, 0) if n in used else 0 for n in _TEXT_FIELDS))
        fields["name"] = packed.rstrip(b"\0").decode(errors="replace")
    return {"kind": fields.pop("kind"), **fields}


def described_events(events: bytes) -> list[dict[str, Any]]:
    told = []
    for row in np.frombuffer(events, EVENT_DTYPE):
        fields = _not_zero(row, EVENT_DTYPE)
        for name in ("seq", "sub", "ref", "flags"):
            fields.pop(name, None)
        kind = fields.pop("kind")
        if "reason" in fields:
            fields["reason"] = _REASON_NAMES.get(fields["reason"], fields["reason"])
        told.append({"kind": _EVENT_NAMES.get(kind, kind), **fields})
    return told


def _not_zero(row: Any, layout: np.dtype[Any]) -> dict[str, Any]:
    values = zip(layout.names or (), row.item(), strict=True)
    return {name: value for name, value in values if value and name != "pad"}
