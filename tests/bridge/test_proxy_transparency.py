"""What the monolith sees of a request and the client of an answer: the same bytes, but for what is
between neighbours alone.
"""

from __future__ import annotations

import asyncio
import re

import pytest
from plane_rig import bounds, held_by_proxy, stands
from proxy_rig import Visit, between, request, response, run, until

ID = b"X-Request-Id: given\r\n"


def exchange(sent: bytes, answer: bytes, *, to_head: bool = False) -> tuple[bytes, bytes]:
    """What the monolith got, and what the client got."""

    async def story() -> tuple[bytes, bytes]:
        async with between(answer) as (front, monolith):
            client = await front.client()
            await client.send(sent)
            got = await client.response(to_head=to_head)
            return monolith.requests[0], got

    return run(story())


GET = b"GET /x?a=1&b=%20 HTTP/1.1\r\nHost: exchange.test\r\n"
SEEN = b"X-Forwarded-For: 127.0.0.1\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "seen"),
    [
        pytest.param(
            GET + b"x-a: 1\r\nX-B: two words\r\nx-A: 3\r\nCookie: a=1; b=2\r\n" + ID + b"\r\n",
            GET + b"x-a: 1\r\nX-B: two words\r\nx-A: 3\r\nCookie: a=1; b=2\r\n" + ID + SEEN,
            id="order, case and duplicates",
        ),
        pytest.param(
            GET + b"X-Forwarded-For: 10.0.0.1\r\nX-Z: 1\r\n" + ID + b"\r\n",
            GET + b"X-Forwarded-For: 10.0.0.1, 127.0.0.1\r\nX-Z: 1\r\n" + ID + b"\r\n",
            id="forwarded-for is appended",
        ),
        pytest.param(
            GET + b"X-Forwarded-For: a\r\nX-Forwarded-For: b\r\n" + ID + b"\r\n",
            GET + b"X-Forwarded-For: a\r\nX-Forwarded-For: b, 127.0.0.1\r\n" + ID + b"\r\n",
            id="to the last one",
        ),
        pytest.param(
            GET
            + b"Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nTE: trailers\r\n"
            b"Proxy-Authorization: secret\r\n" + ID + b"\r\n",
            GET + ID + SEEN,
            id="hop by hop",
        ),
        pytest.param(
            GET + b"Connection: Host, X-Forwarded-For, X-Request-Id\r\n" + ID + b"\r\n",
            GET + ID + SEEN,
            id="what a client may not have dropped",
        ),
        pytest.param(
            GET + b"X-Odd: \xe9\xff \t tail\r\nX-Empty:\r\n" + ID + b"\r\n",
            GET + b"X-Odd: \xe9\xff \t tail\r\nX-Empty:\r\n" + ID + SEEN,
            id="bytes beyond ASCII, and nothing",
        ),
        pytest.param(
            b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + ID + b"\r\nhello",
            b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n" + ID + SEEN + b"hello",
            id="a body with its length",
        ),
        pytest.param(
            b"POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n" + ID + b"\r\n"
            b"3\r\nabc\r\n2;ext=1\r\nde\r\n0\r\nX-Sum: 1\r\n\r\n",
            b"POST /f HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
            + ID
            + SEEN
            + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
            id="chunks, and no trailers: old Pumas take those for a request",
        ),
        pytest.param(
            b"GET / HTTP/1.0\r\n" + ID + b"\r\n",
            b"GET / HTTP/1.1\r\n" + ID + b"X-Forwarded-For: 127.0.0.1\r\nHost: PORT\r\n\r\n",
            id="an old client without a host",
        ),
        pytest.param(
            b"GET http://h/x HTTP/1.1\r\nHost: h\r\n" + ID + b"\r\n",
            b"GET http://h/x HTTP/1.1\r\nHost: h\r\n" + ID + SEEN,
            id="absolute form",
        ),
    ],
)
def test_the_monolith_sees_the_same_request(sent: bytes, seen: bytes) -> None:
    got, _ = exchange(sent, response())
    assert re.sub(rb"127\.0\.0\.1:\d+", b"PORT", got) == seen


