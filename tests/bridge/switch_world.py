"""Real servers and a real engine around the switch, and stand-ins for the proxies and the shadow.

Two proxy workers report over Redis as the proxy does. The shadow's place is taken by a task that
consumes fence markers; what it has compared is written into the control store beforehand.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psycopg
import redis.asyncio as redis

from bridge import fence
from bridge.announce import Announcer
from bridge.config import FlipConfig, GateConfig, load
from bridge.control.switch import Switch
from bridge.engine_admin import EngineAdmin
from bridge.ledger import Ledger
from bridge.legacy_side import LegacySide
from bridge.sandbox.provision import as_role
from bridge.stage import (
    STAGES_CHANNEL,
    STAGES_KEY,
    WORKERS_CHANNEL,
    WORKERS_KEY_PREFIX,
    Stage,
    StageSnapshot,
    WorkerReport,
    decode_snapshot,
    encode,
)
from bridge.steps import Probe, Tools, unprobed
from bridge.tasks import ended
from bridge.workers import Workers
from bridge.writeback import WriteBack, WriteBackSettings
from engine.client import Answer, EngineClient
from engine.endpoint import Endpoint
from engine.service import EngineKey, EngineSettings, serve
from engine.types import Command, CommandKind, OrderType, Role, Side, TimeInForce
from shadow import latency
from shadow.legacy.convert import scales
from shadow.legacy.mapping import Mapping
from shadow.store import Store

T = TypeVar("T")

CONFIG = load(Path(__file__).parents[2] / "bridge" / "sandbox" / "railswitch.toml")
SCALES = scales(CONFIG.instruments)
BTC = SCALES["BTC-USD"]
KEYS = {role: f"key-{role.name.lower()}" for role in Role}
GATE = GateConfig(operations_min=100, fills_min=10, shadow_s_min=1.0, evidence_age_s_max=3600.0)
PATIENCE_S = 20.0


async def until(condition: Callable[[], Awaitable[bool]], what: str) -> None:
    """Waits for it, and names it when it does not come."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not await condition():
        assert time.monotonic() < deadline_s, f"{what}: not within {PATIENCE_S:g} s"
        await asyncio.sleep(0.005)


