"""What the sandbox's controller accepts, and Rails' words for what it doesn't. Pure.

Written apart from `shadow.normalise`, which must come to the same answers from outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec

from bridge.sandbox import rack
from bridge.sandbox.rack import BadRequest

SIDES = ("buy", "sell")  # the position is the database's value
ORDER_TYPES = ("limit", "market")
TIMES_IN_FORCE = ("gtc", "ioc")
STATES = ("open", "filled", "cancelled")

NUMBER_MAX = 1_000_000_000
_FIELDS = ("market", "side", "order_type", "time_in_force", "price", "quantity")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
_JSON_TYPES = ("application/json", "text/x-json", "application/jsonrequest")  # Rails' synonyms
_IDENTIFIER = re.compile(r"[0-9]{1,19}", re.ASCII)
_JSON_DEPTH_MAX = 100  # Ruby's parser
_BIGINT_MAX = 2**63 - 1

# A number with a fraction or an exponent stays as it was written: it never passes through a float.
_json = msgspec.json.Decoder(float_hook=str)

Errors = dict[str, list[str]]


class MarketRules(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    tick: Decimal
    lot: Decimal


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    """Valid, its codes the database's."""

    market: str
    member: int
    side: int
    order_type: int
    time_in_force: int
    price: Decimal | None
    quantity: Decimal


def identifier(text: str | None) -> int | None:
    """A positive number as it stands in a path or in the identity header."""
    if text is None or not _IDENTIFIER.fullmatch(text):
        return None
    value = int(text)
    return value if 0 < value <= _BIGINT_MAX else None


def order_params(
    content_type: str, query: str, body: bytes, method: str = "POST"
) -> dict[str, Any]:
    """The `order` of a request; a JSON object without that key is taken for the order itself.

    `method` as the client sent it. Raises BadRequest.
    """
    from_body, from_query = _params(content_type, query, body, method)
    params = from_body | from_query
    if "order" not in params and rack.media_type(content_type) in _JSON_TYPES:
        params["order"] = {name: from_body[name] for name in _FIELDS if name in from_body}
    order = params.get("order")
    if not isinstance(order, dict) or not order:
        raise BadRequest
    return order


def orders_params(
    content_type: str, query: str, body: bytes, method: str = "POST"
) -> list[dict[str, Any]]:
    """`params.expect(orders: [[...]])`: what is no object is left out. Raises BadRequest."""
    from_body, from_query = _params(content_type, query, body, method)
    given = (from_body | from_query).get("orders")
    orders = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    if not orders:
        raise BadRequest
    return orders


def ids_params(
    content_type: str, query: str, body: bytes, method: str = "DELETE"
) -> list[int | None]:
    """`params.expect(ids: [])`: nothing but plain values; None for what is no id. Raises
    BadRequest.
    """
    from_body, from_query = _params(content_type, query, body, method)
    given = (from_body | from_query).get("ids")
    ids = [one for one in given if one is not None] if isinstance(given, list) else []
    if not ids or any(isinstance(one, dict | list) for one in ids):
        raise BadRequest
    return [None if isinstance(one, bool) else identifier(str(one)) for one in ids]


def filter_params(query: str) -> tuple[str | None, int | None]:
    """Market and side of a cancel of everything: where they are present. Raises BadRequest."""
    params = rack.nested(query.encode("latin-1", "replace"))
    market, side = params.get("market"), params.get("side")
    if not isinstance(market, str | None) or not isinstance(side, str | None):
        raise BadRequest
    code = None if _blank(side) else SIDES.index(side) if side in SIDES else -1
    return None if _blank(market) else market, code


def _params(
    content_type: str, query: str, body: bytes, method: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Of the body, and of the query, which overrides them."""
    from_body: dict[str, Any] = {}
    if rack.media_type(content_type) in _JSON_TYPES:
        from_body = _json_object(body) if body else {}
    elif rack.is_form(content_type, method):
        from_body = rack.nested(body)
    return from_body, rack.nested(query.encode("latin-1", "replace"))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = _json.decode(body)
        is_deep = _depth(parsed) > _JSON_DEPTH_MAX
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest from error
    if is_deep:
        raise BadRequest
    return parsed if isinstance(parsed, dict) else {"_json": parsed}


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def validate(
    params: Mapping[str, Any], member: int, markets: Mapping[str, MarketRules]
) -> NewOrder | Errors:
    """All errors at once, the first one of each field, fields in the order of the form."""
    errors: Errors = {}
    name = params.get("market")
    market = markets.get(name) if type(name) is str else None
    if market is None:
        errors["market"] = ["must exist"]
    order_type = _choice(params.get("order_type", "limit"), ORDER_TYPES, "order_type", errors)
    is_market_order = order_type == ORDER_TYPES.index("market")
    side = _choice(params.get("side"), SIDES, "side", errors)
    time_in_force = TIMES_IN_FORCE.index("ioc")
    if not is_market_order:
        given = params.get("time_in_force", "gtc")
        time_in_force = _choice(given, TIMES_IN_FORCE, "time_in_force", errors)
    price = None
    if not is_market_order:
        price = _decimal(params.get("price"), market.tick if market else None, "price", errors)
    elif not _blank(params.get("price")):
        errors["price"] = ["must be blank"]
    quantity = _decimal(params.get("quantity"), market.lot if market else None, "quantity", errors)
    if errors or market is None or quantity is None:
        return {field: errors[field] for field in _FIELDS if field in errors}
    return NewOrder(
        market=market.symbol,
        member=member,
        side=side,
        order_type=order_type,
        time_in_force=time_in_force,
        price=price,
        quantity=quantity,
    )


def _choice(value: Any, words: tuple[str, ...], field: str, errors: Errors) -> int:
    if type(value) is str and value in words:
        return words.index(value)
    errors[field] = ["is not included in the list"]
    return -1


def _blank(value: Any) -> bool:
    """Lists and objects are not scalars: strong parameters drop them."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or isinstance(value, list | dict)


def _decimal(value: Any, step: Decimal | None, field: str, errors: Errors) -> Decimal | None:
    """`step` is None while the market is unknown: then only its form is checked."""
    if _blank(value):
        errors[field] = ["can't be blank"]
        return None
    if isinstance(value, bool) or not _NUMBER.fullmatch(str(value)):
        errors[field] = ["is not a number"]
        return None
    number = Decimal(str(value))
    if number <= 0:
        errors[field] = ["must be greater than 0"]
    elif step is not None and not _is_multiple(number, step):
        errors[field] = [f"must be a multiple of {format_plain(step)}"]
    elif step is not None and number > NUMBER_MAX:
        errors[field] = [f"must be less than or equal to {NUMBER_MAX}"]
    return number


def _is_multiple(number: Decimal, step: Decimal) -> bool:
    """Exact for any number of digits, which `%` in a decimal context is not."""
    numerator, denominator = number.as_integer_ratio()
    step_numerator, step_denominator = step.as_integer_ratio()
    return (numerator * step_denominator) % (denominator * step_numerator) == 0


def format_plain(number: Decimal) -> str:
    """Without exponent and without trailing zeros.

    >>> format_plain(Decimal("0.00000001")), format_plain(Decimal("1.50"))
    ('0.00000001', '1.5')
    """
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
