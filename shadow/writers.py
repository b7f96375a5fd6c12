"""Who writes past the proxy: by role and application name, of what was seen while it was open.

The change stream says which transaction wrote an order and not whose it was. Of a transaction that
was seen in pg_stat_activity the writer is known, of any other it is not, and is not guessed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec

from shadow.limits import WRITERS_KEPT_MAX, WRITERS_MAX, WRITERS_TOLD

_XID = 0xFFFF_FFFF  # as pg_stat_activity has it; a reader that polls has the longer form


class Writer(NamedTuple):
    role: str  # of a background process: what it is; "" for those beyond WRITERS_MAX together
    application: str

    def __str__(self) -> str:
        """
        >>> str(Writer("app", "rake")), str(Writer("app", "")), str(Writer("", ""))
        ("role app, application 'rake'", 'role app', 'others')
        """
        if not self.role:
            return "others"
        return f"role {self.role}" + (f", application '{self.application}'" if self[1] else "")


OTHERS = Writer("", "")


class WriterCount(msgspec.Struct, frozen=True, kw_only=True):
    role: str
    application: str
    count: int  # of its dark operations, or of its transactions that were seen

    @property
    def writer(self) -> Writer:
        return Writer(self.role, self.application)


class Writers:
    """Which transaction is whose, of the newest that were seen."""

    def __init__(self) -> None:
        self._of: OrderedDict[int, Writer] = OrderedDict()
        self._seen: dict[Writer, int] = {}

    def saw(self, xid: int, writer: Writer) -> None:
        """The transaction is open and has written."""
        if self._of.get(xid & _XID) == writer:
            return
        self._of[xid & _XID] = writer
        self._of.move_to_end(xid & _XID)
        if len(self._of) > WRITERS_KEPT_MAX:
            self._of.popitem(last=False)
        if writer not in self._seen and len(self._seen) >= WRITERS_MAX:
            writer = OTHERS
        self._seen[writer] = self._seen.get(writer, 0) + 1

    def of(self, xid: int) -> Writer | None:
        """None: nobody has seen it."""
        return self._of.get(xid & _XID)

    def take_seen(self) -> dict[Writer, int]:
        """Transactions of each writer since the last call, dark or not."""
        seen, self._seen = self._seen, {}
        return seen


def largest(counts: Iterable[WriterCount], most: int = WRITERS_MAX) -> tuple[WriterCount, ...]:
    """The largest first, and what is beyond `most` as one."""
    ordered = sorted(counts, key=lambda one: (not one.role, -one.count, one.writer))
    named = [one for one in ordered if one.role][:most]
    rest = sum(one.count for one in ordered) - sum(one.count for one in named)
    others = [WriterCount(role="", application="", count=rest)] if rest else []
    return (*named, *others)


def not_seen(dark: int, writers: Sequence[WriterCount]) -> int:
    """Dark operations whose writer nobody knows."""
    return max(0, dark - sum(one.count for one in writers))


def told(dark: int, writers: Sequence[WriterCount]) -> str:
    """Whose the dark operations are.

    >>> told(12, [WriterCount(role="app", application="rake orders:close", count=7)])
    "7 by role app, application 'rake orders:close'; 5 by writers not seen"
    """
    parts = [f"{one.count} by {one.writer}" for one in largest(writers, WRITERS_TOLD)]
    unseen = not_seen(dark, writers)
    if unseen:
        parts.append(f"{unseen} by writers not seen")
    return "; ".join(parts)
