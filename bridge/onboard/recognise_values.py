"""The meaning of enumerated values: what they say, and what the rows prove. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.limits import ONBOARD_PROOF_ROWS_MIN
from bridge.onboard import names, proofs
from bridge.onboard.columns import FillColumns, OrderColumns
from bridge.onboard.evidence import Evidence
from bridge.onboard.finding import Confidence, Finding, certain, guess, likely
from bridge.onboard.proofs import Proof
from bridge.onboard.recognise_words import CHOICES, by_name, meaning, said
from bridge.onboard.seen import Column, Table

_ORDERS, _FILLS = "mapping.orders", "mapping.fills"
_NEEDED = {
    "side": ("buy", "sell"),
    "taker_side": ("buy", "sell"),
    "ord_type": ("limit",),
    "tif": ("gtc",),
    "status": ("open", "filled", "canceled"),
}
_WHAT = {
    "side": "buy or sell",
    "ord_type": "limit or market",
    "status": "the status",
}


def order_values(table: Table, its: OrderColumns, evidence: Evidence) -> list[Finding]:
    sound = evidence.at_limits >= ONBOARD_PROOF_ROWS_MIN
    proved = _side_proofs(its, evidence)
    found = _of(table, "side", its.side, proved if sound else _hints(proved))
    conditional = next(
        (one.name for one in table.columns if set(names.words(one.name)) & names.CONDITIONAL), ""
    )
    proved = proofs.order_types(evidence, its.ord_type, conditional)
    found += _ord_type(table, its, proved if sound else _hints(proved))
    found += _tif(table, its, proofs.rested(evidence, its.tif) if its.tif else {})
    meant = words_of(found, f"{_ORDERS}.side")
    places = {
        n: meant.get(order.row.get(its.side) or "", "") for n, order in enumerate(evidence.orders)
    }
    proved = proofs.statuses(evidence, its.status, places)
    found += _of(table, "status", its.status, proved if sound else _hints(proved))
    return found


def _hints(proved: Mapping[str, Proof]) -> dict[str, Proof]:
    """Of rows that can't be trusted to be what they are taken for."""
    return {value: Proof(word="", why=one.why, hint=one.hint) for value, one in proved.items()}


def fill_values(
    table: Table,
    theirs: FillColumns,
    its: OrderColumns,
    evidence: Evidence,
    sides: Mapping[str, str],
) -> list[Finding]:
    """A side of the fill is used only when the rows prove it to be the taker's, or it says so."""
    if not theirs.taker_side:
        return []
    proved = proofs.taker_sides(evidence, theirs.taker_side, its.side, sides)
    says_taker = bool(set(names.words(theirs.taker_side)) & names.TAKER)
    if not says_taker and not all(one.word for one in proved.values()):
        proved = {}
    if not says_taker and not proved:
        return []
    return list(_of(table, "taker_side", theirs.taker_side, proved, _FILLS))


def words_of(found: list[Finding], key: str) -> dict[str, str]:
    """Value to word, of those that are certain."""
    start = f"{key}.map."
    return {
        one.key.removeprefix(start): one.value
        for one in found
        if one.key.startswith(start) and one.confidence is Confidence.CERTAIN
    }


def _side_proofs(its: OrderColumns, evidence: Evidence) -> dict[str, Proof]:
    if not its.side:
        return {}
    paid = proofs.sides(evidence, its.side)
    named = proofs.named_sides(evidence, its.side)
    return {value: one if one.word else named.get(value, one) for value, one in paid.items()}


def _ord_type(table: Table, its: OrderColumns, proved: Mapping[str, Proof]) -> list[Finding]:
    key = f"{_ORDERS}.ord_type"
    if its.ord_type:
        return _of(table, "ord_type", its.ord_type, proved)
    price = table.column(its.price)
    if price is not None and not price.nullable:
        why = "no column says so, and no order can be without a price"
        return [likely(f"{key}.other", "limit", why)]
    return [
        guess(f"{key}.column", "no column looks like limit or market", *_columns(table)),
    ]


def _tif(table: Table, its: OrderColumns, hints: Mapping[str, Proof]) -> list[Finding]:
    if its.tif:
        return _of(table, "tif", its.tif, hints)
    why = "no column looks like a time in force: every order is good till canceled"
    return [likely(f"{_ORDERS}.tif.other", "gtc", why)]


def _of(
    table: Table, what: str, name: str, proved: Mapping[str, Proof], part: str = _ORDERS
) -> list[Finding]:
    key = f"{part}.{what}"
    column = table.column(name) if name else None
    if column is None:
        why = f"no column of {table.name} looks like {_WHAT.get(what, what)}"
        return [guess(f"{key}.column", why, *_columns(table))]
    values = _values(table, what, column)
    each = [_value(f"{key}.map.{one}", what, column, one, proved.get(one)) for one in values]
    sure = bool(each) and all(one.confidence is Confidence.CERTAIN for one in each)
    make = certain if sure else likely
    why = "by its name, and by what each of its values means" if sure else "by its name and type"
    meant = {one.value for one in each}
    lacking = [word for word in _NEEDED[what] if word not in meant] if values else []
    if lacking and sure:
        why += f"; no value seen means {', '.join(lacking)}: write it into the map"
    found = [make(f"{key}.column", column.name, why), *each]
    if not values:
        why = f"no row of {table.name} was seen; write `map` with each value that it can have"
        choices = (f'{{ "…" = "{one}" }}' for one in CHOICES[what][:2])
        found.append(guess(f"{key}.map", why, *choices))
    if any(row.get(column.name, "") is None for row in table.sample.rows):
        why = "some rows have NULL there: what does it mean?"
        found.append(guess(f"{key}.null", why, *(f'"{one}"' for one in CHOICES[what])))
    return found


def _values(table: Table, what: str, column: Column) -> list[str]:
    told = (*said(what, column), *by_name(what, column), *column.labels)
    seen = [*dict.fromkeys((*told, *table.values(column.name)))]
    return sorted(seen, key=lambda one: (not one.lstrip("-").isdigit(), _number(one)))


def _number(value: str) -> int:
    return int(value) if value.lstrip("-").isdigit() else 0


def _value(key: str, what: str, column: Column, value: str, proof: Proof | None) -> Finding:
    spoken, why = _spoken(what, column, value)
    proved = proof.word if proof else ""
    evidence = proof.why if proof else "no row seen tells"
    hint = proof.hint if proof else ""
    choices = [f'"{one}"' for one in sorted(CHOICES[what], key=lambda one: one != hint)]
    if spoken and proved and spoken != proved:
        return guess(key, f"{why}, but the rows say {proved}: {evidence}", *choices)
    if proved:
        told = f"{why}; {evidence}" if spoken else f"proved by the rows: {evidence}"
        return certain(key, proved, told)
    if spoken:
        return certain(key, spoken, why)
    return guess(key, evidence, *choices)


def _spoken(what: str, column: Column, value: str) -> tuple[str, str]:
    for words, why in (
        (said(what, column), "the column's comment says so"),
        (by_name(what, column), "the column's name says so"),
    ):
        if value in words:
            return words[value], why
    word = meaning(what, value)
    return word, "the value says so" if word else ""


def _columns(table: Table) -> list[str]:
    kinds = ("text", "integer", "boolean", "other")
    return [f'"{one.name}"' for one in table.columns if one.kind in kinds][:8]
