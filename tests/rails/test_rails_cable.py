"""ActionCable through the proxy: a socket that Rails takes over, its subprotocol and Origin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import requests
from running_proxy import Proxy
from running_rails import Rails
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

PATIENCE_S = 20.0
PROTOCOL = Subprotocol("actioncable-v1-json")

pytestmark = pytest.mark.parametrize("upstream", ["tcp", "unix"], indirect=True)


@contextmanager
def cable(port: int, *, origin: str = "", visitor: str = "ada") -> Iterator[ClientConnection]:
    with connect(
        f"ws://127.0.0.1:{port}/cable?visitor={visitor}",
        subprotocols=[PROTOCOL],
        origin=Origin(origin or f"http://127.0.0.1:{port}"),
        proxy=None,
    ) as socket:
        yield socket


def heard(socket: ClientConnection, *, pings: bool = False) -> Any:
    """The next message; pings of the server come in between."""
    while True:
        told = json.loads(socket.recv(PATIENCE_S))
        if (told.get("type") == "ping") == pings:
            return told


def command(socket: ClientConnection, word: str, market: str, **more: str) -> str:
    identifier = json.dumps({"channel": "MarketChannel", "market": market})
    socket.send(json.dumps({"command": word, "identifier": identifier, **more}))
    return identifier


def test_subscribe_broadcast_and_speak(proxy: Proxy) -> None:
    with cable(proxy.port) as socket:
        assert socket.subprotocol == PROTOCOL
        assert heard(socket) == {"type": "welcome"}
        market = command(socket, "subscribe", "BTC-USD")
        assert heard(socket) == {"identifier": market, "type": "confirm_subscription"}
        sent = {"market": "BTC-USD", "text": "ü" * 5000}
        url = f"http://127.0.0.1:{proxy.port}/broadcasts"
        requests.post(url, data=sent, timeout=PATIENCE_S).raise_for_status()
        assert heard(socket) == {"identifier": market, "message": {"text": sent["text"]}}
        command(socket, "message", "BTC-USD", data=json.dumps({"action": "echo", "text": "hello"}))
        told = {"visitor": "ada", "text": "hello"}
        assert heard(socket) == {"identifier": market, "message": told}
        refused = command(socket, "subscribe", "")
        assert heard(socket) == {"identifier": refused, "type": "reject_subscription"}
        assert heard(socket, pings=True)["type"] == "ping"


def test_a_foreign_origin_is_refused_by_rails(rails: Rails, proxy: Proxy) -> None:
    """It compares Origin with Host, so Host must have come through as it was."""
    answers = []
    for port in (rails.port, proxy.port):
        with pytest.raises(InvalidStatus) as refused:
            with cable(port, origin="http://elsewhere.test"):
                pass
        answer = refused.value.response
        answers.append((answer.status_code, answer.reason_phrase, answer.body))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404
    with pytest.raises(InvalidStatus):  # of the proxy's address Rails knows nothing
        with cable(proxy.port, origin=f"http://127.0.0.1:{rails.port}"):
            pass


def test_who_is_not_let_in_is_told_and_left(rails: Rails, proxy: Proxy) -> None:
    told = []
    for port in (rails.port, proxy.port):
        with cable(port, visitor="") as socket:
            said = heard(socket)
            with pytest.raises(ConnectionClosed):
                socket.recv(PATIENCE_S)
            told.append((said, socket.close_code, socket.close_reason))
    assert told[0] == told[1]
    assert told[0][0] == {"type": "disconnect", "reason": "unauthorized", "reconnect": False}


def test_news_reach_all_subscribers(proxy: Proxy) -> None:
    with cable(proxy.port) as first, cable(proxy.port, visitor="bob") as second:
        for socket in (first, second):
            command(socket, "subscribe", "ETH-USD")
            assert [heard(socket)["type"] for _ in range(2)] == ["welcome", "confirm_subscription"]
        for number in range(20):
            sent = {"market": "ETH-USD", "text": str(number)}
            url = f"http://127.0.0.1:{proxy.port}/broadcasts"
            requests.post(url, data=sent, timeout=PATIENCE_S).raise_for_status()
        for socket in (first, second):
            texts = [heard(socket)["message"]["text"] for _ in range(20)]
            assert sorted(texts, key=int) == [str(number) for number in range(20)]
