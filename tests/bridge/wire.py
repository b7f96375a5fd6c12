"""HTTP/1 as a strict reader sees it, and sockets that keep every byte: what the tests that attack
the proxy share.

The reader is none of the proxy's: it is short, slow and by regular expressions, so that a mistake
in the proxy's is not repeated here.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

from bridge.limits import HEAD_BYTES_MAX

PATIENCE_S = 10.0
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([\t\x20-\x7e\x80-\xff]*)\r\n")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})(;[^\r\n\0]{0,256})?\r\n")
_CHUNK_LINE_BYTES_MAX = 16 + 1 + 256 + 2


class Malformed(Exception):
    """No message by the strictest reading."""


class Field(NamedTuple):
    name: bytes  # in lower case
    value: bytes  # without the space around it
    line: bytes  # as it came, with its CRLF


class Message(NamedTuple):
    """One request or answer; the chunks of a body are taken off, since they may be cut anew."""

    head: bytes  # with its empty line
    body: bytes = b""
    framing: str = "none"  # or "length", "chunked", "close"; "left": its body was not waited for
    trailers: bytes = b""

    @property
    def start(self) -> bytes:
        return self.head.partition(b"\r\n")[0]

    @property
    def method(self) -> bytes:
        return self.head.partition(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.start.split(b" ")[1]

    @property
    def status(self) -> int:
        return int(self.head.split(b" ", 2)[1][:3])


def fields(lines: bytes) -> list[Field]:
    """Of field lines, each with its CRLF."""
    found, at = [], 0
    while at < len(lines):
        match = _FIELD.match(lines, at)
        if match is None:
            raise Malformed(lines[at : at + 80])
        found.append(Field(match[1].lower(), match[2].strip(b" \t"), match[0]))
        at = match.end()
    return found


def fields_of(head: bytes) -> list[Field]:
    return fields(head[head.index(b"\r\n") + 2 : -2])


def take(
    data: bytes | bytearray, *, answers: bytes = b"", ended: bool = False
) -> tuple[Message, int] | None:
    """The first message of the data and its length, or None while it is incomplete.

    `answers` is the method of the request that an answer answers; a request has none. `ended`: no
    more comes.
    """
    at = 0
    while not answers and at < 4 and data.startswith(b"\r\n", at):
        at += 2
    end = data.find(b"\r\n\r\n", at) + 4
    if end < 4:
        return None
    head = bytes(data[at:end])
    framing, length = _framing(head, answers)
    if framing == "none":
        return Message(head), end
    if framing == "length":
        if len(data) < end + length:
            return None
        return Message(head, bytes(data[end : end + length]), framing), end + length
    if framing == "close":
        return (Message(head, bytes(data[end:]), framing), len(data)) if ended else None
    unchunked = _unchunked(data, end)
    if unchunked is None:
        return None
    body, trailers, end = unchunked
    return Message(head, body, framing, trailers), end


def _framing(head: bytes, answers: bytes) -> tuple[str, int]:
    found = fields_of(head)
    lengths = [each.value for each in found if each.name == b"content-length"]
    codings = [each.value.lower() for each in found if each.name == b"transfer-encoding"]
    if answers:
        status = Message(head).status
        if answers == b"HEAD" or status < 200 or status in (204, 304):
            return "none", 0
    if codings == [b"chunked"] and not lengths:
        return "chunked", 0
    if codings or len(lengths) > 1 or (lengths and not re.fullmatch(rb"\d{1,18}", lengths[0])):
        raise Malformed(head)
    if lengths:
        return "length", int(lengths[0])
    return ("close", 0) if answers else ("none", 0)


def _chunks(data: bytes | bytearray, at: int) -> Iterator[tuple[int, int]]:
    """Where the data of each chunk begins and ends, the last one's included; stops where the bytes
    stop.
    """
    while True:
        line = _CHUNK.match(data, at)
        if line is None:
            line_begun = data[at : at + _CHUNK_LINE_BYTES_MAX]
            if b"\r\n" in line_begun or len(line_begun) == _CHUNK_LINE_BYTES_MAX:
                raise Malformed(bytes(data[at : at + 40]))
            return
        size = int(line[1], 16)
        yield line.end(), line.end() + size
        if not size:
            return
        at = line.end() + size + 2
        if len(data) >= at and data[at - 2 : at] != b"\r\n":
            raise Malformed(bytes(data[at - 20 : at + 20]))


def _unchunked(data: bytes | bytearray, at: int) -> tuple[bytes, bytes, int] | None:
    pieces = list(_chunks(data, at))
    if not pieces or pieces[-1][0] != pieces[-1][1]:
        return None
    last = pieces[-1][0]
    end = last if data.startswith(b"\r\n", last) else data.find(b"\r\n\r\n", last) + 2
    if end < 2 and len(data) - last > HEAD_BYTES_MAX:
        raise Malformed("trailers")
    if end < 2 or len(data) < end + 2:
        return None
    trailers = bytes(data[last:end])
    if len(trailers) > HEAD_BYTES_MAX:
        raise Malformed("trailers")
    fields(trailers)
    return b"".join(bytes(data[a:b]) for a, b in pieces), trailers, end + 2


def content_so_far(data: bytes | bytearray) -> bytes:
    """What has come of the first message's body."""
    head, _, body = bytes(data).partition(b"\r\n\r\n")
    if not re.search(rb"(?i)\r\ntransfer-encoding:[ \t]*chunked", head):
        return body
    return b"".join(body[begin:end] for begin, end in _chunks(body, 0))


