"""What the tee records, what it loses, and that no client ever notices."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
import redis
from capture_rig import Reader, a_redis, home, shipping
from plane_rig import bounds, stands
from proxy_rig import NOWHERE, Client, Front, Visit, between, request, response, run, until
from trap_rig import captures_of

from bridge.limits import ANSWER_BODY_BYTES_MAX, ORDER_BODY_BYTES_MAX
from bridge.proxy.capture import ship
from bridge.proxy.capture import tee as tee_module
from bridge.sandbox.servers import EmbeddedRedis
from shadow.capture import CAPTURE_STREAM, Capture, Outcome, decode_batch

ORDER = b'{"order":{"market":"BTC-USD","side":"buy","price":"236.47","quantity":"2.0"}}'
ANSWER = b'{"order":{"id":11,"market":"BTC-USD"}}'
FIELDS = [
    ("Content-Type", "application/json"),
    ("X-Member-Id", "7"),
    ("X-Request-Id", "mine"),
    ("Authorization", "Bearer sesame"),
    ("Cookie", "session=sesame"),
]


def order(body: bytes = ORDER) -> bytes:
    return request("POST", "/api/v1/orders?src=app", body, FIELDS)


def taken(_: bytes = b"") -> bytes:
    return response(ANSWER, "201 Created", b"Set-Cookie: sesame")


async def shipped(front: Front, url: str, captured: int = 1) -> list[Capture]:
    """All captures that are on the stream once so many numbers are used up, and the shipper has
    been stopped.
    """
    await until(lambda: front.tee.captured == captured)
    async with shipping(front.shipper, within_s=5.0):
        pass
    return on_stream(url)


def on_stream(url: str) -> list[Capture]:
    with redis.Redis.from_url(url) as connection:
        entries = connection.xrange(CAPTURE_STREAM)
    return [capture for _, fields in entries for capture in decode_batch(fields)]


def test_an_order_is_captured_whole_and_without_its_secrets(redis_url: str) -> None:
    async def story() -> None:
        began = time.time_ns()
        async with between(taken, redis_url=redis_url) as (front, _):
            client = await front.client()
            await client.ask(order())
            await client.ask(request("DELETE", "/api/v1/orders/11", fields=FIELDS))
            await client.ask(request("GET", "/api/v1/orders/11", fields=FIELDS))
            await client.ask(request("POST", "/api/v1/withdrawals", b"{}", FIELDS))
            placed, canceled = await shipped(front, redis_url, 2)
        assert began <= placed.sent_at_ns <= time.time_ns()
        assert 0 < placed.sent_mono_ns < placed.answered_mono_ns < canceled.sent_mono_ns
        assert placed == Capture(
            worker="worker-1",
            number=1,
            action="place",
            method="POST",
            target="/api/v1/orders?src=app",
            path_params={},
            content_type="application/json",
            request_body=ORDER,
            account=7,
            request_id="mine",
            outcome=Outcome.ANSWERED,
            status=201,
            response_body=ANSWER,
            sent_mono_ns=placed.sent_mono_ns,
            answered_mono_ns=placed.answered_mono_ns,
            sent_at_ns=placed.sent_at_ns,
        )
        assert (canceled.number, canceled.action) == (2, "cancel")
        assert canceled.path_params == {"id": "11"}
        with redis.Redis.from_url(redis_url) as connection:
            assert b"sesame" not in str(connection.xrange(CAPTURE_STREAM)).encode()

    run(story())


def test_chunked_bodies_are_captured_without_their_chunks(redis_url: str) -> None:
    answer = (
        b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX: 1\r\n\r\n"
    )

    async def story() -> None:
        async with between(answer, redis_url=redis_url) as (front, _):
            client = await front.client()
            half = len(ORDER) // 2
            parts = (ORDER[:half], ORDER[half:])
            body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
            head = b"POST /api/v1/orders HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
            await client.ask(head + body + b"0\r\n\r\n")
            (capture,) = await shipped(front, redis_url)
            assert (capture.request_body, capture.response_body) == (ORDER, b"{}")

    run(story())


def test_the_outcome_is_captured_when_the_client_goes_away(redis_url: str) -> None:
    """T12: the monolith has taken the order."""
    got, go_on = asyncio.Event(), asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        got.set()
        await go_on.wait()
        await visit.answer(taken())

    async def story() -> None:
        async with between(monolith, redis_url=redis_url) as (front, _):
            client = await front.client()
            await client.send(order())
            await got.wait()
            client.reset()
            await until(lambda: not front.server.clients)
            go_on.set()
            (capture,) = await shipped(front, redis_url)
            assert capture.outcome is Outcome.CLIENT_GONE
            assert (capture.status, capture.response_body) == (201, ANSWER)

    run(story())


@pytest.mark.parametrize("partial", [b"", b"HTTP/1.1 201 Created\r\nContent-Length: 99\r\n\r\n{"])
def test_an_order_whose_fate_is_unknown_is_captured_as_such(redis_url: str, partial: bytes) -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(partial)

    async def story() -> None:
        async with between(monolith, redis_url=redis_url) as (front, _):
            client = await front.client()
            await client.send(order())
            await client.rest() if partial else await client.response()
            (capture,) = await shipped(front, redis_url)
            assert capture.outcome is Outcome.UPSTREAM_FAILED
            assert (capture.status, capture.response_body) == (0, b"")

    run(story())


@pytest.mark.parametrize(
    ("body", "answer", "reason"),
    [
        (b"x" * (ORDER_BODY_BYTES_MAX + 1), b"{}", tee_module.REQUEST_TOO_LARGE),
        (b"x" * ORDER_BODY_BYTES_MAX, b"y" * ANSWER_BODY_BYTES_MAX, ""),
        (b"{}", b"y" * (ANSWER_BODY_BYTES_MAX + 1), tee_module.ANSWER_TOO_LARGE),
    ],
)
def test_what_is_too_large_leaves_a_gap(
    redis_url: str, body: bytes, answer: bytes, reason: str
) -> None:
    """T9, T10: never a part of a body, and never in silence. The client gets it all."""

    def by_size(sent: bytes) -> bytes:
        return response(answer if len(sent) > len(order(b"")) else ANSWER)

    async def story() -> None:
        async with between(by_size, redis_url=redis_url) as (front, _):
            client = await front.client()
            await client.ask(request("DELETE", "/api/v1/orders/1"))
            assert await client.ask(order(body)) == response(answer)
            await client.ask(request("DELETE", "/api/v1/orders/1"))
            captures = await shipped(front, redis_url, 3)
            numbers = [capture.number for capture in captures]
            assert numbers == ([1, 3] if reason else [1, 2, 3])
            assert front.tee.dropped == ({reason: 1} if reason else {})

    run(story())


async def trade(client: Client, orders: int) -> None:
    for _ in range(orders):
        assert await client.ask(order()) == taken()


def test_a_frozen_redis_is_not_noticed_and_gets_everything_when_it_wakes(tmp_path: Path) -> None:
    """T25. SIGSTOP: connections stay open, and nothing answers."""

    async def story(server: EmbeddedRedis) -> None:
        assert server.pid is not None
        async with between(taken, redis_url=server.url) as (front, _):
            client = await front.client()
            async with shipping(front.shipper, within_s=10.0):
                await trade(client, 10)
                await until(lambda: on_stream(server.url))
                os.kill(server.pid, signal.SIGSTOP)
                try:
                    await trade(client, 1000)
                finally:
                    os.kill(server.pid, signal.SIGCONT)
            assert {capture.number for capture in on_stream(server.url)} == set(range(1, 1011))
            assert not front.tee.dropped

    with a_redis(tmp_path) as server:
        run(story(server))


def test_without_a_spool_a_dead_redis_is_not_noticed_and_the_gap_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, TEE_CAPTURES_MAX=50, TEE_RETRY_S=0.2)

    async def story(server: EmbeddedRedis) -> None:
        assert server.pid is not None
        async with between(taken, redis_url=server.url) as (front, _):
            client = await front.client()
            async with shipping(front.shipper, within_s=10.0):
                await trade(client, 20)
                await until(lambda: on_stream(server.url))
                os.kill(server.pid, signal.SIGKILL)
                await trade(client, 500)
                await until(lambda: ship.REDIS_AWAY in front.tee.dropped)
                server.stop()
                server._wanted_port = server.port
                await asyncio.to_thread(server.start)
                await until(lambda: not front.waiting)
                await trade(client, 20)
            reader = Reader().read(server.url)
            reader.assert_closed(540, "worker-1")
            assert reader.numbers("worker-1")[-20:] == list(range(521, 541))
            # none is missing that was not counted
            assert 0 < len(reader.lost["worker-1"]) <= sum(front.tee.dropped.values())
            assert front.tee.dropped[tee_module.QUEUE_FULL] > 0

    with a_redis(tmp_path) as server:
        run(story(server))


def test_numbers_used_up_are_on_the_disk_whatever_became_of_the_captures(tmp_path: Path) -> None:
    """Whoever comes after a kill closes the sequence with them."""

    async def story() -> None:
        mine = home(tmp_path, "worker-1")
        async with between(taken, home=mine) as (front, _):
            client = await front.client()
            await trade(client, 3)
            await client.ask(order(b"x" * (ORDER_BODY_BYTES_MAX + 1)))
            await until(lambda: mine.numbers() == {"worker-1": 4})

    run(story())


def test_the_queue_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, TEE_BYTES_MAX=10_000)

    async def story() -> None:
        async with between(taken, redis_url=NOWHERE) as (front, _):
            client = await front.client()
            for _ in range(100):
                assert await client.ask(order(b"x" * 1_000)) == taken()
            numbers = [one.number for one in await captures_of(front, 100)]
            kept = len(numbers)
            assert 0 < kept < 11
            assert front.tee.dropped == {tee_module.QUEUE_FULL: 100 - kept}
            assert numbers == list(range(1, kept + 1))

    run(story())


@pytest.mark.one_plane("breaks a part of the asyncio plane's tee")
def test_a_defect_in_the_tee_is_not_the_client_s_business(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """T4."""

    async def story() -> None:
        async with between(taken) as (front, _):
            client = await front.client()
            monkeypatch.setattr(tee_module, "_size", None)
            await trade(client, 3)
            assert front.tee.captured == 3
            assert front.tee.dropped == {tee_module.DEFECT: 3}

    run(story())
    assert "could not be captured" in caplog.text


def test_several_identities_are_none() -> None:
    async def story() -> None:
        async with between(taken) as (front, _):
            client = await front.client()
            await client.ask(
                request("POST", "/api/v1/orders", ORDER, [*FIELDS, ("x-member-id", "8")])
            )
            (capture,) = await captures_of(front, 1)
            assert capture.account == 0

    run(story())


def test_a_batch_never_spans_a_gap(redis_url: str) -> None:
    """A reader tells a gap from the numbers of one entry: they must be consecutive."""

    async def story() -> None:
        async with between(taken, redis_url=redis_url) as (front, _):
            client = await front.client()
            await trade(client, 3)
            await client.ask(order(b"x" * (ORDER_BODY_BYTES_MAX + 1)))
            await trade(client, 2)
            await shipped(front, redis_url, 6)
            with redis.Redis.from_url(redis_url) as connection:
                entries = connection.xrange(CAPTURE_STREAM)
            told = [(int(fields[b"first"]), int(fields[b"count"])) for _, fields in entries]
            assert told == [(1, 3), (5, 2), (7, 0)]  # and the end

    run(story())


def test_fields_that_must_not_be_captured_are_taken_out(redis_url: str) -> None:
    """T34."""

    async def story() -> None:
        async with between(taken, redis_url=redis_url, redact=("otp", "price")) as (front, _):
            client = await front.client()
            body = b'{"otp": "sesame", "order": {"price": "236.47", "side": "buy"}}'
            await client.ask(request("POST", "/api/v1/orders?otp=sesame", body, FIELDS))
            await client.ask(request("POST", "/api/v1/orders", b"otp=sesame", FIELDS))
            (capture,) = await shipped(front, redis_url, 2)
            assert b"sesame" not in str(capture).encode()
            assert capture.request_body == (
                b'{"otp": "[redacted]", "order": {"price": "[redacted]", "side": "buy"}}'
            )
            assert (front.tee.captured, front.tee.dropped) == (2, {tee_module.UNREADABLE: 1})

    run(story())


def test_the_answer_for_a_slow_client_that_leaves_is_read_to_its_end() -> None:
    """The monolith was being held back for it; the capture needs the whole answer all the same."""
    size = 32 * 2**20
    told = 0

    async def monolith(visit: Visit) -> None:
        nonlocal told
        await visit.request()
        await visit.answer(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // 2**16):
            await visit.answer(b"x" * 2**16)
            told += 2**16

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(order())
            assert await stands(lambda: told) < size
            client.writer.transport.abort()
            await until(lambda: told == size)
            await until(lambda: front.tee.captured)

    run(story())
