"""Where a plane could forget somebody, or something: what waits and is told of only once, what is
answered early, cut off or refused in the middle.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest
from plane_rig import bounds
from proxy_rig import Client, Front, Monolith, Visit, between, response, run, until

from bridge.stage import Stage

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"
ORDER = b"POST /api/v1/orders HTTP/1.1\r\nHost: h\r\n"
SWITCH = b"GET /cable HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"


def test_any_number_of_requests_at_once_are_all_answered() -> None:
    """More than are read before the first is answered."""

    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            sending = asyncio.create_task(client.send((GET % 1) * 12_000))
            for _ in range(12_000):
                assert await client.response() == response(b"x")
            await sending

    run(story())


def test_what_is_left_of_a_body_that_was_answered_early_is_read_away() -> None:
    """Though nothing was read of it for a while, and nothing more of it comes."""
    size = 40_000_000  # more than the kernel keeps

    async def monolith(visit: Visit) -> None:
        head = await visit.reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await full.wait()
            await visit.answer(response(b"early"))
            await done.wait()
        else:
            await visit.answer(response(b"next"))

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % size
            sending = asyncio.create_task(client.send(head + b"x" * size + GET % 1))
            await front.looks(0.3)
            full.set()
            assert await client.response() == response(b"early")
            assert await client.response() == response(b"next")
            await sending
            done.set()

    full, done = asyncio.Event(), asyncio.Event()
    run(story())


def test_a_monolith_that_does_not_take_a_body_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch)

    async def monolith(visit: Visit) -> None:
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def story() -> None:
        async with between(monolith, upstream_head_s=0.3) as (front, _):
            client = await front.client()
            head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000000\r\n\r\n"
            sending = asyncio.create_task(client.send(head + b"x" * 20_000_000))
            assert (await client.response()).startswith(b"HTTP/1.1 504 ")
            sending.cancel()

    run(story())


def test_what_came_through_a_tunnel_outlasts_both_its_ends() -> None:
    sent = b"t" * 3_000_000

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.answer(SWITCHED)
        visit.writer.write(sent)
        visit.writer.write_eof()
        assert await visit.reader.read() == b"all"
        heard.set()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(SWITCH)
            await client.reader.readuntil(b"\r\n\r\n")
            await client.send(b"all")
            client.writer.write_eof()
            await heard.wait()
            assert await client.rest() == sent
            await until(lambda: front.server.clients == front.connections == 0)

    heard = asyncio.Event()
    run(story())


def test_a_refused_body_that_waited_for_a_connection_holds_up_no_flip(plane: str) -> None:
    if plane == "python":
        pytest.skip("it reads no further meanwhile")

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await go_on.wait()
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith, upstream_connections_max=1) as (front, _):
            first, second = await front.client(), await front.client()
            await first.send(GET % 1)
            await until(lambda: front.connections == 1)
            await second.send(ORDER + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
            await until(lambda: front.server.requests == 2)
            front.set_stages(holding=7)
            await until(lambda: front.desk.holds.under_way == 1)
            await second.send(b"nonsense\r\n")
            assert (await second.response()).startswith(b"HTTP/1.1 400 ")
            await until(lambda: front.desk.holds.drained == {"BTC-USD": 7})
            go_on.set()
            assert await first.response() == response(b"x")

    go_on = asyncio.Event()
    run(story())


def test_a_read_that_was_passed_on_is_forgotten(plane: str) -> None:
    async def story() -> None:
        async with between(response(b"{}")) as (front, _):
            front.set_stages(Stage.LIVE, epoch=2)
            client = await front.client()
            for _ in range(3):
                await client.ask(b"GET /api/v1/orders/5 HTTP/1.1\r\nHost: h\r\n\r\n")
            if plane == "rust":
                await until(lambda: not front.server._exchanges)

    run(story())


def test_an_order_whose_answer_a_stop_cuts_off_is_captured() -> None:
    """Whether the monolith took it, nobody knows: that is what is captured."""

    async def monolith(visit: Visit) -> None:
        await visit.request()
        came.set()
        await asyncio.Event().wait()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(ORDER + b"Content-Length: 2\r\n\r\n{}")
            await came.wait()
            await front.server.stop(within_s=0.0)
            await until(lambda: front.tee.captured == 1)

    came = asyncio.Event()
    run(story())


def test_no_one_who_waits_is_forgotten_when_a_unix_socket_goes(tmp_path: Path) -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await asyncio.Event().wait()

    async def story() -> None:
        upstream = Monolith(monolith)
        upstream.path = tmp_path / "puma.sock"
        async with upstream, Front(upstream.upstream, upstream_connections_max=1) as front:
            clients = [await front.client() for _ in range(100)]
            for client in clients:
                await client.send(GET % 1)
            await until(lambda: front.server.requests == 100)
            await upstream.stop()
            upstream.path.unlink(missing_ok=True)
            for client in clients:
                assert (await client.response()).startswith(b"HTTP/1.1 502 ")

    run(story())


def test_empty_lines_before_a_request_are_counted_in_any_cut() -> None:
    async def refused(lines: int) -> bool:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            nodelay(client)
            for _ in range(lines):
                await client.send(b"\r\n")
                await front.looks(0.05)
            return not (await client.ask(GET % 1)).startswith(b"HTTP/1.1 200 ")

    assert not run(refused(2))
    assert run(refused(3))


def nodelay(client: Client) -> None:
    bound = client.writer.get_extra_info("socket")
    bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
