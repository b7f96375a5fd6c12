"""Is a journal whole, and are its snapshots? What `railswitch journal verify` says.

Reads only; an engine may be writing.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from engine.errors import JournalDamaged, SnapshotUnreadable
from engine.held import Held
from engine.journal_walk import Walk
from engine.market import Market, create_market, state_hash
from engine.replay import Frame
from engine.snapshot_file import (
    Snapshot,
    check_belongs,
    next_seq_of,
    read_snapshot,
    refuse_if_ahead,
    restored_market,
    snapshot_paths,
)


class SnapshotFound(msgspec.Struct, kw_only=True):
    path: str
    seq: int  # of the last command in it
    problem: str = ""  # why it can't be used
    # what a replay of the journal up to it came to: "equal" or "different"; "" without a replay
    replay: str = ""


class Verified(msgspec.Struct, kw_only=True):
    directory: str
    shard: int
    segments: int
    bytes: int  # of all segments, as they are on the disk
    first_seq: int
    last_seq: int  # of the last whole frame; 0: none
    first_ts_ns: int = 0
    last_ts_ns: int = 0  # of the last frame
    frames: int = 0
    commands: int = 0
    rules: dict[int, int] = msgspec.field(default_factory=dict)  # frames written under each
    chain: str = ""  # hash of the last frame: equal for equal journals
    torn_bytes: int = 0  # of a write cut short: an engine that starts cuts them
    place: str = ""  # of the damage
    damage: str = ""  # why it can't be gone on from
    missing: str = ""  # what a snapshot proves to be missing at the end
    state_hash: str = ""  # at the end, with a replay
    snapshots: list[SnapshotFound] = []
    may_be_archived: list[str] = []  # segments that the older usable snapshot stands for

    @property
    def is_good(self) -> bool:
        problems = [each for each in self.snapshots if each.problem or each.replay == "different"]
        return not (self.damage or self.missing or problems)


def verify(directory: Path, *, implementation: str = "") -> Verified:
    """With an implementation it replays too: states at the snapshots, state and invariants at the
    end.

    Raises JournalDamaged where there is no journal; SnapshotUnreadable where a replay would have to
    begin with a snapshot that can't be used; AssertionError on a broken invariant.
    """
    walk = Walk(directory)
    found = _found(walk)
    snapshots = _snapshots(directory, walk.shard, found)
    replay = _Replay(implementation, walk, snapshots, found) if implementation else None
    for frame in walk.frames():
        _count(found, frame)
        if replay is not None:
            replay.add(frame)
    if found.frames:
        found.chain = walk.link.frame_hash.hex()
    end = walk.end
    assert end is not None
    found.last_seq = end.next_seq - 1
    found.torn_bytes, found.damage = end.torn_bytes, end.damage
    found.place = end.place if end.damage else ""
    if replay is not None:
        found.state_hash = replay.finish()
    try:
        refuse_if_ahead(directory)
    except JournalDamaged as error:
        found.missing = str(error)
    return found


def _found(walk: Walk) -> Verified:
    return Verified(
        directory=str(walk.directory),
        shard=walk.shard,
        segments=len(walk.segments),
        bytes=sum(path.stat().st_size for path in walk.segments),
        first_seq=walk.begin_seq,
        last_seq=0,
    )


def _count(found: Verified, frame: Frame) -> None:
    found.first_ts_ns = found.first_ts_ns or frame.ts_ns
    found.last_ts_ns = frame.ts_ns
    found.frames += 1
    found.commands += frame.length
    found.rules[frame.rules] = found.rules.get(frame.rules, 0) + 1


def _snapshots(directory: Path, shard: int, found: Verified) -> list[Snapshot]:
    """Those that can be used; what is wrong with the others goes into `found`."""
    usable: list[Snapshot] = []
    found.snapshots = []
    for path in snapshot_paths(directory):
        one = SnapshotFound(path=path.name, seq=next_seq_of(path) - 1)
        found.snapshots.append(one)
        try:
            snapshot = read_snapshot(path, shard=shard)
            check_belongs(directory, snapshot, shard=shard)
            usable.append(snapshot)
        except FileNotFoundError:
            found.snapshots.pop()  # a newer one has taken its place meanwhile
        except SnapshotUnreadable as error:
            one.problem = str(error)
    if len(usable) > 1:
        older = usable[-2].link.next_seq
        segments = [path for path in Walk(directory).segments if next_seq_of(path) < older]
        found.may_be_archived = [path.name for path in segments]
    return usable


class _Replay:
    """A second market that the frames are applied to."""

    def __init__(
        self, implementation: str, walk: Walk, snapshots: list[Snapshot], found: Verified
    ) -> None:
        self._found = {each.seq: each for each in found.snapshots}
        self._snapshots = {each.seq: each for each in snapshots}
        self._held = Held()
        if walk.begin_seq == 1:
            self._market: Market = create_market(implementation)
        else:
            first = self._snapshots.get(walk.begin_seq - 1)
            if first is None:
                raise SnapshotUnreadable(
                    f"{walk.segments[0].name} is the first segment here and no usable snapshot "
                    f"stands beside it, so that there is no state to replay from: put the "
                    f"segments before it back"
                )
            self._market = restored_market(implementation, first)
            self._held = Held(first.outcomes)

    def add(self, frame: Frame) -> None:
        events = self._market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
        self._held.add(frame.commands, frame.first_seq, frame.ts_ns, events)
        snapshot = self._snapshots.get(frame.last_seq)
        if snapshot is not None:
            same_market = self._market.snapshot() == snapshot.market
            same_outcomes = self._held.sessions() == snapshot.outcomes
            is_equal = same_market and same_outcomes
            self._found[frame.last_seq].replay = "equal" if is_equal else "different"

    def finish(self) -> str:
        self._market.check()
        return state_hash(self._market)
