"""Where two journals part: what `railswitch journal diff` says. Reads only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from engine.errors import JournalDamaged
from engine.journal_dump import described_command
from engine.journal_walk import Walk
from engine.limits import COMMAND_STEP_NS
from engine.market import Market, state_hash
from engine.replay import Frame
from engine.snapshot_file import best_state
from engine.wire import COMMAND_BYTES


class Side(msgspec.Struct, kw_only=True):
    directory: str
    last_seq: int = 0  # of its last whole frame
    damage: str = ""  # why it can't be read further
    at_ns: int | None = None  # of the first command that differs
    command: dict[str, Any] | None = None  # the first that differs; None: it has ended before
    frame: list[int] | None = None  # the sequence numbers [first, last] of the frame it is in
    state_hash: str = ""  # of all that both have; with a replay


class Difference(msgspec.Struct, kw_only=True):
    left: Side
    right: Side
    first_seq: int  # where the comparison began
    equal_until_seq: int  # all commands up to this one are in both, in the same frames
    what: str = ""  # how they differ; "" if they don't

    @property
    def is_equal(self) -> bool:
        return not (self.what or self.left.damage or self.right.damage)


def diff(left: Path, right: Path, *, implementation: str = "") -> Difference:
    """Compares from the first sequence on that both have. With an implementation, the state that
    each comes to at the last frame that is in both.

    Raises JournalDamaged where one is no journal, or has nothing in common with the other.
    """
    first_seq = max(Walk(left).begin_seq, Walk(right).begin_seq)
    sides = [_Side(each, first_seq, implementation) for each in (left, right)]
    found = Difference(
        left=sides[0].told, right=sides[1].told, first_seq=first_seq, equal_until_seq=first_seq - 1
    )
    while True:
        one, other = (next(each.frames, None) for each in sides)
        if one is None or other is None or one != other:
            break
        found.equal_until_seq = one.last_seq
        for each in sides:
            each.apply(one)
    found.what = _how(found, one, other)
    for each, frame in zip(sides, (one, other), strict=True):
        each.finish(frame)
    return found


class _Side:
    def __init__(self, directory: Path, first_seq: int, implementation: str) -> None:
        self.told = Side(directory=str(directory))
        self._walk = Walk(directory, from_seq=first_seq)
        if self._walk.begin_seq != first_seq:
            raise JournalDamaged(
                f"{directory} has no segment that begins at sequence {first_seq}, where the other "
                f"journal begins: they can't be compared"
            )
        self.frames: Iterator[Frame] = self._walk.frames()
        self._market: Market | None = None
        if implementation:
            state = best_state(
                directory,
                shard=self._walk.shard,
                implementation=implementation,
                until_seq=first_seq - 1,
            )
            if state.link.next_seq != first_seq:
                raise JournalDamaged(
                    f"{directory} has no usable snapshot at sequence {first_seq}, so that there "
                    f"is no state to replay from: compare without --replay"
                )
            self._market = state.market

    def apply(self, frame: Frame) -> None:
        if self._market is not None:
            self._market.apply(frame.commands, frame.ts_ns, rules=frame.rules)

    def finish(self, frame: Frame | None) -> None:
        if self._market is not None:
            self.told.state_hash = state_hash(self._market)
        if frame is not None:
            for _ in self.frames:
                pass
        end = self._walk.end
        assert end is not None
        self.told.last_seq = end.next_seq - 1
        if end.damage:
            self.told.damage = f"{end.place}: {end.damage}"


def _how(found: Difference, one: Frame | None, other: Frame | None) -> str:
    if one is None and other is None:
        return ""
    if one is None or other is None:
        found.left.frame, found.right.frame = _range(one), _range(other)
        longer, frame = (found.left, one) if one else (found.right, other)
        assert frame is not None
        _describe(longer, frame, 0)
        shorter = found.right if one else found.left
        return f"{shorter.directory} ends after sequence {found.equal_until_seq}"
    found.left.frame, found.right.frame = _range(one), _range(other)
    index = _first_difference(one, other)
    if index is None:
        return f"the same commands from sequence {one.first_seq} on stand in different frames"
    _describe(found.left, one, index)
    _describe(found.right, other, index)
    return f"sequence {one.first_seq + index} differs"


def _first_difference(one: Frame, other: Frame) -> int | None:
    """The first command in both whose bytes, time or rules are not the same."""
    if (one.ts_ns, one.rules) != (other.ts_ns, other.rules):
        return 0
    for index in range(min(one.length, other.length)):
        at = slice(index * COMMAND_BYTES, (index + 1) * COMMAND_BYTES)
        if one.commands[at] != other.commands[at]:
            return index
    return None


def _describe(side: Side, frame: Frame, index: int) -> None:
    at = slice(index * COMMAND_BYTES, (index + 1) * COMMAND_BYTES)
    side.command = described_command(frame.commands[at])
    side.at_ns = frame.ts_ns + index * COMMAND_STEP_NS


def _range(frame: Frame | None) -> list[int] | None:
    return None if frame is None else [frame.first_seq, frame.last_seq]
