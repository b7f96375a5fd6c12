"""One connection to the monolith: writes a request, and reads its answer for the client."""

from __future__ import annotations

import asyncio
import select
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from bridge.limits import (
    ANSWER_BODY_BYTES_MAX,
    HEAD_BYTES_MAX,
    UPSTREAM_FRESH_S,
    UPSTREAM_IDLE_S,
)
from bridge.proxy import head
from bridge.proxy.exchange import Exchange

if TYPE_CHECKING:
    from bridge.proxy.pool import UpstreamPool

_UNANSWERED = range(200)  # 0, or an informational status


class UnexpectedAnswer(Exception):
    """Bytes from the monolith that answer nothing."""


class UpstreamConnection(asyncio.Protocol):
    """One connection to the monolith, with at most one exchange on it."""

    def __init__(self, pool: UpstreamPool) -> None:
        self._pool = pool
        self._parser = httptools.HttpResponseParser(self)
        self._kinds = pool.kinds
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self._exchange: Exchange | None = None
        self._tunnel: asyncio.Transport | None = None  # the client's, once protocols are switched
        self._poll = select.poll()
        self.idle_since = 0.0
        self._is_reading = True
        self._out: list[bytes] = []  # of the answer, not yet written to the client
        self._reset()

    def _reset(self) -> None:
        self._reason = b""
        self._line_at = 0  # where the status line goes in `_out`
        self._in_head = False
        self._head_size = 0
        self._connection: set[bytes] = set()
        self._length_known = False
        self._chunked = False  # as the monolith sends it
        self._rechunk = False  # as the client gets it
        self._bodiless = False
        self._informational = False
        self._until_close = False
        self._trailers = False
        self._complete = False
        self._reusable = False

    # The pool's and the client connection's side.

    def begin(self, exchange: Exchange, data: bytes) -> None:
        self._exchange = exchange
        exchange.upstream = self
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
        self._is_reading = False
        self.transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading:
            self._is_reading = True
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
            self._tunnel.pause_reading()
        elif self._exchange is not None and self._exchange.client is not None:
            self._exchange.client.pause_for_upstream()

    def resume_writing(self) -> None:
        if self._tunnel is not None:
            self._tunnel.resume_reading()
        elif self._exchange is not None and self._exchange.client is not None:
            self._exchange.client.resume_for_upstream()

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.write(data)
            return
        if self._in_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as switched:
            self._switch(data[switched.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._complete:
                self._fail(HTTPStatus.BAD_GATEWAY)
                return
            self._reusable = False  # the answer is whole; what follows it is not an answer
        if self._in_head:
            if self._head_size > HEAD_BYTES_MAX:
                self._fail(HTTPStatus.BAD_GATEWAY)
            return
        self._flush()
        if self._complete:
            self._finish()

    def eof_received(self) -> bool:
        if self._tunnel is not None:
            self._tunnel.close()
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._pool.lost(self)
        if self._tunnel is not None:
            self._tunnel.close()
        elif self._exchange is not None:
            if self._until_close and error is None:
                self._flush()
                self._finish()
            else:
                self._fail(HTTPStatus.BAD_GATEWAY)

    # The response parser's callbacks.

    def on_message_begin(self) -> None:
        if self._exchange is None or self._complete:
            raise UnexpectedAnswer
        self._in_head = True
        self._head_size = 0
        self._line_at = len(self._out)
        self._out.append(b"")

    def on_status(self, reason: bytes) -> None:
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        kind = self._kinds[name]
        if not self._in_head:
            if self._rechunk and kind == head.PLAIN:  # no trailer may change how we are read
                self._out += (name, head.COLON, value, head.CRLF)
        elif kind == head.PLAIN or kind >= head.FORWARDED_FOR:
            self._out += (name, head.COLON, value, head.CRLF)
        elif kind == head.CONTENT_LENGTH:
            self._length_known = True
            self._out += (name, head.COLON, value, head.CRLF)
        elif kind == head.TRANSFER_ENCODING:
            self._chunked = True
            exchange = self._exchange
            if exchange is not None and not exchange.version_10:
                self._out += (name, head.COLON, value, head.CRLF)
        elif kind == head.CONNECTION:
            self._connection |= head.tokens(value)
        elif kind == head.UPGRADE and self._exchange is not None and self._exchange.upgrade:
            self._out += (name, head.COLON, value, head.CRLF)

    def on_headers_complete(self) -> None:
        exchange = self._exchange
        if exchange is None:
            raise UnexpectedAnswer
        self._in_head = False
        status = self._parser.get_status_code()
        if self._connection:
            self._drop_nominated()
        if status in _UNANSWERED:
            self._inform(exchange, status)
            return
        self._answer_head(exchange, status)

    def on_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or self._complete:
            raise UnexpectedAnswer
        if self._rechunk:
            self._out += (b"%x\r\n" % len(data), data, head.CRLF)
        else:
            self._out.append(data)
        if exchange.response_body is not None:
            self._keep(exchange, data)

    def on_chunk_header(self) -> None:
        """Marks where trailers may begin: nothing but them comes between the last chunk and the
        end.
        """
        self._line_at = len(self._out)

    def on_message_complete(self) -> None:
        if self._informational:
            self._reset()
            return
        if self._complete:
            return
        if self._rechunk:
            self._out.insert(self._line_at, head.LAST_CHUNK)
            self._out.append(head.CRLF)
        self._complete = True
        self._reusable = self._parser.should_keep_alive()

    # Parts of these.

    def _inform(self, exchange: Exchange, status: int) -> None:
        """1xx: passed on to a client that can understand it and has not had it from us."""
        self._informational = True
        if exchange.version_10 or exchange.continued:
            del self._out[self._line_at :]
            return
        self._out[self._line_at] = head.status_line(status, self._reason)
        if status == HTTPStatus.SWITCHING_PROTOCOLS and exchange.upgrade:
            self._informational = False
            exchange.status = status
            self._out.append(b"Connection: Upgrade\r\n")
        self._out.append(head.CRLF)

    def _answer_head(self, exchange: Exchange, status: int) -> None:
        exchange.status = status
        exchange.response_started = True
        self._bodiless = exchange.method == b"HEAD" or status in (204, 304)
        if not self._bodiless:
            self._until_close = not self._chunked and not self._length_known
            self._rechunk = self._chunked and not exchange.version_10
            if self._until_close or (self._chunked and exchange.version_10):
                exchange.keep_alive = False
        client = exchange.client
        if client is not None and client.is_stopping():
            exchange.keep_alive = False
        out = self._out
        out[self._line_at] = head.status_line(status, self._reason)
        if not exchange.keep_alive:
            out.append(b"Connection: close\r\n")
        elif exchange.version_10:
            out.append(b"Connection: keep-alive\r\n")
        out.append(head.CRLF)
        if exchange.method == b"HEAD":
            # llhttp does not know of HEAD and waits for a body that never comes.
            self._complete = True
            self._reusable = (
                b"close" not in self._connection and self._parser.get_http_version() == "1.1"
            )
            self._parser = httptools.HttpResponseParser(self)

    def _drop_nominated(self) -> None:
        lines = self._out[self._line_at + 1 :]
        self._out[self._line_at + 1 :] = head.without(lines, head.nominated(self._connection))

    def _keep(self, exchange: Exchange, data: bytes) -> None:
        exchange.response_size += len(data)
        if exchange.response_size > ANSWER_BODY_BYTES_MAX:
            exchange.response_body = None
        elif exchange.response_body is not None:
            exchange.response_body.append(data)

    def _flush(self) -> None:
        out = self._out
        if not out:
            return
        exchange = self._exchange
        if exchange is not None and exchange.client is not None:
            exchange.client.transport.write(b"".join(out))
        out.clear()
        self._line_at = 0

    def _finish(self) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        self._exchange = None
        reusable = self._reusable and exchange.request_done and not exchange.out
        self._reset()
        if reusable and not self.transport.is_closing():
            self.resume_reading()
            self._pool.give_back(self)
        elif not self.transport.is_closing():
            self.transport.close()
        exchange.upstream = None
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

    def _switch(self, rest: bytes) -> None:
        """101: from here on both sides talk through us, unread."""
        exchange = self._exchange
        if exchange is None or exchange.client is None or not exchange.upgrade:
            self._fail(HTTPStatus.BAD_GATEWAY)
            return
        self._flush()
        self._exchange = None
        exchange.upstream = None
        self._tunnel = exchange.client.transport
        exchange.client.tunnel_to(self.transport)
        if rest:
            self._tunnel.write(rest)
