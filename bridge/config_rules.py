"""What `railswitch.toml` must satisfy beyond its shape: unique names, exact numbers, known words.

Pure: takes a Config, returns sentences.
"""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from shadow.legacy.mapping import Enumerated, InstrumentConfig, Route
from shadow.verdict import Kind

if TYPE_CHECKING:
    from bridge.config import Config

IMPLEMENTATIONS = ("", "python", "rust")
ROLES = ("trade", "shadow", "admin", "read-only")
SYMBOL_BYTES_MAX = 16  # the name travels in 16 bytes of an INSTRUMENT command
ENGINE_INTEGER_MAX = 2**63 - 1  # prices are signed 64-bit ticks

_COLUMN_WORDS = {
    "side": {"buy", "sell"},
    "ord_type": {"limit", "market"},
    "tif": {"gtc", "ioc"},
    "status": {"pending", "open", "filled", "canceled", "rejected"},
    "taker_side": {"buy", "sell"},
}
_ROUTE_FIELDS = {
    "place": {"symbol", "side", "ord_type", "price", "quantity"},
    "cancel": {"order_id"},
    "read": {"order_id"},
}
_ORDER_VALUES = {
    *("id", "symbol", "side", "ord_type", "tif", "price", "quantity", "leaves", "filled"),
    *("status", "created_at", "updated_at", "fills"),
}
_FILL_VALUES = {"price", "quantity", "maker_order_id", "taker_order_id"}


def host_port(listen: str) -> tuple[str, int]:
    """ "127.0.0.1:8300" -> ("127.0.0.1", 8300). Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not host:port")
    return host.strip("[]"), int(port)


def broken_rules(config: Config) -> list[str]:
    return [
        *_listens(config),
        *_instruments(config.instruments),
        *_engine(config),
        *_enumerations(config),
        *_routes(config.mapping.routes),
        *_responses(config),
        *_numbers(config),
        *_known(config),
        *_urls(config),
    ]


def _listens(config: Config) -> Iterator[str]:
    for key, listen in (
        ("control.listen", config.control.listen),
        ("engine.listen", config.engine.listen),
        ("proxy.listen", config.proxy.listen),
    ):
        try:
            host_port(listen)
        except ValueError as error:
            yield f"`{key}`: {error}, e.g. 127.0.0.1:8300"


def _instruments(instruments: tuple[InstrumentConfig, ...]) -> Iterator[str]:
    if not instruments:
        yield "`instruments`: at least one [[instruments]] is needed"
    for name in ("symbol", "id"):
        for value, times in Counter(getattr(one, name) for one in instruments).items():
            if times > 1:
                yield f"`instruments`: {name} {value!r} is given {times} times"
    for n, one in enumerate(instruments):
        where = f"`instruments[{n}]` ({one.symbol})"
        if not 1 <= len(one.symbol.encode()) <= SYMBOL_BYTES_MAX:
            yield f"{where}: the symbol must be 1 to {SYMBOL_BYTES_MAX} bytes long"
        if not 1 <= one.id < 2**32:
            yield f"{where}: id must be from 1 to {2**32 - 1}"
        yield from _grid(where, "tick", one.tick, "price_max", one.price_max)
        yield from _grid(where, "lot", one.lot, "quantity_max", one.quantity_max)


def _grid(where: str, step_key: str, step: str, most_key: str, most: str) -> Iterator[str]:
    """The largest value must be a whole number of steps that the engine's integers can hold."""
    numbers = [_decimal(step), _decimal(most)]
    for key, text, number in zip((step_key, most_key), (step, most), numbers, strict=True):
        if number is None:
            yield f'{where}: {key} = "{text}" is not a positive decimal such as "0.01"'
    if numbers[0] is None or numbers[1] is None:
        return
    steps = numbers[1] / numbers[0]
    if steps != steps.to_integral_value():
        yield f'{where}: {most_key} = "{most}" is no multiple of {step_key} = "{step}"'
    elif steps > ENGINE_INTEGER_MAX:
        yield f"{where}: {most_key} is {steps} times {step_key}; at most {ENGINE_INTEGER_MAX} fit"


def _decimal(text: str) -> Decimal | None:
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() and number > 0 else None


def _engine(config: Config) -> Iterator[str]:
    if config.engine.implementation not in IMPLEMENTATIONS:
        yield f'`engine.implementation`: "{config.engine.implementation}" is not "python" or "rust"'
    if not 1 <= config.engine.shard < 2**16:
        yield "`engine.shard`: must be from 1 to 65535"
    roles = [key.role for key in config.engine.keys]
    for n, key in enumerate(config.engine.keys):
        if key.role not in ROLES:
            yield f'`engine.keys[{n}].role`: "{key.role}" is not one of {", ".join(ROLES)}'
        if len(key.key) < 16:
            yield f"`engine.keys[{n}].key`: a key needs 16 characters or more"
    missing = [role for role in ROLES if role not in roles]
    if roles and missing:
        yield f"`engine.keys`: no key for {', '.join(missing)}; give one for each role, or none"


