"""curl in front of aiohttp.web and http.server: what its options ask for comes out the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from compare import Got, Story, assert_alike, both_ways, values
from peers import LARGE, PIECES, AioPeer, Peer, StandardPeer
from programs import needed
from running_proxy import Proxy

PATIENCE_S = 20
END = b"\n--end--\n"


@pytest.fixture
def large(tmp_path: Path) -> Path:
    file = tmp_path / "large"
    file.write_bytes(LARGE)
    return file


def curl(port: int, *words: str, stdin: bytes | None = None) -> list[Got]:
    """One Got for each URL; a word that begins with "/" is a target. The field `connects` says how
    many connections the answer needed.
    """
    program = needed("curl", package="curl")
    told: list[Got] = []
    command = [program, "--silent", "--include", "--noproxy", "*", "--max-time", str(PATIENCE_S)]
    command += ["--write-out", END.decode() + "%{json}" + END.decode()]
    command += [f"http://127.0.0.1:{port}{word}" if word[:1] == "/" else word for word in words]
    done = subprocess.run(
        command, input=stdin, capture_output=True, timeout=3 * PATIENCE_S, check=False
    )
    assert done.returncode == 0, done.stderr
    parts = done.stdout.split(END)
    for shown, facts in zip(parts[::2], parts[1::2], strict=False):
        told += _answers(shown, json.loads(facts))
    assert told
    return told


def _answers(shown: bytes, facts: dict[str, object]) -> list[Got]:
    """Interim answers, redirects, and at last the answer; trailers are lines after its body."""
    told = []
    while True:
        head, _, shown = shown.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        _, status, reason = [*line.split(" ", 2), ""][:3]
        pairs = [one.partition(":")[::2] for one in lines]
        fields = tuple((name, value.strip()) for name, value in pairs)
        if not shown.startswith(b"HTTP/"):
            break
        told.append(Got(status=int(status), reason=reason, fields=fields))
    connects = ("connects", str(facts["num_connects"]))
    told.append(Got(status=int(status), reason=reason, fields=(*fields, connects), body=shown))
    return told


def story(*words: str, stdin: bytes | None = None) -> Story:
    return lambda port: curl(port, *words, stdin=stdin)


STORIES = {
    "get": story("/text?a=1"),
    "head": story("--head", "/text"),
    "three answers on one connection": story("/text", "/large", "/cookies"),
    "range": story("--range", "100-199", "/file"),
    "several ranges": story("--range", "0-9,20-29", "/file"),
    "range to the end": story("--range", "-50", "/file"),
    "not modified": story("--time-cond", "Fri, 01 Jan 2038 00:00:00 GMT", "/file"),
    "compressed": story("--compressed", "/compressed"),
    "compressed, as it comes": story("--header", "Accept-Encoding: gzip", "/compressed"),
    "chunked answer": story("/pieces"),
    "chunked answer, undecoded": story("--raw", "/pieces"),
    "answer until the end of the connection": story("/until-close"),
    "form": story("--data", "order[market]=BTC-USD&order[price]=1.5", "/api/v1/orders"),
    "form that deletes": story("--data", "_method=delete", "/api/v1/orders/7"),
    "json": story("--header", "Content-Type: application/json", "-d", '{"a":1}', "/api/v1/orders"),
    "delete": story("--request", "DELETE", "/api/v1/orders/7"),
    "chunked upload": story(
        "--header", "Transfer-Encoding: chunked", "-T", "-", "/echo", stdin=LARGE
    ),
    "redirect followed": story("--location", "/redirect"),
    "form answered by see other": story("--location", "--data", "a=1", "/see-other"),
    "cookies": story("--cookie", "a=1; b=2", "/cookies"),
    "basic authentication": story("--user", "member:secret", "/text"),
    "target as it is": story("--path-as-is", "--globoff", "/a/../b/./c?x[]=%zz"),
    "odd method": story("--request", "PATCH", "--data", "x", "/echo"),
    "wish for HTTP/2 and no more of it": story("/text", "--next", "--http1.1", "/text"),
    "asks to close": story("--header", "Connection: close", "/text"),
    "TE": story("--header", "TE: trailers", "--header", "Connection: TE", "/text"),
}


@pytest.mark.parametrize("name", STORIES)
def test_curl_sees_the_same_as_without_a_proxy(name: str, peer: Peer, proxy: Proxy) -> None:
    assert_alike(STORIES[name], peer, proxy.port)


def test_http_1_0_clients_get_unframed_bodies(peer: Peer, proxy: Proxy) -> None:
    """The monolith is asked in 1.1, so it may answer in chunks: they are taken out again."""
    for words in (("/text",), ("/pieces",), ("/until-close",), ("/large",)):
        through = assert_alike(story("--http1.0", *words), peer, proxy.port, framing=False)
        (got,) = through.client
        assert "chunked" not in [value for _, value in got.fields]


def test_an_http_1_0_client_may_keep_its_connection(peer: Peer, proxy: Proxy) -> None:
    keep = ("--http1.0", "--header", "Connection: keep-alive")
    first, second = curl(proxy.port, *keep, "/text", "/text")
    assert first.body == second.body
    assert [dict(one.fields)["connects"] for one in (first, second)] == ["1", "0"]


def test_a_large_upload_waits_for_100_continue(peer: Peer, proxy: Proxy, large: Path) -> None:
    asks = story("--header", "Expect: 100-continue", f"-T{large}", "/echo")
    through = assert_alike(asks, peer, proxy.port)
    assert [got.status for got in through.client] == [100, 200]
    assert through.client[1].body == LARGE
    assert values(through.server[0], "expect") == ["100-continue"]


@pytest.mark.parametrize("peer", [AioPeer], indirect=True, ids=["aiohttp.web"])
def test_a_refused_upload_is_never_sent(peer: Peer, proxy: Proxy, large: Path) -> None:
    """The server answers to the head alone; the peer fails if a body comes."""
    asks = story("--header", "Expect: 100-continue", f"-T{large}", "/refuse")
    direct, through = both_ways(asks, peer, proxy.port)
    for heard in (direct, through):
        assert [(got.status, got.body) for got in heard.client] == [(413, b"too much")]
        assert len(heard.server) == 1


@pytest.mark.parametrize("peer", [StandardPeer], indirect=True, ids=["http.server"])
def test_trailers_and_early_hints_come_through(peer: Peer, proxy: Proxy) -> None:
    through = assert_alike(story("/trailers"), peer, proxy.port)
    assert through.client[-1].body.startswith(b"".join(PIECES))
    raw = assert_alike(story("--raw", "/trailers"), peer, proxy.port)
    assert b"\r\n0\r\nChecksum: 17\r\nServer-Timing: total;dur=1\r\n\r\n" in raw.client[-1].body
    hints = assert_alike(story("/hints"), peer, proxy.port)
    assert [got.status for got in hints.client] == [103, 200]


@pytest.mark.parametrize("peer", [StandardPeer], indirect=True, ids=["http.server"])
def test_a_server_of_http_1_0_is_understood(peer: Peer, proxy: Proxy) -> None:
    """The client's connection may live on; the server's can't."""
    direct, through = both_ways(story("/old", "/text"), peer, proxy.port)
    assert [got.body for got in direct.client] == [got.body for got in through.client]
    assert [got.status for got in through.client] == [200, 200]
