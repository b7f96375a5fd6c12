"""Times, ids and steps of the rows read, where only all of them together say anything. Pure.

Whether a zone is right shows in rows that are too young to be that old, or not written yet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from math import gcd

from shadow.legacy.audit_facts import id_of
from shadow.legacy.audit_types import Facts, Oddity, Row, Weight, counted
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import FillsTable, OrdersTable, Time
from shadow.legacy.times import time_us
from shadow.limits import (
    AUDIT_COARSER_MIN,
    AUDIT_FUTURE_US,
    AUDIT_HOUR_SLACK_US,
    AUDIT_PRICES_MIN,
)

_HOUR_US = 3_600_000_000
_QUARTER_US = 900_000_000
_DAY_H = 24
_ZONE_GO = "orders and captures are joined by time: they would not be found"


def time_oddities(facts: Facts, scales: dict[str, Scale]) -> Iterator[Oddity]:
    orders, fills, recent = facts.mapping.orders, facts.mapping.fills, facts.recent
    for name, time in (("created_at", orders.created_at), ("updated_at", orders.updated_at)):
        times = _times(recent.orders, time)
        key = f"mapping.orders.{name}"
        yield from _clock(facts, orders, key, time, times, recent.orders_committed_us)
    for name, time in (("created_at", fills.created_at), ("updated_at", fills.updated_at)):
        times = _times(recent.fills, time)
        key = f"mapping.fills.{name}"
        yield from _clock(facts, fills, key, time, times, recent.fills_committed_us)
    yield from _updated(facts)
    yield from _taken(facts)
    yield from _order_of_ids(facts)
    yield from _steps(facts, scales)


def _clock(
    facts: Facts,
    of: OrdersTable | FillsTable,
    key: str,
    time: Time,
    times: dict[int, int],
    committed_us: Mapping[int, int],
) -> Iterator[Oddity]:
    """One column against the server's clock, or better against when its rows were committed."""
    if not times:
        return
    now_us = facts.recent.now_us
    future = {at: us - now_us for at, us in times.items() if us - now_us > AUDIT_FUTURE_US}
    ages = {at: committed_us[at] - us for at, us in times.items() if at in committed_us}
    rows = facts.recent.orders if isinstance(of, OrdersTable) else facts.recent.fills
    is_fill = isinstance(of, FillsTable)
    if future:
        worst = max(future.values())
        yield _shifted(
            facts, key, time, f"{time.column} is up to {_span(worst)} in the future", future, rows
        )
        return
    youngest = min(ages.values(), default=0)
    if abs(youngest) > AUDIT_FUTURE_US:
        when = "before" if youngest > 0 else "after"
        seen = f"{time.column} is {_span(abs(youngest))} or more {when} the row was committed"
        near = [at for at, age in ages.items() if abs(age - youngest) < AUDIT_FUTURE_US]
        if youngest < 0 or _is_shift(youngest):
            yield _shifted(facts, key, time, seen, near, rows)
        return
    if ages or is_fill or not key.endswith("created_at"):
        return
    newest = max(times, key=lambda at: times[at])
    age_us = now_us - times[newest]
    if facts.recent.is_active and age_us > AUDIT_FUTURE_US:
        seen = f"orders come while we look, and the newest {time.column} is {_span(age_us)} ago"
        yield _shifted(facts, key, time, seen, [newest], rows)
    elif _hours(age_us) and _hours(age_us) < _DAY_H:
        seen = f"the newest {time.column} is {_span(age_us)} ago, to the minute"
        yield _shifted(facts, key, time, seen, [newest], rows, weight=Weight.NOTE)


def _shifted(
    facts: Facts,
    key: str,
    time: Time,
    seen: str,
    at: Mapping[int, int] | Sequence[int],
    rows: Sequence[Row],
    *,
    weight: Weight = Weight.PROBLEM,
) -> Oddity:
    zone = f'`{key}.zone` (now "{time.zone}")' if time.form == "timestamp" else f"`{key}.form`"
    quiet = "is the market quiet? Else " if weight is Weight.NOTE else ""
    return Oddity(
        check="times",
        weight=weight,
        key=f"{key}.zone" if time.form == "timestamp" else f"{key}.form",
        seen=seen,
        rows=facts.row_names([rows[n] for n in sorted(at)], fills="fills" in key),
        consequence=_ZONE_GO,
        next_step=f"{quiet}say in which zone the monolith writes: {zone}; or its clock is wrong",
    )


def _updated(facts: Facts) -> Iterator[Oddity]:
    """A row that was updated before it was there has two zones."""
    orders = facts.mapping.orders
    created = _times(facts.recent.orders, orders.created_at)
    updated = _times(facts.recent.orders, orders.updated_at)
    early = [
        at for at in created.keys() & updated.keys() if created[at] - updated[at] > AUDIT_FUTURE_US
    ]
    if early:
        most_us = max(created[at] - updated[at] for at in early)
        yield Oddity(
            check="times",
            key="mapping.orders.updated_at.zone",
            seen=f"{counted(len(early), 'order')} updated up to {_span(most_us)} before it was"
            " created",
            rows=facts.row_names(facts.recent.orders[at] for at in sorted(early)),
            consequence=_ZONE_GO,
            next_step="say in which zone each of the two columns is written",
        )


