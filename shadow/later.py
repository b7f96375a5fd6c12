"""The operations of a monolith that matches later: a job or a daemon takes what was written, keeps
the book in memory, and other transactions write what it did.

Pure: transactions in commit order go in, operations in the order of handling come out. An order
is given to the daemon where its state turns open, so the feed order is the commit order of that,
corrected by what the fills prove: the price of a fill is the resting order's, so it says who
rested; a fill that can't be there, or is, says who came first. An order is handed out once its
fills as the taker are all there, and no neighbour can turn out to have come before it.
`docs/architecture.md` tells it with an example.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from shadow.later_book import LaterBook, MarketBuy, Opened, Resting, Walk, rests
from shadow.later_search import Search
from shadow.later_track import Step, Track, cancels, done, in_order, note_taker, place_of, requeues
from shadow.limits import DECIDE_S, PENDING_KEPT_MAX, REORDER_S, UNDECIDED_MAX
from shadow.operation import (
    Cancel,
    FillInserted,
    LegacyFill,
    LegacyTransaction,
    Marker,
    Operation,
    OrderDeleted,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Place,
    Status,
    Unexplained,
    Unreadable,
    open_lots,
)
from shadow.quantities import as_ordered

_REORDER_US = int(REORDER_S * 1_000_000)
_DECIDE_US = int(DECIDE_S * 1_000_000)


class Told(NamedTuple):
    """What a transaction made known."""

    coming: list[Place | Cancel]  # written, and to be handed out later: what was asked for
    ready: list[Operation]  # in the order in which they must be fed
    dropped: list[Place]  # written, and refused before the daemon had it


class Later:
    def __init__(self, market_buy: MarketBuy = "quantity") -> None:
        self._market_buy = market_buy
        self._flows: dict[str, Flow] = {}
        self._pending: OrderedDict[int, None] = OrderedDict()

    def start(self, symbol: str, rows: Iterable[OrderImage]) -> list[OrderImage]:
        """With the open orders of a snapshot, in its order. Returns those that rest; the others
        have been given to the daemon, and their fills are still to be written.
        """
        self._flows[symbol] = flow = Flow(symbol, self._market_buy)
        return flow.start(rows)

    def stop(self, symbol: str) -> bool:
        """It is followed no longer. False: it was not."""
        return self._flows.pop(symbol, None) is not None

    def undecided(self, symbol: str) -> int:
        flow = self._flows.get(symbol)
        return flow.undecided if flow is not None else 0

    def as_fed(self, symbol: str, rows: Iterable[OrderImage]) -> list[OrderImage]:
        """The monolith's open orders at the newest transaction, without what of them has not been
        handed out.
        """
        flow = self._flows.get(symbol)
        return list(rows) if flow is None else flow.as_fed(rows)

    def take(self, tx: LegacyTransaction, follows: Callable[[str], bool]) -> Told:
        told = Told([], [], [])
        rows = _rows(tx, lambda symbol: symbol in self._flows and follows(symbol), told)
        for symbol, (images, fills) in rows.items():
            flow = self._flows[symbol]
            opened = [one for one in images if self._is_opened(one, flow, told)]
            flow.add(opened, fills, images, tx.committed_at_us, told)
        for change in () if tx.ours else tx.changes:
            if isinstance(change, OrderDeleted):
                for flow in self._flows.values():
                    flow.delete(change.order_id, told)
        fenced = {change.symbol for change in tx.changes if isinstance(change, Marker)}
        for symbol, flow in self._flows.items():
            if follows(symbol):
                flow.decide(tx.committed_at_us, told, at_once=symbol in fenced)
        return told

    def _is_opened(self, image: OrderImage, flow: Flow, told: Told) -> bool:
        """This row is the first in which it is given to the daemon."""
        order_id = image.order_id
        if flow.knows(order_id):
            return False
        if image.status is Status.PENDING:
            if order_id not in self._pending:
                self._pending[order_id] = None
                told.coming.append(_provisional(image))
                if len(self._pending) > PENDING_KEPT_MAX:
                    self._pending.popitem(last=False)
            return False
        was_pending = self._pending.pop(order_id, False) is None
        if image.status in (Status.REJECTED, Status.CANCELED) and was_pending:
            told.dropped.append(_provisional(image))
            return False
        if image.status is Status.OPEN and not was_pending:
            told.coming.append(_provisional(image))
        return image.status is Status.OPEN


class Flow:
    """Of one instrument."""

    def __init__(self, symbol: str, market_buy: MarketBuy) -> None:
        self._symbol = symbol
        self._book = LaterBook(market_buy)
        self._tracks: dict[int, Track] = {}
        self._steps: list[Step] = []  # that wait, in commit order
        self._search = Search(self._tracks, self._book)
        self._number = 0
        self._now_us = 0
        self._decided_us = 0

    @property
    def undecided(self) -> int:
        return len(self._steps)

    def knows(self, order_id: int) -> bool:
        return order_id in self._tracks

    def start(self, rows: Iterable[OrderImage]) -> list[OrderImage]:
        every = list(rows)
        came = sorted(every, key=lambda one: (one.created_at_us, one.order_id))
        first: Opened | None = None  # order whose fills are still to be written
        for row in came:
            order = msgspec.structs.replace(row, qty_lots=open_lots(row))
            track = self._open(order, row.created_at_us)
            walk = self._book.walk(order, track.qty, {})
            if first is None and (walk.takes or not rests(order)):
                first = track.opened
            self._book.enter(order, walk, track.opened)
        under_way = set()
        for row in came:  # what came with that order or later may have met it
            track = self._tracks[row.order_id]
            is_later = first is not None and track.opened.number >= first.number
            track.is_fed = not (is_later or (first is not None and first.is_beside(track.opened)))
            if not track.is_fed:
                under_way.add(row.order_id)
                self._steps.append(Step(row.order_id, track.opened))
        self._book.rewind(0)
        resting = [row for row in every if row.order_id not in under_way]
        for row in resting:  # in the snapshot's queue order
            track = self._tracks[row.order_id]
            self._book.enter(track.order, self._book.walk(track.order, track.qty, {}), track.opened)
        self._book.keep()
        return resting

    # --- what a transaction says

    def add(
        self,
        opened: Sequence[OrderImage],
        fills: Sequence[LegacyFill],
        images: Sequence[OrderImage],
        now_us: int,
        told: Told,
    ) -> None:
        """`opened`: those of `images` that are given to the daemon; images are the last ones."""
        for image in opened:
            own = [one for one in fills if image.order_id in _orders(one)]
            track = self._open(as_ordered(image, image, own), now_us)
            self._steps.append(Step(image.order_id, track.opened))
        met: dict[int, list[int]] = {}
        for fill in fills:
            self._meet(fill, met, told)
        for image in images:
            self._leave(image, met.get(image.order_id, []), now_us, told)

    def delete(self, order_id: int, told: Told) -> None:
        track = self._tracks.get(order_id)
        if track is not None and track.final is None:
            told.ready.append(self._unexplained(order_id, "its row was deleted"))

    def as_fed(self, rows: Iterable[OrderImage]) -> list[OrderImage]:
        theirs = {row.order_id: row for row in rows}
        resting = {one.order.order_id: one for one in self._book}
        shown = [one for order_id, one in theirs.items() if not self._is_waiting(order_id)]
        found = [self._as_fed(one, resting.get(one.order_id)) for one in shown]
        closed = [
            one
            for order_id, one in resting.items()
            if order_id not in theirs and self._closes_later(one)
        ]
        found.extend(self._closed_as_fed(one) for one in closed)
        return found

    # --- what follows from it

    def decide(self, now_us: int, told: Told, *, at_once: bool) -> None:
        self._now_us = max(self._now_us, now_us)
        if not at_once and self._now_us - self._decided_us < _DECIDE_US:
            return
        self._decided_us = self._now_us
        if not self._steps:
            return
        for step in self._steps:
            step.is_moved = False
            step.since_us = step.since_us or self._now_us
        steps = in_order(self._steps, self._tracks)
        overdue = len(steps) if at_once else max(len(steps) - UNDECIDED_MAX, 0)
        handled = self._search.handled(steps, self._now_us, overdue)
        count = handled.undecided
        if not at_once:
            count = self._certain(steps, count)
        self._book.rewind(0)
        for step, walk in zip(steps[:count], handled.walks, strict=False):
            told.ready.extend(self._hand_out(step, walk))
        self._book.keep()
        waiting = steps[count:]
        self._steps = sorted(waiting, key=lambda one: one.opened.number)
        self._forget()

    def _certain(self, steps: Sequence[Step], undecided: int) -> int:
        """How many of them no other can turn out to have come before."""
        for index, step in enumerate(steps[:undecided]):
            is_fresh = self._now_us - step.since_us <= _REORDER_US
            if step.cancel is None and is_fresh:
                return index
            if undecided < len(steps) and steps[undecided].opened.is_beside(step.opened):
                return index
        return undecided

    def _hand_out(self, step: Step, walk: Walk | None) -> list[Operation]:
        if walk is None:
            assert step.cancel is not None
            was_before = self._book.has_canceled(step.order_id)
            done(step, walk, self._tracks, self._book)
            return [] if was_before else [Cancel(order=step.cancel)]
        track = self._tracks[step.order_id]
        found: list[Operation] = [
            *cancels(walk, self._tracks),
            *requeues(track, walk, self._book),
        ]
        done(step, walk, self._tracks, self._book)
        track.is_fed = True
        place = place_of(track, walk, self._tracks, self._book)
        if step.is_moved:
            place = msgspec.structs.replace(place, reordered=True)
        return [*found, place]

    def _forget(self) -> None:
        """Orders that nothing more can be said of."""
        waiting = {step.order_id for step in self._steps if step.cancel is not None}
        for order_id, track in list(self._tracks.items()):
            if track.is_fed and self._book.get(order_id) is None and order_id not in waiting:
                del self._tracks[order_id]
                self._book.forget(order_id)

    # --- inside

    def _open(self, order: OrderImage, at_us: int) -> Track:
        self._number += 1
        track = Track(order, Opened(at_us, self._number))
        self._tracks[order.order_id] = track
        return track

    def _is_waiting(self, order_id: int) -> bool:
        track = self._tracks.get(order_id)
        return track is not None and not track.is_fed

    def _meet(self, fill: LegacyFill, met: dict[int, list[int]], told: Told) -> None:
        one, other = _orders(fill)
        known = [self._tracks.get(one), self._tracks.get(other)]
        if not any(track is not None and not track.is_fed for track in known):
            reason = f"a fill with order {one} has come that no order's placing explains"
            told.ready.append(self._unexplained(other, reason))
        self._number += 1
        if known[0] is not None and known[1] is not None:
            note_taker(known[0], known[1], fill, self._number)
        for track, order_id, contra in zip(known, (one, other), (other, one), strict=True):
            if track is not None:
                track.meet(contra, fill)
                met.setdefault(order_id, []).append(contra)

    def _leave(self, image: OrderImage, met: list[int], now_us: int, told: Told) -> None:
        track = self._tracks.get(image.order_id)
        if track is None:
            return
        was_final = track.final is not None
        track.left(image, met)
        if image.status is Status.CANCELED and rests(track.order) and not was_final:
            self._number += 1
            step = Step(image.order_id, Opened(now_us, self._number), image)
            self._steps.append(step)
            told.coming.append(Cancel(order=image))
        elif track.final is not None and not track.effect and not rests(track.order):
            self._number += 1
            track.effect = self._number
        elif image.status is Status.REJECTED and not was_final:
            reason = "it turned rejected after it had been taken"
            told.ready.append(self._unexplained(image.order_id, reason))
        elif image.status is Status.OPEN and not track.adds_up():
            reason = "its row does not say what is left of it after its fills"
            told.ready.append(self._unexplained(image.order_id, reason))

    def _unexplained(self, order_id: int, reason: str) -> Unexplained:
        return Unexplained(symbol=self._symbol, order_id=order_id, reason=reason)

    def _as_fed(self, row: OrderImage, resting: Resting | None) -> OrderImage:
        """With the fills that have not been handed out given back."""
        track = self._tracks.get(row.order_id)
        if track is None or resting is None:
            return row
        back = resting.leaves_lots - (track.qty - track.met_lots)
        return msgspec.structs.replace(row, leaves_lots=open_lots(row) + back)

    def _closes_later(self, resting: Resting) -> bool:
        """What has not been handed out closes it."""
        order_id = resting.order.order_id
        track = self._tracks[order_id]
        waiting_lots = track.met_lots - (track.qty - resting.leaves_lots)
        return waiting_lots == resting.leaves_lots or any(
            step.order_id == order_id for step in self._steps if step.cancel is not None
        )

    def _closed_as_fed(self, resting: Resting) -> OrderImage:
        return msgspec.structs.replace(
            resting.order, leaves_lots=resting.leaves_lots, status=Status.OPEN
        )


_Rows = tuple[list[OrderImage], list[LegacyFill]]


def _rows(tx: LegacyTransaction, follows: Callable[[str], bool], told: Told) -> dict[str, _Rows]:
    """Of each instrument that is followed: the last image of each order, and the fills."""
    last: dict[int, OrderImage] = {}
    found: dict[str, _Rows] = {}
    for change in () if tx.ours else tx.changes:
        match change:
            case OrderInserted(order=order) | OrderUpdated(order=order) if follows(order.symbol):
                last[order.order_id] = order
            case FillInserted(fill=fill) if follows(fill.symbol):
                found.setdefault(fill.symbol, ([], []))[1].append(fill)
            case Unreadable(symbol=symbol, order_id=order_id, reason=reason):
                told.ready.append(Unexplained(symbol=symbol, order_id=order_id, reason=reason))
            case _:
                pass
    for image in last.values():
        found.setdefault(image.symbol, ([], []))[0].append(image)
    return found


def _orders(fill: LegacyFill) -> tuple[int, int]:
    return fill.maker_order_id, fill.taker_order_id


def _provisional(image: OrderImage) -> Place:
    return Place(order=as_ordered(image, image, ()), fills=(), after=(image,))
