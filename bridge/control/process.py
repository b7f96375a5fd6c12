"""The control process: stands by until it leads, then finishes what is half-done, writes back,
watches, and answers.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from aiohttp import web

from bridge.announce import Announcer
from bridge.config import FlipConfig, GateConfig, RollbackConfig
from bridge.control.api import Api
from bridge.control.leader import Leadership
from bridge.control.messages import Status
from bridge.control.status import collect
from bridge.control.switch import Switch
from bridge.control.watch import Watch
from bridge.engine_admin import EngineAdmin
from bridge.errors import PortInUse
from bridge.ledger import Ledger
from bridge.legacy_side import LegacySide
from bridge.limits import PORT_FREE_S, PORT_LOOK_S
from bridge.steps import OPERATING_FAULTS, Probe, Tools, unprobed
from bridge.tasks import ended
from bridge.workers import Workers
from bridge.writeback import WriteBack, WriteBackSettings
from engine.endpoint import Endpoint
from shadow.legacy.convert import scales
from shadow.legacy.mapping import InstrumentConfig, Mapping
from shadow.store import Store

_log = logging.getLogger(__name__)


class ControlSettings(msgspec.Struct, frozen=True, kw_only=True):
    store_url: str  # the control store
    legacy_url: str  # as role railswitch
    redis_url: str
    host: str
    port: int  # 0: any free one; `ready` says which
    engine: Endpoint
    engine_key: str  # of role admin
    shard: int
    mapping: Mapping
    instruments: tuple[InstrumentConfig, ...]
    gate: GateConfig
    flip: FlipConfig
    rollback: RollbackConfig


async def serve(
    settings: ControlSettings,
    *,
    ready: Callable[[int], None],
    stop: asyncio.Event,
    probe: Probe = unprobed,
) -> None:
    """Leads, or stands by for whoever leads, until `stop` is set. `ready(port)` is called whenever
    it begins to lead.

    Raises StoreUnreachable, StageConflict or PortInUse where it can't begin.
    """
    leadership = Leadership(settings.store_url)
    try:
        while not stop.is_set():
            if not await _before(stop, leadership.acquire()):
                break
            _log.info("leads")
            async with _Leader(settings, probe) as leader:
                ready(await leader.listen())
                why = await leader.lead(stop, leadership)
                if why:
                    _log.error("steps down: %s", why)
    finally:
        await leadership.release()


async def _before(stop: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Does the work, unless `stop` is set before it is done: False then."""
    doing, stopping = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((doing, stopping), return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
        return doing.done() and not stop.is_set()
    finally:
        await ended(doing, stopping)


class _Leader:
    """Everything that only the leader has; made when it begins to lead, closed when it ends."""

    def __init__(self, settings: ControlSettings, probe: Probe) -> None:
        self._settings = settings
        self._scales = scales(settings.instruments)
        self._ledger = Ledger(settings.store_url)
        self._reading = Ledger(settings.store_url)  # so that a look never waits for a flip's step
        self._store = Store(settings.store_url)
        self._announcer = Announcer(settings.redis_url, self._ledger)
        self._workers = Workers(settings.redis_url)
        self._engine = EngineAdmin(settings.engine, key=settings.engine_key)
        self._legacy = LegacySide(settings.legacy_url, settings.mapping, self._scales)
        self._write_back = WriteBack(
            WriteBackSettings(
                url=settings.legacy_url,
                shard=settings.shard,
                mapping=settings.mapping,
                scales=tuple(self._scales.values()),
            ),
            self._engine,
            ever_live=self._reading.ever_live,
            announce=lambda seq: self._announcer.written(settings.shard, seq),
        )
        tools = Tools(
            ledger=self._ledger,
            announcer=self._announcer,
            workers=self._workers,
            engine=self._engine,
            legacy=self._legacy,
            write_back=self._write_back,
            evidence=self._store.read_evidence,
            config=settings.flip,
            probe=probe,
        )
        self._switch = Switch(tools, settings.gate, self._scales)
        self._watch = Watch(tools, self._switch, settings.rollback, clock=time.monotonic)
        self._api = Api(self._switch, self._status)
        self._runner = web.AppRunner(
            self._api.application(), handle_signals=False, access_log=None, shutdown_timeout=1.0
        )
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> _Leader:
        try:
            await self._ledger.add_missing(self._settings.instruments)
            for work in (self._write_back, self._workers, self._announcer):
                self._tasks.append(asyncio.create_task(work.run()))
            # Once before anybody is told that we are here: half-done flips, the engine's
            # instruments. What does not answer yet is tried again by the watch.
            for look in (self._watch.announce, self._watch.listen, self._watch.tend):
                try:
                    await look()
                except OPERATING_FAULTS as error:
                    _log.warning("%s", error)
            self._tasks.append(asyncio.create_task(self._watch.run()))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.settle()
        await self._runner.cleanup()
        await ended(*self._tasks)
        for part in (
            self._engine,
            self._announcer,
            self._workers,
            self._legacy,
            self._store,
            self._reading,
            self._ledger,
        ):
            await part.close()

    async def listen(self) -> int:
        """The port. Raises PortInUse; whoever led before us may need a moment to leave it."""
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        clock = asyncio.get_running_loop().time
        give_up_at_s = clock() + PORT_FREE_S
        while True:
            site = web.TCPSite(self._runner, host, port)
            try:
                await site.start()
            except OSError as error:
                if error.errno != errno.EADDRINUSE or clock() >= give_up_at_s:
                    raise PortInUse(
                        f"control can't listen on {host}:{port}: {error.strerror}; free it, or "
                        "choose another control.listen"
                    ) from error
                await asyncio.sleep(PORT_LOOK_S)
            else:
                return int(self._runner.addresses[0][1])

    async def lead(self, stop: asyncio.Event, leadership: Leadership) -> str:
        """Until `stop` is set, or another process leads: why, then. What fails here is a defect."""
        stopping = asyncio.create_task(stop.wait())
        lost = asyncio.create_task(leadership.lost())
        try:
            done, _ = await asyncio.wait(
                (stopping, lost, *self._tasks), return_when=asyncio.FIRST_COMPLETED
            )
            for task in done:
                task.result()
            return lost.result() if lost in done else ""
        finally:
            await ended(stopping, lost)

    async def _status(self) -> Status:
        troubles = {
            "proxies": self._workers.trouble,
            "engine": self._watch.engine().trouble,
            "write-back": self._write_back.trouble,
            **self._switch.troubles,
        }
        return await collect(
            self._reading,
            self._store.read_evidence,
            self._settings.gate,
            funds=self._settings.mapping.funds,
            control="leads",
            heard=self._workers.shown(),
            write_back=self._watch.write_back(),
            engine=self._watch.engine(),
            problems=[f"{what}: {trouble}" for what, trouble in troubles.items() if trouble],
        )
