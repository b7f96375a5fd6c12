"""What the tests of the traps share: orders, what was captured of them, and a bad shadow side."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from proxy_rig import Front, Visit, request, response, until

from shadow.capture import Capture

ORDER = b'{"order":{"market":"BTC-USD","side":"buy","price":"236.47","quantity":"2.0"}}'
JSON = ("Content-Type", "application/json")
TAKEN = response(b'{"order":{"id":11,"market":"BTC-USD"}}', "201 Created")
GARBAGE = b"?" * 3_000 + b"\r\n"


def order(body: bytes = ORDER, *fields: tuple[str, str]) -> bytes:
    return request("POST", "/api/v1/orders", body, [JSON, *fields])


def _taken(front: Front) -> list[Capture]:
    """What the plane has kept until now, which it then keeps no longer."""
    found: list[Capture] = []
    while batch := front.tee.take():
        captures = msgspec.msgpack.decode(batch.data, type=list[Capture])
        assert [one.number for one in captures] == [*range(batch.first, batch.first + batch.count)]
        found += captures
    return found


async def captures_up_to(front: Front, body: bytes) -> list[Capture]:
    """Those before the one with this body, and that one."""
    found: list[Capture] = []

    def is_there() -> bool:
        found.extend(_taken(front))
        return any(one.request_body == body for one in found)

    await until(is_there)
    return found


async def captures_of(front: Front, captured: int, *, before: int = 0) -> list[Capture]:
    """Of so many captured in all, those that were not dropped, nor taken `before`."""
    found: list[Capture] = []

    def all_told() -> bool:
        found.extend(_taken(front))
        told = before + len(found) + sum(front.tee.dropped.values())
        return front.tee.captured >= captured and told >= front.tee.captured

    await until(all_told)
    assert front.tee.captured == captured
    return found


async def trade(front: Front, orders: int, *, answer: bytes = TAKEN) -> None:
    client = await front.client()
    for _ in range(orders):
        assert await client.ask(order()) == answer


class Shadow:
    """What is where Redis should be: takes connections, and treats them badly."""

    def __init__(self, does: str) -> None:
        self.does = does
        self.port = 0
        self.connections = 0
        self.came = 0  # bytes
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while self.does != "closes":
                if self.does == "never reads":
                    reader._transport.pause_reading()  # type: ignore[attr-defined]
                    await asyncio.Event().wait()
                data = await reader.read(65_536)
                self.came += len(data)
                if not data:
                    break
                if self.does == "garbage":
                    writer.write(GARBAGE)
                    await writer.drain()
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


@asynccontextmanager
async def shadow_that(does: str) -> AsyncIterator[Shadow]:
    shadow = Shadow(does)
    server = await asyncio.start_server(shadow.serve, "127.0.0.1", 0)
    shadow.port = server.sockets[0].getsockname()[1]
    try:
        yield shadow
    finally:
        server.close()
        for task in tuple(shadow._tasks):
            task.cancel()
        await asyncio.gather(*shadow._tasks, return_exceptions=True)


@asynccontextmanager
async def shipping_of(front: Front) -> AsyncIterator[None]:
    """The shipper at work; it is not waited for."""
    task = asyncio.create_task(front.shipper.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def breaks_off(data: bytes) -> Callable[[Visit], object]:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(data)
        bound = visit.writer.get_extra_info("socket")
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        visit.writer.transport.abort()

    return monolith
