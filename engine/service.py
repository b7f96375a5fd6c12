"""The shard service: who may come in, what they are told, and the shard behind them."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec

from engine import limits
from engine.absence import Absences, Expiry
from engine.endpoint import TlsSettings, UnixSocket, server_context
from engine.errors import ListenFailed, UnknownInstrument
from engine.feed_publisher import FeedPublisher, FeedSettings
from engine.gateway import Connection
from engine.keys import EngineKey, KeyRing, name_problem
from engine.protocol import (
    Accepted,
    Book,
    EngineStatus,
    Login,
    Query,
    RejectCode,
    Reply,
)
from engine.shard import Shard
from engine.types import Role

__all__ = ["EngineKey", "EngineSettings", "FeedSettings", "TlsSettings", "serve"]


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    host: str  # "": not by TCP
    port: int  # 0: any free one; `ready` says which
    directory: Path  # of the journal
    implementation: str  # "python" or "rust"
    shard: int
    keys: tuple[EngineKey, ...]
    unix_path: Path | None = None  # of a socket file, next to TCP or instead of it
    tls: TlsSettings | None = None  # of TCP; the socket file is guarded by who may open it
    market_data: FeedSettings | None = None  # None: none is published
    plain_orders: bool = False  # of role TRADE only what a monolith's tables can show is taken


async def serve(
    settings: EngineSettings, *, ready: Callable[[int], None], stop: asyncio.Event
) -> None:
    """Recovers, listens, calls `ready(port)`, and serves until `stop` is set. Without TCP the port
    is 0.

    Raises JournalInUse, JournalDamaged, EngineImplementationUnavailable or ListenFailed where it
    can't start; JournalFailed or MarketFailed where it must not go on: the process has to end then.
    """
    _raise_file_limit()
    service = Service(settings)
    sys.setswitchinterval(limits.SWITCH_INTERVAL_S)
    try:
        await service.shard.recover(stop)
        if not stop.is_set():
            service.resume()
            ready(await service.listen())
            await service.run(stop)
    finally:
        await service.close()


def _raise_file_limit() -> None:
    """A full house of connections must not take the descriptor that the journal needs next."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with suppress(OSError, ValueError):  # some systems have a lower bound of their own
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    needed = 2 * limits.CONNECTIONS_MAX + limits.FILES_RESERVE
    if soft != resource.RLIM_INFINITY and soft < needed:
        raise ListenFailed(
            f"the engine may open {soft} files and needs {needed}: with too few, connections could "
            f"stop its journal. Raise that limit (`ulimit -n {needed}`, or LimitNOFILE= of "
            f"its systemd unit)"
        )


