"""What can be made of a damaged journal, and doing it: `railswitch journal repair`.

Every frame names the checksum of the one before it, so there is one way to put frames together,
wherever they are found. A repair takes the longest chain out of the frames that are whole, here and
in a copy of the directory; files that this changes, and all that is not in the chain, are moved
aside. Nothing is ever deleted.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import msgspec

from engine.errors import SnapshotUnreadable
from engine.frame import START, Link, segment_header
from engine.frame_pool import FramePlace, FramePool
from engine.journal import lock_directory
from engine.journal_walk import End, Walk
from engine.segment import segment_path, segment_paths, sync_directory, write_all
from engine.snapshot_file import check_belongs, next_seq_of, read_snapshot, snapshot_paths

TEMPORARY = ".repaired"


class Lost(msgspec.Struct, frozen=True, kw_only=True):
    """A whole frame that can't be reached any more."""

    path: str
    offset: int
    first_seq: int
    last_seq: int
    ts_ns: int


class Plan(msgspec.Struct, kw_only=True):
    directory: str
    place: str = ""  # of the damage
    damage: str = ""
    refused: str = ""  # why nothing can, or should, be done; with the next step
    keeps_until_seq: int = 0
    taken_from_copy: int = 0  # commands
    copy: str = ""
    lost: list[Lost] = []  # whole frames behind the chain's end
    lost_bytes: int = 0  # not zero, and no whole frame
    rewrites: list[str] = []  # segments that are written again, by their names
    moves: list[str] = []  # segments and snapshots that are moved aside
    aside: str = ""  # the directory that they are moved to; the rewritten ones are kept there too

    @property
    def is_whole(self) -> bool:
        return not self.damage

    @property
    def loses(self) -> bool:
        return bool(self.lost or self.lost_bytes)


class _Segment(NamedTuple):
    """How a segment is to be."""

    name: str
    shard: int
    after: Link
    frames: list[FramePlace]


def plan_repair(directory: Path, *, copy: Path | None = None) -> Plan:
    """Reads only.

    Raises JournalDamaged where there is no journal here, or none in the copy.
    """
    plan, _ = _plan(directory, copy)
    return plan


def repair(directory: Path, *, copy: Path | None = None) -> Plan:
    """Does what it returns, unless that says `refused`.

    Raises JournalInUse while an engine has the directory, and OSError: some files may have been
    replaced then; it may be run again.
    """
    lock_fd = lock_directory(directory)
    try:
        plan, segments = _plan(directory, copy)
        if plan.is_whole or plan.refused:
            return plan
        aside = Path(plan.aside)
        aside.mkdir()
        for segment in segments:
            _write(directory / f"{segment.name}{TEMPORARY}", _contents(segment))
        for name in (*plan.rewrites, *plan.moves):
            if (directory / name).exists():
                os.link(directory / name, aside / name)
        sync_directory(aside)
        for name in plan.moves:
            (directory / name).unlink()
        for segment in segments:
            (directory / f"{segment.name}{TEMPORARY}").rename(directory / segment.name)
        sync_directory(directory)
        return plan
    finally:
        os.close(lock_fd)


def _plan(directory: Path, copy: Path | None) -> tuple[Plan, list[_Segment]]:
    plan = Plan(directory=str(directory), copy=str(copy or ""))
    walk = Walk(directory)
    for _ in walk.frames():
        pass
    end = walk.end
    assert end is not None
    plan.keeps_until_seq = end.next_seq - 1
    if not end.damage and walk.begin_seq == 1:
        return plan, []
    if not end.damage and _stands_for_what_is_missing(directory, walk):
        return plan, []
    plan.place = end.place
    plan.damage = end.damage or f"the segments before {walk.segments[0].name} are missing"
    plan.refused = _better_than_repair(directory, walk, end)
    if plan.refused:
        return plan, []
    own, other = FramePool(directory), FramePool(copy) if copy else None
    shard = own.shard if own.shard is not None or other is None else other.shard
    if shard is None or (other is None and not end.damage):
        plan.refused = (
            "what is missing is not here: name a copy of the directory, or a backup, with --from"
        )
        return plan, []
    start = _start(walk, Walk(copy) if copy else None)
    chain = _chain(start, own, other)
    if other is not None and not any(place.pool is other for place in chain):
        plan.refused = (
            f"{copy} has no frame that follows sequence {plan.keeps_until_seq} of {directory}: it "
            f"ends before it, or is a copy of another journal. Name another one"
        )
        return plan, []
    return plan, _fill(plan, directory, shard, start, chain, own, other)


