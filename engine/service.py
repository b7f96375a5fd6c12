"""The shard service: what sockets bring becomes journal frames, what is durable goes out.

One loop owns all state. Whatever arrived while the last frame was synced becomes the next frame;
the market applies it meanwhile, and nothing of it is shown before the journal has it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from engine import limits
from engine.errors import ListenFailed, MarketFailed, UnknownInstrument
from engine.frame import FRAME_HEADER_BYTES
from engine.gateway import Connection, EngineKey, name_problem, role_of
from engine.journal import Journal
from engine.market import create_market
from engine.protocol import (
    Accepted,
    Book,
    EngineStatus,
    Login,
    Query,
    RejectCode,
    Reply,
)
from engine.replay import Frame
from engine.sequencer import Batch, Draft, Entry, Sequencer
from engine.tail import TailFeed, TailFrame
from engine.types import EventKind, Role
from engine.wire import decode_events

__all__ = ["EngineKey", "EngineSettings", "serve"]

log = logging.getLogger(__name__)


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str
    port: int  # 0: any free one; `ready` says which
    directory: Path  # of the journal
    implementation: str  # "python" or "rust"
    shard: int
    keys: tuple[EngineKey, ...]


async def serve(
    settings: EngineSettings, *, ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    """Recovers, listens, calls `ready(port)`, and serves until `stop` is set.

    Raises JournalInUse, JournalDamaged, EngineImplementationUnavailable or ListenFailed where it
    can't start; JournalFailed or MarketFailed where it must not go on: the process has to end then.
    """
    shard = Shard(settings)
    sys.setswitchinterval(limits.SWITCH_INTERVAL_S)
    try:
        await shard.recover(stop)
        if not stop.is_set():
            # What recovery made stays for good: collecting garbage need not look at it again.
            gc.freeze()
            ready(await shard.listen())
            await shard.run(stop)
    finally:
        await shard.close()


class Shard:
    """Market, journal and sequencer of one shard, and the desk behind its connections."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._market = create_market(settings.implementation)
        self._sequencer = Sequencer[Connection]()
        self._feed = TailFeed(
            settings.directory, shard=settings.shard, implementation=settings.implementation
        )
        self._journal: Journal | None = None
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal-write")
        self._server: asyncio.Server | None = None
        self._queue: deque[Batch[Connection] | Entry[Connection]] = deque()
        self._work = asyncio.Event()
        self._is_in_flight = False  # applied, and not yet durable
        self._is_abandoned = False
        self._questions: list[tuple[Connection, Query]] = []
        self._connections: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._owners: dict[str, Connection] = {}  # by session name
        self._tails: dict[Connection, asyncio.Task[None]] = {}
        self._frames = 0

    # --- life

    async def recover(self, stop: asyncio.Event) -> None:
        """Replays the journal. Gives up, leaving all as it is, once told to stop."""
        loop = asyncio.get_running_loop()
        began = time.monotonic()
        opening = loop.run_in_executor(self._writer, self._open)
        await _either({opening}, stop)
        self._is_abandoned = stop.is_set()
        with suppress(_Abandoned):
            self._journal = journal = await opening
            self._sequencer.resume(
                self._market.sessions(),
                next_seq=journal.link.next_seq,
                next_ts_ns=journal.link.next_ts_ns,
            )
            log.info(
                "recovered %d commands in %.1f s", self._market.last_seq, time.monotonic() - began
            )

    async def listen(self) -> int:
        host, port = self._settings.host, self._settings.port
        try:
            self._server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self), host, port, backlog=limits.CONNECTIONS_MAX
            )
        except OSError as error:
            raise ListenFailed(
                f"the engine can't listen on {host}:{port}: {error.strerror or error}. "
                f"Stop what listens there, or change `engine.listen`"
            ) from error
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    async def run(self, stop: asyncio.Event) -> None:
        ticker = asyncio.ensure_future(self._tick())
        pump = asyncio.ensure_future(self._pump(stop))
        try:
            await _either({pump, ticker}, stop)
            if ticker.done():
                ticker.result()
            self._work.set()
            await pump  # the frame in flight is still answered
            for connection in tuple(self._connections):
                connection.reject(RejectCode.STOPPING, "the engine stops")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), limits.CLOSE_GRACE_S)
        finally:
            ticker.cancel()
            pump.cancel()

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tails.values():
            task.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        self._is_abandoned = True
        self._feed.close()
        self._writer.shutdown()
        if self._journal is not None:
            self._journal.close()

    # --- the desk

    def connected(self, connection: Connection) -> str:
        if len(self._connections) >= limits.CONNECTIONS_MAX:
            return f"the engine has {limits.CONNECTIONS_MAX} connections already"
        self._connections.add(connection)
        self._is_empty.clear()
        return ""

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()
        if self._owners.get(connection.name) is connection:
            del self._owners[connection.name]
        tail = self._tails.pop(connection, None)
        if tail is not None:
            tail.cancel()

    def login(self, connection: Connection, login: Login) -> None:
        role = role_of(self._settings.keys, login.key)
        problem = "unknown key" if role is None else name_problem(login.name)
        known = self._sequencer.sessions.get(login.name)
        if not problem and not login.observe and known is not None and known.role != role:
            problem = f"session {login.name!r} has the role {known.role.name}, this key another"
        if problem or role is None:
            connection.reject(RejectCode.LOGIN, problem)
        elif login.observe:
            connection.accept(self._accepted(0, role))
        else:
            before = self._owners.get(login.name)
            self._owners[login.name] = connection
            if before is not None:
                before.reject(
                    RejectCode.TAKEN_OVER, f"another connection logged in as {login.name!r}"
                )
            self._queue.append(Entry(connection, login.name, role))
            self._work.set()

    def receive(self, connection: Connection, commands: memoryview) -> None:
        self._queue.append(Batch(connection, connection.session, commands))
        self._work.set()

    def query(self, connection: Connection, query: Query) -> None:
        # While a frame is in flight the market is ahead of what may be seen.
        if self._is_in_flight:
            self._questions.append((connection, query))
        else:
            connection.reply(self._reply(query))

    def subscribe(self, connection: Connection, from_seq: int) -> None:
        head = self._feed.durable_seq
        if connection in self._tails:
            connection.reject(RejectCode.PROTOCOL, "a second subscription on one connection")
        elif from_seq > head + 1:
            connection.reject(
                RejectCode.AHEAD,
                f"sequence {from_seq} was asked for and the journal ends at {head}: it is not the "
                f"journal that was followed before",
            )
        else:
            follow = self._feed.follow(connection, from_seq)
            self._tails[connection] = asyncio.ensure_future(follow)

    # --- the pump

    async def _pump(self, stop: asyncio.Event) -> None:
        journal = self._journal
        assert journal is not None
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            if not self._queue:
                self._work.clear()
                await self._work.wait()
                continue
            draft = self._sequencer.draft(self._queue, time.time_ns())
            events = b""
            if draft.count:
                self._is_in_flight = True
                written = loop.run_in_executor(self._writer, _append, journal, draft)
                try:
                    events = self._apply(draft)
                finally:
                    await written
                self._is_in_flight = False
            else:
                await asyncio.sleep(0)
            self._release(draft, events)

    def _apply(self, draft: Draft[Connection]) -> bytes:
        commands = memoryview(draft.frame)[FRAME_HEADER_BYTES:]
        try:
            return self._market.apply(commands, draft.ts_ns)
        except Exception as error:
            raise _market_failed(draft.first_seq, error) from error

    def _release(self, draft: Draft[Connection], events: bytes) -> None:
        """Everything in the draft is durable: let it be seen."""
        if draft.count:
            last_seq = draft.first_seq + draft.count - 1
            self._frames += 1
            try:
                for part, outcome in self._sequencer.settle(draft, events):
                    if part.sender is not None:
                        part.sender.events(outcome)
                    else:
                        _check_session(outcome.events)
            except ValueError as error:
                raise _market_failed(draft.first_seq, error) from error
            self._feed.append(TailFrame(draft.first_seq, last_seq, draft.ts_ns, events))
        for connection, outcome in draft.repeats:
            connection.events(outcome)
        for connection, size in draft.consumed:
            connection.consumed(size)
        for connection, session in draft.admitted:
            self._admit(connection, session)
        questions, self._questions = self._questions, []
        for connection, query in questions:
            connection.reply(self._reply(query))

    def _admit(self, connection: Connection, session: int) -> None:
        if not session:
            connection.reject(
                RejectCode.LOGIN, f"the shard has {limits.SESSIONS_MAX} session names already"
            )
        elif self._owners.get(connection.name) is connection:
            role = self._sequencer.sessions[connection.name].role
            connection.accept(self._accepted(session, role))

    def _accepted(self, session: int, role: Role) -> Accepted:
        return Accepted(
            session=session,
            role=role,
            last_ref=self._sequencer.last_ref(session) if session else 0,
            head_seq=self._feed.durable_seq,
            implementation=self._market.implementation,
            shard=self._settings.shard,
        )

    # --- questions, only ever answered from a market that shows what is durable

    def _reply(self, query: Query) -> Reply:
        if query.what == "book":
            return self._book(query)
        if query.what == "status":
            return Reply(id=query.id, status=self._status())
        return Reply(id=query.id, error=f"{query.what!r} can't be asked for: book or status can")

    def _book(self, query: Query) -> Reply:
        try:
            orders = self._market.orders(query.instrument)
        except UnknownInstrument as error:
            return Reply(id=query.id, error=str(error))
        state = next(
            each for each in self._market.instruments() if each.instrument == query.instrument
        )
        book = Book(seq=self._market.last_seq, mode=state.mode, epoch=state.epoch, orders=orders)
        return Reply(id=query.id, book=book)

    def _status(self) -> EngineStatus:
        return EngineStatus(
            seq=self._market.last_seq,
            at_ns=self._market.last_ts_ns,
            shard=self._settings.shard,
            implementation=self._market.implementation,
            instruments=self._market.instruments(),
            sessions=self._market.sessions(),
            connected=tuple(sorted(self._owners)),
            frames=self._frames,
            tails=self._feed.subscribers,
        )

    # --- the rest

    def _open(self) -> Journal:
        settings = self._settings
        return Journal.open(settings.directory, shard=settings.shard, replay=self._replay)

    def _replay(self, frame: Frame) -> None:
        if self._is_abandoned:
            raise _Abandoned
        try:
            events = self._market.apply(frame.commands, frame.ts_ns)
            self._sequencer.replayed(frame.commands, frame.first_seq, frame.ts_ns, events)
        except Exception as error:
            raise _market_failed(frame.first_seq, error) from error
        last_seq = frame.first_seq + frame.length - 1
        self._feed.append(TailFrame(frame.first_seq, last_seq, frame.ts_ns, events))

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        before = loop.time()
        while True:
            await asyncio.sleep(limits.HEARTBEAT_S)
            now = loop.time()
            was_stalled = now - before > 3 * limits.HEARTBEAT_S
            for connection in tuple(self._connections):
                connection.tick(now, was_stalled=was_stalled)
            before = now


class _Abandoned(Exception):
    """Recovery was told to stop."""


async def _either(futures: set[asyncio.Future[Any]], event: asyncio.Event) -> None:
    """Returns when one of the futures is done or the event set; leaves the futures alone."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait(futures | {waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()


def _append(journal: Journal, draft: Draft[Connection]) -> None:
    journal.append(draft.frame, first_seq=draft.first_seq, ts_ns=draft.ts_ns)


def _check_session(events: bytes) -> None:
    for event in decode_events(events):
        if event.kind != EventKind.SESSION:
            raise ValueError(f"a session that the gateway defined was refused: {event.reason.name}")


def _market_failed(first_seq: int, error: Exception) -> MarketFailed:
    return MarketFailed(
        f"the market failed on the batch that begins at sequence {first_seq}: {error!r}. The "
        f"engine has stopped, and showed nothing of it. This is a defect: keep the journal "
        f"directory, it reproduces it"
    )
