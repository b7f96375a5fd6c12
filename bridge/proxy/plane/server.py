"""One worker's front: accepts clients, passes exchanges on, and sees how each of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Protocol

from bridge.config import HealthConfig, ProxyTls
from bridge.limits import (
    ANSWER_SILENCE_S,
    ANSWER_STALL_S,
    CLIENTS_MAX,
    CLIENTS_TURNED_AWAY_MAX,
    LISTEN_BACKLOG,
    PROXY_STOP_IDLE_S,
    PROXY_STOP_S,
    SWEEP_S,
    UPSTREAM_CONNECTIONS_MAX,
    UPSTREAM_HEAD_S,
)
from bridge.proxy.capture.tee import DEFECT, Tee
from bridge.proxy.desk.dialect import render_status
from bridge.proxy.desk.orders import OrderDesk
from bridge.proxy.plane.client import ClientConnection
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.tls import TlsListener, server_context
from bridge.proxy.plane.upstreams import Upstreams
from bridge.proxy.route import Router
from bridge.stage import StageSnapshot
from shadow.capture import Outcome

_log = logging.getLogger(__name__)
_NO_HEALTH = HealthConfig()
_PLAIN = ProxyTls()


class Ahead(Protocol):
    """Where order entries are on the disk before they go."""

    late: int

    def hold(self, exchange: Exchange, release: Callable[[Exchange], None]) -> None: ...

    def forget(self, exchange: Exchange) -> None: ...


class Server:
    """`desk` is set before the first client comes: it needs this server to send through."""

    desk: OrderDesk

    def __init__(
        self,
        *,
        upstreams: Sequence[str],
        router: Router,
        identity_header: str,
        tee: Tee,
        health: HealthConfig = _NO_HEALTH,
        tls: ProxyTls = _PLAIN,
        upstream_head_s: float = UPSTREAM_HEAD_S,
        upstream_connections_max: int = UPSTREAM_CONNECTIONS_MAX,
    ) -> None:
        """Raises ConfigError when the files of `tls` don't do."""
        self.kinds = HeaderKinds(identity_header)
        self.router = router
        self.tee = tee
        self.tls = server_context(tls)
        self.ahead: Ahead | None = None  # None: orders don't wait for the disk
        self.pool = Upstreams(
            upstreams,
            self.kinds,
            health,
            answered=self._answered,
            failed=self._failed,
            connections_max=upstream_connections_max,
        )
        self.stopping = False
        self.requests = 0
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()  # as of the last sweep: good enough for waiting times
        self._upstream_head_s = upstream_head_s
        self._clients: set[ClientConnection] = set()
        self._detached: set[Exchange] = set()  # the client has gone, the monolith still answers
        self._empty = asyncio.Event()
        self._listener: asyncio.Server | TlsListener | None = None
        self._id_prefix = os.urandom(8).hex().encode()
        self._ids = 0

    @property
    def authority(self) -> bytes:
        return self.pool.authority

    @property
    def clients(self) -> int:
        """Connections now."""
        return len(self._clients)

    def is_turning(self) -> bool:
        """Whoever can ask has a loop that turns."""
        return True

    @property
    def ahead_late(self) -> int:
        """Orders that were released before they were on the disk."""
        return self.ahead.late if self.ahead is not None else 0

    @property
    def upstreams_down(self) -> tuple[str, ...]:
        return tuple(str(one.address) for one in self.pool.pools if not one.health.up)

    def apply(self, snapshot: StageSnapshot) -> None:
        """For the desk's holds."""
        self.desk.holds.apply(snapshot)

    async def listen(self, bound: socket.socket) -> int:
        """Accepts clients on this socket, which is listening and is closed by `stop`; others that
        share it are not. Gives its port.
        """
        bound.setblocking(False)
        port = int(bound.getsockname()[1])
        if self.tls is not None:
            self._listener = TlsListener(bound, self.tls, self._client, self._has_room)
        else:
            self._listener = await self._loop.create_server(
                self._client, sock=bound, backlog=LISTEN_BACKLOG
            )
        return port

    async def sweep(self) -> None:
        """Ends what takes too long, and looks after the upstreams, until it is cancelled."""
        async with asyncio.TaskGroup() as sweeping:
            sweeping.create_task(self._sweep())
            sweeping.create_task(self.pool.watch())

    async def stop(self, within_s: float = PROXY_STOP_S, idle_s: float = PROXY_STOP_IDLE_S) -> None:
        """Accepts no more, lets what is under way finish, and cuts off what does not in time.
        Connections without a request stay for `idle_s`: one may be on its way.
        """
        listener, self._listener = self._listener, None
        if isinstance(listener, TlsListener):
            await listener.close()
        elif listener is not None:
            listener.close()
        self.stopping = True
        self._empty.clear()
        if self._clients:
            await self._emptied(min(idle_s, within_s))
        for client in tuple(self._clients):
            client.stop()
        if self._clients:
            await self._emptied(max(within_s - idle_s, 0.0))
        for client in tuple(self._clients):
            client.transport.abort()
        await self.pool.close()

    def forward(self, exchange: Exchange) -> None:
        """Sends it to the monolith. An order entry is on the disk before, where that is wanted; one
        that is too large to be captured is not.
        """
        if self.ahead is not None and exchange.is_captured and exchange.body is not None:
            self.ahead.hold(exchange, self.pool.send)
        else:
            self.pool.send(exchange)

    # The connections' side.

    def connected(self, client: ClientConnection) -> None:
        self._clients.add(client)
        count = len(self._clients)
        if count > CLIENTS_MAX + CLIENTS_TURNED_AWAY_MAX:
            client.transport.abort()
        elif count > CLIENTS_MAX:
            client.turn_away()

    def disconnected(self, client: ClientConnection) -> None:
        self._clients.discard(client)
        if not self._clients:
            self._empty.set()

    def request_id(self) -> bytes:
        self._ids += 1
        return b"%b%016x" % (self._id_prefix, self._ids)

    def begin(self, exchange: Exchange) -> None:
        self.requests += 1
        if exchange.found is None:
            self.pool.send(exchange)
        elif (
            self.ahead is not None
            and exchange.is_order
            and not exchange.request_done
            and exchange.client is not None
        ):
            exchange.gathering = exchange.collecting = True
            exchange.client.ask_for_body(exchange)
        else:
            self.desk.begin(exchange)

    def collected(self, exchange: Exchange) -> None:
        """More of the body has come of an exchange that waits for it."""
        if not exchange.gathering:
            self.desk.collected(exchange)
        elif exchange.request_done or exchange.body is None:
            exchange.gathering = exchange.collecting = False
            self.desk.begin(exchange)

    def refuse(self, exchange: Exchange) -> None:
        """A request that is not well-formed, or turns out not to be after a part of it was sent."""
        client = exchange.client
        if exchange.upstream is not None:
            exchange.upstream.abandon()
            exchange.upstream = None
            self._ended(exchange, Outcome.CLIENT_GONE)
        elif exchange.started:
            self._unsent(exchange)
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
            self._unsent(exchange)
        elif exchange.is_order and exchange.request_done and not exchange.out:
            # The monolith takes the order all the same. Nobody reads its answer any more: what
            # was paused for a slow client must run to its end.
            upstream.resume_reading()
            self._detached.add(exchange)
        else:
            upstream.abandon()
            exchange.upstream = None
            self._ended(exchange, Outcome.CLIENT_GONE)

    def check_in_time(self, exchange: Exchange, now: float) -> None:
        """Gives up a monolith that has fallen silent: a cut wire says nothing either."""
        upstream = exchange.upstream
        if upstream is None or not upstream.is_reading:
            return
        limit_s = self._upstream_head_s
        if exchange.response_started:
            limit_s = ANSWER_STALL_S if exchange.is_order else ANSWER_SILENCE_S
        if now - exchange.since > limit_s:
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
        if not exchange.sent_mono_ns:
            self._unsent(exchange)
            return
        if exchange.status:
            exchange.mark_answered()
        # A part of a request is no order: the monolith, too, has only that.
        if exchange.is_captured and exchange.request_done:
            self._record(exchange, outcome)
        self.desk.left(exchange)

    def _unsent(self, exchange: Exchange) -> None:
        """It ends, and the monolith has seen nothing of it."""
        if exchange.is_order:
            if self.ahead is not None:
                self.ahead.forget(exchange)
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

    # Parts of these.

    def _client(self) -> ClientConnection:
        return ClientConnection(self)

    def _has_room(self, handshakes: int) -> bool:
        return len(self._clients) + handshakes < CLIENTS_MAX

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            self.now = now = self._loop.time()
            for client in tuple(self._clients):
                client.sweep(now)
            for exchange in tuple(self._detached):
                self.check_in_time(exchange, now)
            self.pool.sweep()
            self.desk.holds.sweep(now)

    async def _emptied(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), within_s)
