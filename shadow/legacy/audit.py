"""Does the mapping make sense of the monolith's newest orders and fills? Pure.

Nothing is known for certain here: a mapping that reads other columns than it should still reads
rows. But an exchange's rows explain each other. Fills meet orders of two sides at the price of the
one that rested, quantities add up, open orders don't cross. Where they say something else of most
rows it is the mapping, and how they differ says which key. `shadow.legacy.recent` reads the rows.
"""

from __future__ import annotations

from collections.abc import Iterator

from shadow.legacy.audit_book import book_oddities, instruments_told
from shadow.legacy.audit_facts import facts
from shadow.legacy.audit_fills import fill_oddities
from shadow.legacy.audit_rows import row_oddities, values_told
from shadow.legacy.audit_times import time_oddities
from shadow.legacy.audit_types import Audit, Oddity, Recent, Weight
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping


def audit(recent: Recent, mapping: Mapping, scales: dict[str, Scale]) -> Audit:
    """`mapping` without tables of symbols: `shadow.legacy.symbols.resolved`."""
    seen = facts(recent, mapping, scales)
    oddities = [
        *_empty(recent, mapping),
        *row_oddities(seen, scales),
        *fill_oddities(seen),
        *book_oddities(seen),
        *time_oddities(seen, scales),
    ]
    oddities.sort(key=lambda one: one.weight is not Weight.PROBLEM)  # stable
    return Audit(
        orders=len(recent.orders),
        hidden=len(seen.hidden_ids),
        unconfigured=sum(seen.strangers.values()),
        unreadable=len(seen.broken),
        fills=len(recent.fills),
        instruments=tuple(instruments_told(seen, scales)),
        values=tuple(values_told(seen)),
        oddities=tuple(oddities),
    )


def _empty(recent: Recent, mapping: Mapping) -> Iterator[Oddity]:
    if not recent.orders:
        yield Oddity(
            check="empty",
            weight=Weight.NOTE,
            key="mapping.orders.table",
            seen=f"no orders were found in {mapping.orders.table}",
            consequence="nothing is known of this mapping",
            next_step="look again when there are some; of a rare instrument, with a larger --last",
        )
