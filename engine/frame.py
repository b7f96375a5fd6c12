"""The journal's layouts: a 4 KiB segment header, then frames, each the unit of durability.

Little-endian, every part a multiple of 64 bytes:

    segment header   8 B "RSWJRNL1", u32 version, u32 shard, u64 first_seq, 16 B hash and u32
                     checksum of the frame before the segment (zero in the first), zeros; its last
                     4 bytes are the CRC32C of the rest
    frame            u32 magic, u16 version: the rules under which it is applied, u16 flags (0),
                     u32 commands, u32 bytes of them,
                     u64 first_seq, u64 ts_ns, u32 checksum of the frame before, u32 CRC32C of the
                     commands, 20 B zeros, u32 CRC32C of these 60 bytes: "the frame's checksum";
                     then the commands, 64 B each

The chain of checksums makes a frame valid in one place of one journal only. A journal that an
earlier release began under older rules is continued under today's: each frame keeps its own.
"""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import crc32c

from engine.limits import FRAME_COMMANDS_MAX, RULES, RULES_OLDEST
from engine.wire import COMMAND_BYTES

FRAME_HEADER_BYTES = 64
SEGMENT_HEADER_BYTES = 4096
FRAME_BYTES_MAX = FRAME_HEADER_BYTES + FRAME_COMMANDS_MAX * COMMAND_BYTES
SEGMENT_VERSION = 1
FRAME_MAGIC = b"RSWF"
SEGMENT_MAGIC = b"RSWJRNL1"

_FRAME = struct.Struct("<4sHHIIQQII20s")
_SEGMENT = struct.Struct("<8sIIQ16sI")
_CRC = struct.Struct("<I")
CRC_BYTES = _CRC.size


class Link(NamedTuple):
    """Where a journal has got to: what the next frame must follow."""

    next_seq: int
    crc: int  # the last frame's checksum
    frame_hash: bytes  # BLAKE2b-128 of the last frame's header
    next_ts_ns: int  # no command may be earlier: later than the last one


START = Link(next_seq=1, crc=0, frame_hash=bytes(16), next_ts_ns=0)


class FrameHeader(NamedTuple):
    length: int  # in commands
    first_seq: int
    ts_ns: int
    previous_crc: int
    commands_crc: int
    crc: int
    rules: int


class SegmentHeader(NamedTuple):
    shard: int
    first_seq: int
    previous_hash: bytes
    previous_crc: int


class Unreadable(NamedTuple):
    """Bytes that are not what should stand there, and why."""

    why: str
    intact: bool = False  # its checksum is right: it was written so, and is no torn write
    is_newer: bool = False  # a later release wrote it


def seal_frame(frame: bytearray, *, first_seq: int, ts_ns: int, after: Link, step_ns: int) -> Link:
    """Fills the 64 bytes kept free before the commands. Returns the link that the frame makes."""
    commands = memoryview(frame)[FRAME_HEADER_BYTES:]
    count = len(commands) // COMMAND_BYTES
    _FRAME.pack_into(
        frame,
        0,
        FRAME_MAGIC,
        RULES,
        0,
        count,
        len(commands),
        first_seq,
        ts_ns,
        after.crc,
        crc32c.crc32c(commands),
        bytes(20),
    )
    crc = crc32c.crc32c(memoryview(frame)[: _FRAME.size])
    _CRC.pack_into(frame, _FRAME.size, crc)
    return Link(
        next_seq=first_seq + count,
        crc=crc,
        frame_hash=header_hash(memoryview(frame)[:FRAME_HEADER_BYTES]),
        next_ts_ns=ts_ns + count * step_ns,
    )


def read_frame_header(data: bytes | memoryview) -> FrameHeader | Unreadable:
    """Of exactly 64 bytes. What it finds is whole; whether it belongs there is not looked at."""
    magic, version, flags, count, size, first_seq, ts_ns, previous_crc, commands_crc, zeros = (
        _FRAME.unpack_from(data)
    )
    (crc,) = _CRC.unpack_from(data, _FRAME.size)
    if magic != FRAME_MAGIC:
        return Unreadable("it does not begin as a frame does")
    if crc != crc32c.crc32c(data[: _FRAME.size]):
        return Unreadable("the checksum of its header is wrong")
    if version > RULES:
        return _newer(version, RULES)
    if version < RULES_OLDEST or flags or any(zeros):
        return Unreadable(
            f"its version is {version} (flags {flags}), and this engine reads {RULES_OLDEST} to "
            f"{RULES}",
            intact=True,
        )
    if not 0 < count <= FRAME_COMMANDS_MAX or size != count * COMMAND_BYTES:
        return Unreadable(f"it counts {count} commands in {size} bytes", intact=True)
    return FrameHeader(count, first_seq, ts_ns, previous_crc, commands_crc, crc, version)


def _newer(version: int, newest: int) -> Unreadable:
    return Unreadable(
        f"a newer release wrote it (version {version}; this one reads up to {newest})",
        intact=True,
        is_newer=True,
    )


def header_hash(header: bytes | memoryview) -> bytes:
    return hashlib.blake2b(header, digest_size=16).digest()


def segment_header(*, shard: int, after: Link) -> bytes:
    fields = _SEGMENT.pack(
        SEGMENT_MAGIC, SEGMENT_VERSION, shard, after.next_seq, after.frame_hash, after.crc
    )
    body = fields.ljust(SEGMENT_HEADER_BYTES - _CRC.size, b"\0")
    return body + _CRC.pack(crc32c.crc32c(body))


def read_segment_header(data: bytes) -> SegmentHeader | Unreadable:
    if len(data) < SEGMENT_HEADER_BYTES:
        return Unreadable(f"it ends inside its header, after {len(data)} bytes")
    magic, version, shard, first_seq, previous_hash, previous_crc = _SEGMENT.unpack_from(data)
    if magic != SEGMENT_MAGIC:
        return Unreadable("it does not begin as a journal does")
    body = data[: SEGMENT_HEADER_BYTES - _CRC.size]
    if _CRC.unpack_from(data, len(body))[0] != crc32c.crc32c(body):
        return Unreadable("the checksum of its header is wrong")
    if version > SEGMENT_VERSION:
        return _newer(version, SEGMENT_VERSION)
    if version != SEGMENT_VERSION:
        return Unreadable(f"its version is {version}, this engine reads {SEGMENT_VERSION}")
    return SegmentHeader(shard, first_seq, previous_hash, previous_crc)
