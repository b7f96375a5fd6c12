"""The bounded pool of connections to the monolith.

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
    UPSTREAM_CONNECTIONS_MAX,
    UPSTREAM_IDLE_S,
    UPSTREAM_WAITING_MAX,
)
from bridge.proxy import head
from bridge.proxy.exchange import Exchange
from bridge.proxy.upstream import UpstreamConnection


class UpstreamPool:
    """Connections of one worker to the monolith: the one used last is used first."""

    def __init__(
        self,
        host: str,
        port: int,
        kinds: head.HeaderKinds,
        *,
        answered: Callable[[Exchange], None],
        failed: Callable[[Exchange, HTTPStatus], None],
        connections_max: int = UPSTREAM_CONNECTIONS_MAX,
        connect_s: float = UPSTREAM_CONNECT_S,
    ) -> None:
        self.kinds = kinds
        self.answered = answered
        self.failed = failed  # the answer never came, or broke off
        self.authority = f"{host}:{port}".encode()
        self._host = host
        self._port = port
        self._connections_max = connections_max
        self._connect_s = connect_s
        self._idle: list[UpstreamConnection] = []
        self._open: set[UpstreamConnection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self._waiting: deque[Exchange] = deque()
        self._loop = asyncio.get_running_loop()

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
        self._waiting.append(exchange)
        if len(self._open) + len(self._connecting) < self._connections_max:
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
        if self._waiting and len(self._open) + len(self._connecting) < self._connections_max:
            self._connect()

    def sweep(self) -> None:
        """Ends connections that have been idle for too long; the oldest are in front."""
        now = self._loop.time()
        while self._idle and now - self._idle[0].idle_since > UPSTREAM_IDLE_S:
            self._idle.pop(0).transport.close()

    async def close(self) -> None:
        for task in self._connecting:
            task.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        for connection in tuple(self._open):
            connection.transport.abort()

    def _connect(self) -> None:
        task = self._loop.create_task(self._open_one())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _open_one(self) -> None:
        try:
            async with asyncio.timeout(self._connect_s):
                _, connection = await self._loop.create_connection(
                    lambda: UpstreamConnection(self), self._host, self._port
                )
        except TimeoutError:
            self._refuse_one(HTTPStatus.GATEWAY_TIMEOUT)
            return
        except OSError:
            self._refuse_one(HTTPStatus.BAD_GATEWAY)
            return
        self._open.add(connection)
        self.give_back(connection)

    def _refuse_one(self, status: HTTPStatus) -> None:
        """One attempt has failed: one request is told; each of the others has its own attempt, or
        waits for a connection.
        """
        waiting = self._next_waiting()
        if waiting is not None:
            self.failed(waiting, status)
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
