"""One connection to the monolith: writes a request, and reads its answer for the client."""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from bridge.config_rules import upstream_address
from bridge.limits import (
    ANSWER_BODY_BYTES_MAX,
    INFORMATIONAL_MAX,
    UPSTREAM_FRESH_S,
    UPSTREAM_IDLE_S,
)
from bridge.proxy.plane import head as h
from bridge.proxy.plane.body import (
    LAST_CHUNK,
    Body,
    ChunkedBody,
    EndlessBody,
    LengthBody,
    chunk,
    trailer_lines,
)
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.http1 import AnswerHead, AnswerHeads, Refused
from bridge.proxy.plane.tunnel import Tunnel

if TYPE_CHECKING:
    from bridge.proxy.plane.pool import UpstreamPool

_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)


class Address(NamedTuple):
    host: str  # or the path of a Unix socket
    port: int  # 0: that

    @classmethod
    def of(cls, upstream: str) -> Address:
        return cls(*upstream_address(upstream))

    @property
    def authority(self) -> bytes:
        return f"{self.host}:{self.port}".encode() if self.port else b"localhost"

    def __str__(self) -> str:
        return f"http://{self.host}:{self.port}" if self.port else f"unix:{self.host}"

    async def connect(self, protocol: Callable[[], _Protocol]) -> _Protocol:
        loop = asyncio.get_running_loop()
        if self.port:
            return (await loop.create_connection(protocol, self.host, self.port))[1]
        return (await loop.create_unix_connection(protocol, self.host))[1]


