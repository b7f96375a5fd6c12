"""The journal of one shard: every sequenced command, durable before anything of it is shown.

`Journal.open` takes the directory for this process, restores the newest snapshot, replays what
follows it, and cuts a torn tail; `append` returns when a frame is on the disk. A bad frame that
can't be a torn write is refused with its place and the next step, and nothing is changed.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable
from pathlib import Path

from engine import limits
from engine.errors import JournalDamaged, JournalFailed, JournalInUse, SnapshotUnreadable
from engine.frame import SEGMENT_HEADER_BYTES, START, Link, Unreadable
from engine.journal_writer import JournalWriter, begin_segment, journal_failed
from engine.preparer import prepare_now
from engine.replay import Frame, JournalReader, how_to_go_on
from engine.segment import segment_path, segment_paths, zero
from engine.snapshot_file import (
    Snapshot,
    check_belongs,
    drop_unfinished,
    read_snapshot,
    refuse_if_ahead,
    snapshot_paths,
)
from engine.torn_tail import judge_tail

LOCK = "lock"

log = logging.getLogger(__name__)


class Journal(JournalWriter):
    """Open for writing; see `open`."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        shard: int,
        replay: Callable[[Frame], None],
        restore: Callable[[Snapshot], None] | None = None,
        segment_bytes_min: int = limits.SEGMENT_BYTES_MIN,
        segment_bytes_max: int = limits.SEGMENT_BYTES_MAX,
    ) -> Journal:
        """Gives every frame to `replay`, in order, before it returns; with `restore`, the newest
        snapshot that it takes to that, and only the frames behind it to `replay`. `restore` may
        raise SnapshotUnreadable, having changed nothing: an older one is tried then.

        Raises JournalInUse, JournalDamaged, and JournalFailed where the disk fails.
        """
        try:
            directory.mkdir(parents=True, exist_ok=True)
            lock_fd = lock_directory(directory)
        except OSError as error:
            raise JournalFailed(
                f"opening the journal directory {directory} failed: {error.strerror}. "
                f"Make room on its disk, or name one that this user may write to"
            ) from error
        reader: JournalReader | None = None
        try:
            start = _start(directory, shard, restore) if restore else START
            drop_unfinished(directory)
            reader = JournalReader(directory, shard=shard, start=start)
            _recover(directory, reader, replay)
            _make_room(directory, reader, shard=shard, bytes_min=segment_bytes_min)
            return cls(
                directory,
                shard=shard,
                lock_fd=lock_fd,
                path=reader.path or segment_path(directory, 1),
                offset=reader.offset,
                last_offset=reader.last_offset,
                link=reader.link,
                bytes_max=segment_bytes_max,
            )
        except OSError as error:
            os.close(lock_fd)
            raise journal_failed(f"recovering the journal in {directory}", error) from error
        except BaseException:
            os.close(lock_fd)
            raise
        finally:
            if reader is not None:
                reader.close()


def lock_directory(directory: Path) -> int:
    """Held until the descriptor is closed, so also given up by a process that is killed.

    Raises JournalInUse, or OSError.
    """
    fd = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(fd)
        raise JournalInUse(
            f"{directory} is in use by another engine (process {holder}): stop that one first, "
            f"or give this one a directory of its own"
        ) from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


def _start(directory: Path, shard: int, restore: Callable[[Snapshot], None]) -> Link:
    """Restores the newest snapshot that can be used; returns what the next frame must follow."""
    refuse_if_ahead(directory)
    for path in reversed(snapshot_paths(directory)):
        try:
            snapshot = read_snapshot(path, shard=shard)
            check_belongs(directory, snapshot, shard=shard)
            restore(snapshot)
        except SnapshotUnreadable as error:
            log.warning(
                "%s is not used: %s. Going back to an older one, or to the whole journal",
                *(path, error),
            )
            continue
        log.info("restored %s; replaying what follows", path)
        return snapshot.link
    return START


def _recover(directory: Path, reader: JournalReader, replay: Callable[[Frame], None]) -> None:
    found = reader.read()
    while isinstance(found, Frame):
        replay(found)
        found = reader.read()
    later = [path for path in segment_paths(directory) if path > (reader.path or Path())]
    if reader.path is None:
        if later:
            raise JournalDamaged(
                f"the journal in {directory} begins with {later[0].name}: the segments before it "
                f"are missing, and there is no snapshot that could stand for them. Put them back "
                f"from where they were moved to. {how_to_go_on(directory)}"
            )
        return
    bad = found or Unreadable("it is missing")
    if later:
        raise _damaged(directory, reader, bad, f"{later[0].name} follows")
    if bad.intact:
        raise _damaged(directory, reader, bad, "its checksum is right")
    _cut_torn_tail(directory, reader, reader.path, bad)


def _cut_torn_tail(directory: Path, reader: JournalReader, path: Path, bad: Unreadable) -> None:
    """Only the frame that was being written when the engine died may be bad: it is the last."""
    with path.open("rb+") as file:
        file.seek(reader.offset)
        tail = judge_tail(file.read(), reader.next_seq)
        if tail.damage:
            raise _damaged(directory, reader, bad, tail.damage)
        if tail.is_torn:
            log.warning(
                "%s: cut a torn tail of %d bytes at offset %d, after sequence %d (%s); "
                "it was never answered",
                *(path, tail.length, reader.offset, reader.next_seq - 1, bad.why),
            )
            zero(file.fileno(), reader.offset, reader.offset + tail.length)


def _make_room(directory: Path, reader: JournalReader, *, shard: int, bytes_min: int) -> None:
    """Begins the first segment, or makes a cut one large enough to be written to again."""
    if reader.path is None:
        path = segment_path(directory, reader.link.next_seq)
        prepared = prepare_now(directory, bytes_min)
        os.close(begin_segment(prepared, path, shard=shard, after=reader.link))
        reader.offset = SEGMENT_HEADER_BYTES
        reader.path = path
    with reader.path.open("rb+") as file:
        zero(file.fileno(), os.fstat(file.fileno()).st_size, bytes_min)


def _damaged(
    directory: Path, reader: JournalReader, bad: Unreadable, evidence: str
) -> JournalDamaged:
    place = f"{reader.path}: the frame at offset {reader.offset} (sequence {reader.next_seq})"
    if bad.is_newer:
        told = f"{place} can't be read: {bad.why}"
    else:
        told = f"{place} is damaged: {bad.why}, yet {evidence}: this is no write cut short"
    return JournalDamaged(f"{told}. {how_to_go_on(directory, bad)}")
