"""Orders that go to the monolith once they are on the disk: what the proxy gives it, and when."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import pytest
from proxy_rig import between, request, response, run, until

from bridge.limits import ORDER_BODY_BYTES_MAX
from bridge.proxy.capture import record
from bridge.proxy.capture.ahead_log import MAGIC, unpack_ids
from shadow.capture import Capture, Outcome

ORDER = request("POST", "/api/v1/orders", b"{}")
SLOW_ORDER = b"POST /api/v1/orders HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\n"


class ScriptedLog:
    """A disk that is done with an order when the test says so."""

    def __init__(self) -> None:
        self.failed = 0
        self.captures: list[Capture] = []  # all that was ever appended
        self.done_ids: list[int] = []
        self._settled: list[Callable[[bool], None]] = []

    def append(self, framed: bytes, ids: Sequence[int], settled: Callable[[bool], None]) -> None:
        for body, _ in record.decode(MAGIC, framed, is_end=True):
            assert body is not None
            self.captures.append(msgspec.msgpack.decode(body[8:], type=Capture))
        self._settled.append(settled)

    def done(self, ids: bytes) -> None:
        self.done_ids += unpack_ids(ids)

    def release(self) -> None:
        for settled in self._settled:
            settled(True)
        self._settled.clear()


@pytest.mark.parametrize("framing", [b"Content-Length: 900", b"Transfer-Encoding: chunked"])
def test_an_order_goes_whole_once_it_is_on_the_disk(framing: bytes) -> None:
    async def story() -> None:
        log = ScriptedLog()
        async with between(response(b"x", "201 Created"), ahead=log) as (front, monolith):
            client = await front.client()
            head = SLOW_ORDER.replace(b"Content-Length: 900", framing)
            await client.send(head.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n"))
            assert await client.response() == b"HTTP/1.1 100 Continue\r\n\r\n"
            chunked = b"chunked" in framing
            await client.send(b"384\r\n" * chunked + b"x" * 450)
            await until(lambda: front.server.requests)
            assert await (await front.client()).ask(request()) == response(b"x", "201 Created")
            assert log.captures == []
            await client.send(b"x" * 450 + b"\r\n0\r\n\r\n" * chunked)
            await until(lambda: log.captures)
            (ahead,) = log.captures
            assert (ahead.request_body, ahead.outcome) == (b"x" * 900, Outcome.WORKER_LOST)
            assert await (await front.client()).ask(request()) == response(b"x", "201 Created")
            assert len(monolith.requests) == 2
            log.release()
            assert await client.response() == response(b"x", "201 Created")
            await until(lambda: front.tee.captured == 1)
            assert log.done_ids == []  # before it is shipped

    run(story())


def test_a_body_too_large_to_be_captured_waits_for_no_disk() -> None:
    async def story() -> None:
        log = ScriptedLog()
        async with between(response(b"x"), ahead=log) as (front, _):
            body = b"x" * (ORDER_BODY_BYTES_MAX + 1)
            client = await front.client()
            assert await client.ask(request("POST", "/api/v1/orders", body)) == response(b"x")
            assert log.captures == []

    run(story())


def test_an_order_goes_without_the_disk_when_its_budget_is_spent() -> None:
    async def story() -> None:
        log = ScriptedLog()
        async with between(response(b"x"), ahead=log, ahead_budget_s=0.01) as (front, _):
            assert await (await front.client()).ask(ORDER) == response(b"x")
            assert len(log.captures) == front.server.ahead_late == 1
            log.release()  # too late, and nothing comes of it
            assert await (await front.client()).ask(request()) == response(b"x")
            await until(lambda: front.tee.captured == 1)

    run(story())


def test_an_order_that_never_went_is_not_left_on_the_disk() -> None:
    async def story() -> None:
        log = ScriptedLog()
        async with between(response(b"x"), ahead=log) as (front, monolith):
            await (await front.client()).ask(request())  # leaves a connection that is free
            gone = await front.client()
            await gone.send(ORDER)
            await until(lambda: len(log.captures) == 1)
            gone.reset()
            await until(lambda: front.server.clients == 1)
            log.release()
            await until(lambda: len(log.done_ids) == 1)
            await front.drains()
            await (await front.client()).ask(request())
            await monolith.stop()
            refused = await front.client()
            await refused.send(ORDER)
            await until(lambda: len(log.captures) == 2)
            log.release()
            assert (await refused.response()).startswith(b"HTTP/1.1 502 ")
            await until(lambda: len(log.done_ids) == 2)
            assert [one.split(b" ")[0] for one in monolith.requests] == [b"GET", b"GET"]
            assert front.tee.captured == 0

    run(story())
