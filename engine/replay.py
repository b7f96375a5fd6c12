"""Reads a journal's frames in order, each checked against the one before it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import crc32c

from engine.errors import JournalDamaged
from engine.frame import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    START,
    FrameHeader,
    Link,
    Unreadable,
    header_hash,
    read_frame_header,
    read_segment_header,
)
from engine.limits import COMMAND_STEP_NS, READ_AHEAD_BYTES, RULES
from engine.segment import segment_path
from engine.wire import COMMAND_BYTES


class Frame(NamedTuple):
    first_seq: int
    ts_ns: int
    commands: bytes
    rules: int = RULES  # under which it is applied

    @property
    def length(self) -> int:
        return len(self.commands) // COMMAND_BYTES

    @property
    def last_seq(self) -> int:
        return self.first_seq + self.length - 1


class JournalReader:
    """Follows a journal from its first frame, or from the one after `start`, which must be the
    first of a segment; also while it is being written. Not for several threads at once.
    """

    def __init__(self, directory: Path, *, shard: int, start: Link = START) -> None:
        self.path: Path | None = None  # the segment being read; None before the first
        self.offset = 0  # where its next frame begins
        self.last_offset = 0  # where its last frame begins; 0 before the first: its header
        self.next_seq = start.next_seq
        self._directory = directory
        self._shard = shard
        self._start = start
        self._crc = start.crc
        self._next_ts_ns = start.next_ts_ns
        self._header = b""  # the last frame's
        self._fd = -1
        self._ahead = b""  # of the segment, from `_ahead_at` on
        self._ahead_at = 0

    @property
    def link(self) -> Link:
        """How far it has come."""
        if not self._header:
            return self._start
        return Link(self.next_seq, self._crc, header_hash(self._header), self._next_ts_ns)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def read(self) -> Frame | Unreadable | None:
        """The next frame; None where nothing has been written yet; or why what stands there is
        no frame, or not the one that must follow. After that it stays where it is.

        Raises JournalDamaged for a segment that can't be the next one, and OSError.
        """
        if self.path is None and not self._open_next():
            return None
        while True:
            found = self._read_frame()
            # A frame that no longer fitted went into a segment of its own.
            if found is None and self._open_next():
                continue
            return found

    def _read_frame(self) -> Frame | Unreadable | None:
        found = self._frame_ahead()
        if not isinstance(found, Frame):
            # What was read ahead ends here, or was read before this frame was written.
            self._ahead = os.pread(self._fd, READ_AHEAD_BYTES, self.offset)
            self._ahead_at = self.offset
            found = self._frame_ahead()
        return found

    def _frame_ahead(self) -> Frame | Unreadable | None:
        at = self.offset - self._ahead_at
        data = self._ahead[at : at + FRAME_HEADER_BYTES]
        if not data.strip(b"\0"):
            return None
        if len(data) < FRAME_HEADER_BYTES:
            return Unreadable("the file ends inside its header")
        header = read_frame_header(data)
        if isinstance(header, Unreadable):
            return header
        misplaced = self._misplaced(header)
        if misplaced:
            return Unreadable(misplaced, intact=True)
        size = header.length * COMMAND_BYTES
        at += FRAME_HEADER_BYTES
        commands = self._ahead[at : at + size]
        if len(commands) < size:
            return Unreadable("the file ends inside its commands")
        if crc32c.crc32c(commands) != header.commands_crc:
            return Unreadable("the checksum of its commands is wrong")
        self.last_offset = self.offset
        self.offset += FRAME_HEADER_BYTES + size
        self.next_seq = header.first_seq + header.length
        self._crc, self._header = header.crc, data
        self._next_ts_ns = header.ts_ns + header.length * COMMAND_STEP_NS
        return Frame(header.first_seq, header.ts_ns, commands, header.rules)

    def _misplaced(self, header: FrameHeader) -> str:
        if header.first_seq != self.next_seq:
            return f"it begins at sequence {header.first_seq} where {self.next_seq} must follow"
        if header.previous_crc != self._crc:
            return "it was written after another frame than the one before it"
        if header.ts_ns < self._next_ts_ns:
            return "it is earlier than the frame before it"
        return ""

    def _open_next(self) -> bool:
        path = segment_path(self._directory, self.next_seq)
        if path == self.path or not path.exists():
            return False
        fd = os.open(path, os.O_RDONLY)
        try:
            self._check_segment(path, os.pread(fd, SEGMENT_HEADER_BYTES, 0))
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd, self.path = fd, path
        self.offset, self.last_offset = SEGMENT_HEADER_BYTES, 0
        self._ahead, self._ahead_at = b"", SEGMENT_HEADER_BYTES
        return True

    def _check_segment(self, path: Path, data: bytes) -> None:
        header = read_segment_header(data)
        if isinstance(header, Unreadable):
            raise JournalDamaged(
                f"{path} is no journal segment that can be read: {header.why}. "
                f"{how_to_go_on(self._directory, header)}"
            )
        if header.shard != self._shard:
            raise JournalDamaged(
                f"{path} belongs to shard {header.shard}, this engine is shard {self._shard}: "
                f"correct `engine.shard`, or give this shard a directory of its own"
            )
        link = self.link
        follows = (header.first_seq, header.previous_crc, header.previous_hash)
        if follows != (link.next_seq, link.crc, link.frame_hash):
            raise JournalDamaged(
                f"{path} does not continue the segment before it: it follows another frame than "
                f"the one with sequence {self.next_seq - 1}. {how_to_go_on(self._directory)}"
            )


def how_to_go_on(directory: Path, found: Unreadable | None = None) -> str:
    """The next step of an operator whose journal can't be read."""
    if found is not None and found.is_newer:
        return "Start the release that wrote it, or a later one; nothing was changed"
    return (
        f"Nothing was changed. `railswitch journal verify {directory}` says what is whole; "
        f"`railswitch journal repair {directory}` says what can be done, best with --from and an "
        f"intact copy or a backup of the directory"
    )
