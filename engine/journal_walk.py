"""Walks a journal as it lies on the disk, for tools. Changes nothing; an engine may be writing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from engine.errors import JournalDamaged
from engine.frame import (
    SEGMENT_HEADER_BYTES,
    START,
    Link,
    SegmentHeader,
    Unreadable,
    read_segment_header,
)
from engine.replay import Frame, JournalReader
from engine.segment import segment_paths
from engine.snapshot_file import next_seq_of
from engine.torn_tail import judge_tail

# A frame that an engine is writing at this moment is whole after this at the latest.
SETTLES_S = 0.5


class End(NamedTuple):
    """Where the readable part of a journal ends, and why."""

    path: Path | None  # None: there is no segment
    offset: int
    next_seq: int
    torn_bytes: int  # of a write that was cut short: an engine that starts cuts them
    damage: str  # why it can't be gone on from; "" where it can
    is_newer: bool  # a later release wrote what follows

    @property
    def place(self) -> str:
        return f"{self.path}: offset {self.offset}, sequence {self.next_seq}"


class Walk:
    """The frames of a directory from the segment on that holds `from_seq`; `end` says then why
    there are no more.

    Raises JournalDamaged where there is no journal, or where `from_seq` is in a segment that has
    been moved away.
    """

    def __init__(self, directory: Path, *, from_seq: int = 1) -> None:
        self.directory = directory
        self.segments = segment_paths(directory)
        self.end: End | None = None
        if not self.segments:
            raise JournalDamaged(f"{directory} holds no journal: it has no *.journal file")
        first, header = self._first(from_seq)
        self.begin_seq = next_seq_of(first)
        self.shard = header.shard if isinstance(header, SegmentHeader) else 0
        self.begin = _link(first, header)  # what the first frame follows
        self._reader = JournalReader(directory, shard=self.shard, start=self.begin)

    @property
    def path(self) -> Path | None:
        """Of the segment with the last frame."""
        return self._reader.path

    @property
    def link(self) -> Link:
        return self._reader.link

    def frames(self) -> Iterator[Frame]:
        try:
            deadline = time.monotonic() + SETTLES_S
            while True:
                found = self._reader.read()
                if isinstance(found, Frame):
                    yield found
                    deadline = time.monotonic() + SETTLES_S
                elif found is None or time.monotonic() > deadline:
                    self.end = self._why_no_more(found)
                    return
                else:
                    time.sleep(SETTLES_S / 20)
        except JournalDamaged as error:
            self.end = self._end(damage=str(error))
        finally:
            self._reader.close()

    def _first(self, from_seq: int) -> tuple[Path, SegmentHeader | Unreadable]:
        before = [path for path in self.segments if next_seq_of(path) <= max(1, from_seq)]
        first = before[-1] if before else self.segments[0]
        with first.open("rb") as file:
            return first, read_segment_header(file.read(SEGMENT_HEADER_BYTES))

    def _why_no_more(self, found: Unreadable | None) -> End:
        path = self._reader.path
        later = [one for one in segment_paths(self.directory) if path is None or one > path]
        if path is None:
            return self._end(damage=f"{self.segments[0].name} can't be opened")
        if later:
            why = found.why if found else "what follows is missing"
            return self._end(damage=f"{why}, yet {later[0].name} follows", found=found)
        if found is not None and found.intact:
            return self._end(damage=f"{found.why}, yet its checksum is right", found=found)
        with path.open("rb") as file:
            file.seek(self._reader.offset)
            tail = judge_tail(file.read(), self._reader.next_seq)
        if tail.damage:
            why = found.why if found else "it is not all there"
            return self._end(damage=f"{why}, yet {tail.damage}")
        return self._end(torn_bytes=tail.length)

    def _end(
        self, *, torn_bytes: int = 0, damage: str = "", found: Unreadable | None = None
    ) -> End:
        reader = self._reader
        is_newer = found is not None and found.is_newer
        return End(reader.path, reader.offset, reader.next_seq, torn_bytes, damage, is_newer)


def _link(path: Path, header: SegmentHeader | Unreadable) -> Link:
    """What the first segment of a walk says itself of what came before it."""
    if isinstance(header, Unreadable) or header.first_seq == 1:
        return START._replace(next_seq=next_seq_of(path))
    return Link(header.first_seq, header.previous_crc, header.previous_hash, 0)
