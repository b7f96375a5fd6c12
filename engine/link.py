"""A client's side of one connection: connects, logs in, keeps it alive, and says why it ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from engine import limits
from engine.endpoint import Endpoint
from engine.errors import (
    BadMessage,
    Disconnected,
    EngineError,
    EngineUnavailable,
    LoginRefused,
    SessionTaken,
)
from engine.protocol import (
    Accepted,
    Login,
    MessageReader,
    MessageType,
    RejectCode,
    Rejected,
    message,
    packed,
    unpacked,
)

# After these a new attempt may go better; after the others it would only meet the same answer.
_PASSING = {RejectCode.SLOW, RejectCode.SILENT, RejectCode.FULL, RejectCode.STOPPING}


class Link(asyncio.Protocol):
    """`receive` gets each message after the login that is not the connection's own business;
    `lost` is called once, after the login, with the reason.
    """

    def __init__(
        self,
        login: Login,
        *,
        receive: Callable[[int, memoryview], None],
        lost: Callable[[EngineError], None],
    ) -> None:
        self._login = login
        self._receive = receive
        self._lost = lost
        self._loop = asyncio.get_running_loop()
        self.accepted: asyncio.Future[Accepted] = self._loop.create_future()
        self.ended: EngineError | None = None  # why, once it has
        self._reader = MessageReader(payload_bytes_max=limits.SERVER_PAYLOAD_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._why: EngineError | None = None
        self._is_reading = True
        self._has_sent = False
        self._heard_at = self._ticked_at = self._loop.time()
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.write(packed(MessageType.LOGIN, self._login))
        self._timer = self._loop.call_later(limits.HEARTBEAT_S, self._tick)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            for kind, payload in self._reader.feed(data):
                self._handle(kind, payload)
        except BadMessage as error:
            self._end(Disconnected(f"the engine sent what is no message: {error}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        why = self._why or EngineUnavailable(f"the connection was lost: {exc or 'closed'}")
        self.ended = why
        if not self.accepted.done():
            self.accepted.set_exception(why)
        elif not self.accepted.cancelled() and self.accepted.exception() is None:
            self._lost(why)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._has_sent = True
            self._transport.write(data)

    def close(self) -> None:
        """Sends what is still to be sent, then ends."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def pause_reading(self) -> None:
        if self._is_reading and self._transport is not None and not self._transport.is_closing():
            self._is_reading = False
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if not self._is_reading and self._transport is not None:
            self._is_reading = True
            self._heard_at = self._loop.time()
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def _handle(self, kind: int, payload: memoryview) -> None:
        if kind == MessageType.HEARTBEAT:
            return
        if kind == MessageType.REJECTED:
            rejected = unpacked(payload, Rejected)
            self._end(_error(rejected, self._login.name))
        elif not self.accepted.done():
            if kind != MessageType.ACCEPTED:
                raise BadMessage(f"a message of type {kind} before the login was accepted")
            self.accepted.set_result(unpacked(payload, Accepted))
        else:
            self._receive(kind, payload)

    def _end(self, why: EngineError) -> None:
        self._why = self._why or why
        self.close()

    def _tick(self) -> None:
        now = self._loop.time()
        if now - self._ticked_at > 3 * limits.HEARTBEAT_S:
            self._heard_at = now  # this process stood still itself: silence proves nothing
        self._ticked_at = now
        if self._is_reading and now - self._heard_at > limits.SILENCE_S:
            self._why = EngineUnavailable(f"the engine was silent for {limits.SILENCE_S:g} s")
            self.abort()
            return
        if not self._has_sent:
            self.write(message(MessageType.HEARTBEAT))
        self._has_sent = False
        self._timer = self._loop.call_later(limits.HEARTBEAT_S, self._tick)


async def connect(
    endpoint: Endpoint,
    login: Login,
    *,
    receive: Callable[[int, memoryview], None],
    lost: Callable[[EngineError], None],
) -> Link:
    """One attempt. Raises LoginRefused, SessionTaken or EngineUnavailable."""
    link = Link(login, receive=receive, lost=lost)
    try:
        async with asyncio.timeout(limits.CONNECT_S):
            await endpoint.connect(lambda: link)
            await link.accepted
    except (OSError, TimeoutError) as error:
        link.abort()
        why = "it does not answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise EngineUnavailable(
            f"the engine at {endpoint} can't be reached: {why}. Is it running?"
        ) from error
    except BaseException:
        link.abort()
        raise
    return link


def may_pass(error: EngineError) -> bool:
    """Whether connecting again can help."""
    return isinstance(error, EngineUnavailable)


def _error(rejected: Rejected, name: str) -> EngineError:
    reason, code = rejected.reason, rejected.code
    if code == RejectCode.LOGIN:
        return LoginRefused(f"the engine does not let {name!r} in: {reason}")
    if code == RejectCode.TAKEN_OVER:
        return SessionTaken(f"the session {name!r} was taken over: {reason}")
    if code in _PASSING:
        return EngineUnavailable(f"the engine disconnected {name!r}: {reason}")
    return Disconnected(f"the engine disconnected {name!r}: {reason}")
