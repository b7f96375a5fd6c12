"""How long anybody waits for anybody: clients, the monolith, and a proxy that stops."""

from __future__ import annotations

import asyncio

import pytest
from plane_rig import bounds
from proxy_rig import PATIENCE_S, Client, Visit, between, request, response, run, until
from trap_rig import captures_of

from shadow.capture import Outcome

POST = b"POST / HTTP/1.1\r\nHost: h\r\n"


def test_stopping_lets_what_is_under_way_finish() -> None:
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await go_on.wait()
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith) as (front, _):
            busy, idle = await front.client(), await front.client()
            await busy.send(request())
            await until(lambda: front.server.clients == 2 and front.connections)
            stopping = asyncio.create_task(front.server.stop())
            assert await idle.rest() == b""
            with pytest.raises(ConnectionRefusedError):
                await front.client()
            go_on.set()
            got = await busy.rest()
            assert got.endswith(b"\r\nConnection: close\r\n\r\nx")
            await stopping

    run(story())


def slow(client: Client) -> None:
    """Its socket takes nothing more."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("sent", "limit", "answered"),
    [
        pytest.param(b"GET / HTT", "CLIENT_HEAD_S", b"HTTP/1.1 408 ", id="half a head"),
        pytest.param(POST + b"Content-Length: 9\r\n\r\na", "CLIENT_STALL_S", b"", id="half a body"),
        pytest.param(b"", "CLIENT_IDLE_S", b"", id="nothing"),
    ],
)
def test_a_client_that_stalls_is_let_go(
    sent: bytes, limit: str, answered: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, **{limit: 0.1})

    async def story() -> None:
        async with between(response()) as (front, monolith):
            client = await front.client()
            await client.send(sent)
            try:
                got = await client.rest()
            except ConnectionError:
                got = b""
            assert got.startswith(answered) if answered else got == b""
            assert monolith.requests == []

    run(story())


def test_a_client_that_does_not_read_its_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, CLIENT_STALL_S=0.1)
    gone = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        try:
            await visit.answer(b"HTTP/1.1 200 OK\r\n\r\n")
            while True:
                await visit.answer(b"x" * 65_536)
        finally:
            gone.set()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            slow(client)
            await client.send(request())
            await asyncio.wait_for(gone.wait(), 10)
            await until(lambda: not front.server.clients)

    run(story())


ORDER = request("POST", "/api/v1/orders", b"{}")
SLOW_ORDER = b"POST /api/v1/orders HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n"


async def trickle(client: Client) -> None:
    """Until it is let go."""
    async with asyncio.timeout(PATIENCE_S):
        while not client.writer.transport.is_closing():
            await client.send(b"x")
            await asyncio.sleep(0.02)
    raise ConnectionError("the proxy has closed")


@pytest.mark.parametrize("going", [False, True])
def test_an_order_s_answer_that_falls_silent_is_ended(
    going: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cut wire: nothing else would let a flip drain. Also when its client has gone before."""
    bounds(monkeypatch, ANSWER_STALL_S=0.1)
    sent = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\nabc")
        sent.set()
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(ORDER)
            if going:
                await sent.wait()
                client.reset()
            else:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.response()
            (capture,) = await captures_of(front, 1)
            assert capture.outcome is Outcome.UPSTREAM_FAILED
            await front.drains()

    run(story())


@pytest.mark.parametrize("longer", [True, False])
def test_other_answers_may_be_silent_for_longer_and_not_for_ever(
    longer: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, ANSWER_STALL_S=0.01)
    if not longer:
        bounds(monkeypatch, ANSWER_SILENCE_S=0.1)
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\na")
        await go_on.wait()
        await visit.answer(b"b")
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(request())
            await client.reader.readuntil(b"\r\n\r\na")
            if longer:
                await front.looks(0.1)
                go_on.set()
                assert await client.reader.readexactly(1) == b"b"
            else:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await client.reader.readexactly(1)

    run(story())


@pytest.mark.parametrize("held", [False, True])
def test_an_order_whose_body_takes_too_long_is_refused(
    held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However steadily it comes: a flip waits for it."""
    bounds(monkeypatch, ORDER_BODY_S=0.3)

    async def monolith(visit: Visit) -> None:
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            if held:
                front.set_stages(holding=5)
            client = await front.client()
            await client.send(SLOW_ORDER)
            answer = asyncio.create_task(client.response())
            trickling = asyncio.create_task(trickle(client))
            assert (await answer).startswith(b"HTTP/1.1 408 ")
            trickling.cancel()
            await front.drains()

    run(story())


def test_a_body_that_trickles_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, CLIENT_STALL_S=0.3)

    async def monolith(visit: Visit) -> None:
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(POST + b"Content-Length: 100000\r\n\r\n")
            with pytest.raises(ConnectionError):
                await trickle(client)

    run(story())


def test_a_body_that_keeps_its_pace_may_take_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, CLIENT_STALL_S=0.4, CLIENT_PACE_BYTES=10)

    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            await client.send(POST + b"Content-Length: 80\r\n\r\n")
            for _ in range(8):
                await client.send(b"x" * 10)
                await front.looks(0.1)
            assert await client.response() == response(b"x")

    run(story())


def test_a_monolith_that_takes_no_body_is_a_504(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch)

    async def monolith(visit: Visit) -> None:
        visit.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def story() -> None:
        async with between(monolith, upstream_head_s=0.05) as (front, _):
            client = await front.client()
            size = 50_000_000
            client.writer.write(request("PUT", fields=[("Content-Length", str(size))]))
            client.writer.write(b"x" * size)
            assert (await client.response()).startswith(b"HTTP/1.1 504 ")

    run(story())


def test_the_monolith_s_time_begins_when_it_has_the_whole_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds(monkeypatch)
    whole, go_on = asyncio.Event(), asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        whole.set()
        await go_on.wait()
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith, upstream_head_s=0.5) as (front, _):
            client = await front.client()
            await client.send(POST + b"Content-Length: 2\r\n\r\na")
            await front.looks(0.6)
            await client.send(b"b")
            await whole.wait()
            await front.looks(0.1)
            go_on.set()
            assert await client.response() == response(b"x")

    run(story())


def test_too_many_clients_are_told_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, CLIENTS_MAX=1, CLIENTS_TURNED_AWAY_MAX=1)

    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            first = await front.client()
            assert await first.ask(request()) == response(b"x")
            second = await front.client()
            await until(lambda: front.server.clients == 2)
            third = await front.client()
            assert await third.rest() == b""
            await second.send(request())
            got = await second.rest()
            assert got.startswith(b"HTTP/1.1 503 ")
            assert b"\r\nConnection: close\r\n" in got
            assert b"\r\nRetry-After: 1\r\n" in got
            first.close()
            second.close()
            await until(lambda: not front.server.clients)
            assert await (await front.client()).ask(request()) == response(b"x")
            assert len(monolith.requests) == 2

    run(story())


def test_a_request_on_its_way_to_a_proxy_that_stops_is_answered() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            first, idle = await front.client(), await front.client()
            for client in (first, idle):
                await client.ask(request())
            stopping = asyncio.create_task(front.server.stop(PATIENCE_S, idle_s=PATIENCE_S / 2))
            await front.refuses()
            await first.send(request())
            assert (await first.rest()).endswith(b"\r\nConnection: close\r\n\r\nx")
            idle.close()
            await stopping

    run(story())
