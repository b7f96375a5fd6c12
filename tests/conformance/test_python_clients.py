"""http.client, urllib, requests and aiohttp, before aiohttp.web and http.server: nobody notices."""

from __future__ import annotations

import asyncio
import http.client
from functools import partial

import aiohttp
import pytest
import requests
from clients import ASKS, CLIENTS, PATIENCE_S, by_http_client
from compare import Got, assert_alike
from peers import LARGE, PIECES, Peer
from running_proxy import Proxy


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_and_a_server_see_the_same_as_without_a_proxy(
    client: str, peer: Peer, proxy: Proxy
) -> None:
    through = assert_alike(partial(CLIENTS[client], asks=ASKS), peer, proxy.port)
    assert len(through.server) >= len(ASKS)
    bodies = [one.body for one in through.client]
    assert LARGE in bodies
    assert b"".join(PIECES) in bodies
    assert LARGE in [one.body for one in through.server]


def test_one_connection_carries_all(
    peer: Peer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """http.client opens another one only when it was told that the old one ends."""
    opened: list[int] = []
    connect = http.client.HTTPConnection.connect

    def counted(self: http.client.HTTPConnection) -> None:
        opened.append(self.port)
        connect(self)

    monkeypatch.setattr(http.client.HTTPConnection, "connect", counted)
    asks = [ask for ask in ASKS if ask.target != "/until-close"]
    assert len(by_http_client(proxy.port, asks)) == len(asks)
    assert opened == [proxy.port]


def test_a_form_with_a_file(peer: Peer, proxy: Proxy) -> None:
    files = {"file": ("large.bin", LARGE), "note": (None, "ü")}
    form = requests.Request("POST", "http://127.0.0.1/upload", files=files).prepare()

    def story(port: int) -> list[Got]:
        form.url = f"http://127.0.0.1:{port}/upload"
        with requests.Session() as session:
            answer = session.send(form, timeout=PATIENCE_S)
        return [Got(status=answer.status_code, body=answer.content)]

    through = assert_alike(story, peer, proxy.port)
    assert through.client[0].body == form.body


def test_events_arrive_one_by_one(peer: Peer, proxy: Proxy) -> None:
    """Each one is written only once the one before has been read."""

    async def read(port: int) -> list[bytes]:
        told = []
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/events") as answer:
                for _ in range(3):
                    peer.allow()
                    told.append(await answer.content.readuntil(b"\n\n"))
                assert await answer.content.read() == b""
        return told

    def story(port: int) -> list[Got]:
        told = asyncio.run(asyncio.wait_for(read(port), PATIENCE_S))
        return [Got(status=200, body=one) for one in told]

    through = assert_alike(story, peer, proxy.port)
    assert [one.body for one in through.client] == [
        b"event: trade\ndata: %d\n\n" % number for number in range(3)
    ]


def test_many_connections_at_once(peer: Peer, proxy: Proxy) -> None:
    """Each client gets its own answer."""

    async def ask(port: int) -> list[bytes]:
        async with aiohttp.ClientSession() as session:

            async def one(number: int) -> bytes:
                body = b"%d " % number * 2000
                async with session.put(f"http://127.0.0.1:{port}/echo", data=body) as answer:
                    return await answer.read()

            return await asyncio.gather(*map(one, range(200)))

    told = asyncio.run(asyncio.wait_for(ask(proxy.port), PATIENCE_S))
    assert told == [b"%d " % number * 2000 for number in range(200)]
