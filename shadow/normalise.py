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
from typing import NamedTuple

import msgspec

from engine.types import Command, CommandKind, OrderType, Side, TimeInForce
from shadow.answer import id_of_uuid
from shadow.errors import NotExact
from shadow.legacy.convert import Scale
from shadow.legacy.keys import Form, number_of
from shadow.legacy.mapping import Route, Words
from shadow.params import body_params, nested
from shadow.refusals import Fault

_BIGINT_MAX = 2**63 - 1  # of ids and accounts in the monolith's database
_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")
_ID = re.compile(r"[0-9]{1,19}")
_SIDES = {"buy": Side.BUY, "sell": Side.SELL}
_ORDER_TYPES = {"market": OrderType.MARKET, "limit": OrderType.LIMIT}
_TIMES_IN_FORCE = {"gtc": TimeInForce.GTC, "ioc": TimeInForce.IOC}
_DEFAULT_ORDER_TYPE = "limit"
_DEFAULT_TIME_IN_FORCE = "gtc"
_OF_STATUS = {400: "bad_request", 401: "unauthorized", 403: "forbidden", 404: "not_found"}
_OFF_GRID = {"price": "price_off_tick", "quantity": "quantity_off_lot"}
_TOO_MUCH = {"price": "price_too_high", "quantity": "quantity_too_large"}


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The monolith's refusal. Without errors its body is the framework's own for that status."""

    status: int
    errors: tuple[
        tuple[str, str], ...
    ] = ()  # (the monolith's name of the field, message), in its order
    reasons: tuple[str, ...] = ()  # of `shadow.refusals`, one for each error

    @property
    def faults(self) -> tuple[Fault, ...]:
        if not self.errors:
            reason = _OF_STATUS.get(self.status, "")
            return (Fault(reason, "base", ""),) if reason else ()
        pairs = zip(self.reasons, self.errors, strict=False)
        return tuple(Fault(reason, *error) for reason, error in pairs)


class Fields(msgspec.Struct, frozen=True, kw_only=True):
    """The raw values of a request by our names; absent is what the request doesn't give."""

    route: Route
    values: dict[str, object]  # scalars as JSON had them (fractions as text); None was null
    each: tuple[Fields, ...] = ()  # of a bulk request: its elements, each as a request of its own
    unadapted: dict[str, object] | None = None  # the values before an adapter has seen them

    @property
    def as_sent(self) -> dict[str, object]:
        """What the monolith would read."""
        return self.values if self.unadapted is None else self.unadapted

    @property
    def symbols(self) -> frozenset[str]:
        """All instruments that it names, its elements' included."""
        named = {self.symbol, *(one.symbol for one in self.each)}
        return frozenset(symbol for symbol in named if symbol is not None)

    @property
    def symbol(self) -> str | None:
        """None where it names no instrument in any case."""
        value = self.values.get("symbol")
        return value if isinstance(value, str) else None


def account_of(header: str) -> int:
    """The account that an identity header names; 0 for none or an unreadable one."""
    return _id(header.strip(" \t"))


class Filter(NamedTuple):
    """Which of an account's open orders a cancel of everything is about."""

    symbol: str | None  # None: of every instrument
    side: int  # engine.types.Side; 0: both; below 0: a word that no order's side is

    def admits(self, symbol: str, side: int) -> bool:
        return self.symbol in (None, symbol) and self.side in (0, side)


def request_fields(
    route: Route,
    path_params: Mapping[str, str],
    query: str,
    content_type: str,
    body: bytes,
    *,
    method: str = "POST",
) -> Fields | Refusal:
    """`query` is what follows the question mark, still encoded; `method` is the request's own,
    whatever overrides it. A refusal has status 400.
    """
    try:
        given, is_json = body_params(content_type, method, body)
        in_query = nested(query.encode("latin-1", "replace"))
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
    sources = {"path": dict(path_params), "query": in_query}
    values = _values(route, params, sources, own=False)
    if not route.each:
        return Fields(route=route, values={**route.defaults, **values})
    items = _items(route, _look_up(route.each, params, sources)[1])
    if not items:
        return Refusal(status=400)
    each = (_values(route, {"each": item}, {}, own=True) for item in items)
    elements = tuple(
        Fields(route=route, values={**route.defaults, **values, **one}) for one in each
    )
    return Fields(route=route, values=values, each=elements)


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
    errors: _Errors = {}
    if scale is None:
        named = "symbol_missing" if _blank(values.get("symbol")) else "unknown_instrument"
        errors["symbol"] = named, "must exist"
    side = _word(values, "side", words.side, errors)
    ord_type = _word(values, "ord_type", words.ord_type, errors, default=_DEFAULT_ORDER_TYPE)
    if ord_type == "market":
        tif: str | None = "ioc"
        price_ticks = 0
        if not _blank(values.get("price")):
            errors["price"] = "price_forbidden", "must be blank"
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


def order_id_of(fields: Fields, form: Form = "integer") -> int:
    """Of a cancel or a read; 0 for what can't be an order's id."""
    value = fields.values.get("order_id")
    if not isinstance(value, str | int) or isinstance(value, bool):
        return 0
    if form == "integer":
        return _id(str(value)) or id_of_uuid(str(value))
    return number_of(str(value), form)


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


