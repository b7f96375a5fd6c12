"""Rows by themselves: what can't be read, what the filter hides, which values are told. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator

from engine.types import Side
from shadow.legacy.audit_facts import named_orders
from shadow.legacy.audit_faults import Fault, fill_fault, order_fault
from shadow.legacy.audit_types import Facts, Oddity, Row, ValueTold, Weight, counted
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Enumerated, Mapping
from shadow.legacy.words import word_of, words_of
from shadow.limits import AUDIT_EVIDENCE_MIN, AUDIT_KINDS_MAX, AUDIT_MANY, SHOWN_CHARS_MAX
from shadow.operation import LegacyFill

_ENUMERATED = ("side", "ord_type", "tif", "status")
_ORDERS_GO = "they can't be compared, and their instruments are loaded again and again"
_FILLS_GO = "the orders they are of can't be compared"

_Faults = Callable[[Row, str, Mapping, dict[str, Scale]], Fault]


def row_oddities(facts: Facts, scales: dict[str, Scale]) -> Iterator[Oddity]:
    yield from _unreadable(facts, scales, fills=False)
    yield from _unreadable(facts, scales, fills=True)
    yield from _strangers(facts, scales)
    yield from _filter(facts)
    yield from _hidden_fills(facts)
    yield from _repeated(facts)
    yield from _alike(facts)
    yield from _one_sided(facts)


def values_told(facts: Facts) -> Iterator[ValueTold]:
    """Each value of each enumerated column, those of the map that never occur included."""
    for name in _ENUMERATED:
        enumerated: Enumerated = getattr(facts.mapping.orders, name)
        if not enumerated.column:
            continue
        tally = Counter(row.get(enumerated.column) for row in facts.inside)
        for value, count in tally.most_common(AUDIT_KINDS_MAX):
            yield ValueTold(
                key=f"mapping.orders.{name}",
                value="NULL" if value is None else value[:SHOWN_CHARS_MAX],
                word=word_of(value, enumerated),
                orders=count,
            )
        for value, word in enumerated.map.items():
            if not any(_is_same(value, one) for one in tally):
                yield ValueTold(key=f"mapping.orders.{name}", value=value, word=word, orders=0)


def _unreadable(facts: Facts, scales: dict[str, Scale], *, fills: bool) -> Iterator[Oddity]:
    broken = facts.broken_fills if fills else facts.broken
    find: _Faults = fill_fault if fills else order_fault
    rows: dict[Fault, list[Row]] = defaultdict(list)
    for row, reason in broken:
        rows[find(row, reason, facts.mapping, scales)].append(row)
    by_why: dict[tuple[str, str], list[Fault]] = defaultdict(list)
    for fault in rows:
        by_why[fault.key, fault.why].append(fault)
    ranked = sorted(by_why.items(), key=lambda one: -sum(len(rows[fault]) for fault in one[1]))
    for (key, why), faults in ranked[:AUDIT_KINDS_MAX]:
        concerned = [row for fault in faults for row in rows[fault]]
        table = facts.mapping.fills.table if fills else facts.mapping.orders.table
        yield Oddity(
            check="unreadable",
            key=key,
            seen=f"{counted(len(concerned), 'row')} of {table}: {why}",
            rows=facts.row_names(concerned, fills=fills),
            consequence=_FILLS_GO if fills else _ORDERS_GO,
            next_step=_mend(key, max(fault.places for fault in faults)),
        )
    if len(ranked) > AUDIT_KINDS_MAX:
        yield Oddity(
            check="unreadable",
            key="mapping.fills" if fills else "mapping.orders",
            seen=f"{len(ranked) - AUDIT_KINDS_MAX} more reasons why rows can't be read",
            consequence=_FILLS_GO if fills else _ORDERS_GO,
            next_step="correct those above first, and look again",
        )


def _mend(key: str, places: int) -> str:
    if key.endswith((".side.map", ".ord_type.map", ".tif.map", ".status.map")):
        return f"add the value to `{key}`, or a word for all others: `{key[:-4]}.other`"
    if key.endswith(".null"):
        return f"say what NULL means: `{key}`"
    if key.startswith("instruments."):
        step = f'"0.{"1":0>{places}}"' if places else '"1"'
        return f"if the market has such values, a finer step: `{key}` = {step}; else mend the rows"
    if key == "mapping.orders.price":
        return (
            "if these are market orders, let `mapping.orders.ord_type` say so; see that"
            f" `{key}` names the limit price; else mend the rows"
        )
    return f"see that `{key}` names the right column in the right form; else mend the rows"


def _strangers(facts: Facts, scales: dict[str, Scale]) -> Iterator[Oddity]:
    if not facts.strangers:
        return
    tally = Counter(facts.strangers).most_common(AUDIT_KINDS_MAX)
    shown = ", ".join(f"{symbol[:SHOWN_CHARS_MAX]!r} ({count})" for symbol, count in tally)
    if len(facts.strangers) > AUDIT_KINDS_MAX:
        shown += f" and {len(facts.strangers) - AUDIT_KINDS_MAX} more"
    nothing = not facts.orders and not facts.broken
    yield Oddity(
        check="instruments",
        weight=Weight.PROBLEM if nothing else Weight.NOTE,
        key="mapping.orders.symbol" if nothing else "instruments",
        seen=f"{counted(sum(facts.strangers.values()), 'order')} of instruments that are not"
        f" configured: {shown}" + ("; no other orders" if nothing else ""),
        consequence="nothing is shadowed" if nothing else "these stay with the monolith",
        next_step=f"see that `mapping.orders.symbol` gives {', '.join(sorted(scales)[:3])}"
        if nothing
        else "add [[instruments]] for those that shall move",
    )


def _filter(facts: Facts) -> Iterator[Oddity]:
    where = facts.mapping.orders.where
    hidden = len(facts.hidden_ids)
    if where and hidden and not facts.inside:
        yield Oddity(
            check="filter",
            key="mapping.orders.where",
            seen=f"it lets none of {counted(hidden, 'order')} through",
            rows=facts.order_names(facts.hidden_ids),
            consequence="nothing is shadowed",
            next_step=f"write the values as the database has them: {_found(facts)}",
        )
    named = [one for one in facts.fills if _ids(one.fill) & facts.hidden_ids]
    if named:
        ids = {one for fill in named for one in _ids(fill.fill) & facts.hidden_ids}
        yield Oddity(
            check="filter",
            key="mapping.orders.where",
            seen=f"{counted(len(named), 'fill')} name orders that it hides",
            rows=(*facts.order_names(ids), *facts.fill_names(named)),
            consequence="the engine never gets these orders: those they met seem to trade with"
            " nobody",
            next_step="let the filter through what trades in the same book, or give"
            " `mapping.fills.where` the same bounds",
        )


def _hidden_fills(facts: Facts) -> Iterator[Oddity]:
    known = facts.orders.keys()
    concerned = [row for row in facts.hidden_fills if named_orders(row, facts.mapping) & known]
    if concerned:
        yield Oddity(
            check="filter",
            key="mapping.fills.where",
            seen=f"it hides {counted(len(concerned), 'fill')} of orders that are let through",
            rows=facts.row_names(concerned, fills=True),
            consequence="the engine's fills of these orders have nothing to be compared with",
            next_step="let these fills through, or hide their orders with `mapping.orders.where`",
        )


def _found(facts: Facts) -> str:
    """What the filter's columns have, where it lets nothing through."""
    rows = facts.recent.orders
    parts = []
    for column in facts.mapping.orders.where:
        tally = Counter(row.get(column) for row in rows).most_common(3)
        values = ", ".join(f"{value!r} ({count})" for value, count in tally)
        parts.append(f"{column} has {values}")
    return "; ".join(parts)


