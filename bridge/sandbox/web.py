"""The sandbox monolith's controllers, and what Rails' middleware adds to each of their answers."""

from __future__ import annotations

import hashlib
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any

import msgspec
import psycopg
from aiohttp import web

from bridge.limits import SANDBOX_BODY_BYTES_MAX
from bridge.sandbox import params, rack, render
from bridge.sandbox.exchange import Exchange, NotOpen, Row
from bridge.sandbox.params import MarketRules
from bridge.sandbox.rack import BadRequest

_log = logging.getLogger(__name__)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_EXCHANGE: web.AppKey[Exchange] = web.AppKey("exchange", Exchange)
_RULES: web.AppKey[dict[str, MarketRules]] = web.AppKey("rules", dict)

_JSON = "application/json; charset=utf-8"
_UP_PAGE = b'<!DOCTYPE html><html><body style="background-color: green"></body></html>'
_NOT_IN_REQUEST_ID = re.compile(r"[^\w\-@]", re.ASCII)
_DEFAULT_HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "X-Permitted-Cross-Domain-Policies": "none",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Vary": "Accept",
}
_NOT_OPEN = {"state": ["is not open"]}
# What `ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE` is for: someone keeps this row from being written.
_WRITE_REFUSED = "55000"


class _Unauthorized(Exception):
    """No readable identity: 401."""


def application(exchange: Exchange, rules: dict[str, MarketRules]) -> web.Application:
    """`rules` are read once, as peatio caches its markets."""
    app = web.Application(middlewares=[_rails], client_max_size=SANDBOX_BODY_BYTES_MAX)
    app.on_response_prepare.append(_forget_the_server)
    app[_EXCHANGE] = exchange
    app[_RULES] = rules
    app.router.add_route("*", "/{path:.*}", _route)
    return app


