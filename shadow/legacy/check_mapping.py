"""What is wrong with a mapping or the list of instruments, found before anything is read. Pure.

Whether the tables and columns exist is `doctor`'s question: it needs the database.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from shadow import answer_values, refusals
from shadow.errors import NotExact
from shadow.legacy import funds
from shadow.legacy.check_tables import WORDS, fill_problems, listed, order_problems
from shadow.legacy.convert import scales
from shadow.legacy.mapping import (
    InstrumentConfig,
    Mapping,
    Responses,
    Route,
    Words,
)
from shadow.legacy.paths import PLACEHOLDER, pattern_of
from shadow.limits import SYMBOL_BYTES_MAX

# Of a route's fields: those that it may have, and those that it must.
_FIELDS = {
    "place": (
        ("symbol", "side", "ord_type", "tif", "price", "quantity"),
        ("symbol", "side", "price", "quantity"),
    ),
    "cancel": (("order_id",), ("order_id",)),
    "cancel_all": (("symbol", "side"), ()),
    "read": (("order_id",), ("order_id",)),
}
_METHODS = ("DELETE", "GET", "PATCH", "POST", "PUT")
_PATH = re.compile(r"(/[A-Za-z0-9_.~!$&'+,=@:-]+)+")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def problems(mapping: Mapping, instruments: Sequence[InstrumentConfig]) -> list[str]:
    """One sentence for each, naming the key; [] for a mapping that can be used."""
    return [
        *_instruments(instruments),
        *order_problems(mapping.orders, instruments),
        *fill_problems(mapping.fills, instruments),
        *_routes(mapping.routes),
        *_defaults(mapping),
        *_identity(mapping),
        *_words(mapping.words),
        *funds.problems(mapping, instruments),
        *_responses(mapping.responses),
        *answer_values.problems(mapping.responses, instruments),
        *refusals.problems(mapping.errors),
        *_later(mapping),
        *_adapter(mapping.adapter),
    ]


def _later(mapping: Mapping) -> Iterator[str]:
    """What only a monolith that matches later can be told of."""
    if mapping.market_buy == "quantity":
        return
    if mapping.matching != "later":
        yield (
            f'`mapping.market_buy` = "{mapping.market_buy}" is for `mapping.matching` = "later": '
            "leave it out"
        )
    elif not mapping.orders.funds.column:
        yield (
            f'`mapping.market_buy` = "{mapping.market_buy}" needs `mapping.orders.funds`: the '
            "column with what an order may spend"
        )


def _instruments(instruments: Sequence[InstrumentConfig]) -> Iterator[str]:
    if not instruments:
        yield "`instruments`: at least one [[instruments]] is needed"
    for key in ("symbol", "id"):
        for value, times in Counter(getattr(one, key) for one in instruments).items():
            if times > 1:
                yield f"`instruments`: {key} {value!r} is given {times} times"
    for n, one in enumerate(instruments):
        where = f"`instruments[{n}]` ({one.symbol})"
        if not 1 <= len(one.symbol.encode()) <= SYMBOL_BYTES_MAX or "\0" in one.symbol:
            yield f"{where}: symbol must be 1 to {SYMBOL_BYTES_MAX} bytes long"
        if not 1 <= one.id < 2**32:
            yield f"{where}: id must be from 1 to {2**32 - 1}"
        try:
            scale = scales([one])[one.symbol]
        except NotExact as error:
            yield (
                f'{where}: {error}; tick and lot are positive decimals such as "0.01", price_max'
                " and quantity_max multiples of them that fit 64 bits"
            )
        else:
            if not scale.price_ticks_max:
                yield f"{where}: price_max must be at least one tick"
            if not scale.qty_lots_max:
                yield f"{where}: quantity_max must be at least one lot"


def _routes(routes: Sequence[Route]) -> Iterator[str]:
    # A bulk request that concerns both sides is sent to the monolith order by order: by these.
    for action in ("place", "cancel"):
        if not any(route.action == action and not route.each for route in routes):
            yield f'`mapping.routes`: no route has action = "{action}" and no each'
    for (method, path), times in Counter((one.method, one.path) for one in routes).items():
        if times > 1:
            yield f"`mapping.routes`: {method} {path} is given {times} times"
    before: list[Route] = []
    for n, route in enumerate(routes):
        where = f"`mapping.routes[{n}]` ({route.action} {route.path})"
        wrong = list(_path(where, route.path))
        yield from wrong or _hidden(where, route, before)
        if not wrong:
            before.append(route)
        yield from _route(where, route)


def _path(where: str, path: str) -> Iterator[str]:
    if not path.startswith("/"):
        yield f"{where}: path must begin with /"
    elif not _PATH.fullmatch(path):
        yield (
            f"{where}: path must be one or more pieces of letters, digits and -_.~!$&'+,=@, each"
            ' after one slash; a placeholder is ":name", a format suffix and a slash at the end'
            " always fit"
        )
    names = PLACEHOLDER.findall(path)
    if path.count(":") != len(names) or len(set(names)) != len(names):
        yield f'{where}: each ":" of the path must begin a name of its own'


def _hidden(where: str, route: Route, before: Sequence[Route]) -> Iterator[str]:
    """As in Rails the first route that fits counts: a later one must not stand behind it."""
    sample = PLACEHOLDER.sub("x", route.path).encode()
    for one in before:
        alike = one.method == route.method and one.path != route.path
        if alike and pattern_of(one.path).fullmatch(sample):
            yield f"{where}: {one.method} {one.path} stands before it and takes its requests"


def _route(where: str, route: Route) -> Iterator[str]:
    if route.method not in _METHODS:
        yield f'{where}: method = "{route.method}" is not one of {listed(_METHODS)}'
    known, needed = _FIELDS[route.action]
    for field in route.fields.keys() - set(known):
        yield f'{where}: field "{field}" is not one of {listed(known)}'
    yield from _lacks(f"{where}: fields lacks", needed, {**route.fields, **route.defaults})
    yield from _each(where, route)
    placeholders = PLACEHOLDER.findall(route.path)
    for field in route.fields:
        if not route.places(field):
            yield f"{where}: {field} does not say where the value is"
    for field, source in _sources(route):
        if source.startswith("path.") and source[5:] not in placeholders:
            yield f'{where}: {field} = "{source}", but the path has no :{source[5:]}'
        elif not all(source.split(".")):
            yield f'{where}: {field} = "{source}" does not say where the value is'


def _each(where: str, route: Route) -> Iterator[str]:
    own = {field for field, source in _sources(route) if _is_own(source)}
    if not route.each:
        for field, source in _sources(route):
            if _is_own(source):
                yield f'{where}: {field} = "{source}", but the route has no each'
        return
    if route.action not in ("place", "cancel"):
        yield f"{where}: each is of bulk place and cancel routes, not of {route.action}"
    if not all(route.each.split(".")) or route.each.startswith("path."):
        yield f'{where}: each = "{route.each}" does not say where the list is'
    if not own or (route.action == "cancel" and "order_id" not in own):
        yield f'{where}: no field begins with "each", so that all elements would be alike'
    if "each" in route.all_places and len(own) > 1:
        yield f'{where}: an element that is a value ("each") has no fields of its own ("each.…")'


def _sources(route: Route) -> Iterator[tuple[str, str]]:
    for field in route.fields:
        yield from ((field, source) for source in route.places(field))


def _defaults(mapping: Mapping) -> Iterator[str]:
    for n, route in enumerate(mapping.routes):
        where = f"`mapping.routes[{n}]` ({route.action} {route.path})"
        known = _FIELDS[route.action][0]
        for field, value in route.defaults.items():
            if field not in known:
                yield f'{where}: default "{field}" is not one of {listed(known)}'
            elif field in ("side", "ord_type", "tif"):
                theirs = getattr(mapping.words, field).values()
                if value not in theirs:
                    yield (
                        f'{where}: the default {field} = "{value}" is none of the words of'
                        f" `mapping.words.{field}`: {listed(theirs)}"
                    )


def _adapter(adapter: str) -> Iterator[str]:
    module, _, name = adapter.rpartition(":")
    if adapter and not (module and name.isidentifier()):
        yield f'`mapping.adapter` = "{adapter}" is not "module:Class"'


def _is_own(source: str) -> bool:
    return source == "each" or source.startswith("each.")


def _identity(mapping: Mapping) -> Iterator[str]:
    if not _HEADER.fullmatch(mapping.identity_header):
        yield f'`mapping.identity_header` = "{mapping.identity_header}" is no name of a header'


def _words(words: Words) -> Iterator[str]:
    for key in ("side", "ord_type", "tif", "status"):
        where, theirs = f"`mapping.words.{key}`", getattr(words, key)
        known, needed = WORDS[key]
        for word in theirs.keys() - set(known):
            yield f'{where}: "{word}" is not one of {listed(known)}'
        yield from _lacks(f"{where} lacks", needed, theirs)
        for word, times in Counter(theirs.values()).items():
            if times > 1:
                yield f'{where}: {times} of our words are "{word}", which can\'t be told apart'


def _responses(responses: Responses) -> Iterator[str]:
    statuses = ("placed_status", "canceled_status", "placed_many_status", "canceled_many_status")
    for key in statuses:
        if not 200 <= getattr(responses, key) < 300:
            yield f"`mapping.responses.{key}` must be from 200 to 299"
    # By it the comparison finds the order that a captured answer speaks of.
    shown = answer_values.names_of(responses.order)
    yield from _lacks("`mapping.responses.order` lacks", ("id",), shown)


def _lacks(where: str, needed: Iterable[str], present: Iterable[str]) -> Iterator[str]:
    missing = set(needed) - set(present)
    if missing:
        yield f"{where} {listed(missing)}"
