"""What the tests of the engine service share: a service in this loop or in a process of its own,
and a client that sends exactly the bytes it is told to.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import uvloop
from market_driver import BTC, define, new, set_mode

from engine.client import EngineClient
from engine.protocol import (
    EVENTS,
    TAIL,
    Accepted,
    Login,
    MessageReader,
    MessageType,
    Query,
    Rejected,
    Reply,
    message,
    packed,
)
from engine.reject import Reason
from engine.service import EngineKey, EngineSettings, serve
from engine.types import Command, Event, EventFlag, EventKind, Mode, Role
from engine.wire import decode_events, encode_commands

T = TypeVar("T")
KEYS = {role: f"key-of-{role.name}" for role in Role}
WAIT_S = 20.0


def run(story: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(90):
            return await story

    return uvloop.run(bounded())


def settings(directory: Path, **rest: Any) -> EngineSettings:
    chosen = {"host": "127.0.0.1", "port": 0, "implementation": "python", "shard": 1} | rest
    keys = tuple(EngineKey(role=role, key=key) for role, key in KEYS.items())
    return EngineSettings(directory=directory, keys=keys, **chosen)


@contextlib.asynccontextmanager
async def service(directory: Path, **rest: Any) -> AsyncIterator[int]:
    """A service in this loop; gives its port. Ends in order."""
    stop = asyncio.Event()
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.ensure_future(
        serve(settings(directory, **rest), ready=port.set_result, stop=stop)
    )
    await asyncio.wait({serving, port}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        yield port.result()
    finally:
        stop.set()
        await serving


def client(port: int, name: str = "proxy-0", role: Role = Role.TRADE) -> EngineClient:
    return EngineClient(host="127.0.0.1", port=port, name=name, key=KEYS[role])


@contextlib.asynccontextmanager
async def started(
    port: int, name: str = "proxy-0", role: Role = Role.TRADE
) -> AsyncIterator[EngineClient]:
    one = client(port, name, role)
    await one.start()
    try:
        yield one
    finally:
        await one.close()


async def open_market(port: int, *, epoch: int = 1) -> None:
    """Defines BTC-USD and takes it live."""
    async with started(port, "control", Role.ADMIN) as control:
        answers = await control.send(
            [define(BTC, "BTC-USD"), set_mode(Mode.LIVE, epoch)], timeout_s=WAIT_S
        )
    assert [answer.events[0].reason for answer in answers] == [0, 0]


async def until(condition: Any, what: str) -> None:
    """Waits for a condition that another task brings about."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + WAIT_S
    while not condition():
        assert loop.time() < deadline, f"waited in vain: {what}"
        await asyncio.sleep(0.005)