def cancel_filter(fields: Fields, words: Words) -> Filter | Refusal:
    """Of a cancel of everything: a blank value filters nothing, a list is refused."""
    symbol, side = fields.values.get("symbol"), fields.values.get("side")
    if any(value is not None and not isinstance(value, str) for value in (symbol, side)):
        return Refusal(status=400)
    code = 0
    if not _blank(side):
        ours = (word for word, theirs in words.side.items() if theirs == side)
        code = next((int(_SIDES[word]) for word in ours), -1)
    return Filter(None if _blank(symbol) else str(symbol), code)


# Our name of a field -> (reason, message).
_Errors = dict[str, tuple[str, str]]


def _invalid(route: Route, errors: _Errors) -> Refusal:
    names = ("symbol", "side", "ord_type", "tif", "price", "quantity")
    wrong = [(route.leaf(name), *errors[name]) for name in names if name in errors]
    return Refusal(
        status=422,
        errors=tuple((leaf, message) for leaf, _, message in wrong),
        reasons=tuple(reason for _, reason, _ in wrong),
    )


def _word(
    values: Mapping[str, object],
    name: str,
    words: Mapping[str, str],
    errors: _Errors,
    default: str | None = None,
) -> str | None:
    """Our word for theirs."""
    if default is not None and name not in values:
        return default
    given = values.get(name)
    for ours, theirs in words.items():
        if given == theirs:
            return ours
    missing = name == "side" and _blank(given)
    reason = "side_missing" if missing else f"invalid_{name}"
    errors[name] = reason, "is not included in the list"
    return None


def _price(value: object, scale: Scale | None, errors: _Errors) -> int:
    if scale is None:
        return _steps(value, "price", None, errors)
    return _steps(
        value, "price", (scale.ticks, scale.tick, scale.price_ticks_max, scale.price), errors
    )


def _quantity(value: object, scale: Scale | None, errors: _Errors) -> int:
    if scale is None:
        return _steps(value, "quantity", None, errors)
    return _steps(
        value, "quantity", (scale.lots, scale.lot, scale.qty_lots_max, scale.quantity), errors
    )


# How a number becomes steps, one step, the most of them, and the way back.
_Grid = tuple[Callable[[str], int], Decimal, int, Callable[[int], Decimal]]


def _steps(value: object, name: str, grid: _Grid | None, errors: _Errors) -> int:
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
        errors[name] = f"{name}_missing", "can't be blank"
        return 0
    number = _number(value)
    if number is None:
        errors[name] = f"{name}_not_a_number", "is not a number"
    elif number <= 0:
        errors[name] = f"{name}_not_positive", "must be greater than 0"
    elif grid is not None:
        return _whole_steps(number, name, grid, errors)
    return 0


def _whole_steps(number: Decimal, name: str, grid: _Grid, errors: _Errors) -> int:
    convert, step, most, back = grid
    if not _is_multiple(number, step):
        errors[name] = _OFF_GRID[name], f"must be a multiple of {_plain(step)}"
    elif number > back(most):
        errors[name] = _TOO_MUCH[name], f"must be less than or equal to {_plain(back(most))}"
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
    """The key that all the body's fields are in; "" where they are not, or need not be, in one."""
    root = ""
    for where in (route.each, *(route.places(field)[0] for field in route.fields)):
        head, dot, _ = where.partition(".")
        if dot and head not in ("path", "query") and not (route.each and _is_own(where)):
            root = head
            break
    for several in route.fields.values():
        if isinstance(several, tuple) and any(_is_elsewhere(route, one, root) for one in several):
            return ""
    return root


def _is_elsewhere(route: Route, where: str, root: str) -> bool:
    head = where.partition(".")[0]
    return head not in (root, "path", "query") and not (route.each and _is_own(where))


def _is_own(where: str) -> bool:
    """Of each element of a bulk request."""
    return where == "each" or where.startswith("each.")


def _wrapped(route: Route, root: str, given: Mapping[str, object]) -> dict[str, object]:
    """What ParamsWrapper makes of a JSON body without the root: the fields that it knows."""
    places = (where.split(".") for where in (route.each, *route.all_places))
    known = {place[1] for place in places if place[0] == root and len(place) > 1}
    return {key: value for key, value in given.items() if key in known}


def _items(route: Route, found: object) -> list[object]:
    """A bulk request's elements, as strong parameters leave them: JSON's nulls are taken out of
    every list, and what is no object out of a list of objects; a list of plain values that has
    others in it is none at all.
    """
    items = [item for item in found if item is not None] if isinstance(found, list) else []
    if "each" in route.all_places:
        return [] if any(isinstance(item, list | dict) for item in items) else items
    return [item for item in items if isinstance(item, dict)]


def _values(
    route: Route,
    params: dict[str, object],
    sources: Mapping[str, dict[str, object]],
    *,
    own: bool,
) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, several in route.fields.items():
        for where in (several,) if isinstance(several, str) else several:
            if route.each and _is_own(where) is not own:
                continue
            found, value = _look_up(where, params, sources)
            if found:
                values[name] = value
                break
    return values


def _look_up(
    where: str, params: dict[str, object], sources: Mapping[str, dict[str, object]]
) -> tuple[bool, object]:
    at: object = params
    head, _, rest = where.partition(".")
    if rest and head in sources:
        at, where = sources[head], rest
    for key in where.split("."):
        if not isinstance(at, dict) or key not in at:
            return False, None
        at = at[key]
    return True, at
