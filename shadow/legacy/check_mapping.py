"""What is wrong with a mapping or the list of instruments, found before anything is read. Pure.

Whether the tables and columns exist is `doctor`'s question: it needs the database.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from shadow.errors import NotExact
from shadow.legacy.convert import scales
from shadow.legacy.mapping import (
    Enumerated,
    FillsTable,
    InstrumentConfig,
    Mapping,
    OrdersTable,
    Responses,
    Route,
    Words,
)
from shadow.legacy.rows import ORDER_TYPES, SIDES, STATUSES, TIMES_IN_FORCE
from shadow.limits import SYMBOL_BYTES_MAX

# Our words for the values of a column, and those that no monolith can do without.
_WORDS = {
    "side": (tuple(SIDES), ("buy", "sell")),
    "ord_type": (tuple(ORDER_TYPES), ("limit",)),
    "tif": (tuple(TIMES_IN_FORCE), ("gtc",)),
    "status": (tuple(STATUSES), ("open", "filled", "canceled")),
    "taker_side": (tuple(SIDES), ("buy", "sell")),
}
# Of a route's fields: those that it may have, and those that it must.
_FIELDS = {
    "place": (
        ("symbol", "side", "ord_type", "tif", "price", "quantity"),
        ("symbol", "side", "price", "quantity"),
    ),
    "cancel": (("order_id",), ("order_id",)),
    "read": (("order_id",), ("order_id",)),
}
_ORDER_VALUES = (
    *("id", "symbol", "side", "ord_type", "tif", "price", "quantity", "leaves", "filled"),
    *("status", "created_at", "updated_at", "fills"),
)
_FILL_VALUES = ("price", "quantity", "maker_order_id", "taker_order_id")
_TABLE = re.compile(r"[^.]+(\.[^.]+)?")
_PLACEHOLDER = re.compile(r":(\w+)")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def problems(mapping: Mapping, instruments: Sequence[InstrumentConfig]) -> list[str]:
    """One sentence for each, naming the key; [] for a mapping that can be used."""
    return [
        *_instruments(instruments),
        *_orders(mapping.orders),
        *_fills(mapping.fills),
        *_routes(mapping.routes),
        *_identity(mapping),
        *_words(mapping.words),
        *_responses(mapping.responses),
    ]


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


def _orders(orders: OrdersTable) -> Iterator[str]:
    where = "mapping.orders"
    yield from _table(where, orders.table)
    if not _TABLE.fullmatch(orders.id_sequence):
        yield f'`{where}.id_sequence` = "{orders.id_sequence}" is no name of a sequence'
    columns = {
        key: getattr(orders, key)
        for key in ("id", "symbol", "account", "price", "quantity", "leaves", "created_at")
    }
    yield from _columns(where, columns | {"updated_at": orders.updated_at})
    for key in ("side", "ord_type", "tif", "status"):
        yield from _enumerated(f"{where}.{key}", key, getattr(orders, key))
    if not orders.priority:
        yield f"`{where}.priority`: name the columns that order the queue of one price"
    elif orders.priority[-1] != orders.id:
        yield f'`{where}.priority` must end with "{orders.id}", so that no two orders tie'


def _fills(fills: FillsTable) -> Iterator[str]:
    where = "mapping.fills"
    yield from _table(where, fills.table)
    keys = ("id", "symbol", "maker_order", "taker_order", "price", "quantity", "created_at")
    yield from _columns(where, {key: getattr(fills, key) for key in keys})
    yield from _enumerated(f"{where}.taker_side", "taker_side", fills.taker_side)


def _table(where: str, name: str) -> Iterator[str]:
    if not _TABLE.fullmatch(name):
        yield f'`{where}.table` = "{name}" is neither "table" nor "schema.table"'


def _columns(where: str, columns: dict[str, str]) -> Iterator[str]:
    for key, column in columns.items():
        if not column:
            yield f"`{where}.{key}` names no column"
    for column, times in Counter(columns.values()).items():
        if times > 1 and column:
            keys = " and ".join(key for key, one in columns.items() if one == column)
            yield f'`{where}`: {keys} all name column "{column}"'


def _enumerated(where: str, key: str, enumerated: Enumerated) -> Iterator[str]:
    """Several values of the database may mean one word; which one is written is the first."""
    if not enumerated.column:
        yield f"`{where}.column` names no column"
    known, needed = _WORDS[key]
    for value, word in enumerated.map.items():
        if word not in known:
            yield f'`{where}.map`: "{value}" = "{word}", but the words are {_listed(known)}'
    yield from _lacks(f"`{where}.map`: no value means", needed, enumerated.map.values())


def _routes(routes: Sequence[Route]) -> Iterator[str]:
    for action in ("place", "cancel"):
        if not any(route.action == action for route in routes):
            yield f'`mapping.routes`: no route has action = "{action}"'
    for (method, path), times in Counter((one.method, one.path) for one in routes).items():
        if times > 1:
            yield f"`mapping.routes`: {method} {path} is given {times} times"
    for n, route in enumerate(routes):
        yield from _route(f"`mapping.routes[{n}]` ({route.action} {route.path})", route)


def _route(where: str, route: Route) -> Iterator[str]:
    if not route.path.startswith("/"):
        yield f"{where}: path must begin with /"
    if not (route.method.isalpha() and route.method.isupper()):
        yield f'{where}: method = "{route.method}" is no HTTP method in capitals'
    known, needed = _FIELDS[route.action]
    for field in route.fields.keys() - set(known):
        yield f'{where}: field "{field}" is not one of {_listed(known)}'
    yield from _lacks(f"{where}: fields lacks", needed, route.fields)
    placeholders = _PLACEHOLDER.findall(route.path)
    for field, source in route.fields.items():
        if source.startswith("path.") and source[5:] not in placeholders:
            yield f'{where}: {field} = "{source}", but the path has no :{source[5:]}'
        elif not all(source.split(".")):
            yield f'{where}: {field} = "{source}" does not say where the value is'


def _identity(mapping: Mapping) -> Iterator[str]:
    if not _HEADER.fullmatch(mapping.identity_header):
        yield f'`mapping.identity_header` = "{mapping.identity_header}" is no name of a header'


def _words(words: Words) -> Iterator[str]:
    for key in ("side", "ord_type", "tif", "status"):
        where, theirs = f"`mapping.words.{key}`", getattr(words, key)
        known, needed = _WORDS[key]
        for word in theirs.keys() - set(known):
            yield f'{where}: "{word}" is not one of {_listed(known)}'
        yield from _lacks(f"{where} lacks", needed, theirs)
        for word, times in Counter(theirs.values()).items():
            if times > 1:
                yield f'{where}: {times} of our words are "{word}", which can\'t be told apart'


def _responses(responses: Responses) -> Iterator[str]:
    for key in ("placed_status", "canceled_status"):
        if not 200 <= getattr(responses, key) < 300:
            yield f"`mapping.responses.{key}` must be from 200 to 299"
    for where, values, known in (
        ("order", responses.order, _ORDER_VALUES),
        ("fill", responses.fill, _FILL_VALUES),
    ):
        for key, value in values.items():
            if value not in known:
                yield (
                    f'`mapping.responses.{where}.{key}` = "{value}" is not one of {_listed(known)}'
                )
    # By it the comparison finds the order that a captured answer speaks of.
    yield from _lacks("`mapping.responses.order` lacks", ("id",), responses.order.values())


def _lacks(where: str, needed: Iterable[str], present: Iterable[str]) -> Iterator[str]:
    missing = set(needed) - set(present)
    if missing:
        yield f"{where} {_listed(missing)}"


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
