"""A whole comparison in one process: a monolith in memory, the engine's own market behind a client
of the same shape as the real one, and the real pipeline with the real control store.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import msgspec
import psycopg
from sandbox_config import CONFIG

from bridge.bench.synthetic import Done, Monolith, Order, open_for_shadow
from bridge.proxy.desk.dialect import Dialect
from engine.errors import EngineUnavailable
from engine.reference import PythonMarket
from engine.types import Command, CommandKind, Event, EventKind, Mode, RestingOrder, Role, Side
from engine.wire import (
    decode_events,
    decode_resting_orders,
    encode_command,
    session_command,
)
from shadow.capture import Capture, encode_batch
from shadow.errors import CapturesUnavailable, ChangesLost, LegacyUnavailable
from shadow.known import Rule
from shadow.legacy.convert import Scale, scales
from shadow.operation import LegacyTransaction, Mark, Marker, OrderImage, Unreadable
from shadow.pipeline import Pipeline
from shadow.ports import CaptureEntry, Captures, Changes, Engine, Snapshots
from shadow.store import Store
from shadow.tasks import cancelled
from shadow.verdict import Evidence, OperationVerdict
from shadow.writers import Writers

SCALES = scales(CONFIG.instruments)
BTC, ETH = "BTC-USD", "ETH-USD"
DEADLINE_S = 10.0


class Answer(NamedTuple):
    seq: int
    at_ns: int
    events: tuple[Event, ...]


class Book(NamedTuple):
    seq: int
    mode: Mode
    epoch: int
    orders: tuple[RestingOrder, ...]


class Shard:
    """The engine: survives its clients, remembers outcomes, can be taken away for a while."""

    def __init__(self) -> None:
        self.market = PythonMarket()
        self.outcomes: dict[tuple[int, int], Answer] = {}
        self.sessions: dict[str, int] = {}
        self.present = asyncio.Event()
        self.present.set()
        self.at_ns = 1_800_000_000_000_000_000
        self.admin = self.session("control", Role.ADMIN)
        for command in open_for_shadow(SCALES.values(), session=self.admin):
            self.apply(command)

    def session(self, name: str, role: Role) -> int:
        if name not in self.sessions:
            self.sessions[name] = len(self.sessions) + 1
            self.apply(session_command(session=self.sessions[name], name=name, role=role))
        return self.sessions[name]

    def last_ref(self, session: int) -> int:
        return next(one.last_ref for one in self.market.sessions() if one.session == session)

    def apply(self, command: Command) -> Answer:
        self.at_ns += 1_000_000
        events = tuple(decode_events(self.market.apply(encode_command(command), self.at_ns)))
        return Answer(self.market.last_seq, self.at_ns, events)

    def mode(self, instrument: int, mode: Mode, epoch: int) -> None:
        ref = self.last_ref(self.admin) + 1
        self.apply(
            Command(
                kind=CommandKind.MODE,
                session=self.admin,
                instrument=instrument,
                epoch=epoch,
                ref=ref,
                aux=mode,
            )
        )


class Client:
    """Of the shape of engine.client.EngineClient."""

    def __init__(self, shard: Shard, name: str) -> None:
        self.shard = shard
        self.session = shard.session(name, Role.SHADOW)
        self.sent = 0
        self.alter: Callable[[Command], Command] = lambda command: command

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        await self.shard.present.wait()
        await asyncio.sleep(0)
        return [self._send(command) for command in commands]

    async def book(self, instrument: int) -> Book:
        if not self.shard.present.is_set():
            raise EngineUnavailable("the engine is away")
        state = next(one for one in self.shard.market.instruments() if one.instrument == instrument)
        orders = tuple(decode_resting_orders(self.shard.market.orders(instrument)))
        return Book(self.shard.market.last_seq, state.mode, state.epoch, orders)

    def _send(self, command: Command) -> Answer:
        self.sent += 1
        last = self.shard.last_ref(self.session)
        ref = command.ref or last + 1
        if ref <= last:
            return self.shard.outcomes[self.session, ref]
        command = msgspec.structs.replace(self.alter(command), session=self.session, ref=ref)
        answer = self.shard.apply(command)
        self.shard.outcomes[self.session, ref] = answer
        return answer


class Slot:
    """The monolith's change stream: what was not confirmed comes again. Nothing comes while
    `flows` is clear.
    """

    def __init__(self) -> None:
        self.log: list[LegacyTransaction] = []
        self.confirmed = 0
        self.given = 0  # up to here by any stream
        self.failures: deque[Exception] = deque()
        self.arrived = asyncio.Event()
        self.flows = asyncio.Event()
        self.flows.set()

    async def append(self, tx: LegacyTransaction) -> None:
        assert not self.log or tx.end_lsn > self.log[-1].end_lsn, "out of commit order"
        self.log.append(tx)
        self.arrived.set()

    def stream(self) -> Stream:
        return Stream(self)


class Stream:
    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.after = 0

    async def open(self, expected_lsn: int = 0) -> None:
        if self.slot.failures:
            raise self.slot.failures.popleft()
        self.after = max(expected_lsn, self.slot.confirmed)

    async def transactions(self) -> AsyncIterator[LegacyTransaction]:
        while True:
            if self.slot.failures:
                raise self.slot.failures.popleft()
            new = [tx for tx in self.slot.log if tx.end_lsn > self.after]
            for tx in new:
                await self.slot.flows.wait()
                self.after = tx.end_lsn
                self.slot.given = max(self.slot.given, tx.end_lsn)
                yield tx
            if not new:
                self.slot.arrived.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.05):
                        await self.slot.arrived.wait()

    def confirm(self, end_lsn: int) -> None:
        assert end_lsn <= self.after
        self.slot.confirmed = max(self.slot.confirmed, end_lsn)

    async def close(self) -> None:
        return


class Snapshot(NamedTuple):
    lsn: int
    orders: list[OrderImage | Unreadable]


class Redis:
    """The captures' stream."""

    def __init__(self) -> None:
        self.entries: list[CaptureEntry] = []
        self.is_away = False
        self.read_after = ""  # the newest entry whose captures have been handed over

    def add(self, captures: Sequence[Capture]) -> None:
        self.add_fields(encode_batch(captures))

    def add_fields(self, fields: dict[bytes, bytes]) -> None:
        self.entries.append(CaptureEntry(f"{len(self.entries) + 1:09d}-0", fields))

    async def newest(self, count: int) -> list[CaptureEntry]:
        self._check()
        return self.entries[::-1][:count]

    async def read(self, after: str, count: int, block_ms: int) -> list[CaptureEntry]:
        self._check()
        self.read_after = after
        for _ in range(10):
            found = [entry for entry in self.entries if entry.id > after][:count]
            if found:
                return found
            await asyncio.sleep(block_ms / 10_000)
        return []

    def _check(self) -> None:
        if self.is_away:
            raise CapturesUnavailable("captures can't be read from Redis: it is away")


