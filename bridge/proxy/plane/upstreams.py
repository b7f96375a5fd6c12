"""The upstreams of the monolith: each new request goes to the one with the fewest under way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from bridge.config import HealthConfig
from bridge.limits import UPSTREAM_CONNECT_S, UPSTREAM_CONNECTIONS_MAX
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.head import HeaderKinds
from bridge.proxy.plane.health import Health
from bridge.proxy.plane.pool import UpstreamPool
from bridge.proxy.plane.upstream import Address

# A request tries upstreams one after the other for no longer than its client would wait for one
# that is slow, and the last that answers nothing.
_TRIES_S = 2 * UPSTREAM_CONNECT_S


class Upstreams:
    def __init__(
        self,
        upstreams: Sequence[str],
        kinds: HeaderKinds,
        config: HealthConfig,
        *,
        answered: Callable[[Exchange], None],
        failed: Callable[[Exchange, HTTPStatus], None],
        connections_max: int = UPSTREAM_CONNECTIONS_MAX,
    ) -> None:
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._first = 0  # among equals
        self.pools = tuple(
            UpstreamPool(
                address,
                Health(address, config),
                kinds,
                answered=answered,
                failed=failed,
                unreachable=self._unreachable(1 << n),
                connections_max=connections_max,
            )
            for n, address in enumerate(map(Address.of, upstreams))
        )

    @property
    def authority(self) -> bytes:
        """For a request that names no host: it has not chosen an upstream when it is written."""
        return self.pools[0].address.authority

    def send(self, exchange: Exchange) -> None:
        """Does nothing when the client has gone."""
        if exchange.client is None:
            return
        if len(self.pools) == 1:
            self.pools[0].send(exchange)
            return
        pool = self._choose(exchange)
        assert pool is not None  # it has tried none
        pool.send(exchange)

    def sweep(self) -> None:
        for pool in self.pools:
            pool.sweep()

    async def watch(self) -> None:
        """Looks after their health until it is cancelled."""
        async with asyncio.TaskGroup() as watching:
            for pool in self.pools:
                watching.create_task(pool.health.watch())

    async def close(self) -> None:
        for pool in self.pools:
            await pool.close()

    def _choose(self, exchange: Exchange) -> UpstreamPool | None:
        """The one with the fewest requests, of those that are up; when none is, of all. Not one
        that the exchange has tried before.
        """
        self._first = (self._first + 1) % len(self.pools)
        best: UpstreamPool | None = None
        best_key = (False, 0)
        for n in range(self._first, self._first + len(self.pools)):
            at = n % len(self.pools)
            if exchange.tried >> at & 1:
                continue
            pool = self.pools[at]
            key = (not pool.health.up, pool.under_way)
            if best is None or key < best_key:
                best, best_key = pool, key
        return best

    def _unreachable(self, bit: int) -> Callable[[Exchange, HTTPStatus], None]:
        def try_another(exchange: Exchange, status: HTTPStatus) -> None:
            exchange.tried |= bit
            pool = self._choose(exchange)
            in_time = self._loop.time() - exchange.since < _TRIES_S
            if pool is None or not in_time:
                self._failed(exchange, status)
                return
            pool.send(exchange)

        return try_another