class Engine:
    """The real engine service, in this process, on a journal that survives `stop`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = 0
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        started = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        settings = EngineSettings(
            host="127.0.0.1",
            port=self.port,
            directory=self.directory,
            implementation="python",
            shard=1,
            keys=tuple(EngineKey(role=role, key=key) for role, key in KEYS.items()),
        )
        self._task = asyncio.create_task(serve(settings, ready=started.set_result, stop=self._stop))
        await asyncio.wait((self._task, started), return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        self.port = started.result()

    async def stop(self) -> None:
        self._stop.set()
        if self._task is not None:
            await self._task
            self._task = None

    def client(self, name: str, role: Role) -> EngineClient:
        return EngineClient(host="127.0.0.1", port=self.port, name=name, key=KEYS[role])


class FakeWorker:
    """Follows the stages and says that it has drained, as a proxy worker without requests does."""

    def __init__(self, redis_url: str, name: str) -> None:
        self._redis = redis.Redis.from_url(redis_url)
        self.name = name
        self.snapshot = StageSnapshot(version=0, instruments={})
        self.drains = True
        self.seen: list[StageSnapshot] = []

    async def run(self) -> None:
        try:
            async with self._redis.pubsub() as subscription:
                await subscription.subscribe(STAGES_CHANNEL)
                stored = await self._redis.get(STAGES_KEY)
                if stored is not None:
                    self._take(stored)
                while True:
                    await self.report()
                    message = await subscription.get_message(
                        ignore_subscribe_messages=True, timeout=0.2
                    )
                    if message is not None:
                        self._take(message["data"])
        finally:
            await self._redis.delete(WORKERS_KEY_PREFIX + self.name)
            await self._redis.aclose()

    async def report(self) -> None:
        held = {
            one.symbol: one.holding for one in self.snapshot.instruments.values() if one.holding
        }
        report = WorkerReport(
            worker=self.name,
            pid=1,
            version=self.snapshot.version,
            drained=held if self.drains else {},
            held=0,
            captured=0,
            dropped={},
            requests=0,
            at_s=time.time(),
        )
        await self._redis.set(WORKERS_KEY_PREFIX + self.name, encode(report), ex=5)
        await self._redis.publish(WORKERS_CHANNEL, encode(report))

    def _take(self, data: bytes) -> None:
        snapshot = decode_snapshot(data)
        if snapshot.version > self.snapshot.version:
            self.snapshot = snapshot
            self.seen.append(snapshot)


class FakeShadow:
    """Says that it has consumed a fence marker as soon as the fence row stands."""

    def __init__(self, store_url: str, legacy_url: str) -> None:
        self._store_url, self._legacy_url = store_url, legacy_url
        self.consumes = True

    async def run(self) -> None:
        async with (
            await psycopg.AsyncConnection.connect(self._store_url, autocommit=True) as store,
            await psycopg.AsyncConnection.connect(self._legacy_url, autocommit=True) as legacy,
        ):
            while True:
                if self.consumes:
                    cursor = await legacy.execute("SELECT symbol, flip_id FROM railswitch.fence")
                    for symbol, flip_id in await cursor.fetchall():
                        await store.execute(
                            "UPDATE railswitch.shadow_instrument SET marker_flip_id = %s"
                            " WHERE symbol = %s AND marker_flip_id < %s",
                            (flip_id, symbol, flip_id),
                        )
                await asyncio.sleep(0.005)


class World:
    def __init__(
        self,
        control_url: str,
        legacy_url: str,
        redis_url: str,
        directory: Path,
        mapping: Mapping = CONFIG.mapping,
    ) -> None:
        self.mapping = mapping
        self.control_url = control_url
        self.super_url = legacy_url
        self.application_url = as_role(legacy_url, "exchange")
        self.legacy_url = as_role(legacy_url, "railswitch")
        self.redis_url = redis_url
        self.engine = Engine(directory / "engine")
        self.workers = [FakeWorker(redis_url, "w1"), FakeWorker(redis_url, "w2")]
        self.shadow = FakeShadow(control_url, legacy_url)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await fence.install(self.application_url, self.mapping, "railswitch", "railswitch")
        await self.engine.start()
        for part in (*self.workers, self.shadow):
            self._tasks.append(asyncio.create_task(part.run()))

    async def stop(self) -> None:
        await ended(*self._tasks)
        await self.engine.stop()

    @asynccontextmanager
    async def control(
        self, *, probe: Probe = unprobed, config: FlipConfig | None = None
    ) -> AsyncIterator[Control]:
        """What a control process has; left by an exception, it is as if it were killed."""
        made = Control(self, probe, config or FlipConfig(hold_ms_max=10_000))
        try:
            await made.start()
            yield made
        finally:
            await made.stop()

    # What it looks like

    async def fence_owner(self, symbol: str = "BTC-USD") -> tuple[str, int]:
        row = (await fence.read(self.legacy_url)).get(symbol)
        return (row.owner, row.epoch) if row else ("legacy", 0)

    async def engine_mode(self, instrument: int = 1) -> tuple[str, int]:
        async with self.session("status", Role.READ_ONLY) as client:
            book = await client.book(instrument)
        return book.mode.name.lower(), book.epoch

    async def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Of the legacy database, as its superuser."""
        async with await psycopg.AsyncConnection.connect(self.super_url) as connection:
            cursor = await connection.execute(query, values)
            return await cursor.fetchall() if cursor.description else []

    # What can be done to it

    async def leave_workers(self) -> None:
        workers = self._tasks[: len(self.workers)]
        await ended(*workers)

    @asynccontextmanager
    async def session(self, name: str, role: Role) -> AsyncIterator[EngineClient]:
        client = self.engine.client(name, role)
        try:
            await client.start()
            yield client
        finally:
            await client.close()

    async def legacy_order(
        self, side: Side = Side.BUY, price: str = "100", quantity: str = "1"
    ) -> int:
        """The id of an open order that the monolith took. Raises psycopg's error if fenced."""
        async with await psycopg.AsyncConnection.connect(self.application_url) as connection:
            cursor = await connection.execute(
                "INSERT INTO orders (market_id, member_id, side, order_type, price, quantity,"
                " remaining_quantity, created_at, updated_at) VALUES"
                " ('BTC-USD', 7, %s, 0, %s, %s, %s, clock_timestamp() AT TIME ZONE 'UTC', now())"
                " RETURNING id",
                (side - 1, price, quantity, quantity),
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def shadowed_order(
        self, side: Side = Side.BUY, price: str = "100", quantity: str = "1"
    ) -> int:
        """An order of the monolith that the engine has followed."""
        order_id = await self.legacy_order(side, price, quantity)
        order = new_order(order_id, side, price, quantity)
        (answer,) = await self.send("shadow-feed", Role.SHADOW, [order])
        assert answer.events[0].leaves_lots, answer
        return order_id

    async def live_order(
        self, epoch: int, side: Side, price: str, quantity: str, **changes: Any
    ) -> Answer:
        """An order of a client that the proxy sends to the engine, with an id from the sequence."""
        ((order_id,),) = await self.rows("SELECT nextval('orders_id_seq')")
        order = new_order(order_id, side, price, quantity, epoch=epoch, **changes)
        (answer,) = await self.send("proxy-0", Role.TRADE, [order])
        return answer

    async def cancel(self, epoch: int, order_id: int) -> Answer:
        command = Command(
            kind=CommandKind.CANCEL, instrument=1, epoch=epoch, account=7, order_id=order_id
        )
        (answer,) = await self.send("proxy-0", Role.TRADE, [command])
        return answer

    async def send(self, name: str, role: Role, commands: Sequence[Command]) -> list[Answer]:
        async with self.session(name, role) as client:
            return await client.send(commands, timeout_s=PATIENCE_S)

    async def evidence(self, symbol: str = "BTC-USD", **counts: int) -> None:
        """Writes down what a shadow would have found; by default enough for GATE."""
        histogram = latency.empty()
        for _ in range(1000):
            latency.record(histogram, 300_000)
        values = {"seen": 1000, "matched": 1000, "mismatched": 0, "fills": 500, **counts}
        async with await psycopg.AsyncConnection.connect(self.control_url) as connection:
            await connection.execute(
                "INSERT INTO railswitch.shadow_instrument (symbol, run, first_run, epoch,"
                " book_equal, book_checked_at, lag_ms)"
                " SELECT symbol, 1, 1, epoch, true, now(), 5 FROM railswitch.stage"
                " WHERE symbol = %(symbol)s ON CONFLICT (symbol) DO UPDATE SET"
                " epoch = excluded.epoch, book_checked_at = now(), updated_at = now()",
                {"symbol": symbol},
            )
            await connection.execute(
                "INSERT INTO railswitch.shadow_run"
                " (symbol, run, epoch, loaded_lsn, orders, reason, loaded_at)"
                " VALUES (%s, 1, 1, 0, 0, '', now() - interval '1 hour') ON CONFLICT DO NOTHING",
                (symbol,),
            )
            await connection.execute(
                "INSERT INTO railswitch.parity_count"
                " (symbol, run, window_at, seen, matched, mismatched, fills)"
                " VALUES (%(symbol)s, 1, '2026-01-01', %(seen)s, %(matched)s, %(mismatched)s,"
                " %(fills)s) ON CONFLICT (symbol, run, window_at) DO UPDATE SET"
                " seen = excluded.seen, matched = excluded.matched,"
                " mismatched = excluded.mismatched, fills = excluded.fills",
                {"symbol": symbol, **values},
            )
            await connection.execute(
                "INSERT INTO railswitch.latency (symbol, run, side, window_at, histogram)"
                " VALUES (%s, 1, 'engine', '2026-01-01', %s) ON CONFLICT DO NOTHING",
                (symbol, latency.encode(histogram)),
            )


class Control:
    def __init__(self, world: World, probe: Probe, config: FlipConfig) -> None:
        self.ledger = Ledger(world.control_url)
        self.store = Store(world.control_url)
        self.announcer = Announcer(world.redis_url, self.ledger)
        self.workers = Workers(world.redis_url)
        self.engine = EngineAdmin(
            Endpoint(host="127.0.0.1", port=world.engine.port), key=KEYS[Role.ADMIN]
        )
        self.legacy = LegacySide(world.legacy_url, world.mapping, SCALES)
        self.write_back = WriteBack(
            WriteBackSettings(
                url=world.legacy_url, shard=1, mapping=world.mapping, scales=tuple(SCALES.values())
            ),
            self.engine,
            ever_live=self.ledger.ever_live,
            announce=lambda seq: self.announcer.written(1, seq),
        )
        self.tools = Tools(
            ledger=self.ledger,
            announcer=self.announcer,
            workers=self.workers,
            engine=self.engine,
            legacy=self.legacy,
            write_back=self.write_back,
            evidence=self.store.read_evidence,
            config=config,
            probe=probe,
        )
        self.switch = Switch(self.tools, GATE, SCALES)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        await self.ledger.add_missing(CONFIG.instruments)
        await self.announcer.stages()
        for part in (self.write_back, self.workers, self.announcer):
            self._tasks.append(asyncio.create_task(part.run()))
        await until(self._ready, "write-back running and workers heard")

    async def _ready(self) -> bool:
        return self.write_back.running and len(self.workers.heard()) == 2

    async def stop(self) -> None:
        await ended(*self._tasks)
        for part in (self.engine, self.announcer, self.workers, self.legacy):
            with suppress(Exception):
                await part.close()
        await self.store.close()
        await self.ledger.close()


def new_order(
    order_id: int, side: Side, price: str, quantity: str, *, epoch: int = 0, **changes: Any
) -> Command:
    order = Command(
        kind=CommandKind.NEW,
        side=side,
        ord_type=OrderType.LIMIT,
        tif=TimeInForce.GTC,
        instrument=1,
        epoch=epoch,
        account=7,
        order_id=order_id,
        price_ticks=BTC.ticks(price),
        qty_lots=BTC.lots(quantity),
    )
    return msgspec.structs.replace(order, **changes)


async def shadowing(world: World, control: Control) -> None:
    """BTC-USD in shadow, compared, with a few orders in both books."""
    from bridge.control.messages import StageRequest

    request = StageRequest(actor="ann", stage=Stage.SHADOW, execute=True)
    await control.switch.change_stage("BTC-USD", request)
    for price in ("100", "99", "100"):
        await world.shadowed_order(Side.BUY, price)
    await world.shadowed_order(Side.SELL, "105", "2")
    await world.evidence()


# Runs a coroutine of the world; the fixture `in_world` is one.
InWorld = Callable[[Callable[[World], Awaitable[None]]], None]
