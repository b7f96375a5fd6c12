"""Fills against the orders they name: sides, prices, who was maker. Pure.

A matching engine trades at the price of the order that rested, and no order at worse than its
limit. Where most fills say otherwise it is the mapping that is wrong, and in which way they differ
says how.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from engine.types import Side
from shadow.errors import NotExact
from shadow.legacy.audit_facts import raw_of
from shadow.legacy.audit_types import Facts, Met, Oddity, Row, SeenFill, SeenOrder, counted, few
from shadow.legacy.convert import decimal_of
from shadow.legacy.keys import number_of
from shadow.legacy.words import word_of
from shadow.limits import AUDIT_EVIDENCE_MIN, AUDIT_RACE_US, EXPONENT_MAX

_SIDE = "mapping.orders.side.map"
_WORDS = {Side.BUY: "buy", Side.SELL: "sell"}


def fill_oddities(facts: Facts) -> Iterator[Oddity]:
    yield from _unexplained(facts)
    yield from _other_symbol(facts)
    yield from _one_side(facts)
    cause = _price_cause(facts)
    if cause is not None:
        yield cause
    worse = list(_worse(facts)) if cause is None else []
    yield from worse
    if cause is None:
        yield from _makers(facts)
    if not any(one.key == _SIDE for one in worse):  # swapped sides contradict all that tell them
        yield from _sides_told(facts)
    yield from _accounts(facts)
    yield from _totals(facts)


def _unexplained(facts: Facts) -> Iterator[Oddity]:
    known = facts.orders.keys() | facts.hidden_ids | facts.broken_ids | facts.stranger_ids
    lone = [one for one in facts.fills if _ids(one) - known]
    if not lone:
        return
    missing = {order_id for one in lone for order_id in _ids(one) - known}
    fills = facts.mapping.fills
    column = fills.maker_order or fills.buy_order
    most = 2 * len(lone) > len(facts.fills)
    yield Oddity(
        check="fills without order",
        key=f"mapping.fills.{'maker_order' if fills.maker_order else 'buy_order'}",
        seen=f"{counted(len(lone), 'fill')} of {len(facts.fills)} name"
        f" {counted(len(missing), 'order')} that {'is' if len(missing) == 1 else 'are'} not there",
        rows=facts.fill_names(lone),
        consequence="what these fills did to the other order can't be compared",
        next_step=f"see that {column} and its neighbour hold ids of orders: most fills name none"
        if most
        else "do jobs delete or archive orders that still trade? Let them wait until they are"
        " closed",
    )


def _other_symbol(facts: Facts) -> Iterator[Oddity]:
    wrong = [
        one
        for one in facts.met
        if {one.maker.image.symbol, one.taker.image.symbol} != {one.seen.fill.symbol}
    ]
    wrong_fills = [one.seen for one in wrong]
    wrong_fills += [one for one in facts.fills if _ids(one) & facts.stranger_ids]
    if wrong_fills:
        yield Oddity(
            check="symbols",
            key="mapping.fills.symbol",
            seen=f"{counted(len(wrong_fills), 'fill')} of another instrument than the orders named",
            rows=facts.fill_names(wrong_fills),
            consequence="they are compared in the wrong book",
            next_step="see that orders and fills give the same symbols: `mapping.orders.symbol`,"
            " `mapping.fills.symbol`",
        )


def _one_side(facts: Facts) -> Iterator[Oddity]:
    wrong = [one for one in facts.met if one.maker.image.side == one.taker.image.side]
    if wrong:
        orders = [order for one in wrong for order in (one.maker, one.taker)]
        yield Oddity(
            check="sides",
            key=_SIDE,
            seen=f"{counted(len(wrong), 'fill')} of {len(facts.met)} between two orders of one"
            f" side: {raw_of(facts.mapping.orders.side.column, orders)}",
            rows=_pairs(facts, wrong),
            consequence="the engine would let them rest side by side",
            next_step=f"see which values of the column buy and which sell, and correct `{_SIDE}`",
        )


def _price_cause(facts: Facts) -> Oddity | None:
    """Why prices of fills are those of no order, where nearly all are so."""
    limits = [one for one in facts.met if one.maker.limit_ticks or one.taker.limit_ticks]
    odd = [one for one in limits if one.price_ticks not in _limits(one)]
    if len(odd) < AUDIT_EVIDENCE_MIN or 10 * len(odd) < 9 * len(limits):
        return None
    exponents = {_exponent(one) for one in odd}
    scaled = exponents - {None}
    if len(scaled) == 1 and None not in exponents:
        power = next(iter(scaled))
        assert power is not None
        seen = f"fills have 10^{power} times the prices of their orders"
        step = (
            "one of the two is in another unit: correct `exponent` and `form` of"
            " `mapping.fills.price` or of `mapping.orders.price`"
        )
        check = "scale"
    else:
        seen = f"{counted(len(odd), 'fill')} of {len(limits)} at the price of neither order"
        step = "see that `mapping.fills.price` and `mapping.orders.price` name the price of one lot"
        check = "prices"
    return Oddity(
        check=check,
        key="mapping.fills.price",
        seen=seen,
        rows=_pairs(facts, odd),
        consequence="no fill of the engine's would agree",
        next_step=step,
    )


def _worse(facts: Facts) -> Iterator[Oddity]:
    worse, better = 0, 0
    concerned: list[Met] = []
    for one in facts.met:
        signs = [_gain(order, one.price_ticks) for order in (one.maker, one.taker)]
        worse += sum(sign < 0 for sign in signs)
        better += sum(sign > 0 for sign in signs)
        if min(signs) < 0:
            concerned.append(one)
    if not concerned:
        return
    if worse >= AUDIT_EVIDENCE_MIN and worse > better:
        yield Oddity(
            check="sides",
            key=_SIDE,
            seen=f"the sides are swapped: {counted(worse, 'order')} traded at worse than the limit,"
            f" {better} at better",
            rows=_pairs(facts, concerned),
            consequence="every order would go to the wrong side of the engine's book",
            next_step=f"exchange buy and sell in `{_SIDE}`",
        )
        return
    yield Oddity(
        check="prices",
        key="mapping.orders.price",
        seen=f"{counted(len(concerned), 'fill')} of {len(facts.met)} at a price worse than an"
        " order's limit",
        rows=_pairs(facts, concerned),
        consequence="the engine never does that: these are mismatches",
        next_step="are prices of orders changed after they traded? Then these are uncomparable;"
        " else see what `mapping.orders.price` names",
    )


def _makers(facts: Facts) -> Iterator[Oddity]:
    fills = facts.mapping.fills
    if fills.maker_rule == "lower_id":
        if fills.maker_order:
            yield from _higher_makers(facts)
        return
    told = [one for one in facts.met if _is_decided(one)]
    wrong = [one for one in told if _took(one)]
    if wrong:
        yield _not_resting(facts, wrong, told)
        return
    late = [one for one in facts.met if _came_later(one)]
    if late and facts.mapping.matching == "in_transaction":
        yield Oddity(
            check="makers",
            key="mapping.fills.maker_order",
            seen=f"{counted(len(late), 'maker')} of {len(facts.met)} came long after"
            " the order that took them",
            rows=_pairs(facts, late),
            consequence="they were not resting: the engine would book them as taker",
            next_step='if a job matches them, `mapping.matching` = "later"; else see that maker and'
            " taker are not exchanged",
        )


def _not_resting(facts: Facts, wrong: Sequence[Met], told: Sequence[Met]) -> Oddity:
    fills = facts.mapping.fills
    key = "mapping.fills.maker_order" if fills.maker_order else "mapping.fills.taker_side.map"
    lower = all(one.maker.image.order_id < one.taker.image.order_id for one in facts.met)
    if lower:
        key = "mapping.fills.maker_rule"
        step = f'in every fill the maker has the lower id: `{key}` = "lower_id"'
    elif len(wrong) >= AUDIT_EVIDENCE_MIN and 2 * len(wrong) > len(told):
        step = (
            "maker and taker are exchanged: let `maker_order` name"
            f" {fills.taker_order} and `taker_order` {fills.maker_order}"
            if fills.maker_order
            else "it names the maker's side: exchange buy and sell"
        )
    else:
        step = "does the monolith trade at the taker's price there? Then these are mismatches"
    return Oddity(
        check="makers",
        key=key,
        seen=f"{counted(len(wrong), 'maker')} of {len(told)} were not resting:"
        " the fill has the other order's price",
        rows=_pairs(facts, wrong),
        consequence="the engine books the order that rested as maker: these are mismatches",
        next_step=step,
    )


def _higher_makers(facts: Facts) -> Iterator[Oddity]:
    wrong = [one for one in facts.met if one.maker.image.order_id > one.taker.image.order_id]
    if wrong:
        yield Oddity(
            check="makers",
            key="mapping.fills.maker_rule",
            seen=f"{counted(len(wrong), 'maker')} of {len(facts.met)} have the higher id",
            rows=_pairs(facts, wrong),
            consequence="these fills would be mismatches: the comparison expects the lower id",
            next_step='`mapping.fills.maker_rule` = "resting"',
        )


def _sides_told(facts: Facts) -> Iterator[Oddity]:
    """`taker_side`, and the columns of buy and sell orders, against the orders' own sides."""
    fills = facts.mapping.fills
    wrong = [one for one in facts.met if _contradicts(facts, one)]
    if not wrong:
        return
    most = 2 * len(wrong) > len(facts.met)
    if fills.buy_order:
        key, what = "mapping.fills.buy_order", f"{fills.buy_order} names an order that sells"
        step = f"exchange buy and sell in `{_SIDE}`, or `buy_order` and `sell_order`"
    else:
        key = "mapping.fills.taker_side.map"
        what = f"{fills.taker_side.column} is not the taker's side"
        step = f"it may be the maker's side: exchange buy and sell in `{key}`; or `{_SIDE}` is"
        step = f"{step} wrong"
    yield Oddity(
        check="sides",
        key=key,
        seen=f"{counted(len(wrong), 'fill')} of {len(facts.met)}: {what}",
        rows=_pairs(facts, wrong),
        consequence="write-back would write it the wrong way round, and buy may be taken for sell",
        next_step=step if most else "see what these rows have in common",
    )


