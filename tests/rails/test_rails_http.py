"""A real Rails application behind the proxy: it and its clients are none the wiser."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from running_proxy import Proxy
from running_rails import Rails

PATIENCE_S = 30.0
MEGABYTE = 1 << 20
UPLOAD_MB = 50
HELD_BYTES_MAX = 12 * MEGABYTE
# Another one for each answer, direct or not.
OF_EACH_ANSWER = {"x-request-id", "x-runtime", "date", "set-cookie"}
CONNECTION = {"connection", "keep-alive"}

MEMBER = {"X-Member-Id": "1"}  # as the gateway in front says
ORDER = {"market": "BTC-USD", "side": "buy", "price": "100.50", "quantity": "2"}


def seen(port: int, method: str, path: str, **options: Any) -> tuple[object, ...]:
    options["headers"] = MEMBER | options.get("headers", {})
    answer = requests.request(
        method,
        f"http://127.0.0.1:{port}{path}",
        timeout=PATIENCE_S,
        allow_redirects=False,
        **options,
    )
    fields = [
        (name, value.replace(f":{port}", ":PORT"))
        for name, value in answer.raw.headers.iteritems()
        if name.lower() not in OF_EACH_ANSWER | CONNECTION
    ]
    return answer.status_code, answer.reason, fields, answer.content


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("GET", "/pieces", {}),
        ("HEAD", "/pieces", {}),
        ("GET", "/export", {}),
        ("GET", "/rates.csv", {}),
        ("GET", "/rates.csv", {"headers": {"Range": "bytes=10-99"}}),
        ("GET", "/statement?rows=100000", {}),
        ("GET", "/nothing", {}),
        ("POST", "/api/v1/orders", {"json": {"order": ORDER | {"price": "-1"}}}),
        ("POST", "/api/v1/orders", {"json": {"side": "buy", "quantity": 0}}),
        ("POST", "/api/v1/orders", {"data": {"order[market]": "BTC-USD", "order[side]": "up"}}),
        ("POST", "/api/v1/orders", {"data": b"{", "headers": {"Content-Type": "application/json"}}),
        ("POST", "/orders/1", {"data": {"_method": "delete"}}),
        ("DELETE", "/api/v1/orders/999999", {}),
        ("OPTIONS", "/api/v1/orders", {}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_answer_is_the_same_as_without_a_proxy(
    method: str, path: str, options: dict[str, object], rails: Rails, proxy: Proxy
) -> None:
    direct = seen(rails.port, method, path, **options)
    assert seen(proxy.port, method, path, **options) == direct


def test_rails_knows_who_asks_and_as_what(proxy: Proxy) -> None:
    """Its own notion of the address, of the host and of the request's id."""

    def whoami(fields: dict[str, str], source: str = "127.0.0.1") -> tuple[dict[str, str], str]:
        connection = http.client.HTTPConnection(
            "127.0.0.1", proxy.port, timeout=PATIENCE_S, source_address=(source, 0)
        )
        connection.request("GET", "/whoami", headers=fields)
        answer = connection.getresponse()
        told = json.loads(answer.read())
        connection.close()
        return told, answer.headers["X-Request-Id"]

    told, request_id = whoami({}, "127.0.0.9")
    assert told["remote_ip"] == told["forwarded_for"] == "127.0.0.9"
    assert told["base_url"] == f"http://127.0.0.1:{proxy.port}"
    assert told["version"] == "HTTP/1.1"
    assert told["request_id"] == request_id
    assert re.fullmatch(r"[0-9a-f]{32}", request_id)  # the proxy's: Rails' own have dashes
    sent = {"X-Forwarded-For": "203.0.113.9", "X-Request-Id": "mine-1", "Host": "exchange.test"}
    told, request_id = whoami(sent)
    assert told["remote_ip"] == "203.0.113.9"
    assert told["forwarded_for"] == "203.0.113.9, 127.0.0.1"
    assert told["base_url"] == "http://exchange.test"
    assert told["request_id"] == request_id == "mine-1"


def test_the_log_of_rails_has_the_id_of_the_proxy(rails: Rails, proxy: Proxy) -> None:
    answer = requests.get(f"http://127.0.0.1:{proxy.port}/whoami", timeout=PATIENCE_S)
    assert f'[{answer.headers["X-Request-Id"]}] Started GET "/whoami" for 127.0.0.1' in rails.log()


def test_an_order_lives_and_is_not_modified(proxy: Proxy) -> None:
    base = f"http://127.0.0.1:{proxy.port}"
    with requests.Session() as session:
        session.headers.update(MEMBER)
        placed = session.post(f"{base}/api/v1/orders", json=ORDER, timeout=PATIENCE_S)
        assert placed.status_code == 201
        order = placed.json()["order"]
        assert (order["price"], order["state"]) == ("100.5", "open")
        place = placed.headers["Location"]
        assert place == f"{base}/api/v1/orders/{order['id']}"
        shown = session.get(place, timeout=PATIENCE_S)
        assert shown.json()["order"] == order
        known = {"If-None-Match": shown.headers["ETag"]}
        again = session.get(place, headers=known, timeout=PATIENCE_S)
        assert (again.status_code, again.content) == (304, b"")
        assert session.delete(place, timeout=PATIENCE_S).json()["order"]["state"] == "cancelled"
        changed = session.get(place, headers=known, timeout=PATIENCE_S)
        assert (changed.status_code, changed.json()["order"]["state"]) == (200, "cancelled")


