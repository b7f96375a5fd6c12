"""Did both sides do the same with an order? Exact: no tolerance on anything that is money.

Pure. A difference is named once, by its cause: what merely follows from a differing fill (the
leaves quantity of its maker, the status of its taker) is not told again. Differences come in the
order of `Kind`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from engine.reject import Reason
from engine.types import Command, Event, EventKind, OrderType, TimeInForce
from shadow.legacy.makers import MakerRule, booked
from shadow.operation import Cancel, OrderImage, Place, Status, counterparty, ordered_lots
from shadow.verdict import Difference, Kind

_RANK = {kind: rank for rank, kind in enumerate(Kind)}

# A number that the monolith cut to one or two digits fewer is off by rounding; one that is off by
# more than a hundredth is not, whatever its last digits are.
_ROUNDED_TO = (10, 100)
_ROUNDING_SHARE = 100


class Fill(msgspec.Struct, frozen=True, gc=False):
    """One fill as either side has it, seen from the order that came in."""

    maker: int  # the order that it met, however the monolith books the two
    price_ticks: int
    qty_lots: int


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine made of one new order."""

    reason: Reason  # NONE: accepted
    fills: tuple[Fill, ...]
    maker_leaves: dict[int, int]  # lots, after the newest fill of each
    leaves_lots: int  # of a canceled order: what was still open
    status: Status


def outcome_of(events: Sequence[Event]) -> Outcome:
    """`events` are all those of one NEW command."""
    first = events[0]
    if first.kind is EventKind.REJECTED:
        return Outcome(
            reason=first.reason,
            fills=(),
            maker_leaves={},
            leaves_lots=first.qty_lots,
            status=Status.REJECTED,
        )
    fills: list[Fill] = []
    maker_leaves: dict[int, int] = {}
    leaves_lots, status = first.leaves_lots, Status.OPEN
    for event in events:
        if event.kind is EventKind.FILL:
            fills.append(Fill(event.contra_id, event.price_ticks, event.qty_lots))
            maker_leaves[event.contra_id] = event.contra_leaves_lots
            leaves_lots = event.leaves_lots
        elif event.kind is EventKind.CANCELED:
            leaves_lots, status = event.qty_lots, Status.CANCELED
    if leaves_lots == 0:
        status = Status.FILLED
    return Outcome(
        reason=Reason.NONE,
        fills=tuple(fills),
        maker_leaves=maker_leaves,
        leaves_lots=leaves_lots,
        status=status,
    )


def compare_place(
    place: Place, events: Sequence[Event], rule: MakerRule = "resting"
) -> tuple[Difference, ...]:
    """`events` are all those of the order's NEW command; `rule`: whom the monolith books as
    maker.
    """
    outcome = _with_cut(outcome_of(events), place)
    legacy = place.after[0]
    if Status.REJECTED in (legacy.status, outcome.status):
        return _one_rejected(legacy.status, outcome)
    fills = _met_by(place)
    ordered = legacy.qty_lots or ordered_lots(place.order)
    found = list(_compare_taker(legacy, ordered, fills, outcome))
    if fills or outcome.fills:
        found = [
            *_compare_fills(fills, outcome.fills),
            *_compare_booking(place, fills, rule),
            *found,
            *_compare_makers(place.after, fills, outcome),
        ]
    return _ranked(found) if found else ()


def compare_cancel(cancel: Cancel, events: Sequence[Event]) -> tuple[Difference, ...]:
    """`events` are all those of the order's CANCEL command."""
    event = events[0]
    if event.kind is EventKind.REJECTED:
        what = f"the monolith canceled the order; the engine refused it: {event.reason.name}"
        return (
            Difference(
                kind=Kind.REJECTED_BY_ONE,
                what=what,
                legacy=str(cancel.order.status),
                engine=event.reason.name,
            ),
        )
    if cancel.order.leaves_lots in (None, event.qty_lots):
        return ()
    what = "another quantity was open when the order was canceled"
    return (_number(Kind.LEAVES, what, cancel.order.leaves_lots, event.qty_lots),)