def _repeated(facts: Facts) -> Iterator[Oddity]:
    if facts.repeated:
        yield Oddity(
            check="ids",
            key="mapping.orders.id",
            seen=f"{counted(len(set(facts.repeated)), 'id')} of several rows",
            rows=facts.order_names(facts.repeated),
            consequence="the engine takes only the first order of an id",
            next_step="name the primary key; two tables in one (inheritance, partitions) need ids"
            " of one sequence",
        )


def _alike(facts: Facts) -> Iterator[Oddity]:
    """Two values that mean one word are often right, and sometimes a slip."""
    for name in _ENUMERATED:
        enumerated: Enumerated = getattr(facts.mapping.orders, name)
        if not enumerated.column:
            continue
        tally = Counter(row.get(enumerated.column) for row in facts.inside)
        by_word: dict[str, list[str]] = defaultdict(list)
        for value, count in tally.items():
            if value is not None and enumerated.map.get(value):
                by_word[enumerated.map[value]].append(f"{value[:SHOWN_CHARS_MAX]!r} ({count})")
        unseen = words_of(enumerated) - set(by_word) - {enumerated.other, enumerated.null}
        for word, values in sorted(by_word.items()):
            if len(values) > 1:
                lost = f"; no order is {', '.join(sorted(unseen))}" if unseen else ""
                yield Oddity(
                    check="values",
                    weight=Weight.NOTE,
                    key=f"mapping.orders.{name}.map",
                    seen=f"{enumerated.column} = {' and '.join(sorted(values))} all mean"
                    f' "{word}"{lost}',
                    consequence="if they don't, orders are compared as what they are not",
                    next_step=f"look once that each of them means {word}",
                )


def _one_sided(facts: Facts) -> Iterator[Oddity]:
    sides = Counter(one.image.side for one in facts.orders.values())
    if len(facts.orders) < AUDIT_MANY or len(sides) > 1 or len(facts.met) < AUDIT_EVIDENCE_MIN:
        return
    word = Side(next(iter(sides))).name.lower()
    yield Oddity(
        check="sides",
        key="mapping.orders.side.map",
        seen=f"all {len(facts.orders)} orders {word}, and {len(facts.met)} fills are between them",
        rows=facts.order_names(facts.orders),
        consequence="the engine would let them rest side by side: not one fill would agree",
        next_step="see that `mapping.orders.side.column` tells buy from sell, and its map too",
    )


def _ids(fill: LegacyFill) -> set[int]:
    return {fill.maker_order_id, fill.taker_order_id}


def _is_same(value: str, seen: str | None) -> bool:
    return seen is not None and (value == seen or {"t": "true", "f": "false"}.get(seen) == value)
