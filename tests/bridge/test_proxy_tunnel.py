"""Other protocols than HTTP: what leads to them, and that they pass unread."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
from plane_rig import bounds, connections_of, held_by_proxy, stands
from proxy_rig import Visit, between, request, response, run, until


async def _echo_after_101(visit: Visit) -> None:
    head = await visit.reader.readuntil(b"\r\n\r\n")
    assert b"\r\nUpgrade: websocket\r\n" in head
    assert b"\r\nConnection: Upgrade\r\n" in head
    assert b"\r\nSec-WebSocket-Protocol: actioncable-v1-json\r\n" in head
    await visit.answer(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi"
    )
    while data := await visit.reader.read(1000):
        await visit.answer(data.upper())


SWITCH = request(
    target="/cable",
    fields=[
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Protocol", "actioncable-v1-json"),
    ],
)


def test_switched_protocols_pass_unread() -> None:
    async def story() -> None:
        async with between(_echo_after_101) as (front, _):
            client = await front.client()
            await client.send(SWITCH + b"early")
            head = await client.response()
            assert head == (
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\n\r\n"
            )
            assert await client.reader.readexactly(7) == b"hiEARLY"
            await client.send(b"\x00late")
            assert await client.reader.readexactly(5) == b"\x00LATE"
            client.writer.write_eof()
            assert await client.rest() == b""

    run(story())


async def _switch(visit: Visit) -> None:
    await visit.request()
    await visit.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")


def test_each_side_of_a_tunnel_may_end_before_the_other() -> None:
    async def monolith(visit: Visit) -> None:
        await _switch(visit)
        if await visit.reader.read(1) == b"1":
            assert await visit.reader.read() == b"23"
            await visit.answer(b"all")
        else:
            visit.writer.write_eof()
            assert await visit.reader.read() == b"bc"
            await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            first = await front.client()
            await first.send(SWITCH)
            await first.response()
            await first.send(b"123")
            first.writer.write_eof()
            assert await first.rest() == b"all"
            second = await front.client()
            await second.send(SWITCH)
            await second.response()
            await second.send(b"a")
            assert await second.rest() == b""
            await second.send(b"bc")
            assert front.server.clients
            second.writer.write_eof()
            await until(lambda: not front.server.clients)

    run(story())


def test_an_idle_tunnel_is_ended_only_by_a_peer_that_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Which the kernel asks; we never do."""
    short = ("CLIENT_IDLE_S", "CLIENT_STALL_S", "ANSWER_STALL_S", "ANSWER_SILENCE_S")
    bounds(monkeypatch, **dict.fromkeys(short, 0.3))

    async def story() -> None:
        async with between(_echo_after_101, upstream_head_s=0.3) as (front, script):
            client = await front.client()
            await client.send(SWITCH)
            await client.response()
            assert await client.reader.readexactly(2) == b"hi"
            await front.looks(0.4)
            ends = connections_of(front.port, script.port)
            ours = [one for one in ends if front.port == one.local or script.port == one.remote]
            assert [one.has_timer for one in ours] == [True, True]
            await client.send(b"late")
            assert await client.reader.readexactly(4) == b"LATE"

    run(story())


@pytest.mark.parametrize("slow", ["monolith", "client"])
def test_a_tunnel_s_slow_side_slows_the_other_down(slow: str) -> None:
    size, piece = 40_000_000, b"x" * 65_536
    read_on = asyncio.Event()
    told = 0

    async def monolith(visit: Visit) -> None:
        nonlocal told
        await _switch(visit)
        if slow == "monolith":
            await read_on.wait()
            await visit.reader.readexactly(size)
            await visit.answer(b"!")
        else:
            for _ in range(size // len(piece) + 1):
                await visit.answer(piece)
                told += len(piece)

    async def story() -> None:
        async with between(monolith) as (front, script):
            client = await front.client()
            transport: Any = client.writer.transport
            await client.send(SWITCH)
            await client.response()
            if slow == "monolith":
                client.writer.write(b"x" * size)
                gone = await stands(lambda: size - transport.get_write_buffer_size())
            else:
                transport.pause_reading()
                gone = await stands(lambda: told)
            assert gone < size
            assert held_by_proxy(gone, front.port, script.port) < 2_000_000
            read_on.set()
            if slow == "client":
                transport.resume_reading()
            await client.reader.readexactly(1 if slow == "monolith" else size)

    run(story())


def test_a_refused_switch_leaves_http() -> None:
    async def story() -> None:
        async with between(response(b"no")) as (front, monolith):
            client = await front.client()
            await client.send(SWITCH + request(target="/next"))
            assert await client.response() == response(b"no")
            assert await client.response() == response(b"no")
            assert monolith.requests[1].startswith(b"GET /next ")

    run(story())


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
)
def test_a_wish_for_http_2_is_not_passed_on(body: bytes) -> None:
    """Java's HttpClient sends it with every request, bodies included."""

    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            client = await front.client()
            wish = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\nUpgrade: h2c\r\n"
            await client.send(
                b"POST /a HTTP/1.1\r\nHost: h\r\n" + wish + body + request(target="/b")
            )
            assert await client.response() == response(b"x")
            assert await client.response() == response(b"x")
            first, second = monolith.requests
            assert b"pgrade" not in first
            assert b"HTTP2" not in first
            assert first.endswith(body.partition(b"\r\n\r\n")[2])
            assert second.startswith(b"GET /b ")

    run(story())


def test_a_tunnel_lasts_until_the_proxy_may_wait_no_longer() -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        while data := await visit.reader.read(100):
            await visit.answer(data)

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(request(fields=[("Connection", "Upgrade"), ("Upgrade", "x")]))
            await client.response()
            stopping = asyncio.create_task(front.server.stop(0.5, idle_s=0.01))
            await front.refuses()
            await client.send(b"still")
            assert await client.reader.readexactly(5) == b"still"
            with contextlib.suppress(ConnectionError):
                assert await client.rest() == b""
            await stopping

    run(story())