def _enumerations(config: Config) -> Iterator[str]:
    orders, fills = config.mapping.orders, config.mapping.fills
    for table, key, column in (
        ("orders", "side", orders.side),
        ("orders", "ord_type", orders.ord_type),
        ("orders", "tif", orders.tif),
        ("orders", "status", orders.status),
        ("fills", "taker_side", fills.taker_side),
    ):
        yield from _enumeration(f"mapping.{table}.{key}", column, _COLUMN_WORDS[key])
    if not orders.priority:
        yield "`mapping.orders.priority`: name the columns that order the queue of one price"


def _enumeration(where: str, column: Enumerated, words: set[str]) -> Iterator[str]:
    for value, word in column.map.items():
        if word not in words:
            valid = ", ".join(sorted(words))
            yield f'`{where}.map`: "{value}" = "{word}": the word must be one of {valid}'
    needed = words - {"pending", "rejected"}
    missing = needed - set(column.map.values())
    if missing:
        yield f"`{where}.map`: no value means {', '.join(sorted(missing))}"


def _routes(routes: tuple[Route, ...]) -> Iterator[str]:
    for n, route in enumerate(routes):
        where = f"`mapping.routes[{n}]` ({route.action} {route.path})"
        if not route.path.startswith("/"):
            yield f"{where}: the path must start with /"
        missing = _ROUTE_FIELDS[route.action] - set(route.fields)
        if missing:
            yield f"{where}: fields lacks {', '.join(sorted(missing))}"
        placeholders = set(re.findall(r":(\w+)", route.path))
        for field, source in route.fields.items():
            if source.startswith("path.") and source[5:] not in placeholders:
                yield f'{where}: field {field} = "{source}", but the path has no :{source[5:]}'
    for action in ("place", "cancel"):
        if not any(route.action == action for route in routes):
            yield f'`mapping.routes`: no route with action = "{action}"'


def _responses(config: Config) -> Iterator[str]:
    responses, words = config.mapping.responses, config.mapping.words
    for where, values, valid in (
        ("order", responses.order, _ORDER_VALUES),
        ("fill", responses.fill, _FILL_VALUES),
    ):
        for key, value in values.items():
            if value not in valid:
                yield (
                    f'`mapping.responses.{where}.{key}` = "{value}" is not one of '
                    f"{', '.join(sorted(valid))}"
                )
    for name in ("side", "ord_type", "tif", "status"):
        needed = _COLUMN_WORDS[name] - {"pending", "rejected"}
        missing = needed - set(getattr(words, name))
        if missing:
            yield f"`mapping.words.{name}`: lacks {', '.join(sorted(missing))}"


def _numbers(config: Config) -> Iterator[str]:
    if config.proxy.workers < 1:
        yield "`proxy.workers`: at least 1"
    if not 0 < config.gate.coverage_min <= 1:
        yield "`gate.coverage_min`: a share, above 0 and at most 1"
    if config.gate.operations_min < 1 or config.gate.fills_min < 1:
        yield "`gate.operations_min` and `gate.fills_min`: at least 1, for no data never passes"
    if config.flip.hold_ms_max < 1:
        yield "`flip.hold_ms_max`: at least 1"


def _known(config: Config) -> Iterator[str]:
    kinds, symbols = {str(kind) for kind in Kind}, {one.symbol for one in config.instruments}
    for n, rule in enumerate(config.known):
        where = f"`known[{n}]` ({rule.id})"
        for kind in set(rule.kinds) - kinds:
            yield f'{where}: kind "{kind}" is not one of {", ".join(sorted(kinds))}'
        for symbol in set(rule.symbols) - symbols:
            yield f'{where}: symbol "{symbol}" is no configured instrument'
        try:
            datetime.date.fromisoformat(rule.expires)
        except ValueError:
            yield f'{where}: expires = "{rule.expires}" is not a date such as "2030-12-31"'
        if rule.hits_max < 1:
            yield f"{where}: hits_max must be at least 1"


def _urls(config: Config) -> Iterator[str]:
    for key, url, schemes in (
        ("legacy.database_url", config.legacy.database_url, ("postgresql", "postgres")),
        ("legacy.install_url", config.legacy.install_url, ("postgresql", "postgres", "")),
        ("legacy.upstream", config.legacy.upstream, ("http",)),
        ("control.database_url", config.control.database_url, ("postgresql", "postgres", "")),
        ("redis.url", config.redis.url, ("redis", "rediss", "unix", "")),
    ):
        if urlsplit(url).scheme not in schemes:
            yield f"`{key}` must begin with {schemes[0]}://"
