"""How the monolith matches, as far as rows show it: who is booked as maker, and when. Pure."""

from __future__ import annotations

from decimal import Decimal

import msgspec

from bridge.limits import ONBOARD_PROOF_ROWS_MIN
from bridge.onboard import names
from bridge.onboard.columns import FillColumns, OrderColumns
from bridge.onboard.evidence import Evidence, OrderSeen
from bridge.onboard.finding import Finding, certain, guess, likely
from bridge.onboard.seen import Table
from bridge.onboard.toml import written

_FEW = ONBOARD_PROOF_ROWS_MIN
_RULE, _MATCHING = "mapping.fills.maker_rule", "mapping.matching"


def rule_findings(
    evidence: Evidence, theirs: FillColumns, its: OrderColumns, *, has_taker_side: bool
) -> list[Finding]:
    pairs = _pairs(evidence)
    matching = _matching(pairs)
    rule = _maker_rule(pairs, theirs, its, has_taker_side, at_once=not matching.undecided)
    return [rule, matching]


class _Pair(msgspec.Struct, frozen=True, kw_only=True):
    """A fill whose two orders were both seen."""

    price: Decimal
    at_us: int | None
    orders: dict[str, OrderSeen]  # by role


def _pairs(evidence: Evidence) -> list[_Pair]:
    found: dict[int, _Pair] = {}
    for order in evidence.orders:
        for fill in order.fills:
            new = _Pair(price=fill.price, at_us=fill.at_us, orders={})
            found.setdefault(id(fill.fill), new).orders[fill.role] = order
    return [pair for pair in found.values() if len(pair.orders) >= 2]


def _maker_rule(
    pairs: list[_Pair],
    theirs: FillColumns,
    its: OrderColumns,
    has_taker_side: bool,
    at_once: bool,
) -> Finding:
    if theirs.maker_order and theirs.taker_order:
        return _booked(pairs, its, at_once)
    if theirs.buy_order and theirs.sell_order and not has_taker_side:
        why = "no column says whose order rested: only that one of the lower id did can be told"
        return likely(_RULE, "lower_id", why)
    return guess(_RULE, "which of the two is booked as maker?", '"lower_id"', '"resting"')


def _booked(pairs: list[_Pair], its: OrderColumns, at_once: bool) -> Finding:
    """Where orders are matched as they come, the one that rests has the lower id anyway."""
    own = other = higher = 0
    for pair in pairs:
        maker, taker = pair.orders.get("maker"), pair.orders.get("taker")
        if maker is not None and taker is not None:
            own += maker.price == pair.price
            other += maker.price != pair.price == taker.price
            higher += _number(maker, its) > _number(taker, its)
    told = f"{own} fills at the maker's price, {other} at the taker's; {higher} makers of higher id"
    if other >= _FEW and not higher:
        return likely(_RULE, "lower_id", f"{told}: the taker rested, so the lower id is booked")
    if own >= _FEW and not other and higher >= _FEW:
        return certain(_RULE, "resting", told)
    if own >= _FEW and not other and at_once:
        return likely(_RULE, "resting", told)
    return guess(_RULE, told, '"resting"', '"lower_id"')


def later_findings(table: Table, its: OrderColumns) -> list[Finding]:
    """What must be known besides of a monolith that may match later: who comes first in its own
    book, and what its market orders may spend.
    """
    found: list[Finding] = []
    if its.id and its.created_at:
        both, own = written([its.created_at, its.id]), written([its.id])
        why = "if a daemon keeps the books, in which order does it read them when it starts?"
        found.append(guess("mapping.orders.priority", why, own, both))
    locked = [one for one in table.columns if set(names.words(one.name)) & names.LOCKED]
    first = [one for one in locked if set(names.words(one.name)) & names.ORIGINAL]
    column = next((one for one in (*first, *locked) if one.kind == "numeric"), None)
    if column is not None:
        key = "mapping.orders.funds"
        found.append(likely(key, column.name, "by its name: what an order had locked at first"))
        why = "what does a market buy do at the first order that its money does not pay for whole?"
        rules = ('"quantity"', '"stop_level"', '"partial_by_funds"')
        found.append(guess("mapping.market_buy", why, *rules))
    return found


def _number(order: OrderSeen, its: OrderColumns) -> int:
    text = order.row.get(its.id) or ""
    return int(text) if text.isdecimal() else 0


def _matching(pairs: list[_Pair]) -> Finding:
    """Where one transaction does both, the order and its fill mostly have the same time."""
    same = seen = 0
    for pair in pairs:
        created = [one.created_us for one in pair.orders.values()]
        if pair.at_us is not None and None not in created:
            seen += 1
            same += pair.at_us in created
    choices = ('"in_transaction"', '"later"') if same else ('"later"', '"in_transaction"')
    if seen >= _FEW and same == seen:
        why = f"the later order of all {seen} fills was created in the same microsecond as its fill"
        return likely(_MATCHING, "in_transaction", why)
    why = (
        f"{same} of {seen} orders were created at the very time of their fill. Is an order matched"
        " in the transaction that inserts it, or later, by a job or a daemon?"
    )
    return guess(_MATCHING, why, *choices)