def _contradicts(facts: Facts, one: Met) -> bool:
    fills, row = facts.mapping.fills, one.seen.row
    if fills.buy_order:
        buy_id = number_of(row.get(fills.buy_order), facts.mapping.orders.id)
        buy = one.maker if one.maker.image.order_id == buy_id else one.taker
        return buy.image.side != Side.BUY
    if not fills.taker_side.column:
        return False
    word = word_of(row.get(fills.taker_side.column), fills.taker_side)
    return bool(word) and word != _WORDS[Side(one.taker.image.side)]


def _accounts(facts: Facts) -> Iterator[Oddity]:
    fills, key = facts.mapping.fills, facts.mapping.orders.account
    for name, column in (
        ("maker_account", fills.maker_account),
        ("taker_account", fills.taker_account),
    ):
        if not column:
            continue
        wrong = [
            one
            for one in facts.met
            if number_of(one.seen.row.get(column), key)
            != (one.maker if name == "maker_account" else one.taker).image.account
        ]
        if wrong:
            yield Oddity(
                check="accounts",
                key=f"mapping.fills.{name}",
                seen=f"{counted(len(wrong), 'fill')} of {len(facts.met)} have another account in"
                f" {column} than the order",
                rows=_pairs(facts, wrong),
                consequence="write-back would write other accounts than the monolith does",
                next_step=f"see what {column} holds",
            )


