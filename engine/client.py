"""The asyncio client of the engine: one session, pipelined commands, and a connection that mends
itself.

Whatever has not been answered when a connection is lost is sent again on the next one under the
same references: the engine answers with the original outcome, or executes it for the first time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import numpy as np

from engine import limits
from engine.errors import (
    EngineError,
    EngineUnavailable,
    OutcomeUnknown,
    QueryRefused,
)
from engine.follow import Follower, TailBatch
from engine.link import Link, connect, may_pass
from engine.protocol import (
    EVENTS,
    EngineStatus,
    Login,
    MessageType,
    Query,
    Reply,
    message,
    packed,
    unpacked,
)
from engine.types import Command, Event, EventFlag, Mode, RestingOrder, Role
from engine.wire import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    decode_events,
    decode_resting_orders,
    encode_commands,
)

__all__ = ["Answer", "BookAnswer", "EngineClient", "EngineStatus", "TailBatch"]


class Answer(NamedTuple):
    """What one command came to. `seq` 0: the engine no longer knows (OUTCOME_EXPIRED), or the
    reference was skipped and can't be used any more (REF_NOT_INCREASING); nothing was executed now.
    """

    seq: int
    at_ns: int  # sequencer time
    events: tuple[Event, ...]


class BookAnswer(NamedTuple):
    seq: int  # the state after this command
    mode: Mode
    epoch: int
    orders: tuple[RestingOrder, ...]  # bids, then asks; best price first, then oldest first


class _Call:
    """One `send`."""

    def __init__(self, data: bytes, refs: list[int]) -> None:
        self.data = data
        self.refs = refs
        self.answers: list[Answer | None] = [None] * len(refs)
        self.left = len(refs)
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_sent = False


class EngineClient:
    """Of one session: a second client under the same name takes it over, and this one then raises
    SessionTaken. To be used from one event loop.
    """

    def __init__(self, *, host: str, port: int, name: str, key: str) -> None:
        self.role = Role.READ_ONLY  # this and the next four are known once started
        self.session = 0
        self.implementation = ""
        self.shard = 0
        self.head_seq = 0  # the newest sequence number seen
        self._host, self._port, self._name, self._key = host, port, name, key
        self._link: Link | None = None
        self._connected = asyncio.Event()
        self._ended: EngineError | None = None  # why no further attempt is made
        self._is_closed = False
        self._mending: asyncio.Task[None] | None = None
        self._newest_ref = 0
        self._turn = asyncio.Lock()  # whose commands are being entered
        self._has_room = asyncio.Event()
        self._pending: dict[int, tuple[_Call, int]] = {}  # by reference, in the order of sending
        self._outbox: list[bytes] = []
        self._queries: dict[int, asyncio.Future[Reply]] = {}
        self._query_id = 0
        self._followers: set[Follower] = set()

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
        call: _Call | None = None
        try:
            async with asyncio.timeout(timeout_s):
                async with self._turn:
                    self._check_usable()
                    call = self._call(commands)
                    await self._enter(call)
                await call.done
        except TimeoutError:
            if call is not None and call.was_sent:
                raise OutcomeUnknown(
                    f"{call.left} of {len(commands)} commands of {self._name!r} were not answered "
                    f"within {timeout_s:g} s; they may or may not have been executed"
                ) from None
            raise EngineUnavailable(
                f"the engine at {self._host}:{self._port} was not reached within {timeout_s:g} s; "
                f"nothing was sent"
            ) from None
        finally:
            if call is not None:
                self._forget(call)
        return [answer for answer in call.answers if answer is not None]

    async def book(self, instrument: int, *, timeout_s: float = limits.CONNECT_S) -> BookAnswer:
        """Raises QueryRefused for an unknown instrument, EngineUnavailable."""
        reply = await self._ask("book", instrument, timeout_s)
        assert reply.book is not None
        book = reply.book
        orders = tuple(decode_resting_orders(book.orders))
        return BookAnswer(book.seq, Mode(book.mode), book.epoch, orders)

    async def status(self, *, timeout_s: float = limits.CONNECT_S) -> EngineStatus:
        """Raises EngineUnavailable."""
        reply = await self._ask("status", 0, timeout_s)
        assert reply.status is not None
        return reply.status

    async def tail(self, from_seq: int) -> AsyncIterator[TailBatch]:
        """Every event of the shard from `from_seq` on, for as long as it is iterated; the first
        batch begins with exactly `from_seq`. Waits out an engine that is away.

        Raises LoginRefused; Disconnected where the journal ends before `from_seq` - 1.
        """
        follower = Follower(
            self._host, self._port, name=self._name, key=self._key, from_seq=from_seq
        )
        self._followers.add(follower)
        try:
            async for batch in follower.batches():
                yield batch
        finally:
            follower.close()
            self._followers.discard(follower)

    # --- commands

    def _call(self, commands: Sequence[Command]) -> _Call:
        """Raises struct.error for a number that its field can't hold, ValueError for a reference
        that is being sent already.
        """
        data = bytearray(encode_commands(commands))
        column = np.frombuffer(data, COMMAND_DTYPE)["ref"]
        newest, refs = self._newest_ref, column.tolist()
        for index, ref in enumerate(refs):
            refs[index] = ref or newest + 1
            newest = max(newest, refs[index])
        if len(set(refs)) < len(refs) or not self._pending.keys().isdisjoint(refs):
            raise ValueError("a reference is being sent twice at the same time")
        column[:] = refs
        self._newest_ref = newest
        return _Call(bytes(data), refs)

    async def _enter(self, call: _Call) -> None:
        """As there is room among the unanswered. A lost connection does not stop it."""
        size = limits.FRAME_COMMANDS_MAX
        for start in range(0, len(call.refs), size):
            refs = call.refs[start : start + size]
            while len(self._pending) + len(refs) > limits.CLIENT_UNANSWERED_MAX:
                self._has_room.clear()
                await self._has_room.wait()
                self._check_usable()
            for index, ref in enumerate(refs, start):
                self._pending[ref] = (call, index)
            if self._link is not None:
                call.was_sent = True
                chunk = call.data[start * COMMAND_BYTES : (start + len(refs)) * COMMAND_BYTES]
                self._outbox.append(chunk)
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

    def _forget(self, call: _Call) -> None:
        """What is still unanswered is not sent again by itself."""
        if call.left:
            for ref in call.refs:
                if ref in self._pending and self._pending[ref][0] is call:
                    del self._pending[ref]
            self._has_room.set()
        if call.done.done() and not call.done.cancelled():
            call.done.exception()  # it may have come while the call waited for room

    def _receive(self, kind: int, payload: memoryview) -> None:
        if kind == MessageType.EVENTS:
            self._answers(payload)
        elif kind == MessageType.REPLY:
            reply = unpacked(payload, Reply)
            waiting = self._queries.pop(reply.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(reply)

    def _answers(self, payload: memoryview) -> None:
        first_seq, ts_ns = EVENTS.unpack_from(payload)
        events: list[Event] = []
        for event in decode_events(payload[EVENTS.size :]):
            events.append(event)
            if event.flags & EventFlag.LAST:
                later_ns = limits.COMMAND_STEP_NS * (event.seq - first_seq)
                self._answer(event.ref, Answer(event.seq, ts_ns + later_ns, tuple(events)))
                events.clear()
        self._has_room.set()

    def _answer(self, ref: int, answer: Answer) -> None:
        self.head_seq = max(self.head_seq, answer.seq)
        call, index = self._pending.pop(ref, (None, 0))
        if call is None:
            return  # given up, or answered before the connection was lost
        call.answers[index] = answer
        call.left -= 1
        if not call.left and not call.done.done():
            call.done.set_result(None)

    # --- questions

    async def _ask(self, what: str, instrument: int, timeout_s: float) -> Reply:
        """Asks again on the next connection when one is lost: a question has no effect."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._check_usable()
                    await self._connected.wait()
                    reply = await self._ask_once(what, instrument)
                    if reply is not None:
                        break
        except TimeoutError:
            raise EngineUnavailable(
                f"the engine at {self._host}:{self._port} did not answer within {timeout_s:g} s"
            ) from None
        if reply.error:
            raise QueryRefused(reply.error)
        return reply

    async def _ask_once(self, what: str, instrument: int) -> Reply | None:
        if self._link is None:
            return None
        self._query_id += 1
        query = Query(id=self._query_id, what=what, instrument=instrument)
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._queries[query.id] = waiting
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
            self._host,
            self._port,
            Login(name=self._name, key=self._key),
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
        for call, index in self._pending.values():
            call.was_sent = True
            self._outbox.append(call.data[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES])
        self._flush()
        self._connected.set()

    def _on_lost(self, error: EngineError) -> None:
        if self._link is None:
            return  # before it was in use: whoever made it sees that it has ended
        self._link = None
        self._connected.clear()
        self._outbox.clear()
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
        for call in {call for call, _ in self._pending.values()}:
            if not call.done.done():
                call.done.set_exception(_fate(call, error))
        self._connected.set()
        self._has_room.set()


def _fate(call: _Call, error: EngineError) -> EngineError:
    if isinstance(error, EngineUnavailable) and call.was_sent:
        return OutcomeUnknown(f"{error}; {call.left} commands were sent and not answered")
    return error
