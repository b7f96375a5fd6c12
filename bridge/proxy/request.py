"""Reads the requests of one connection: parses, checks, and writes them as the monolith will get
them.

llhttp in its strict mode refuses what two readers of HTTP could read differently: both lengths,
lengths that differ, bare line feeds, folded fields, odd chunk sizes. What it lets pass and we don't
is in `_check`.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import httptools

from bridge.limits import HEAD_BYTES_MAX, TARGET_BYTES_MAX
from bridge.proxy import head
from bridge.proxy.exchange import Exchange

if TYPE_CHECKING:
    from bridge.proxy.client import ClientConnection
    from bridge.proxy.server import Server

_HTTP_1_1 = b" HTTP/1.1\r\n"


class _Refused(Exception):
    """Stops the parser at a request that must not be passed on."""


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
        self._kinds = server.kinds
        self._address = address
        self._deliver = deliver  # called once a request's head is complete, or it is refused
        self._parser = httptools.HttpRequestParser(self)
        self.reading: Exchange | None = None  # the request that isn't complete yet
        self.in_head = False
        self.ended = False  # no request comes after those delivered
        self.switching = False  # a request to switch protocols waits for its answer
        self._rest = b""  # what came after that one
        self._delivered = False  # the one in `reading`
        self._head_bytes = 0  # read since the head began, at most
        self._lines: list[
            bytes
        ] = []  # fields of the head, or of the trailers: name ": " value CRLF
        self._hosts = 0
        self._forwarded_at = -1  # where in `_lines` the value of the last X-Forwarded-For is
        self._connection: set[bytes] = set()
        self._length = b""
        self._upgrade = b""
        self._body_follows = False  # llhttp stops after the head, though a body must be read

    def feed(self, data: bytes) -> None:
        """Delivers what it finds. After a malformed request, which is delivered as refused, it has
        ended.
        """
        if self.ended:
            return
        if self.switching:
            self._rest += data
            if len(self._rest) > HEAD_BYTES_MAX:
                self.refuse(HTTPStatus.BAD_REQUEST)
            return
        self._head_bytes = self._head_bytes + len(data) if self.in_head else len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as stopped:
            self._rest = data[stopped.args[0] :]
            self.switching = True
            if self._body_follows:
                self._read_body()
        except httptools.HttpParserError:
            if not self.ended:
                self.refuse(HTTPStatus.BAD_REQUEST)
        else:
            if self.in_head and self._head_bytes > HEAD_BYTES_MAX:
                self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def refuse(self, status: HTTPStatus) -> None:
        """Refuses the request that is being read, and reads no further."""
        exchange = self.reading
        delivered = self._delivered and exchange is not None
        if exchange is None:
            exchange = Exchange(self._client)
        self.reading = None
        self.in_head = False
        self.ended = True
        exchange.refused = exchange.refused or status
        if not delivered:
            self._deliver(exchange)

    def switched(self) -> bytes:
        """The other protocol begins with these bytes."""
        self.ended = True
        return self._rest

    def not_switched(self) -> None:
        """The monolith has answered a request to switch protocols otherwise: HTTP goes on."""
        rest, self._rest = self._rest, b""
        self.switching = False
        self._parser = httptools.HttpRequestParser(self)
        if rest:
            self.feed(rest)

    # The parser's callbacks.

    def on_message_begin(self) -> None:
        if not self._client.has_room():
            raise _Refused
        self.reading = Exchange(self._client)
        self._delivered = False
        self.in_head = True
        self._lines = []
        self._hosts = 0
        self._forwarded_at = -1
        self._length = b""
        self._upgrade = b""
        if self._connection:
            self._connection = set()

    def on_url(self, part: bytes) -> None:
        exchange = self.reading
        if exchange is not None:
            exchange.target += part

    def on_header(self, name: bytes, value: bytes) -> None:
        kind = self._kinds[name]
        if not kind:
            self._lines += (name, head.COLON, value, head.CRLF)
        elif self.in_head:  # a trailer must not change how the message is read
            self._note(kind, name, value)

    def on_headers_complete(self) -> None:
        exchange, parser = self.reading, self._parser
        if exchange is None:
            raise _Refused
        self.in_head = False
        exchange.method = parser.get_method()
        exchange.keep_alive = parser.should_keep_alive()
        if not exchange.keep_alive or self._connection:
            exchange.version_10 = parser.get_http_version() != "1.1"
        self._check(exchange)
        if self.ended:
            raise _Refused
        if self._upgrade and parser.should_upgrade():
            exchange.upgrade = self._may_switch(exchange)
            self._body_follows = not exchange.upgrade
        found = self._server.router.match(exchange.method, exchange.target)
        if found is not None:
            exchange.route, exchange.path_params = found
            if exchange.route.action != "read":
                exchange.is_order = True
                exchange.body = []
        self._write_head(exchange)
        self._lines = []
        self._delivered = True
        self._deliver(exchange)

    def on_body(self, data: bytes) -> None:
        exchange = self.reading
        if exchange is None or exchange.discarding:
            return
        if exchange.chunked:
            exchange.out += (b"%x\r\n" % len(data), data, head.CRLF)
        else:
            exchange.out.append(data)
        if exchange.is_order:
            exchange.keep(data)

    def on_message_complete(self) -> None:
        exchange = self.reading
        if exchange is None or self._body_follows:
            return
        self.reading = None
        exchange.request_done = True
        if exchange.chunked and not exchange.discarding:
            exchange.out += (head.LAST_CHUNK, *self._lines, head.CRLF)
        if not exchange.keep_alive:
            self.ended = True

    # Parts of these.

    def _note(self, kind: int, name: bytes, value: bytes) -> None:
        exchange = self.reading
        if exchange is None or kind == head.DROP:
            return
        if kind == head.CONNECTION:
            self._connection |= head.tokens(value)
            return
        if kind == head.UPGRADE:
            self._upgrade = value
        elif kind == head.HOST:
            self._hosts += 1
        elif kind == head.CONTENT_LENGTH:
            self._length = value
        elif kind == head.TRANSFER_ENCODING:
            exchange.chunked = True
            if value.strip(b" \t").lower() != b"chunked":
                exchange.refused = HTTPStatus.NOT_IMPLEMENTED
        elif kind == head.FORWARDED_FOR:
            self._forwarded_at = len(self._lines) + 2
        elif kind == head.REQUEST_ID:
            exchange.request_id = value
        elif kind == head.EXPECT:
            exchange.awaits_continue = value.lower() == b"100-continue"
        elif kind == head.CONTENT_TYPE:
            exchange.content_type = value
        elif kind == head.IDENTITY:
            # Several identities are none: Rack would read them as one unreadable value.
            exchange.identity += b"," + value if exchange.identity else value
        self._lines += (name, head.COLON, value, head.CRLF)

    def _check(self, exchange: Exchange) -> None:
        target = exchange.target
        if exchange.refused:
            self.refuse(HTTPStatus.BAD_REQUEST)
        elif len(target) > TARGET_BYTES_MAX:
            self.refuse(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self._head_bytes > HEAD_BYTES_MAX and sum(map(len, self._lines)) > HEAD_BYTES_MAX:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif exchange.method == b"CONNECT":
            self.refuse(HTTPStatus.METHOD_NOT_ALLOWED)
        elif not self._hosts_fit(exchange) or (exchange.version_10 and exchange.chunked):
            self.refuse(HTTPStatus.BAD_REQUEST)
        elif exchange.version_10 and self._parser.get_http_version() != "1.0":
            self.refuse(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED)
        elif not target.startswith(b"/") and target != b"*" and not self._is_absolute(target):
            self.refuse(HTTPStatus.BAD_REQUEST)

    def _hosts_fit(self, exchange: Exchange) -> bool:
        return self._hosts == 1 or (exchange.version_10 and self._hosts == 0)

    def _is_absolute(self, target: bytes) -> bool:
        """Absolute form, and of the host that the Host field names: whichever is read, it is the
        same.
        """
        scheme, separator, rest = target.partition(b"://")
        authority = rest.partition(b"/")[0].partition(b"?")[0]
        if not separator or scheme.lower() not in (b"http", b"https"):
            return False
        hosts = [
            self._lines[at + 2]
            for at in range(0, len(self._lines), 4)
            if self._lines[at].lower() == b"host"
        ]
        return hosts == [authority]

    def _may_switch(self, exchange: Exchange) -> bool:
        """Only without a body, and not to HTTP/2: a proxy answers for its own side alone."""
        has_body = exchange.chunked or self._length.strip() not in (b"", b"0")
        return exchange.method == b"GET" and not has_body and self._upgrade.lower() != b"h2c"

    def _write_head(self, exchange: Exchange) -> None:
        lines = self._lines
        if self._forwarded_at >= 0:
            lines[self._forwarded_at] += b", " + self._address
        else:
            lines += (b"X-Forwarded-For", head.COLON, self._address, head.CRLF)
        if not exchange.request_id:
            exchange.request_id = self._server.request_id()
            lines += (b"X-Request-Id", head.COLON, exchange.request_id, head.CRLF)
        if not self._hosts:
            lines += (b"Host", head.COLON, self._server.authority, head.CRLF)
        if self._connection:
            lines = head.without(lines, head.nominated(self._connection))
        if exchange.upgrade:
            lines += (b"Connection", head.COLON, b"Upgrade", head.CRLF)
        elif self._upgrade:
            lines = head.without(lines, {b"upgrade"})
        exchange.out = [exchange.method, b" ", exchange.target, _HTTP_1_1, *lines, head.CRLF]

    def _read_body(self) -> None:
        """Reads on as HTTP behind the head of a request whose wish to switch protocols is not
        passed on.
        """
        self._body_follows = False
        self.switching = False
        exchange, rest = self.reading, self._rest
        self._rest = b""
        if exchange is None:
            return
        framing = b"Content-Length: %b" % (self._length or b"0")
        if exchange.chunked:
            framing = b"Transfer-Encoding: chunked"
        self._parser = httptools.HttpRequestParser(_BehindHead(self))
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % framing)
        if rest:
            self.feed(rest)


class _BehindHead:
    """A parser's view of a reader: leaves out the first head, which has been read before."""

    def __init__(self, reader: RequestReader) -> None:
        self._reader = reader
        self._skips = True
        self.on_body = reader.on_body
        self.on_message_complete = reader.on_message_complete

    def on_message_begin(self) -> None:
        if not self._skips:
            self._reader.on_message_begin()

    def on_url(self, part: bytes) -> None:
        if not self._skips:
            self._reader.on_url(part)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._skips:
            self._reader.on_header(name, value)

    def on_headers_complete(self) -> None:
        if self._skips:
            self._skips = False
        else:
            self._reader.on_headers_complete()
