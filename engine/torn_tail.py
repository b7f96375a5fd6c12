"""What stands behind a journal's last whole frame: nothing, a write cut short, or damage.

A segment is all zeros before frames go into it, no frame's 64-byte record is all zeros, and a disk
writes whole sectors: a write that was cut short leaves records of zeros, or ends with the file.
Anything else was whole once, and may have been answered.
"""

from __future__ import annotations

from typing import NamedTuple

import crc32c
import numpy as np

from engine.frame import (
    CRC_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    FrameHeader,
    Unreadable,
    read_frame_header,
)
from engine.wire import COMMAND_BYTES

_ZERO_RECORD = bytes(COMMAND_BYTES)


class Tail(NamedTuple):
    length: int  # bytes up to the last that is not zero
    damage: str  # why it is no write cut short; "" where it is one

    @property
    def is_torn(self) -> bool:
        return self.length > 0 and not self.damage


def judge_tail(rest: bytes, next_seq: int) -> Tail:
    """Of all bytes of the last segment behind its last whole frame, which ends at `next_seq`."""
    written = np.flatnonzero(np.frombuffer(rest, np.uint8))
    if not len(written):
        return Tail(0, "")
    return Tail(int(written[-1]) + 1, _damage(rest, next_seq))


def _damage(rest: bytes, next_seq: int) -> str:
    behind = _whole_frame(rest, next_seq)
    if behind is not None:
        return f"a good frame follows {behind} bytes behind it"
    head = rest[:FRAME_HEADER_BYTES]
    if len(head) < FRAME_HEADER_BYTES or not head.strip(b"\0"):
        return ""
    header = read_frame_header(head)
    if isinstance(header, FrameHeader):
        return _damage_of_commands(rest, header)
    if header.intact:
        return "the checksum of its header is right"
    if not rest[FRAME_HEADER_BYTES - CRC_BYTES :].strip(b"\0"):
        return ""
    return "its header was written whole"


def _damage_of_commands(rest: bytes, header: FrameHeader) -> str:
    end = FRAME_HEADER_BYTES + header.length * COMMAND_BYTES
    if len(rest) < end:
        return ""
    commands = rest[FRAME_HEADER_BYTES:end]
    if crc32c.crc32c(commands) == header.commands_crc:
        return "it is whole"
    for at in range(0, len(commands), COMMAND_BYTES):
        if commands[at : at + COMMAND_BYTES] == _ZERO_RECORD:
            return ""
    return "every command of it was written"


def _whole_frame(rest: bytes, next_seq: int) -> int | None:
    """Where in the bytes after a bad place a whole later frame begins."""
    at = rest.find(FRAME_MAGIC)
    while at >= 0:
        header = rest[at : at + FRAME_HEADER_BYTES]
        if at % FRAME_HEADER_BYTES == 0 and len(header) == FRAME_HEADER_BYTES:
            found = read_frame_header(header)
            if not isinstance(found, Unreadable) and found.first_seq > next_seq:
                start = at + FRAME_HEADER_BYTES
                commands = rest[start : start + found.length * COMMAND_BYTES]
                if crc32c.crc32c(commands) == found.commands_crc:
                    return at
        at = rest.find(FRAME_MAGIC, at + 1)
    return None
