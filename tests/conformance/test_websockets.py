"""The `websockets` package on both sides of the proxy, and aiohttp's client before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
from running_proxy import Proxy, Services, plane, running_proxy, services
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.http11 import Request, Response
from websockets.sync.client import connect
from websockets.sync.server import Server, ServerConnection, serve
from websockets.typing import Origin, Subprotocol

__all__ = ["plane", "services"]

PATIENCE_S = 20.0
PROTOCOL = Subprotocol("actioncable-v1-json")
LARGE = bytes(range(256)) * 8000
ADDED = {"x-forwarded-for", "x-request-id"}
OF_THE_HANDSHAKE = {"sec-websocket-key", "host", "connection", "date", "sec-websocket-accept"}


class Peer:
    """Echoes; "leave" makes it close with a reason of its own, "drop" without a farewell."""

    def __init__(self, server: Server, paths: list[Request]) -> None:
        self.port = int(server.socket.getsockname()[1])
        self.came = paths


@pytest.fixture(scope="module")
def sockets() -> Iterator[Peer]:
    came: list[Request] = []

    def refuse(connection: ServerConnection, request: Request) -> Response | None:
        came.append(request)
        return connection.respond(403, "not you\n") if request.path == "/refuse" else None

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            if message == "leave":
                connection.close(4001, "as asked")
            elif message == "drop":
                connection.socket.close()
            else:
                connection.send(message)

    with serve(
        echo, "127.0.0.1", 0, process_request=refuse, subprotocols=[PROTOCOL], max_size=None
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Peer(server, came)
        server.shutdown()
        thread.join(PATIENCE_S)


@pytest.fixture(scope="module")
def proxied(
    sockets: Peer, plane: str, services: Services, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    directory: Path = tmp_path_factory.mktemp("proxy")
    with running_proxy(services, f"http://127.0.0.1:{sockets.port}", plane, directory) as running:
        yield running


class Talk(msgspec.Struct, frozen=True, kw_only=True):
    protocol: str | None
    answer: list[tuple[str, str]]
    asked: list[tuple[str, str]]
    heard: list[str | bytes]
    close: tuple[int | None, str | None]


def talk(port: int, sockets: Peer) -> Talk:
    messages: list[str | bytes] = ["ü", "", LARGE, "x" * 300_000, b"\x00"]
    with connect(
        f"ws://127.0.0.1:{port}/cable?a=1",
        subprotocols=[PROTOCOL],
        origin=Origin("http://exchange.test"),
        additional_headers={"Cookie": "a=1"},
        max_size=None,
        proxy=None,
    ) as socket:
        heard = []
        for message in messages:
            socket.send(message)
            heard.append(socket.recv(PATIENCE_S))
        assert socket.ping().wait(PATIENCE_S)
        socket.send("leave")
        with pytest.raises(ConnectionClosedError):
            socket.recv(PATIENCE_S)
        assert heard == messages
        assert socket.response is not None
        return Talk(
            protocol=socket.subprotocol,
            answer=_told(socket.response),
            asked=_told(sockets.came[-1]),
            heard=heard,
            close=(socket.close_code, socket.close_reason),
        )


def _told(message: Request | Response) -> list[tuple[str, str]]:
    pairs = message.headers.raw_items()
    return [(name, value) for name, value in pairs if name.lower() not in OF_THE_HANDSHAKE]


def test_both_sides_see_the_same_as_without_a_proxy(sockets: Peer, proxied: Proxy) -> None:
    direct, through = talk(sockets.port, sockets), talk(proxied.port, sockets)
    added = [one for one in through.asked if one[0].lower() in ADDED]
    assert {name.lower() for name, _ in added} == ADDED
    kept = [one for one in through.asked if one not in added]
    assert kept == direct.asked
    assert msgspec.structs.replace(through, asked=kept) == direct
    assert through.protocol == PROTOCOL
    assert through.close == (4001, "as asked")
    assert any("permessage-deflate" in value for _, value in through.answer)


def test_a_refusal_is_an_answer_as_any_other(sockets: Peer, proxied: Proxy) -> None:
    told = []
    for port in (sockets.port, proxied.port):
        with pytest.raises(InvalidStatus) as refused:
            connect(f"ws://127.0.0.1:{port}/refuse", proxy=None)
        answer = refused.value.response
        told.append((answer.status_code, answer.reason_phrase, answer.body, _told(answer)))
    assert told[0] == told[1]


def test_a_connection_that_breaks_breaks_for_the_client(sockets: Peer, proxied: Proxy) -> None:
    for port in (sockets.port, proxied.port):
        with connect(f"ws://127.0.0.1:{port}/", subprotocols=[PROTOCOL], proxy=None) as socket:
            socket.send("drop")
            with pytest.raises(ConnectionClosedError):
                socket.recv(PATIENCE_S)
            assert socket.close_code == 1006


def test_many_sockets_at_once_with_aiohttp(sockets: Peer, proxied: Proxy) -> None:
    async def one(session: aiohttp.ClientSession, number: int) -> list[str]:
        url = f"ws://127.0.0.1:{proxied.port}/"
        async with session.ws_connect(url, protocols=[PROTOCOL], compress=15) as socket:
            heard = []
            for turn in range(10):
                await socket.send_str(f"{number} {turn}")
                heard.append(await socket.receive_str())
        return heard

    async def all_of_them() -> list[list[str]]:
        async with aiohttp.ClientSession() as session:
            return await asyncio.gather(*(one(session, number) for number in range(50)))

    told = asyncio.run(asyncio.wait_for(all_of_them(), PATIENCE_S))
    assert told == [[f"{number} {turn}" for turn in range(10)] for number in range(50)]
