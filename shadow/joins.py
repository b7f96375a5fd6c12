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
from shadow.limits import CAPTURES_HELD_MAX, SETTLED_KEPT_MAX
from shadow.operation import Cancel, Operation, OrderImage, Place, ordered_lots
from shadow.work import Held, Item

_Key = int  # of an order's Place, or of its Cancel: see `_key_of`
_IS_CANCEL = {Kind.PLACED: False, Kind.CANCELED: True}


class Late(NamedTuple):
    """A capture that came after its operation had been settled without it."""

    dark: Dark | None  # what was said of the operation then, if that was that it is dark


class _Mark(NamedTuple):
    generation: int
    came_ns: int  # monotonic


class Joins:
    def __init__(self, exchanges: Exchanges) -> None:
        self._exchanges = exchanges
        self._captures: dict[_Key, deque[Held]] = {}  # without an operation yet
        self._items: dict[_Key, Item] = {}  # without a capture yet
        self._unanswered: dict[Wish | int, deque[Held]] = {}  # by request, or order id of a cancel
        # Cancels of everything, by account: each may be of many orders.
        self._unanswered_all: dict[int, deque[Held]] = {}
        self._refused_cancels: list[Held] = []
        self._gone: OrderedDict[_Key, Dark | None] = OrderedDict()  # settled without a capture
        self._mark = _Mark(0, 0)  # it came back, and operations from before it may still wait
        self._decided = 0  # generation of the newest one that none waits from before of
        self.waiting = 0  # captures held here

    @property
    def waiting_since_ns(self) -> int | None:
        """When the oldest operation was read that waits for its capture; None: none does."""
        oldest = next(iter(self._items.values()), None)
        return oldest.read_ns if oldest is not None else None

    @property
    def is_full(self) -> bool:
        return self.waiting >= CAPTURES_HELD_MAX

    def add(self, held: Held) -> Late | None:
        """A capture that has been read. None: it is kept, or has found its operation."""
        told = held.told
        is_cancel = _IS_CANCEL.get(told.kind)
        if is_cancel is not None:
            return self._add_named(_key_of(told.order_id, is_cancel=is_cancel), held)
        self.waiting += 1
        if told.kind is Kind.CANCEL_REFUSED:
            self._refused_cancels.append(held)
        elif told.kind is Kind.CANCEL_ALL_UNKNOWN:
            self._unanswered_all.setdefault(told.capture.account, deque()).append(held)
        elif told.kind is Kind.CANCEL_UNKNOWN:
            self._unanswered.setdefault(told.order_id, deque()).append(held)
        else:
            wish = self._exchanges.wish(told)
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
        wish = _wish(item.operation, scale) if self._unanswered else 0
        waiting = self._unanswered.get(wish)
        if waiting is None:
            item.held = self._of_all(item.operation)
            return item.held
        item.held = waiting.popleft()
        self.waiting -= 1
        if not waiting:
            del self._unanswered[wish]
        return item.held

    def forget(self, item: Item) -> None:
        """An operation that is not compared: a capture that comes is its."""
        item.waits_for_capture = False
        key = _key(item.operation)
        if key is not None:
            self._items.pop(key, None)
            self.settled_alone(item.operation)

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

    def take_unanswered(self, generation: int, read_before_ns: int, now_ns: int) -> list[Held]:
        """Requests without an answer that no row has come of. `generation`: of a mark that came
        back just now. While an operation from before a mark waits for a capture of its own, one of
        these may still be what it falls back on; unless they fill all there is.
        """
        decided = self._decide(generation, now_ns)
        newest = generation if self.is_full else decided
        due = self._take(self._unanswered, newest, read_before_ns)
        return due + self._take(self._unanswered_all, newest, read_before_ns)

    def _decide(self, generation: int, now_ns: int) -> int:
        oldest_ns = self.waiting_since_ns
        if oldest_ns is None:
            self._decided, self._mark = generation, _Mark(generation, now_ns)
        elif oldest_ns > self._mark.came_ns:
            self._decided, self._mark = self._mark.generation, _Mark(generation, now_ns)
        return self._decided

    def _take(
        self, waiting: dict[Any, deque[Held]], generation: int, read_before_ns: int
    ) -> list[Held]:
        """They stand in the order in which they were read, but for a few of one key."""
        due: list[Held] = []
        for key in list(waiting):
            if not _is_over(waiting[key][0], generation, read_before_ns):
                break
            same = waiting.pop(key)
            while same and _is_over(same[0], generation, read_before_ns):
                due.append(same.popleft())
            if same:
                waiting[key] = same
        self.waiting -= len(due)
        return due

    def _of_all(self, operation: Operation) -> Held | None:
        """A cancel of everything, of that account, that may have canceled this order too."""
        if not isinstance(operation, Cancel):
            return None
        order = operation.order
        for held in self._unanswered_all.get(order.account, ()):
            which = held.told.filter
            if which is not None and which.admits(order.symbol, order.side):
                told = held.told._replace(
                    kind=Kind.CANCEL_UNKNOWN, order_id=order.order_id, symbol=order.symbol
                )
                return Held(told, held.entry, held.generation, held.read_ns)
        return None

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


def _is_over(held: Held, generation: int, read_before_ns: int) -> bool:
    return held.generation < generation and held.read_ns < read_before_ns


def _key(operation: Operation) -> _Key | None:
    if isinstance(operation, Place):
        return _key_of(operation.order.order_id, is_cancel=False)
    if isinstance(operation, Cancel):
        return _key_of(operation.order.order_id, is_cancel=True)
    return None


def _key_of(order_id: int, *, is_cancel: bool) -> _Key:
    """A number, for 100,000 pairs would be as many objects for the garbage collector to look at."""
    return order_id << 1 | is_cancel


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
        ordered_lots(order),
    )
