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
from engine.limits import COMMAND_STEP_NS
from engine.segment import segment_path
from engine.wire import COMMAND_BYTES

HOW_TO_GO_ON = (
    "Restore the journal directory from a backup, or move it aside to begin an empty shard "
    "(which gives up every order it holds)"
)


class Frame(NamedTuple):
    first_seq: int
    ts_ns: int
    commands: bytes

    @property
    def length(self) -> int:
        return len(self.commands) // COMMAND_BYTES


class JournalReader:
    """Follows a journal from its first frame, also while it is being written.

    `link` says how far it has come. Not for several threads at once.
    """

    def __init__(self, directory: Path, *, shard: int) -> None:
        self.link = START
        self.path: Path | None = None  # the segment being read; None before the first
        self.offset = 0  # where its next frame begins
        self._directory = directory
        self._shard = shard
        self._fd = -1

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
        data = os.pread(self._fd, FRAME_HEADER_BYTES, self.offset)
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
        commands = os.pread(self._fd, size, self.offset + FRAME_HEADER_BYTES)
        if len(commands) < size:
            return Unreadable("the file ends inside its commands")
        if crc32c.crc32c(commands) != header.commands_crc:
            return Unreadable("the checksum of its commands is wrong")
        self.offset += FRAME_HEADER_BYTES + size
        self.link = Link(
            next_seq=header.first_seq + header.length,
            crc=header.crc,
            frame_hash=header_hash(data),
            next_ts_ns=header.ts_ns + header.length * COMMAND_STEP_NS,
        )
        return Frame(header.first_seq, header.ts_ns, commands)

    def _misplaced(self, header: FrameHeader) -> str:
        link = self.link
        if header.first_seq != link.next_seq:
            return f"it begins at sequence {header.first_seq} where {link.next_seq} must follow"
        if header.previous_crc != link.crc:
            return "it was written after another frame than the one before it"
        if header.ts_ns < link.next_ts_ns:
            return "it is earlier than the frame before it"
        return ""

    def _open_next(self) -> bool:
        path = segment_path(self._directory, self.link.next_seq)
        if path == self.path or not path.exists():
            return False
        fd = os.open(path, os.O_RDONLY)
        try:
            self._check_segment(path, os.pread(fd, SEGMENT_HEADER_BYTES, 0))
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd, self.path, self.offset = fd, path, SEGMENT_HEADER_BYTES
        return True

    def _check_segment(self, path: Path, data: bytes) -> None:
        header = read_segment_header(data)
        if isinstance(header, Unreadable):
            raise JournalDamaged(f"{path} is no journal segment: {header.why}. {HOW_TO_GO_ON}")
        if header.shard != self._shard:
            raise JournalDamaged(
                f"{path} belongs to shard {header.shard}, this engine is shard {self._shard}: "
                f"correct `engine.shard`, or give this shard a directory of its own"
            )
        if (header.first_seq, header.previous_hash, header.previous_crc) != (
            self.link.next_seq,
            self.link.frame_hash,
            self.link.crc,
        ):
            raise JournalDamaged(
                f"{path} does not continue the segment before it: it follows another frame than "
                f"the one with sequence {self.link.next_seq - 1}. {HOW_TO_GO_ON}"
            )