def _better_than_repair(directory: Path, walk: Walk, end: End) -> str:
    if end.is_newer:
        return "a later release wrote what follows: start that one, or a later one, on it"
    for path in reversed(snapshot_paths(directory)):
        if next_seq_of(path) <= end.next_seq or not _is_usable(directory, path, walk.shard):
            continue
        rest = Walk(directory, from_seq=next_seq_of(path))
        for _ in rest.frames():
            pass
        if rest.end is not None and not rest.end.damage:
            return (
                f"an engine does not need what is damaged: {path.name} stands for everything "
                f"before it, and the journal behind it is whole. Start the engine; move the "
                f"segments before {path.stem} aside if you like"
            )
    return ""


def _stands_for_what_is_missing(directory: Path, walk: Walk) -> bool:
    return any(_is_usable(directory, path, walk.shard) for path in snapshot_paths(directory))


def _is_usable(directory: Path, path: Path, shard: int) -> bool:
    try:
        check_belongs(directory, read_snapshot(path, shard=shard), shard=shard)
    except (SnapshotUnreadable, OSError):
        return False
    return True


def _start(walk: Walk, other: Walk | None) -> Link:
    """After what the first frame must come."""
    if walk.begin_seq == 1 or (other is not None and other.begin_seq == 1):
        return START
    return walk.begin


def _chain(start: Link, own: FramePool, other: FramePool | None) -> list[FramePlace]:
    chain: list[FramePlace] = []
    key = (start.next_seq, start.crc)
    while True:
        place = own.frames.get(key) or (other.frames.get(key) if other else None)
        if place is None:
            return chain
        chain.append(place)
        key = (place.header.first_seq + place.header.length, place.header.crc)


def _fill(
    plan: Plan,
    directory: Path,
    shard: int,
    start: Link,
    chain: list[FramePlace],
    own: FramePool,
    other: FramePool | None,
) -> list[_Segment]:
    plan.keeps_until_seq = chain[-1].last_seq if chain else start.next_seq - 1
    plan.taken_from_copy = sum(one.header.length for one in chain if one.pool is other)
    kept = {(one.header.first_seq, one.header.crc) for one in chain}
    plan.lost = [
        Lost(
            path=one.path.name,
            offset=one.offset,
            first_seq=one.header.first_seq,
            last_seq=one.last_seq,
            ts_ns=one.header.ts_ns,
        )
        for one in own.frames.values()
        if (one.header.first_seq, one.header.crc) not in kept
    ]
    # What a copy brought back was damaged here: its bytes are no loss.
    if not plan.taken_from_copy or plan.lost:
        plan.lost_bytes = own.other_bytes
    starts = {next_seq_of(path) for pool in (own, other) if pool for path in pool.segments}
    segments = _segments(shard, start, chain, starts)
    changed = [each for each in segments if not _is_so(directory, each)]
    plan.rewrites = [each.name for each in changed]
    names = {each.name for each in segments}
    plan.moves = [path.name for path in segment_paths(directory) if path.name not in names]
    plan.moves += [
        path.name
        for path in snapshot_paths(directory)
        if next_seq_of(path) > next_seq_of(Path(segments[-1].name))
    ]
    plan.aside = str(_aside(directory, plan.keeps_until_seq))
    return changed


def _segments(shard: int, start: Link, chain: list[FramePlace], starts: set[int]) -> list[_Segment]:
    segments = [_Segment(segment_path(Path(), start.next_seq).name, shard, start, [])]
    for place in chain:
        if place.header.first_seq in starts and segments[-1].frames:
            before = segments[-1].frames[-1]
            name = segment_path(Path(), place.header.first_seq).name
            segments.append(_Segment(name, shard, before.link(), []))
        segments[-1].frames.append(place)
    return segments


def _is_so(directory: Path, segment: _Segment) -> bool:
    """Whether the file is that already, with nothing but zeros behind."""
    path = directory / segment.name
    if not path.exists():
        return False
    data, wanted = path.read_bytes(), _contents(segment)
    return data.startswith(wanted) and not data[len(wanted) :].strip(b"\0")


def _contents(segment: _Segment) -> bytes:
    head = segment_header(shard=segment.shard, after=segment.after)
    return head + b"".join(place.read() for place in segment.frames)


def _write(path: Path, contents: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        write_all(fd, contents, 0)
        os.fsync(fd)
    finally:
        os.close(fd)


def _aside(directory: Path, last_seq: int) -> Path:
    n = 1
    while (path := directory / f"repaired-after-{last_seq}-{n}").exists():
        n += 1
    return path
