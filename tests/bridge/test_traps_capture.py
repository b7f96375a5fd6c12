"""The traps from 12 on that concern proxy and capture; test_traps has the others and the list."""

from __future__ import annotations

import ast
import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from plane_rig import bounds
from proxy_rig import Visit, between, request, response, run, until
from trap_rig import (
    ORDER,
    TAKEN,
    breaks_off,
    captures_of,
    order,
    shadow_that,
    shipping_of,
    trade,
)

import bridge.proxy
import bridge.sandbox
from bridge import config
from bridge.config import parse
from bridge.errors import ConfigError
from bridge.limits import ORDER_BODY_BYTES_MAX
from shadow.capture import Outcome


def _more_than(seen: list[bytes], count: int) -> Callable[[], bool]:
    return lambda: len(seen) > count


def test_t12_an_order_whose_client_has_gone_is_captured_with_its_answer() -> None:
    got, go_on = asyncio.Event(), asyncio.Event()

    async def monolith(visit: Visit) -> None:
        while True:
            if (await visit.request()).startswith(b"POST"):
                got.set()
                await go_on.wait()
            await visit.answer(TAKEN)

    async def story() -> None:
        async with between(monolith) as (front, _):
            client = await front.client()
            await client.send(order())
            await got.wait()
            client.reset()
            for _ in range(3):  # what happened before these is known to the proxy
                await (await front.client()).ask(request())
            go_on.set()
            (capture,) = await captures_of(front, 1)
            assert capture.request_body == ORDER
            assert capture.status == 201

    run(story())


