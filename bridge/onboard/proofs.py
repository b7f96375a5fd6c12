"""What rows prove about the meaning of values that say nothing by themselves. Pure.

A proof is a contradiction: nobody buys above his limit, what is filled has fills for all of it,
what rests in the book is not passed over by a trade at a worse price. Too few cases, or one case
against it, and there is no proof.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from bridge.limits import ONBOARD_PROOF_ROWS_MIN
from bridge.onboard.evidence import MARGIN_US, Evidence, OrderSeen
from bridge.onboard.passed import Passed

_FEW = ONBOARD_PROOF_ROWS_MIN
_MANY = 2 * _FEW  # where each case has an even chance of looking right by accident


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    word: str  # "": nothing is proved
    why: str  # what was seen, in any case
    hint: str = ""  # what it looks like, without proof


def groups(evidence: Evidence, column: str) -> dict[str, list[OrderSeen]]:
    found: dict[str, list[OrderSeen]] = defaultdict(list)
    for order in evidence.orders:
        value = order.row.get(column)
        if value is not None:
            found[value].append(order)
    return dict(found)


def sides(evidence: Evidence, column: str) -> dict[str, Proof]:
    """By what was paid: a buyer never more than his limit, a seller never less."""
    found: dict[str, Proof] = {}
    for value, orders in groups(evidence, column).items():
        better = Counter(
            "buy" if order.price > fill.price else "sell"
            for order in orders
            if order.price is not None
            for fill in order.fills
            if order.price != fill.price
        )
        below, above = better["buy"], better["sell"]
        why = f"{below} fills below the order's limit, {above} above it"
        word = ""
        if below >= _MANY and not above:
            word = "buy"
        elif above >= _MANY and not below:
            word = "sell"
        found[value] = Proof(word=word, why=why)
    return found


def named_sides(evidence: Evidence, column: str) -> dict[str, Proof]:
    """By the column of the fill that names the order, where there is one for each side."""
    found: dict[str, Proof] = {}
    for value, orders in groups(evidence, column).items():
        roles = Counter(fill.role for order in orders for fill in order.fills)
        bought, sold = roles["buy"], roles["sell"]
        word = ""
        if bought >= _MANY and not sold:
            word = "buy"
        elif sold >= _MANY and not bought:
            word = "sell"
        why = f"{bought} fills name such orders as the buyer's, {sold} as the seller's"
        found[value] = Proof(word=word, why=why)
    return found


def taker_sides(
    evidence: Evidence, column: str, side_column: str, meant: Mapping[str, str]
) -> dict[str, Proof]:
    """By the side of the order that the fill names as the taker's."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for order in evidence.orders:
        word = meant.get(order.row.get(side_column) or "", "")
        for fill in order.fills:
            value = fill.fill.get(column)
            if word and value is not None and fill.role == "taker":
                seen[value][word] += 1
    found: dict[str, Proof] = {}
    for value, counted in seen.items():
        (word, times), *others = counted.most_common()
        against = sum(count for _, count in others)
        good = times >= _MANY and not against
        why = f"the taker's order is {word} in {times} of {times + against} fills"
        found[value] = Proof(word=word if good else "", why=why)
    return found


def order_types(evidence: Evidence, column: str, conditional: str) -> dict[str, Proof]:
    """`conditional`: a column that makes an order more than limit or market; "" for none."""
    found: dict[str, Proof] = {}
    for value, orders in groups(evidence, column).items():
        bare = sum(order.price is None for order in orders)
        own = sum(
            any(fill.rested and fill.price == order.price for fill in order.fills)
            for order in orders
        )
        word, why = "", f"{bare} of {len(orders)} without a price"
        if conditional:
            why += f"; {conditional} may make them more than that"
        elif bare == len(orders) >= _FEW:
            word = "market"
        elif not bare and own >= _FEW:
            word = "limit"
            why += f"; {own} were filled as makers at their own price"
        found[value] = Proof(word=word, why=why)
    return found


def rested(evidence: Evidence, column: str) -> dict[str, Proof]:
    """What is known of values of a time in force; it proves none: a day's order rests as well."""
    found: dict[str, Proof] = {}
    for value, orders in groups(evidence, column).items():
        makers = sum(order.was_maker for order in orders)
        why = f"{makers} of {len(orders)} orders rested and were hit later"
        found[value] = Proof(word="", why=why, hint="gtc" if makers else "ioc")
    return found


