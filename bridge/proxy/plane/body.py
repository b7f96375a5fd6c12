"""What follows a head: a body of a known length, in chunks, or until the connection ends. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Protocol

from bridge.limits import CHUNK_EXTENSION_BYTES_MAX, FIELDS_MAX, HEAD_BYTES_MAX
from bridge.proxy.plane import head as h
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.http1 import EACH_FIELD, FIELDS, FIELDS_BEGUN, Field

_EXTENSION = rb"(?:;[^\r\n\x00]{0,%d})?" % CHUNK_EXTENSION_BYTES_MAX
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})" + _EXTENSION + rb"\r\n")
_CHUNK_SIZE_BEGUN = re.compile(rb"(?:[0-9A-Fa-f]{1,16}" + _EXTENSION + rb"\r?)?")

LAST_CHUNK = b"0\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Body(Protocol):
    """Reads one body. `feed` gives what is content of a piece; once `done`, what followed the body
    is in `rest`. Once `flawed` the message can't be read on.
    """

    done: bool
    flawed: bool
    rest: bytes
    trailers: Sequence[Field]

    def feed(self, data: bytes) -> list[bytes]: ...


class LengthBody:
    __slots__ = ("_left", "done", "rest")

    flawed = False
    trailers: Sequence[Field] = ()

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = not length
        self.rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        if len(data) < self._left:
            self._left -= len(data)
            return [data] if data else []
        piece, self.rest = data[: self._left], data[self._left :]
        self._left = 0
        self.done = True
        return [piece] if piece else []


class EndlessBody:
    """Until the connection ends."""

    __slots__ = ()

    done = False
    flawed = False
    rest = b""
    trailers: Sequence[Field] = ()

    def feed(self, data: bytes) -> list[bytes]:
        return [data] if data else []


_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class ChunkedBody:
    __slots__ = ("_kept", "_left", "_state", "done", "flawed", "rest", "trailers")

    def __init__(self) -> None:
        self.done = False
        self.flawed = False
        self.rest = b""
        self.trailers: Sequence[Field] = ()
        self._state = _SIZE
        self._left = 0  # of this chunk
        self._kept = b""

    def feed(self, data: bytes) -> list[bytes]:
        if self._kept:
            data = self._kept + data
        pieces: list[bytes] = []
        at, before = 0, -1
        while at != before and not self.done and not self.flawed:
            before = at
            if self._state == _DATA:
                piece = data[at : at + self._left]
                if piece:
                    pieces.append(piece)
                    at += len(piece)
                    self._left -= len(piece)
                    if not self._left:
                        self._state = _DATA_END
            elif self._state == _TRAILERS:
                at = self._read_trailers(data, at)
            else:
                at = self._read_line(data, at)
        if self.done:
            self.rest = data[at:]
        else:
            self._kept = data[at:]
        return pieces

    def _read_line(self, data: bytes, at: int) -> int:
        """The size of a chunk, or the end of its data."""
        if self._state == _DATA_END:
            if data.startswith(h.CRLF, at):
                self._state = _SIZE
                return at + 2
            self.flawed = data[at:] not in (b"", b"\r")
            return at
        size = _CHUNK_SIZE.match(data, at)
        if size is None:
            self.flawed = not _CHUNK_SIZE_BEGUN.fullmatch(data, at)
            return at
        self._left = int(size[1], 16)
        self._state = _DATA if self._left else _TRAILERS
        return size.end()

    def _read_trailers(self, data: bytes, at: int) -> int:
        if data.startswith(h.CRLF, at):
            self.done = True
            return at + 2
        end = data.find(b"\r\n\r\n", at, at + HEAD_BYTES_MAX)
        if end < 0:
            too_large = len(data) - at >= HEAD_BYTES_MAX
            self.flawed = too_large or not FIELDS_BEGUN.fullmatch(data, at)
            return at
        if not FIELDS.fullmatch(data, at, end + 2):
            self.flawed = True
            return at
        self.trailers = EACH_FIELD.findall(data, at, end + 2)
        self.flawed = len(self.trailers) > FIELDS_MAX
        self.done = not self.flawed
        return end + 4


def trailer_lines(trailers: Sequence[Field], kinds: HeaderKinds) -> bytes:
    """Those that go on: none may change how the message is read, or who sent it."""
    return b"".join(line for line, name, _ in trailers if not kinds[name])