@pytest.mark.parametrize(
    ("answer", "got"),
    [
        pytest.param(
            b"HTTP/1.1 418 I'm a teapot\r\nset-cookie: a=1\r\nSet-Cookie: b=2\r\nX-Runtime: 0.1\r\n"
            b"Content-Length: 2\r\n\r\nok",
            None,
            id="order, case, duplicates, reason",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
            None,
            id="chunks and trailers",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 3\r\n"
            b"Content-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            id="hop by hop",
        ),
        pytest.param(b"HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n", None, id="204"),
        pytest.param(b'HTTP/1.1 304 Not Modified\r\nETag: W/"1"\r\n\r\n', None, id="304"),
        pytest.param(
            b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na",
            id="an old monolith",
        ),
    ],
)
def test_the_client_sees_the_same_answer(answer: bytes, got: bytes | None) -> None:
    _, seen = exchange(request(), answer)
    assert seen == (got or answer)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
    ],
)
def test_the_answer_to_head_has_no_body_and_the_connections_live_on(answer: bytes) -> None:
    async def story() -> None:
        async with between(answer) as (front, monolith):
            client = await front.client()
            for _ in range(2):
                await client.send(request("HEAD"))
                assert await client.response(to_head=True) == answer
            assert monolith.connections == 1

    run(story())


def test_a_request_id_is_made_where_there_is_none() -> None:
    seen = [exchange(request(), response())[0] for _ in range(2)]
    ids = [re.search(rb"\r\nX-Request-Id: ([\w-]{16,255})\r\n", one) for one in seen]
    assert ids[0] is not None
    assert ids[1] is not None
    assert ids[0][1] != ids[1][1]


def test_connections_stay_open_on_both_sides() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            first, second = await front.client(), await front.client()
            for _ in range(3):
                assert await first.ask(request()) == response(b"x")
                assert await second.ask(request()) == response(b"x")
            assert monolith.connections == 1
            assert len(monolith.requests) == 6

    run(story())


def test_pipelined_requests_are_answered_in_order() -> None:
    def echo(sent: bytes) -> bytes:
        return response(sent.split(b" ")[1])

    async def story() -> None:
        async with between(echo) as (front, _):
            client = await front.client()
            await client.send(b"".join(request(target=f"/{n}") for n in range(50)))
            bodies = [(await client.response()).rpartition(b"\r\n\r\n")[2] for _ in range(50)]
            assert bodies == [b"/%d" % n for n in range(50)]

    run(story())


@pytest.mark.parametrize("cut", [1, 30, 70, 75])
def test_a_pipelined_request_may_come_in_parts(cut: int) -> None:
    async def story() -> None:
        async with between(lambda sent: response(sent[-5:])) as (front, _):
            client = await front.client()
            second = request("POST", "/second", b"x" * 10 + b"hello")
            assert len(second) > cut
            await client.send(request() + second[:cut])
            assert len(await client.response()) > 0
            await client.send(second[cut:])
            assert await client.response() == response(b"hello")

    run(story())


def test_more_requests_than_there_is_room_for_are_read_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds(monkeypatch, PIPELINE_MAX=4)

    async def story() -> None:
        async with between(lambda sent: response(sent.split(b" ")[1])) as (front, _):
            client = await front.client()
            await client.send(b"".join(request("POST", f"/{n}", b"body") for n in range(100)))
            for n in range(100):
                assert await client.response() == response(b"/%d" % n)
            client.writer.write_eof()
            assert await client.rest() == b""

    run(story())


def test_the_last_of_pipelined_requests_may_be_malformed() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            client = await front.client()
            await client.send(request() + request() + b"GARBAGE\r\n\r\n")
            got = await client.rest()
            assert got.startswith(response(b"x") * 2 + b"HTTP/1.1 400 ")
            assert len(monolith.requests) == 2

    run(story())


@pytest.mark.parametrize("framing", [b"Content-Length: 6", b"Transfer-Encoding: chunked"])
def test_a_body_goes_on_as_it_comes(framing: bytes) -> None:
    """The monolith has the first half before the client has sent the second."""
    halves = [b"abc", b"def"]
    if b"chunked" in framing:
        halves = [b"3\r\nabc\r\n", b"3\r\ndef\r\n0\r\n\r\n"]
    got: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        for half in halves:
            got.append(await visit.reader.readexactly(len(half)))
        await visit.answer(response())

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(b"POST / HTTP/1.1\r\nHost: h\r\n" + framing + b"\r\n\r\n" + halves[0])
            await until(lambda: got == halves[:1])
            await client.send(halves[1])
            await client.response()
            assert got == halves

    run(story())


def test_an_answer_goes_on_as_it_comes() -> None:
    """Server-sent events: the client has the first one while the monolith still waits."""
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata1\r\n")
        await go_on.wait()
        await visit.answer(b"5\r\ndata2\r\n0\r\n\r\n")

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(request())
            assert (await client.reader.readuntil(b"data1\r\n")).endswith(b"5\r\ndata1\r\n")
            go_on.set()
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"5\r\ndata2\r\n0\r\n\r\n"

    run(story())


