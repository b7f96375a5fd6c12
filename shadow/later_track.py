"""What is known of each order of a monolith that matches later: its row, its fills so far, and what
they can still become. Mutable; owned by one `shadow.later.Flow`.
"""

from __future__ import annotations

from enum import Enum
from itertools import pairwise
from typing import NamedTuple

import msgspec

from shadow.later_book import LaterBook, Opened, Walk, rests
from shadow.operation import (
    Cancel,
    LegacyFill,
    OrderImage,
    Place,
    Requeue,
    Status,
    ordered_lots,
)


class Met(NamedTuple):
    """A fill, seen from one of its two orders."""

    fill: LegacyFill
    image: OrderImage | None  # the order's row as the fill's transaction left it
    met_lots: int  # of all fills of the order, up to that transaction


class Track:
    """One order, from its opening until nothing can be said of it any more."""

    __slots__ = (
        *(
            "effect",
            "final",
            "image",
            "is_fed",
            "lots",
            "met",
            "met_lots",
            "more",
            "opened",
            "order",
        ),
        *("makers", "qty"),
    )

    def __init__(self, order: OrderImage, opened: Opened) -> None:
        self.order = order  # as opened
        self.qty = ordered_lots(order)
        self.opened = opened
        self.image = order  # newest
        self.final: OrderImage | None = None  # once its state is a last one
        self.met: dict[int, Met] = {}  # by the other order
        self.lots: dict[int, int] = {}  # of each of those fills
        self.met_lots = 0
        self.more: list[LegacyFill] = []  # of two orders that had met already: never in a daemon
        self.is_fed = False
        # What follows is as far as prices tell: the search does not rely on it.
        self.makers: set[int] = set()  # orders that it met as they rested
        self.effect = 0  # running number of the first row that its coming in led to; 0: none yet

    @property
    def room_lots(self) -> int:
        """At most so much of it may be in fills that have not been seen."""
        left = self.qty - self.met_lots
        if self.final is None or self.final.leaves_lots is None:
            return left
        return left - self.final.leaves_lots

    def meet(self, other: int, fill: LegacyFill) -> None:
        self.met_lots += fill.qty_lots
        self.lots[other] = self.lots.get(other, 0) + fill.qty_lots
        if other in self.met:
            self.more.append(fill)
        else:
            self.met[other] = Met(fill, None, self.met_lots)

    def left(self, image: OrderImage, others: list[int]) -> None:
        """Its row, as the transaction left it that holds its fills with these."""
        self.image = image
        for other in others:
            self.met[other] = self.met[other]._replace(image=image, met_lots=self.met_lots)
        if image.status not in (Status.OPEN, Status.PENDING):
            self.final = image

    def adds_up(self) -> bool:
        """Its newest row says what its opening and its fills say."""
        image, order = self.image, self.order
        leaves_lots = self.qty - self.met_lots
        same = (image.price_ticks, image.side, image.account) == (
            order.price_ticks,
            order.side,
            order.account,
        )
        return same and image.leaves_lots in (None, leaves_lots)


class Step:
    """A place or a cancel that waits for its turn."""

    __slots__ = ("cancel", "is_moved", "opened", "order_id", "retry_at_us", "retry_us", "since_us")

    def __init__(self, order_id: int, opened: Opened, cancel: OrderImage | None = None) -> None:
        self.order_id = order_id
        self.opened = opened
        self.cancel = cancel  # the row that it left; None: a place
        self.is_moved = False
        self.retry_at_us = 0  # not before is another order looked for again in which it fits
        self.retry_us = 0
        self.since_us = 0  # when it was first looked at

    def may_pass(self, other: Step) -> bool:
        """May the daemon have had it before the other, which stands before it? A cancel commits
        late, and is drawn ahead by what it explains.
        """
        if self.cancel is not None:
            return True
        is_late = other.cancel is not None and self.opened.number < other.opened.number
        return is_late or self.opened.is_beside(other.opened)


