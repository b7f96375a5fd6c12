"""TLS between clients and the proxy: the same service, and files that don't do are named."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from certificates import Authority
from plane_rig import bounds
from proxy_rig import Visit, between, request, response, run, until

from bridge.config import ProxyTls
from bridge.errors import ConfigError
from bridge.proxy.listening import listening_socket
from bridge.proxy.plane.tls import server_context


class Made:
    def __init__(self, directory: Path) -> None:
        authority = Authority(directory)
        certificate, key = authority.sign("proxy", alternatives="DNS:localhost")
        self.tls = ProxyTls(certificate=str(certificate), key=str(key))
        self.trust = ssl.create_default_context(cafile=str(authority.certificate))
        self.trust.set_alpn_protocols(["h2", "http/1.1"])
        self.other_key = str(authority.sign("other")[1])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("certificates"))


def test_requests_are_answered_and_the_monolith_knows_how_they_came(made: Made) -> None:
    async def story() -> None:
        async with between(response(b"x"), tls=made.tls) as (front, monolith):
            client = await front.client(made.trust)
            for _ in range(2):
                assert await client.ask(request()) == response(b"x")
            given = request(fields=[("X-Forwarded-Proto", "http")])
            assert await client.ask(given) == response(b"x")
            first, _, third = monolith.requests
            assert b"\r\nX-Forwarded-Proto: https\r\n" in first
            assert third.count(b"X-Forwarded-Proto") == 1
            assert b"\r\nX-Forwarded-Proto: http\r\n" in third
            assert b"\r\nX-Forwarded-For: 127.0.0.1\r\n" in first
            negotiated = client.writer.get_extra_info("ssl_object").selected_alpn_protocol()
            assert negotiated == "http/1.1"

    run(story())


def test_without_tls_nothing_is_said_of_it() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            await (await front.client()).ask(request())
            assert b"X-Forwarded-Proto" not in monolith.requests[0]

    run(story())


def test_large_bodies_pass_both_ways(made: Made) -> None:
    body = b"x" * 3_000_000

    def echo(sent: bytes) -> bytes:
        return response(sent.partition(b"\r\n\r\n")[2])

    async def story() -> None:
        async with between(echo, tls=made.tls) as (front, _):
            client = await front.client(made.trust)
            assert await client.ask(request("PUT", "/", body)) == response(body)

    run(story())


def test_a_client_that_speaks_no_tls_is_let_go(made: Made) -> None:
    async def story() -> None:
        async with between(response(b"x"), tls=made.tls) as (front, monolith):
            plain = await front.client()
            await plain.send(request())
            with contextlib.suppress(ConnectionError):
                assert not (await plain.rest()).startswith(b"HTTP")
            assert await (await front.client(made.trust)).ask(request()) == response(b"x")
            assert len(monolith.requests) == 1

    run(story())


@pytest.mark.one_plane("no proxy in it")
def test_old_versions_are_refused(made: Made) -> None:
    context = server_context(made.tls)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


def test_a_handshake_has_its_time_and_counts_as_a_client(
    made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds(monkeypatch, CLIENTS_MAX=2, TLS_HANDSHAKE_S=0.3)

    async def story() -> None:
        async with between(response(b"x"), tls=made.tls) as (front, _):
            silent = [await front.client() for _ in range(2)]
            with pytest.raises((ConnectionError, ssl.SSLError)):
                await front.client(made.trust)
            for client in silent:
                assert await client.rest() == b""
            assert await (await front.client(made.trust)).ask(request()) == response(b"x")

    run(story())


def test_a_refusal_arrives_whole(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with between(response(b"x"), tls=made.tls) as (front, _):
            client = await front.client(made.trust)
            await client.send(b"GET / HTTP/9.9\r\n\r\n" + b"x" * 1000)
            got = await client.rest()
            assert got.startswith(b"HTTP/1.1 505 ")
            assert got.endswith(b"}")

    run(story())
    assert caplog.text == ""


def test_switched_protocols_pass_unread(made: Made) -> None:
    async def echo(visit: Visit) -> None:
        await visit.request()
        await visit.answer(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n")
        while data := await visit.reader.read(65_536):
            await visit.answer(data)

    async def story() -> None:
        async with between(echo, tls=made.tls) as (front, _):
            client = await front.client(made.trust)
            await client.send(request(fields=[("Connection", "Upgrade"), ("Upgrade", "x")]))
            await client.response()
            for size in (1, 1_000_000):
                await client.send(b"y" * size)
                assert await client.reader.readexactly(size) == b"y" * size
            client.close()
            await until(lambda: not front.server.clients)

    run(story())


def test_stopping_lets_what_is_under_way_finish(made: Made) -> None:
    go_on = asyncio.Event()
    came = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        came.set()
        await go_on.wait()
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith, tls=made.tls) as (front, _):
            busy, idle = await front.client(made.trust), await front.client(made.trust)
            await busy.send(request())
            await came.wait()
            stopping = asyncio.create_task(front.server.stop())
            assert await idle.rest() == b""
            with pytest.raises(ConnectionRefusedError):
                await front.client(made.trust)
            go_on.set()
            assert (await busy.rest()).endswith(b"\r\nConnection: close\r\n\r\nx")
            await stopping

    run(story())


@pytest.mark.one_plane("no proxy in it")
def test_files_that_don_t_do_are_named(made: Made, tmp_path: Path) -> None:
    certificate, key = made.tls.certificate, made.tls.key
    text, locked = tmp_path / "text.pem", tmp_path / "locked.key"
    text.write_text("not PEM")
    subprocess.run(
        ["openssl", "ec", "-in", key, "-out", locked, "-aes128", "-passout", "pass:secret"],
        check=True,
        capture_output=True,
    )
    missing = str(tmp_path / "missing.pem")
    for tls, named in (
        (ProxyTls(certificate=missing, key=key), "proxy.tls.certificate: .*missing.pem"),
        (ProxyTls(certificate=certificate, key=missing), "proxy.tls.key: .*missing.pem"),
        (ProxyTls(certificate=str(text), key=key), "text.pem"),
        (ProxyTls(certificate=certificate, key=made.other_key), "other.key"),
        (ProxyTls(certificate=certificate, key=str(locked)), "locked.key.*without a password"),
    ):
        with pytest.raises(ConfigError, match=named):
            server_context(tls)
    assert server_context(ProxyTls()) is None


@pytest.mark.parametrize("with_tls", [False, True])
def test_the_socket_that_is_shared_stays_open(
    with_tls: bool, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that stops closes its own descriptor of it; the master's lives on."""
    shared: list[socket.socket] = []

    def listening(host: str, port: int) -> socket.socket:
        bound = listening_socket(host, port)
        shared.append(bound.dup())
        return bound

    monkeypatch.setattr("proxy_rig.listening_socket", listening)

    async def story() -> None:
        tls = made.tls if with_tls else ProxyTls()
        async with between(response(b"x"), tls=tls) as (front, _):
            await front.server.stop(idle_s=0.0)
            client = await front.client()
            await client.send(request())
            accepted, _ = await asyncio.get_running_loop().sock_accept(shared[0])
            with accepted:
                assert accepted.recv(10) == b"GET / HTTP"
            shared[0].close()

    run(story())
