"""One proxy worker: puts its parts together, serves, reports, and stops cutting nobody off."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from bridge.limits import TEE_FLUSH_S, WORKER_REPORT_S
from bridge.proxy.dialect import Dialect
from bridge.proxy.ids import LegacyOrders, OrderIds, OrderIndex
from bridge.proxy.live import EngineSession, LiveOrders, WriteBarrier
from bridge.proxy.orders import OrderDesk
from bridge.proxy.route import Router
from bridge.proxy.server import Server
from bridge.proxy.stages import StageSource
from bridge.proxy.tee import Tee
from bridge.stage import InstrumentStage, WorkerReport
from engine.endpoint import Endpoint
from shadow.legacy.convert import scales
from shadow.legacy.mapping import InstrumentConfig, Mapping

_CANCEL_AGAIN_S = 0.1


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    listen_host: str
    listen_port: int  # 0: a free one
    upstream_host: str
    upstream_port: int
    mapping: Mapping
    instruments: tuple[InstrumentConfig, ...]
    redis_url: str
    control_url: str
    legacy_url: str
    engine: Endpoint
    engine_key: str
    shard: int = 1
    name: str = "proxy"  # of this proxy among all that use the engine
    slot: int = 0  # with it, names the engine session: no two workers may have the same one


async def serve_worker(
    settings: ProxySettings, *, ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    """Serves until `stop` is set; `ready` gets the port. Raises StageUnknown, PortInUse."""
    worker = _Worker(settings)
    try:
        await worker.source.start()
        port = await worker.server.listen(settings.listen_host, settings.listen_port)
        await worker.report()
        ready(port)
        await worker.run(stop)
    finally:
        await worker.close()


class _Worker:
    def __init__(self, settings: ProxySettings) -> None:
        mapping = settings.mapping
        grid = scales(settings.instruments)
        self.name = f"proxy-{settings.slot}-{os.urandom(4).hex()}"
        self.tee = Tee(self.name, settings.redis_url)
        self.server = Server(
            upstream_host=settings.upstream_host,
            upstream_port=settings.upstream_port,
            router=Router(mapping.routes),
            identity_header=mapping.identity_header,
            tee=self.tee,
        )
        self._legacy = LegacyOrders(settings.legacy_url, mapping, grid)
        self._ids = OrderIds(self._legacy)
        index = OrderIndex()
        barrier = WriteBarrier(settings.shard)
        self._engine = EngineSession(
            settings.engine,
            name=f"{settings.name}-{settings.slot}",
            key=settings.engine_key,
        )
        live = LiveOrders(
            self._engine,
            self._legacy,
            self._ids,
            index,
            barrier,
            Dialect(mapping.responses, mapping.words, grid),
            grid,
            mapping.words,
        )
        self._news = asyncio.Event()  # something that a flip waits for
        self.desk = self.server.desk = OrderDesk(
            live=live,
            legacy=self._legacy,
            index=index,
            barrier=barrier,
            responses=mapping.responses,
            read_stage=self._read_stage,
            drained_changed=self._news.set,
            forward=self.server.pool.send,
        )
        self.source = StageSource(
            settings.redis_url,
            settings.control_url,
            apply=self.desk.holds.apply,
            written=barrier.note_written,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set and all that was under way has ended."""
        shipping = asyncio.create_task(self.tee.run())
        tasks = [
            asyncio.create_task(work)
            for work in (
                self.server.sweep(),
                self.source.run(),
                self._engine.run(),
                self._report_on(),
            )
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((stopping, shipping, *tasks), return_when=asyncio.FIRST_COMPLETED)
            await self.server.stop()
            self.tee.stop(TEE_FLUSH_S)
            await shipping
        finally:
            await _ended((stopping, shipping, *tasks))
        for task in (shipping, *tasks):
            if not task.cancelled():
                task.result()  # a part that must never end by itself may have failed

    async def report(self) -> None:
        holds, server, tee = self.desk.holds, self.server, self.tee
        await self.source.report(
            WorkerReport(
                worker=self.name,
                pid=os.getpid(),
                version=holds.snapshot.version,
                drained=dict(holds.drained),
                held=holds.held(),
                captured=tee.captured,
                dropped=dict(tee.dropped),
                requests=server.requests,
                at_s=time.time(),
            )
        )

    async def close(self) -> None:
        await self.server.stop(within_s=0.0)
        await self.desk.close()
        await self.source.leave(self.name)
        await self.source.close()
        await self.tee.close()
        await self._ids.close()
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
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