def compare_command(command: Command, order: OrderImage, instrument: int) -> tuple[Difference, ...]:
    """The request, normalised, against the order that the monolith wrote for it."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("instrument", instrument, command.instrument),
        ("account", order.account, command.account),
        ("side", order.side, command.side),
        ("ord_type", order.ord_type, command.ord_type),
        ("tif", order.tif, command.tif),
        ("price_ticks", order.price_ticks, command.price_ticks),
        ("qty_lots", order.qty_lots, command.qty_lots),
    )
    differing = [(name, wrote, asked) for name, wrote, asked in pairs if wrote != asked]
    if not differing:
        return ()
    names = ", ".join(name for name, _, _ in differing)
    return (
        Difference(
            kind=Kind.COMMAND,
            what=f"the request asks for something else than the monolith wrote: {names}",
            legacy={name: wrote for name, wrote, _ in differing},
            engine={name: asked for name, _, asked in differing},
            lasting=False,
        ),
    )


def legacy_view(operation: Place | Cancel) -> dict[str, Any]:
    """Plain data for a report, of the same shape as `engine_view`."""
    if isinstance(operation, Cancel):
        return {"status": "canceled", "leaves_lots": operation.order.leaves_lots}
    final = operation.after[0]
    return {
        "status": str(final.status),
        "leaves_lots": final.leaves_lots,
        "fills": [_shown(fill) for fill in _met_by(operation)],
        "makers": {str(one.order_id): one.leaves_lots for one in operation.after[1:]},
    }


def engine_view(events: Sequence[Event]) -> dict[str, Any]:
    """Plain data for a report: what the engine made of a NEW or CANCEL command."""
    first = events[0]
    if first.kind is EventKind.REJECTED:
        return {"status": "rejected", "reason": first.reason.name}
    if first.kind is EventKind.CANCELED:
        return {"status": "canceled", "leaves_lots": first.qty_lots}
    outcome = outcome_of(events)
    return {
        "status": str(outcome.status),
        "leaves_lots": outcome.leaves_lots,
        "fills": [_shown(fill) for fill in outcome.fills],
        "makers": {str(maker): leaves for maker, leaves in outcome.maker_leaves.items()},
    }


def _with_cut(outcome: Outcome, place: Place) -> Outcome:
    """What the funds of a market buy did not pay for is canceled."""
    if not place.cut_lots or outcome.reason is not Reason.NONE:
        return outcome
    if not 0 < place.cut_lots < ordered_lots(place.order):
        return outcome
    leaves_lots = outcome.leaves_lots + place.cut_lots
    return msgspec.structs.replace(outcome, leaves_lots=leaves_lots, status=Status.CANCELED)


def _one_rejected(status: Status, outcome: Outcome) -> tuple[Difference, ...]:
    if status is outcome.status:
        return ()
    if outcome.status is Status.REJECTED:
        what = f"the monolith took the order; the engine rejected it: {outcome.reason.name}"
        engine = outcome.reason.name
    else:
        what, engine = "the monolith rejected the order; the engine took it", str(outcome.status)
    return (Difference(kind=Kind.REJECTED_BY_ONE, what=what, legacy=str(status), engine=engine),)


def _met_by(place: Place) -> list[Fill]:
    """The monolith's fills, seen from the new order."""
    order_id = place.order.order_id
    return [Fill(counterparty(one, order_id), one.price_ticks, one.qty_lots) for one in place.fills]


def _compare_booking(place: Place, fills: Sequence[Fill], rule: MakerRule) -> Iterator[Difference]:
    """Were the two orders of each fill booked as the engine's would be?"""
    order_id = place.order.order_id
    for one, fill in zip(place.fills, fills, strict=True):
        maker, taker = booked(fill.maker, order_id, rule)
        if (one.maker_order_id, one.taker_order_id) != (maker, taker):
            yield Difference(
                kind=Kind.COUNTERPARTY,
                what=f"order {one.maker_order_id} is booked as maker where order {maker} should be",
                legacy={"maker": one.maker_order_id, "taker": one.taker_order_id},
                engine={"maker": maker, "taker": taker},
                lasting=False,
            )


