"""One client's connection: cuts its bytes into messages, lets it in, and sends it what is its own.

Nothing is decided here about commands: whole reads of them go to the desk behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Protocol, cast

import numpy as np

from engine import limits
from engine.errors import BadMessage
from engine.outcomes import Outcome
from engine.plain_orders import first_that_is_not_plain
from engine.protocol import (
    SUBSCRIBE,
    Accepted,
    Login,
    MessageReader,
    MessageType,
    Query,
    RejectCode,
    Rejected,
    Reply,
    events_header,
    message,
    packed,
    unpacked,
)
from engine.types import GATEWAY_KINDS
from engine.wire import COMMAND_BYTES

log = logging.getLogger(__name__)

_GATEWAY_KINDS = bytes(sorted(GATEWAY_KINDS))


class Desk(Protocol):
    """What stands behind the connections. One that `connected` refused is told of `left` and
    `disconnected` too.
    """

    def connected(self, connection: Connection) -> str:
        """Returns why there is no room for it, or nothing."""

    def left(self, connection: Connection) -> None:
        """It has logged out, is sent away, or is lost: nothing more is taken from it. Once."""

    def disconnected(self, connection: Connection) -> None:
        """It is gone, after `left`."""

    def login(self, connection: Connection, login: Login) -> None:
        """Answers by `Connection.accept` or `Connection.reject`, now or later."""

    def admitted(self, connection: Connection, session: int) -> None:
        """Its login is sequenced; session 0: there is no room for another name."""

    def receive(self, connection: Connection, commands: memoryview) -> None:
        """Commands of a connection that has been accepted; a whole number, at least one."""

    def query(self, connection: Connection, query: Query) -> None: ...

    def subscribe(self, connection: Connection, from_seq: int) -> None: ...


class Connection(asyncio.Protocol):
    def __init__(self, desk: Desk) -> None:
        self.name = ""  # of the session, once a login has been seen
        self.session = 0
        self.is_observer = False
        self.cancel_on_disconnect = False  # asked for by the login
        self.plain_orders_only = False  # set before it is accepted
        self.is_closing = False
        self.peer = "?"
        self._desk = desk
        self._loop = asyncio.get_running_loop()
        self._reader = MessageReader(payload_bytes_max=limits.LOGIN_PAYLOAD_BYTES_MAX)
        self._transport: asyncio.Transport | None = None
        self._is_accepted = False
        self._has_left = False
        self._began_at = self._heard_at = self._loop.time()
        self._has_sent = False  # since the last tick
        self._pending_bytes = 0
        self._open_queries = 0
        self._is_reading = True
        self.wake = asyncio.Event()  # for whoever waits to send it a tail
        self._is_writable = True
        self._kill: asyncio.TimerHandle | None = None

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=limits.TAIL_BUFFER_BYTES_MAX)
        self.peer = str(transport.get_extra_info("peername") or "unix")
        refusal = self._desk.connected(self)
        if refusal:
            self._refuse(refusal)

    def data_received(self, data: bytes) -> None:
        if self.is_closing:
            return
        self._heard_at = self._loop.time()
        commands: list[memoryview] = []
        try:
            for kind, payload in self._reader.feed(data):
                if kind == MessageType.COMMANDS:
                    commands.append(self._checked(payload))
                    continue
                if kind != MessageType.HEARTBEAT:
                    # What came before it is before it: a logout cancels what they entered.
                    self._pass_on(commands)
                    commands = []
                self._handle(kind, payload)
                if self.is_closing:
                    return
        except BadMessage as error:
            self._pass_on(commands)
            self.reject(RejectCode.PROTOCOL, str(error))
            return
        self._pass_on(commands)

    def eof_received(self) -> None:
        """The transport then closes by itself."""

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()
        if self._kill is not None:
            self._kill.cancel()
        self._desk.disconnected(self)

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self.wake.set()

    # --- for the desk

    def accept(self, accepted: Accepted) -> None:
        if self.is_closing:
            return
        self.session = accepted.session
        self._is_accepted = True
        self._reader.payload_bytes_max = limits.CLIENT_PAYLOAD_BYTES_MAX
        self._write(packed(MessageType.ACCEPTED, accepted))

    def reject(self, code: RejectCode, reason: str) -> None:
        """Tells why, and closes. The other side gets some time to read it."""
        if self.is_closing or self._transport is None:
            return
        log.info("%r (%s) is disconnected: %s", self.name or "a connection", self.peer, reason)
        self._write(packed(MessageType.REJECTED, Rejected(reason=reason, code=code)))
        self.close()

    def _refuse(self, reason: str) -> None:
        """Tells why there is no room, and closes without waiting for the other side: it may never
        read, and those that are refused must not use up what there is no room for.
        """
        if self._transport is None:
            return
        log.info("a connection (%s) is refused: %s", self.peer, reason)
        self._write(packed(MessageType.REJECTED, Rejected(reason=reason, code=RejectCode.FULL)))
        self._leave()
        self._transport.close()
        self._kill = self._loop.call_later(limits.REFUSAL_S, self._transport.abort)

    def close(self) -> None:
        """Sends what is still to be sent, then ends. Until then what is received is dropped:
        closing a socket with unread bytes would reset it, and take the last message with it.
        """
        if self.is_closing or self._transport is None:
            return
        self._leave()
        if not self._is_reading:
            self._transport.resume_reading()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS: it says goodbye by itself, and waits for the other's
        self._kill = self._loop.call_later(limits.CLOSE_GRACE_S, self._transport.abort)

    def abort(self) -> None:
        if self._transport is not None:
            self._leave()
            self._transport.abort()

    def admitted(self, session: int) -> None:
        self._desk.admitted(self, session)

    def events(self, outcome: Outcome) -> None:
        """What became of own commands."""
        head = events_header(outcome.first_seq, outcome.ts_ns, len(outcome.events))
        self._send((head, outcome.events))

    def reply(self, reply: Reply) -> None:
        self._open_queries -= 1
        self._send((packed(MessageType.REPLY, reply),))

    def tail(self, head: bytes, events: bytes) -> None:
        """To be sent by whoever looks at `is_writable` before."""
        if not self.is_closing and self._transport is not None:
            self._has_sent = True
            self._transport.writelines((head, events))

    @property
    def is_writable(self) -> bool:
        return self._is_writable

    def consumed(self, size: int) -> None:
        """So many bytes of its commands have been sequenced."""
        self._pending_bytes -= size
        if not self._is_reading and self._pending_bytes <= limits.PENDING_BYTES_MAX // 2:
            self._is_reading = True
            self._heard_at = self._loop.time()
            if not self.is_closing and self._transport is not None:
                self._transport.resume_reading()

    def tick(self, now: float, *, was_stalled: bool) -> None:
        """Once a heartbeat. After a stall of this process silence proves nothing."""
        if self.is_closing or self._transport is None:
            return
        if was_stalled:
            self._heard_at = self._began_at = now
        if not self.name and now - self._began_at > limits.LOGIN_S:
            self.reject(RejectCode.LOGIN, f"no login within {limits.LOGIN_S:g} s")
        elif self._is_reading and now - self._heard_at > limits.SILENCE_S:
            self.reject(RejectCode.SILENT, f"nothing heard for {limits.SILENCE_S:g} s")
        elif not self._has_sent and self._is_accepted:
            self._write(message(MessageType.HEARTBEAT))
        self._has_sent = False

    # --- messages

    def _handle(self, kind: int, payload: memoryview) -> None:
        if not self.name:
            self._handle_first(kind, payload)
        elif not self._is_accepted and kind != MessageType.HEARTBEAT:
            raise BadMessage("wait for the login to be accepted before sending more")
        elif kind == MessageType.HEARTBEAT:
            _expect_bytes(payload, 0, "a heartbeat")
        elif kind == MessageType.QUERY:
            self._query(unpacked(payload, Query))
        elif kind == MessageType.SUBSCRIBE:
            _expect_bytes(payload, SUBSCRIBE.size, "a subscription")
            self._desk.subscribe(self, SUBSCRIBE.unpack(payload)[0])
        elif kind == MessageType.LOGOUT:
            self.close()
        elif kind == MessageType.LOGIN:
            raise BadMessage("a second login on one connection")
        else:
            raise BadMessage(f"a message of the unknown type {kind}")

    def _query(self, query: Query) -> None:
        if self._open_queries >= limits.QUERIES_OPEN_MAX:
            raise BadMessage(
                f"{limits.QUERIES_OPEN_MAX} questions are not answered yet: wait for an answer "
                f"before the next one"
            )
        self._open_queries += 1
        self._desk.query(self, query)

    def _handle_first(self, kind: int, payload: memoryview) -> None:
        if kind != MessageType.LOGIN:
            raise BadMessage("the first message must be a login")
        login = unpacked(payload, Login)
        self.name, self.is_observer = login.name or "?", login.observe
        self.cancel_on_disconnect = login.cancel_on_disconnect
        self._desk.login(self, login)

    def _checked(self, payload: memoryview) -> memoryview:
        if not self._is_accepted:
            raise BadMessage("commands before the login was accepted")
        if self.is_observer:
            raise BadMessage("an observer sends no commands")
        if not payload or len(payload) % COMMAND_BYTES:
            raise BadMessage(f"{len(payload)} bytes of commands: each is {COMMAND_BYTES}")
        kinds = np.frombuffer(payload, np.uint8)[::COMMAND_BYTES].tobytes()
        if len(kinds.translate(None, _GATEWAY_KINDS)) < len(kinds):
            kind = next(kind for kind in kinds if kind in _GATEWAY_KINDS)
            raise BadMessage(f"commands of kind {kind} are the gateway's own")
        if self.plain_orders_only and (found := first_that_is_not_plain(payload)):
            raise BadMessage(
                f"{found}. This engine takes plain orders only (market and limit, GTC and IOC), "
                f'because a monolith follows it; for all others set `engine.orders = "all"`'
            )
        return payload

    def _pass_on(self, commands: list[memoryview]) -> None:
        if not commands:
            return
        whole = commands[0] if len(commands) == 1 else memoryview(b"".join(commands))
        self._pending_bytes += len(whole)
        if self._pending_bytes > limits.PENDING_BYTES_MAX and self._transport is not None:
            self._is_reading = False
            self._transport.pause_reading()
        self._desk.receive(self, whole)

    def _send(self, parts: Sequence[bytes]) -> None:
        transport = self._transport
        if self.is_closing or transport is None:
            return
        waiting = transport.get_write_buffer_size()
        if waiting > limits.OUTBOUND_BYTES_MAX:
            self.reject(RejectCode.SLOW, f"{waiting} bytes were not read in time")
            return
        self._has_sent = True
        transport.writelines(parts)

    def _leave(self) -> None:
        self.is_closing = True
        self.wake.set()
        if not self._has_left:
            self._has_left = True
            self._desk.left(self)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._has_sent = True
        self._transport.write(data)


def _expect_bytes(payload: memoryview, size: int, what: str) -> None:
    if len(payload) != size:
        raise BadMessage(f"{what} with a payload of {len(payload)} bytes, not {size}")
