"""Requests of our own to the monolith: one order of a bulk request, as its client would have sent
it alone. Pure.

A part of a bulk request goes where the plain route of its action says, with the client's own header
fields: whatever says who it is and what it may do. The query is left out, since a parameter in it
would win over the body's. What a signature over the body or the path has signed is no longer
there: a monolith that checks one refuses these, and its clients must not mix instruments.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from bridge.proxy.plane.exchange import Exchange
from shadow.legacy.mapping import Route
from shadow.params import body_params, is_form

_PLACEHOLDER = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")

# Of the client's fields: what describes its body, its connection or the answer it wants.
_OF_THE_MESSAGE = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"connection",
        b"content-digest",
        b"content-encoding",
        b"content-length",
        b"content-md5",
        b"content-type",
        b"digest",
        b"expect",
        b"keep-alive",
        b"range",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-http-method-override",
    }
)
# One for each request: the same one twice would be the same request twice.
_OF_ONE_REQUEST = frozenset({b"x-request-id", b"idempotency-key", b"x-idempotency-key"})


class OwnRequest(NamedTuple):
    route: Route
    method: bytes
    target: bytes
    path_params: dict[str, str]
    request_id: bytes
    fields: tuple[tuple[bytes, bytes], ...]  # without those that describe the body
    content_type: bytes  # b"": there is no body
    body: bytes


def own_request(
    exchange: Exchange,
    route: Route,
    values: Mapping[str, object],
    extras: Mapping[str, Any],
    number: int,
) -> OwnRequest:
    """`values` by our names; `extras` is what the client says of this order besides, by its own.
    `number` tells the parts of one request apart. Raises ValueError where the route asks for what
    neither gives.
    """
    path_params, query, body = dict(exchange.path_params), {}, _rooted(route, extras)
    for name in route.fields:
        if name not in values:
            continue
        where = route.places(name)[0]
        head, _, rest = where.partition(".")
        if head == "path" and rest:
            path_params[rest] = str(values[name])
        elif head == "query" and rest:
            query[rest] = str(values[name])
        else:
            _put(body, where.split("."), values[name])
    target = _PLACEHOLDER.sub(lambda found: quote(_given(found[1], path_params), ""), route.path)
    if query:
        target += f"?{urlencode(query)}"
    content_type, encoded = _encoded(body, exchange)
    request_id = b"%b-%d" % (exchange.request_id, number)
    return OwnRequest(
        route=route,
        method=route.method.encode(),
        target=target.encode(),
        path_params=path_params,
        request_id=request_id,
        fields=_fields(exchange, request_id, number),
        content_type=content_type,
        body=encoded,
    )


def extras_of(exchange: Exchange, route: Route, count: int) -> Sequence[Mapping[str, Any]]:
    """What each element of a bulk request has besides the mapped fields, by the client's names."""
    nothing: list[Mapping[str, Any]] = [{}] * count
    own = [where.split(".")[1:] for where in route.all_places if where.startswith("each.")]
    if not own:
        return nothing
    try:
        given, _ = body_params(
            exchange.content_type.decode("latin-1"),
            exchange.method.decode("latin-1"),
            b"".join(exchange.body or ()),
        )
    except ValueError:
        return nothing
    place = route.each.split(".")
    found = _at(given, place) or _at(given, place[1:])  # the root may be left out
    items = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    if len(items) != count:
        return nothing
    *group, _ = own[0]
    mapped = {path[-1] for path in own}
    groups = [_at(item, group) for item in items]
    return [
        {key: value for key, value in one.items() if key not in mapped}
        if isinstance(one, dict)
        else {}
        for one in groups
    ]


def _at(value: Any, path: Sequence[str]) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _rooted(route: Route, extras: Mapping[str, Any]) -> dict[str, Any]:
    body: dict[str, Any] = {}
    for where in (route.places(name)[0] for name in route.fields):
        *group, _ = where.split(".")
        if group and group[0] not in ("path", "query"):
            if extras:
                _put(body, group, dict(extras))
            return body
    return dict(extras)


def _put(body: dict[str, Any], path: Sequence[str], value: object) -> None:
    for key in path[:-1]:
        body = body.setdefault(key, {})
    body[path[-1]] = value


def _given(name: str, path_params: Mapping[str, str]) -> str:
    if name not in path_params:
        raise ValueError(f"nothing says what :{name} is")
    return path_params[name]


def _encoded(body: dict[str, Any], exchange: Exchange) -> tuple[bytes, bytes]:
    """As the client has encoded its own."""
    if not body:
        return b"", b""
    given, method = exchange.content_type.decode("latin-1"), exchange.method.decode("latin-1")
    if is_form(given, method):
        return b"application/x-www-form-urlencoded", urlencode(_pairs(body)).encode()
    return b"application/json", msgspec.json.encode(body)


def _pairs(value: Any, name: str = "") -> list[tuple[str, str]]:
    """Groups and lists as Rack nests them."""
    if isinstance(value, dict):
        inner = ((f"{name}[{key}]" if name else key, one) for key, one in value.items())
        return [pair for key, one in inner for pair in _pairs(one, key)]
    if isinstance(value, list):
        return [pair for one in value for pair in _pairs(one, f"{name}[]")]
    return [(name, "" if value is None else str(value))]


def _fields(exchange: Exchange, request_id: bytes, number: int) -> tuple[tuple[bytes, bytes], ...]:
    """The client's, as they would have gone upstream."""
    head = b"".join(exchange.out).partition(b"\r\n\r\n")[0]
    fields: list[tuple[bytes, bytes]] = []
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        kind = name.lower().replace(b"_", b"-")
        if kind in _OF_ONE_REQUEST:
            if kind != b"x-request-id":
                fields.append((name, b"%b-%d" % (value.strip(b" \t"), number)))
        elif kind not in _OF_THE_MESSAGE and not kind.startswith(b"if-"):
            fields.append((name, value.strip(b" \t")))
    return (*fields, (b"X-Request-Id", request_id), (b"Accept", b"application/json"))
