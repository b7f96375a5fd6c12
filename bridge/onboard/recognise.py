"""What a monolith's database is, as far as its schema and a look at its rows tell. Pure."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from bridge.limits import ONBOARD_LINKED_MAX, ONBOARD_PROOF_ROWS_MIN, ONBOARD_VALUES_MAX
from bridge.onboard import names
from bridge.onboard.columns import FillColumns, OrderColumns
from bridge.onboard.evidence import Evidence, gather
from bridge.onboard.finding import Confidence, Finding, Part, certain, guess, likely
from bridge.onboard.recognise_fills import fill_columns
from bridge.onboard.recognise_instruments import (
    find_naming,
    instrument_findings,
    instruments_part,
    symbol_findings,
)
from bridge.onboard.recognise_orders import order_columns
from bridge.onboard.recognise_rules import later_findings, rule_findings
from bridge.onboard.recognise_tables import Parts, Wanted, find_parts
from bridge.onboard.recognise_values import fill_values, order_values, words_of
from bridge.onboard.recognise_zones import in_zone
from bridge.onboard.seen import Column, Database, Sample, Table
from bridge.onboard.toml import written

_ORDERS, _FILLS = "mapping.orders", "mapping.fills"
_FEW = ONBOARD_PROOF_ROWS_MIN


class Looked(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a table was read."""

    table: str
    rows: int
    of: int  # about
    failure: str = ""  # why not more of it

    @property
    def told(self) -> str:
        why = f": {self.failure}" if self.failure else ""
        return f"{self.rows} of about {self.of} rows of {self.table}{why}"


class Recognised(msgspec.Struct, frozen=True, kw_only=True):
    parts: tuple[Part, ...]
    findings: tuple[Finding, ...]
    looked: tuple[Looked, ...]
    not_readable: tuple[str, ...]  # tables that this role may not read
    order_columns: OrderColumns
    fill_columns: FillColumns
    constant: tuple[str, ...]  # columns of orders by which rows could differ, and don't
    unfilled: tuple[str, ...]  # columns of orders that a new row needs and that no key is for

    @property
    def decisions(self) -> tuple[Finding, ...]:
        return tuple(one for one in self.findings if one.undecided)

    @property
    def is_exchange(self) -> bool:
        """Both tables, without which nothing can be shadowed, were found."""
        return all(one.table for one in self.parts if one.what in ("orders", "fills"))


class Lookup(msgspec.Struct, frozen=True, kw_only=True):
    """Rows of the orders table that are still to be read, by primary key."""

    table: Table
    key: str
    ids: tuple[str, ...]


def interesting(database: Database, wanted: Wanted) -> list[Table]:
    """The tables whose rows are worth a look, given the schema alone."""
    parts = find_parts(database, wanted)
    chosen = {one.table for one in parts.all if one.table}
    chosen |= {name for also in parts.others.values() for name in also}
    for name in [one.table for one in (parts.orders, parts.fills) if one.table]:
        table = database.table(name)
        chosen |= {one.table for one in table.foreign} if table else set()
    return [one for one in database.tables if one.name in chosen and one.readable]


def missing_orders(database: Database, wanted: Wanted) -> Lookup | None:
    """Orders that the fills seen speak of and that are not among the orders seen."""
    parts = find_parts(database, wanted)
    orders, fills = database.table(parts.orders.table), database.table(parts.fills.table)
    if orders is None or fills is None or len(orders.key) != 1:
        return None
    columns, _ = fill_columns(fills, orders)
    known = {row.get(orders.key[0]) for row in orders.sample.rows}
    ids = dict.fromkeys(
        str(row[column])
        for row in fills.sample.rows
        for _, column in columns.orders
        if row.get(column) and row[column] not in known
    )
    return Lookup(table=orders, key=orders.key[0], ids=tuple(ids)[:ONBOARD_LINKED_MAX])


