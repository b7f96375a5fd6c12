"""Requests and answers, as far as routes and the names of columns suggest them. Pure.

None of it can be seen in the database: what is proposed is left to a person.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bridge.onboard.columns import FillColumns, OrderColumns
from bridge.onboard.finding import Finding, guess, likely
from bridge.onboard.recognise import Recognised
from bridge.onboard.routes import Proposed, Routes, missing
from bridge.onboard.toml import written

_PLACE = ("symbol", "side", "ord_type", "tif", "price", "quantity")
_PATHS = {"place": ("POST", '"/api/v1/orders"'), "cancel": ("DELETE", '"/api/v1/orders/:id"')}
_WORDS = {
    "side": ("buy", "sell"),
    "ord_type": ("limit", "market"),
    "tif": ("gtc", "ioc"),
    "status": ("open", "filled", "canceled"),
}


def http_findings(routes: Routes | None, recognised: Recognised) -> list[Finding]:
    """Of the orders' values it is taken that requests may use the same words."""
    its, theirs, said = recognised.order_columns, recognised.fill_columns, recognised.findings
    proposed = routes.proposed if routes else ()
    return [
        guess(
            "mapping.identity_header",
            "the request header by which the gateway in front names the account",
            '"X-Member-Id"',
        ),
        *_routes(proposed, its),
        *(_words(key, its, said) for key in _WORDS),
        *_responses(its, theirs),
    ]


def _routes(proposed: Sequence[Proposed], its: OrderColumns) -> Iterator[Finding]:
    for n, one in enumerate(proposed):
        key = f"mapping.routes.{n}"
        why = "by its path; check what the action does"
        yield likely(f"{key}.action", one.action, why)
        yield likely(f"{key}.method", one.method, "from the routes")
        yield likely(f"{key}.path", one.path, "from the routes")
        if one.bulk:
            why = "where does the list stand in the body?"
            choice = '"orders"' if one.action == "place" else '"ids"'
            yield guess(f"{key}.each", why, choice, '"_json"')
        yield _fields(f"{key}.fields", one, its)
    for n, action in enumerate(missing(proposed), len(proposed)):
        key, (method, path) = f"mapping.routes.{n}", _PATHS[action]
        yield likely(f"{key}.action", action, "every monolith has one")
        yield guess(f"{key}.method", "no such route was given", f'"{method}"')
        yield guess(f"{key}.path", "no such route was given: init --routes FILE reads them", path)
        order_id = "path.id" if action == "cancel" else ""
        one = Proposed(action=action, method=method, path=path, order_id=order_id)
        yield _fields(f"{key}.fields", one, its)


def _fields(key: str, one: Proposed, its: OrderColumns) -> Finding:
    why = "the names of the parameters"
    if one.action == "place":
        start = "each." if one.bulk else ""
        flat, wrapped = _place_fields(its, start), _place_fields(its, f"{start}order.")
        return guess(key, f"{why}; wrapped or not", *([flat] if one.bulk else [wrapped, flat]))
    if one.action == "cancel_all":
        return guess(key, f"{why} that choose which", '{ symbol = "market", side = "side" }', "{}")
    if one.bulk:
        return guess(key, why, '{ order_id = "each" }', '{ order_id = "each.id" }')
    if one.order_id:
        return likely(key, {"order_id": one.order_id}, "the placeholder of the path")
    where = "query.id" if one.method == "GET" else "id"
    return guess(key, f"{why}: where is the order's id?", f'{{ order_id = "{where}" }}')


def _place_fields(its: OrderColumns, start: str) -> str:
    named = {
        "symbol": its.symbol.removesuffix("_id") or "market",
        "side": "side",
        "ord_type": its.ord_type or "",
        "tif": its.tif,
        "price": its.price or "price",
        "quantity": its.quantity.removeprefix("origin_") or "quantity",
    }
    parts = (f'{key} = "{start}{name}"' for key in _PLACE if (name := named[key]))
    return f"{{ {', '.join(parts)} }}"


def _words(key: str, its: OrderColumns, said: Sequence[Finding]) -> Finding:
    column = getattr(its, key)
    mine = f"mapping.orders.{key}.map."
    theirs = {
        one.value: one.key.removeprefix(mine)
        for one in reversed(said)
        if one.key.startswith(mine) and not one.undecided
    }
    ours = dict.fromkeys((*_WORDS[key], *theirs))
    words = {word: theirs.get(word, "") for word in ours}
    spoken = {word: value if not _is_code(value) else word for word, value in words.items()}
    if not column and key == "tif":
        why = "no column for it, so that no request and no answer names one"
        return likely(f"mapping.words.{key}", spoken, why)
    shown = [written(spoken)]
    plain = written({word: word for word in words})
    if plain not in shown:
        shown.append(plain)
    return guess(f"mapping.words.{key}", "the words of requests and answers for ours", *shown)


def _is_code(value: str) -> bool:
    return value in ("", "true", "false") or value.lstrip("-").isdigit() or value[:1].isupper()


def _responses(its: OrderColumns, theirs: FillColumns) -> Iterator[Finding]:
    key = "mapping.responses"
    yield guess(f"{key}.root", "the key that the order is wrapped in", '"order"', '""')
    yield guess(f"{key}.placed_status", "the status code of an order taken", "201", "200")
    order = {"id": its.id or "id", "symbol": its.symbol, "side": "side"}
    for name in ("ord_type", "tif", "price", "quantity", "leaves", "filled", "created_at"):
        order[name] = getattr(its, name)
    order["status"], order["updated_at"] = its.status, its.updated_at
    shown = {theirs: ours for ours, theirs in order.items() if theirs}
    why = (
        "JSON key to our value, in their order: compare with an answer of the monolith. How it"
        " writes numbers and times is for mapping.responses.decimal and time, unless as Rails does"
    )
    yield guess(f"{key}.order", why, written(shown))
    fill = {theirs.price or "price": "price", theirs.quantity or "quantity": "quantity"}
    yield guess(
        f"{key}.fill", "the same of one fill; {} where orders show none", written(fill), "{}"
    )