class Wire(asyncio.Protocol):
    """One end of a connection. What has come stays in `buffer` until it is taken."""

    def __init__(self, heard: asyncio.Event | None = None) -> None:
        self.heard = heard or asyncio.Event()  # several ends may share it
        self.buffer = bytearray()
        self.all = bytearray()
        self.ended = False
        self.left = False  # what still comes is nobody's business
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.heard.set()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.all += data
        self.heard.set()

    def eof_received(self) -> bool:
        self.ended = True
        self.heard.set()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self.heard.set()

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    async def sent(self, pieces: list[bytes]) -> None:
        """One after the other, and no two of them in one read, as far as it lies with us."""
        for piece in pieces:
            if self.transport.is_closing():
                return  # the other side wants no more
            self.send(piece)
            if len(pieces) > 1:
                for _ in range(3):
                    await asyncio.sleep(0)

    def fin(self) -> None:
        """No more is sent."""
        if not self.transport.is_closing():
            with suppress(OSError, RuntimeError):  # the other side has gone meanwhile
                self.transport.write_eof()

    def taken(self, size: int) -> bytes:
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    async def message(self, answers: bytes = b"") -> Message:
        await when(
            self.heard,
            lambda: take(self.buffer, answers=answers, ended=self.ended) or self.ended,
            self,
        )
        found = take(self.buffer, answers=answers, ended=self.ended)
        if found is None:
            raise ConnectionError(f"ended within a message: {bytes(self.buffer)[:200]!r}")
        self.taken(found[1])
        return found[0]

    async def end(self) -> bytes:
        """All that comes until the other side has ended."""
        await when(self.heard, lambda: self.ended, self)
        return self.taken(len(self.buffer))

    def close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()


async def when(heard: asyncio.Event, ready: Callable[[], object], what: object = "") -> None:
    """Waits for what becomes true by bytes that come."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not ready():
                heard.clear()
                await heard.wait()
    except TimeoutError:
        seen = bytes(what.buffer)[:300] if isinstance(what, Wire) else what
        raise AssertionError(f"waited in vain; what came last: {seen!r}") from None


class Upstream:
    """Listens where the monolith would; a wire for each connection."""

    def __init__(self) -> None:
        self.heard = asyncio.Event()
        self.wires: list[Wire] = []
        self.port = 0
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        """As the proxy's configuration has it."""
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Upstream:
        self._server = await asyncio.get_running_loop().create_server(self._made, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for wire in self.wires:
            if wire.transport is not None:
                wire.transport.abort()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._server.wait_closed(), 1)

    def _made(self) -> Wire:
        wire = Wire(self.heard)
        self.wires.append(wire)
        return wire

    async def busy(self) -> Wire:
        """A connection on which something has come that nobody has taken."""
        await when(self.heard, self._with_bytes, self)
        found = self._with_bytes()
        assert found is not None
        return found

    def _with_bytes(self) -> Wire | None:
        return next((wire for wire in self.wires if wire.buffer and not wire.left), None)


async def connect(port: int) -> Wire:
    _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", port)
    return wire


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[Wire]:
    wire = await connect(port)
    try:
        yield wire
    finally:
        wire.transport.abort()


@asynccontextmanager
async def doing(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Meanwhile."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