def _totals(facts: Facts) -> Iterator[Oddity]:
    total = facts.mapping.fills.total
    if not total.column:
        return
    wrong = [one for one in facts.fills if not _adds_up(one.row, facts)]
    if wrong:
        yield Oddity(
            check="totals",
            key="mapping.fills.total",
            seen=f"{counted(len(wrong), 'fill')} of {len(facts.fills)}: {total.column} is not price"
            " times quantity",
            rows=facts.fill_names(wrong),
            consequence="write-back would write another total than the monolith does",
            next_step="see that the column has neither fees nor rounding in it, and its `exponent`",
        )


def _adds_up(row: Row, facts: Facts) -> bool:
    fills = facts.mapping.fills
    try:
        price, quantity, total = (
            Fraction(decimal_of(row.get(amount.column) or "", amount))
            for amount in (fills.price, fills.quantity, fills.total)
        )
    except (ValueError, ZeroDivisionError, NotExact):
        return False
    return price * quantity == total


def _limits(one: Met) -> set[int]:
    return {order.limit_ticks for order in (one.maker, one.taker) if order.limit_ticks is not None}


def _exponent(one: Met) -> int | None:
    """The k for which the fill has 10^k times the price of its maker, or else of its taker."""
    for limit in (one.maker.limit_ticks, one.taker.limit_ticks):
        if not limit:
            continue
        for k in range(1, EXPONENT_MAX + 1):
            if one.price_ticks == limit * 10**k:
                return k
            if one.price_ticks * 10**k == limit:
                return -k
    return None


def _gain(order: SeenOrder, price_ticks: int) -> int:
    """Above 0 where it traded at better than its limit, below 0 at worse."""
    if order.limit_ticks is None:
        return 0
    gain = order.limit_ticks - price_ticks
    return gain if order.image.side == Side.BUY else -gain


def _is_decided(one: Met) -> bool:
    """The two have different prices: that of the fill says who rested."""
    return one.maker.limit_ticks != one.taker.limit_ticks


def _took(one: Met) -> bool:
    """The order booked as maker was the one that came in."""
    if one.maker.limit_ticks is None:
        return True
    return one.taker.limit_ticks is not None and one.price_ticks == one.taker.limit_ticks


def _came_later(one: Met) -> bool:
    later_us = one.maker.image.created_at_us - one.taker.image.created_at_us
    return later_us > AUDIT_RACE_US and one.maker.image.order_id > one.taker.image.order_id


def _ids(one: SeenFill) -> set[int]:
    return {one.fill.maker_order_id, one.fill.taker_order_id}


def _pairs(facts: Facts, met: Sequence[Met]) -> tuple[str, ...]:
    orders = facts.mapping.orders.table
    named = [
        f"{facts.mapping.fills.table} {one.seen.fill.fill_id}"
        f" ({orders} {one.maker.image.order_id} and {one.taker.image.order_id})"
        for one in met
    ]
    return few(named)