def _taken(facts: Facts) -> Iterator[Oddity]:
    """An order that matches at once has a fill at the same time: hours between them are zones."""
    apart = []
    for one in facts.met:
        fill_us = _time(one.seen.row, facts.mapping.fills.created_at)
        if fill_us is not None:
            apart.append(fill_us - one.taker.image.created_at_us)
    if not apart:
        return
    nearest = min(apart, key=abs)
    if nearest < -AUDIT_FUTURE_US or _is_shift(abs(nearest)):
        when = "before" if nearest < 0 else "after"
        yield Oddity(
            check="times",
            key="mapping.fills.created_at.zone",
            seen=f"every fill is {_span(abs(nearest))} or more {when} the order that took it",
            rows=facts.fill_names(one.seen for one in facts.met),
            consequence=_ZONE_GO,
            next_step="orders and fills are written in one zone, mostly: compare"
            " `mapping.orders.created_at.zone` and `mapping.fills.created_at.zone`",
        )


def _order_of_ids(facts: Facts) -> Iterator[Oddity]:
    if facts.mapping.orders.id.form == "uuid":
        return
    rows = facts.recent.orders
    times = _times(rows, facts.mapping.orders.created_at)
    latest, late = None, []
    for at in sorted(times, key=lambda n: id_of(rows[n], facts.mapping.orders)):
        if latest is not None and latest - times[at] > AUDIT_FUTURE_US:
            late.append(at)
        latest = times[at] if latest is None else max(latest, times[at])
    if late:
        yield Oddity(
            check="ids",
            weight=Weight.NOTE,
            key="mapping.orders.priority",
            seen=f"{counted(len(late), 'order')} of {len(times)} created over a minute before an"
            " order with a lower id",
            rows=facts.row_names(rows[at] for at in late),
            consequence="ids and times order the queue of one price differently",
            next_step="see which of them the monolith's own query orders by:"
            " `mapping.orders.priority`",
        )


def _steps(facts: Facts, scales: dict[str, Scale]) -> Iterator[Oddity]:
    """Ticks and lots that nobody uses one by one."""
    for symbol, scale in scales.items():
        images = [one.image for one in facts.orders.values() if one.image.symbol == symbol]
        prices = {one.price_ticks for one in images if one.price_ticks}
        quantities = {one.qty_lots for one in images if one.qty_lots}
        for unit, step, steps in (("tick", scale.tick, prices), ("lot", scale.lot, quantities)):
            coarser = gcd(*steps)
            if len(steps) >= AUDIT_PRICES_MIN and coarser >= AUDIT_COARSER_MIN:
                yield _coarser(symbol, unit, step, coarser, len(steps))


def _coarser(symbol: str, unit: str, step: Decimal, coarser: int, values: int) -> Oddity:
    what = "price" if unit == "tick" else "quantity"
    finest = f"{(step * coarser).normalize():f}"
    plural = "prices" if unit == "tick" else "quantities"
    return Oddity(
        check="steps",
        weight=Weight.NOTE,
        key=f"instruments.{unit}",
        seen=f"all {values} different {plural} of {symbol} are multiples of {finest}",
        consequence=f"if the monolith refuses a finer {what}, the engine would take it",
        next_step=f'see the monolith\'s own {unit} of {symbol}: perhaps {unit} = "{finest}"',
    )


def _times(rows: Sequence[Row], time: Time) -> dict[int, int]:
    """By place in `rows`; those that can't be read are told elsewhere."""
    if not time.column:
        return {}
    found = ((at, _time(row, time)) for at, row in enumerate(rows))
    return {at: us for at, us in found if us is not None}


def _time(row: Row, time: Time) -> int | None:
    value = row.get(time.column)
    if value is None:
        return None
    try:
        return time_us(value, time)
    except (ValueError, OverflowError):
        return None


def _hours(us: int) -> int:
    """How many whole hours it is, within the slack; 0 for no whole hours."""
    hours = round(us / _HOUR_US)
    return hours if abs(us - hours * _HOUR_US) <= AUDIT_HOUR_SLACK_US else 0


def _is_shift(us: int) -> bool:
    """Zones are whole quarters of an hour apart, and no two by less than two of them."""
    quarters = round(us / _QUARTER_US)
    return quarters >= 2 and abs(us - quarters * _QUARTER_US) <= AUDIT_HOUR_SLACK_US


def _span(us: int) -> str:
    minutes = round(us / 60_000_000)
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours else f"{minutes} min"