class StatusSeen(msgspec.Struct, frozen=True, kw_only=True):
    """The orders of one status, counted."""

    orders: int
    done: int  # nothing left
    partly: int  # something left, and something filled
    summed: int  # all fills seen, and they are all of the quantity
    short: int  # all fills seen, nothing left, and they are less than the quantity
    short_filled: int  # of these, with a fill
    touched_last: int  # partly filled makers whose last change was their last fill
    touched_later: int  # partly filled makers that were changed after it
    passed: int  # something left, and a later trade at a worse price than theirs

    @property
    def has_ended(self) -> bool:
        """Some of them were certainly no longer in the book."""
        return bool(self.touched_later or self.passed)

    @property
    def hint(self) -> str:
        if 2 * self.done > self.orders:
            return "filled"
        return "canceled" if self.has_ended else "open"

    @property
    def why(self) -> str:
        told = [f"{self.done} of {self.orders} have nothing left"]
        for count, what in (
            (self.summed, "have fills for all of their quantity"),
            (self.short, "have nothing left and fills for less than their quantity"),
            (self.touched_last, "were partly filled and not changed since their last fill"),
            (self.touched_later, "were partly filled and changed later"),
            (self.passed, "were passed over by a trade at a worse price"),
        ):
            if count:
                told.append(f"{count} {what}")
        return "; ".join(told)


def statuses(evidence: Evidence, column: str, sides_of: Mapping[int, str]) -> dict[str, Proof]:
    """`sides_of`: buy or sell by the order's place in the evidence, as far as that is sure."""
    passed = Passed(evidence.prints)
    side = {id(order): sides_of.get(n, "") for n, order in enumerate(evidence.orders)}
    seen = {
        value: _counted(orders, [passed.is_passed(one, side[id(one)]) for one in orders])
        for value, orders in groups(evidence, column).items()
    }
    opened = [value for value, one in seen.items() if _is_open(one)]
    rivals = [one for one in seen.values() if one.touched_last and not one.has_ended]
    sure = opened[0] if len(opened) == len(rivals) == 1 else None
    return {
        value: Proof(word=_status(one, value == sure, sure is not None), why=one.why, hint=one.hint)
        for value, one in seen.items()
    }


def _counted(orders: Sequence[OrderSeen], passed: Sequence[bool]) -> StatusSeen:
    count: Counter[str] = Counter()
    for order, was_passed in zip(orders, passed, strict=True):
        if order.leaves is None or order.quantity is None:
            continue
        if order.leaves == 0:
            count["done"] += 1
            if order.has_all:
                whole = order.filled == order.quantity
                count["summed" if whole else "short"] += 1
                count["short_filled"] += not whole and bool(order.fills)
            continue
        count["passed"] += was_passed
        if order.leaves < order.quantity:
            count["partly"] += 1
            last = _last_fill_us(order)
            if order.was_maker and last is not None and order.updated_us is not None:
                same = order.updated_us - last <= _SAME_US
                count["touched_last" if same else "touched_later"] += 1
    names = StatusSeen.__struct_fields__
    return StatusSeen(
        orders=len(orders), **{name: count[name] for name in names if name != "orders"}
    )


_SAME_US = MARGIN_US // 20  # the order's change and its fill are written in one transaction


def _last_fill_us(order: OrderSeen) -> int | None:
    times = [fill.at_us for fill in order.fills if fill.at_us is not None]
    return max(times) if times else None


def _is_open(seen: StatusSeen) -> bool:
    """The match itself left them so: it is what a partly filled order that rests is."""
    return seen.touched_last >= _FEW and not seen.has_ended and not seen.done


def _status(seen: StatusSeen, is_open: bool, open_known: bool) -> str:
    if is_open:
        return "open"
    if seen.done == seen.orders and seen.summed >= _FEW and not seen.short:
        return "filled"
    if seen.done == seen.orders and seen.short >= _FEW and seen.short_filled and not seen.summed:
        return "canceled"
    # neither filled nor pending nor rejected: partly filled; nor open, for they were passed over
    if open_known and not seen.done and seen.passed >= _FEW and seen.partly:
        return "canceled"
    return ""