def _compare_fills(legacy: Sequence[Fill], engine: Sequence[Fill]) -> Iterator[Difference]:
    if list(legacy) == list(engine):
        return
    ours, theirs = _keyed(engine), _keyed(legacy)
    common = [key for key in theirs if key in ours]
    levels = _levels_in_another_order(theirs, ours, common)
    yield from (_reordered(level, theirs, ours) for level in sorted(levels))
    yield from _pair_others(
        [fill for key, fill in theirs.items() if key not in ours],
        [fill for key, fill in ours.items() if key not in theirs],
        levels,
    )
    for key in common:
        yield from _compare_same_maker(theirs[key], ours[key], levels)


_Key = tuple[int, int]  # maker, and which of its fills


def _keyed(fills: Iterable[Fill]) -> dict[_Key, Fill]:
    seen: Counter[int] = Counter()
    keyed = {}
    for fill in fills:
        keyed[fill.maker, seen[fill.maker]] = fill
        seen[fill.maker] += 1
    return keyed


def _levels_in_another_order(
    legacy: dict[_Key, Fill], engine: dict[_Key, Fill], common: Sequence[_Key]
) -> set[int]:
    """Prices (the engine's) at which the makers that both sides met were met in another order."""
    before = [key for key in engine if key in legacy]
    return {
        engine[key].price_ticks for key, other in zip(common, before, strict=True) if key != other
    }


def _reordered(level: int, legacy: dict[_Key, Fill], engine: dict[_Key, Fill]) -> Difference:
    return Difference(
        kind=Kind.PRIORITY,
        what="the same makers were met in another order of time",
        legacy=[_shown(fill) for fill in legacy.values() if fill.price_ticks == level],
        engine=[_shown(fill) for fill in engine.values() if fill.price_ticks == level],
    )


def _pair_others(legacy: list[Fill], engine: list[Fill], levels: set[int]) -> Iterator[Difference]:
    """Fills with makers that one side alone met; adds to `levels` where a queue was passed over."""
    alone = []
    for fill in legacy:
        twin = next((one for one in engine if one.price_ticks == fill.price_ticks), None)
        if twin is None:
            alone.append(fill)
            continue
        engine.remove(twin)
        levels.add(twin.price_ticks)
        what = f"order {fill.maker} was met where order {twin.maker} is first in the queue"
        yield _fills(Kind.PRIORITY, what, fill, twin)
    for fill, twin in zip(alone, engine, strict=False):
        what = f"order {fill.maker} was met at another price than order {twin.maker} has"
        yield _fills(Kind.COUNTERPARTY, what, fill, twin)
    for fill in alone[len(engine) :]:
        yield _fills(Kind.MISSING_FILL, "the engine has no such fill", fill, None)
    for twin in engine[len(alone) :]:
        yield _fills(Kind.EXTRA_FILL, "the monolith has no such fill", None, twin)


def _compare_same_maker(legacy: Fill, engine: Fill, levels: set[int]) -> Iterator[Difference]:
    """Quantities shift by themselves where the queue was not respected: told once."""
    if legacy.price_ticks != engine.price_ticks:
        rounded = _is_rounding(legacy.price_ticks, engine.price_ticks)
        kind = Kind.ROUNDING if rounded else Kind.PRICE
        what = f"the fill with order {engine.maker} has another price"
        yield msgspec.structs.replace(_fills(kind, what, legacy, engine), lasting=False)
    if legacy.qty_lots != engine.qty_lots and engine.price_ticks not in levels:
        rounded = _is_rounding(legacy.qty_lots, engine.qty_lots)
        kind = Kind.ROUNDING if rounded else Kind.QUANTITY
        what = f"the fill with order {engine.maker} has another quantity"
        yield _fills(kind, what, legacy, engine)


