"""Every whole frame of a journal directory, found without following its chain: for repairs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import crc32c
import numpy as np

from engine.frame import (
    FRAME_HEADER_BYTES,
    FRAME_MAGIC,
    SEGMENT_HEADER_BYTES,
    FrameHeader,
    Link,
    SegmentHeader,
    Unreadable,
    header_hash,
    read_frame_header,
    read_segment_header,
)
from engine.limits import COMMAND_STEP_NS
from engine.segment import segment_paths
from engine.wire import COMMAND_BYTES


class FramePool:
    def __init__(self, directory: Path) -> None:
        self.segments = segment_paths(directory)
        self.shard: int | None = None  # None: no segment says
        # By what a frame must follow: sequence number and checksum of the frame before it.
        self.frames: dict[tuple[int, int], FramePlace] = {}
        self.other_bytes = 0  # not zero, and in no whole frame or header
        for path in self.segments:
            self._add(path)

    def _add(self, path: Path) -> None:
        data = path.read_bytes()
        head = read_segment_header(data[:SEGMENT_HEADER_BYTES])
        if isinstance(head, SegmentHeader):
            self.shard = head.shard
        at = SEGMENT_HEADER_BYTES
        for offset, header in _whole_frames(data):
            place = FramePlace(self, path, offset, header)
            self.frames[header.first_seq, header.previous_crc] = place
            self.other_bytes += _not_zero(data[at:offset])
            at = offset + place.size
        self.other_bytes += _not_zero(data[at:])


class FramePlace(NamedTuple):
    pool: FramePool
    path: Path
    offset: int
    header: FrameHeader

    @property
    def size(self) -> int:
        return FRAME_HEADER_BYTES + self.header.length * COMMAND_BYTES

    @property
    def last_seq(self) -> int:
        return self.header.first_seq + self.header.length - 1

    def read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def link(self) -> Link:
        """What the frame after it must follow."""
        header = self.header
        next_ts_ns = header.ts_ns + header.length * COMMAND_STEP_NS
        frame_hash = header_hash(self.read()[:FRAME_HEADER_BYTES])
        return Link(self.last_seq + 1, header.crc, frame_hash, next_ts_ns)


def _whole_frames(data: bytes) -> Iterator[tuple[int, FrameHeader]]:
    at = data.find(FRAME_MAGIC, SEGMENT_HEADER_BYTES)
    while at >= 0:
        header = _whole_frame(data, at) if at % FRAME_HEADER_BYTES == 0 else None
        if header is not None:
            yield at, header
            at += FRAME_HEADER_BYTES + header.length * COMMAND_BYTES - 1
        at = data.find(FRAME_MAGIC, at + 1)


def _whole_frame(data: bytes, at: int) -> FrameHeader | None:
    head = data[at : at + FRAME_HEADER_BYTES]
    if len(head) < FRAME_HEADER_BYTES:
        return None
    header = read_frame_header(head)
    if isinstance(header, Unreadable):
        return None
    start = at + FRAME_HEADER_BYTES
    commands = data[start : start + header.length * COMMAND_BYTES]
    return header if crc32c.crc32c(commands) == header.commands_crc else None


def _not_zero(data: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(data, np.uint8)))