class Service:
    """The desk between the connections and their shard."""

    def __init__(self, settings: EngineSettings) -> None:
        self.shard = Shard[Connection](
            settings.directory, number=settings.shard, implementation=settings.implementation
        )
        self._settings = settings
        self._keys = KeyRing(settings.keys)
        self._absences = Absences(self.shard)
        self._market_data = (
            FeedPublisher(settings.market_data, self.shard) if settings.market_data else None
        )
        self._servers: list[asyncio.Server] = []
        self._unix: UnixSocket | None = None
        self._connections: set[Connection] = set()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._owners: dict[str, Connection] = {}  # by session name
        self._tails: dict[Connection, asyncio.Task[None]] = {}

    # --- life

    def resume(self) -> None:
        """Once the shard has recovered, before anybody can connect."""
        self._absences.resume()

    async def listen(self) -> int:
        """Gives the TCP port, or 0."""
        settings = self._settings
        if not settings.host and settings.unix_path is None:
            raise ListenFailed("the engine is told neither a host nor a socket file to listen on")
        if settings.unix_path is not None:
            self._unix = UnixSocket(settings.unix_path)
            self._servers.append(
                await asyncio.get_running_loop().create_unix_server(
                    lambda: Connection(self),
                    sock=self._unix.socket,
                    backlog=limits.CONNECTIONS_MAX,
                )
            )
        return await self._listen_tcp() if settings.host else 0

    async def _listen_tcp(self) -> int:
        host, port, tls = self._settings.host, self._settings.port, self._settings.tls
        secured: dict[str, Any] = {}
        if tls is not None:
            secured["ssl"] = server_context(tls)
            secured["ssl_handshake_timeout"] = limits.LOGIN_S
            secured["ssl_shutdown_timeout"] = limits.CLOSE_GRACE_S
        try:
            server = await asyncio.get_running_loop().create_server(
                lambda: Connection(self), host, port, backlog=limits.CONNECTIONS_MAX, **secured
            )
        except OSError as error:
            raise ListenFailed(
                f"the engine can't listen on {host}:{port}: {error.strerror or error}. "
                f"Stop what listens there, or change `engine.listen`"
            ) from error
        self._servers.append(server)
        listening: int = server.sockets[0].getsockname()[1]
        return listening

    async def run(self, stop: asyncio.Event) -> None:
        ticker = asyncio.ensure_future(self._tick())
        expiry = asyncio.ensure_future(Expiry(self.shard).run())
        grace = asyncio.get_running_loop().call_later(limits.ABSENCE_GRACE_S, self._end_grace)
        shard = asyncio.ensure_future(self.shard.run(stop))
        if self._market_data is not None:
            self._market_data.start()
        try:
            await _either({shard, ticker, expiry}, stop)
            for task in (ticker, expiry):
                if task.done():
                    task.result()
            # Nobody is absent because the engine stops: who is not back after it is, is.
            self._owners.clear()
            await shard  # the frame in flight is still answered
            for connection in tuple(self._connections):
                connection.reject(RejectCode.STOPPING, "the engine stops")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_empty.wait(), limits.CLOSE_GRACE_S)
        finally:
            grace.cancel()
            expiry.cancel()
            ticker.cancel()
            shard.cancel()

    async def close(self) -> None:
        if self._unix is not None:
            self._unix.remove()
        for server in self._servers:
            server.close()
        if self._market_data is not None:
            await self._market_data.close()
        for task in self._tails.values():
            task.cancel()
        for connection in tuple(self._connections):
            connection.abort()
        await self.shard.close()

    # --- the desk

    def connected(self, connection: Connection) -> str:
        if len(self._connections) >= limits.CONNECTIONS_MAX:
            return f"the engine has {limits.CONNECTIONS_MAX} connections already"
        self._connections.add(connection)
        self._is_empty.clear()
        return ""

    def left(self, connection: Connection) -> None:
        if self._owners.get(connection.name) is connection:
            del self._owners[connection.name]
            known = self.shard.sequencer.sessions.get(connection.name)
            if known is not None:
                self._absences.left(known.number)

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._is_empty.set()
        tail = self._tails.pop(connection, None)
        if tail is not None:
            tail.cancel()

    def login(self, connection: Connection, login: Login) -> None:
        role = self._keys.role_of(login.key)
        problem = "unknown key" if role is None else self._login_problem(login, role)
        if problem or role is None:
            connection.reject(RejectCode.LOGIN, problem)
        elif login.observe:
            connection.accept(self._accepted(0, role))
        else:
            # A takeover is no absence: the session goes on, with its orders.
            before = self._owners.get(login.name)
            self._owners[login.name] = connection
            if before is not None:
                before.reject(
                    RejectCode.TAKEN_OVER, f"another connection logged in as {login.name!r}"
                )
            self.shard.enter(connection, login.name, role)

    def _login_problem(self, login: Login, role: Role) -> str:
        known = self.shard.sequencer.sessions.get(login.name)
        if not login.observe and known is not None and known.role != role:
            return f"session {login.name!r} has the role {known.role.name}, this key another"
        if login.cancel_on_disconnect and (login.observe or role is not Role.TRADE):
            return "only a session of role TRADE has orders to cancel on disconnect"
        return name_problem(login.name)

    def admitted(self, connection: Connection, session: int) -> None:
        """Its login is sequenced; session 0: there is no room for another name."""
        if not session:
            connection.reject(
                RejectCode.LOGIN, f"the shard has {limits.SESSIONS_MAX} session names already"
            )
        elif self._is_owner(connection):
            self._absences.entered(
                session,
                cancel_on_disconnect=connection.cancel_on_disconnect,
                then=lambda: self._accept(connection, session),
            )

    def _accept(self, connection: Connection, session: int) -> None:
        if self._is_owner(connection):
            role = self.shard.sequencer.sessions[connection.name].role
            connection.plain_orders_only = self._settings.plain_orders and role == Role.TRADE
            connection.accept(self._accepted(session, role))

    def _is_owner(self, connection: Connection) -> bool:
        return self._owners.get(connection.name) is connection

    def _end_grace(self) -> None:
        """After a restart: who is not back by now is absent."""
        numbers = {self.shard.sequencer.sessions[name].number for name in self._owners}
        for session in self._absences.sessions():
            if session not in numbers:
                self._absences.left(session)

    def receive(self, connection: Connection, commands: memoryview) -> None:
        self.shard.receive(connection, connection.session, commands)

    def query(self, connection: Connection, query: Query) -> None:
        # Not at once: many questions in one read would keep everybody waiting for all of them.
        asyncio.get_running_loop().call_soon(
            self.shard.when_settled, lambda: self._answer(connection, query)
        )

    def _answer(self, connection: Connection, query: Query) -> None:
        if not connection.is_closing:
            connection.reply(self._reply(query))

    def subscribe(self, connection: Connection, from_seq: int) -> None:
        head = self.shard.feed.durable_seq
        if connection in self._tails:
            connection.reject(RejectCode.PROTOCOL, "a second subscription on one connection")
        elif from_seq > head + 1:
            connection.reject(
                RejectCode.AHEAD,
                f"sequence {from_seq} was asked for and the journal ends at {head}: it is not the "
                f"journal that was followed before",
            )
        else:
            follow = self.shard.feed.follow(connection, from_seq)
            self._tails[connection] = asyncio.ensure_future(follow)

    def _accepted(self, session: int, role: Role) -> Accepted:
        return Accepted(
            session=session,
            role=role,
            last_ref=self.shard.last_ref(session) if session else 0,
            head_seq=self.shard.feed.durable_seq,
            implementation=self.shard.market.implementation,
            shard=self._settings.shard,
            cancel_on_disconnect=self._absences.covers(session),
        )

    # --- questions, only ever answered from a market that shows what is durable

    def _reply(self, query: Query) -> Reply:
        if query.what == "book":
            return self._book(query)
        if query.what == "account":
            return Reply(id=query.id, account=self.shard.market.account(query.account))
        if query.what == "status":
            return Reply(id=query.id, status=self._status())
        known = "book, account or status can"
        return Reply(id=query.id, error=f"{query.what!r} can't be asked for: {known}")

    def _book(self, query: Query) -> Reply:
        market = self.shard.market
        try:
            orders = market.orders(query.instrument)
        except UnknownInstrument as error:
            return Reply(id=query.id, error=str(error))
        state = next(each for each in market.instruments() if each.instrument == query.instrument)
        book = Book(
            seq=self.shard.market.last_seq, mode=state.mode, epoch=state.epoch, orders=orders
        )
        return Reply(id=query.id, book=book)

    def _status(self) -> EngineStatus:
        return EngineStatus(
            seq=self.shard.market.last_seq,
            at_ns=self.shard.market.last_ts_ns,
            shard=self._settings.shard,
            implementation=self.shard.market.implementation,
            instruments=self.shard.market.instruments(),
            sessions=self.shard.market.sessions(),
            connected=tuple(sorted(self._owners)),
            frames=self.shard.frames,
            tails=self.shard.feed.subscribers,
            market_data=self._market_data.status() if self._market_data else None,
        )

    # --- the rest

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


async def _either(futures: set[asyncio.Future[Any]], event: asyncio.Event) -> None:
    """Returns when one of the futures is done or the event set; leaves the futures alone."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait(futures | {waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
