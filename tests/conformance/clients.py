"""Python's HTTP clients, each asking for the same: one session, one connection where it can."""

from __future__ import annotations

import asyncio
import http.client
import io
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Sequence

import aiohttp
import msgspec
import requests
from compare import Got
from peers import LARGE

PATIENCE_S = 20.0


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request in words that every client understands."""

    method: str = "GET"
    target: str
    fields: tuple[tuple[str, str], ...] = ()
    body: bytes | None = None
    chunked: bool = False


FORM = (("Content-Type", "application/x-www-form-urlencoded"),)
OVERRIDE = ("X-HTTP-Method-Override", "DELETE")
JSON = (("Content-Type", "application/json"),)
ASKS = [
    Ask(target="/text?a=1&b=%2F%20x&c=&c"),
    Ask(target="/text", method="HEAD"),
    Ask(target="/file", fields=(("Range", "bytes=10-29"),)),
    Ask(target="/file", fields=(("If-Modified-Since", "Fri, 01 Jan 2038 00:00:00 GMT"),)),
    Ask(target="/large"),
    Ask(target="/pieces"),
    Ask(target="/cookies"),
    Ask(target="/status/204"),
    Ask(target="/status/304"),
    Ask(target="/status/404"),
    Ask(target="/status/422", method="POST", fields=JSON, body=b'{"order":{}}'),
    Ask(target="/status/500"),
    Ask(target="/status/503"),
    Ask(target="/redirect"),
    Ask(target="/echo", method="POST", fields=JSON, body=b'{"order":{"market":"BTC-USD"}}'),
    Ask(target="/api/v1/orders", method="POST", fields=JSON, body=b'{"market":"BTC-USD"}'),
    Ask(target="/api/v1/orders/7", method="DELETE"),
    Ask(target="/api/v1/orders/7", method="POST", fields=FORM, body=b"_method=delete&a=%26"),
    Ask(target="/api/v1/orders/7", method="POST", fields=(*FORM, OVERRIDE), body=b"a=1"),
    Ask(target="/echo", method="POST", fields=(*FORM, OVERRIDE), body=b""),
    Ask(target="/echo", method="PUT", body=LARGE[:1_000_000]),
    Ask(target="/echo", method="PATCH", body=LARGE, chunked=True),
    Ask(target="/echo", method="OPTIONS"),
    Ask(target="/text", fields=(("X-Forwarded-For", "203.0.113.9"), ("X-Request-Id", "mine"))),
    Ask(target="/text", fields=(("X-Long", "x" * 6000), ("X-Empty", ""), ("x-CASE", "Kept"))),
    Ask(target="/text", fields=(("Cookie", "a=1; b=2"), ("Authorization", "Bearer x.y.z"))),
    Ask(target="/text", fields=(("X-Latin", "Zürich"), ("Accept-Language", "de, en;q=0.5"))),
    Ask(target="/until-close"),
]


def pieces_of(body: bytes) -> Iterator[bytes]:
    """Of a size that is no power of two."""
    reader = io.BytesIO(body)
    while piece := reader.read(70_001):
        yield piece


def by_http_client(port: int, asks: Sequence[Ask]) -> list[Got]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)
    told = []
    for ask in asks:
        body = pieces_of(ask.body or b"") if ask.chunked else ask.body
        fields = dict(ask.fields) | ({"Transfer-Encoding": "chunked"} if ask.chunked else {})
        connection.request(ask.method, ask.target, body, fields, encode_chunked=ask.chunked)
        told.append(_got(connection.getresponse()))
    connection.close()
    return told


def _got(answer: http.client.HTTPResponse) -> Got:
    body = answer.read()
    fields = tuple(answer.getheaders())
    return Got(status=answer.status, reason=answer.reason, fields=fields, body=body)


def by_urllib(port: int, asks: Sequence[Ask]) -> list[Got]:
    """A connection for each, which it asks to be closed."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    told = []
    for ask in asks:
        body = pieces_of(ask.body or b"") if ask.chunked else ask.body
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}{ask.target}", body, dict(ask.fields), method=ask.method
        )
        try:
            with opener.open(request, timeout=PATIENCE_S) as answer:
                told.append(_got(answer))
        except urllib.error.HTTPError as refused:
            with refused:
                fields, body = tuple(refused.headers.items()), refused.read()
                got = Got(status=refused.code, reason=refused.reason, fields=fields, body=body)
                told.append(got)
    return told


def by_requests(port: int, asks: Sequence[Ask]) -> list[Got]:
    told = []
    with requests.Session() as session:
        session.trust_env = False
        for ask in asks:
            body = pieces_of(ask.body or b"") if ask.chunked else ask.body
            answer = session.request(
                ask.method,
                f"http://127.0.0.1:{port}{ask.target}",
                data=body,
                headers={name: value.encode("latin-1") for name, value in ask.fields},
                timeout=PATIENCE_S,
            )
            for one in (*answer.history, answer):
                fields = tuple(one.raw.headers.iteritems())
                told.append(
                    Got(status=one.status_code, reason=one.reason, fields=fields, body=one.content)
                )
    return told


def by_aiohttp(port: int, asks: Sequence[Ask]) -> list[Got]:
    return asyncio.run(_by_aiohttp(port, asks))


async def _by_aiohttp(port: int, asks: Sequence[Ask]) -> list[Got]:
    told = []
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        for ask in asks:
            body = _sent_by_and_by(ask.body or b"") if ask.chunked else ask.body
            async with session.request(
                ask.method, f"http://127.0.0.1:{port}{ask.target}", data=body, headers=ask.fields
            ) as answer:
                fields = tuple(
                    (name.decode(), value.decode("latin-1")) for name, value in answer.raw_headers
                )
                told.append(
                    Got(
                        status=answer.status,
                        reason=answer.reason or "",
                        fields=fields,
                        body=await answer.read(),
                    )
                )
    return told


async def _sent_by_and_by(body: bytes) -> AsyncIterator[bytes]:
    for piece in pieces_of(body):
        yield piece


CLIENTS = {
    "http.client": by_http_client,
    "urllib": by_urllib,
    "requests": by_requests,
    "aiohttp": by_aiohttp,
}
