"""What an order-entry request asks for: an exact command, or the refusal that the monolith would
give.

Pure. The proxy answers live orders by it and the comparison judges by it, so that what earned the
parity score is what answers after the flip. The rules are Rails' own: parameters of the body, then
the query, then the path, the later ones winning; a JSON body may leave out the root that the
controller wraps its parameters in; every invalid field is named, each with its first message only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from decimal import Decimal
from urllib.parse import parse_qsl

import msgspec

from engine.types import Command, CommandKind, OrderType, Side, TimeInForce
from shadow.errors import NotExact
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Route, Words

_BIGINT_MAX = 2**63 - 1  # of ids and accounts in the monolith's database
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_ID = re.compile(r"[0-9]{1,19}")
_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]+\])*)")  # a[b][c], no arrays
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_ORDER_TYPES = {"market": OrderType.MARKET, "limit": OrderType.LIMIT}
_TIMES_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC}
_DEFAULT_ORDER_TYPE = "limit"
_DEFAULT_TIME_IN_FORCE = "gtc"

# Numbers with a fraction stay text: no float ever exists, and an exponent can still be seen.
_json = msgspec.json.Decoder(float_hook=str)


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The monolith's refusal. Without errors its body is the framework's own for that status."""

    status: int
    errors: tuple[
        tuple[str, str], ...
    ] = ()  # (the monolith's name of the field, message), in its order


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """The raw values of a request by our names; absent is what the request doesn't give."""

    route: Route
    values: dict[str, object]  # scalars as JSON had them (fractions as text); None was null

    @property
    def symbol(self) -> str | None:
        """None where it names no instrument in any case."""
        value = self.values.get("symbol")
        return value if isinstance(value, str) else None


def account_of(header: str) -> int:
    """The account that an identity header names; 0 for none or an unreadable one."""
    return _id(header.strip(" \t"))


def request_fields(
    route: Route,
    path_params: Mapping[str, str],
    query: str,
    content_type: str,
    body: bytes,
) -> Fields | Refusal:
    """`query` is what follows the question mark, still encoded. A refusal has status 400."""
    try:
        given, is_json = _body_params(content_type, body)
        in_query = _nested(query)
    except ValueError:
        return Refusal(status=400)
    params = {**given, **in_query, **path_params}
    root = _root(route)
    if root:
        if root not in params and is_json:
            params[root] = _wrapped(route, root, given)
        inner = params.get(root)
        if not isinstance(inner, dict) or not inner:
            return Refusal(status=400)
    values = {}
    for name, where in route.fields.items():
        found, value = _look_up(where, params, path_params, in_query)
        if found:
            values[name] = value
    return Fields(route=route, values=values)


def place_command(
    fields: Fields,
    account: int,
    order_id: int,
    scale: Scale | None,
    words: Words,
    *,
    epoch: int = 0,
) -> Command | Refusal:
    """`scale` is None where the request's symbol is no instrument of ours: then it is refused.

    An account of 0 is refused with 401 whatever the fields are; callers that have not read the body
    yet may test that before they do.
    """
    if not account:
        return Refusal(status=401)
    values = fields.values
    errors: dict[str, str] = {}
    if scale is None:
        errors["symbol"] = "must exist"
    side = _word(values, "side", words.side, errors)
    ord_type = _word(values, "ord_type", words.ord_type, errors, default=_DEFAULT_ORDER_TYPE)
    if ord_type == "market":
        tif: str | None = "ioc"
        price_ticks = 0
        if not _blank(values.get("price")):
            errors["price"] = "must be blank"
    else:
        tif = _word(values, "tif", words.tif, errors, default=_DEFAULT_TIME_IN_FORCE)
        price_ticks = _price(values.get("price"), scale, errors)
    qty_lots = _quantity(values.get("quantity"), scale, errors)
    if errors or scale is None or side is None or ord_type is None or tif is None:
        return _invalid(fields.route, errors)
    return Command(
        kind=CommandKind.NEW,
        side=_SIDES[side],
        ord_type=_ORDER_TYPES[ord_type],
        tif=_TIMES_IN_FORCE[tif],
        instrument=scale.instrument,
        epoch=epoch,
        account=account,
        order_id=order_id,
        price_ticks=price_ticks,
        qty_lots=qty_lots,
    )


def order_id_of(fields: Fields) -> int:
    """Of a cancel or a read; 0 for what can't be an order's id."""
    value = fields.values.get("order_id")
    return _id(str(value)) if isinstance(value, str | int) and not isinstance(value, bool) else 0


def cancel_command(
    fields: Fields, account: int, instrument: int, *, epoch: int = 0
) -> Command | Refusal:
    if not account:
        return Refusal(status=401)
    order_id = order_id_of(fields)
    if not order_id:
        return Refusal(status=404)
    return Command(
        kind=CommandKind.CANCEL,
        instrument=instrument,
        epoch=epoch,
        account=account,
        order_id=order_id,
    )


def _invalid(route: Route, errors: Mapping[str, str]) -> Refusal:
    order = ("symbol", "side", "ord_type", "tif", "price", "quantity")
    return Refusal(
        status=422,
        errors=tuple((_leaf(route, name), errors[name]) for name in order if name in errors),
    )


def _leaf(route: Route, name: str) -> str:
    return route.fields.get(name, name).rpartition(".")[2]


