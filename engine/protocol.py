"""The protocol between the engine and its clients: framing, and what the messages carry.

Both ways, little-endian: u32 bytes of payload, u8 type, u8 version, u16 zero, payload. Types are
letters. A client sends L (login) and, once it has A (accepted), C (commands), Q (a question),
S (subscribe to the tail), H (heartbeat) and O (logout); an observer sends no C. The engine sends
A, E (events of one's own commands), T (tail), R (a reply), H, and J: why it now closes the
connection. For clients in other languages: docs/reference/engine-wire.md.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import IntEnum, StrEnum
from typing import Annotated, TypeVar

import msgspec

from engine.errors import BadMessage
from engine.limits import U32_MAX
from engine.snapshot import AccountState, InstrumentState, SessionState

VERSION = 1
HEADER = struct.Struct("<IBBH")
SUBSCRIBE = struct.Struct("<Q")  # from_seq
EVENTS = struct.Struct("<QQ")  # first_seq and ts_ns of the journal frame; then events
TAIL = struct.Struct("<QQQ")  # first_seq, last_seq, ts_ns of first_seq; then events

Message = TypeVar("Message")


class MessageType(IntEnum):
    LOGIN = ord("L")
    COMMANDS = ord("C")
    QUERY = ord("Q")
    SUBSCRIBE = ord("S")
    LOGOUT = ord("O")
    HEARTBEAT = ord("H")
    ACCEPTED = ord("A")
    EVENTS = ord("E")
    TAIL = ord("T")
    REPLY = ord("R")
    REJECTED = ord("J")


class RejectCode(StrEnum):
    """For programs; the reason beside it is for people."""

    LOGIN = "login"  # this name and key are not let in
    PROTOCOL = "protocol"  # what was sent is no message that may be sent here
    TAKEN_OVER = "taken_over"  # a newer connection has this session
    SLOW = "slow"  # answers or tail were not read in time
    SILENT = "silent"  # nothing was heard for too long
    AHEAD = "ahead"  # a tail asked for from beyond the journal's end
    JOURNAL = "journal"  # a tail asked for what can't be read back
    FULL = "full"  # no room for another connection
    STOPPING = "stopping"  # the engine stops


class Login(msgspec.Struct, frozen=True, kw_only=True):
    name: str  # of the session: stable, 32 bytes at most
    key: str
    observe: bool = False  # no session: it may ask and subscribe, and takes over from nobody
    # Role TRADE only: when the connection ends, the session's open orders are canceled. It holds
    # until a login under this name says otherwise, over restarts of the engine too.
    cancel_on_disconnect: bool = False


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    session: int  # 0 for an observer
    role: int
    last_ref: int  # the session's newest reference that was sequenced: go on above it
    head_seq: int  # the newest durable sequence number
    implementation: str
    shard: int
    cancel_on_disconnect: bool = False  # as the login asked; journalled


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    reason: str
    code: str = ""  # a RejectCode


class Query(msgspec.Struct, frozen=True, kw_only=True):
    id: int  # comes back in the reply
    what: str  # "book", "account" or "status"
    instrument: Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)] = 0  # "book" only
    account: Annotated[int, msgspec.Meta(ge=0)] = 0  # "account" only


class Book(msgspec.Struct, frozen=True, kw_only=True):
    seq: int  # the state after this sequence number
    mode: int
    epoch: int
    orders: bytes  # 48 bytes each (engine.wire)


class FeedStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How publishing market data to Redis is doing. Counts are since the engine started."""

    state: str  # starting, publishing, catching up, waiting (for what `problem` tells)
    problem: str = ""
    published_seq: int = 0
    lag: int = 0  # durable commands that are not published yet
    batches: int = 0
    entries: int = 0
    repeated: int = 0  # entries that were there already
    gaps: int = 0
    errors: dict[str, int] = {}  # by reason: docs/reference/market-data.md


class EngineStatus(msgspec.Struct, frozen=True, kw_only=True):
    seq: int  # durable
    at_ns: int  # sequencer time of that command
    shard: int
    implementation: str
    instruments: tuple[InstrumentState, ...]
    sessions: tuple[SessionState, ...]
    connected: tuple[str, ...]  # names of the sessions that are connected now
    frames: int  # journal frames since the engine started
    tails: int  # subscribers, the publisher of market data among them
    market_data: FeedStatus | None = None  # None: none is published


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: int
    error: str = ""  # set: nothing else is
    book: Book | None = None
    account: AccountState | None = None
    status: EngineStatus | None = None


class MessageReader:
    """Cuts a stream of bytes into messages, however they arrive."""

    def __init__(self, *, payload_bytes_max: int) -> None:
        self.payload_bytes_max = payload_bytes_max  # may be changed between messages
        self._rest = bytearray()
        self._needed = HEADER.size  # bytes before another message can be complete

    def feed(self, data: bytes) -> Iterator[tuple[int, memoryview]]:
        """(type, payload) of each message that is now complete; to be iterated to the end.

        Raises BadMessage as soon as a header can't be one. The connection is then unusable.
        """
        if self._rest:
            self._rest += data
            if len(self._rest) < self._needed:
                return
            data = bytes(self._rest)
            self._rest.clear()
        view = memoryview(data)
        at = 0
        self._needed = HEADER.size
        while len(view) - at >= HEADER.size:
            kind, size = self._header(view, at)
            start = at + HEADER.size
            if len(view) - start < size:
                self._needed = HEADER.size + size
                break
            yield kind, view[start : start + size]
            at = start + size
        self._rest += view[at:]

    def _header(self, view: memoryview, at: int) -> tuple[int, int]:
        size, kind, version, zero = HEADER.unpack_from(view, at)
        if version != VERSION:
            raise BadMessage(f"protocol version {version}: this side speaks {VERSION}")
        if zero:
            raise BadMessage("a message header does not end in two zero bytes")
        if size > self.payload_bytes_max:
            raise BadMessage(f"a message of {size} bytes: the most is {self.payload_bytes_max}")
        return kind, size


def message(kind: MessageType, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload), kind, VERSION, 0) + payload


def packed(kind: MessageType, value: msgspec.Struct) -> bytes:
    return message(kind, msgspec.msgpack.encode(value))


def events_header(first_seq: int, ts_ns: int, size: int) -> bytes:
    """What stands before `size` bytes of events in a message E."""
    head = HEADER.pack(EVENTS.size + size, MessageType.EVENTS, VERSION, 0)
    return head + EVENTS.pack(first_seq, ts_ns)


def tail_header(first_seq: int, last_seq: int, ts_ns: int, size: int) -> bytes:
    """What stands before `size` bytes of events in a message T."""
    head = HEADER.pack(TAIL.size + size, MessageType.TAIL, VERSION, 0)
    return head + TAIL.pack(first_seq, last_seq, ts_ns)


def unpacked(payload: memoryview, kind: type[Message]) -> Message:
    """Raises BadMessage for a payload that is not one."""
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage(f"a payload that is no {kind.__name__}: {error}") from error
