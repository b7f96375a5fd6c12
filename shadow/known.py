"""Declared differences: which rules, if any, explain all that differs in one operation.

Pure. A rule has an owner, a reason, an expiry date and a cap on its hits in the configuration; here
it is what it decides by. Expired, or over its cap, it explains nothing: what it hid before is a
mismatch again, and the gate is red.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date

import msgspec

from shadow.verdict import Difference, Kind


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    symbols: tuple[str, ...] = ()  # (): all
    kinds: tuple[Kind, ...]
    expires: date  # the last day on which it holds
    hits_max: int

    def covers(self, symbol: str, kind: Kind) -> bool:
        return kind in self.kinds and (not self.symbols or symbol in self.symbols)


def explaining(
    rules: Iterable[Rule],
    symbol: str,
    differences: Sequence[Difference],
    hits: Mapping[str, int],
    today: date,
) -> tuple[str, ...]:
    """Ids of the rules that together explain every difference; () when one stays open.

    `hits` are the operations that each rule has explained so far.
    """
    valid = [rule for rule in rules if _holds(rule, hits, today)]
    used: dict[str, None] = {}
    for difference in differences:
        rule = next((one for one in valid if one.covers(symbol, difference.kind)), None)
        if rule is None:
            return ()
        used[rule.id] = None
    return tuple(used)


def still_holding(
    rules: Iterable[Rule], ids: Sequence[str], hits: Mapping[str, int], today: date
) -> bool:
    """Whether all these may explain one operation more: one that follows from what they did."""
    held = {rule.id for rule in rules if _holds(rule, hits, today)}
    return bool(ids) and held.issuperset(ids)


def _holds(rule: Rule, hits: Mapping[str, int], today: date) -> bool:
    return today <= rule.expires and hits.get(rule.id, 0) < rule.hits_max
