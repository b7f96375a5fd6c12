"""What stands around the proxy in its benchmark: a monolith that takes every order at once, and a
relay through which the way to Redis becomes slow.

Each is a process of its own. It says its port, takes a line `delay_ms bytes_per_s` whenever it is
to become slower, and ends with its standard input. Stopped (SIGSTOP) it is a peer that accepts and
never answers, killed one whose port is closed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys

import uvloop

BODY = (
    b'{"order":{"market":"BTC-USD","side":"buy","order_type":"limit","time_in_force":"gtc",'
    b'"price":"236.47","quantity":"2.0"}}'
)
ANSWER_END = b"]}}"
_ANSWER_BODY = (
    b'{"order":{"id":%d,"market":"BTC-USD","side":"buy","order_type":"limit",'
    b'"time_in_force":"gtc","price":"236.47","quantity":"2.0","remaining_quantity":"2.0",'
    b'"filled_quantity":"0.0","state":"open","created_at":"2015-05-01T00:00:00.000Z",'
    b'"updated_at":"2015-05-01T00:00:00.000Z","trades":[' + ANSWER_END
)
_ANSWER_HEAD = (
    b"HTTP/1.1 201 Created\r\nX-Frame-Options: SAMEORIGIN\r\nX-Content-Type-Options: nosniff\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nVary: Accept\r\n"
    b'ETag: W/"0123456789abcdef0123456789abcdef"\r\n'
    b"Cache-Control: max-age=0, private, must-revalidate\r\nX-Request-Id: 0123456789abcdef\r\n"
    b"X-Runtime: 0.001000\r\nContent-Length: %d\r\n\r\n"
)

_BACKLOG = 1024  # connections that a stopped peer has still accepted
_PIECE_BYTES_MAX = 65_536
_PIECE_S = 0.02  # a slow relay passes on what it may in such a time
_PIECE_BYTES_MIN = 256


class _Pace:
    """How slow a peer is."""

    delay_s = 0.0  # of each answer
    bytes_per_s = 0.0  # towards the far side; 0: as they come

    def take(self, line: bytes) -> None:
        delay_ms, bytes_per_s = line.split()
        self.delay_s, self.bytes_per_s = float(delay_ms) / 1000, float(bytes_per_s)


class _Monolith(asyncio.Protocol):
    """Takes every order."""

    orders = 0

    def __init__(self, pace: _Pace) -> None:
        self._pace = pace
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._got += data
        if self._got.endswith(BODY):
            self._got = b""
            if self._pace.delay_s:
                asyncio.get_running_loop().call_later(self._pace.delay_s, self._answer)
            else:
                self._answer()

    def _answer(self) -> None:
        if not self._transport.is_closing():
            _Monolith.orders += 1
            body = _ANSWER_BODY % _Monolith.orders
            self._transport.write(_ANSWER_HEAD % len(body) + body)


class _Relay:
    """Passes every connection on to one port, all of them together at its pace."""

    def __init__(self, pace: _Pace, port: int) -> None:
        self._pace = pace
        self._port = port
        self._turn = asyncio.Lock()  # the connections take turns, so that none of them starves

    async def take(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        with contextlib.closing(back), contextlib.suppress(OSError):
            far, there = await asyncio.open_connection("127.0.0.1", self._port)
            with contextlib.closing(there):
                answers = asyncio.create_task(self._answers(far, back))
                try:
                    await self._pass_on(near, there)
                finally:
                    answers.cancel()

    async def _pass_on(self, near: asyncio.StreamReader, there: asyncio.StreamWriter) -> None:
        while data := await near.read(self._piece()):
            if self._pace.bytes_per_s:
                async with self._turn:
                    await asyncio.sleep(len(data) / self._pace.bytes_per_s)
            there.write(data)
            await there.drain()

    async def _answers(self, far: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        later = asyncio.get_running_loop().call_later
        while data := await far.read(_PIECE_BYTES_MAX):
            if self._pace.delay_s:
                later(self._pace.delay_s, back.write, data)
            else:
                back.write(data)
        later(self._pace.delay_s, back.close)

    def _piece(self) -> int:
        if not self._pace.bytes_per_s:
            return _PIECE_BYTES_MAX
        return max(_PIECE_BYTES_MIN, int(self._pace.bytes_per_s * _PIECE_S))


async def _serve(kind: str, port: int) -> None:
    loop, pace = asyncio.get_running_loop(), _Pace()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    server: asyncio.Server
    if kind == "monolith":
        server = await loop.create_server(lambda: _Monolith(pace), "127.0.0.1", 0, backlog=_BACKLOG)
    else:
        relay = _Relay(pace, port)
        server = await asyncio.start_server(relay.take, "127.0.0.1", 0, backlog=_BACKLOG)
    os.write(sys.stdout.fileno(), b"%d\n" % server.sockets[0].getsockname()[1])
    while line := await lines.readline():
        pace.take(line)


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1], int(sys.argv[2])))
