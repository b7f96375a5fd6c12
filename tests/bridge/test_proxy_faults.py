"""Malformed requests are refused at the door; a monolith that fails fails promptly, and once."""

from __future__ import annotations

import asyncio
import socket
import threading

import pytest
from proxy_rig import (
    Front,
    Monolith,
    Visit,
    between,
    request,
    response,
    run,
    until,
)

from bridge.limits import FIELDS_MAX, HEAD_BYTES_MAX, TARGET_BYTES_MAX

HOST = b"GET / HTTP/1.1\r\nHost: h\r\n"
POST = b"POST / HTTP/1.1\r\nHost: h\r\n"


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 3, 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: +3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 0x3\r\n\r\nabc", 400),
        (POST + b"Content-Length : 3\r\n\r\nabc", 400),
        (POST + b"Content-Length: 99999999999999999999\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcX0\r\n\r\n", 400),
        (POST + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (HOST + b"Host: other\r\n\r\n", 400),
        (HOST + b"Host: h\r\n\r\n", 400),
        (b"GET / HTTP/1.0\r\nHost: h\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: u@h\r\n\r\n", 400),
        (POST + b"Content_Length: 3\r\n\r\nabc", 400),
        (POST + b"Content_Type: text/html\r\nContent-Length: 3\r\n\r\nabc", 400),
        (POST + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET ftp://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (HOST + b"X: a\r\n b\r\n\r\n", 400),
        (HOST + b"X: a\nY: b\r\n\r\n", 400),
        (HOST + b"X: a\rb\r\n\r\n", 400),
        (HOST + b"X: a\x00b\r\n\r\n", 400),
        (HOST + b": a\r\n\r\n", 400),
        (HOST + b"X Y: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: h\n\n", 400),
        (b"GET /\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /# HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GE(T / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET" * 11 + b" / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 505),
        (b"GET / http/1.1\r\nHost: h\r\n\r\n", 400),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"GET /" + b"a" * TARGET_BYTES_MAX + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (HOST + b"X: " + b"a" * HEAD_BYTES_MAX + b"\r\n\r\n", 431),
        (HOST + b"X: a\r\n" * FIELDS_MAX + b"\r\n", 431),
    ],
)
def test_a_malformed_request_is_refused_and_goes_nowhere(sent: bytes, status: int) -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            client = await front.client()
            await client.send(sent)
            got = await client.rest()
            assert got.startswith(b"HTTP/1.1 %d " % status)
            assert b"\r\nConnection: close\r\n" in got
            assert monolith.requests == []
            assert await (await front.client()).ask(request()) == response(b"x")

    run(story())


def test_a_head_without_an_end_is_refused_at_its_bound() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            await client.send(HOST + b"X: ")
            for _ in range(HEAD_BYTES_MAX // 1024 + 1):
                client.writer.write(b"a" * 1024)
            assert (await client.rest()).startswith(b"HTTP/1.1 431 ")

    run(story())


def test_a_chunk_that_goes_wrong_on_the_way_breaks_the_request_off() -> None:
    """The monolith must not take what it has for the whole."""
    got: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        got.append(await visit.reader.read())

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(POST + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await until(lambda: front.connections)
            await client.send(b"nonsense\r\n")
            assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
            await until(lambda: got)
            assert not got[0].endswith(b"0\r\n\r\n")

    run(story())


@pytest.mark.parametrize("end", ["reset", "close"])
def test_a_client_that_goes_in_the_middle_of_a_body_breaks_the_request_off(end: str) -> None:
    ended = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        try:
            await visit.reader.read()
        finally:
            ended.set()

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(POST + b"Content-Length: 10\r\n\r\nabc")
            await until(lambda: front.connections)
            client.reset() if end == "reset" else client.close()
            await asyncio.wait_for(ended.wait(), 5)
            await until(lambda: not front.server.clients)

    run(story())


def unused() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def test_a_monolith_that_is_down_is_told_at_once() -> None:
    async def story() -> None:
        async with Front(unused()) as front:
            clients = [await front.client() for _ in range(3)]
            for client in clients:
                await client.send(request("POST", "/api/v1/orders", b"{}"))
            for client in clients:
                got = await client.response()
                assert got.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
                assert got.endswith(b'{"status":502,"error":"Bad Gateway"}')
            assert front.tee.captured == 0  # the monolith has seen nothing

    run(story())


def test_the_connection_to_the_client_outlives_the_monolith() -> None:
    async def story() -> None:
        async with Monolith(response(b"x")) as monolith, Front(monolith.upstream) as front:
            client = await front.client()
            assert await client.ask(request()) == response(b"x")
            await monolith.stop()
            assert (await client.ask(request())).startswith(b"HTTP/1.1 502 ")
            assert (await client.ask(request())).startswith(b"HTTP/1.1 502 ")

    run(story())


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 2 * HEAD_BYTES_MAX,
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    ],
)
def test_an_unusable_answer_is_a_502_and_the_request_was_sent_once(bad: bytes) -> None:
    requests: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        requests.append(await visit.request())
        await visit.answer(bad)

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            assert (await client.ask(request())).startswith(b"HTTP/1.1 502 ")
            assert len(requests) == 1

    run(story())


@pytest.mark.parametrize("framing", [b"Content-Length: 9", b"Transfer-Encoding: chunked"])
def test_an_answer_that_breaks_off_breaks_off_at_the_client_too(framing: bytes) -> None:
    """A client must not take a part for the whole."""

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n\r\n3\r\nabc\r\n")

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(request())
            with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                await client.response()

    run(story())


def test_a_request_whose_connection_breaks_is_never_sent_again() -> None:
    """Not even on a connection that served before: the monolith may have acted on it."""
    requests: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        requests.append(await visit.request())
        await visit.answer(response(b"1"))
        requests.append(await visit.request())

    async def story() -> None:
        async with between(monolith) as (front, script):
            client = await front.client()
            assert await client.ask(request()) == response(b"1")
            assert (await client.ask(request("POST"))).startswith(b"HTTP/1.1 502 ")
            assert len(requests) == 2
            assert script.connections == 1

    run(story())


def test_a_connection_that_the_monolith_has_closed_is_not_used_again() -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith) as (front, script):
            client = await front.client()
            for n in range(1, 4):
                assert await client.ask(request("POST")) == response(b"x")
                assert script.connections == n
                await until(lambda: not front.connections)

    run(story())


