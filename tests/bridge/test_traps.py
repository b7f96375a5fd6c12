"""One named test for each trap of the field notes that concerns proxy and capture: what others have
fallen into, from 1 to 34.

Here: 1 to 10. In test_traps_capture: 12 to 16, 22, 27, 29, 30, 33, 34. Elsewhere, or there in more
depth:
- 1, 2, 3, 5, 11, 25 as a matrix of faults with the completeness equation: test_capture_faults
- 3, 9, 10, 25: test_proxy_tee; 34: test_proxy_redact
- 5, ten minutes under load with a shadow ten times too slow: `railswitch bench proxy`
- 7 and 8, byte for byte: test_proxy_golden; 8, what a request smuggles: test_proxy_smuggling
- 13, 17 to 19, 21: what the shadow makes of captures, orders and answers: tests/shadow
- 14, 24, a batch that comes twice, a record that can't be read: test_capture_shipping;
  24 on the reading side: tests/shadow/test_captures and test_pipeline_captures
- 20: tests/shadow/test_convert; 22 and 31, the gate and its waves: test_gate
- 23: tests/shadow/test_judge and the long run of the bench
- 26, death at every step of a flip, of write-back and of the ahead log: tests/acceptance,
  test_recover, test_capture_ahead
- 28: `railswitch bench proxy`, on the performance page
- 32: docs/style.md; no code of others is in here
"""

from __future__ import annotations

import asyncio
import gc
import socket
import tracemalloc
from contextlib import suppress

import pytest
from plane_rig import bounds
from proxy_rig import NOWHERE, Visit, between, response, run, until
from trap_rig import (
    ORDER,
    TAKEN,
    captures_of,
    captures_up_to,
    order,
    shadow_that,
    shipping_of,
    trade,
)

from bridge.limits import ANSWER_BODY_BYTES_MAX, ORDER_BODY_BYTES_MAX
from shadow.capture import Outcome


@pytest.mark.parametrize("does", ["never answers", "never reads", "closes", "garbage"])
def test_t01_t02_t03_answers_come_while_the_shadow_side_is_stalled(does: str) -> None:
    """On one connection, each after the other. The shadow side has been sent captures, and none of
    them can have been answered.
    """

    async def story() -> None:
        async with (
            shadow_that(does) as shadow,
            between(TAKEN, redis_url=shadow.url) as (front, monolith),
            shipping_of(front),
        ):
            await trade(front, 1)
            await until(lambda: shadow.came or (shadow.connections and does != "never answers"))
            await trade(front, 200)
            assert len(monolith.requests) == 201
            await until(lambda: front.tee.captured == 201)

    run(story())


def test_t03_nobody_waits_for_a_shadow_whose_host_is_gone() -> None:
    """A port where connections are never taken: SYN after SYN goes unanswered."""

    async def story() -> None:
        with socket.socket() as full, socket.socket() as filler:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            filler.setblocking(False)
            with suppress(BlockingIOError):
                filler.connect(full.getsockname())
            url = f"redis://127.0.0.1:{full.getsockname()[1]}/0"
            async with between(TAKEN, redis_url=url) as (front, _), shipping_of(front):
                await trade(front, 100)
                await until(lambda: front.tee.captured == 100)

    run(story())


def test_t04_a_tee_that_throws_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("the tee")

    async def story() -> None:
        async with between(TAKEN) as (front, monolith):
            monkeypatch.setattr(front.tee, "offer", fails, raising=False)
            monkeypatch.setattr(front.tee, "take", fails)
            monkeypatch.setattr(front.desk, "learn", fails)
            await trade(front, 5)
            assert len(monolith.requests) == 5

    run(story())


def test_t05_what_waits_for_a_slow_shadow_is_bounded_and_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bounds(monkeypatch, TEE_BYTES_MAX=20_000)

    async def story() -> None:
        async with between(TAKEN, redis_url=NOWHERE) as (front, _):
            await trade(front, 300)
            kept = await captures_of(front, 300)
            assert sum(512 + len(one.request_body) for one in kept) < 60_000
            assert len(kept) + sum(front.tee.dropped.values()) == front.tee.captured == 300

    run(story())


