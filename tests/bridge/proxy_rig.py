"""What the proxy's tests share: a monolith that is scripted, a raw client, and a worker's parts."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import plane_rig
import uvloop

import bridge.sandbox
from bridge import limits
from bridge.config import load
from bridge.proxy.capture.home import Home
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.capture.ship import Shipper
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.ids import LegacyOrders, OrderIds
from bridge.proxy.desk.live import LiveOrders
from bridge.proxy.desk.orders import OrderDesk
from bridge.proxy.desk.session import WriteBarrier
from bridge.proxy.listening import listening_socket
from bridge.stage import InstrumentStage, Stage, StageSnapshot
from engine.client import Answer
from engine.errors import EngineUnavailable
from engine.types import Command
from shadow.legacy.convert import scales

CONFIG = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
MAPPING = CONFIG.mapping
SCALES = scales(CONFIG.instruments)
DIALECT = Dialect(MAPPING.responses, MAPPING.words, SCALES)
NOWHERE = "redis://127.0.0.1:1/0"  # nothing listens there
PATIENCE_S = 20.0
PLANE = "python"  # that `Front` is made with; the fixture `plane` sets it

_T = TypeVar("_T")
Handler = Callable[["Visit"], Awaitable[None]]


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """On the event loop that the proxy runs on."""

    async def to_the_end() -> _T:
        try:
            return await work
        finally:
            await asyncio.sleep(0.01)  # transports that were closed last close in the next turns

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(to_the_end())


async def until(condition: Callable[[], object]) -> None:
    """Waits for what must become true."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


