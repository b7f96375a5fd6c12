"""Several upstreams: who gets a request, who is left out, and that none is ever sent twice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from plane_rig import bounds
from proxy_rig import Client, Front, Monolith, Visit, request, response, run, until

from bridge.config import HealthConfig
from bridge.proxy.plane.upstream import Address

ORDER = request("POST", "/api/v1/orders", b"{}")
ASKED = HealthConfig(path="/up", interval_ms=10, timeout_ms=2000, fall=2, rise=2)
CONNECTED = HealthConfig(interval_ms=10, fall=2, rise=2)


@contextlib.asynccontextmanager
async def fronted(
    *monoliths: Monolith, **options: Any
) -> AsyncIterator[tuple[Front, list[Client]]]:
    """A proxy in front of them, and clients to ask it with."""
    async with contextlib.AsyncExitStack() as stack:
        for monolith in monoliths:
            await stack.enter_async_context(monolith)
        upstreams = [monolith.upstream for monolith in monoliths]
        front = await stack.enter_async_context(Front(*upstreams, **options))
        yield front, [await front.client() for _ in range(6)]


class Held:
    """Answers all requests once it is told to."""

    def __init__(self) -> None:
        self.requests = 0
        self.go_on = asyncio.Event()
        self.monolith = Monolith(self._answer)

    async def _answer(self, visit: Visit) -> None:
        while True:
            await visit.request()
            self.requests += 1
            await self.go_on.wait()
            await visit.answer(response(b"x"))


@contextlib.contextmanager
def unanswered() -> Iterator[str]:
    """An address whose connections are never accepted, and never refused."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        for _ in range(2):
            filling = stack.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


def test_a_request_goes_where_the_fewest_are_under_way() -> None:
    async def story() -> None:
        one, other = Held(), Held()
        async with fronted(one.monolith, other.monolith) as (_, clients):
            for client in clients[:4]:
                await client.send(request())
            await until(lambda: one.requests == other.requests == 2)
            one.go_on.set()
            answers = [asyncio.create_task(client.response()) for client in clients[:4]]
            await until(lambda: sum(answer.done() for answer in answers) == 2)
            for client in clients[4:]:
                await client.send(request())
            await until(lambda: one.requests == 4)
            other.go_on.set()
            answers += [asyncio.create_task(client.response()) for client in clients[4:]]
            assert await asyncio.gather(*answers) == [response(b"x")] * 6
            assert other.requests == 2

    run(story())


def test_among_equals_it_goes_round() -> None:
    async def story() -> None:
        three = [Monolith(response(b"%d" % n)) for n in range(3)]
        async with fronted(*three) as (_, clients):
            got = [await clients[0].ask(request()) for _ in range(9)]
            assert sorted(got) == sorted(response(b"%d" % n) for n in (0, 1, 2) * 3)

    run(story())


def test_a_unix_socket_is_an_upstream(tmp_path: Path) -> None:
    async def story() -> None:
        monolith = Monolith(response(b"x"))
        monolith.path = tmp_path / "puma.sock"
        async with fronted(monolith) as (_, clients):
            for _ in range(3):
                assert await clients[0].ask(request()) == response(b"x")
            await clients[1].send(b"GET / HTTP/1.0\r\n\r\n")
            await clients[1].rest()
            assert b"\r\nHost: localhost\r\n" in monolith.requests[-1]
            assert monolith.connections == 1

    run(story())


@pytest.mark.parametrize("path", [False, True])
def test_an_upstream_that_can_t_be_reached_costs_no_request(path: bool, tmp_path: Path) -> None:
    async def story() -> None:
        there = Monolith(response(b"x", "201 Created"))
        away = f"unix:{tmp_path / 'nothing'}" if path else "http://127.0.0.1:1"
        health = HealthConfig(fall=3, interval_ms=60_000)
        async with there, Front(away, there.upstream, health=health) as front:
            client = await front.client()
            for _ in range(10):
                assert (await client.ask(ORDER)).startswith(b"HTTP/1.1 201 ")
            assert len(there.requests) == 10
            await until(lambda: front.tee.captured == 10)
            await until(lambda: front.server.upstreams_down == (away,))

    run(story())


def test_one_that_accepts_no_connections_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, UPSTREAM_CONNECT_S=0.1)

    async def story() -> None:
        there = Monolith(response(b"x"))
        with unanswered() as away:
            async with there, Front(away, there.upstream) as front:
                client = await front.client()
                for _ in range(4):
                    assert await client.ask(request()) == response(b"x")
            async with Front(away) as front:
                got = await (await front.client()).ask(request())
                assert got.startswith(b"HTTP/1.1 504 ")

    run(story())


def test_a_body_whose_first_upstream_was_away_goes_to_the_other_whole() -> None:
    body = b"x" * 300_000

    async def story() -> None:
        there = Monolith(response(b"x"))
        async with there, Front("http://127.0.0.1:1", there.upstream) as front:
            for _ in range(2):
                assert await (await front.client()).ask(request("PUT", "/", body)) == response(b"x")
            assert [one.endswith(b"\r\n\r\n" + body) for one in there.requests] == [True, True]

    run(story())