def test_t06_a_large_limit_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GiB allowed for a body, and a thousand small ones: none of them takes a buffer of it."""
    bounds(monkeypatch, ORDER_BODY_BYTES_MAX=1 << 30)
    bounds(monkeypatch, ANSWER_BODY_BYTES_MAX=1 << 30)

    async def story() -> int:
        async with between(TAKEN) as (front, _):
            await trade(front, 10)
            gc.collect()
            tracemalloc.start()
            try:
                await trade(front, 1_000)
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

    assert run(story()) < 16 << 20


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        pytest.param(order(b""), b"", id="no length"),
        pytest.param(order(b"", ("Content-Length", "0")), b"", id="a length of nothing"),
        pytest.param(
            order(b"", ("Transfer-Encoding", "chunked")) + b"0\r\n\r\n", b"", id="no chunk"
        ),
        pytest.param(order(ORDER, ("Expect", "100-continue")), ORDER, id="100-continue"),
        pytest.param(order().replace(b"HTTP/1.1", b"HTTP/1.0"), ORDER, id="1.0"),
        pytest.param(order(b"").replace(b"HTTP/1.1", b"HTTP/1.0"), b"", id="1.0 without a length"),
        pytest.param(
            order(b"", ("Transfer-Encoding", "chunked"))
            + b"".join(b"1\r\n%c\r\n" % byte for byte in ORDER)
            + b"0\r\nX-Sum: 1\r\n\r\n",
            ORDER,
            id="a chunk for each byte",
        ),
    ],
)
def test_t07_odd_bodies_are_passed_on_and_captured(sent: bytes, body: bytes) -> None:
    async def story() -> None:
        async with between(TAKEN) as (front, monolith):
            client = await front.client()
            await client.send(sent)
            got = await client.response()
            assert got.startswith(b"HTTP/1.1 201 Created\r\n")
            assert len(monolith.requests) == 1
            (capture,) = await captures_of(front, 1)
            assert capture.request_body == body
            assert capture.outcome is Outcome.ANSWERED

    run(story())


@pytest.mark.parametrize("host", ["exchange.test", "EXCHANGE.test:8443", "127.0.0.1", "[::1]:1"])
def test_t08_the_host_is_the_client_s(host: str) -> None:
    async def story() -> None:
        async with between(TAKEN) as (front, monolith):
            await (await front.client()).ask(order().replace(b"exchange.test", host.encode()))
            (seen,) = monolith.requests
            assert f"\r\nHost: {host}\r\n".encode() in seen
            assert seen.lower().count(b"\r\nhost:") == 1
            assert b"x-forwarded-host" not in seen.lower()
            assert b"shadow" not in seen.lower()

    run(story())


@pytest.mark.parametrize("by", [-1, 0, 1])
@pytest.mark.parametrize("framed", [True, False], ids=["length", "chunks"])
@pytest.mark.parametrize("side", ["request", "answer"])
def test_t09_a_body_over_the_limit_is_a_gap_and_not_silence(
    side: str, framed: bool, by: int
) -> None:
    size = (ORDER_BODY_BYTES_MAX if side == "request" else ANSWER_BODY_BYTES_MAX) + by
    body = b"x" * size
    chunked = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
    asked, given = order(), response(body)
    if side == "request":
        given = TAKEN
        asked = order(body) if framed else order(b"", ("Transfer-Encoding", "chunked")) + chunked
    elif not framed:
        given = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked

    async def story() -> None:
        async with between(given) as (front, monolith):
            client = await front.client()
            await client.send(asked)
            assert len(await client.response()) >= len(given) - 40
            assert len(monolith.requests) == 1
            kept = await captures_of(front, 1)
            if by <= 0:
                (capture,) = kept
                whole = capture.request_body if side == "request" else capture.response_body
                assert whole == body
            else:
                assert kept == []
                assert sum(front.tee.dropped.values()) == 1

    run(story())


@pytest.mark.parametrize("goes", ["reset", "close"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_t10_a_part_of_an_order_is_never_captured(framing: str, goes: str) -> None:
    """The client goes behind each tenth byte of its order."""
    whole = order()
    if framing == "chunks":
        whole = order(b"", ("Transfer-Encoding", "chunked")) + b"%x\r\n%b\r\n0\r\n\r\n" % (
            len(ORDER),
            ORDER,
        )
    body_at = whole.index(b"\r\n\r\n") + 4

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(TAKEN)
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            for at in range(body_at, len(whole), 10):
                client = await front.client()
                await client.send(whole[:at])
                client.reset() if goes == "reset" else client.close()
            last = b'{"last":1}'
            assert await (await front.client()).ask(order(last)) == TAKEN
            bodies = {one.request_body for one in await captures_up_to(front, last)}
            assert bodies <= {last, ORDER, b""}

    run(story())


@pytest.mark.parametrize("end", [b"3\nxyz\r\n0\r\n\r\n", b"zz\r\n", b"0\r\nbad\r\n\r\n"])
def test_t10_a_part_of_an_order_that_goes_wrong_is_never_captured(end: bytes) -> None:
    part = ORDER[:40]
    begun = order(b"", ("Transfer-Encoding", "chunked")) + b"%x\r\n%b\r\n" % (len(part), part)

    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(TAKEN)

    async def story() -> None:
        async with between(monolith) as (front, _):
            for sent in ([begun + end], [begun, end]):
                client = await front.client()
                for piece in sent:
                    await client.send(piece)
                    await asyncio.sleep(0.01)
                assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
            assert await (await front.client()).ask(order()) == TAKEN
            bodies = {one.request_body for one in await captures_up_to(front, ORDER)}
            assert bodies <= {ORDER, b""}

    run(story())