class UpstreamConnection(asyncio.Protocol):
    """One connection to the monolith, with at most one exchange on it."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._heads = AnswerHeads(pool.kinds)
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self.idle_since = 0.0
        self.is_reading = True
        self._exchange: Exchange | None = None
        self._body: Body | None = None  # of the answer, once its head has come
        self._rechunk = False  # as the client gets it
        self._informed = 0  # answers before the real one
        self._reusable = False
        self._out: list[bytes] = []  # of the answer, not yet written to the client
        self._tunnel: Tunnel | None = None  # once protocols are switched
        self._poll = select.poll()

    # The pool's and the client connection's side.

    def begin(self, exchange: Exchange, data: bytes) -> None:
        self._exchange = exchange
        self._informed = 0
        exchange.upstream = self
        self._heads.upgrade = exchange.upgrade
        self._heads.no_chunks = exchange.version_10
        self.transport.write(data)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def abandon(self) -> None:
        """The exchange is given up: what of it has reached the monolith can't be taken back."""
        self._exchange = None
        self.transport.abort()

    def pause_reading(self) -> None:
        """The client does not read what it gets."""
        self.is_reading = False
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self.is_reading:
            self.is_reading = True
            self.transport.resume_reading()

    def is_usable(self, now: float) -> bool:
        if self.transport.is_closing():
            return False
        idle_s = now - self.idle_since
        return idle_s < UPSTREAM_FRESH_S or (idle_s < UPSTREAM_IDLE_S and not self._poll.poll(0))

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self._poll.register(transport.get_extra_info("socket").fileno(), select.POLLIN)

    def pause_writing(self) -> None:
        if self._tunnel is not None:
            self._tunnel.full(self.transport)
        elif self._exchange is not None and self._exchange.client is not None:
            self._exchange.client.pause_for_upstream()

    def resume_writing(self) -> None:
        if self._tunnel is not None:
            self._tunnel.free(self.transport)
        elif self._exchange is not None and self._exchange.client is not None:
            self._exchange.client.resume_for_upstream()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.received(self.transport, data)
        elif self._exchange is None:
            self.transport.abort()  # it answers nothing
        elif self._body is not None:
            self._read_body(self._exchange, self._body, data)
        else:
            self._read_head(self._exchange, data)

    def eof_received(self) -> bool:
        return self._tunnel is not None and self._tunnel.ended(self.transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)
        if self._tunnel is not None:
            self._tunnel.lost(self.transport)
        elif self._exchange is not None:
            if isinstance(self._body, EndlessBody) and error is None:
                self._finish(self._exchange)
            else:
                self._fail(HTTPStatus.BAD_GATEWAY)

    # Parts of these.

    def _read_head(self, exchange: Exchange, data: bytes) -> None:
        while True:
            head = self._heads.feed(data)
            if head is None:
                return
            if isinstance(head, Refused):
                self._fail(HTTPStatus.BAD_GATEWAY)
                return
            data = self._heads.rest
            if head.status >= HTTPStatus.OK:
                self._read_body(exchange, self._begin(exchange, head), data)
                return
            if head.status == HTTPStatus.SWITCHING_PROTOCOLS:
                self._switch(exchange, head, data)
                return
            self._informed += 1
            if self._informed > INFORMATIONAL_MAX:
                self._fail(HTTPStatus.BAD_GATEWAY)
                return
            self._inform(exchange, head)

    def _inform(self, exchange: Exchange, head: AnswerHead) -> None:
        """1xx: passed on to a client that can understand it and has not had it from us."""
        if head.status == HTTPStatus.CONTINUE:
            exchange.awaits_continue = False
        if not exchange.version_10 and not exchange.continued:
            self._out += (head.line, *head.lines, h.CRLF)
            self._flush(exchange)

    def _switch(self, exchange: Exchange, head: AnswerHead, rest: bytes) -> None:
        """101: from here on both sides talk through us, unread."""
        client = exchange.client
        if client is None or not exchange.upgrade:
            self._fail(HTTPStatus.BAD_GATEWAY)
            return
        exchange.status = head.status
        self._out += (head.line, *head.lines, b"Connection: Upgrade\r\n\r\n", rest)
        self._flush(exchange)
        self._exchange = None
        exchange.upstream = None
        self._tunnel = Tunnel(client.transport, self.transport)
        client.tunnel(self._tunnel)

    def _begin(self, exchange: Exchange, head: AnswerHead) -> Body:
        """The final answer: its head for the client, and how its body is read."""
        exchange.status = head.status
        exchange.response_started = True
        body: Body
        if exchange.method == b"HEAD" or head.status in _BODILESS:
            body = LengthBody(0)
        elif head.chunked:
            body = ChunkedBody()
        else:
            body = LengthBody(head.length) if head.length >= 0 else EndlessBody()
        self._body = body
        self._rechunk = isinstance(body, ChunkedBody) and not exchange.version_10
        endless = isinstance(body, EndlessBody)
        self._reusable = head.keep_alive and not endless
        unframed = isinstance(body, ChunkedBody) and exchange.version_10
        client = exchange.client
        stopping = client is not None and client.is_stopping()
        if endless or unframed or stopping or exchange.may_lack_body:
            exchange.keep_alive = False
        connection = b""
        if not exchange.keep_alive:
            connection = b"Connection: close\r\n"
        elif exchange.version_10:
            connection = b"Connection: keep-alive\r\n"
        self._out += (head.line, *head.lines, connection, h.CRLF)
        return body

    def _read_body(self, exchange: Exchange, body: Body, data: bytes) -> None:
        for piece in body.feed(data):
            self._out.append(chunk(piece) if self._rechunk else piece)
            if exchange.response_body is not None:
                _keep(exchange, piece)
        if body.done:
            if self._rechunk:
                self._out += (LAST_CHUNK, trailer_lines(body.trailers, self._pool.kinds), h.CRLF)
            if body.rest:
                self._reusable = False  # the answer is whole; what follows it is not an answer
            self._finish(exchange)
            return
        self._flush(exchange)
        if body.flawed:
            self._fail(HTTPStatus.BAD_GATEWAY)
        else:
            exchange.since = self._loop.time()

    def _flush(self, exchange: Exchange) -> None:
        if self._out:
            if exchange.client is not None:
                exchange.client.transport.write(b"".join(self._out))
            self._out.clear()

    def _finish(self, exchange: Exchange) -> None:
        self._flush(exchange)
        self._exchange = None
        self._body = None
        exchange.upstream = None
        reusable = self._reusable and exchange.request_done and not exchange.out
        if reusable and not self.transport.is_closing():
            self.resume_reading()
            self._pool.give_back(self)
        elif not self.transport.is_closing():
            self.transport.close()
        self._pool.answered(exchange)

    def _fail(self, status: HTTPStatus) -> None:
        """The monolith's answer is unusable, or none."""
        exchange = self._exchange
        self._exchange = None
        if not self.transport.is_closing():
            self.transport.abort()
        if exchange is not None:
            exchange.upstream = None
            self._pool.failed(exchange, status)


def _keep(exchange: Exchange, piece: bytes) -> None:
    exchange.response_size += len(piece)
    if exchange.response_size > ANSWER_BODY_BYTES_MAX:
        exchange.response_body = None
    elif exchange.response_body is not None:
        exchange.response_body.append(piece)
