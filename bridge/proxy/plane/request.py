"""Reads the requests of one connection, and writes them as the monolith will get them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from bridge.limits import HEAD_BYTES_MAX
from bridge.proxy.plane.body import LAST_CHUNK, Body, ChunkedBody, LengthBody, chunk
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.head import CRLF
from bridge.proxy.plane.http1 import Refused, RequestHead, RequestHeads

if TYPE_CHECKING:
    from bridge.proxy.plane.client import ClientConnection
    from bridge.proxy.plane.server import Server

_log = logging.getLogger(__name__)


class RequestReader:
    def __init__(
        self,
        client: ClientConnection,
        server: Server,
        address: bytes,
        deliver: Callable[[Exchange], None],
    ) -> None:
        self._client = client
        self._server = server
        self._address = address
        self._deliver = deliver  # called once a request's head is complete, or it is refused
        self._heads = RequestHeads(server.kinds)
        self._body: Body | None = None  # of the request in `reading`
        self._unread = b""  # came while nothing could be read
        self._forwarded = b"X-Forwarded-For: %b\r\n" % address
        if server.tls:
            self._forwarded_tls = b"X-Forwarded-Proto: https\r\n"
        else:
            self._forwarded_tls = b""
        self.reading: Exchange | None = None  # the request whose body isn't complete yet
        self.ended = False  # no request comes after those delivered
        self.switching = False  # a request to switch protocols waits for its answer

    @property
    def in_head(self) -> bool:
        return self._heads.begun and not self.ended

    @property
    def midway(self) -> bool:
        """A part of a request has come, and not yet all of it."""
        return self.reading is not None or self.in_head

    def feed(self, data: bytes) -> None:
        """Delivers what it finds. After a malformed request, which is delivered as refused, it has
        ended.
        """
        if self._unread or self.switching:
            self._unread += data
            if self.switching and len(self._unread) > HEAD_BYTES_MAX:
                self.refuse(HTTPStatus.BAD_REQUEST)
            return
        while data and not self.ended:
            if self._body is not None:
                data = self._read_body(data, self._body)
            elif self.switching or not self._client.has_room():
                self._unread = data
                return
            else:
                data = self._read_head(data)

    def read_on(self) -> bool:
        """Reads what came while there was no room; False: there was nothing."""
        if not self._unread or self.switching or self.ended:
            return False
        data, self._unread = self._unread, b""
        self.feed(data)
        return True

    def refuse(self, status: int) -> None:
        """Refuses the request that is being read, and reads no further."""
        exchange = self.reading
        self.reading = None
        self.ended = True
        if exchange is not None:
            exchange.refused = exchange.refused or status
        else:
            exchange = Exchange(self._client)
            exchange.refused = status
            self._deliver(exchange)

    def switched(self) -> bytes:
        """The other protocol begins with these bytes."""
        self.ended = True
        return self._unread

    def not_switched(self) -> None:
        """The monolith has answered a request to switch protocols otherwise: HTTP goes on."""
        self.switching = False
        self.read_on()

    # Parts of these.

    def _read_head(self, data: bytes) -> bytes:
        """What is left to read."""
        head = self._heads.feed(data)
        if head is None:
            return b""
        if isinstance(head, Refused):
            _log.debug("a request is refused with %d: %s", head.status, head.reason)
            self.refuse(head.status)
            return b""
        exchange = self._exchange(head)
        self._deliver(exchange)
        if head.chunked:
            self._body = ChunkedBody()
        elif head.length:
            self._body = LengthBody(head.length)
        if self._body is not None:
            self.reading = exchange
        else:
            self._complete(exchange)
        return self._heads.rest

    def _exchange(self, head: RequestHead) -> Exchange:
        exchange = Exchange(self._client)
        exchange.method = head.method
        exchange.target = head.target
        exchange.version_10 = head.version_10
        exchange.keep_alive = head.keep_alive
        exchange.chunked = head.chunked
        exchange.upgrade = head.upgrade
        exchange.awaits_continue = head.awaits_continue
        exchange.request_id = head.request_id
        exchange.content_type = head.content_type or b""
        exchange.identity = head.identity or b""
        exchange.began = self._server.now
        exchange.found = found = self._server.router.match(
            head.method, head.target, head.override or b"", exchange.content_type
        )
        if found is not None:
            exchange.route, exchange.path_params = found.route, found.path_params
            if found.is_order:
                exchange.is_order = True
                exchange.body = []
        exchange.out = [self._head(exchange, head)]
        return exchange

    def _head(self, exchange: Exchange, head: RequestHead) -> bytes:
        """As the monolith will get it."""
        lines = head.lines
        if head.forwarded_at >= 0:
            lines[head.forwarded_at] = b"%b, %b\r\n" % (
                lines[head.forwarded_at][:-2],
                self._address,
            )
        else:
            lines.append(self._forwarded)
        if self._forwarded_tls and not head.forwarded_proto:
            lines.append(self._forwarded_tls)
        if not exchange.request_id:
            exchange.request_id = self._server.request_id()
            lines.append(b"X-Request-Id: %b\r\n" % exchange.request_id)
        if not head.has_host:
            lines.append(b"Host: %b\r\n" % self._server.authority)
        if exchange.upgrade:
            lines.append(b"Connection: Upgrade\r\n")
        return b"%b %b HTTP/1.1\r\n%b\r\n" % (head.method, head.target, b"".join(lines))

    def _read_body(self, data: bytes, body: Body) -> bytes:
        """What is left to read."""
        exchange = self.reading
        assert exchange is not None
        for piece in body.feed(data):
            exchange.awaits_continue = False  # it has not waited, or has heard
            if exchange.discarding:
                continue
            exchange.out.append(chunk(piece) if exchange.chunked else piece)
            if exchange.is_order:
                exchange.keep(piece)
        if body.flawed:
            self.refuse(HTTPStatus.BAD_REQUEST)
            return b""
        if not body.done:
            return b""
        if exchange.chunked and not exchange.discarding:
            # Trailers go no further: older Pumas read what follows the last chunk as the next
            # request (CVE-2023-40175).
            exchange.out.append(LAST_CHUNK + CRLF)
        self._body = self.reading = None
        self._complete(exchange)
        return body.rest

    def _complete(self, exchange: Exchange) -> None:
        exchange.request_done = True
        exchange.settle()
        self.switching = exchange.upgrade
        if not exchange.keep_alive:
            self.ended = True