class Visit:
    """One connection to the monolith: what came, and the means to answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request: its head, and its body as it was framed."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        return head + await self._body(head)

    async def answer(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def _body(self, head: bytes) -> bytes:
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if length:
            return await self.reader.readexactly(int(length[1]))
        if not re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
            return b""
        body = b""
        while True:
            line = await self.reader.readuntil(b"\r\n")
            body += line
            if line == b"0\r\n":
                break
            body += await self.reader.readexactly(int(line, 16) + 2)
        while not body.endswith(b"\r\n\r\n"):
            body += await self.reader.readuntil(b"\r\n")
        return body


class Monolith:
    """Answers each request by `answer`, a whole response or a handler of the connection."""

    def __init__(self, answer: bytes | Callable[[bytes], bytes] | Handler) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.port = 0
        self.path: Path | None = None  # of its Unix socket, where it has one instead of a port
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def upstream(self) -> str:
        return f"unix:{self.path}" if self.path else f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Monolith:
        await self.start()
        return self

    async def start(self) -> None:
        """Where it was before, after a stop."""
        if self.path is not None:
            self._server = await asyncio.start_unix_server(self._serve, self.path)
            return
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            for writer in tuple(self._writers):
                writer.transport.abort()
            await self._server.wait_closed()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        visit = Visit(reader, writer)
        try:
            if asyncio.iscoroutinefunction(self._answer):
                await self._answer(visit)
            else:
                await self._serve_all(visit)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the proxy has closed
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _serve_all(self, visit: Visit) -> None:
        while True:
            request = await visit.request()
            self.requests.append(request)
            answer = self._answer
            await visit.answer(answer if isinstance(answer, bytes) else answer(request))  # type: ignore[operator,arg-type]


class Client:
    """A raw connection to the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def response(self, *, to_head: bool = False) -> bytes:
        """The next response; `to_head`: it answers a HEAD request."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head.split(b" ", 2)[1])
            if to_head or status < 200 or status in (204, 304):
                return head
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            if length:
                return head + await self.reader.readexactly(int(length[1]))
            if re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head):
                return head + await Visit(self.reader, self.writer)._body(head)
            return head + await self.reader.read()

    async def rest(self) -> bytes:
        """All that comes until the proxy closes."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def ask(self, data: bytes) -> bytes:
        await self.send(data)
        return await self.response()

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Goes without a farewell: the proxy sees a reset, not the end of the requests."""
        if not self.writer.transport.is_closing():
            bound = self.writer.get_extra_info("socket")
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()


class AwayEngine:
    """An engine that cannot be reached."""

    def __init__(self) -> None:
        self.commands: list[Command] = []

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        self.commands.extend(commands)
        raise EngineUnavailable("away")


class Front:
    """A worker's parts around one server, without a control store; `set_stages` is the news."""

    def __init__(
        self,
        *upstreams: str,
        engine: Any = None,
        legacy_url: str = "postgresql://nobody@127.0.0.1:1/nothing",
        redis_url: str = NOWHERE,
        home: Home | None = None,
        spool_bytes_max: int = 1 << 20,
        redact: Sequence[str] = (),
        ahead: Any = None,
        ahead_budget_s: float = PATIENCE_S,
        **server: Any,
    ) -> None:
        """`home`: of captures on the disk. `ahead`: the log that orders wait for. `server`: more
        options for it.
        """
        captured = plane_rig.Captured(
            home.number_file() if home is not None else None,
            Redaction(redact) if redact else None,
            ahead,
            ahead_budget_s,
        )
        self.plane = PLANE
        self.worker = home.name if home is not None else "worker-1"
        made = plane_rig.make(PLANE, self.worker, upstreams, MAPPING, captured, **server)
        self.server, self.tee, self.index = made
        self.shipper = Shipper(
            [self.tee], redis_url, home=home, spool_bytes_max=spool_bytes_max, ahead=ahead
        )
        self.legacy = LegacyOrders(legacy_url, MAPPING, SCALES)
        self.barrier = WriteBarrier(1)
        self.engine = engine or AwayEngine()
        self.ids = OrderIds(self.legacy, block=10)
        self.stored: dict[str, InstrumentStage] | None = None  # what the control store says
        self.drained_changes = 0
        live = LiveOrders(
            self.engine,
            self.legacy,
            self.ids,
            self.index,
            self.barrier,
            DIALECT,
            SCALES,
            MAPPING.words,
        )
        self.desk = self.server.desk = OrderDesk(
            live=live,
            legacy=self.legacy,
            index=self.index,
            barrier=self.barrier,
            responses=MAPPING.responses,
            read_stage=self._read_stage,
            drained_changed=self._note_drained,
            forward=self.server.forward,
        )
        self.port = 0
        self._version = 0
        self._clients: list[Client] = []
        self._sweeping: asyncio.Task[None] | None = None
        self.set_stages()

    async def __aenter__(self) -> Front:
        self.port = await self.server.listen(listening_socket("127.0.0.1", 0))
        self._sweeping = asyncio.create_task(self.server.sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients:
            client.reset()
        await self.server.stop(within_s=0.0)
        if self._sweeping is not None:
            self._sweeping.cancel()
            await asyncio.gather(self._sweeping, return_exceptions=True)
        await self.desk.close()
        await self.ids.close()
        await self.legacy.close()
        await self.shipper.close()

    def set_stages(
        self,
        stage: Stage = Stage.SHADOW,
        *,
        symbol: str = "BTC-USD",
        epoch: int = 1,
        holding: int = 0,
    ) -> None:
        """One instrument's stage; the others are in shadow."""
        self._version += 1
        stages = {
            one.symbol: InstrumentStage(
                symbol=one.symbol, instrument=one.id, stage=Stage.SHADOW, epoch=1
            )
            for one in CONFIG.instruments
        }
        stages[symbol] = InstrumentStage(
            symbol=symbol,
            instrument=stages[symbol].instrument,
            stage=stage,
            epoch=epoch,
            holding=holding,
        )
        self.server.apply(StageSnapshot(version=self._version, instruments=stages))

    @property
    def connections(self) -> int:
        """To the monoliths, now."""
        return plane_rig.upstream_connections(self.plane, self.server)

    @property
    def waiting(self) -> int:
        """Captures that are not shipped yet."""
        return plane_rig.waiting_captures(self.plane, self.tee)

    async def drains(self) -> None:
        """Waits until nothing is under way that a flip would have to wait for."""
        self.set_stages(holding=99)
        await until(lambda: self.desk.holds.drained == {"BTC-USD": 99})
        self.set_stages()

    async def refuses(self) -> None:
        """Waits until no client can connect any more."""
        async with asyncio.timeout(PATIENCE_S):
            with contextlib.suppress(ConnectionRefusedError):
                while True:
                    (await self.client()).close()
                    await asyncio.sleep(0.005)

    async def looks(self, seconds: float) -> None:
        """Waits until the plane has looked at its bounds, so much later by its clock."""
        loop = asyncio.get_running_loop()
        then = loop.time() + seconds + 2 * limits.SWEEP_S
        await until(lambda: loop.time() > then)

    async def client(self, tls: ssl.SSLContext | None = None) -> Client:
        name = "localhost" if tls is not None else None
        opening = asyncio.open_connection("127.0.0.1", self.port, ssl=tls, server_hostname=name)
        client = Client(*await opening)
        self._clients.append(client)
        return client

    async def _read_stage(self, symbol: str) -> InstrumentStage | None:
        return self.stored.get(symbol) if self.stored is not None else None

    def _note_drained(self) -> None:
        self.drained_changes += 1


@contextlib.asynccontextmanager
async def between(
    answer: bytes | Callable[[bytes], bytes] | Handler, **options: Any
) -> AsyncIterator[tuple[Front, Monolith]]:
    """A proxy in front of a scripted monolith."""
    async with Monolith(answer) as monolith, Front(monolith.upstream, **options) as front:
        yield front, monolith


def request(
    method: str = "GET",
    target: str = "/",
    body: bytes = b"",
    fields: Sequence[tuple[str, str]] = (),
) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: exchange.test"]
    lines += [f"{name}: {value}" for name, value in fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def response(body: bytes = b"{}", status: str = "200 OK", *fields: bytes) -> bytes:
    lines = [f"HTTP/1.1 {status}".encode(), b"Content-Length: %d" % len(body), *fields]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body
