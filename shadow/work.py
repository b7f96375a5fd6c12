"""What is on its way through the comparison: mutable, of one loop, and bounded in number.

What there is of every operation is `gc=False`: nothing in it leads back to it, and a look of the
garbage collector at all that waits for a second would keep commands waiting for a tenth of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from engine.types import Event
from shadow.book_check import BookCheck
from shadow.capture import Capture
from shadow.exchanges import Told
from shadow.operation import Operation
from shadow.verdict import OperationVerdict
from shadow.writers import Writer

if TYPE_CHECKING:
    from shadow.instrument import Run


class TxEntry(msgspec.Struct, eq=False, gc=False):
    """A transaction that has been read, until everything before it is recorded."""

    end_lsn: int
    open_groups: int = 0


class StreamEntry:
    """An entry of the capture stream, until everything in it is settled and recorded."""

    __slots__ = ("expected", "held", "id", "lost", "open")

    def __init__(self, entry_id: str, expected: dict[str, int]) -> None:
        self.id = entry_id
        self.expected = expected  # of its worker: the number after it
        self.open = 0  # captures and gaps of it that are not settled
        self.held: list[Settled] = []  # verdicts to record together with its id
        self.lost: list[tuple[Run, int]] = []  # gaps to count together with its id


class Held(msgspec.Struct, eq=False, gc=False):
    """What a capture told of one order, until its operation or the next mark comes, or its time has
    run out.
    """

    told: Told
    entry: StreamEntry
    generation: int  # newest mark that may have been written before it was read
    read_ns: int  # monotonic

    def __post_init__(self) -> None:
        self.entry.open += 1

    @property
    def capture(self) -> Capture:
        return self.told.capture


class Item(msgspec.Struct, eq=False, gc=False):
    """One operation between its transaction and its verdict."""

    operation: Operation
    read_ns: int  # monotonic, like `sent_ns` and `answered_ns`
    xid: int = 0  # of the transaction that wrote it
    sent_ns: int = 0
    answered_ns: int = 0
    seq: int = 0
    at_ns: int = 0  # the engine's clock
    events: Sequence[Event] = ()
    is_answered: bool = False
    held: Held | None = None
    waits_for_capture: bool = False


class RefusedCancel:
    """A cancel that the monolith refused, in the queue where a mark has made it decidable."""

    __slots__ = ("held", "owner")

    def __init__(self, held: Held, owner: int) -> None:
        self.held = held
        self.owner = owner


class CheckedBook:
    """What a comparison of the books found, in the queue behind all that it depends on."""

    __slots__ = ("at_ns", "check", "lsn")

    def __init__(self, check: BookCheck, lsn: int, at_ns: int) -> None:
        self.check = check
        self.lsn = lsn
        self.at_ns = at_ns  # wall clock


class Group(msgspec.Struct, eq=False, gc=False):
    """What one transaction did with one instrument, or what a mark or a snapshot made decidable;
    judged as a whole, in its turn.
    """

    run: Run
    lsn: int
    tx: TxEntry | None
    items: list[Item] = []
    refused: Sequence[RefusedCancel] = ()
    book: CheckedBook | None = None

    def __post_init__(self) -> None:
        if self.tx is not None:
            self.tx.open_groups += 1


class Settled:
    """A verdict on its way to the store, with what it lets go of."""

    __slots__ = ("engine_ns", "gap", "legacy_ns", "rules", "run", "verdict", "writer")

    def __init__(
        self,
        run: Run,
        verdict: OperationVerdict,
        *,
        gap: bool = False,
        rules: Sequence[str] = (),
        legacy_ns: int = 0,
        engine_ns: int = 0,
        writer: Writer | None = None,
    ) -> None:
        self.run = run
        self.verdict = verdict
        self.gap = gap  # it agreed, but its capture is lost: counted as a gap
        self.rules = rules
        self.legacy_ns = legacy_ns  # how long either side took; 0: not measured
        self.engine_ns = engine_ns
        self.writer = writer  # of a dark one, where it was seen
