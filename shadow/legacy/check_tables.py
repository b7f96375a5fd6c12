"""What is wrong with the mapping's tables, found before anything is read. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation

from shadow.legacy.convert import is_multiple, unit_of
from shadow.legacy.mapping import (
    Amount,
    Enumerated,
    FillsTable,
    InstrumentConfig,
    OrdersTable,
    Symbol,
    Time,
)
from shadow.legacy.rows import ORDER_TYPES, SIDES, STATUSES, TIMES_IN_FORCE
from shadow.legacy.times import is_zone
from shadow.legacy.words import word_of, words_of
from shadow.limits import EXPONENT_MAX

# Our words for the values of a column, and those that no monolith can do without.
WORDS = {
    "side": (tuple(SIDES), ("buy", "sell")),
    "ord_type": (tuple(ORDER_TYPES), ("limit",)),
    "tif": (tuple(TIMES_IN_FORCE), ("gtc",)),
    "status": (tuple(STATUSES), ("open", "filled", "canceled")),
    "taker_side": (tuple(SIDES), ("buy", "sell")),
}
TABLE = re.compile(r"[^.]+(\.[^.]+)?")
_ENUMERATED = ("side", "ord_type", "tif", "status")
_FILTERED = ("ord_type", "tif")  # a filter on one of these hides kinds of orders, not a part of one


def order_problems(orders: OrdersTable, instruments: Sequence[InstrumentConfig]) -> Iterator[str]:
    where = "mapping.orders"
    yield from _table(where, orders.table)
    if not TABLE.fullmatch(orders.id_sequence) and (orders.id_sequence or orders.id.form != "uuid"):
        yield f'`{where}.id_sequence` = "{orders.id_sequence}" is no name of a sequence'
    needed = {
        key: getattr(orders, key).column
        for key in ("id", "symbol", "account", "price", "created_at")
    }
    given = {
        key: getattr(orders, key).column for key in ("quantity", "leaves", "filled", "updated_at")
    }
    given |= {"lock_version": orders.lock_version, "uuid": orders.uuid}
    yield from _columns(where, needed, given)
    if orders.account.form == "uuid":
        yield (
            f"`{where}.account.form`: accounts must be integers, for requests name them by number"
            " in mapping.identity_header"
        )
    if not orders.quantity.column and not orders.leaves.column:
        yield f"`{where}`: name the column of quantity, of leaves, or of both; filled is not enough"
    for key in _ENUMERATED:
        yield from _enumerated(f"{where}.{key}", key, getattr(orders, key))
    yield from _shared(where, {key: getattr(orders, key) for key in _ENUMERATED})
    for key in ("price", "quantity", "leaves", "filled"):
        yield from _amount(f"{where}.{key}", getattr(orders, key), _steps(key, instruments))
    yield from _amount(f"{where}.funds", orders.funds, {})
    yield from _times(where, orders.created_at, orders.updated_at)
    yield from _symbol(f"{where}.symbol", orders.symbol, instruments)
    if not orders.priority:
        yield f"`{where}.priority`: name the columns that order the queue of one price"
    elif orders.priority[-1] != orders.id.column:
        yield f'`{where}.priority` must end with "{orders.id.column}", so that no two orders tie'
    mapped = {**needed, **given} | {key: getattr(orders, key).column for key in _ENUMERATED}
    free = {getattr(orders, key).column for key in _FILTERED} - {orders.side.column, ""}
    yield from _filter(where, orders, mapped, free - {orders.status.column})


def fill_problems(fills: FillsTable, instruments: Sequence[InstrumentConfig]) -> Iterator[str]:
    where = "mapping.fills"
    yield from _table(where, fills.table)
    needed = {
        key: getattr(fills, key).column
        for key in ("id", "symbol", "price", "quantity", "created_at")
    }
    pairs = [f"{who}_{what}" for what in ("order", "account") for who in ("maker", "taker")]
    pairs += [f"{who}_{what}" for what in ("order", "account") for who in ("buy", "sell")]
    given = {key: getattr(fills, key) for key in pairs}
    given |= {key: getattr(fills, key).column for key in ("total", "updated_at", "taker_side")}
    yield from _columns(where, needed, given)
    yield from _who_met(where, fills)
    if fills.taker_side != Enumerated():
        yield from _enumerated(f"{where}.taker_side", "taker_side", fills.taker_side)
    for key in ("price", "quantity", "total"):
        yield from _amount(f"{where}.{key}", getattr(fills, key), _steps(key, instruments))
    yield from _times(where, fills.created_at, fills.updated_at)
    yield from _symbol(f"{where}.symbol", fills.symbol, instruments)
    yield from _filter(where, fills, {**needed, **given}, set())


def _table(where: str, name: str) -> Iterator[str]:
    if not TABLE.fullmatch(name):
        yield f'`{where}.table` = "{name}" is neither "table" nor "schema.table"'


def _columns(where: str, needed: Mapping[str, str], given: Mapping[str, str]) -> Iterator[str]:
    for key, column in needed.items():
        if not column:
            yield f"`{where}.{key}` names no column"
    columns = {**needed, **given}
    for column, times in Counter(columns.values()).items():
        if times > 1 and column:
            keys = " and ".join(key for key, one in columns.items() if one == column)
            yield f'`{where}`: {keys} all name column "{column}"'


def _who_met(where: str, fills: FillsTable) -> Iterator[str]:
    by_role = bool(fills.maker_order), bool(fills.taker_order)
    by_side = bool(fills.buy_order), bool(fills.sell_order)
    if any(by_role) and any(by_side):
        yield (
            f"`{where}`: name maker_order and taker_order, or buy_order and sell_order, not columns"
            " of both kinds"
        )
    elif not all(by_role) and not all(by_side):
        yield (
            f"`{where}`: which orders met? Name maker_order and taker_order, or buy_order and"
            " sell_order"
        )
    elif all(by_side) and not fills.taker_side.column and fills.maker_rule == "resting":
        yield (
            f'`{where}.maker_rule` = "resting", but buy_order and sell_order do not say which of'
            ' them rested: name taker_side, or set maker_rule = "lower_id"'
        )


def _enumerated(where: str, key: str, one: Enumerated) -> Iterator[str]:
    """Several values of the database may mean one word; which one is written is the first."""
    known, needed = WORDS[key]
    if not one.column and (one.map or one.null or not one.other or len(needed) > 1):
        yield f"`{where}.column` names no column"
        if not one.map:
            return
    for value, word in one.map.items():
        if word not in known:
            yield f'`{where}.map`: "{value}" = "{word}", but the words are {listed(known)}'
    for name, word in (("null", one.null), ("other", one.other)):
        if word and word not in known:
            yield f'`{where}.{name}` = "{word}" is not one of {listed(known)}'
    for short, value in (("t", "true"), ("f", "false")):
        if one.map.get(short, word_of(value, one)) != word_of(value, one) and value in one.map:
            yield f'`{where}.map`: "{short}" and "{value}" are one boolean, and mean two things'
    missing = set(needed) - (words_of(one) if one.column else {one.other, *one.map.values()})
    if missing:
        yield f"`{where}.map`: no value means {listed(missing)}"


def _shared(where: str, enumerated: Mapping[str, Enumerated]) -> Iterator[str]:
    """One column may say several things at once: then each of its values must say all of them."""
    by_column: dict[str, list[str]] = {}
    for key, one in enumerated.items():
        if one.column:
            by_column.setdefault(one.column, []).append(key)
    for column, keys in by_column.items():
        if len(keys) > 1 and "status" in keys:
            yield f'`{where}`: {" and ".join(keys)} all name column "{column}"'
            continue
        values = dict.fromkeys(value for key in keys for value in enumerated[key].map)
        for value in values:
            silent = [key for key in keys if not word_of(value, enumerated[key])]
            if silent:
                yield (
                    f'`{where}.{silent[0]}.map`: "{value}" of column "{column}" means nothing here,'
                    f" and something in {listed(set(keys) - set(silent))}"
                )


def _amount(where: str, amount: Amount, steps: Mapping[str, Decimal]) -> Iterator[str]:
    if not amount.column:
        return
    if amount.form != "integer":
        if amount.exponent:
            yield f'`{where}.exponent` is of form = "integer" alone'
        return
    if not -EXPONENT_MAX <= amount.exponent <= EXPONENT_MAX:
        yield f"`{where}.exponent` must be from {-EXPONENT_MAX} to {EXPONENT_MAX}"
        return
    for symbol, step in steps.items():
        if not is_multiple(step, unit_of(amount)):
            yield (
                f"`{where}` counts {unit_of(amount)}, and {symbol} has steps of {step:f}, which"
                " the monolith can't write: one of exponent, tick and lot is wrong"
            )


def _steps(key: str, instruments: Sequence[InstrumentConfig]) -> dict[str, Decimal]:
    """By symbol: what every value of the column is a multiple of. Without what is no number."""
    found = {}
    for one in instruments:
        try:
            tick, lot = Decimal(one.tick), Decimal(one.lot)
        except InvalidOperation:
            continue
        if tick > 0 and lot > 0:
            found[one.symbol] = {"price": tick, "total": tick * lot}.get(key, lot)
    return found


def _times(where: str, created_at: Time, updated_at: Time) -> Iterator[str]:
    for key, time in (("created_at", created_at), ("updated_at", updated_at)):
        if time.form != "timestamp" and time.zone != "UTC":
            yield f'`{where}.{key}.zone` is of form = "timestamp" alone: an epoch has no zone'
        elif not is_zone(time.zone):
            yield (
                f'`{where}.{key}.zone` = "{time.zone}" is no time zone of the tz database of this'
                ' machine; name one such as "Europe/Berlin", or install tzdata'
            )


def _symbol(where: str, symbol: Symbol, instruments: Sequence[InstrumentConfig]) -> Iterator[str]:
    if symbol.table:
        yield from _table(where, symbol.table)
        if symbol.map:
            yield f"`{where}`: give map or table, not both: the map is made from the table"
        for key in ("key", "name"):
            if not getattr(symbol, key):
                yield f'`{where}.{key}` names no column of "{symbol.table}"'
        return
    if not symbol.map:
        return
    missing = {one.symbol for one in instruments} - set(symbol.map.values())
    if missing:
        yield f"`{where}.map`: no value means {listed(missing)}"
    for name, times in Counter(symbol.map.values()).items():
        if times > 1:
            yield f'`{where}.map`: {times} values mean "{name}": their orders would be one book'


def _filter(
    where: str, table: OrdersTable | FillsTable, mapped: Mapping[str, str], free: set[str]
) -> Iterator[str]:
    """`free`: mapped columns that a filter may name all the same."""
    names = {column: key for key, column in mapped.items() if column}
    for column, values in table.where.items():
        if not column or not values:
            yield f'`{where}.where`: "{column}" needs a column and at least one value'
        elif column in names and column not in free:
            yield (
                f'`{where}.where`: "{column}" is mapped as {names[column]}: a filter on it would'
                " hide a part of an order's life, or of the book"
            )
        elif len(values) > 1 and column not in table.write and column not in names:
            yield (
                f'`{where}.where`: "{column}" may be {listed(values)}; say in `{where}.write` which'
                " of them new rows are given"
            )
    for column, value in table.write.items():
        if column in names:
            yield f'`{where}.write`: "{column}" is mapped as {names[column]} and written by that'
        elif value not in table.where.get(column, (value,)):
            yield (
                f'`{where}.write`: "{column}" = "{value}" would write rows that `{where}.where`'
                " does not let through"
            )


def listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
