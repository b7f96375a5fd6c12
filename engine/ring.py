"""The newest items of an ascending sequence, bounded by their bytes; the oldest go first."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from typing import Generic, NamedTuple, TypeVar

from engine.limits import ITEM_BYTES

T = TypeVar("T")


class _Held(NamedTuple, Generic[T]):
    first_key: int
    last_key: int
    size: int
    item: T


class Ring(Generic[T]):
    """Each item stands for the keys from its first to its last; items are added in their order.

    >>> ring = Ring[str](bytes_max=10_000)
    >>> ring.append(1, 4, "a", size=100)
    >>> ring.append(5, 9, "b", size=100)
    >>> list(ring.since(4)), list(ring.since(5)), ring.covers(1), ring.covers(0)
    (['a', 'b'], ['b'], True, False)
    >>> ring.at(4), ring.at(5), ring.at(10)
    ('a', 'b', None)
    """

    def __init__(self, *, bytes_max: int, evicted_through: int = 0) -> None:
        self.evicted_through = evicted_through  # the last key of the newest item that had to go
        self._bytes_max = bytes_max
        self._bytes = 0
        self._held: deque[_Held[T]] = deque()

    def append(self, first_key: int, last_key: int, item: T, *, size: int) -> None:
        """An item larger than the whole bound is held until the next one comes."""
        self._held.append(_Held(first_key, last_key, size + ITEM_BYTES, item))
        self._bytes += size + ITEM_BYTES
        while self._bytes > self._bytes_max and len(self._held) > 1:
            gone = self._held.popleft()
            self._bytes -= gone.size
            self.evicted_through = gone.last_key

    def since(self, key: int) -> Iterator[T]:
        """Items that stand for `key` or later ones. The ring must not be appended to meanwhile."""
        held = self._held
        for at in range(bisect_left(held, key, key=lambda each: each.last_key), len(held)):
            yield held[at].item

    def at(self, key: int) -> T | None:
        """The item that stands for `key`, if it is held."""
        held = self._held
        at = bisect_left(held, key, key=lambda each: each.last_key)
        return held[at].item if at < len(held) and held[at].first_key <= key else None

    def covers(self, key: int) -> bool:
        """Whether everything from `key` on that was ever added is still held."""
        return key > self.evicted_through and (not self._held or key >= self._held[0].first_key)
