"""What the guard in `fence.sql` makes of a row: is it one of the mapping's, and of which
instrument. Pure.
"""

from __future__ import annotations

import msgspec
from psycopg import sql

from bridge.errors import BridgeError
from shadow.legacy.conditions import column_of, is_inside
from shadow.legacy.mapping import FillsTable, Mapping, OrdersTable, Symbol


def expressions(mapping: Mapping) -> dict[str, sql.Composable]:
    """By their names in the script. Raises BridgeError for instruments of another table that has
    not been read.
    """
    found: dict[str, sql.Composable] = {}
    tables: tuple[tuple[str, OrdersTable | FillsTable], ...] = (
        ("orders", mapping.orders),
        ("fills", mapping.fills),
    )
    for kind, table in tables:
        symbol = table.symbol
        if symbol.table:
            raise BridgeError(
                f"mapping.{kind}.symbol.table = {symbol.table!r}: the guard is made from its rows,"
                " and they can't be read; set legacy.install_url, and see that it can be reached"
            )
        found[f"{kind}_instrument"] = _instrument(symbol)
        for moment, row in (("was", "OLD"), ("becomes", "NEW")):
            found[f"{kind}_{moment}"] = _of_row(kind, symbol, row)
            found[f"{kind}_{moment}_inside"] = is_inside(table.where, row)
    return found


def _instrument(symbol: Symbol) -> sql.Composable:
    if not symbol.map:
        return sql.SQL("value")
    known = sql.Literal(msgspec.json.encode(symbol.map).decode())
    return sql.SQL("{}::jsonb ->> value").format(known)


def _of_row(kind: str, symbol: Symbol, row: str) -> sql.Composable:
    column = column_of(symbol.column, row)
    if not symbol.map:
        return column
    # Written as the change stream writes it: a cast would cut the padding of char(n).
    return sql.SQL("railswitch.instrument_of({}, format('%s', {}))").format(
        sql.Literal(kind), column
    )