def _word(
    values: Mapping[str, object],
    name: str,
    words: Mapping[str, str],
    errors: dict[str, str],
    default: str | None = None,
) -> str | None:
    """Our word for theirs."""
    if default is not None and name not in values:
        return default
    given = values.get(name)
    for ours, theirs in words.items():
        if given == theirs:
            return ours
    errors[name] = "is not included in the list"
    return None


def _price(value: object, scale: Scale | None, errors: dict[str, str]) -> int:
    if scale is None:
        return _steps(value, "price", None, errors)
    return _steps(
        value, "price", (scale.ticks, scale.tick, scale.price_ticks_max, scale.price), errors
    )


def _quantity(value: object, scale: Scale | None, errors: dict[str, str]) -> int:
    if scale is None:
        return _steps(value, "quantity", None, errors)
    return _steps(
        value, "quantity", (scale.lots, scale.lot, scale.qty_lots_max, scale.quantity), errors
    )


# How a number becomes steps, one step, the most of them, and the way back.
_Grid = tuple[Callable[[str], int], Decimal, int, Callable[[int], Decimal]]


def _steps(value: object, name: str, grid: _Grid | None, errors: dict[str, str]) -> int:
    """The number in steps; 0, and an error, for one that the monolith would refuse.

    `grid` is None where the instrument is unknown: then only the number itself is judged.
    """
    if grid is not None and isinstance(value, str) and _NUMBER.fullmatch(value):
        try:
            steps = grid[0](value.removeprefix("+"))
        except NotExact:
            steps = 0
        if 0 < steps <= grid[2]:
            return steps
    if _blank(value):
        errors[name] = "can't be blank"
        return 0
    number = _number(value)
    if number is None:
        errors[name] = "is not a number"
    elif number <= 0:
        errors[name] = "must be greater than 0"
    elif grid is not None:
        return _whole_steps(number, name, grid, errors)
    return 0


def _whole_steps(number: Decimal, name: str, grid: _Grid, errors: dict[str, str]) -> int:
    convert, step, most, back = grid
    if not _is_multiple(number, step):
        errors[name] = f"must be a multiple of {_plain(step)}"
    elif number > back(most):
        errors[name] = f"must be less than or equal to {_plain(back(most))}"
    else:
        return convert(_plain(number))
    return 0


def _is_multiple(number: Decimal, step: Decimal) -> bool:
    """Exact however many digits there are, which `%` in a decimal context is not."""
    numerator, denominator = number.as_integer_ratio()
    step_numerator, step_denominator = step.as_integer_ratio()
    return (numerator * step_denominator) % (denominator * step_numerator) == 0


def _number(value: object) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int) or (isinstance(value, str) and _NUMBER.fullmatch(value)):
        return Decimal(value)
    return None


def _plain(number: Decimal) -> str:
    text = format(number, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _blank(value: object) -> bool:
    """Lists and objects are no scalars: strong parameters drop them."""
    return value is None or isinstance(value, list | dict) or value == "" or _is_space(value)


def _is_space(value: object) -> bool:
    return isinstance(value, str) and value.isspace()


def _id(text: str) -> int:
    number = int(text) if _ID.fullmatch(text) else 0
    return number if number <= _BIGINT_MAX else 0


def _root(route: Route) -> str:
    """The key that all the body's fields are in; "" where they are not in one."""
    for where in route.fields.values():
        head, dot, _ = where.partition(".")
        if dot and head not in ("path", "query"):
            return head
    return ""


def _wrapped(route: Route, root: str, given: Mapping[str, object]) -> dict[str, object]:
    """What ParamsWrapper makes of a JSON body without the root: the fields that it knows."""
    prefix = f"{root}."
    known = {where.removeprefix(prefix) for where in route.fields.values()}
    return {key: value for key, value in given.items() if key in known}


def _look_up(
    where: str,
    params: Mapping[str, object],
    path_params: Mapping[str, str],
    in_query: Mapping[str, object],
) -> tuple[bool, object]:
    at: object = params
    head, _, rest = where.partition(".")
    if head in ("path", "query") and rest:
        at, where = (path_params if head == "path" else in_query), rest
    for key in where.split("."):
        if not isinstance(at, Mapping) or key not in at:
            return False, None
        at = at[key]
    return True, at


def _body_params(content_type: str, body: bytes) -> tuple[dict[str, object], bool]:
    """The body's parameters, and whether they came as JSON. Raises ValueError when unreadable."""
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type in ("application/json", "text/x-json", "application/jsonrequest"):
        if not body:
            return {}, True
        try:
            value = _json.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise ValueError("unreadable JSON") from error
        return (value, True) if isinstance(value, dict) else ({"_json": value}, True)
    if media_type == "application/x-www-form-urlencoded":
        return _nested(body.decode()), False
    return {}, False


def _nested(encoded: str) -> dict[str, object]:
    """`order[price]=1&order[side]=buy` as Rack nests it; arrays are left out: no field is one."""
    result: dict[str, object] = {}
    if not encoded:
        return result
    for name, value in parse_qsl(encoded, keep_blank_values=True, errors="strict"):
        match = _KEY.fullmatch(name)
        if match is None:
            continue
        keys = [match[1], *re.findall(r"\[([^\[\]]+)\]", match[2])]
        at = result
        for key in keys[:-1]:
            inner = at.setdefault(key, {})
            if not isinstance(inner, dict):
                raise ValueError(f"{name!r} is both a value and a group")
            at = inner
        at[keys[-1]] = value
    return result
