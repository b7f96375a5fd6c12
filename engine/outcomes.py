"""What a session's commands came to, so that a reference sent again gets its original outcome.

Held for each session for as long as its bound allows, and rebuilt by replaying the journal. Whole
batches go in and come out; no order is looked at by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.limits import OUTCOME_BYTES_MAX
from engine.reject import Reason
from engine.ring import Ring
from engine.types import GATEWAY_KINDS, CommandKind, EventFlag, EventKind
from engine.wire import COMMAND_BYTES, COMMAND_DTYPE, EVENT_BYTES, EVENT_DTYPE

Rows = npt.NDArray[Any]

_IS_GATEWAY_KIND = np.zeros(256, bool)
_IS_GATEWAY_KIND[sorted(GATEWAY_KINDS)] = True


class Outcome(NamedTuple):
    """Events of one session's commands out of one journal frame."""

    first_seq: int  # of the frame; 0: never journalled
    ts_ns: int  # of the frame
    events: bytes


class Outcomes:
    """Of one session."""

    def __init__(
        self, *, last_ref: int = 0, expired_ref: int = 0, bytes_max: int = OUTCOME_BYTES_MAX
    ) -> None:
        """`expired_ref`: outcomes of references up to this one were given, and are held no more."""
        self.last_ref = last_ref  # the highest reference that has been sequenced
        self._ring = Ring[Outcome](bytes_max=bytes_max, evicted_through=expired_ref)

    def add(self, first_ref: int, last_ref: int, outcome: Outcome) -> None:
        self.last_ref = last_ref
        self._ring.append(first_ref, last_ref, outcome, size=len(outcome.events))

    def again(self, commands: Rows) -> Iterator[Outcome]:
        """The original outcomes of commands whose references are not above `last_ref`, each
        once. A reference that is too old, was skipped, or was first used for another order, is
        answered by a reject that is not journalled.
        """
        commands = commands[np.unique(commands["ref"], return_index=True)[1]]
        refs = commands["ref"]
        found: list[Rows] = []
        for outcome in self._held_of(refs):
            events = np.frombuffer(outcome.events, EVENT_DTYPE)
            wanted = _of_the_same(commands, events[np.isin(events["ref"], refs)])
            if len(wanted):
                found.append(wanted["ref"])
                yield outcome._replace(events=wanted.tobytes())
        known = np.concatenate(found) if found else np.empty(0, np.uint64)
        lost = commands[~np.isin(commands["ref"], known)]
        if len(lost):
            yield Outcome(0, 0, self._rejects(lost).tobytes())

    def _held_of(self, refs: Rows) -> Iterator[Outcome]:
        """Each once, with what lies between two that are asked for left alone: that may be much."""
        before: Outcome | None = None
        for ref in refs.tolist():
            outcome = self._ring.at(ref)
            if outcome is not None and outcome is not before:
                yield outcome
                before = outcome

    def _rejects(self, commands: Rows) -> Rows:
        events = np.zeros(len(commands), EVENT_DTYPE)
        for name in ("side", "ord_type", "tif", "instrument", "ref", "order_id"):
            events[name] = commands[name]
        for name in ("price_ticks", "qty_lots"):
            events[name] = commands[name]
        events["kind"] = EventKind.REJECTED
        events["contra_id"] = commands["account"]
        events["flags"] = EventFlag.LAST
        events["reason"] = np.where(
            commands["ref"] <= self._ring.evicted_through,
            Reason.OUTCOME_EXPIRED,
            Reason.REF_NOT_INCREASING,
        )
        return events


def _of_the_same(commands: Rows, events: Rows) -> Rows:
    """Without what another order was told: two clients that take turns at one session name may use
    a reference twice, and neither may read the other's fills. `commands` ascend by reference.
    """
    refs, firsts = np.unique(events["ref"], return_index=True)
    asked, told = commands[np.searchsorted(commands["ref"], refs)], events[firsts]
    # A replaced order is told under its new id.
    told_id = np.where(told["kind"] == EventKind.REPLACED, told["contra_id"], told["order_id"])
    same = (told["instrument"] == asked["instrument"]) & (told_id == asked["order_id"])
    is_of_one_order = asked["kind"] <= CommandKind.REPLACE
    return events[np.isin(events["ref"], refs[same | ~is_of_one_order])]


def command_ends(events: bytes, count: int) -> npt.NDArray[np.intp]:
    """Where each of `count` commands' events end, counted in events."""
    flags = np.frombuffer(events, EVENT_DTYPE)["flags"]
    ends = np.flatnonzero(flags & EventFlag.LAST) + 1
    if len(ends) != count or (count and ends[-1] * EVENT_BYTES != len(events)):
        raise ValueError(f"{count} commands, but events that end {len(ends)} commands")
    return ends


def events_of(events: bytes, ends: npt.NDArray[np.intp], start: int, count: int) -> bytes:
    """The events of the commands [start, start + count)."""
    first = int(ends[start - 1]) if start else 0
    return events[first * EVENT_BYTES : int(ends[start + count - 1]) * EVENT_BYTES]


def sessions_of(commands: bytes) -> npt.NDArray[np.uint16]:
    """Of each command; 0 for the gateway's own."""
    rows = np.frombuffer(commands, COMMAND_DTYPE)
    return np.where(_IS_GATEWAY_KIND[rows["kind"]], np.uint16(0), rows["session"])


def runs(commands: bytes) -> Iterator[tuple[int, int, int]]:
    """(session, start, count) of consecutive commands of one session, without the gateway's own."""
    sessions = sessions_of(commands)
    starts = np.concatenate(([0], np.flatnonzero(np.diff(sessions)) + 1))
    counts = np.diff(np.concatenate((starts, [len(commands) // COMMAND_BYTES])))
    for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
        if sessions[start]:
            yield int(sessions[start]), start, count
