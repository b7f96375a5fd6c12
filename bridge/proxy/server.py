"""One worker's front: accepts clients, passes exchanges on, and sees how each of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from http import HTTPStatus

from bridge.errors import PortInUse
from bridge.limits import CLIENTS_MAX, PROXY_STOP_S, SWEEP_S, UPSTREAM_HEAD_S
from bridge.proxy.client import ClientConnection
from bridge.proxy.dialect import render_status
from bridge.proxy.exchange import Exchange
from bridge.proxy.head import HeaderKinds
from bridge.proxy.orders import OrderDesk
from bridge.proxy.pool import UpstreamPool
from bridge.proxy.route import Router
from bridge.proxy.tee import DEFECT, Tee
from shadow.capture import Outcome

_log = logging.getLogger(__name__)
_BACKLOG = 1024


class Server:
    """`desk` is set before the first client comes: it needs this server to send through."""

    desk: OrderDesk

    def __init__(
        self,
        *,
        upstream_host: str,
        upstream_port: int,
        router: Router,
        identity_header: str,
        tee: Tee,
        upstream_head_s: float = UPSTREAM_HEAD_S,
    ) -> None:
        self.kinds = HeaderKinds(identity_header)
        self.router = router
        self.tee = tee
        self.pool = UpstreamPool(
            upstream_host,
            upstream_port,
            self.kinds,
            answered=self._answered,
            failed=self._failed,
        )
        self.stopping = False
        self.requests = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()  # as of the last sweep: good enough for waiting times
        self._upstream_head_s = upstream_head_s
        self._clients: set[ClientConnection] = set()
        self._detached: set[Exchange] = set()  # the client has gone, the monolith still answers
        self._empty = asyncio.Event()
        self._server: asyncio.Server | None = None
        self._id_prefix = os.urandom(8).hex().encode()
        self._ids = 0

    @property
    def authority(self) -> bytes:
        return self.pool.authority

    async def listen(self, host: str, port: int) -> int:
        """The port it listens on. Raises PortInUse."""
        try:
            self._server = await self._loop.create_server(
                lambda: ClientConnection(self), host, port, reuse_port=True, backlog=_BACKLOG
            )
        except OSError as error:
            raise PortInUse(
                f"the proxy can't listen on {host}:{port}: {error.strerror or error}; stop what "
                f"listens there, or change proxy.listen"
            ) from error
        bound: socket.socket = self._server.sockets[0]
        return int(bound.getsockname()[1])

    async def sweep(self) -> None:
        """Ends what takes too long, until it is cancelled."""
        while True:
            await asyncio.sleep(SWEEP_S)
            self.now = now = self._loop.time()
            for client in tuple(self._clients):
                client.sweep(now)
            for exchange in tuple(self._detached):
                self.check_answered_in_time(exchange, now)
            self.pool.sweep()
            self.desk.holds.sweep(now)

    async def stop(self, within_s: float = PROXY_STOP_S) -> None:
        """Accepts no more, lets what is under way finish, and cuts off what does not in time."""
        if self._server is not None:
            self._server.close()
        self.stopping = True
        for client in tuple(self._clients):
            client.stop()
        if self._clients:
            self._empty.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._empty.wait(), within_s)
        for client in tuple(self._clients):
            client.transport.abort()
        await self.pool.close()

    # The connections' side.

    def connected(self, client: ClientConnection) -> None:
        self._clients.add(client)
        if len(self._clients) > CLIENTS_MAX:
            client.transport.abort()

    def disconnected(self, client: ClientConnection) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._empty.set()

    def request_id(self) -> bytes:
        self._ids += 1
        return b"%b%016x" % (self._id_prefix, self._ids)

    def begin(self, exchange: Exchange) -> None:
        self.requests += 1
        if exchange.route is None:
            self.pool.send(exchange)
        else:
            self.desk.begin(exchange)

    def collected(self, exchange: Exchange) -> None:
        self.desk.collected(exchange)

    def refuse(self, exchange: Exchange) -> None:
        """A request that is not well-formed, or turns out not to be after a part of it was sent."""
        client = exchange.client
        if exchange.upstream is not None:
            exchange.upstream.abandon()
            exchange.upstream = None
            self._ended(exchange, Outcome.CLIENT_GONE)
        elif exchange.started and exchange.is_order:
            self.desk.left(exchange)
        if client is None:
            return
        if exchange.response_started:
            client.break_off()
        else:
            self._answer_status(exchange, HTTPStatus(exchange.refused))

    def client_gone(self, exchange: Exchange) -> None:
        """Its client has disconnected before its answer was complete."""
        upstream = exchange.upstream
        if upstream is None:
            if exchange.is_order:
                self.desk.left(exchange)
        elif exchange.is_order and exchange.request_done and not exchange.out:
            # The monolith takes the order all the same. Nobody reads its answer any more: what
            # was paused for a slow client must run to its end.
            upstream.resume_reading()
            self._detached.add(exchange)
        else:
            upstream.abandon()
            exchange.upstream = None
            self._ended(exchange, Outcome.CLIENT_GONE)

    def check_answered_in_time(self, exchange: Exchange, now: float) -> None:
        upstream = exchange.upstream
        if upstream is None or exchange.response_started:
            return
        if now - exchange.since > self._upstream_head_s:
            upstream.abandon()
            exchange.upstream = None
            self._failed(exchange, HTTPStatus.GATEWAY_TIMEOUT)

    # The pool's side.

    def _answered(self, exchange: Exchange) -> None:
        client = exchange.client
        if exchange.is_order:
            gone = client is None
            self._ended(exchange, Outcome.CLIENT_GONE if gone else Outcome.ANSWERED)
        if client is not None:
            client.answered(exchange)

    def _failed(self, exchange: Exchange, status: HTTPStatus) -> None:
        exchange.status = 0
        exchange.response_body = []
        self._ended(exchange, Outcome.UPSTREAM_FAILED)
        client = exchange.client
        if client is None:
            return
        if exchange.response_started:
            client.break_off()
        else:
            self._answer_status(exchange, status)

    def _ended(self, exchange: Exchange, outcome: Outcome) -> None:
        """An order entry that was under way at the monolith is no longer."""
        if not exchange.is_order:
            return
        self._detached.discard(exchange)
        if exchange.sent_mono_ns:
            if exchange.status:
                exchange.mark_answered()
            self._record(exchange, outcome)
        self.desk.left(exchange)

    def _record(self, exchange: Exchange, outcome: Outcome) -> None:
        """Whatever goes wrong in here is not the client's business."""
        try:
            self.tee.offer(exchange, outcome)
            if exchange.route is not None and exchange.route.action == "place":
                self.desk.learn(exchange)
        except Exception:
            self.tee.dropped[DEFECT] += 1
            _log.exception("an order could not be captured")

    def _answer_status(self, exchange: Exchange, status: HTTPStatus) -> None:
        if exchange.client is not None:
            fields: tuple[tuple[bytes, bytes], ...] = ()
            if exchange.request_id:
                fields = ((b"X-Request-Id", exchange.request_id),)
            exchange.client.answer(exchange, *render_status(status), fields)
