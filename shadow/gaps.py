"""Captures that are known to be lost, and the operations that miss one: which explains which.

A lost capture may have been any instrument's. An operation that misses its capture takes one; what
nobody takes is counted for every instrument that is followed, since it may have been its.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

from shadow.captures import Gap
from shadow.instrument import Run
from shadow.limits import GAP_CLAIM_S
from shadow.work import StreamEntry


class _Lost:
    __slots__ = ("count", "entry", "found_ns")

    def __init__(self, count: int, entry: StreamEntry, found_ns: int) -> None:
        self.count = count
        self.entry = entry
        self.found_ns = found_ns  # monotonic
        entry.open += 1


class Dark:
    """An operation that agreed and was called dark, which later news may correct."""

    __slots__ = ("at_ns", "is_corrected", "run")

    def __init__(self, run: Run, at_ns: int) -> None:
        self.run = run
        self.at_ns = at_ns  # monotonic
        self.is_corrected = False


class Claims:
    def __init__(self) -> None:
        self._lost: deque[_Lost] = deque()
        self._dark: deque[Dark] = deque()

    def lost(
        self, gap: Gap, entry: StreamEntry, now_ns: int, undark: Callable[[Run], None]
    ) -> None:
        """Operations that were called dark a moment ago, for want of this news, are not."""
        count = gap.last - gap.first + 1
        self._forget_dark(now_ns)
        while count and self._dark:
            dark = self._dark.popleft()
            if not dark.is_corrected:
                dark.is_corrected = True
                undark(dark.run)
                count -= 1
        if count:
            self._lost.append(_Lost(count, entry, now_ns))

    def claim(self) -> bool:
        """An operation misses its capture: was one lost?"""
        if not self._lost:
            return False
        oldest = self._lost[0]
        oldest.count -= 1
        if oldest.count == 0:
            self._lost.popleft()
            oldest.entry.open -= 1
        return True

    def dark(self, run: Run, now_ns: int) -> Dark:
        """An operation that agreed was called dark."""
        self._forget_dark(now_ns)
        dark = Dark(run, now_ns)
        self._dark.append(dark)
        return dark

    def settle(self, now_ns: int, followed: Iterable[Run]) -> None:
        """What nobody has claimed for long enough counts for every instrument."""
        runs = list(followed)
        while self._lost and now_ns - self._lost[0].found_ns >= GAP_CLAIM_S * 1e9:
            oldest = self._lost.popleft()
            oldest.entry.lost.extend((run, oldest.count) for run in runs)
            oldest.entry.open -= 1

    def _forget_dark(self, now_ns: int) -> None:
        while self._dark and now_ns - self._dark[0].at_ns >= GAP_CLAIM_S * 1e9:
            self._dark.popleft()
