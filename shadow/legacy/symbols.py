"""Which instrument a row is of, where the column's value is not the symbol itself."""

from __future__ import annotations

import msgspec
from psycopg import AsyncConnection, sql
from psycopg.rows import TupleRow

from shadow.errors import LegacyNotReady
from shadow.legacy.database import connected, table, target, translated
from shadow.legacy.mapping import Mapping, Symbol
from shadow.limits import QUERY_S, SYMBOLS_READ_MAX


def symbol_of(symbol: Symbol, value: str) -> str:
    """The symbol that a value of the column stands for; "" for a value that is not in the map.

    >>> symbol_of(Symbol(column="market_id"), "BTC-USD")
    'BTC-USD'
    >>> symbol_of(Symbol(column="market_id", map={"3": "BTC-USD"}), "4")
    ''
    """
    return symbol.map.get(value, "") if symbol.map else value


def values_of(symbol: Symbol, name: str) -> tuple[str, ...]:
    """The column's values for a symbol, the one that is written first; () when there is none.

    >>> values_of(Symbol(column="market_id", map={"3": "BTC-USD", "4": "ETH-USD"}), "BTC-USD")
    ('3',)
    """
    if not symbol.map:
        return (name,)
    return tuple(value for value, ours in symbol.map.items() if ours == name)


def tables_of(mapping: Mapping) -> tuple[str, ...]:
    """Other tables that name the instruments: nothing can be read before `resolved` has looked
    there.
    """
    named = (mapping.orders.symbol.table, mapping.fills.symbol.table)
    return tuple(dict.fromkeys(one for one in named if one))


async def resolved(url: str, mapping: Mapping) -> Mapping:
    """The mapping with every `symbol.table` made a `symbol.map`, as the table is now; without such
    tables the mapping itself, and nothing is asked. Raises LegacyUnavailable, LegacyNotReady.
    """
    if not tables_of(mapping):
        return mapping
    async with connected(url) as connection:
        with translated(url, "reading the instruments of"):
            await connection.execute(f"SET statement_timeout = {int(QUERY_S * 1000)}")
            orders = await _resolved(connection, url, mapping.orders.symbol)
            fills = await _resolved(connection, url, mapping.fills.symbol)
    return msgspec.structs.replace(
        mapping,
        orders=msgspec.structs.replace(mapping.orders, symbol=orders),
        fills=msgspec.structs.replace(mapping.fills, symbol=fills),
    )


async def _resolved(connection: AsyncConnection[TupleRow], url: str, symbol: Symbol) -> Symbol:
    if not symbol.table:
        return symbol
    query = sql.SQL("SELECT {}, {} FROM {} LIMIT {}").format(
        sql.Identifier(symbol.key),
        sql.Identifier(symbol.name),
        table(symbol.table),
        sql.Literal(SYMBOLS_READ_MAX + 1),
    )
    result = (await connection.execute(query)).pgresult
    assert result is not None
    if result.ntuples > SYMBOLS_READ_MAX:
        raise LegacyNotReady(
            f"{symbol.table} in {target(url)} has more than {SYMBOLS_READ_MAX} rows: that is no"
            " table of instruments; correct `symbol.table` of the mapping"
        )
    found: dict[str, str] = {}
    for n in range(result.ntuples):
        # PostgreSQL's own text, as the rows of the change stream have it.
        value, name = result.get_value(n, 0), result.get_value(n, 1)
        if value is not None and name is not None:
            found[value.decode("utf-8", "replace")] = name.decode("utf-8", "replace")
    if not found:
        raise LegacyNotReady(
            f"{symbol.table} in {target(url)} names no instrument by {symbol.key} and"
            f" {symbol.name}: correct `symbol.table`, `key` and `name` of the mapping"
        )
    return msgspec.structs.replace(symbol, table="", map=found)