@pytest.mark.parametrize("status", [200, 201, 302, 400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_t13_what_the_monolith_said_is_captured_as_it_said_it(status: int) -> None:
    """Only what it committed counts for parity: the shadow decides by this and the database."""
    said = response(b'{"errors":{}}', f"{status} Said")

    async def story() -> None:
        async with between(said) as (front, _):
            await trade(front, 1, answer=said)
            (capture,) = await captures_of(front, 1)
            assert (capture.outcome, capture.status) == (Outcome.ANSWERED, status)
            assert capture.response_body == b'{"errors":{}}'

    run(story())


@pytest.mark.parametrize(
    "said",
    [b"", b"HTTP/1.1 201 Cre", TAKEN[:-1], b"garbage\r\n\r\n", b"HTTP/1.1 201 C\r\n\r\n{}"],
    ids=["nothing", "half a head", "all but a byte", "garbage", "to a reset"],
)
def test_t13_an_answer_that_was_not_given_is_not_captured_as_one(said: bytes) -> None:
    async def story() -> None:
        async with between(breaks_off(said)) as (front, _):  # type: ignore[arg-type]
            client = await front.client()
            await client.send(order(ORDER, ("Connection", "close")))
            with suppress(ConnectionError):
                await client.rest()
            (capture,) = await captures_of(front, 1)
            assert capture.outcome is Outcome.UPSTREAM_FAILED
            assert (capture.status, capture.response_body) == (0, b"")

    run(story())


def test_t14_each_request_is_sent_and_captured_once_whatever_happens() -> None:
    """Answers, resets, silence over the limit and clients that go, in any order."""
    seen: list[bytes] = []
    fates = [0, 1, 2, 3] * 15
    random.Random(14).shuffle(fates)

    async def monolith(visit: Visit) -> None:
        while True:
            sent = await visit.request()
            seen.append(sent.split(b"X-Request-Id: ")[1].split(b"\r\n")[0])
            fate = fates[int(seen[-1])]
            if fate == 1:
                visit.writer.transport.abort()
            if fate == 2:
                await visit.reader.read()
            await visit.answer(TAKEN)

    async def story() -> None:
        async with between(monolith, upstream_head_s=0.3) as (front, _):
            for n, fate in enumerate(fates):
                client = await front.client()
                await client.send(order(ORDER, ("X-Request-Id", str(n))))
                if fate == 3:
                    await until(_more_than(seen, n))
                    client.reset()
                elif fate != 2:
                    await client.response()
                else:
                    await until(_more_than(seen, n))
            assert sorted(map(int, seen)) == [*range(len(fates))]
            ids = [int(one.request_id) for one in await captures_of(front, len(fates))]
            assert sorted(ids) == [*range(len(fates))]

    run(story())


def test_t15_two_clients_orders_are_told_in_the_order_in_which_they_went() -> None:
    """Their answers come the other way round: the capture says both, and numbers have no gap."""
    arrived: list[bytes] = []
    turn = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        while True:
            sent = await visit.request()
            name = sent.split(b"X-Request-Id: ")[1].split(b"\r\n")[0]
            arrived.append(name)
            if name.startswith(b"first"):
                await turn.wait()
            await visit.answer(TAKEN)

    async def story() -> None:
        async with between(monolith) as (front, _):
            one, two = await front.client(), await front.client()
            for n in range(20):
                turn.clear()
                await one.send(order(ORDER, ("X-Request-Id", f"first{n}")))
                await until(_more_than(arrived, 2 * n))
                assert await two.ask(order(ORDER, ("X-Request-Id", f"second{n}"))) == TAKEN
                turn.set()
                assert await one.response() == TAKEN
            found = await captures_of(front, 40)
            assert [each.number for each in found] == [*range(1, 41)]
            by_sending = sorted(found, key=lambda each: each.sent_mono_ns)
            assert [each.request_id.encode() for each in by_sending] == arrived
            assert all(each.answered_mono_ns > each.sent_mono_ns for each in found)
            assert [each.request_id[:5] for each in found[:2]] == ["secon", "first"]

    run(story())


@pytest.mark.parametrize("key", ["sample", "sampling", "percent", "fraction", "ratio", "rate"])
def test_t16_there_is_no_sampling(key: str) -> None:
    path = Path(bridge.sandbox.__file__).with_name("railswitch.toml")
    text = path.read_text()
    parse(text, source=path.name)
    with pytest.raises(ConfigError, match=key):
        parse(f"{text}\n[proxy.capture]\n{key} = 0.5\n", source=path.name)
    assert not [name for name in tuple(config.keys()) if name.endswith(f".{key}")]


def test_t22_captures_never_suspend_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many were dropped: with room again, the next one is kept."""
    bounds(monkeypatch, TEE_CAPTURES_MAX=10)

    async def story() -> None:
        async with between(TAKEN) as (front, _):
            for n in range(3):
                await trade(front, 500)
                assert len(await captures_of(front, 500 * (n + 1), before=10 * n)) == 10
            await trade(front, 1)
            (capture,) = await captures_of(front, 1_501, before=30)
            assert capture.number == front.tee.captured == 1_501
            assert sum(front.tee.dropped.values()) == 1_470

    run(story())


def test_t27_counters_agree_with_what_was_seen() -> None:
    """Requests, captures and drops, beside what the monolith and the clients have counted."""
    mixed = [
        order(),
        request("GET", "/api/v1/orders"),
        request("DELETE", "/api/v1/orders/7"),
        request("POST", "/other", b"{}"),
        order(b"x" * (ORDER_BODY_BYTES_MAX + 1)),
        request("HEAD", "/"),
    ]

    async def story() -> None:
        async with between(response(b"")) as (front, monolith):
            client = await front.client()
            for _ in range(10):
                for sent in mixed:
                    await client.send(sent)
                    await client.response(to_head=sent.startswith(b"HEAD"))
            assert len(monolith.requests) == 60
            assert front.server.requests == 60
            assert len(await captures_of(front, 30)) == 20
            assert sum(front.tee.dropped.values()) == 10

    run(story())


def _wall_clock_differences(tree: ast.Module) -> list[int]:
    """Lines where a reading of the wall clock is an operand."""
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.BinOp | ast.Compare)
        for part in ast.walk(node)
        if isinstance(part, ast.Call) and ast.unparse(part.func) in ("time.time", "time.time_ns")
    ]


def test_t29_durations_are_of_the_monotonic_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes backwards: what is measured does not."""
    now = iter(range(10**18, 0, -(10**12)))
    monkeypatch.setattr(time, "time_ns", lambda: next(now))

    async def story() -> None:
        began = time.monotonic_ns()
        async with between(TAKEN) as (front, _):
            await trade(front, 5)
            found = await captures_of(front, 5)
        times = [at for one in found for at in (one.sent_mono_ns, one.answered_mono_ns)]
        assert times == sorted(times)
        assert began <= times[0] <= times[-1] <= time.monotonic_ns()

    run(story())
    package = Path(bridge.proxy.__file__).parent
    for path in package.glob("*.py"):
        assert _wall_clock_differences(ast.parse(path.read_text())) == [], path.name


def test_t30_nothing_that_was_captured_comes_back_to_the_monolith() -> None:
    """Whatever the shadow side does: the monolith hears each request once, and of nobody else."""

    async def story() -> None:
        async with (
            shadow_that("closes") as shadow,
            between(TAKEN, redis_url=shadow.url) as (front, monolith),
            shipping_of(front),
        ):
            await trade(front, 50)
            await until(lambda: shadow.connections > 2)  # the batch was tried again
            assert len(monolith.requests) == 50
            assert monolith.connections == 1

    run(story())


@pytest.mark.parametrize(
    "said",
    [
        TAKEN,
        response(b"", "422 No"),
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\nX: 1\r\n\r\n",
        b"HTTP/1.1 103 Hints\r\n\r\n" + TAKEN,
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\nx",
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET", "HEAD"])
def test_t33_connections_to_the_monolith_are_used_again(method: str, said: bytes) -> None:
    if method == "HEAD":
        said = b"\r\n\r\n".join([*said.split(b"\r\n\r\n")[: 1 + (b" 103 " in said)], b""])

    async def story() -> None:
        async with between(said) as (front, monolith):
            client = await front.client()
            for _ in range(50):
                await client.send(
                    request(method, "/api/v1/orders", b"x" if method == "POST" else b"")
                )
                got = await client.response(to_head=method == "HEAD")
                if b" 103 " in got:
                    await client.response(to_head=method == "HEAD")
            assert monolith.connections == 1

    run(story())


def test_t33_connections_to_a_failing_shadow_are_bounded() -> None:
    """It closes each at once: they are tried in turn, and not for every order."""

    async def story() -> None:
        async with (
            shadow_that("closes") as shadow,
            between(TAKEN, redis_url=shadow.url) as (front, _),
            shipping_of(front),
        ):
            await trade(front, 1_000)
            assert shadow.connections < 100

    run(story())


SECRETS = [
    ("Authorization", "Bearer sesame"),
    ("Cookie", "session=sesame"),
    ("X-Api-Key", "sesame"),
    ("Proxy-Authorization", "Basic sesame"),
]


def test_t34_secrets_are_in_no_capture() -> None:
    said = response(b"{}", "201 Created", b"Set-Cookie: session=sesame", b"X-Secret: sesame")

    async def story() -> None:
        async with between(said) as (front, monolith):
            client = await front.client()
            await client.send(order(ORDER, *SECRETS))
            assert b"sesame" in await client.response()
            assert b"Cookie: session=sesame" in monolith.requests[0]
            (capture,) = await captures_of(front, 1)
            assert b"sesame" not in msgspec.msgpack.encode(capture)

    run(story())
