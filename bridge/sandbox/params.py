"""What the sandbox's controller accepts, and Rails' words for what it doesn't. Pure.

Written apart from `shadow.normalise`, which must come to the same answers from outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

import msgspec

SIDES = ("buy", "sell")  # the position is the database's value
ORDER_TYPES = ("limit", "market")
TIMES_IN_FORCE = ("gtc", "ioc")
STATES = ("open", "filled", "cancelled")

NUMBER_MAX = 1_000_000_000
_FIELDS = ("market", "side", "order_type", "time_in_force", "price", "quantity")
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?", re.ASCII)
_NESTED_NAME = re.compile(r"[^\[\]]+(\[[^\[\]]+\])*")
_JSON_TYPES = ("application/json", "text/x-json", "application/jsonrequest")  # Rails' synonyms
_IDENTIFIER = re.compile(r"[0-9]{1,19}", re.ASCII)
_BIGINT_MAX = 2**63 - 1

# A number with a fraction or an exponent stays as it was written: it never passes through a float.
_json = msgspec.json.Decoder(float_hook=str)

Errors = dict[str, list[str]]


class BadRequest(Exception):
    """The body is not what its content type says, or there is no order in it: 400."""


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


def order_params(content_type: str, query: str, body: bytes) -> dict[str, Any]:
    """The `order` of a request; a JSON object without that key is taken for the order itself.

    The query overrides the body, as in Rails. Raises BadRequest.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    params: dict[str, Any] = {}
    if media_type in _JSON_TYPES and body:
        params = _json_object(body)
        if "order" not in params:
            params["order"] = {name: params[name] for name in _FIELDS if name in params}
    elif media_type == "application/x-www-form-urlencoded":
        params = _form(_text(body))
    from_query = _form(query)
    order = from_query.get("order", params.get("order"))
    if not isinstance(order, dict) or not order:
        raise BadRequest
    return order


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise BadRequest from error


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        parsed = _json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest from error
    return parsed if isinstance(parsed, dict) else {}


def _form(text: str) -> dict[str, Any]:
    """Rack's nested names: `order[price]=1`. A name can't be both a value and a group."""
    params: dict[str, Any] = {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise BadRequest from error
    for name, value in pairs:
        if not _NESTED_NAME.fullmatch(name):
            continue
        *groups, last = re.findall(r"[^\[\]]+", name)
        inner = params
        for group in groups:
            inner = inner.setdefault(group, {})
            if not isinstance(inner, dict):
                raise BadRequest
        inner[last] = value
    return params


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
