"""Which instruments there are, how rows name them, their ticks and lots. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import msgspec

from bridge.limits import ONBOARD_INSTRUMENTS_MAX
from bridge.onboard import names
from bridge.onboard.columns import FillColumns, OrderColumns
from bridge.onboard.finding import Confidence, Finding, Part, certain, guess, likely
from bridge.onboard.recognise_columns import asked, ranked
from bridge.onboard.recognise_orders import decimal
from bridge.onboard.seen import Column, Database, Table
from shadow.legacy.mapping import InstrumentConfig
from shadow.limits import PRICE_TICKS_MAX, QTY_LOTS_MAX

_KINDS = ("text", "integer", "uuid", "other")
_SMALLEST_PLACES = 18
_MOST = Decimal(InstrumentConfig(symbol="", id=1, tick="1", lot="1").price_max)  # of either
_STEPS_MAX = min(PRICE_TICKS_MAX, QTY_LOTS_MAX)


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """How rows name their instrument."""

    column: str = ""
    table: Table | None = None  # of instruments
    key: str = ""  # its column that the rows' value is found in
    name: str = ""  # its column with the symbol; "": the value is the symbol


def find_naming(database: Database, table: Table, guessed: Part) -> Naming:
    """Of a table of orders or fills."""
    columns = ranked(table, names.SYMBOL, _KINDS)
    for column in columns:
        foreign = table.refers(column.name)
        other = database.table(foreign.table) if foreign else None
        if foreign is not None and other is not None:
            return _through(column, other, foreign.key)
    known = database.table(guessed.table) if guessed.table else None
    for column in columns if known is not None else ():
        assert known is not None
        key = _key_in(known, set(table.values(column.name)), column)
        if key:
            return _through(column, known, key)
    return Naming(column=columns[0].name) if columns else Naming()


def _through(column: Column, other: Table, key: str) -> Naming:
    if column.kind in ("text", "other"):
        return Naming(column=column.name, table=other, key=key)
    texts = [one for one in ranked(other, names.NAME, ("text",)) if _tells_apart(other, one.name)]
    name = texts[0].name if texts else ""
    return Naming(column=column.name, table=other, key=key, name=name)


def _tells_apart(table: Table, name: str) -> bool:
    values = [row.get(name) for row in table.sample.rows]
    return len(set(values)) == len(values) and None not in values


def _key_in(table: Table, values: set[str], column: Column) -> str:
    """The column of the instruments in which all of the values are; "" for none."""
    order = sorted(
        (one for one in table.columns if one.kind == column.kind),
        key=lambda one: (one.name not in table.key, names.rank(one.name, names.NAME) is None),
    )
    if not values:
        return ""
    return next((one.name for one in order if values <= set(table.values(one.name))), "")


def symbol_findings(key: str, table: Table, naming: Naming) -> list[Finding]:
    """`key`: of the mapping, e.g. mapping.orders.symbol."""
    if not naming.column:
        return [asked(key, table, "an instrument", _KINDS)]
    values, column = table.values(naming.column), table.column(naming.column)
    assert column is not None
    if naming.table is not None and not naming.name and column.kind in ("text", "other"):
        why = f"all {len(values)} values seen are in {naming.table.name}.{naming.key}"
        if table.refers(naming.column):
            why = f"a foreign key to {naming.table.name}.{naming.key}"
        sure = len(values) > 1 or table.refers(naming.column) is not None
        return [(certain if sure else likely)(key, naming.column, why)]
    if naming.table is not None and naming.name:
        sure = table.refers(naming.column) is not None
        why = f"{'a foreign key to' if sure else 'its values are in'} {naming.table.name}"
        found = [
            (certain if sure else likely)(f"{key}.column", naming.column, why),
            (certain if sure else likely)(f"{key}.table", naming.table.name, why),
            (certain if sure else likely)(f"{key}.key", naming.key, why),
        ]
        why = "by its name, and no two rows have the same"
        return [*found, likely(f"{key}.name", naming.name, why)]
    if column.kind in ("text", "other"):
        return [
            likely(key, naming.column, f"by its name; {len(values)} values seen, each a symbol")
        ]
    found = [likely(f"{key}.column", naming.column, "by its name")]
    why = "a number that no table was found for: which instrument is it?"
    each = [guess(f"{key}.map.{one}", why, '"BTC-USD"') for one in sorted(values, key=_as_number)]
    return found + (each or [guess(f"{key}.map", why, '{ "1" = "BTC-USD" }')])


def instrument_findings(
    naming: Naming, orders: Table, its: OrderColumns, fills: Table | None, theirs: FillColumns
) -> list[Finding]:
    """Those of the table of instruments, else those that orders were seen of."""
    named, table = naming.name or naming.key, naming.table
    rows: dict[str, dict[str, str | None]] = {}
    traded = orders.values(its.symbol) if its.symbol else ()
    for row in table.sample.rows if table is not None and named else ():
        if row.get(named):
            rows.setdefault(str(row[named]), row)
    by_value = {symbol: str(row.get(naming.key)) for symbol, row in rows.items()}
    symbols = sorted(rows, key=lambda one: (by_value[one] not in traded, by_value[one]))
    if not rows:
        symbols = sorted(traded, key=_as_number)
        by_value = {one: one for one in traded}
    column = orders.column(its.symbol) if its.symbol else None
    unnamed = not rows and column is not None and column.kind not in ("text", "other")
    found: list[Finding] = []
    for n, symbol in enumerate(symbols[:ONBOARD_INSTRUMENTS_MAX]):
        key = f"instruments.{n}"
        found.append(_symbol(key, symbol, table if rows else None, unnamed))
        found.append(likely(f"{key}.id", n + 1, "the engine's own number; it must never change"))
        value, row = by_value[symbol], rows.get(symbol, {})
        prices = _numbers(orders, its.symbol, its.price, value)
        prices += _numbers(fills, theirs.symbol, theirs.price, value)
        sizes = _numbers(orders, its.symbol, its.quantity or its.leaves, value)
        sizes += _numbers(fills, theirs.symbol, theirs.quantity, value)
        tick = _step(f"{key}.tick", "price", table, row, prices)
        lot = _step(f"{key}.lot", "quantity", table, row, sizes)
        found += [tick, lot, *_bound(f"{key}.price_max", tick), *_bound(f"{key}.quantity_max", lot)]
    return found or _none_seen()


def _as_number(value: str) -> tuple[int, str]:
    return int(value) if value.isdecimal() else 0, value


def _symbol(key: str, symbol: str, table: Table | None, unnamed: bool) -> Finding:
    if unnamed:
        why = f"rows name it {symbol}: what do requests and answers call it?"
        return guess(f"{key}.symbol", why, '"BTC-USD"')
    if table is not None:
        return certain(f"{key}.symbol", symbol, f"a row of {table.name}")
    return certain(f"{key}.symbol", symbol, "orders of it were seen")


def _none_seen() -> list[Finding]:
    why = "no instrument was seen: write one [[instruments]] for each"
    return [
        guess("instruments.0.symbol", why, '"BTC-USD"'),
        likely("instruments.0.id", 1, "the engine's own number; it must never change"),
        guess("instruments.0.tick", "the smallest step of a price", '"0.01"'),
        guess("instruments.0.lot", "the smallest step of a quantity", '"0.00000001"'),
    ]


def _step(
    key: str,
    what: str,
    table: Table | None,
    row: dict[str, str | None],
    seen: Sequence[Decimal],
) -> Finding:
    step, column = _declared(what, table, row)
    finest = _finest(seen)
    if step is not None and table is not None:
        off = sum(one % step != 0 for one in seen)
        if off:
            why = f"{table.name}.{column} says {_plain(step)}, {off} of {len(seen)} seen are finer"
            choices = (f'"{_plain(one)}"' for one in (finest or step, step))
            return guess(key, why, *choices)
        agree = f", and all {len(seen)} values seen agree" if seen else ""
        make = certain if seen else likely
        return make(key, _plain(step), f"{table.name}.{column}{agree}")
    if finest is None:
        return guess(key, f"no {what} was seen: its smallest step?", '"0.01"', '"0.00000001"')
    why = f"the finest of {len(seen)} values seen; a finer one would be refused, with this reason"
    return likely(key, _plain(finest), why)


def _bound(key: str, step: Finding) -> Iterator[Finding]:
    """Where the steps are too fine for what prices and quantities may be otherwise."""
    smallest = decimal(None if step.undecided else step.value)
    if smallest is not None and smallest * _STEPS_MAX < _MOST:
        most = Decimal(1).scaleb((smallest * _STEPS_MAX).adjusted())
        yield likely(key, _plain(most), f"more of {step.value} would not fit 64 bits")


def _declared(
    what: str, table: Table | None, row: dict[str, str | None]
) -> tuple[Decimal | None, str]:
    """The step that the table of instruments says, and by which column."""
    if table is None or not row:
        return None, ""
    is_price = what == "price"
    steps: Sequence[str] = names.TICK if is_price else names.LOT
    decimals: Sequence[str] = names.PRICE_DECIMALS if is_price else names.QUANTITY_DECIMALS
    for column in ranked(table, steps, ("numeric", "text")):
        value = decimal(row.get(column.name))
        if value is not None and value > 0:
            return value.normalize(), column.name
    for column in ranked(table, decimals, ("integer",)):
        places = decimal(row.get(column.name))
        if places is not None and 0 <= places <= _SMALLEST_PLACES:
            return Decimal(1).scaleb(-int(places)), column.name
    return None, ""


def _numbers(table: Table | None, by: str, name: str, value: str) -> list[Decimal]:
    column = table.column(name) if table is not None and by else None
    if table is None or column is None or column.kind not in ("numeric", "text"):
        return []  # of integers the unit is not known
    texts: Iterable[str | None] = (
        row.get(name) for row in table.sample.rows if row.get(by) == value
    )
    return [number for text in texts if (number := decimal(text)) is not None]


def _finest(seen: Sequence[Decimal]) -> Decimal | None:
    places = [max(0, -int(one.normalize().as_tuple().exponent)) for one in seen if one]
    return Decimal(1).scaleb(-max(places)) if places else None


def _plain(value: Decimal) -> str:
    return format(value, "f")


def instruments_part(naming: Naming, guessed: Part) -> Part:
    """What the orders themselves refer to is sure."""
    if naming.table is None:
        return guessed
    why = f"the orders' {naming.column} is in its {naming.key}"
    return Part(what="instruments", table=naming.table.name, confidence=Confidence.CERTAIN, why=why)
