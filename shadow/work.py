"""What is on its way through the comparison: mutable, of one loop, and bounded in number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from engine.types import Event
from shadow.book_check import BookCheck
from shadow.capture import Capture
from shadow.exchanges import Told
from shadow.operation import Operation
from shadow.verdict import OperationVerdict
from shadow.writers import Writer

if TYPE_CHECKING:
    from shadow.instrument import Run


class TxEntry:
    """A transaction that has been read, until everything before it is recorded."""

    __slots__ = ("end_lsn", "open_groups")

    def __init__(self, end_lsn: int) -> None:
        self.end_lsn = end_lsn
        self.open_groups = 0


class StreamEntry:
    """An entry of the capture stream, until everything in it is settled and recorded."""

    __slots__ = ("expected", "held", "id", "lost", "open")

    def __init__(self, entry_id: str, expected: dict[str, int]) -> None:
        self.id = entry_id
        self.expected = expected  # of its worker: the number after it
        self.open = 0  # captures and gaps of it that are not settled
        self.held: list[Settled] = []  # verdicts to record together with its id
        self.lost: list[tuple[Run, int]] = []  # gaps to count together with its id


class Held:
    """What a capture told of one order, until its operation or the next mark comes, or its time has
    run out.
    """

    __slots__ = ("entry", "generation", "read_ns", "told")

    def __init__(self, told: Told, entry: StreamEntry, generation: int, read_ns: int) -> None:
        self.told = told
        self.entry = entry
        self.generation = generation  # newest mark that may have been written before it was read
        self.read_ns = read_ns  # monotonic
        entry.open += 1

    @property
    def capture(self) -> Capture:
        return self.told.capture


class Item:
    """One operation between its transaction and its verdict."""

    __slots__ = (
        "answered_ns",
        "at_ns",
        "events",
        "held",
        "is_answered",
        "operation",
        "read_ns",
        "sent_ns",
        "seq",
        "waits_for_capture",
        "xid",
    )

    def __init__(self, operation: Operation, read_ns: int, xid: int = 0) -> None:
        self.operation = operation
        self.xid = xid  # of the transaction that wrote it
        self.read_ns = read_ns  # monotonic, like the next two
        self.sent_ns = 0
        self.answered_ns = 0
        self.seq = 0
        self.at_ns = 0  # the engine's clock
        self.events: Sequence[Event] = ()
        self.is_answered = False
        self.held: Held | None = None
        self.waits_for_capture = False


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


class Group:
    """What one transaction did with one instrument, or what a mark or a snapshot made decidable;
    judged as a whole, in its turn.
    """

    __slots__ = ("book", "items", "lsn", "refused", "run", "tx")

    def __init__(self, run: Run, lsn: int, tx: TxEntry | None) -> None:
        self.run = run
        self.lsn = lsn
        self.tx = tx
        self.items: list[Item] = []
        self.refused: list[RefusedCancel] = []
        self.book: CheckedBook | None = None
        if tx is not None:
            tx.open_groups += 1


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