def recognise(database: Database, wanted: Wanted = Wanted()) -> Recognised:  # noqa: B008
    parts = find_parts(database, wanted)
    orders, fills = database.table(parts.orders.table), database.table(parts.fills.table)
    looked = tuple(
        Looked(
            table=one.name,
            rows=len(one.sample.rows),
            of=max(one.rows, len(one.sample.rows)),
            failure=one.sample.failure,
        )
        for one in database.tables
        if one.sample != Sample()
    )
    findings: list[Finding] = []
    its, theirs, all_parts = OrderColumns(), FillColumns(), list(parts.all)
    if orders is None:
        findings += [_table_asked("orders", parts), *_instruments_unknown()]
    else:
        findings, its, theirs, all_parts = _exchange(database, parts, orders, fills)
    if fills is None:
        findings.append(_table_asked("fills", parts))
    return Recognised(
        parts=tuple(all_parts),
        findings=tuple(findings),
        looked=looked,
        not_readable=tuple(one.name for one in database.tables if not one.readable),
        order_columns=its,
        fill_columns=theirs,
        constant=tuple(_constant(orders, its)) if orders else (),
        unfilled=tuple(_unfilled(orders, its)) if orders else (),
    )


def _exchange(
    database: Database, parts: Parts, orders: Table, fills: Table | None
) -> tuple[list[Finding], OrderColumns, FillColumns, list[Part]]:
    naming = find_naming(database, orders, parts.instruments)
    its, found = order_columns(orders)
    found = _zoned(found, orders, database)
    its = msgspec.structs.replace(its, symbol=naming.column)
    theirs, also = fill_columns(fills, orders) if fills else (FillColumns(), [])
    if fills is not None:
        also = _zoned(also, fills, database)
        its_naming = find_naming(database, fills, parts.instruments)
        theirs = msgspec.structs.replace(theirs, symbol=its_naming.column)
        also += symbol_findings(f"{_FILLS}.symbol", fills, its_naming)
    evidence = gather(database, orders, fills, its, theirs)
    found += symbol_findings(f"{_ORDERS}.symbol", orders, naming)
    found += order_values(orders, its, evidence)
    if fills is not None:
        sides = words_of(found, f"{_ORDERS}.side")
        also += fill_values(fills, theirs, its, evidence, sides)
    found, also = _proved_amounts(found, its, evidence), _proved_amounts(also, its, evidence)
    found, also = _proved_prices(found, evidence), _proved_prices(also, evidence)
    also = _proved_links(also, theirs, evidence)
    rules = rule_findings(evidence, theirs, its, has_taker_side=_has(also, f"{_FILLS}.taker_side"))
    known = [_part(one, database, evidence) for one in parts.all]
    known = [instruments_part(naming, one) if one.what == "instruments" else one for one in known]
    found += _filters(orders, its)
    if any(one.key == "mapping.matching" and one.undecided for one in rules):
        found = [one for one in found if one.key != f"{_ORDERS}.priority"]
        rules += later_findings(orders, its)
    tables = [_table_finding(one) for one in known if one.what in ("orders", "fills") and one.table]
    instruments = instrument_findings(naming, orders, its, fills, theirs)
    return [*tables, *found, *also, *rules, *instruments], its, theirs, known


def _zoned(found: list[Finding], table: Table, database: Database) -> list[Finding]:
    times = ("created_at", "updated_at")
    return [
        in_zone(one, table, database.read_at_us) if one.key.endswith(times) else one
        for one in found
    ]


def _table_finding(part: Part) -> Finding:
    make = certain if part.confidence is Confidence.CERTAIN else likely
    return make(f"mapping.{part.what}.table", part.table, part.why)


def _table_asked(what: str, parts: Parts) -> Finding:
    part = parts.orders if what == "orders" else parts.fills
    choices = [f'"{name}"' for name in parts.others.get(what, ())]
    why = f"{part.why}. Decide, and run init again with --{what} TABLE"
    return guess(f"mapping.{what}.table", why, *choices)


