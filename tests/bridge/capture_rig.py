"""What the tests of the capture share: a source of captures, the reading side, a bad wire."""

from __future__ import annotations

import asyncio
import resource
import struct
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import redis

from bridge.proxy.capture.ahead_log import frame
from bridge.proxy.capture.batch import Batch
from bridge.proxy.capture.home import Home, NumberFile
from bridge.proxy.capture.ship import Shipper
from bridge.sandbox.servers import EmbeddedRedis
from shadow.capture import CAPTURE_STREAM, Capture, Outcome
from shadow.captures import Sequences

WORKER = "proxy-0-aa"


def capture(number: int, worker: str = WORKER, **changes: Any) -> Capture:
    given = {
        "worker": worker,
        "number": number,
        "action": "place",
        "method": "POST",
        "target": "/api/v1/orders",
        "path_params": {},
        "content_type": "application/json",
        "request_body": b"{}",
        "account": 7,
        "request_id": "r",
        "outcome": Outcome.ANSWERED,
        "status": 201,
        "response_body": b"{}",
        "sent_mono_ns": 1,
        "answered_mono_ns": 2,
        "sent_at_ns": 3,
    }
    return Capture(**(given | changes))


def batch(first: int, last: int, worker: str = WORKER, *, body: bytes = b"{}") -> Batch:
    captures = [capture(n, worker, request_body=body) for n in range(first, last + 1)]
    return Batch(worker, first, len(captures), msgspec.msgpack.encode(captures))


def framed(*ids: int, body: bytes = b"{}") -> bytes:
    """Requests as the ahead log keeps them."""
    return b"".join(
        frame(
            id_,
            msgspec.msgpack.encode(
                capture(id_, outcome=Outcome.WORKER_LOST, status=0, request_body=body)
            ),
        )
        for id_ in ids
    )


class Given:
    """A source that has what it is given."""

    def __init__(self, worker: str = WORKER, numbers: NumberFile | None = None) -> None:
        self.worker = worker
        self.captured = 0
        self.dropped: Counter[str] = Counter()
        self.wake = asyncio.Event()
        self._numbers = numbers
        self._batches: list[Batch] = []

    def give(
        self, count: int, *, body: bytes = b"{}", lost: bool = False, ahead: tuple[int, ...] = ()
    ) -> None:
        """A batch of the next numbers."""
        first = self.captured + 1
        self.captured += count
        if self._numbers is not None:
            self._numbers.set(self.captured)
        if not lost:
            given = batch(first, self.captured, self.worker, body=body)
            ids = struct.pack(f"<{len(ahead)}Q", *ahead)
            self._batches.append(msgspec.structs.replace(given, ahead=ids))
            self.wake.set()

    def take(self) -> Batch | None:
        return self._batches.pop(0) if self._batches else None


@asynccontextmanager
async def shipping(shipper: Shipper, within_s: float = 3.0) -> AsyncIterator[Shipper]:
    """Runs until the end of the block, and then until all is shipped or given up."""
    running = asyncio.create_task(shipper.run())
    try:
        yield shipper
        shipper.stop(within_s)
        await running
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await shipper.close()


class Reader:
    """The reading side: what has arrived of each worker, and what it knows to be lost."""

    def __init__(self) -> None:
        self.arrived: dict[str, list[Capture]] = {}
        self.lost: dict[str, list[int]] = {}
        self.sequences = Sequences({})
        self.after = "-"

    def take(self, fields: Mapping[bytes, bytes]) -> None:
        taken = self.sequences.take(fields)
        for one in taken.captures:
            self.arrived.setdefault(one.worker, []).append(one)
        for gap in taken.gaps:
            self.lost.setdefault(gap.worker, []).extend(range(gap.first, gap.last + 1))

    def read(self, url: str, count: int | None = None) -> Reader:
        """Goes on where it stood."""
        with redis.Redis.from_url(url) as connection:
            rows = connection.xrange(CAPTURE_STREAM, min=self.after, count=count)
        for id_, fields in rows:
            self.take(fields)
            self.after = "(" + id_.decode()
        return self

    def numbers(self, worker: str = WORKER) -> list[int]:
        return [one.number for one in self.arrived.get(worker, [])]

    def assert_closed(self, used: int, worker: str = WORKER) -> None:
        """Numbers used up are those that arrived, in order, and those in gaps; each once."""
        numbers = self.numbers(worker)
        assert numbers == sorted(numbers)
        assert sorted(numbers + self.lost.get(worker, [])) == list(range(1, used + 1))
        assert self.sequences.expected_of(worker) == (-(used + 1) if used else 1)


class Relay:
    """A wire to a server, which may be slow or carry nothing at all."""

    def __init__(self, port: int) -> None:
        self.port = 0
        self.delay_s = 0.0
        self.refuses = False  # new connections; the ones there are end with their next bytes
        self.bytes_left = 1 << 40  # towards the server; then the wire is cut
        self.passes = asyncio.Event()  # towards the server
        self.passes.set()
        self.answers = asyncio.Event()  # from the server
        self.answers.set()
        self._to = port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refuses:
                raise ConnectionRefusedError
            there = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.close()
            return
        for source, sink, may in (
            (reader, there[1], self.passes),
            (there[0], writer, self.answers),
        ):
            task = asyncio.create_task(self._carry(source, sink, may))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, may: asyncio.Event
    ) -> None:
        try:
            while data := await source.read(65536):
                await asyncio.sleep(self.delay_s)
                await may.wait()
                if self.refuses:
                    break
                if may is self.passes:
                    data = data[: self.bytes_left]
                    self.bytes_left -= len(data)
                sink.write(data)
                await sink.drain()
                if not self.bytes_left:
                    break
        except ConnectionError:
            pass  # either side has gone
        finally:
            sink.close()


@contextmanager
def a_redis(directory: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(directory)
    server.start()
    try:
        yield server
    finally:
        server.remove()


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Writes beyond it fail, after a part of them: a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def home(directory: Path, worker: str = WORKER) -> Home:
    return Home.open(directory / "captures", worker)


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "captures").iterdir())