async def _forget_the_server(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.popall("Server", None)  # Puma doesn't name itself


@web.middleware
async def _rails(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Request id, runtime, ETag, conditional GET, and errors as Rails' public exceptions app."""
    began = time.perf_counter()
    response = await _answered(request, handler)
    headers = response.headers
    headers.update(_DEFAULT_HEADERS)
    body = response.body if isinstance(response, web.Response) else None
    headers["Cache-Control"] = "no-cache"
    if response.status in (200, 201) and isinstance(body, bytes) and body:
        headers["ETag"] = f'W/"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers["Cache-Control"] = "max-age=0, private, must-revalidate"
        if request.method == "GET" and request.headers.get("If-None-Match") == headers["ETag"]:
            kept = {name: value for name, value in headers.items() if name != "Content-Type"}
            response = web.Response(status=304, headers=kept)
    given = _NOT_IN_REQUEST_ID.sub("", request.headers.get("X-Request-Id", ""))[:255]
    response.headers["X-Request-Id"] = given or str(uuid.uuid4())
    response.headers["X-Runtime"] = f"{time.perf_counter() - began:.6f}"
    return response


async def _answered(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except BadRequest:
        return _status(HTTPStatus.BAD_REQUEST)
    except _Unauthorized:
        return _json(401, {"error": "Unauthorized"})
    except web.HTTPException as error:
        # Rails knows no 405: a path with another method is a path that it has no route for.
        return _status(HTTPStatus.NOT_FOUND if error.status == 405 else HTTPStatus(error.status))
    except psycopg.Error as error:
        if error.sqlstate == _WRITE_REFUSED:
            return _status(HTTPStatus.SERVICE_UNAVAILABLE)
        _log.exception("%s %s", request.method, request.path)
        return _status(HTTPStatus.INTERNAL_SERVER_ERROR)
    except Exception:
        _log.exception("%s %s", request.method, request.path)
        return _status(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _route(request: web.Request) -> web.StreamResponse:
    """By method and path as they came: aiohttp's own router has another mind than Rails'."""
    body = await request.read() if request.method == "POST" else b""
    method = rack.effective_method(
        request.method,
        ", ".join(request.headers.getall("X-HTTP-Method-Override", ())) or None,
        request.headers.get("Content-Type", ""),
        body,
    )
    found = _ROUTES.recognize(method, request.raw_path)
    if found is None:
        return _status(HTTPStatus.NOT_FOUND)
    handler, path_params = found
    request.match_info.update(path_params)
    response: web.StreamResponse = await handler(request)
    return response


async def _create_order(request: web.Request) -> web.Response:
    member = _member(request)
    given = params.order_params(*await _given(request))
    rules = request.app[_RULES]
    order = params.validate(given, member, rules)
    if isinstance(order, dict):
        return _json(422, {"errors": order})
    row, trades = await request.app[_EXCHANGE].place(order)
    return _json(201, {"order": render.order(row, trades)})


async def _destroy_order(request: web.Request) -> web.Response:
    member = _member(request)
    row = await request.app[_EXCHANGE].cancel(_order_id(request), member)
    if row is None:
        return _status(HTTPStatus.NOT_FOUND)
    if isinstance(row, NotOpen):
        return _json(422, {"errors": _NOT_OPEN})
    return _json(200, {"order": render.order(row)})


async def _create_orders(request: web.Request) -> web.Response:
    """Each in a transaction of its own, one after the other."""
    member = _member(request)
    rules = request.app[_RULES]
    shown = []
    for given in params.orders_params(*await _given(request)):
        order = params.validate(given, member, rules)
        if isinstance(order, dict):
            shown.append({"errors": order})
        else:
            shown.append(render.order(*await request.app[_EXCHANGE].place(order)))
    return _json(201, {"orders": shown})


async def _destroy_orders(request: web.Request) -> web.Response:
    member = _member(request)
    shown = []
    for order_id in params.ids_params(*await _given(request)):
        row = await request.app[_EXCHANGE].cancel(order_id, member) if order_id else None
        shown.append(_cancelled(row))
    return _json(200, {"orders": shown})


def _cancelled(row: Row | NotOpen | None) -> dict[str, Any]:
    if row is None:
        return {"errors": {"base": [HTTPStatus.NOT_FOUND.phrase]}}
    return {"errors": _NOT_OPEN} if isinstance(row, NotOpen) else render.order(row)


async def _destroy_all_orders(request: web.Request) -> web.Response:
    """The member's open orders, one transaction for each, by id."""
    member = _member(request)
    exchange = request.app[_EXCHANGE]
    market, side = params.filter_params(_query(request))
    rows = [await exchange.cancel(one, member) for one in await exchange.open(member, market, side)]
    # What was filled meanwhile is not among them.
    return _json(200, {"orders": [render.order(row) for row in rows if isinstance(row, dict)]})


async def _show_order(request: web.Request) -> web.Response:
    member = _member(request)
    found = await request.app[_EXCHANGE].order(_order_id(request), member)
    if found is None:
        return _status(HTTPStatus.NOT_FOUND)
    return _json(200, {"order": render.order(*found)})


async def _list_orders(request: web.Request) -> web.Response:
    member = _member(request)
    word = request.query.get("state", "")
    state = params.STATES.index(word) if word in params.STATES else None
    market = request.query.get("market") or None
    rows, trades = await request.app[_EXCHANGE].orders(member, market, state)
    return _json(200, {"orders": [render.order(row, trades.get(row["id"], ())) for row in rows]})


async def _list_trades(request: web.Request) -> web.Response:
    rows = await request.app[_EXCHANGE].trades(request.query.get("market", ""))
    return _json(200, {"trades": [render.public_trade(row) for row in rows]})


async def _list_markets(request: web.Request) -> web.Response:
    rows = await request.app[_EXCHANGE].markets()
    return _json(200, {"markets": [render.market(row) for row in rows]})


async def _up(_: web.Request) -> web.Response:
    return web.Response(body=_UP_PAGE, content_type="text/html", charset="utf-8")


async def _given(request: web.Request) -> tuple[str, str, bytes, str]:
    content_type = request.headers.get("Content-Type", "")
    return content_type, _query(request), await request.read(), request.method


def _query(request: web.Request) -> str:
    return request.raw_path.partition("?")[2]


def _member(request: web.Request) -> int:
    member = params.identifier(request.headers.get("X-Member-Id"))
    if member is None:
        raise _Unauthorized
    return member


def _order_id(request: web.Request) -> int:
    order_id = params.identifier(request.match_info["id"])
    if order_id is None:
        raise web.HTTPNotFound
    return order_id


def _json(status: int, value: Any) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(status=status, body=body, headers={"Content-Type": _JSON})


def _status(status: HTTPStatus) -> web.Response:
    return _json(status, {"status": int(status), "error": status.phrase})


_ROUTES = rack.Routes(
    [
        ("POST", "/api/v1/orders/batch", _create_orders),
        ("DELETE", "/api/v1/orders/batch", _destroy_orders),
        ("POST", "/api/v1/orders", _create_order),
        ("DELETE", "/api/v1/orders", _destroy_all_orders),
        ("GET", "/api/v1/orders", _list_orders),
        ("GET", "/api/v1/orders/:id", _show_order),
        ("DELETE", "/api/v1/orders/:id", _destroy_order),
        ("GET", "/api/v1/trades", _list_trades),
        ("GET", "/api/v1/markets", _list_markets),
        ("GET", "/up", _up),
    ]
)
