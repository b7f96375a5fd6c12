"""Clients that are slow on purpose; monoliths that say too much, too little, or nothing useful."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

import pytest
from plane_rig import bounds
from proxy_rig import Client, Visit, between, request, response, run
from trap_rig import (
    TAKEN,
    breaks_off,
    order,
    trade,
)


async def _trickles(client: Client, data: bytes) -> None:
    for at in range(len(data)):
        await client.send(data[at : at + 1])
        await asyncio.sleep(0.005)


def test_a_slow_loris_has_its_time_for_a_head_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then does not win it more."""
    bounds(monkeypatch, CLIENT_HEAD_S=0.3)

    async def story() -> None:
        async with between(TAKEN) as (front, monolith):
            client = await front.client()
            endless = b"GET / HTTP/1.1\r\nHost: h\r\n" + b"X-A: 1\r\n" * 10_000
            trickling = asyncio.create_task(_trickles(client, endless))
            with suppress(ConnectionError):
                got = await client.rest()
                assert got.startswith(b"HTTP/1.1 408 ")
            trickling.cancel()
            await asyncio.gather(trickling, return_exceptions=True)
            assert monolith.requests == []

    run(story())


def test_many_slow_lorises_keep_nobody_waiting() -> None:
    async def story() -> None:
        async with between(TAKEN) as (front, _):
            for n in range(300):
                lazy = await front.client()
                await lazy.send(
                    (b"GET / HTTP/1.1\r\nHost: h\r\nX: ", order()[: -1 - n % 60])[n % 2]
                )
            await trade(front, 50)

    run(story())


def _chunks_of(sizes: Sequence[int]) -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in sizes)


@pytest.mark.parametrize(
    ("said", "gets"),
    [
        pytest.param(response(b"ok") + b"more" * 100_000, response(b"ok"), id="much too much"),
        pytest.param(response(b"ok") + response(b"again"), response(b"ok"), id="another answer"),
        pytest.param(b"HTTP/1.1 100 C\r\n\r\n" * 5, b" 502 ", id="nothing but 1xx"),
        pytest.param(b"\0" * 100_000, b" 502 ", id="zeros"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"X: 1\r\n" * 20_000, b" 502 ", id="endless fields"),
    ],
)
def test_a_monolith_that_says_too_much_or_nothing_useful(said: bytes, gets: bytes) -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.answer(said)

    async def story() -> None:
        async with between(monolith) as (front, script):
            for n in range(1, 3):  # nothing is left of it for the next one
                client = await front.client()
                await client.send(request())
                got = await client.response()
                while b" 100 " in got[:14]:
                    got = await client.response()
                assert got == gets or gets in got[:14]
                assert script.connections == n

    run(story())


@pytest.mark.parametrize("after", [1, 3, 40])
def test_a_monolith_that_says_too_little_is_not_completed(after: int) -> None:
    """The client sees a broken answer, not one that ends well."""
    said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + _chunks_of([after] * after)

    async def story() -> None:
        async with between(breaks_off(said)) as (front, _):  # type: ignore[arg-type]
            client = await front.client()
            await client.send(request())
            got = b""
            with suppress(ConnectionError):
                got = await client.rest()
            assert not got.endswith(b"0\r\n\r\n")

    run(story())
