"""Brings captures and operations together, whichever comes first. Bounded by its caller.

An operation is looked for by its order id, which the monolith's answer names, or the path of a
cancel. Where the answer never came (the client left, the wire was cut) the request itself is
compared. What stays alone is told apart by marks: everything that committed before a mark has been
read when the mark comes back.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any, NamedTuple

from shadow.exchanges import Exchanges, Kind, Wish
from shadow.gaps import Dark
from shadow.legacy.convert import Scale
from shadow.limits import SETTLED_KEPT_MAX
from shadow.operation import Cancel, Operation, OrderImage, Place
from shadow.work import Held, Item

_Key = tuple[bool, int]  # cancel?, order id
_NAMED = {Kind.PLACED: False, Kind.CANCELED: True}


class Late(NamedTuple):
    """A capture that came after its operation had been settled without it."""

    dark: Dark | None  # what was said of the operation then, if that was that it is dark


class Joins:
    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges
        self._captures: dict[_Key, deque[Held]] = {}  # without an operation yet
        self._items: dict[_Key, Item] = {}  # without a capture yet
        self._unanswered: dict[Wish | int, deque[Held]] = {}  # by request, or order id of a cancel
        self._refused_cancels: list[Held] = []
        self._gone: OrderedDict[_Key, Dark | None] = OrderedDict()  # settled without a capture
        self.waiting = 0  # captures held here

    def add(self, held: Held) -> Late | None:
        """A capture that has been read. None: it is kept, or has found its operation."""
        told = held.told
        if told.kind in _NAMED:
            return self._add_named((_NAMED[told.kind], told.order_id), held)
        self.waiting += 1
        if told.kind is Kind.CANCEL_REFUSED:
            self._refused_cancels.append(held)
        elif told.kind is Kind.CANCEL_UNKNOWN:
            self._unanswered.setdefault(told.order_id, deque()).append(held)
        else:
            wish = self._exchanges.wish(held.capture)
            self._unanswered.setdefault(wish or 0, deque()).append(held)
        return None

    def want(self, item: Item) -> None:
        """An operation that has been read: takes its capture, or waits for it."""
        key = _key(item.operation)
        if key is None:
            return
        waiting = self._captures.get(key)
        if waiting is None:
            item.waits_for_capture = True
            self._items[key] = item
            return
        item.held = waiting.popleft()
        self.waiting -= 1
        if not waiting:
            del self._captures[key]

    def give_up(self, item: Item, scale: Scale) -> Held | None:
        """Its own capture has not come: one without an answer may still be its request."""
        item.waits_for_capture = False
        key = _key(item.operation)
        if key is None:
            return None
        self._items.pop(key, None)
        wish = _wish(item.operation, scale)
        waiting = self._unanswered.get(wish)
        if waiting is None:
            return None
        item.held = waiting.popleft()
        self.waiting -= 1
        if not waiting:
            del self._unanswered[wish]
        return item.held

    def settled_alone(self, operation: Operation, dark: Dark | None = None) -> None:
        """The operation is settled, or not compared at all: a capture that comes late is its."""
        key = _key(operation)
        if key is None:
            return
        self._gone[key] = dark
        if len(self._gone) > SETTLED_KEPT_MAX:
            self._gone.popitem(last=False)

    def skip(self, operation: Operation) -> Held | None:
        """Not compared at all: its capture, if that is here already."""
        key = _key(operation)
        waiting = self._captures.get(key) if key is not None else None
        if key is None or waiting is None:
            self.settled_alone(operation)
            return None
        held = waiting.popleft()
        self.waiting -= 1
        if not waiting:
            del self._captures[key]
        return held

    def take_refused_cancels(self, generation: int) -> list[Held]:
        """Those that were read before that mark was written."""
        due = [held for held in self._refused_cancels if held.generation < generation]
        if due:
            self._refused_cancels = [
                held for held in self._refused_cancels if held.generation >= generation
            ]
            self.waiting -= len(due)
        return due

    def take_unwritten(self, generation: int, read_before_ns: int) -> list[Held]:
        """Orders that the monolith said it took or canceled, though no row of it has come."""
        return self._take(self._captures, generation, read_before_ns)

    def take_unanswered(self, generation: int, read_before_ns: int) -> list[Held]:
        """Requests without an answer that no row has come of."""
        return self._take(self._unanswered, generation, read_before_ns)

    def _take(
        self, waiting: dict[Any, deque[Held]], generation: int, read_before_ns: int
    ) -> list[Held]:
        """They stand in the order in which they were read, but for a few of one key."""
        due: list[Held] = []
        for key in list(waiting):
            oldest = waiting[key][0]
            if oldest.generation >= generation or oldest.read_ns >= read_before_ns:
                break
            due.extend(waiting.pop(key))
        self.waiting -= len(due)
        return due

    def _add_named(self, key: _Key, held: Held) -> Late | None:
        item = self._items.pop(key, None)
        if item is not None:
            item.held = held
            item.waits_for_capture = False
            return None
        if key in self._gone:
            return Late(self._gone.pop(key))
        self._captures.setdefault(key, deque()).append(held)
        self.waiting += 1
        return None


def _key(operation: Operation) -> _Key | None:
    if isinstance(operation, Place):
        return False, operation.order.order_id
    if isinstance(operation, Cancel):
        return True, operation.order.order_id
    return None


def _wish(operation: Operation, scale: Scale) -> Wish | int:
    if isinstance(operation, Cancel):
        return operation.order.order_id
    assert isinstance(operation, Place)
    return _asked(operation.order, scale)


def _asked(order: OrderImage, scale: Scale) -> Wish:
    return Wish(
        scale.instrument,
        order.account,
        order.side,
        order.ord_type,
        order.tif,
        order.price_ticks,
        order.qty_lots,
    )
