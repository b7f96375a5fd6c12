"""The bounded pool of connections to one upstream.

A request is written to one connection once. Whatever happens to that connection then, it is never
written again.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus

from bridge.limits import (
    UPSTREAM_CONNECT_S,
    UPSTREAM_IDLE_S,
    UPSTREAM_WAIT_S,
    UPSTREAM_WAITING_MAX,
)
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.health import Health
from bridge.proxy.plane.upstream import Address, UpstreamConnection


class UpstreamPool:
    """The connection used last is used first."""

    def __init__(
        self,
        address: Address,
        health: Health,
        kinds: HeaderKinds,
        *,
        answered: Callable[[Exchange], None],
        failed: Callable[[Exchange, HTTPStatus], None],
        unreachable: Callable[[Exchange, HTTPStatus], None],
        connections_max: int,
    ) -> None:
        self.address = address
        self.health = health
        self.kinds = kinds
        self.answered = answered
        self.failed = failed  # the answer never came, or broke off
        self._unreachable = unreachable  # not one byte of it was written
        self._connections_max = connections_max
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Exchange] = deque()
        self._loop = asyncio.get_running_loop()

    @property
    def under_way(self) -> int:
        """Requests, switched connections among them."""
        return len(self._open) - len(self._idle) + len(self._waiting)

    def send(self, exchange: Exchange) -> None:
        """Writes what there is of the request to a connection: at once where one is free."""
        now = self._loop.time()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable(now):
                _begin(exchange, connection)
                return
            connection.transport.close()
        if len(self._waiting) >= UPSTREAM_WAITING_MAX:
            self.failed(exchange, HTTPStatus.SERVICE_UNAVAILABLE)
            return
        if not exchange.tried:
            exchange.since = now
        self._waiting.append(exchange)
        if self._may_connect():
            self._connect()

    def give_back(self, connection: UpstreamConnection) -> None:
        waiting = self._next_waiting()
        if waiting is not None:
            _begin(waiting, connection)
            return
        connection.idle_since = self._loop.time()
        self._idle.append(connection)

    def lost(self, connection: UpstreamConnection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and self._may_connect():
            self._connect()

    def sweep(self) -> None:
        """Ends connections that have been idle for too long, and requests that have waited for one
        for too long; the oldest are in front.
        """
        now = self._loop.time()
        while self._idle and now - self._idle[0].idle_since > UPSTREAM_IDLE_S:
            self._idle.pop(0).transport.close()
        while self._waiting and now - self._waiting[0].since > UPSTREAM_WAIT_S:
            late = self._next_waiting()
            if late is not None:
                self.failed(late, HTTPStatus.SERVICE_UNAVAILABLE)

    async def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in tuple(self._open):
            connection.transport.abort()

    def _may_connect(self) -> bool:
        return len(self._open) + len(self._connecting) < self._connections_max

    def _connect(self) -> None:
        task = self._loop.create_task(self._open_one())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open_one(self) -> None:
        try:
            async with asyncio.timeout(UPSTREAM_CONNECT_S):
                connection = await self.address.connect(lambda: UpstreamConnection(self))
        except TimeoutError:
            self._refuse(HTTPStatus.GATEWAY_TIMEOUT, "it does not accept connections")
            return
        except OSError as error:
            self._refuse(HTTPStatus.BAD_GATEWAY, error)
            return
        self.health.connected()
        self._open.add(connection)
        self.give_back(connection)

    def _refuse(self, status: HTTPStatus, reason: object) -> None:
        """One attempt has failed: one request is told; each of the others has its own attempt, or
        waits for a connection. When that makes the upstream one that is down, nobody waits for it.
        """
        self.health.bad(reason)
        told = [self._next_waiting()]
        while self._waiting and not self.health.up:
            told.append(self._next_waiting())
        for exchange in told:
            if exchange is not None:
                self._unreachable(exchange, status)
        if self._waiting and not self._open and len(self._connecting) <= 1:
            self._connect()

    def _next_waiting(self) -> Exchange | None:
        while self._waiting:
            exchange = self._waiting.popleft()
            if exchange.client is not None and not exchange.refused:
                return exchange
        return None


def _begin(exchange: Exchange, connection: UpstreamConnection) -> None:
    data = b"".join(exchange.out)
    exchange.out.clear()
    if exchange.is_order:
        exchange.mark_sent()
    connection.begin(exchange, data)
    if exchange.client is not None:
        exchange.client.sent_upstream(exchange)
