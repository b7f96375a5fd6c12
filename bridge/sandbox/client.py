"""The load generator's light HTTP/1.1 client: a keep-alive connection, one request at a time."""

from __future__ import annotations

import asyncio
import time
from urllib.parse import urlsplit

import httptools
import msgspec


class HttpAnswer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    answered_ns: int  # monotonic: its last byte arrived


class ExchangeFailed(Exception):
    """No whole answer came. `reason` is short and countable, `sent` whether the server may know."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.reason = reason
        self.sent = sent


class HttpConnection:
    """Opened when first needed, and again after it was lost. A request is never sent twice."""

    def __init__(self, base_url: str, timeout_s: float) -> None:
        parts = urlsplit(base_url)
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port or 80
        self._authority = f"{self._host}:{self._port}".encode()
        self._timeout_s = timeout_s
        self._protocol: _Protocol | None = None

    async def exchange(
        self, method: bytes, target: bytes, headers: bytes, body: bytes
    ) -> HttpAnswer:
        """`headers` are whole lines, each with its CRLF. Raises ExchangeFailed."""
        protocol = await self._connected()
        request = b"%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n%s" % (
            method,
            target,
            self._authority,
            headers,
            len(body),
            body,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                return await protocol.exchange(request)
        except TimeoutError:
            raise ExchangeFailed(f"no answer in {self._timeout_s:g} s", sent=True) from None
        finally:
            if not protocol.reusable:
                self.close()

    def close(self) -> None:
        if self._protocol is not None:
            self._protocol.close()
            self._protocol = None

    async def _connected(self) -> _Protocol:
        if self._protocol is not None and self._protocol.reusable:
            return self._protocol
        self.close()
        try:
            async with asyncio.timeout(self._timeout_s):
                _, self._protocol = await asyncio.get_running_loop().create_connection(
                    _Protocol, self._host, self._port
                )
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "timed out"
            raise ExchangeFailed(f"not connected: {reason}", sent=False) from error
        return self._protocol


class _Protocol(asyncio.Protocol):
    """Reads one answer at a time; everything that ends it early fails the exchange that waits."""

    def __init__(self) -> None:
        self.reusable = False
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._waiter: asyncio.Future[HttpAnswer] | None = None

    async def exchange(self, request: bytes) -> HttpAnswer:
        assert self._transport is not None
        self._waiter = asyncio.get_running_loop().create_future()
        self.reusable = False
        self._transport.write(request)
        return await self._waiter

    def close(self) -> None:
        self.reusable = False
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self.reusable = True

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("unreadable answer")
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        self._fail("connection lost")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return
        body, self._body = b"".join(self._body), []
        keep = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        waiter, self._waiter = self._waiter, None
        if waiter is None or waiter.done():
            self.close()  # an answer that nobody waits for: what follows can't be trusted
            return
        self.reusable = keep
        waiter.set_result(HttpAnswer(status, body, time.monotonic_ns()))

    def _fail(self, reason: str) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(ExchangeFailed(reason, sent=True))