def note_taker(one: Track, other: Track, fill: LegacyFill, number: int) -> None:
    """The price is that of the order that rested. Of two at the same price the one that was opened
    first did, unless they came at the same time: then nothing is said.
    """
    taker, maker = (one, other) if one.opened.number > other.opened.number else (other, one)
    if maker.order.price_ticks != fill.price_ticks:
        taker, maker = maker, taker
    elif (
        taker.order.price_ticks == fill.price_ticks
        and not maker.is_fed
        and taker.opened.is_beside(maker.opened)
    ):
        return
    taker.makers.add(maker.order.order_id)
    taker.effect = taker.effect or number


def in_order(steps: list[Step], tracks: dict[int, Track]) -> list[Step]:
    """Commit order, but where rows that tell of effects came in another one: the worker that writes
    fills and cancels gets them in the daemon's order. Those that must come first are drawn ahead.
    """
    needs = _needs(steps, tracks)
    emitted: dict[Step, None] = {}
    for step in steps:
        stack = [step]
        visited: set[Step] = set()
        while stack:
            top = stack[-1]
            first = [one for one in needs[top] if one not in emitted and one not in visited]
            visited.update(first)
            if first:
                stack.extend(reversed(first))
                continue
            stack.pop()
            if top not in emitted:
                top.is_moved = top is not step and top.cancel is None
                emitted[top] = None
    return list(emitted)


def _needs(steps: list[Step], tracks: dict[int, Track]) -> dict[Step, list[Step]]:
    """What came before each, of those that committed later."""
    places = {step.order_id: step for step in steps if step.cancel is None}
    needs: dict[Step, list[Step]] = {}
    for step in steps:
        makers = () if step.cancel is not None else tracks[step.order_id].makers
        found = [places[one] for one in makers if one in places]
        needs[step] = [one for one in found if one.opened.number > step.opened.number]
    effects = [(_effect(step, tracks), step) for step in steps]
    chain = sorted((one for one in effects if one[0]), key=lambda one: one[0])
    for (_, before), (_, step) in pairwise(chain):
        if before.opened.number > step.opened.number:
            needs[step].append(before)
    return needs


def _effect(step: Step, tracks: dict[int, Track]) -> int:
    return step.opened.number if step.cancel is not None else tracks[step.order_id].effect


class Fate(Enum):
    PROVEN = "proven"  # its fills are those that it would have here
    OPEN = "open"  # some have not been seen yet
    REFUTED = "refuted"  # they are not


class Trial(NamedTuple):
    fate: Fate
    walk: Walk | None  # of a place


def tried(step: Step, tracks: dict[int, Track], book: LaterBook) -> Trial:
    """What if it were handled now?"""
    if step.cancel is not None:
        return Trial(_cancel_fate(step.order_id, step.cancel, tracks, book), None)
    track = tracks[step.order_id]
    canceled: list[int] = []
    while True:
        walk = book.walk(track.order, track.qty, track.lots, canceled)
        fate = _place_fate(track, walk, tracks, book)
        there = sorted({*walk.passed, *(take.maker for take in walk.takes)})
        gone = [one for one in there if _was_canceled(one, track, tracks, book)]
        if not gone and fate is Fate.REFUTED and walk.stopped_at:
            stop = walk.stopped_at
            gone = [stop] if _was_canceled(stop, track, tracks, book) else []
        if not gone:
            return Trial(fate, walk._replace(canceled=tuple(canceled)))
        canceled.extend(gone)


def done(step: Step, walk: Walk | None, tracks: dict[int, Track], book: LaterBook) -> None:
    if walk is None:
        book.cancel(step.order_id)
    else:
        for order_id in walk.canceled:
            book.cancel(order_id)
        track = tracks[step.order_id]
        book.enter(track.order, walk, track.opened)


def _was_canceled(maker: int, taker: Track, tracks: dict[int, Track], book: LaterBook) -> bool:
    """The monolith has canceled it, all its fills are there, and none is with this one. A cancel
    commits behind everything that the daemon did before it, and behind some that it did later.
    """
    track, resting = tracks[maker], book.get(maker)
    if maker in taker.met or track.final is None or track.final.status is not Status.CANCELED:
        return False
    assert resting is not None
    return track.final.leaves_lots in (None, resting.leaves_lots)