def test_what_has_no_length_ends_with_the_connection() -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nall there is")

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(request())
            whole = b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\n\r\nall there is"
            assert await client.rest() == whole

    run(story())


def test_a_client_may_wait_before_it_sends_its_body() -> None:
    async def monolith(visit: Visit) -> None:
        head = await visit.reader.readuntil(b"\r\n\r\n")
        assert b"Expect: 100-continue" in head
        await visit.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
        await visit.answer(response(await visit.reader.readexactly(5)))

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            expects = [("Expect", "100-continue"), ("Content-Length", "5")]
            await client.send(request("POST", fields=expects))
            assert await client.response() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(b"hello")
            assert await client.response() == response(b"hello")

    run(story())


@pytest.mark.parametrize("reachable", [True, False])
def test_a_client_that_was_not_told_to_go_on_is_not_waited_for(reachable: bool) -> None:
    """It may send its body or not: whatever comes next would be a guess."""

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.answer(response(b"no", "401 Unauthorized"))
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, script):
            if not reachable:
                await script.stop()
            client = await front.client()
            expects = [("Expect", "100-continue"), ("Content-Length", "5")]
            await client.send(request("POST", fields=expects))
            got = await client.rest()
            assert got.startswith(b"HTTP/1.1 401 " if reachable else b"HTTP/1.1 502 ")
            assert b"\r\nConnection: close\r\n" in got

    run(story())


def test_early_hints_reach_a_client_that_can_read_them() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"

    async def story() -> None:
        async with between(hints + response(b"x")) as (front, _):
            client = await front.client()
            await client.send(request())
            assert await client.response() == hints
            assert await client.response() == response(b"x")
            old = await front.client()
            await old.send(b"GET / HTTP/1.0\r\nHost: h\r\n\r\n")
            assert b"103" not in await old.rest()

    run(story())


def test_an_old_client_gets_no_chunks() -> None:
    async def story() -> None:
        chunks = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: 1\r\n\r\n"
        )
        async with between(chunks) as (front, _):
            client = await front.client()
            await client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert await client.rest() == b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc"

    run(story())


def test_an_old_client_may_keep_its_connection() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            for _ in range(2):
                got = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert b"\r\nConnection: keep-alive\r\n" in got

    run(story())


def test_the_last_answer_of_a_connection_says_so() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            await client.send(request(fields=[("Connection", "close")]) + request())
            assert await client.rest() == (
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx"
            )

    run(story())


def test_a_client_that_has_closed_its_side_still_reads_its_answers() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            client = await front.client()
            await client.send(request() + request())
            client.writer.write_eof()
            assert await client.rest() == response(b"x") * 2

    run(story())


def test_an_answer_before_the_body_has_come() -> None:
    """The rest of the body goes nowhere, and the next request is read after it."""
    answers = [response(b"no", "413 Payload Too Large"), response(b"next")]

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.answer(answers.pop(0))
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, script):
            client = await front.client()
            await client.send(request("POST", fields=[("Content-Length", "400000")]) + b"x" * 1000)
            assert await client.response() == response(b"no", "413 Payload Too Large")
            await client.send(b"x" * 399_000 + request())
            assert await client.response() == response(b"next")
            assert script.connections == 2

    run(story())


def test_a_client_that_does_not_read_slows_the_monolith_down() -> None:
    """Nothing is held for it beyond the buffers of the sockets."""
    piece = b"x" * 65_536
    written = 0

    async def monolith(visit: Visit) -> None:
        nonlocal written
        await visit.request()
        await visit.answer(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (len(piece) * 2000))
        for _ in range(2000):
            await visit.answer(piece)
            written += len(piece)

    async def story() -> None:
        async with between(monolith) as (front, script):
            client = await front.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(request())
            gone = await stands(lambda: written)
            assert gone < len(piece) * 1000
            assert held_by_proxy(gone, front.port, script.port) < 1_000_000
            client.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len(await client.response()) > len(piece) * 2000

    run(story())


def test_a_monolith_that_does_not_read_slows_the_client_down() -> None:
    read_on = asyncio.Event()
    size = 40_000_000

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await read_on.wait()
        await visit.reader.readexactly(size)
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith) as (front, script):
            client = await front.client()
            client.writer.write(request("PUT", fields=[("Content-Length", str(size))]))
            client.writer.write(b"x" * size)
            transport = client.writer.transport
            gone = await stands(lambda: size - transport.get_write_buffer_size())
            assert gone < size
            assert held_by_proxy(gone, front.port, script.port) < 2_000_000
            read_on.set()
            assert await client.response() == response(b"x")

    run(story())