def _compare_taker(
    legacy: OrderImage, ordered: int, fills: Sequence[Fill], outcome: Outcome
) -> Iterator[Difference]:
    explained = ordered - sum(fill.qty_lots for fill in fills)
    leaves_lots = explained if legacy.leaves_lots is None else legacy.leaves_lots
    if leaves_lots not in (outcome.leaves_lots, explained):
        what = "the new order has another leaves quantity"
        yield _number(Kind.LEAVES, what, leaves_lots, outcome.leaves_lots)
    if legacy.status is outcome.status:
        return
    if leaves_lots == outcome.leaves_lots or legacy.status is not _expected(legacy, leaves_lots):
        yield _statuses("the new order has another status", legacy.status, outcome.status)


def _compare_makers(
    images: Sequence[OrderImage], fills: Sequence[Fill], outcome: Outcome
) -> Iterator[Difference]:
    """Only those that both sides met for the same quantity: the others have been told of.

    `images`: the new order's first.
    """
    met = _met(fills)
    after = {image.order_id: image for image in images}
    rows_tell = images[0].leaves_lots is not None
    for maker, lots in _met(outcome.fills).items():
        if met.get(maker) != lots:
            continue
        image, leaves_lots = after.get(maker), outcome.maker_leaves[maker]
        if image is None and leaves_lots and not rows_tell:
            continue  # a row that does not say what is open need not be written again
        if image is None:
            what = f"order {maker} was filled, but its row was not written again"
            yield _number(Kind.LEAVES, what, None, leaves_lots)
            continue
        if image.leaves_lots not in (None, leaves_lots):
            what = f"order {maker} has another leaves quantity after its fill"
            yield _number(Kind.LEAVES, what, image.leaves_lots, leaves_lots)
        status = Status.OPEN if leaves_lots else Status.FILLED
        if image.status is status:
            continue
        left_lots = leaves_lots if image.leaves_lots is None else image.leaves_lots
        if left_lots == leaves_lots or image.status is not _expected(image, left_lots):
            what = f"order {maker} has another status after its fill"
            yield _statuses(what, image.status, status)


def _met(fills: Iterable[Fill]) -> dict[int, int]:
    met: dict[int, int] = {}
    for fill in fills:
        met[fill.maker] = met.get(fill.maker, 0) + fill.qty_lots
    return met


def _expected(image: OrderImage, leaves_lots: int) -> Status:
    """The status that the monolith's own leaves quantity asks for."""
    if leaves_lots == 0:
        return Status.FILLED
    rests = image.tif == TimeInForce.GTC and image.ord_type == OrderType.LIMIT
    return Status.OPEN if rests else Status.CANCELED


def _is_rounding(legacy: int, engine: int) -> bool:
    apart = abs(legacy - engine)
    if apart * _ROUNDING_SHARE > max(legacy, engine):
        return False
    return apart == 1 or any(apart < unit and legacy % unit == 0 for unit in _ROUNDED_TO)


def _fills(kind: Kind, what: str, legacy: Fill | None, engine: Fill | None) -> Difference:
    return Difference(
        kind=kind,
        what=what,
        legacy=_shown(legacy) if legacy else None,
        engine=_shown(engine) if engine else None,
    )


def _number(kind: Kind, what: str, legacy_lots: int | None, engine_lots: int) -> Difference:
    return Difference(kind=kind, what=what, legacy=legacy_lots, engine=engine_lots)


def _statuses(what: str, legacy: Status, engine: Status) -> Difference:
    return Difference(kind=Kind.STATUS, what=what, legacy=str(legacy), engine=str(engine))


def _shown(fill: Fill) -> dict[str, int]:
    return {"maker": fill.maker, "price_ticks": fill.price_ticks, "qty_lots": fill.qty_lots}


def _ranked(found: Iterable[Difference]) -> tuple[Difference, ...]:
    return tuple(sorted(found, key=lambda one: _RANK[one.kind]))
