"""Snapshots on disk: what a shard was at the end of a journal segment.

`<next_seq>.snapshot` stands beside the segment `<next_seq>.journal`, which was begun, and durable,
before the snapshot was made: it never knows of more than the journal does, and the header of that
segment says whether the two belong together. Little-endian:

    header    8 B "RSWSNPF1", u32 version, u32 shard, u64 next_seq, u64 next_ts_ns, 16 B hash and
              u32 checksum of the frame before next_seq, u32 0, u64 bytes of the market, u64 bytes
              of the outcomes, 32 B BLAKE2b of both, zeros; its last 4 bytes are the CRC32C of the
              other 124
    market    `engine.snapshot`
    outcomes  `engine.held`

A snapshot is written under another name, synced, read back and renamed: under its own name it is
whole, or not there.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import crc32c

from engine import limits
from engine.errors import JournalDamaged, SnapshotUnreadable
from engine.frame import (
    SEGMENT_HEADER_BYTES,
    START,
    Link,
    SegmentHeader,
    read_segment_header,
)
from engine.held import HeldSession, decode_held, encode_held
from engine.market import Market, create_market, restore_market
from engine.segment import segment_path, segment_paths, sync_directory, write_all

SUFFIX = ".snapshot"
TEMPORARY = ".snapshot-part"
MAGIC = b"RSWSNPF1"
VERSION = 1
HEADER_BYTES = 128

_HEADER = struct.Struct("<8sIIQQ16sIIQQ32s")
_CRC = struct.Struct("<I")


class Snapshot(NamedTuple):
    link: Link  # what the next frame must follow
    market: bytes
    outcomes: tuple[HeldSession, ...]

    @property
    def seq(self) -> int:
        """Of the last command in it."""
        return self.link.next_seq - 1


class State(NamedTuple):
    """What a shard was at a place in its journal."""

    link: Link
    market: Market
    outcomes: tuple[HeldSession, ...]


def snapshot_path(directory: Path, next_seq: int) -> Path:
    return directory / f"{next_seq:020d}{SUFFIX}"


def snapshot_paths(directory: Path) -> list[Path]:
    """In the order of their sequence numbers."""
    return sorted(directory.glob(f"*{SUFFIX}"))


def next_seq_of(path: Path) -> int:
    """The number in the name of a segment or snapshot; 0 for another file."""
    return int(path.stem) if path.stem.isdecimal() else 0


def read_snapshot(path: Path, *, shard: int) -> Snapshot:
    """Raises SnapshotUnreadable, with what is wrong, for anything but a whole snapshot of this
    shard; and OSError.
    """
    data = path.read_bytes()
    head = data[:HEADER_BYTES]
    if len(head) < HEADER_BYTES:
        raise _unreadable(path, f"it ends inside its header, after {len(head)} bytes")
    magic, version, of_shard, next_seq, next_ts_ns, frame_hash, crc, zero, *rest = (
        _HEADER.unpack_from(head)
    )
    market_bytes, outcomes_bytes, contents_hash = rest
    body = HEADER_BYTES - _CRC.size
    if magic != MAGIC:
        raise _unreadable(path, "it does not begin as a snapshot does")
    if _CRC.unpack_from(head, body)[0] != crc32c.crc32c(head[:body]):
        raise _unreadable(path, "the checksum of its header is wrong")
    if version != VERSION or zero or any(head[_HEADER.size : body]):
        raise _unreadable(path, f"its version is {version}, this engine reads {VERSION}")
    if of_shard != shard:
        raise _unreadable(path, f"it belongs to shard {of_shard}, this is shard {shard}")
    if next_seq_of(path) != next_seq:
        raise _unreadable(path, f"its name is not that of sequence {next_seq}")
    contents = memoryview(data)[HEADER_BYTES:]
    if len(contents) != market_bytes + outcomes_bytes:
        raise _unreadable(path, f"it holds {len(contents)} bytes, not what its header says")
    if _hash(contents) != contents_hash:
        raise _unreadable(path, "the hash of its contents is wrong")
    return Snapshot(
        Link(next_seq, crc, frame_hash, next_ts_ns),
        bytes(contents[:market_bytes]),
        decode_held(contents[market_bytes:]),
    )


def write_snapshot(directory: Path, snapshot: Snapshot, *, shard: int) -> Path:
    """Durable under its name when it returns. Raises OSError, and SnapshotUnreadable where what
    was written does not read back: nothing stands under its name then.
    """
    contents = snapshot.market + encode_held(snapshot.outcomes)
    link = snapshot.link
    fields = _HEADER.pack(
        MAGIC,
        VERSION,
        shard,
        link.next_seq,
        link.next_ts_ns,
        link.frame_hash,
        link.crc,
        0,
        len(snapshot.market),
        len(contents) - len(snapshot.market),
        _hash(contents),
    )
    head = fields.ljust(HEADER_BYTES - _CRC.size, b"\0")
    path = snapshot_path(directory, link.next_seq)
    # In the name, so that one left by a killed process is in nobody's way.
    temporary = directory / f"{path.stem}.{os.getpid()}{TEMPORARY}"
    try:
        _write_paced(temporary, head + _CRC.pack(crc32c.crc32c(head)) + contents)
        if temporary.read_bytes()[HEADER_BYTES:] != contents:
            raise _unreadable(temporary, "it does not read back as it was written")
        temporary.rename(path)
        sync_directory(directory)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def restored_market(implementation: str, snapshot: Snapshot) -> Market:
    """The market of a snapshot, proved to be the one that was written.

    Raises SnapshotUnreadable, or EngineImplementationUnavailable.
    """
    market = restore_market(implementation, snapshot.market)
    if market.last_seq != snapshot.seq:
        raise SnapshotUnreadable(
            f"not a snapshot: it is of sequence {snapshot.seq}, its market of {market.last_seq}"
        )
    if market.snapshot() != snapshot.market:
        raise SnapshotUnreadable("not a snapshot: the market restored from it is another one")
    return market


def best_state(directory: Path, *, shard: int, implementation: str, until_seq: int) -> State:
    """Of the newest snapshot that can be used and holds nothing after `until_seq`; the empty state
    if there is none.
    """
    for path in reversed(snapshot_paths(directory)):
        if next_seq_of(path) > until_seq + 1:
            continue
        with suppress(SnapshotUnreadable, FileNotFoundError):
            snapshot = read_snapshot(path, shard=shard)
            check_belongs(directory, snapshot, shard=shard)
            market = restored_market(implementation, snapshot)
            return State(snapshot.link, market, snapshot.outcomes)
    return State(START, create_market(implementation), ())


def check_belongs(directory: Path, snapshot: Snapshot, *, shard: int) -> None:
    """Raises SnapshotUnreadable unless the journal has the segment that goes on from it."""
    path = segment_path(directory, snapshot.link.next_seq)
    try:
        with path.open("rb") as file:
            header = read_segment_header(file.read(SEGMENT_HEADER_BYTES))
    except FileNotFoundError:
        raise SnapshotUnreadable(
            f"the snapshot at {snapshot.link.next_seq} can't be used: {path.name} is missing"
        ) from None
    link = snapshot.link
    follows = SegmentHeader(shard, link.next_seq, link.frame_hash, link.crc)
    if header != follows:
        raise SnapshotUnreadable(
            f"the snapshot at {link.next_seq} can't be used: {path.name} follows another frame "
            f"than the one before it"
        )


def refuse_if_ahead(directory: Path) -> None:
    """Raises JournalDamaged where the newest segments of a journal are missing: a snapshot is only
    made when the segment after it is durable.
    """
    snapshots, segments = snapshot_paths(directory), segment_paths(directory)
    if not snapshots:
        return
    newest, last = snapshots[-1], next_seq_of(segments[-1]) if segments else 0
    if next_seq_of(newest) > last:
        raise JournalDamaged(
            f"{directory} has the snapshot {newest.name}, and "
            + (f"no segment after {segments[-1].name}" if segments else "no segment")
            + f": {segment_path(directory, next_seq_of(newest)).name} was there when it was made. "
            f"Put it and what follows it back; without them, everything after the journal's end "
            f"is lost"
        )


def drop_old_snapshots(directory: Path, *, shard: int) -> None:
    """Keeps the newest SNAPSHOTS_KEPT that can be read, and what is newer than those."""
    good = 0
    for path in reversed(snapshot_paths(directory)):
        if good >= limits.SNAPSHOTS_KEPT:
            path.unlink(missing_ok=True)
            continue
        try:
            read_snapshot(path, shard=shard)
            good += 1
        except (SnapshotUnreadable, OSError):
            continue
    sync_directory(directory)


def drop_unfinished(directory: Path) -> None:
    for path in directory.glob(f"*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def _write_paced(path: Path, data: bytes) -> None:
    """In synced steps, leaving half of the disk's time to the journal."""
    view = memoryview(data)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        for at in range(0, len(view), limits.ZERO_STEP_BYTES):
            began = time.monotonic()
            write_all(fd, view[at : at + limits.ZERO_STEP_BYTES], at)
            os.fsync(fd)
            if at + limits.ZERO_STEP_BYTES < len(view):
                time.sleep(time.monotonic() - began)
    finally:
        os.close(fd)


def _hash(contents: bytes | memoryview) -> bytes:
    return hashlib.blake2b(contents, digest_size=32).digest()


def _unreadable(path: Path, why: str) -> SnapshotUnreadable:
    return SnapshotUnreadable(f"{path} is no snapshot that can be used: {why}")