class World:
    """The monolith and everything around the pipeline; outlives it."""

    def __init__(self, control_url: str) -> None:
        self.url = control_url
        self.monolith = Monolith(SCALES, CONFIG.mapping)
        self.slot = Slot()
        self.redis = Redis()
        self.shard = Shard()
        self.known: tuple[Rule, ...] = ()
        self.writers = Writers()
        self.snapshots = 0
        self.unreadable: list[Unreadable] = []
        self.feed = Client(self.shard, "shadow-feed")
        self.load = Client(self.shard, "shadow-load")
        self.reader = Store(control_url)
        self.dialect = Dialect(CONFIG.mapping.responses, CONFIG.mapping.words, SCALES)

    # --- what happens

    async def do(self, done: Done, *, captured: bool = True) -> Done:
        await self.slot.append(done.tx)
        if captured:
            self.redis.add([self.timed(done.capture)])
        return done

    async def place(self, order: Order, *, captured: bool = True) -> Done:
        return await self.do(self.monolith.place(order), captured=captured)

    def timed(self, capture: Capture) -> Capture:
        """As if it were of now: the pipeline's clock is the real one."""
        return msgspec.structs.replace(capture, sent_at_ns=time.time_ns())

    async def stage(
        self, symbol: str, stage: str, epoch: int, *, stage_from: str, holding: int = 0
    ) -> None:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            await connection.execute(
                "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch, holding)"
                " VALUES (%s, %s, %s, %s, %s) ON CONFLICT (symbol) DO UPDATE SET"
                " stage = excluded.stage, epoch = excluded.epoch, holding = excluded.holding",
                (symbol, SCALES[symbol].instrument, stage, epoch, holding),
            )
            await connection.execute(
                "INSERT INTO railswitch.stage_history"
                " (symbol, stage_from, stage_to, epoch, actor, reason)"
                " VALUES (%s, %s, %s, %s, 'test', '')",
                (symbol, stage_from, stage, epoch),
            )

    async def flip(self, symbol: str, direction: str) -> int:
        async with await psycopg.AsyncConnection.connect(self.url) as connection:
            cursor = await connection.execute(
                "INSERT INTO railswitch.flip"
                " (symbol, direction, epoch_from, epoch_to, state, actor)"
                " VALUES (%s, %s, 1, 2, 'done', 'test') RETURNING id",
                (symbol, direction),
            )
            row = await cursor.fetchone()
        assert row is not None
        return int(row[0])

    async def mark_fence(self, symbol: str, flip_id: int, owner: str, epoch: int) -> None:
        marker = Marker(symbol=symbol, flip_id=flip_id, owner=owner, epoch=epoch)
        await self.slot.append(self.monolith.transaction(marker))

    # --- what the pipeline asks of the monolith's database

    async def open_orders(self, symbols: Sequence[str], hold: Callable[[], None]) -> Snapshot:
        hold()
        self.snapshots += 1
        rows = [row for symbol in symbols for row in self.monolith.open_orders(symbol)]
        unreadable = [row for row in self.unreadable if row.symbol in symbols]
        return Snapshot(self.monolith.transaction().commit_lsn, [*rows, *unreadable])

    async def owners(self, order_ids: Sequence[int]) -> dict[int, tuple[str, int]]:
        return {one: self.monolith.owners[one] for one in order_ids if one in self.monolith.owners}

    async def write_mark(self, mark_id: str) -> None:
        await self.slot.append(self.monolith.transaction(Mark(id=mark_id)))

    # --- the pipeline

    def pipeline(
        self,
        *,
        feed: Engine | None = None,
        load: Engine | None = None,
        captures: Captures | None = None,
        changes: Callable[[], Changes] | None = None,
        snapshots: Snapshots | None = None,
        warning: Callable[[], str] = lambda: "",
    ) -> Pipeline:
        return Pipeline(
            changes=changes or self.slot.stream,
            captures=captures or self.redis,
            feed_client=feed or self.feed,
            load_client=load or self.load,
            store=Store(self.url),
            snapshots=snapshots or self,
            render=self.dialect,
            mapping=CONFIG.mapping,
            scales=SCALES,
            known=self.known,
            writers=self.writers,
            warning=warning,
        )

    @asynccontextmanager
    async def running(self, *, killed: bool = False) -> AsyncIterator[None]:
        """`killed`: it ends without getting to say anything."""
        stop = asyncio.Event()
        pipeline = self.pipeline()
        if killed:
            pipeline._end = _vanish(pipeline)  # type: ignore[method-assign]
        task = asyncio.create_task(pipeline.run(stop))
        try:
            yield
            assert not task.done() or task.exception() is None, task
        finally:
            stop.set()
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await task
            except TimeoutError:
                raise AssertionError(
                    [str(one.get_stack()[-1:]) for one in asyncio.all_tasks()]
                ) from None
            await pipeline._store.close()

    async def evidence(self, symbol: str = BTC) -> Evidence:
        found = await self.reader.read_evidence(symbol)
        assert found is not None
        return found

    async def verdicts(self, symbol: str = BTC) -> list[OperationVerdict]:
        """Oldest first."""
        return (await self.reader.verdicts(symbol, 1000))[::-1]

    async def until(self, condition: Callable[[Evidence], bool], symbol: str = BTC) -> Evidence:
        """The counts close all the way."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                found = await self.evidence(symbol)
                assert found.counts.closes(), found.counts
                if condition(found):
                    return found
                await asyncio.sleep(0.02)

    async def happened(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110  the pipeline has no event for it
                await asyncio.sleep(0.01)

    async def settled(self, operations: int, symbol: str = BTC) -> Evidence:
        """Until so many operations have been seen and none is pending."""
        try:
            return await self.until(
                lambda found: found.counts.seen - found.counts.pending >= operations, symbol
            )
        except TimeoutError:
            raise AssertionError(await self.evidence(symbol)) from None

    async def loaded(self, symbol: str = BTC, *, run: int = 1) -> Evidence:
        return await self.until(lambda found: found.run >= run, symbol)


def _vanish(pipeline: Pipeline) -> Callable[[Sequence[Any]], Awaitable[None]]:
    async def end(tasks: Sequence[Any]) -> None:
        await cancelled(tasks)
        if not tasks:
            return  # it had not begun
        await pipeline._books.close()
        await pipeline._feed.close()

    return end


async def shadow(world: World, *symbols: str) -> None:
    for symbol in symbols or (BTC,):
        await world.stage(symbol, "shadow", 1, stage_from="off")


def sell(price: int, qty: int = 10, *, account: int = 1, symbol: str = BTC) -> Order:
    return Order(symbol=symbol, account=account, side=Side.SELL, qty_lots=qty, price_ticks=price)


def buy(price: int, qty: int = 10, *, account: int = 2, symbol: str = BTC) -> Order:
    return Order(symbol=symbol, account=account, side=Side.BUY, qty_lots=qty, price_ticks=price)


def play(control_url: str, scenario: Callable[[World], Awaitable[None]]) -> None:
    """Runs a scenario in a world of its own."""

    async def main() -> None:
        world = World(control_url)
        try:
            await scenario(world)
        finally:
            await world.reader.close()

    asyncio.run(main())


__all__ = [
    "BTC",
    "ETH",
    "SCALES",
    "ChangesLost",
    "EventKind",
    "LegacyUnavailable",
    "Scale",
    "World",
    "buy",
    "play",
    "sell",
    "shadow",
]
