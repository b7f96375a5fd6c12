"""Calls to a sandbox exchange as a client would make them, one connection each."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit


def call(
    base_url: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    member: str | None = "7",
    headers: dict[str, str] | None = None,
) -> tuple[int, Any, http.client.HTTPMessage]:
    """`body`: bytes as they are, the rest as JSON. The answer is None unless it is JSON."""
    sent = {"Content-Type": "application/json"} | (headers or {})
    if member is not None:
        sent["X-Member-Id"] = member
    raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
    connection = http.client.HTTPConnection(urlsplit(base_url).netloc, timeout=20)
    try:
        connection.request(method, path, raw, sent)
        response = connection.getresponse()
        data = response.read()
    finally:
        connection.close()
    is_json = response.headers.get_content_type() == "application/json"
    return response.status, json.loads(data) if data and is_json else None, response.headers


def limit(side: str, price: str, quantity: str, **more: str) -> dict[str, Any]:
    fields = {"market": "BTC-USD", "side": side, "price": price, "quantity": quantity}
    return {"order": fields | more}


def place(base_url: str, body: dict[str, Any], member: str = "7") -> dict[str, Any]:
    status, answer, _ = call(base_url, "POST", "/api/v1/orders", body, member=member)
    assert status == 201, answer
    order: dict[str, Any] = answer["order"]
    return order
