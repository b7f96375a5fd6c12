"""Which table holds the orders, which the fills, the instruments, the accounts. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from bridge.onboard import names
from bridge.onboard.finding import Confidence, Part
from bridge.onboard.seen import Column, Database, Table

_NUMBERS = ("numeric", "integer", "float")
_DECIMAL = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
_LEAD = 3  # points that the best must have before the next to be more than a guess


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator named; "" for what is to be looked for."""

    orders: str = ""
    fills: str = ""


class Parts(msgspec.Struct, frozen=True, kw_only=True):
    orders: Part
    fills: Part
    instruments: Part
    accounts: Part
    others: dict[str, tuple[str, ...]] = {}  # what -> the tables that it could be as well

    @property
    def all(self) -> tuple[Part, ...]:
        return (self.orders, self.fills, self.instruments, self.accounts)


def find_parts(database: Database, wanted: Wanted) -> Parts:
    others: dict[str, tuple[str, ...]] = {}

    def found(what: str, score: Callable[[Table], int], named: str = "") -> Part:
        part, also = _best(what, database.tables, score, named)
        if also:
            others[what] = also
        return part

    orders = found("orders", _orders_score, wanted.orders)
    fills = found("fills", lambda one: _fills_score(one, orders.table), wanted.fills)
    taken = {orders.table, fills.table}
    instruments = found("instruments", lambda one: _instruments_score(one, taken))
    accounts = found("accounts", lambda one: _accounts_score(one, taken))
    return Parts(
        orders=orders, fills=fills, instruments=instruments, accounts=accounts, others=others
    )


def _best(
    what: str, tables: Sequence[Table], score: Callable[[Table], int], named: str
) -> tuple[Part, tuple[str, ...]]:
    """The part, and the tables that it could be as well."""
    if named:
        part = Part(what=what, table=named, confidence=Confidence.CERTAIN, why="you named it")
        return part, ()
    scored = sorted(((score(one), one) for one in tables), key=lambda one: -one[0])
    scored = [(points, one) for points, one in scored if points > 0]
    if not scored:
        why = f"no table's name and columns look like {what}"
        return Part(what=what, table="", confidence=Confidence.GUESS, why=why), ()
    points, best = scored[0]
    rivals = tuple(one.name for their, one in scored[1:] if their > points - _LEAD)
    if rivals:
        also = (best.name, *rivals)
        why = f"{len(also)} tables look like {what}: {', '.join(also)}"
        return Part(what=what, table="", confidence=Confidence.GUESS, why=why), also
    if not best.readable:
        why = f"{best.name} looks like it, but this role may not read it"
        return Part(what=what, table="", confidence=Confidence.GUESS, why=why), (best.name,)
    why = "by its name and its columns; no other table is like it"
    return Part(what=what, table=best.name, confidence=Confidence.LIKELY, why=why), ()


def _has(table: Table, known: Sequence[str]) -> bool:
    return any(names.rank(column.name, known) is not None for column in table.columns)


def is_number(table: Table, column: Column) -> bool:
    """Or a text column of which every value seen is a plain decimal."""
    if column.kind != "text":
        return column.kind in _NUMBERS
    values = table.values(column.name)
    return bool(values) and all(_DECIMAL.fullmatch(value) for value in values)


def _has_price(table: Table) -> bool:
    """By name alone: what is in a column of text is only seen later."""
    kinds = (*_NUMBERS, "text")
    return any(
        one.kind in kinds and names.rank(one.name, names.PRICE) is not None for one in table.columns
    )


def _name_points(table: Table, known: frozenset[str]) -> int:
    """0 for a name without any of these words, and of one that is about such a table only."""
    own = names.words(table.bare)
    if not set(own) & known or set(own) & names.ABOUT:
        return 0
    return 4 if len(own) == 1 else 3 if own[-1] in known else 2


def quantities(table: Table) -> list[Column]:
    return [one for one in table.columns if _names_quantity(one) and is_number(table, one)]


def _has_quantity(table: Table) -> bool:
    kinds = (*_NUMBERS, "text")
    return any(one.kind in kinds and _names_quantity(one) for one in table.columns)


def _names_quantity(column: Column) -> bool:
    own = set(names.words(column.name))
    if own & names.OTHER_MONEY:
        return False
    alone = (*names.LEAVES_ALONE, *names.FILLED_ALONE)
    return bool(own & names.QUANTITY) or names.rank(column.name, alone) is not None


def _orders_score(table: Table) -> int:
    name = _name_points(table, names.ORDERS)
    if not name or not _has_price(table) or not _has_quantity(table):
        return 0
    own = (names.SIDE, names.STATUS, names.ACCOUNT, names.SYMBOL, names.CREATED)
    return name + 2 * sum(_has(table, known) for known in own) + bool(table.key)


def _fills_score(table: Table, orders: str) -> int:
    if table.name == orders or not _has_price(table) or not _has_quantity(table):
        return 0
    roles = sum(bool(_role_columns(table, kind)) for kind in _ROLES)
    refers = sum(one.table == orders for one in table.foreign) if orders else 0
    name = _name_points(table, names.FILLS)
    if not (name or refers >= 2) or not (roles or refers):
        return 0
    return name + 2 * min(roles, 2) + 2 * min(refers, 2) + _has(table, names.CREATED)


_ROLES = (names.MAKER, names.TAKER, names.BUYER, names.SELLER)


def _role_columns(table: Table, role: frozenset[str]) -> list[Column]:
    kinds = ("integer", "uuid")
    return [one for one in table.columns if one.kind in kinds and set(names.words(one.name)) & role]


def _instruments_score(table: Table, taken: set[str]) -> int:
    name = _name_points(table, names.INSTRUMENTS)
    if not name or table.name in taken:
        return 0
    decimals = (names.PRICE_DECIMALS, names.QUANTITY_DECIMALS, names.TICK, names.LOT)
    return name + 2 * sum(_has(table, known) for known in decimals) + _has(table, names.NAME)


def _accounts_score(table: Table, taken: set[str]) -> int:
    own = [set(names.words(one.name)) for one in table.columns if one.kind in _NUMBERS]
    if table.name in taken or not _name_points(table, names.ACCOUNTS):
        return 0
    if not any(one & names.BALANCE for one in own):
        return 0
    locked = any(one & names.LOCKED for one in own)
    return _name_points(table, names.ACCOUNTS) + 3 * locked + _has(table, names.ACCOUNT)