def _place_fate(track: Track, walk: Walk, tracks: dict[int, Track], book: LaterBook) -> Fate:
    fate = Fate.PROVEN
    for take in walk.takes:
        met = track.met.get(take.maker)
        if met is None:
            if min(track.room_lots, tracks[take.maker].room_lots) < take.qty_lots:
                return Fate.REFUTED
            fate = Fate.OPEN
        elif (met.fill.price_ticks, met.fill.qty_lots) != (take.price_ticks, take.qty_lots):
            return Fate.REFUTED
    taken = {take.maker for take in walk.takes}
    is_resting = rests(track.order)
    for other, met in track.met.items():
        if other in taken:
            continue
        if other not in tracks or book.has_entered(other):
            return Fate.REFUTED
        if not is_resting or met.fill.price_ticks != track.order.price_ticks:
            return Fate.REFUTED  # the other one rested, and is not there yet
    if not is_resting and track.final is None:
        return Fate.OPEN
    return fate


def _cancel_fate(
    order_id: int, cancel: OrderImage, tracks: dict[int, Track], book: LaterBook
) -> Fate:
    if order_id not in tracks:
        return Fate.PROVEN
    resting = book.get(order_id)
    if resting is None:
        return Fate.PROVEN if book.has_canceled(order_id) else Fate.REFUTED
    fits = cancel.leaves_lots in (None, resting.leaves_lots)
    return Fate.PROVEN if fits else Fate.REFUTED


# --- operations


def place_of(track: Track, walk: Walk, tracks: dict[int, Track], book: LaterBook) -> Place:
    """`book`: after it."""
    taken = [take.maker for take in walk.takes]
    others = [
        other for other in track.met if other not in taken and book.has_entered(other)
    ]  # that nothing explains
    fills = [track.met[other].fill for other in (*taken, *others) if other in track.met]
    after = [_after(track, track.qty - walk.leaves_lots, taken)]
    for maker in sorted(taken):
        image = _maker_after(tracks[maker], track.order.order_id, book)
        if image is not None:
            after.append(image)
    return Place(
        order=msgspec.structs.replace(track.order, qty_lots=track.qty),
        fills=(*fills, *track.more),
        after=tuple(after),
        cut_lots=walk.cut_lots,
        reordered=bool(walk.queues),
    )


def cancels(walk: Walk, tracks: dict[int, Track]) -> list[Cancel]:
    """That came before the place, though they committed later."""
    finals = [tracks[order_id].final for order_id in walk.canceled]
    return [Cancel(order=final, reordered=True) for final in finals if final is not None]


def requeues(track: Track, walk: Walk, book: LaterBook) -> list[Requeue]:
    """`book`: before the place."""
    return [
        Requeue(order=msgspec.structs.replace(one.order, leaves_lots=one.leaves_lots))
        for one in book.requeued(track.order, walk)
    ]


def _after(track: Track, explained_lots: int, taken: list[int]) -> OrderImage:
    if not rests(track.order) and track.final is not None:
        return track.final
    seen = [track.met[one] for one in taken if one in track.met]
    newest = max(seen, key=lambda met: met.met_lots, default=None)
    if newest is None:
        return msgspec.structs.replace(track.order, leaves_lots=track.qty, status=Status.OPEN)
    image = newest.image or track.image
    return _as_left(image, newest.met_lots - explained_lots)


def _maker_after(maker: Track, taker: int, book: LaterBook) -> OrderImage | None:
    met = maker.met.get(taker)
    if met is None or met.image is None:
        return None
    resting = book.get(maker.order.order_id)
    explained_lots = maker.qty - (resting.leaves_lots if resting is not None else 0)
    return _as_left(met.image, met.met_lots - explained_lots)


def _as_left(image: OrderImage, later_lots: int) -> OrderImage:
    """Without fills that belong to what is handled later; or with those that commit later."""
    if not later_lots or image.leaves_lots is None:
        return image
    leaves_lots = max(image.leaves_lots + later_lots, 0)
    status = image.status
    if status in (Status.OPEN, Status.FILLED, Status.CANCELED):
        status = Status.OPEN if leaves_lots else Status.FILLED
    return msgspec.structs.replace(image, leaves_lots=leaves_lots, status=status)