def test_a_page_with_a_session_and_protected_forms(proxy: Proxy) -> None:
    """Rails refuses the forms where Host, Origin or a cookie has been touched."""
    base = f"http://127.0.0.1:{proxy.port}"
    with requests.Session() as session:
        session.headers["Origin"] = base
        page = session.get(f"{base}/", timeout=PATIENCE_S)
        assert set(page.cookies.keys()) == {"theme", "_exchange_session"}
        form = {f"order[{name}]": value for name, value in ORDER.items()}
        data = form | token(page, "/orders")
        placed = session.post(f"{base}/orders", data=data, timeout=PATIENCE_S)
        assert placed.status_code == 200
        assert [one.status_code for one in placed.history] == [303]
        number = re.findall(r"placed=(\d+)", placed.url)[0]
        assert f"<span>{number} buy 100.5 open</span>" in placed.text
        assert '<p id="visits">2</p>' in placed.text
        place = f"/orders/{number}"
        data = {"_method": "delete"} | token(placed, place)
        gone = session.post(base + place, data=data, timeout=PATIENCE_S)
        assert f"<span>{number} buy 100.5 cancelled</span>" in gone.text
        session.headers["Origin"] = "http://elsewhere.test"
        data = form | token(gone, "/orders")
        refused = session.post(f"{base}/orders", data=data, timeout=PATIENCE_S)
        assert refused.status_code == 422


def token(page: requests.Response, action: str) -> dict[str, str]:
    """Each form has its own."""
    form = page.text.partition(f'action="{action}"')[2]
    return {"authenticity_token": re.findall(r'"authenticity_token" value="([^"]+)"', form)[0]}


def test_live_events_arrive_one_by_one(proxy: Proxy) -> None:
    """ActionController::Live: each event is written only when the one before has been read."""
    base = f"http://127.0.0.1:{proxy.port}"
    name = {"name": os.urandom(8).hex()}

    def allow() -> None:
        requests.post(f"{base}/events/next", params=name, timeout=PATIENCE_S).raise_for_status()

    allow()  # Rails sends the head with the first event
    with requests.get(f"{base}/events", params=name, stream=True, timeout=PATIENCE_S) as answer:
        assert answer.headers["Content-Type"] == "text/event-stream"
        lines = answer.iter_lines(chunk_size=1)
        for number in range(3):
            told = [next(lines) for _ in range(4)]
            data = b'data: {"number":%d}' % number
            assert told == [b"event: trade", b"id: %d" % number, data, b""]
            allow()
        assert list(lines) == []


@pytest.mark.parametrize("way", ["length", "chunked", "form"])
def test_a_large_upload_passes_without_being_held(way: str, proxy: Proxy) -> None:
    piece = os.urandom(MEGABYTE)
    data = piece * UPLOAD_MB
    url = f"http://127.0.0.1:{proxy.port}/uploads"

    def pieces() -> Iterator[bytes]:
        for _ in range(UPLOAD_MB):
            yield piece

    with Held(proxy.worker_pid()) as held:
        if way == "form":
            files = {"file": ("large.bin", data)}
            answer = requests.post(url, files=files, timeout=PATIENCE_S)
        else:
            sent = pieces() if way == "chunked" else data
            fields = {"Content-Type": "application/octet-stream"}
            answer = requests.post(url, data=sent, headers=fields, timeout=PATIENCE_S)
    told = answer.json()
    assert (told["size"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert held.growth_bytes < HELD_BYTES_MAX


def test_a_large_download_passes_without_being_held(proxy: Proxy) -> None:
    rows = UPLOAD_MB * MEGABYTE // 4
    with Held(proxy.worker_pid()) as held:
        answer = requests.get(
            f"http://127.0.0.1:{proxy.port}/statement?rows={rows}", timeout=PATIENCE_S
        )
    assert answer.content == b"a,b\n" * rows
    assert held.growth_bytes < HELD_BYTES_MAX


class Held:
    """How far a process's memory grew at the most."""

    def __init__(self, pid: int) -> None:
        self._process = Path(f"/proc/{pid}")
        self.growth_bytes = 0
        if not (self._process / "clear_refs").exists():
            pytest.skip("SKIPPED, not passed: /proc tells no process's memory here")

    def __enter__(self) -> Held:
        (self._process / "clear_refs").write_text("5")  # its peak is now what it has
        self._before = self._peak()
        return self

    def __exit__(self, *_: object) -> None:
        self.growth_bytes = self._peak() - self._before

    def _peak(self) -> int:
        status = (self._process / "status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024
