"""The columns of the fills table. Pure."""

from __future__ import annotations

from bridge.limits import ONBOARD_PROOF_ROWS_MIN
from bridge.onboard import names
from bridge.onboard.columns import FillColumns
from bridge.onboard.finding import Finding, certain, guess, likely
from bridge.onboard.recognise_columns import (
    amount_finding,
    asked,
    enumerated_column,
    key_finding,
    ranked,
    time_finding,
)
from bridge.onboard.recognise_orders import decimal
from bridge.onboard.recognise_tables import is_number, quantities
from bridge.onboard.seen import Column, Table

KEY = "mapping.fills"
_NUMBERS = ("numeric", "integer", "float", "text")
_IDS = ("integer", "uuid")
_ROLES = {
    "maker": names.MAKER,
    "taker": names.TAKER,
    "buy": names.BUYER,
    "sell": names.SELLER,
}


def fill_columns(table: Table, orders: Table | None) -> tuple[FillColumns, list[Finding]]:
    """Without the symbol, and without what the taker's side's values mean."""
    found = [key_finding(f"{KEY}.id", table)]
    met, also = _met(table, orders)
    found += also
    price = _amount(table, "price", ranked(table, names.PRICE, _NUMBERS), found)
    quantity = _amount(table, "quantity", _quantities(table), found)
    total = _total(table, price, quantity, found)
    created, one = time_finding(f"{KEY}.created_at", table, names.CREATED, "when it happened")
    found.append(one)
    updated, one = time_finding(f"{KEY}.updated_at", table, names.UPDATED, "when it last changed")
    if updated:
        found.append(one)
    taker_side = enumerated_column("taker_side", table, names.TAKER_SIDE)
    columns = FillColumns(
        id=table.key[0] if len(table.key) == 1 else "",
        price=price,
        quantity=quantity,
        total=total,
        taker_side=taker_side.name if taker_side else "",
        created_at=created,
        updated_at=updated,
        **met,
    )
    return columns, found


def _met(table: Table, orders: Table | None) -> tuple[dict[str, str], list[Finding]]:
    """Which columns say which orders met, and whose they were."""
    met: dict[str, str] = {}
    found: list[Finding] = []
    for role, known in _ROLES.items():
        of_role = [
            one for one in table.columns if one.kind in _IDS and set(names.words(one.name)) & known
        ]
        order, why = _order_column(table, of_role, orders)
        if order is not None:
            met[f"{role}_order"] = order.name
            make = certain if "foreign" in why else likely
            found.append(make(f"{KEY}.{role}_order", order.name, why))
        account = next((one for one in of_role if one is not order and _is_person(one)), None)
        if account is not None:
            met[f"{role}_account"] = account.name
            why = "by its name, beside the order's column"
            found.append(likely(f"{KEY}.{role}_account", account.name, why))
    if not (
        {"maker_order", "taker_order"} <= met.keys() or {"buy_order", "sell_order"} <= met.keys()
    ):
        keys = ("maker_order", "taker_order")
        found += [
            asked(f"{KEY}.{key}", table, key.replace("_", "'s "), _IDS)
            for key in keys
            if key not in met
        ]
    return met, found


def _is_person(column: Column) -> bool:
    """maker_id or ask_member_id; not taker_side, not maker_fee."""
    rest = set(names.words(column.name)) - frozenset().union(*_ROLES.values()) - {"id", "uid"}
    return rest <= names.PERSON


def _order_column(
    table: Table, of_role: list[Column], orders: Table | None
) -> tuple[Column | None, str]:
    for column in of_role:
        foreign = table.refers(column.name)
        if foreign is not None and orders is not None and foreign.table == orders.name:
            return column, f"by its name, and a foreign key to {orders.name}"
    for column in of_role:
        if set(names.words(column.name)) & names.ORDERS:
            return column, "by its name"
    persons = [one for one in of_role if set(names.words(one.name)) & names.PERSON]
    elsewhere = [one for one in of_role if table.refers(one.name)]
    left = [one for one in of_role if one not in persons and one not in elsewhere]
    return (left[0], "by its name") if len(left) == 1 else (None, "")


def _quantities(table: Table) -> list[Column]:
    """A fill has one; a word for the rest of an order makes it another's."""
    return [one for one in quantities(table) if not set(names.words(one.name)) & names.LEAVES]


def _amount(table: Table, key: str, columns: list[Column], found: list[Finding]) -> str:
    usable = [one for one in columns if is_number(table, one) or not table.values(one.name)]
    if not usable:
        found.append(asked(f"{KEY}.{key}", table, f"a {key}", _NUMBERS))
        return ""
    if key == "quantity" and len(usable) > 1:
        listed = [f'"{one.name}"' for one in usable]
        found.append(guess(f"{KEY}.{key}", "several columns look like a quantity", *listed))
        return ""
    found.append(amount_finding(f"{KEY}.{key}", usable[0]))
    return usable[0].name


def _total(table: Table, price: str, quantity: str, found: list[Finding]) -> str:
    """Only what the rows prove: a column that is the product, exactly."""
    if not price or not quantity:
        return ""
    for column in ranked(table, names.TOTAL, ("numeric",)):
        seen = [
            (decimal(row[price]), decimal(row[quantity]), decimal(row[column.name]))
            for row in table.sample.rows
        ]
        whole = [(one, two, of) for one, two, of in seen if one and two and of is not None]
        good = sum(one * two == of for one, two, of in whole)
        if good == len(whole) and good >= ONBOARD_PROOF_ROWS_MIN:
            why = f"{price} times {quantity} in all {good} rows seen"
            found.append(certain(f"{KEY}.total", column.name, why))
            return column.name
    return ""