def test_what_one_upstream_has_seen_no_other_gets() -> None:
    requests: list[bytes] = []

    async def breaks(visit: Visit) -> None:
        requests.append(await visit.request())

    async def story() -> None:
        async with fronted(Monolith(breaks), Monolith(breaks)) as (_, clients):
            for n, client in enumerate(clients, 1):
                assert (await client.ask(ORDER)).startswith(b"HTTP/1.1 502 ")
                assert len(requests) == n

    run(story())


def test_when_all_are_down_all_are_tried() -> None:
    async def story() -> None:
        one, other = Monolith(response(b"1")), Monolith(response(b"2"))
        health = HealthConfig(fall=1, rise=100, interval_ms=60_000)
        async with fronted(one, other, health=health) as (front, clients):
            await one.stop()
            await other.stop()
            for client in clients[:3]:
                assert (await client.ask(request())).startswith(b"HTTP/1.1 502 ")
            both = (one.upstream, other.upstream)
            await until(lambda: front.server.upstreams_down == both)
            await other.start()
            for client in clients[3:]:
                assert await client.ask(request()) == response(b"2")

    run(story())


def test_nobody_waits_for_an_upstream_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those in line for a connection are told at once too."""
    tries = 0
    connect = Address.connect

    async def counted(address: Address, protocol: Any) -> Any:
        nonlocal tries
        tries += 1
        return await connect(address, protocol)

    async def story() -> None:
        held = Held()
        options: dict[str, Any] = {"upstream_connections_max": 1}
        async with fronted(held.monolith, health=HealthConfig(fall=1), **options) as (
            front,
            clients,
        ):
            for client in clients:
                await client.send(request())
            await until(lambda: held.requests and front.server.requests == len(clients))
            monkeypatch.setattr(Address, "connect", counted)
            await held.monolith.stop()
            for client in clients:
                assert (await client.response()).startswith(b"HTTP/1.1 502 ")
            if front.plane == "python":  # the other one's can't be counted
                assert tries == 1

    run(story())


def test_an_upstream_is_asked_and_left_out_while_it_is_ill() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    health = hints + response(b"ill", "500 Internal Server Error")
    asked: list[bytes] = []

    def ill(sent: bytes) -> bytes:
        if not sent.startswith(b"GET /up "):
            return response(b"ill one")
        asked.append(sent)
        return health

    async def story() -> None:
        nonlocal health
        one, well = Monolith(ill), Monolith(response(b"well"))
        async with fronted(one, well, health=ASKED) as (front, clients):
            await until(lambda: front.server.upstreams_down == (one.upstream,))
            for client in clients:
                assert await client.ask(request()) == response(b"well")
            host = b"\r\nHost: 127.0.0.1:%d\r\n" % one.port
            assert all(host in sent and b"\r\nConnection: close\r\n" in sent for sent in asked)
            health = hints + response(b"", "404 Not Found")
            await until(lambda: not front.server.upstreams_down)
            got = {await client.ask(request()) for client in clients}
            assert got == {response(b"well"), response(b"ill one")}

    run(story())


@pytest.mark.parametrize("answer", [b"", b"nonsense\r\n\r\n"])
def test_an_upstream_that_is_silent_or_speaks_no_http_is_ill(answer: bytes) -> None:
    async def ill(visit: Visit) -> None:
        await visit.request()
        await visit.answer(answer)
        await visit.reader.read()

    async def story() -> None:
        asked = HealthConfig(path="/up", interval_ms=10, timeout_ms=50, fall=2, rise=2)
        one = Monolith(ill)
        async with fronted(one, Monolith(response(b"x")), health=asked) as (front, _):
            await until(lambda: front.server.upstreams_down == (one.upstream,))

    run(story())


def test_a_good_connection_does_not_make_an_ill_upstream_well() -> None:
    """Puma accepts connections while the application behind it can't answer."""

    def ill(sent: bytes) -> bytes:
        status = "503 Service Unavailable" if sent.startswith(b"GET /up ") else "200 OK"
        return response(b"x", status, b"Connection: close")

    async def story() -> None:
        async with fronted(Monolith(ill), health=ASKED) as (front, clients):
            await until(lambda: front.server.upstreams_down)
            for client in clients:
                await client.ask(request())
            await front.looks(0.0)
            assert front.server.upstreams_down

    run(story())


def test_without_a_path_one_that_was_away_comes_back_by_itself() -> None:
    async def story() -> None:
        one, other = Monolith(response(b"1")), Monolith(response(b"2"))
        async with fronted(one, other, health=CONNECTED) as (front, clients):
            await one.stop()
            for client in clients:
                await client.ask(request())
            await until(lambda: front.server.upstreams_down == (one.upstream,))
            await one.start()
            await until(lambda: not front.server.upstreams_down)
            got = {await client.ask(request()) for client in clients}
            assert got == {response(b"1"), response(b"2")}

    run(story())


def test_who_waits_too_long_for_a_connection_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(monkeypatch, UPSTREAM_WAIT_S=0.1)

    async def story() -> None:
        held = Held()
        async with fronted(held.monolith, upstream_connections_max=1) as (_, clients):
            await clients[0].send(ORDER)
            await until(lambda: held.requests)
            assert (await clients[1].ask(ORDER)).startswith(b"HTTP/1.1 503 ")
            held.go_on.set()
            assert await clients[0].response() == response(b"x")
            assert held.requests == 1

    run(story())
