"""Chromium before aiohttp.web and http.server: fetch, forms, events and a WebSocket."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from compare import Got, Story, assert_alike, values
from peers import LARGE, TEXT, AioPeer, Peer
from running_browser import Browser, browser
from running_proxy import Proxy

__all__ = ["browser"]

FETCHES = """
const told = [];
async function ask(target, options) {
  const answer = await fetch(target, options);
  const body = [...new Uint8Array(await answer.arrayBuffer())];
  told.push({ status: answer.status, fields: [...answer.headers], size: body.length,
              sum: body.reduce((sum, byte, place) => (sum * 31 + byte) % 1000003, 7),
              url: new URL(answer.url).pathname });
}
await ask("/text?a=1&b=%2F");
await ask("/text", { method: "HEAD" });
await ask("/large");
await ask("/pieces");
await ask("/compressed");
await ask("/cookies", { credentials: "include" });
await ask("/text?with=cookies");
await ask("/redirect");
await ask("/status/204");
await ask("/status/422", { method: "POST", body: "{}" });
const json = { "Content-Type": "application/json" };
await ask("/api/v1/orders", { method: "POST", headers: json, body: '{"order":{"price":"1"}}' });
await ask("/api/v1/orders/7", { method: "DELETE" });
await ask("/echo", { method: "PUT", body: new Uint8Array(3000000).map((_, place) => place) });
const form = new FormData();
form.append("note", "ü");
await ask("/echo", { method: "PATCH", body: new URLSearchParams(form) });
await ask("/file", { headers: { Range: "bytes=10-29" } });
return told;
"""

EVENTS = """
const told = [];
const source = new EventSource("/events");
await new Promise((done, failed) => {
  source.onerror = failed;
  source.onopen = () => fetch("/allow", { method: "POST" });
  source.addEventListener("trade", (event) => {
    told.push(event.data);
    told.length < 3 ? fetch("/allow", { method: "POST" }) : done();
  });
});
source.close();
return told;
"""

SOCKET = """
const told = [];
const socket = new WebSocket(`ws://${location.host}/socket`, ["actioncable-v1-json", "other"]);
socket.binaryType = "arraybuffer";
await new Promise((opened, failed) => { socket.onopen = opened; socket.onerror = failed; });
told.push(socket.protocol, socket.extensions);
async function exchange(message) {
  const heard = new Promise((done) => { socket.onmessage = (event) => done(event.data); });
  socket.send(message);
  return heard;
}
told.push(await exchange("ü"));
told.push((await exchange("x".repeat(200000))).length);
const sent = new Uint8Array(100000).map((_, place) => place * place);
const back = new Uint8Array(await exchange(sent));
told.push(back.every((byte, place) => byte === sent[place]));
const closed = new Promise((done) => {
  socket.onclose = (event) => done([event.code, event.wasClean]);
});
socket.close(3001, "enough");
told.push(...await closed);
return told;
"""


def story(browser: Browser, script: str) -> Story:
    """What the script returns, one Got for each element."""

    def run(port: int) -> list[Got]:
        told: list[Any] = asyncio.run(browser.run(f"http://127.0.0.1:{port}/page", script))
        return [Got(status=200, body=repr(_clockless(one)).encode()) for one in told]

    return run


def _clockless(one: Any) -> Any:
    if isinstance(one, dict):
        return one | {"fields": [pair for pair in one["fields"] if pair[0] != "date"]}
    return one


def test_fetch_sees_the_same_as_without_a_proxy(browser: Browser, peer: Peer, proxy: Proxy) -> None:
    through = assert_alike(story(browser, FETCHES), peer, proxy.port)
    assert b"'size': %d" % len(LARGE) in through.client[2].body
    assert b"'size': %d" % len(TEXT) in through.client[4].body  # unpacked by the browser
    by_target = {came.target: came for came in through.server}
    assert values(by_target["/text?with=cookies"], "cookie") == ["a=1; b=2"]
    assert values(by_target["/api/v1/orders/7"], "origin") == ["http://127.0.0.1:PORT"]
    assert values(by_target["/api/v1/orders/7"], "sec-fetch-site") == ["same-origin"]
    assert [len(came.body) for came in through.server if came.target == "/echo"] == [3_000_000, 11]


def test_events_arrive_one_by_one(browser: Browser, peer: Peer, proxy: Proxy) -> None:
    """The page allows each one only when it has the one before."""
    through = assert_alike(story(browser, EVENTS), peer, proxy.port)
    assert [got.body for got in through.client] == [b"'0'", b"'1'", b"'2'"]


def test_a_form_that_deletes(browser: Browser, peer: Peer, proxy: Proxy) -> None:
    """Rails' way: a POST with `_method`, answered by See Other."""

    async def submitted(port: int) -> str:
        async with browser.page(f"http://127.0.0.1:{port}/page") as page:
            return await page.submit("form")

    def run(port: int) -> list[Got]:
        return [Got(status=200, body=asyncio.run(submitted(port)).encode())]

    through = assert_alike(run, peer, proxy.port)
    assert [(came.method, came.target) for came in through.server] == [
        ("GET", "/page"),
        ("POST", "/see-other"),
        ("GET", "/page?from=form"),
    ]
    assert through.server[1].body == b"_method=delete&note=%C3%BC"


@pytest.mark.parametrize("peer", [AioPeer], indirect=True, ids=["aiohttp.web"])
def test_a_web_socket(browser: Browser, peer: Peer, proxy: Proxy) -> None:
    """With its subprotocol and its compression."""
    through = assert_alike(story(browser, SOCKET), peer, proxy.port)
    told = [got.body.decode() for got in through.client]
    assert told[0] == "'actioncable-v1-json'"
    assert "permessage-deflate" in told[1]
    # aiohttp.web closes with 1000, whatever it was told
    assert told[2:] == ["'ü'", "200000", "True", "1000", "True"]
    (came,) = (one for one in through.server if one.target == "/socket")
    assert values(came, "origin") == ["http://127.0.0.1:PORT"]
    assert values(came, "upgrade") == ["websocket"]
