"""A wire that breaks in the middle of a message: what was half there comes again, whole, once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from change_sources import WAYS, Streaming, ready
from legacy_side import application, insert_order, run, take
from test_sources import order_ids

from shadow.operation import Mark


class Wire:
    """Between us and the server. `cut_after(n)`: so many bytes still come through, on whichever
    connection, and then all connections break at once.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = parts.hostname, parts.port
        self._url = parts
        self._left: int | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self.cuts = 0

    def cut_after(self, count: int) -> None:
        self._left = count

    @contextlib.asynccontextmanager
    async def url(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        user = self._url.netloc.rpartition("@")[0]
        try:
            yield self._url._replace(netloc=f"{user}@127.0.0.1:{port}").geturl()
        finally:
            server.close()
            self._break()
            await server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        self._ends |= {writer, back}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pass(reader, back), self._pass_back(there, writer))
        for end in (writer, back):
            self._ends.discard(end)
            end.close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            writer.write(data)
        writer.transport.abort()

    async def _pass_back(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(4096):
            if self._left is None:
                writer.write(data)
                continue
            writer.write(data[: self._left])
            self._left -= len(data)
            if self._left <= 0:
                self._left = None
                self.cuts += 1
                await writer.drain()
                self._break()
        writer.transport.abort()

    def _break(self) -> None:
        for end in list(self._ends):
            end.transport.abort()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_half_a_message_is_no_message(way: type[Streaming], legacy_database: str) -> None:
    side = ready(way, legacy_database)

    async def main() -> None:
        wire = Wire(side.url)
        async with wire.url() as side.url, side.reading() as reading:
            with application(legacy_database) as app:
                for count in (0, 1, 5, 30, 61, 100, 140, 250):
                    wire.cut_after(count)
                    with app.transaction():
                        expected = [insert_order(app), insert_order(app)]
                    assert order_ids((await take(reading, 1))[0]) == expected
            await side.write_mark("end")
            assert (await take(reading, 1))[0].changes == (Mark(id="end"),)
            assert wire.cuts >= 6
            assert reading.status().reconnects >= 6

    run(main())
