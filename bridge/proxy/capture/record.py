"""Records in files that a kill or a bad disk may have damaged: found again, or found out.

A record is `magic`, the length of its body and the CRC32C of its body (u32 LE), and its body.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator

import crc32c

from bridge.limits import SPOOL_RECORD_BYTES_MAX

_FRAME = struct.Struct("<4sII")


def encode(magic: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _FRAME.pack(magic, len(body), crc32c.crc32c(body)) + body


def decode(magic: bytes, data: bytes, *, is_end: bool) -> Iterator[tuple[bytes | None, int]]:
    """Bodies, each with where it ends; None where something had to be skipped. `is_end`: no more
    follows, so that an unfinished record is a torn one. Else it ends before that, having moved on
    if `data` is as long as the longest record.
    """
    at = 0
    while at < len(data):
        body, end = _one(magic, data, at)
        if body is None and end > len(data) and at and not is_end:
            return
        if body is None:
            found = data.find(magic, at + 1)
            # The last bytes may be the first ones of a magic.
            end = found if found >= 0 else len(data) - (0 if is_end else len(magic) - 1)
        yield body, end
        at = end


def write(fd: int, data: bytes) -> None:
    """All of it. Raises OSError, perhaps after a part."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def _one(magic: bytes, data: bytes, at: int) -> tuple[bytes | None, int]:
    """None: not one here; ending beyond the data, more of it may show one."""
    if len(data) - at < _FRAME.size:
        return None, at + _FRAME.size
    found, length, crc = _FRAME.unpack_from(data, at)
    if found != magic or length > SPOOL_RECORD_BYTES_MAX:
        return None, at
    end = at + _FRAME.size + length
    body = data[at + _FRAME.size : end]
    return (body if len(body) == length and crc32c.crc32c(body) == crc else None), end
