"""One client's connection: its requests in order, and its answers in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING

from bridge.limits import (
    CLIENT_HEAD_S,
    CLIENT_IDLE_S,
    CLIENT_LINGER_S,
    CLIENT_PACE_BYTES,
    CLIENT_STALL_S,
    CLIENTS_RETRY_AFTER_S,
    ORDER_BODY_S,
    PIPELINE_MAX,
)
from bridge.proxy.desk.dialect import render_status
from bridge.proxy.plane import head
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.request import RequestReader
from bridge.proxy.plane.tunnel import Tunnel

if TYPE_CHECKING:
    from bridge.proxy.plane.server import Server

# Why nothing is read from the client at the moment; reading goes on when none is left.
_UPSTREAM_FULL = 1  # the monolith takes the body more slowly than it comes
_NOT_SENT = 2  # no connection to the monolith yet: only so much of a body is kept
_PIPELINE = 4  # requests wait behind the one that is being answered


class ClientConnection(asyncio.Protocol):
    def __init__(self, server: Server) -> None:
        self._server = server
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self._reader: RequestReader = None  # type: ignore[assignment]  # likewise
        self._active: Exchange | None = None  # whose answer is next
        self._queue: deque[Exchange] = deque()  # behind it
        self._paused = 0
        self._pumping = False
        self._tunnel: Tunnel | None = None  # to the monolith, once protocols are switched
        self._half_closed = False  # the client sends no more, and still reads
        self._lingers_since = 0.0  # we send no more, and still read
        self._stuck_since = 0.0  # the client does not read; 0.0: it does
        self._progress_at = server.now  # when it came on: a body by CLIENT_PACE_BYTES at least
        self._paced = 0  # bytes of a body since then

    # asyncio.Protocol.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        peer = transport.get_extra_info("peername")
        address = peer[0].encode() if peer else b"unknown"
        self._reader = RequestReader(self, self._server, address, self._deliver)
        self._server.connected(self)

    def data_received(self, data: bytes) -> None:
        if self._tunnel is not None:
            self._tunnel.received(self.transport, data)
        elif not self._lingers_since:
            reader = self._reader
            if reader.reading is not None:
                self._paced += len(data)
                if self._paced >= CLIENT_PACE_BYTES:
                    self._came_on()
            elif not reader.in_head:  # a head has its time as a whole
                self._came_on()
            reader.feed(data)
            self._pump()

    def eof_received(self) -> bool:
        """A client may close its side and still read its answers; not with TLS."""
        if self._tunnel is not None:
            return self._tunnel.ended(self.transport)
        reader = self._reader
        if self._lingers_since or not self.transport.can_write_eof():
            return False
        if reader.reading is not None and reader.reading is self._active:
            return False
        if reader.midway:
            reader.refuse(HTTPStatus.BAD_REQUEST)
        self._half_closed = True
        self._pump()
        return self._active is not None

    def connection_lost(self, error: Exception | None) -> None:
        self._server.disconnected(self)
        if self._tunnel is not None:
            self._tunnel.lost(self.transport)
        active, self._active = self._active, None
        self._queue.clear()
        if active is not None:
            active.client = None
            self._server.client_gone(active)

    def pause_writing(self) -> None:
        self._stuck_since = self._server.now
        if self._tunnel is not None:
            self._tunnel.full(self.transport)
        elif self._active is not None and self._active.upstream is not None:
            self._active.upstream.pause_reading()

    def resume_writing(self) -> None:
        self._stuck_since = 0.0
        if self._tunnel is not None:
            self._tunnel.free(self.transport)
        elif self._active is None:
            self._pump()
        elif self._active.upstream is not None:
            self._active.since = self._server.now
            self._active.upstream.resume_reading()

    # The reader's, the upstream connection's and the server's side.

    def has_room(self) -> bool:
        return len(self._queue) < PIPELINE_MAX

    def is_stopping(self) -> bool:
        return self._server.stopping

    def sent_upstream(self, exchange: Exchange) -> None:
        exchange.since = self._server.now
        if self._paused:
            self._resume(_NOT_SENT)

    def pause_for_upstream(self) -> None:
        if self._active is not None:
            self._active.since = self._server.now
        self._pause(_UPSTREAM_FULL)

    def resume_for_upstream(self) -> None:
        self._resume(_UPSTREAM_FULL)

    def tunnel(self, tunnel: Tunnel) -> None:
        """Protocols are switched: whatever comes now goes there, unread."""
        self._tunnel = tunnel
        self._active = None
        rest = self._reader.switched()
        if rest:
            tunnel.received(self.transport, rest)
        if self._half_closed:
            tunnel.ended(self.transport)

    def turn_away(self) -> None:
        """There are too many clients."""
        status, body = render_status(HTTPStatus.SERVICE_UNAVAILABLE)
        later = ((b"Retry-After", b"%d" % CLIENTS_RETRY_AFTER_S),)
        self.transport.write(head.answer(status, body, fields=later, connection=b"close"))
        self._linger()

    def ask_for_body(self, exchange: Exchange) -> None:
        """An order entry whose body decides where it goes: nobody else can say that it may come."""
        if exchange.awaits_continue:
            self.transport.write(head.CONTINUE)
            exchange.continued = True

    def answer(
        self,
        exchange: Exchange,
        status: int,
        body: bytes,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        """Answers by ourselves. Does nothing when the client has gone."""
        if exchange.client is None or self.transport.is_closing():
            return
        if self._server.stopping or exchange.may_lack_body:
            exchange.keep_alive = False
        connection = b""
        if not exchange.keep_alive:
            connection = b"close"
        elif exchange.version_10:
            connection = b"keep-alive"
        with_body = exchange.method != b"HEAD"
        self.transport.write(
            head.answer(status, body, fields=fields, connection=connection, with_body=with_body)
        )
        self.answered(exchange)

    def answered(self, exchange: Exchange) -> None:
        """The whole answer has been written: the next exchange, or the end."""
        self._active = None
        self._came_on()
        if self._paused:
            self._resume(_UPSTREAM_FULL | _NOT_SENT)
        if not exchange.request_done:
            exchange.discarding = True
            exchange.out.clear()
        if not exchange.keep_alive:
            self._queue.clear()
            if exchange.request_done:
                self._close()
            else:
                self._linger()
            return
        if exchange.upgrade:
            self._reader.not_switched()
        self._pump()

    def break_off(self) -> None:
        """The answer has begun and can't be finished: only a broken connection says so."""
        self._active = None
        self.transport.abort()

    def sweep(self, now: float) -> None:
        """Ends what has been waiting for this client, or for the monolith, for too long."""
        active, reader, idle_s = self._active, self._reader, now - self._progress_at
        if self._tunnel is not None:
            return
        if self._lingers_since:
            if now - self._lingers_since > CLIENT_LINGER_S:
                self.transport.abort()
        elif self._stuck_since:
            if now - self._stuck_since > CLIENT_STALL_S:
                self.transport.abort()
        elif active is not None:
            if active.request_done or self._paused:
                self._server.check_in_time(active, now)
            elif active.is_order and not active.refused and now - active.began > ORDER_BODY_S:
                reader.refuse(HTTPStatus.REQUEST_TIMEOUT)
                self._pump()
            elif idle_s > CLIENT_STALL_S:
                self.transport.abort()
        elif reader.in_head:
            if idle_s > CLIENT_HEAD_S:
                reader.refuse(HTTPStatus.REQUEST_TIMEOUT)
                self._pump()
        elif idle_s > (CLIENT_IDLE_S if reader.reading is None else CLIENT_STALL_S):
            self.transport.close()

    def stop(self) -> None:
        """Closes when idle."""
        if self._active is None and not self._reader.midway and self._tunnel is None:
            self._close()

    # Parts of these.

    def _came_on(self) -> None:
        self._progress_at = self._server.now
        self._paced = 0

    def _deliver(self, exchange: Exchange) -> None:
        self._came_on()
        if self._active is None:
            self._active = exchange
        else:
            self._queue.append(exchange)

    def _pump(self) -> None:
        """Begins what can be begun, and sends on what has come of a request.

        An answer of our own may end an exchange at once, and calls this again from within.
        """
        if self._pumping:
            return
        self._pumping = True
        try:
            while self._step():
                pass
        finally:
            self._pumping = False

    def _step(self) -> bool:
        """True when the active exchange has ended and the next one can begin."""
        exchange = self._active
        if exchange is None:
            if not self._queue:
                if self._reader.read_on():
                    return True
                self._rest()
                return False
            if self._stuck_since:
                return False  # the client must first read what it was told
            exchange = self._active = self._queue.popleft()
        if exchange.refused:
            exchange.keep_alive = False
            self._server.refuse(exchange)
        elif not exchange.started:
            exchange.started = True
            self._server.begin(exchange)
        elif exchange.collecting:
            self._server.collected(exchange)
        elif exchange.out and exchange.upstream is not None:
            exchange.since = self._server.now
            exchange.upstream.write(b"".join(exchange.out))
            exchange.out.clear()
        if self._active is not exchange:
            return not self.transport.is_closing()
        if not self._queue:
            self._reader.read_on()
        if self._queue:
            self._pause(_PIPELINE)
        elif self._paused:
            self._resume(_PIPELINE)
        if exchange.upstream is None and not exchange.request_done and not exchange.collecting:
            self._pause(_NOT_SENT)
        return False

    def _rest(self) -> None:
        """Nothing to answer."""
        if self._paused:
            self._resume(_PIPELINE)
        reader = self._reader
        if not reader.midway and (reader.ended or self._half_closed or self._server.stopping):
            self._close()

    def _pause(self, reason: int) -> None:
        if not self._paused:
            self.transport.pause_reading()
        self._paused |= reason

    def _resume(self, reason: int) -> None:
        if self._paused & reason:
            self._paused &= ~reason
            if not self._paused and not self.transport.is_closing():
                self._came_on()
                if self._active is not None:
                    self._active.began = self._server.now  # it could not send in the meantime
                self.transport.resume_reading()

    def _linger(self) -> None:
        """No more will be sent; what still comes is read: a reset would destroy the answer."""
        self._lingers_since = self._server.now
        if self.transport.is_closing():
            return
        if self._half_closed or not self.transport.can_write_eof():
            self.transport.close()  # TLS waits for the client's farewell by itself
            return
        self.transport.write_eof()
        if self._paused:
            self._paused = 0
            self.transport.resume_reading()

    def _close(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
