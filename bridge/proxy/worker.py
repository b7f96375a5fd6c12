"""One proxy worker: puts its parts together, serves, reports, and stops cutting nobody off."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any

from bridge.adapting import adapted
from bridge.limits import (
    CANCEL_AGAIN_S,
    LISTEN_BACKLOG,
    PROXY_DRAIN_IDLE_S,
    PROXY_DRAIN_S,
    PROXY_STOP_IDLE_S,
    PROXY_STOP_S,
    TEE_FLUSH_S,
    WORKER_REPORT_S,
)
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.funds import LiveFunds
from bridge.proxy.desk.ids import LegacyOrders, OrderIds
from bridge.proxy.desk.live import LiveOrders
from bridge.proxy.desk.orders import OrderDesk
from bridge.proxy.desk.own_requests import OwnRequests
from bridge.proxy.desk.session import EngineSession, WriteBarrier
from bridge.proxy.heartbeat import beat
from bridge.proxy.listening import listening_socket
from bridge.proxy.planes import chosen_plane, make_plane
from bridge.proxy.settings import ProxySettings
from bridge.proxy.stages import StageSource
from bridge.stage import InstrumentStage, WorkerReport
from shadow.legacy.convert import scales


async def serve_worker(
    settings: ProxySettings,
    *,
    ready: Callable[[int], None],
    stop: asyncio.Event,
    replaced: asyncio.Event | None = None,
    pipe: int = -1,
) -> None:
    """Serves until `stop` is set; `ready` gets the port. Raises StageUnknown, PortInUse.

    `replaced`: another process serves on the same socket: this one leaves too, and takes its time.
    `pipe`: to the master, for heartbeats; -1: there is none.
    """
    worker = _Worker(settings)
    try:
        await worker.source.start()
        port = await worker.server.listen(_listener(settings))
        await worker.report()
        ready(port)
        await worker.run(stop, replaced or asyncio.Event(), pipe)
    finally:
        await worker.close()


def _listener(settings: ProxySettings) -> socket.socket:
    if settings.listen_fd < 0:
        return listening_socket(settings.listen_host, settings.listen_port)
    bound = socket.socket(fileno=settings.listen_fd)
    bound.listen(LISTEN_BACKLOG)  # one whose process failed again and again does not listen yet
    return bound


class _Worker:
    def __init__(self, settings: ProxySettings) -> None:
        mapping = settings.mapping
        grid = scales(settings.instruments)
        adapter = adapted(mapping.adapter)
        self.name = f"proxy-{settings.slot}-{os.urandom(4).hex()}"
        self._proxy, self._slot = settings.name, settings.slot
        implementation = chosen_plane(settings.implementation, os.environ)
        self.plane = make_plane(settings, self.name, implementation)
        self.server = server = self.plane.server
        self._legacy = LegacyOrders(settings.legacy_url, mapping, grid)
        self._ids = OrderIds(self._legacy)
        index = self.plane.index
        barrier = WriteBarrier(settings.shard)
        session = f"{settings.name}-{settings.slot}"
        self._engine = EngineSession(settings.engine, name=session, key=settings.engine_key)
        self._funds: LiveFunds | None = None
        if mapping.funds == "legacy":
            self._funds = LiveFunds(
                settings.legacy_url,
                mapping.accounts,
                grid.values(),
                session=session,
                worker=self.name,
                shard=settings.shard,
            )
        live = LiveOrders(
            self._engine,
            self._legacy,
            self._ids,
            index,
            barrier,
            Dialect(mapping.responses, mapping.words, grid, errors=mapping.errors, adapter=adapter),
            grid,
            mapping.words,
            self._funds,
        )
        self._news = asyncio.Event()  # something that a flip waits for
        self._own = OwnRequests(settings.upstreams)
        self.desk = server.desk = OrderDesk(
            live=live,
            legacy=self._legacy,
            index=index,
            barrier=barrier,
            responses=mapping.responses,
            adapter=adapter,
            read_stage=self._read_stage,
            drained_changed=self._news.set,
            forward=server.forward,
            ask_monolith=self._own.ask,
            record=self.plane.own.offer,
        )
        self.source = StageSource(
            settings.redis_url,
            settings.control_url,
            apply=server.apply,
            written=barrier.note_written,
        )

    async def run(self, stop: asyncio.Event, replaced: asyncio.Event, pipe: int) -> None:
        """Until either is set and all that was under way has ended."""
        shipping = asyncio.create_task(self.plane.shipper.run())
        tasks = [
            asyncio.create_task(work)
            for work in (
                self.server.sweep(),
                self.source.run(),
                self._engine.run(),
                self._report_on(),
            )
        ]
        if self._funds is not None:
            tasks.append(asyncio.create_task(self._funds.tend(self._engine)))
        if pipe >= 0:
            tasks.append(asyncio.create_task(beat(pipe, self.server.is_turning)))
        ends = [asyncio.create_task(event.wait()) for event in (stop, replaced)]
        try:
            await asyncio.wait((*ends, shipping, *tasks), return_when=asyncio.FIRST_COMPLETED)
            if replaced.is_set():
                await self._finish(stop)
            await self.server.stop(PROXY_STOP_S, idle_s=PROXY_STOP_IDLE_S)
            self.plane.shipper.stop(TEE_FLUSH_S)
            await shipping
        finally:
            await _ended((*ends, shipping, *tasks))
        for task in (shipping, *tasks):
            if not task.cancelled():
                task.result()  # a part that must never end by itself may have failed

    async def _finish(self, stop: asyncio.Event) -> None:
        """Waits for its clients as long as an answer may take; `stop` cuts that short."""
        finishing = asyncio.create_task(self.server.stop(PROXY_DRAIN_S, idle_s=PROXY_DRAIN_IDLE_S))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait((finishing, stopping), return_when=asyncio.FIRST_COMPLETED)
        await _ended((finishing, stopping))

    async def report(self) -> None:
        holds, server, plane = self.desk.holds, self.server, self.plane
        await self.source.report(
            WorkerReport(
                worker=self.name,
                pid=os.getpid(),
                version=holds.snapshot.version,
                drained=dict(holds.drained),
                held=holds.held(),
                captured=plane.captured,
                dropped=plane.dropped,
                requests=server.requests,
                at_s=time.time(),
                proxy=self._proxy,
                slot=self._slot,
                implementation=plane.implementation,
                clients=server.clients,
                spooled_bytes=plane.shipper.spooled_bytes,
                ahead_late=server.ahead_late,
                ahead_failed=plane.ahead_log.failed if plane.ahead_log is not None else 0,
                upstreams_down=server.upstreams_down,
            )
        )

    async def close(self) -> None:
        await self.server.stop(within_s=0.0)
        await self.desk.close()
        await self.source.leave(self.name)
        await self.source.close()
        await self.plane.close()
        await self._own.close()
        await self._ids.close()
        if self._funds is not None:
            await self._funds.close()
        await self._legacy.close()

    async def _read_stage(self, symbol: str) -> InstrumentStage | None:
        return await self.source.read_stage(symbol)

    async def _report_on(self) -> None:
        while True:
            await self.report()
            try:
                async with asyncio.timeout(WORKER_REPORT_S):
                    await self._news.wait()
            except TimeoutError:
                continue
            self._news.clear()


async def _ended(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancels until it is heard: the Redis client loses a cancellation now and then."""
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_S)