class Seen:
    """Every event of the shard, as a follower reads them."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def of(self, kind: EventKind) -> list[Event]:
        return [event for event in self.events if event.kind == kind]

    def ids(self, reason: Reason) -> list[int]:
        return [event.order_id for event in self.events if event.reason == reason]


@contextlib.asynccontextmanager
async def seen(port: int) -> AsyncIterator[Seen]:
    found = Seen()

    async def follow() -> None:
        async for batch in reader.tail(1):
            found.events += decode_events(batch.events)

    reader = client(port, "reader", Role.READ_ONLY)
    following = asyncio.ensure_future(follow())
    try:
        yield found
    finally:
        following.cancel()
        await reader.close()
        with contextlib.suppress(asyncio.CancelledError):
            await following


class Raw:
    """One connection, message by message."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._messages = MessageReader(payload_bytes_max=2**31)
        self._received: list[tuple[int, bytes]] = []

    @classmethod
    async def connect(cls, port: int, *, receive_bytes: int = 0) -> Raw:
        """`receive_bytes`: what the kernel takes in before it is read; 0: much."""
        one = socket.socket()
        if receive_bytes:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        one.connect(("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=one))

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self) -> tuple[int, bytes]:
        """The next message; EOFError at the end of the stream. Heartbeats are passed over."""
        async with asyncio.timeout(WAIT_S):
            while True:
                while self._received:
                    kind, payload = self._received.pop(0)
                    if kind != MessageType.HEARTBEAT:
                        return kind, payload
                data = await self.reader.read(2**16)
                if not data:
                    raise EOFError
                self._received += [(kind, bytes(one)) for kind, one in self._messages.feed(data)]

    async def expect(self, kind: MessageType) -> bytes:
        found, payload = await self.receive()
        assert found == kind, (chr(found), payload)
        return payload

    async def login(self, name: str = "proxy-0", role: Role = Role.TRADE, **rest: Any) -> Accepted:
        login = Login(name=name, key=KEYS[role], **rest)
        await self.send(packed(MessageType.LOGIN, login))
        payload = await self.expect(MessageType.ACCEPTED)
        return msgspec.msgpack.decode(payload, type=Accepted)

    async def commands(self, *commands: Command) -> None:
        await self.send(message(MessageType.COMMANDS, encode_commands(commands)))

    async def answers(self, count: int) -> list[tuple[Event, ...]]:
        """The events of the next so many commands that are answered."""
        found: list[tuple[Event, ...]] = []
        while len(found) < count:
            payload = await self.expect(MessageType.EVENTS)
            found += by_command(payload[EVENTS.size :])
        assert len(found) == count
        return found

    async def ask(self, what: str, instrument: int = 0) -> Reply:
        query = Query(id=7, what=what, instrument=instrument)
        await self.send(packed(MessageType.QUERY, query))
        return msgspec.msgpack.decode(await self.expect(MessageType.REPLY), type=Reply)

    async def tail(self) -> tuple[int, int, int, list[Event]]:
        payload = await self.expect(MessageType.TAIL)
        first_seq, last_seq, ts_ns = TAIL.unpack_from(payload)
        return first_seq, last_seq, ts_ns, list(decode_events(payload[TAIL.size :]))

    async def rejected(self) -> Rejected:
        """Why the engine ends the connection; and that it does end it."""
        while True:
            kind, payload = await self.receive()
            if kind == MessageType.REJECTED:
                break
        with contextlib.suppress(ConnectionResetError):
            assert await self.reader.read() == b""
        self.writer.close()
        return msgspec.msgpack.decode(payload, type=Rejected)

    def close(self) -> None:
        self.writer.close()


@contextlib.asynccontextmanager
async def raw(port: int) -> AsyncIterator[Raw]:
    one = await Raw.connect(port)
    try:
        yield one
    finally:
        one.close()


def by_command(events: bytes) -> Iterator[tuple[Event, ...]]:
    together: list[Event] = []
    for event in decode_events(events):
        together.append(event)
        if event.flags & EventFlag.LAST:
            yield tuple(together)
            together = []


def orders(
    first_id: int, count: int, *, first_ref: int = 0, instrument: int = BTC
) -> list[Command]:
    """Buys and sells that meet in pairs."""
    return [
        new(
            first_id + n,
            side=1 + n % 2,
            price_ticks=100,
            qty_lots=5,
            instrument=instrument,
            ref=first_ref and first_ref + n,
        )
        for n in range(count)
    ]


# --- processes

_LAUNCH = """
import asyncio, json, signal, sys
import uvloop
from engine.errors import EngineError
from engine.service import EngineSettings, serve
import msgspec

async def main(told):
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    settings = msgspec.convert(told, EngineSettings, dec_hook=lambda kind, value: kind(value))
    await serve(settings, ready=lambda port: print(port, flush=True), stop=stop)

try:
    uvloop.run(main(json.loads(sys.argv[1])))
except EngineError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


class EngineProcess:
    """The service in a process of its own."""

    def __init__(self, directory: Path, *, before: str = "", **rest: Any) -> None:
        """`before` is run in that process first."""
        told = json.dumps(msgspec.to_builtins(settings(directory, **rest), enc_hook=str))
        self.process = subprocess.Popen(
            [sys.executable, "-c", before + _LAUNCH, told],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.port = int(line) if line else 0  # 0: it did not start

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.end()

    def terminate(self) -> tuple[int, str]:
        self.process.send_signal(signal.SIGTERM)
        return self.end()

    def end(self) -> tuple[int, str]:
        """Exit code and what it said on stderr."""
        _, told = self.process.communicate(timeout=WAIT_S)
        return self.process.returncode, told


@contextlib.contextmanager
def engine_process(directory: Path, **rest: Any) -> Iterator[EngineProcess]:
    one = EngineProcess(directory, **rest)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.kill()
        for stream in (one.process.stdout, one.process.stderr):
            if stream is not None:
                stream.close()


def flat(answers: Iterable[tuple[Event, ...]]) -> list[Event]:
    return [event for answer in answers for event in answer]
