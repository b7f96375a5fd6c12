"""Each instrument's book, rebuilt from orders and fills: what is open, what is left. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from heapq import heappop, heappush

import msgspec

from engine.types import Side, TimeInForce
from shadow.legacy.audit_facts import named_orders, raw_of
from shadow.legacy.audit_types import Facts, InstrumentTold, Oddity, SeenOrder, Weight, counted
from shadow.legacy.convert import Scale
from shadow.limits import AUDIT_EVIDENCE_MIN, AUDIT_LATER_US, AUDIT_RACE_US
from shadow.operation import Status

_STATUS = "mapping.orders.status.map"
_LEAVES_GO = "every order that traded would be a mismatch"


class _Filled(msgspec.Struct, frozen=True, kw_only=True):
    """An order all of whose fills are known."""

    order: SeenOrder
    fills_lots: int
    qty_lots: int | None
    leaves_lots: int | None

    @property
    def status(self) -> Status:
        return self.order.image.status


def book_oddities(facts: Facts) -> Iterator[Oddity]:
    whole = _whole(facts)
    yield from _sums(facts, whole)
    yield from _states(facts, whole)
    open_orders = _open(facts, settled=True)
    crossing = list(_crossing(facts, open_orders))
    yield from crossing
    if not crossing:
        yield from _passed_over(facts, open_orders)


def instruments_told(facts: Facts, scales: dict[str, Scale]) -> Iterator[InstrumentTold]:
    orders = Counter(one.image.symbol for one in facts.orders.values() if one.is_recent)
    fills = Counter(one.fill.symbol for one in facts.fills)
    open_orders = _open(facts)
    for symbol in scales:
        if not orders[symbol] and not fills[symbol]:
            continue
        buys, sells = (open_orders[symbol, side] for side in (Side.BUY, Side.SELL))
        bid = max((one.image.price_ticks for one in buys), default=None)
        ask = min((one.image.price_ticks for one in sells), default=None)
        price = scales[symbol].price
        yield InstrumentTold(
            symbol=symbol,
            orders=orders[symbol],
            fills=fills[symbol],
            open_buys=len(buys),
            open_sells=len(sells),
            best_bid="" if bid is None else f"{price(bid):f}",
            best_ask="" if ask is None else f"{price(ask):f}",
        )


def _whole(facts: Facts) -> list[_Filled]:
    first = facts.recent.filled_from_id
    if first is None:
        return []
    # What is missing of these has been told.
    unsure = {
        order_id
        for row in (*facts.hidden_fills, *(row for row, _ in facts.broken_fills))
        for order_id in named_orders(row, facts.mapping)
    }
    lots: Counter[int] = Counter()
    for one in facts.fills:
        lots[one.fill.maker_order_id] += one.fill.qty_lots
        lots[one.fill.taker_order_id] += one.fill.qty_lots
    return [
        _Filled(
            order=one,
            fills_lots=lots[number],
            qty_lots=one.image.qty_lots,
            leaves_lots=one.image.leaves_lots,
        )
        for number, one in facts.orders.items()
        if one.is_recent and number >= first and number not in unsure
    ]


def _sums(facts: Facts, whole: Sequence[_Filled]) -> Iterator[Oddity]:
    wrong = [one for one in whole if not _is_summed(one)]
    if not wrong:
        return
    orders = facts.mapping.orders
    names = [amount.column for amount in (orders.quantity, orders.leaves, orders.filled)]
    columns = " and ".join(name for name in names if name)
    key, step = _sum_cause(facts, whole, wrong)
    yield Oddity(
        check="leaves",
        key=key,
        seen=f"{counted(len(wrong), 'order')} of {len(whole)}: {columns} don't fit the fills",
        rows=facts.order_names(one.order.image.order_id for one in wrong),
        consequence=_LEAVES_GO,
        next_step=step,
    )


def _sum_cause(facts: Facts, whole: Sequence[_Filled], wrong: Sequence[_Filled]) -> tuple[str, str]:
    """(key, next step)"""
    both = [one for one in wrong if one.qty_lots is not None and one.leaves_lots is not None]
    if len(both) >= AUDIT_EVIDENCE_MIN:
        if all(one.leaves_lots == one.fills_lots for one in both):
            column = facts.mapping.orders.leaves.column
            return "mapping.orders.leaves", (
                f'{column} is what was filled: `mapping.orders.filled` = "{column}"'
            )
        if all(one.leaves_lots == one.qty_lots for one in whole):
            return "mapping.orders.quantity", (
                "quantity and leaves are always equal: one of them names the wrong column, or the"
                " monolith keeps only what is left"
            )
        times = {_times(one) for one in both}
        if len(times) == 1 and None not in times:
            return "mapping.fills.quantity", (
                f"fills say {next(iter(times))} of what orders say: correct `exponent` and `form`"
                " of `mapping.fills.quantity` or of the orders' quantities"
            )
        if all(one.fills_lots == 0 for one in both):
            return "mapping.fills", (
                "these orders have no fill at all: do fills stand in another table too, or does"
                " `mapping.fills.where` hide them?"
            )
    return "mapping.orders.leaves", (
        "look at these rows: do jobs write quantities, or are fills taken back or archived?"
    )


def _times(one: _Filled) -> str | None:
    """How the fills' quantities are to the orders', where it is a power of ten."""
    assert one.qty_lots is not None
    assert one.leaves_lots is not None
    wanted = one.qty_lots - one.leaves_lots
    if not wanted or not one.fills_lots:
        return None
    ratio, rest = divmod(max(wanted, one.fills_lots), min(wanted, one.fills_lots))
    digits = str(ratio)
    if rest or digits.rstrip("0") != "1" or ratio == 1:
        return None
    return f"1/{ratio}" if wanted > one.fills_lots else f"{ratio} times"


def _is_summed(one: _Filled) -> bool:
    """What the row says fits its fills. A closed order may say 0 or what it had left."""
    if one.qty_lots is None:
        return True
    left = one.qty_lots - one.fills_lots
    if left < 0:
        return False
    if one.leaves_lots is None or one.leaves_lots == left:
        return True
    closed = one.status in (Status.CANCELED, Status.REJECTED)
    return closed and one.leaves_lots == 0


def _states(facts: Facts, whole: Sequence[_Filled]) -> Iterator[Oddity]:
    filled = [one for one in facts.orders.values() if one.image.status is Status.FILLED]
    unfinished = [one for one in filled if one.image.leaves_lots]
    unfinished += [
        one.order
        for one in whole
        if one.status is Status.FILLED
        and one.leaves_lots is None
        and one.qty_lots is not None
        and one.fills_lots < one.qty_lots
    ]
    yield from _state(facts, "filled", "have something left", unfinished, len(filled))
    opened = [one for one in facts.orders.values() if one.image.status is Status.OPEN]
    empty = [one for one in opened if one.image.leaves_lots == 0]
    empty += [
        one.order
        for one in whole
        if one.status is Status.OPEN and one.leaves_lots is None and one.fills_lots == one.qty_lots
    ]
    yield from _state(facts, "open", "have nothing left", empty, len(opened))
    if facts.mapping.matching == "in_transaction":
        never = [one for one in opened if one.image.tif == TimeInForce.IOC]
        never = [one for one in never if one.image.leaves_lots]
        yield from _state(facts, "open", "can't rest: they are IOC", never, len(opened))
    yield from _finished(facts, whole)


def _state(
    facts: Facts, word: str, what: str, wrong: Sequence[SeenOrder], of: int
) -> Iterator[Oddity]:
    if not wrong:
        return
    told = raw_of(facts.mapping.orders.status.column, wrong)
    yield Oddity(
        check="states",
        key=_STATUS,
        seen=f"{counted(len(wrong), 'order')} of {of} that {'is' if of == 1 else 'are'} {word}"
        f" {what}: {told}",
        rows=facts.order_names(one.image.order_id for one in wrong),
        consequence="the engine's book and status of these orders would differ",
        next_step=f"see what these values of the column mean; correct `{_STATUS}`, or"
        " `mapping.orders.leaves`",
    )


def _finished(facts: Facts, whole: Sequence[_Filled]) -> Iterator[Oddity]:
    """A value that is said to mean canceled, and whose orders are all filled up."""
    column = facts.mapping.orders.status.column
    by_value: dict[str | None, list[_Filled]] = defaultdict(list)
    for one in whole:
        if one.status is Status.CANCELED and one.qty_lots:
            by_value[one.order.row.get(column)].append(one)
    for value, some in by_value.items():
        full = [one for one in some if one.fills_lots == one.qty_lots]
        if len(full) >= AUDIT_EVIDENCE_MIN and 10 * len(full) >= 9 * len(some):
            yield Oddity(
                check="states",
                key=_STATUS,
                seen=f"{counted(len(full), 'order')} of {len(some)} with {column} = {value!r}, said"
                " to be canceled, are filled up",
                rows=facts.order_names(one.order.image.order_id for one in full),
                consequence="the status of each of them would be a mismatch",
                next_step=f"does {value!r} mean filled? Correct `{_STATUS}`",
            )


def _open(facts: Facts, *, settled: bool = False) -> dict[tuple[str, Side], list[SeenOrder]]:
    """By instrument and side. `settled`: without those that a job may be about to match."""
    later = settled and facts.mapping.matching == "later"
    before_us = facts.recent.now_us - AUDIT_LATER_US
    found: dict[tuple[str, Side], list[SeenOrder]] = defaultdict(list)
    for one in facts.orders.values():
        image = one.image
        if image.status is not Status.OPEN or one.limit_ticks is None or image.leaves_lots == 0:
            continue
        if image.tif == TimeInForce.IOC or (later and image.created_at_us > before_us):
            continue
        found[image.symbol, Side(image.side)].append(one)
    return found


def _crossing(
    facts: Facts, open_orders: dict[tuple[str, Side], list[SeenOrder]]
) -> Iterator[Oddity]:
    symbols = sorted({symbol for symbol, _ in open_orders})
    crossed: list[str] = []
    concerned: list[SeenOrder] = []
    two_sided = 0
    for symbol in symbols:
        buys, sells = (open_orders.get((symbol, side), []) for side in (Side.BUY, Side.SELL))
        if not buys or not sells:
            continue
        two_sided += 1
        bid = max(one.image.price_ticks for one in buys)
        ask = min(one.image.price_ticks for one in sells)
        if bid >= ask:
            crossed.append(symbol)
            concerned += [one for one in buys if one.image.price_ticks >= ask]
            concerned += [one for one in sells if one.image.price_ticks <= bid]
    if not crossed:
        return
    told = raw_of(facts.mapping.orders.status.column, concerned)
    every = len(crossed) == two_sided and len(concerned) > AUDIT_EVIDENCE_MIN
    step = f"do all these values mean open? Correct `{_STATUS}`"
    if every:
        step += "; or buy and sell are exchanged in `mapping.orders.side.map`"
    yield Oddity(
        check="crossed book",
        key=_STATUS,
        seen=f"the open orders of {', '.join(crossed)} cross: {counted(len(concerned), 'order')}"
        f" would trade at once, {told}",
        rows=facts.order_names(one.image.order_id for one in concerned),
        consequence="the engine can't load such a book",
        next_step=f'{step}; if a job matches, `mapping.matching` = "later"',
    )


def _passed_over(
    facts: Facts, open_orders: dict[tuple[str, Side], list[SeenOrder]]
) -> Iterator[Oddity]:
    """Orders said to be open, while worse ones of their side were taken."""
    passed: list[SeenOrder] = []
    by: set[int] = set()
    for (symbol, side), orders in open_orders.items():
        coming = sorted(orders, key=lambda one: -one.image.created_at_us)  # the oldest last
        best: list[tuple[int, int]] = []  # a heap of those there: the best first, by worth and id
        fills = [
            one
            for one in facts.met
            if one.maker.image.side == side and one.seen.fill.symbol == symbol
        ]
        for met in sorted(fills, key=lambda one: one.taker.image.created_at_us):
            came_us = met.taker.image.created_at_us - AUDIT_RACE_US
            while coming and coming[-1].image.created_at_us < came_us:
                one = coming.pop()
                heappush(best, (-_worth(one.image.price_ticks, side), one.image.order_id))
            while best and -best[0][0] > _worth(met.price_ticks, side):
                passed.append(facts.orders[heappop(best)[1]])
                by.add(met.seen.fill.fill_id)
    if passed:
        yield _passed(facts, passed, len(by))


def _passed(facts: Facts, passed: Sequence[SeenOrder], fills: int) -> Oddity:
    """A single one may have been amended: then it is worth a look."""
    told = raw_of(facts.mapping.orders.status.column, passed)
    few = len(passed) < AUDIT_EVIDENCE_MIN
    return Oddity(
        check="passed over",
        weight=Weight.NOTE if few else Weight.PROBLEM,
        key=_STATUS,
        seen=f"{counted(len(passed), 'order')} said to be open had a better price than"
        f" {counted(fills, 'fill')} that came later: {told}",
        rows=facts.order_names(one.image.order_id for one in passed),
        consequence="the monolith does not have them in its book; the engine would",
        next_step=f"do these values mean open? Correct `{_STATUS}`. Are prices of open orders"
        " changed, or has the monolith a second table of open orders?",
    )


def _worth(price_ticks: int, side: Side) -> int:
    """The better a resting order's price, the higher."""
    return price_ticks if side == Side.BUY else -price_ticks
