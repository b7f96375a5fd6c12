"""Conditions on the monolith's rows, as SQL: the same that `words` and `symbols` say of a row that
was read. Values are untyped literals, so that an index on the column serves whatever its type.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import sql

from shadow.legacy.database import literals
from shadow.legacy.mapping import Enumerated, Symbol
from shadow.legacy.symbols import values_of
from shadow.legacy.words import Where

NEVER = sql.SQL("false")
ALWAYS = sql.SQL("true")


def is_inside(where: Where, row: str = "") -> sql.Composable:
    """`row`: the name that the query gives the row; "" where it needs none."""
    parts = [_in(column, values, row) for column, values in where.items()]
    return sql.SQL(" AND ").join(parts) if parts else ALWAYS


def is_of(symbol: Symbol, names: Iterable[str]) -> sql.Composable:
    """The row is of one of these instruments."""
    return _in(symbol.column, [value for name in names for value in values_of(symbol, name)])


def says(enumerated: Enumerated, word: str) -> sql.Composable:
    """The column says our word."""
    if not enumerated.column:
        return ALWAYS if enumerated.other == word else NEVER
    column = sql.Identifier(enumerated.column)
    parts: list[sql.Composable] = []
    values = [value for value, ours in enumerated.map.items() if ours == word]
    if values:
        parts.append(_in(enumerated.column, values))
    if enumerated.null == word:
        parts.append(sql.SQL("{} IS NULL").format(column))
    if enumerated.other == word:
        named = sql.SQL(" AND {} NOT IN ({})").format(column, literals(enumerated.map))
        parts.append(
            sql.SQL("({} IS NOT NULL{})").format(column, named if enumerated.map else sql.SQL(""))
        )
    return sql.SQL("({})").format(sql.SQL(" OR ").join(parts)) if parts else NEVER


def column_of(name: str, row: str = "") -> sql.Composable:
    if not row:
        return sql.Identifier(name)
    return sql.SQL("{}.{}").format(sql.SQL(row), sql.Identifier(name))


def _in(column: str, values: Iterable[str], row: str = "") -> sql.Composable:
    listed = list(values)
    if not listed:
        return NEVER
    return sql.SQL("({} IN ({}))").format(column_of(column, row), literals(listed))
