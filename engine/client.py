"""The asyncio client of the engine: one session, pipelined commands, and a connection that mends
itself.

Whatever has not been answered when a connection is lost is sent again on the next one under the
same references: the engine answers with the original outcome, or executes it for the first time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

from engine import limits
from engine.calls import Answer, AnyCall, BatchCall, Call, Rows, Unanswered
from engine.endpoint import ClientTls, Endpoint
from engine.errors import (
    EngineError,
    EngineUnavailable,
    OutcomeUnknown,
    QueryRefused,
)
from engine.follow import Follower, TailBatch
from engine.link import Link, connect, may_pass
from engine.protocol import (
    EngineStatus,
    Login,
    MessageType,
    Query,
    Reply,
    message,
    packed,
    unpacked,
)
from engine.snapshot import AccountState
from engine.types import Command, Mode, RestingOrder, Role
from engine.wire import COMMAND_BYTES, decode_resting_orders

__all__ = ["Answer", "BookAnswer", "ClientTls", "EngineClient", "EngineStatus", "TailBatch"]

CallT = TypeVar("CallT", Call, BatchCall)


class BookAnswer(NamedTuple):
    seq: int  # the state after this command
    mode: Mode
    epoch: int
    orders: tuple[RestingOrder, ...]  # bids, then asks; best price first, then oldest first


class EngineClient:
    """Of one session: a second client under the same name takes it over, and this one then raises
    SessionTaken. To be used from one event loop.
    """

    def __init__(
        self,
        *,
        name: str,
        key: str,
        host: str = "",
        port: int = 0,
        unix_path: str | Path = "",
        tls: ClientTls | None = None,
        cancel_on_disconnect: bool = False,
    ) -> None:
        """By TCP to `host` and `port`, with `tls` if given; or to the socket file `unix_path`.

        `cancel_on_disconnect`: when the connection ends, by `close` or by accident, the engine
        cancels the session's open orders; role TRADE only.
        """
        if bool(host) == bool(unix_path) or (tls is not None and not host):
            raise ValueError("an engine is at a host and port, with or without TLS, or a unix_path")
        self.role = Role.READ_ONLY  # this and the next four are known once started
        self.session = 0
        self.implementation = ""
        self.shard = 0
        self.head_seq = 0  # the newest sequence number seen
        self._endpoint = Endpoint(host=host, port=port, unix_path=str(unix_path), tls=tls)
        self._login = Login(name=name, key=key, cancel_on_disconnect=cancel_on_disconnect)
        self._name = name
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._ended: EngineError | None = None  # why no further attempt is made
        self._is_closed = False
        self._mending: asyncio.Task[None] | None = None
        self._newest_ref = 0
        self._turn = asyncio.Lock()  # whose commands are being entered
        self._has_room = asyncio.Event()
        self._unanswered = Unanswered()
        self._outbox: list[bytes] = []
        self._queries: dict[int, asyncio.Future[Reply]] = {}
        self._open_queries = 0  # of this connection, those given up too
        self._may_ask = asyncio.Event()
        self._query_id = 0
        self._followers: set[Follower] = set()

    @classmethod
    def at(
        cls, endpoint: Endpoint, *, name: str, key: str, cancel_on_disconnect: bool = False
    ) -> EngineClient:
        return cls(
            name=name,
            key=key,
            host=endpoint.host,
            port=endpoint.port,
            unix_path=endpoint.unix_path,
            tls=endpoint.tls,
            cancel_on_disconnect=cancel_on_disconnect,
        )

    @property
    def is_connected(self) -> bool:
        return self._link is not None

    async def start(self, *, timeout_s: float = limits.CONNECT_S) -> None:
        """Raises LoginRefused at once, EngineUnavailable when it was not reached in time."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        backoff_s = limits.RECONNECT_S_MIN
        while True:
            try:
                await self._connect()
            except EngineUnavailable:
                if asyncio.get_running_loop().time() + backoff_s > deadline:
                    raise
            else:
                return
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, limits.RECONNECT_S_MAX)

    async def close(self) -> None:
        """Commands that are still unanswered raise OutcomeUnknown, or EngineUnavailable."""
        self._is_closed = True
        for follower in tuple(self._followers):
            follower.close()
        if self._mending is not None:
            self._mending.cancel()
        if self._link is not None:
            self._link.write(message(MessageType.LOGOUT))
            self._link.close()
        self._end(EngineUnavailable(f"the client {self._name!r} has been closed"))
        await asyncio.sleep(0)

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        """Answers in the order of the commands. Those with ref 0 get the session's next reference;
        a reference used before gets its original outcome.

        Raises OutcomeUnknown when some were sent and not all answered in time (send them again
        under the same references to learn more), EngineUnavailable when none was sent;
        SessionTaken, LoginRefused or Disconnected when this client can't go on at all.
        """
        if not commands:
            return []
        call = await self._exchange(lambda newest_ref: Call(commands, newest_ref), timeout_s)
        return [answer for answer in call.answers if answer is not None]

    async def send_batch(self, commands: bytes | memoryview | Rows, *, timeout_s: float) -> bytes:
        """The events (engine.wire.EVENT_DTYPE) of many commands (COMMAND_DTYPE), as bytes and in
        the order of the commands: nothing is done for each by itself.

        References all 0 get the session's next ones, consecutive references are kept: a batch sent
        again under the same ones gets its original outcomes. Raises as `send` does.
        """
        if not len(commands):
            return b""
        call = await self._exchange(lambda newest_ref: BatchCall(commands, newest_ref), timeout_s)
        return call.events()

    async def book(self, instrument: int, *, timeout_s: float = limits.CONNECT_S) -> BookAnswer:
        """Raises QueryRefused for an unknown instrument, EngineUnavailable."""
        reply = await self._ask(timeout_s, "book", instrument=instrument)
        assert reply.book is not None
        book = reply.book
        orders = tuple(decode_resting_orders(book.orders))
        return BookAnswer(book.seq, Mode(book.mode), book.epoch, orders)

    async def account(self, account: int, *, timeout_s: float = limits.CONNECT_S) -> AccountState:
        """Its limits, and what it has open; also of one that the engine has not heard of. Raises
        EngineUnavailable.
        """
        reply = await self._ask(timeout_s, "account", account=account)
        assert reply.account is not None
        return reply.account

    async def status(self, *, timeout_s: float = limits.CONNECT_S) -> EngineStatus:
        """Raises EngineUnavailable."""
        reply = await self._ask(timeout_s, "status")
        assert reply.status is not None
        return reply.status

    async def tail(self, from_seq: int) -> AsyncIterator[TailBatch]:
        """Every event of the shard from `from_seq` on, for as long as it is iterated; the first
        batch begins with exactly `from_seq`. Waits out an engine that is away.

        Raises LoginRefused; Disconnected where the journal ends before `from_seq` - 1.
        """
        follower = Follower(self._endpoint, name=self._name, key=self._login.key, from_seq=from_seq)
        self._followers.add(follower)
        try:
            async for batch in follower.batches():
                yield batch
        finally:
            follower.close()
            self._followers.discard(follower)

    # --- commands

    async def _exchange(self, make: Callable[[int], CallT], timeout_s: float) -> CallT:
        """Sends what `make` makes of the newest reference used, and waits for all its answers."""
        call: CallT | None = None
        try:
            async with asyncio.timeout(timeout_s):
                async with self._turn:
                    self._check_usable()
                    call = make(self._newest_ref)
                    self._unanswered.check_free(call)
                    self._newest_ref = call.newest_ref
                    await self._enter(call)
                await call.done
        except TimeoutError:
            if call is not None and call.was_sent:
                raise OutcomeUnknown(
                    f"{call.left} of {call.count} commands of {self._name!r} were not answered "
                    f"within {timeout_s:g} s; they may or may not have been executed"
                ) from None
            raise EngineUnavailable(
                f"the engine at {self._endpoint} was not reached within {timeout_s:g} s; "
                f"nothing was sent"
            ) from None
        finally:
            if call is not None:
                self._forget(call)
        return call

    async def _enter(self, call: AnyCall) -> None:
        """As there is room among the unanswered. A lost connection does not stop it."""
        for start in range(0, call.count, limits.FRAME_COMMANDS_MAX):
            stop = min(start + limits.FRAME_COMMANDS_MAX, call.count)
            while len(self._unanswered) + stop - start > limits.CLIENT_UNANSWERED_MAX:
                self._has_room.clear()
                await self._has_room.wait()
                self._check_usable()
            self._unanswered.enter(call, start, stop)
            if self._link is not None:
                call.was_sent = True
                self._outbox.append(call.data[start * COMMAND_BYTES : stop * COMMAND_BYTES])
                if len(self._outbox) == 1:
                    # What other tasks send in this turn of the loop goes in the same message.
                    asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        data = b"".join(self._outbox)
        self._outbox.clear()
        if self._link is not None:
            for start in range(0, len(data), limits.CLIENT_PAYLOAD_BYTES_MAX):
                chunk = data[start : start + limits.CLIENT_PAYLOAD_BYTES_MAX]
                self._link.write(message(MessageType.COMMANDS, chunk))

    def _forget(self, call: AnyCall) -> None:
        self._unanswered.forget(call)
        if call.left:
            self._has_room.set()
        if call.done.done() and not call.done.cancelled():
            call.done.exception()  # it may have come while the call waited for room

    def _receive(self, kind: int, payload: memoryview) -> None:
        if kind == MessageType.EVENTS:
            self._unanswered.receive(payload)
            self.head_seq = max(self.head_seq, self._unanswered.newest_seq)
            self._has_room.set()
        elif kind == MessageType.REPLY:
            self._open_queries -= 1
            self._may_ask.set()
            reply = unpacked(payload, Reply)
            waiting = self._queries.pop(reply.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    # --- questions

    async def _ask(self, timeout_s: float, what: str, **about: int) -> Reply:
        """Asks again on the next connection when one is lost: a question has no effect."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._check_usable()
                    await self._connected.wait()
                    while self._open_queries >= limits.QUERIES_OPEN_MAX:
                        self._may_ask.clear()
                        await self._may_ask.wait()
                    reply = await self._ask_once(what, about)
                    if reply is not None:
                        break
        except TimeoutError:
            raise EngineUnavailable(
                f"the engine at {self._endpoint} did not answer within {timeout_s:g} s"
            ) from None
        if reply.error:
            raise QueryRefused(reply.error)
        return reply

    async def _ask_once(self, what: str, about: dict[str, int]) -> Reply | None:
        if self._link is None:
            return None
        self._query_id += 1
        query = Query(id=self._query_id, what=what, **about)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queries[query.id] = waiting
        self._open_queries += 1
        self._link.write(packed(MessageType.QUERY, query))
        try:
            return await waiting
        except EngineUnavailable:
            return None
        finally:
            self._queries.pop(query.id, None)

    # --- the connection

    async def _connect(self) -> None:
        link = await connect(
            self._endpoint,
            self._login,
            receive=self._receive,
            lost=self._on_lost,
        )
        if link.ended is not None:
            raise link.ended
        accepted = link.accepted.result()
        self.role, self.session = Role(accepted.role), accepted.session
        self.implementation, self.shard = accepted.implementation, accepted.shard
        self.head_seq = max(self.head_seq, accepted.head_seq)
        self._newest_ref = max(self._newest_ref, accepted.last_ref)
        self._link = link
        self._outbox.clear()
        for call in self._unanswered.calls():
            call.was_sent = True
        self._outbox.append(self._unanswered.again())
        self._flush()
        self._connected.set()

    def _on_lost(self, error: EngineError) -> None:
        if self._link is None:
            return  # before it was in use: whoever made it sees that it has ended
        self._link = None
        self._connected.clear()
        self._outbox.clear()
        self._open_queries = 0
        self._may_ask.set()
        for waiting in self._queries.values():
            if not waiting.done():
                waiting.set_exception(EngineUnavailable(str(error)))
        if may_pass(error) and not self._is_closed:
            self._mending = asyncio.ensure_future(self._mend())
        else:
            self._end(error)

    async def _mend(self) -> None:
        backoff_s = limits.RECONNECT_S_MIN
        while True:
            try:
                await self._connect()
            except EngineError as error:
                if not may_pass(error):
                    self._end(error)
                    return
            else:
                return
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, limits.RECONNECT_S_MAX)

    def _check_usable(self) -> None:
        if self._ended is not None:
            raise self._ended.with_traceback(None)
        if not self.session:
            raise EngineUnavailable(f"the client {self._name!r} has not been started")

    def _end(self, error: EngineError) -> None:
        """No further attempt will be made: whoever waits is told."""
        self._ended = self._ended or error
        for call in self._unanswered.calls():
            if not call.done.done():
                call.done.set_exception(_fate(call, error))
        self._connected.set()
        self._has_room.set()


def _fate(call: AnyCall, error: EngineError) -> EngineError:
    if isinstance(error, EngineUnavailable) and call.was_sent:
        return OutcomeUnknown(f"{error}; {call.left} commands were sent and not answered")
    return error
