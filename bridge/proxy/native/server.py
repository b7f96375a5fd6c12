"""The Rust plane, as the rest of a worker sees it: what `Server` is for the asyncio plane.

The plane's own thread serves the clients. Python hears of an exchange only where it must decide,
or count: while an instrument is held or answered by the engine. Everything else passes by.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Sequence
from typing import Any

from bridge import limits
from bridge.config import HealthConfig, ProxyTls
from bridge.errors import PlaneEnded
from bridge.proxy import _core
from bridge.proxy.capture.ahead_log import AheadLog, frame
from bridge.proxy.capture.home import NumberFile
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.desk.orders import OrderDesk
from bridge.proxy.native.captures import NativeCaptures
from bridge.proxy.native.relay import Relay
from bridge.proxy.native.settings import plane_settings
from bridge.proxy.plane.exchange import Exchange
from bridge.proxy.plane.health import Health
from bridge.proxy.plane.tls import TlsListener, server_context
from bridge.proxy.plane.upstream import Address
from bridge.proxy.route import Router
from bridge.stage import StageSnapshot
from shadow.legacy.mapping import Mapping

_log = logging.getLogger(__name__)
_NO_HEALTH = HealthConfig()
_PLAIN = ProxyTls()


class NativeServer:
    """`desk` is set before the first client comes: it needs this server to send through."""

    desk: OrderDesk

    def __init__(
        self,
        *,
        worker: str,
        upstreams: Sequence[str],
        mapping: Mapping,
        health: HealthConfig = _NO_HEALTH,
        tls: ProxyTls = _PLAIN,
        numbers: NumberFile | None = None,
        redaction: Redaction | None = None,
        ahead: AheadLog | None = None,
        ahead_budget_s: float = 0.005,
        upstream_head_s: float = limits.UPSTREAM_HEAD_S,
        upstream_connections_max: int = limits.UPSTREAM_CONNECTIONS_MAX,
    ) -> None:
        """`numbers` is only the file's name from here on. Raises ConfigError when the files of
        `tls` don't do.
        """
        self.router = Router(mapping.routes, method_override=mapping.method_override)
        self.tls = server_context(tls)
        self.captures = NativeCaptures(worker, redaction)
        self._addresses = [Address.of(upstream) for upstream in upstreams]
        self._health = [Health(address, health) for address in self._addresses]
        self._settings = plane_settings(
            worker=worker,
            addresses=self._addresses,
            mapping=mapping,
            count_file=str(numbers.path) if numbers is not None else "",
            bounds={
                "ahead_budget_s": ahead_budget_s if ahead is not None else 0.0,
                "upstream_head_s": upstream_head_s,
                "upstream_connections_max": upstream_connections_max,
                "upstream_fall": health.fall,
            },
        )
        self._ahead = ahead
        self._loop = asyncio.get_running_loop()
        self._plane: _core.Plane | None = None
        self._listener: TlsListener | None = None
        self._exchanges: dict[int, Exchange] = {}  # those that Python knows of
        self._empty = asyncio.Event()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._is_special = (False, False)
        self._turns = -1  # as of the last look
        self._specials = 0  # so often Python began to decide every order

    @property
    def requests(self) -> int:
        return self._counter("requests")

    @property
    def clients(self) -> int:
        return self._counter("clients")

    def is_turning(self) -> bool:
        """The plane's thread has had a turn since it was asked last."""
        before, self._turns = self._turns, self._counter("turns")
        return self._turns != before

    @property
    def ahead_late(self) -> int:
        return self._counter("ahead_late")

    @property
    def upstreams_down(self) -> tuple[str, ...]:
        bits = self._counter("upstreams_down")
        return tuple(str(one) for n, one in enumerate(self._addresses) if bits >> n & 1)

    async def listen(self, bound: socket.socket) -> int:
        """Accepts clients on this socket, which is listening and is closed by `stop`; others that
        share it are not. Gives its port.
        """
        bound.setblocking(False)
        port = int(bound.getsockname()[1])
        addresses = [await _numeric(address) for address in self._addresses]
        self._is_special = self._special()
        settings = self._settings.at(addresses, self._is_special)
        if self.tls is None:
            self._plane = plane = _core.Plane(settings, bound.detach())
        else:
            self._plane = plane = _core.Plane(settings, -1)
            self._listener = TlsListener(bound, self.tls, self._relay, self._has_room)
        self.captures.plane = plane
        self._loop.add_reader(plane.bell_fd(), self._on_bell)
        return port

    async def sweep(self) -> None:
        """Looks after holds and upstreams, until it is cancelled. Raises PlaneEnded."""
        try:
            async with asyncio.TaskGroup() as sweeping:
                sweeping.create_task(self._sweep())
                for number, health in enumerate(self._health):
                    sweeping.create_task(self._watch(number, health))
        except BaseExceptionGroup as failed:
            ended = failed.subgroup(PlaneEnded)
            if ended is None:
                raise
            raise ended.exceptions[0] from None

    async def stop(
        self,
        within_s: float = limits.PROXY_STOP_S,
        idle_s: float = limits.PROXY_STOP_IDLE_S,
    ) -> None:
        """Accepts no more, lets what is under way finish, and cuts off what does not in time.
        Connections without a request stay for `idle_s`: one may be on its way.
        """
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()
        plane = self._plane
        if plane is None:
            return
        plane.stop()
        await self._emptied(min(idle_s, within_s))
        plane.close_idle()
        await self._emptied(max(within_s - idle_s, 0.0))
        plane.close()
        self._plane = None
        self._loop.remove_reader(plane.bell_fd())
        self._hear(plane)

    def forward(self, exchange: Exchange) -> None:
        """Sends it to the monolith."""
        handle = exchange.client
        if isinstance(handle, _Handle) and self._plane is not None:
            # Only its presence is looked at.
            exchange.upstream = handle
            self._plane.forward(handle.id)

    def apply(self, snapshot: StageSnapshot) -> None:
        """For the desk's holds. The plane hears of what is released before it hears that nothing is
        held any more: nobody overtakes who has waited.
        """
        holds, was_special = self.desk.holds, self._is_special
        if self._plane is not None and not was_special[0]:
            holds.is_counted = False  # until the plane says what is under way
        holds.apply(snapshot)
        special = self._special()
        if not special[0]:
            holds.is_counted = True
        if self._plane is not None and special != was_special:
            self._is_special = special
            self._specials += special[0] and not was_special[0]
            self._plane.special(*special, self._specials)

    def _special(self) -> tuple[bool, bool]:
        """Python decides every order; and every read of one."""
        holds = self.desk.holds
        return holds.special, bool(holds.live)

    # What the plane tells.

    def _on_bell(self) -> None:
        if self._plane is not None:
            self._hear(self._plane)

    def _hear(self, plane: _core.Plane) -> None:
        for name, *told in plane.notices():
            try:
                self._take(name, told)
            except Exception:
                _log.exception("news of the plane could not be used: %s", name)
        if plane.waiting():
            self.captures.wake.set()
        if self._ahead is not None:
            given_up = plane.given_up()
            if given_up:
                self._ahead.done(given_up)

    def _take(self, name: str, told: list[Any]) -> None:
        if name == "decide":
            exchange = self._exchange(told[0])
            exchange.client = _Handle(self, exchange, told[0][0])  # type: ignore[assignment]
            self.desk.begin(exchange)
        elif name == "ended":
            exchange_ended = self._exchanges.pop(told[0], None)
            if exchange_ended is not None:
                exchange_ended.upstream = None
                self.desk.left(exchange_ended)
        elif name == "gone":
            gone = self._exchanges.get(told[0])
            if gone is not None:
                gone.client = None
        elif name == "under_way":
            number, orders = told
            for one in orders:
                exchange = self._exchange(one)
                exchange.request_done = one[9]
                self.desk.holds.enter(exchange)
            if number == self._specials:  # an older one says nothing of what came since
                self.desk.holds.count_complete()
        elif name == "ahead":
            self._write_ahead(*told)
        elif name == "empty":
            self._empty.set()
        elif name == "over":
            self._empty.set()
            if told[0] and not self._over.done():
                self._over.set_exception(PlaneEnded(f"the proxy's plane has ended: {told[0]}"))

    def _exchange(self, told: tuple[Any, ...]) -> Exchange:
        (id_, method, target, override, content_type, identity, request_id, body, head) = told[:9]
        exchange = Exchange(None)
        exchange.method, exchange.target = method, target
        exchange.content_type, exchange.identity = content_type, identity
        exchange.request_id = request_id
        exchange.request_done = exchange.started = True
        _, exchange.version_10, exchange.keep_alive = told[9:]
        exchange.out = [head]
        exchange.body = [body] if body is not None else None
        exchange.body_size = len(body or b"")
        exchange.found = found = self.router.match(method, target, override, content_type)
        if found is not None:
            exchange.route, exchange.path_params = found.route, found.path_params
            exchange.is_order = found.is_order
        exchange.settle()
        self._exchanges[id_] = exchange
        return exchange

    def answer(
        self,
        handle: _Handle,
        status: int,
        body: bytes,
        fields: Sequence[tuple[bytes, bytes]],
    ) -> None:
        exchange = self._exchanges.pop(handle.id, None)
        if exchange is None or self._plane is None:
            return
        lines = b"".join(b"%b: %b\r\n" % field for field in fields)
        self._plane.answer(handle.id, status, lines, body, not exchange.keep_alive)

    def _write_ahead(self, ticket: int, ids: bytes, records: Sequence[bytes]) -> None:
        """A disk that fails, or a record that must not be kept, releases them all the same."""
        plane, log = self._plane, self._ahead
        if plane is None:
            return
        if log is None:
            plane.release(ticket)
            return
        numbers = memoryview(ids).cast("Q").tolist()
        kept: list[bytes] = []
        for number, record in zip(numbers, records, strict=True):
            cleaned = self.captures.cleaned(record)
            if cleaned is not None:
                kept.append(frame(number, cleaned))
        log.append(b"".join(kept), numbers, lambda _: self._release(ticket))

    def _release(self, ticket: int) -> None:
        if self._plane is not None:
            self._plane.release(ticket)

    # Waiting.

    async def _sweep(self) -> None:
        while True:
            done, _ = await asyncio.wait({self._over}, timeout=limits.SWEEP_S)
            if done:
                self._over.result()
            self.desk.holds.sweep(self._loop.time())
            if self._plane is not None:
                self._hear(self._plane)

    async def _watch(self, number: int, health: Health) -> None:
        """The plane itself takes an upstream down that it can't connect to."""
        watching = asyncio.create_task(health.watch())
        was_up = True
        try:
            while True:
                await asyncio.sleep(limits.SWEEP_S)
                is_down = bool(self._counter("upstreams_down") >> number & 1)
                if is_down and was_up and health.up:
                    health.fall()
                if health.up != was_up and self._plane is not None:
                    self._plane.set_upstream(number, health.up)
                was_up = health.up
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _emptied(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._empty.wait()

    def _counter(self, name: str) -> int:
        return int(self._plane.counters()[name]) if self._plane is not None else 0

    def _relay(self) -> Relay:
        return Relay(self._adopt)

    def _adopt(self, end: socket.socket, peer: bytes) -> None:
        if self._plane is None:
            end.close()
        else:
            self._plane.adopt(end.detach(), peer)

    def _has_room(self, handshakes: int) -> bool:
        return self.clients + handshakes < limits.CLIENTS_MAX


class _Handle:
    """The client of an exchange, as the desk sees it."""

    def __init__(self, server: NativeServer, exchange: Exchange, id_: int) -> None:
        self.id = id_
        self._server = server
        self._exchange = exchange

    def answer(
        self,
        exchange: Exchange,
        status: int,
        body: bytes,
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        self._server.answer(self, status, body, fields)

    def ask_for_body(self, exchange: Exchange) -> None:
        """The plane has asked: an exchange comes here whole."""


async def _numeric(address: Address) -> tuple[str, int]:
    """Looked up once: an upstream whose address changes needs a restart of the workers."""
    if not address.port:
        return address.host, 0
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise PlaneEnded(
            f"legacy.upstream: {address.host} can't be looked up: {error.strerror}; correct the "
            f"name, or give an address"
        ) from error
    return str(found[0][4][0]), address.port
