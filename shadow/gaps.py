"""Captures that are known to be lost, and the operations that miss one: which explains which.

A lost capture may have been any instrument's. An operation that misses its capture takes one; what
nobody takes is counted for every instrument that is followed, since it may have been its.

Where the monolith has bulk requests, one capture may be of many operations, all of one account.
There a lost number excuses an account, and for `GAP_CLAIM_S`: a dark writer is not hidden for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from shadow.captures import Gap
from shadow.instrument import Run
from shadow.limits import GAP_CLAIM_S
from shadow.work import StreamEntry
from shadow.writers import Writer


class _Lost:
    __slots__ = ("count", "entry", "found_ns")

    def __init__(self, count: int, entry: StreamEntry, found_ns: int) -> None:
        self.count = count
        self.entry = entry
        self.found_ns = found_ns  # monotonic
        entry.open += 1


class Dark(msgspec.Struct, eq=False, gc=False):
    """An operation that agreed and was called dark, which later news may correct."""

    run: Run
    at_ns: int  # monotonic
    account: int
    writer: Writer | None  # None: nobody has seen it
    is_corrected: bool = False


class Claims:
    def __init__(self, *, bulk: bool) -> None:
        """`bulk`: the monolith has requests that are of several orders of one account."""
        self._bulk = bulk
        self._lost: deque[_Lost] = deque()
        self._dark: deque[Dark] = deque()
        self._dark_of: dict[int, deque[Dark]] = {}  # by account; empty unless `bulk`
        self._excused: dict[int, int] = {}  # account -> since when, monotonic; oldest first
        self._spare: deque[int] = deque()  # when one was taken by an account that was excused

    @property
    def has_lost(self) -> bool:
        """Captures that nobody has claimed yet."""
        return bool(self._lost)

    def lost(
        self, gap: Gap, entry: StreamEntry, now_ns: int, undark: Callable[[Dark], None]
    ) -> None:
        """Operations that were called dark a moment ago, for want of this news, are not."""
        self._forget(now_ns)
        self._lost.append(_Lost(gap.last - gap.first + 1, entry, now_ns))
        while self._dark and (self._lost or self._spare):
            oldest = self._pop_dark()
            if oldest.is_corrected:
                continue
            for dark in (oldest, *self._dark_of.pop(oldest.account, ())):
                if not dark.is_corrected and self.claim(dark.account, now_ns):
                    dark.is_corrected = True
                    undark(dark)

    def claim(self, account: int, now_ns: int) -> bool:
        """An operation of the account misses its capture: was one lost?"""
        if not self._bulk:
            return self._take()
        self._forget(now_ns)
        if account in self._excused:
            if self._take():  # its own, or another's that will come
                self._spare.append(now_ns)
            return True
        if not self._take():
            if not self._spare:
                return False
            self._spare.popleft()
        self._excused[account] = now_ns
        return True

    def dark(self, run: Run, now_ns: int, account: int, writer: Writer | None = None) -> Dark:
        """An operation that agreed was called dark."""
        self._forget(now_ns)
        dark = Dark(run, now_ns, account, writer)
        self._dark.append(dark)
        if self._bulk:
            self._dark_of.setdefault(account, deque()).append(dark)
        return dark

    def settle(self, until_ns: int, followed: Iterable[Run]) -> None:
        """What nobody has claimed for long enough counts for every instrument. `until_ns`: all
        operations read before that have made their claim.
        """
        runs = list(followed)
        while self._lost and _is_over(self._lost[0].found_ns, until_ns):
            oldest = self._lost.popleft()
            oldest.entry.lost.extend((run, oldest.count) for run in runs)
            oldest.entry.open -= 1

    def _take(self) -> bool:
        if not self._lost:
            return False
        oldest = self._lost[0]
        oldest.count -= 1
        if oldest.count == 0:
            self._lost.popleft()
            oldest.entry.open -= 1
        return True

    def _pop_dark(self) -> Dark:
        dark = self._dark.popleft()
        same = self._dark_of.get(dark.account)
        if same is not None and same[0] is dark:
            same.popleft()
            if not same:
                del self._dark_of[dark.account]
        return dark

    def _forget(self, now_ns: int) -> None:
        while self._dark and _is_over(self._dark[0].at_ns, now_ns):
            self._pop_dark()
        while self._spare and _is_over(self._spare[0], now_ns):
            self._spare.popleft()
        while self._excused:
            account, since_ns = next(iter(self._excused.items()))
            if not _is_over(since_ns, now_ns):
                break
            del self._excused[account]


def _is_over(since_ns: int, now_ns: int) -> bool:
    return now_ns - since_ns >= GAP_CLAIM_S * 1e9
