"""How write-back says a value in a column's own form: the mapping read backwards, exactly, or a
reason why it can't.

In the statements `u` is the row of arrays: prices and quantities are numeric there, times are
timestamps in UTC, ids are bigint, all else is text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal

import msgspec
from psycopg import sql

from engine.types import Side
from shadow.legacy.convert import Scale, is_multiple, unit_of
from shadow.legacy.mapping import Amount, Enumerated, FillsTable, OrdersTable, Time
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.rows import ORDER_TYPES, TIMES_IN_FORCE
from shadow.legacy.words import has_value, value_of
from shadow.operation import Status

_INTEGERS = ("smallint", "integer", "bigint")
_INEXACT = ("real", "double precision", "money")
_PER_SECOND = {"epoch_s": 1, "epoch_ms": 1_000, "epoch_us": 1_000_000}


class Column(msgspec.Struct, frozen=True, kw_only=True):
    """As the database has it."""

    name: str
    type: str
    scale: int | None  # digits that a NUMERIC keeps after the point; None: as many as are given
    needed: bool  # NOT NULL without a default


class Said:
    """What is written into enumerated columns: one value may say several words."""

    def __init__(self, enumerated: Mapping[str, Enumerated]) -> None:
        by_column: dict[str, list[str]] = {}
        for name, one in enumerated.items():
            if one.column:
                by_column.setdefault(one.column, []).append(name)
        self.columns = {names[0]: column for column, names in by_column.items()}
        self._enumerated = enumerated
        self._names = {names[0]: names for names in by_column.values()}
        self._known: dict[tuple[str, ...], dict[str, str | None]] = {}

    def values(self, words: Mapping[str, str]) -> Mapping[str, str | None]:
        """By the name of each column's first word. Raises KeyError for what can't be said."""
        wanted = tuple(words.values())
        found = self._known.get(wanted)
        if found is None:
            found = self._known[wanted] = self._found(words)
        return found

    def _found(self, words: Mapping[str, str]) -> dict[str, str | None]:
        for name, one in self._enumerated.items():
            if not one.column and one.other != words[name]:
                raise KeyError(words[name])
        return {
            first: value_of([(self._enumerated[name], words[name]) for name in names])
            for first, names in self._names.items()
        }


def said_of_orders(orders: OrdersTable) -> Said:
    return Said({name: getattr(orders, name) for name in ("side", "ord_type", "tif", "status")})


def constants(table: OrdersTable | FillsTable) -> dict[str, str]:
    """What every new row is given besides its own values: so also what makes the filter see it."""
    single = {
        column: values[0]
        for column, values in table.where.items()
        if len(values) == 1 and column not in _enumerated_columns(table)
    }
    return single | table.write


def _enumerated_columns(table: OrdersTable | FillsTable) -> set[str]:
    if isinstance(table, FillsTable):
        return {table.taker_side.column}
    return {one.column for one in (table.side, table.ord_type, table.tif, table.status)}


def amount(value: sql.Composable, form: Amount) -> sql.Composable:
    if form.form != "integer":
        return value
    per_unit = unit_of(msgspec.structs.replace(form, exponent=-form.exponent))
    return sql.SQL("{} * {}::numeric").format(value, sql.Literal(per_unit))


def moment(value: sql.Composable, time: Time, column: Column) -> sql.Composable:
    if time.form == "timestamp":
        if time.zone == "UTC" or column.type != "timestamp without time zone":
            return value
        return sql.SQL("({} AT TIME ZONE 'UTC') AT TIME ZONE {}").format(
            value, sql.Literal(time.zone)
        )
    number = sql.SQL("extract(epoch FROM {}) * {}").format(
        value, sql.Literal(_PER_SECOND[time.form])
    )
    return sql.SQL("floor({})").format(number) if column.type in _INTEGERS else number


def cast(value: sql.Composable, column: Column) -> sql.Composed:
    # The type's text comes from format_type, which quotes what needs it.
    return sql.SQL("CAST({} AS {})").format(value, sql.SQL(column.type))


def troubles(
    mapping: LegacyMapping,
    orders: Mapping[str, Column],
    fills: Mapping[str, Column],
    scales: Sequence[Scale],
) -> Iterator[str]:
    """What can't be written, each in one clause."""
    yield from _no_way_back(mapping)
    yield from _unwritten_words(mapping)
    prices, quantities = [one.tick for one in scales], [one.lot for one in scales]
    totals = [one.tick * one.lot for one in scales]
    symbols = [one.symbol for one in scales]
    table = mapping.orders
    for form, steps in (
        (table.price, prices),
        (table.quantity, quantities),
        (table.leaves, quantities),
        (table.filled, quantities),
    ):
        yield from _too_coarse(table.table, orders, form, zip(symbols, steps, strict=True))
    met = mapping.fills
    for form, steps in ((met.price, prices), (met.quantity, quantities), (met.total, totals)):
        yield from _too_coarse(met.table, fills, form, zip(symbols, steps, strict=True))


def _too_coarse(
    table: str, columns: Mapping[str, Column], form: Amount, steps: Iterable[tuple[str, Decimal]]
) -> Iterator[str]:
    """A column with too few digits would round what the engine traded, and say nothing."""
    column = columns.get(form.column)
    if column is None:
        return
    if column.type in _INEXACT:
        yield f"{table}.{column.name} is {column.type}, which is not exact"
        return
    for symbol, smallest in steps:
        if form.form == "integer":
            if not is_multiple(smallest, unit_of(form)):
                yield (
                    f"{table}.{column.name} counts {unit_of(form)}, and {symbol} trades in"
                    f" {smallest:f}"
                )
        elif column.scale is not None and column.scale < _digits(smallest):
            yield (
                f"{table}.{column.name} keeps {column.scale} digits after the point, and {symbol}"
                f" trades in {_digits(smallest)}"
            )


def _digits(step: Decimal) -> int:
    return max(0, -int(step.normalize().as_tuple().exponent))


def _no_way_back(mapping: LegacyMapping) -> Iterator[str]:
    for key, form in (
        ("orders.id", mapping.orders.id.form),
        ("orders.account", mapping.orders.account.form),
        ("fills.id", mapping.fills.id.form),
    ):
        if form == "uuid":
            yield (
                f"mapping.{key} is a UUID, of which the engine knows 63 bits: such orders can be"
                " shadowed, and not be flipped"
            )


def _unwritten_words(mapping: LegacyMapping) -> Iterator[str]:
    """What clients may ask for, and what becomes of it."""
    orders, fills = mapping.orders, mapping.fills
    sides = [side.name.lower() for side in Side]
    wanted = (
        ("orders.side", orders.side, sides),
        ("orders.ord_type", orders.ord_type, _asked_for(mapping, "ord_type", ORDER_TYPES)),
        ("orders.tif", orders.tif, _asked_for(mapping, "tif", TIMES_IN_FORCE)),
        ("orders.status", orders.status, [Status.OPEN, Status.FILLED, Status.CANCELED]),
        ("fills.taker_side", fills.taker_side, sides if fills.taker_side.column else []),
    )
    for key, enumerated, needed in wanted:
        for word in needed:
            if not has_value(enumerated, word):
                yield f"mapping.{key} has no value for {str(word)!r}"


def _asked_for(mapping: LegacyMapping, field: str, words: Iterable[str]) -> list[str]:
    """Of our words, those that a request can say: none where no route of the mapping has it."""
    routes = [one for one in mapping.routes if one.action == "place"]
    if not any(field in one.fields or field in one.defaults for one in routes):
        return []
    theirs = getattr(mapping.words, field)
    return [one for one in words if one in theirs]