def _instruments_unknown() -> list[Finding]:
    why = "unknown as long as the orders are"
    keys = ("symbol", "id", "tick", "lot")
    return [guess(f"instruments.0.{key}", why) for key in keys]


def _part(part: Part, database: Database, evidence: Evidence) -> Part:
    """Fills whose orders are all there make both tables sure."""
    explained = evidence.fills - evidence.unexplained
    if part.what not in ("orders", "fills") or not part.table or part.why == "you named it":
        return part
    if explained < _FEW or evidence.unexplained:
        return part
    why = f"by its name, and all {explained} fills seen lead to orders that are there"
    return msgspec.structs.replace(part, confidence=Confidence.CERTAIN, why=why)


def _proved_links(found: list[Finding], theirs: FillColumns, evidence: Evidence) -> list[Finding]:
    """Columns that name an order, every one of which was found."""
    if evidence.unexplained or evidence.fills < _FEW:
        return found
    keys = {f"{_FILLS}.{role}_order" for role, _ in theirs.orders}
    why = f"all {evidence.fills} fills seen lead to orders that are there"
    return [
        certain(one.key, one.value, f"{one.why}; {why}")
        if one.key in keys and not one.undecided
        else one
        for one in found
    ]


def _proved_amounts(found: list[Finding], its: OrderColumns, evidence: Evidence) -> list[Finding]:
    """Quantity and leaves are sure when the fills are the difference."""
    if not (its.quantity and its.leaves):
        return found
    judged = [
        one.quantity - one.leaves == one.filled
        for one in evidence.orders
        if one.has_all and one.fills and one.quantity is not None and one.leaves is not None
    ]
    good = sum(judged)
    if good < _FEW or good < len(judged):
        return found
    why = (
        f"{its.quantity} less {its.leaves} is the sum of the fills of all {good} orders seen whole"
    )
    return _sure(found, (f"{_ORDERS}.quantity", f"{_ORDERS}.leaves", f"{_FILLS}.quantity"), why)


def _proved_prices(found: list[Finding], evidence: Evidence) -> list[Finding]:
    """Every fill is at the limit of the order that rested."""
    if evidence.at_limits < _FEW:
        return found
    why = f"all {evidence.at_limits} fills seen are at the price of one of their orders"
    return _sure(found, (f"{_ORDERS}.price", f"{_FILLS}.price"), why)


def _sure(found: list[Finding], keys: tuple[str, ...], why: str) -> list[Finding]:
    return [
        certain(one.key, one.value, why) if one.key in keys and not one.undecided else one
        for one in found
    ]


def _filters(table: Table, its: OrderColumns) -> Iterator[Finding]:
    """Columns that no key reads and by which some rows may be no plain orders."""
    for column in _apart(table, its):
        values = table.values(column.name)
        if not 2 <= len(values) <= ONBOARD_VALUES_MAX:
            continue
        why = f"{column.name} is one of {', '.join(values)}: are all such rows plain orders?"
        one = {column.name: [values[0]]}
        yield guess(f"{_ORDERS}.where", why, "{}", written(one))
        return


def _constant(table: Table, its: OrderColumns) -> Iterator[str]:
    for column in _apart(table, its):
        values = table.values(column.name)
        if len(values) == 1:
            yield f"{column.name} is {values[0]} in every row seen"


def _apart(table: Table, its: OrderColumns) -> list[Column]:
    """Columns that no key reads, with names that set rows apart."""
    used = set(msgspec.structs.astuple(its))
    return [
        one
        for one in table.columns
        if one.name not in used and set(names.words(one.name)) & names.APART
    ]


def _has(found: list[Finding], key: str) -> bool:
    return any(one.key.startswith(f"{key}.") for one in found)


def _unfilled(table: Table, its: OrderColumns) -> Iterator[str]:
    known = {*msgspec.structs.astuple(its), *table.key}
    for column in table.columns:
        if not (column.nullable or column.default or column.name in known):
            yield column.name
