"""The columns of the orders table. Pure."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

import msgspec

from bridge.onboard import names
from bridge.onboard.columns import OrderColumns
from bridge.onboard.finding import Finding, certain, guess, likely
from bridge.onboard.recognise_columns import (
    account_finding,
    amount_finding,
    asked,
    enumerated_column,
    key_finding,
    ranked,
    time_finding,
)
from bridge.onboard.recognise_tables import is_number, quantities
from bridge.onboard.seen import Column, Table

KEY = "mapping.orders"
_NUMBERS = ("numeric", "integer", "float", "text")
_INTEGER = ("integer",)


class Amounts(msgspec.Struct, frozen=True, kw_only=True):
    quantity: Column | None = None
    leaves: Column | None = None
    filled: Column | None = None
    clash: str = ""  # why it can't be said which is which


def order_columns(table: Table) -> tuple[OrderColumns, list[Finding]]:
    """Without the symbol, and without what enumerated values mean."""
    found = [key_finding(f"{KEY}.id", table), _sequence(table)]
    account, one = account_finding(f"{KEY}.account", table)
    found.append(one)
    price = _price(table)
    found.append(
        amount_finding(f"{KEY}.price", price)
        if price
        else asked(f"{KEY}.price", table, "a price", _NUMBERS)
    )
    amounts = find_amounts(table)
    found += _amount_findings(table, amounts)
    created, one = time_finding(f"{KEY}.created_at", table, names.CREATED, "when it was placed")
    found.append(one)
    updated, one = time_finding(f"{KEY}.updated_at", table, names.UPDATED, "when it last changed")
    if updated:
        found.append(one)
    lock = next(iter(ranked(table, names.LOCK_VERSION[:1], _INTEGER)), None)
    if lock is not None:
        found.append(likely(f"{KEY}.lock_version", lock.name, "Rails' own name for it"))
    found.append(_priority(table, created))
    side = enumerated_column("side", table, names.SIDE)
    used = [side.name] if side else []
    ord_type = enumerated_column("ord_type", table, names.ORD_TYPE, used)
    status = enumerated_column("status", table, names.STATUS, used)
    tif = enumerated_column("tif", table, names.TIF, used)
    columns = OrderColumns(
        id=table.key[0] if len(table.key) == 1 else "",
        account=account,
        side=_name(side),
        ord_type=_name(ord_type),
        tif=_name(tif),
        status=_name(status),
        price=_name(price),
        quantity=_name(amounts.quantity),
        leaves=_name(amounts.leaves),
        filled=_name(amounts.filled),
        created_at=created,
        updated_at=updated,
        lock_version=_name(lock),
    )
    return columns, found


def _price(table: Table) -> Column | None:
    """Of a text column only where what was seen are numbers."""
    for column in ranked(table, names.PRICE, _NUMBERS):
        if is_number(table, column) or not table.values(column.name):
            return column
    return None


def find_amounts(table: Table) -> Amounts:
    """A word for the whole, the rest or what is done tells which; without any it is the whole,
    unless another column is.
    """
    groups: dict[str, list[Column]] = {"quantity": [], "leaves": [], "filled": [], "base": []}
    for column in quantities(table):
        groups[_which(column)].append(column)
    whole, base = groups["quantity"], groups["base"]
    left, filled = groups["leaves"], groups["filled"]
    if whole and base and not left:
        left, base = base, []  # volume beside origin_volume is what is left of it
    elif not whole:
        whole = base
    several = next((one for one in (whole, left, filled) if len(one) > 1), None)
    if several:
        listed = ", ".join(one.name for one in several)
        return Amounts(clash=f"{listed}: which is the quantity as ordered, which what is left?")
    amounts = Amounts(quantity=_first(whole), leaves=_first(left), filled=_first(filled))
    return msgspec.structs.replace(amounts, clash=_contradicted(table, amounts))


def _which(column: Column) -> str:
    own = set(names.words(column.name))
    if own & names.LEAVES or names.rank(column.name, names.LEAVES_ALONE) is not None:
        return "leaves"
    if own & names.FILLED or names.rank(column.name, names.FILLED_ALONE) is not None:
        return "filled"
    return "quantity" if own & names.ORIGINAL else "base"


def _contradicted(table: Table, amounts: Amounts) -> str:
    """What rows say against it."""
    if amounts.quantity is None:
        return ""
    for other in (amounts.leaves, amounts.filled):
        if other is None or other.kind != amounts.quantity.kind:
            continue
        more = sum(_is_more(row, other.name, amounts.quantity.name) for row in table.sample.rows)
        if more:
            return f"{other.name} is more than {amounts.quantity.name} in {more} rows"
    return ""


def _is_more(row: dict[str, str | None], one: str, other: str) -> bool:
    left, right = decimal(row.get(one)), decimal(row.get(other))
    return left is not None and right is not None and left > right


def _amount_findings(table: Table, amounts: Amounts) -> list[Finding]:
    if amounts.clash:
        listed = [f'"{one.name}"' for one in quantities(table)]
        keys = ("quantity", "leaves")
        return [guess(f"{KEY}.{key}", amounts.clash, *listed) for key in keys]
    found = []
    for key, column in (
        ("quantity", amounts.quantity),
        ("leaves", amounts.leaves),
        ("filled", amounts.filled),
    ):
        if column is not None:
            found.append(amount_finding(f"{KEY}.{key}", column))
    return found or [asked(f"{KEY}.quantity", table, "a quantity", _NUMBERS)]


def _sequence(table: Table) -> Finding:
    key = f"{KEY}.id_sequence"
    if table.sequence:
        return certain(key, table.sequence, "the primary key's default takes from it")
    kinds = {column.name: column.kind for column in table.columns}
    if [kinds.get(name) for name in table.key] == ["uuid"]:
        return certain(key, "", "UUIDs come from no sequence; such orders can only be shadowed")
    return guess(key, "the primary key has no sequence; live orders take their ids from one")


def _priority(table: Table, created: str) -> Finding:
    key = f"{KEY}.priority"
    if len(table.key) != 1:
        return guess(key, "the queue of one price must end with the id")
    order = [created, table.key[0]] if created else [table.key[0]]
    why = "first come, first served; a monolith whose matching sorts otherwise says so in its code"
    return likely(key, order, why)


def decimal(text: str | None) -> Decimal | None:
    try:
        value = Decimal(text) if text is not None else None
    except InvalidOperation:
        return None
    return value if value is not None and value.is_finite() else None


def _first(columns: list[Column]) -> Column | None:
    return columns[0] if columns else None


def _name(column: Column | None) -> str:
    return column.name if column else ""
