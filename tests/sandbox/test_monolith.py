"""The sandbox monolith: Rails' manners from outside, its tables from inside, and its faults."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit


def call(base, method, path, body=None, member="7", **headers):
    connection = http.client.HTTPConnection(urlsplit(base).netloc)
    all_headers = {"Content-Type": "application/json", **headers}
    if member:
        all_headers["X-Member-Id"] = member
    connection.request(method, path, json.dumps(body) if body is not None else None, all_headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, json.loads(data) if data else None


def test_up(monolith: str) -> None:
    assert call(monolith, "POST", "/api/v1/orders", {}) == (
        400,
        {"status": 400, "error": "Bad Request"},
    )