@pytest.mark.one_plane("asks a connection of the asyncio pool; the behaviour is the test above")
def test_a_connection_is_looked_at_before_it_is_used_again() -> None:
    """The monolith's farewell may have come, and not been read yet."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        served, close = threading.Event(), threading.Event()

        def monolith() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(10_000)
                connection.sendall(response(b"x"))
                served.set()
                close.wait(10)

        thread = threading.Thread(target=monolith)
        thread.start()

        async def story() -> None:
            async with Front(f"http://127.0.0.1:{listening.getsockname()[1]}") as front:
                assert await (await front.client()).ask(request()) == response(b"x")
                (connection,) = front.server.pool.pools[0]._idle
                later = connection.idle_since + 1.0
                assert connection.is_usable(later)
                close.set()
                thread.join()  # without a turn of the loop
                assert not connection.is_usable(later)

        run(story())


def test_more_than_the_announced_answer_ends_that_connection_only() -> None:
    async def story() -> None:
        async with between(response(b"x") + b"HTTP/1.1 200 OK\r\n") as (front, script):
            client = await front.client()
            for n in range(1, 3):
                assert await client.ask(request()) == response(b"x")
                assert script.connections == n

    run(story())


def test_a_monolith_that_does_not_answer_in_time_is_a_504() -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith, upstream_head_s=0.05) as (front, _):
            client = await front.client()
            got = await client.ask(request())
            assert got.startswith(b"HTTP/1.1 504 Gateway Timeout\r\n")
            assert (await client.ask(request())).startswith(b"HTTP/1.1 504 ")

    run(story())


def test_the_pool_is_bounded_and_the_rest_wait_their_turn() -> None:
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        while True:
            sent = await visit.request()
            await go_on.wait()
            await visit.answer(response(sent.split(b" ")[1]))

    async def story() -> None:
        async with between(monolith, upstream_connections_max=3) as (front, script):
            clients = [await front.client() for _ in range(10)]
            for n, client in enumerate(clients):
                await client.send(request(target=f"/{n}"))
            await until(lambda: front.server.requests == 10)
            go_on.set()
            for n, client in enumerate(clients):
                assert await client.response() == response(b"/%d" % n)
            assert script.connections == 3

    run(story())


def test_who_stops_waiting_is_not_sent() -> None:
    go_on = asyncio.Event()
    requests: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        while True:
            requests.append(await visit.request())
            await go_on.wait()
            await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith, upstream_connections_max=1) as (front, _):
            first, second, third = [await front.client() for _ in range(3)]
            await first.send(request(target="/1"))
            await until(lambda: requests)
            await second.send(request(target="/2"))
            await third.send(request(target="/3"))
            await until(lambda: front.server.requests == 3)
            second.reset()
            await until(lambda: front.server.clients == 2)
            go_on.set()
            await first.response()
            await third.response()
            assert [one.split(b" ")[1] for one in requests] == [b"/1", b"/3"]

    run(story())
