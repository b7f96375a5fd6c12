"""Who answers for an instrument now, and the requests that wait while that changes.

Requests of a held instrument wait in the order of their arrival and are released in it. What is
under way is counted until it is answered, so that the worker can say when it has drained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import NamedTuple

from bridge.limits import HOLD_BYTES_MAX, HOLD_REQUESTS_MAX, HOLD_S
from bridge.proxy.plane.exchange import Exchange
from bridge.stage import InstrumentStage, StageSnapshot


class Way(Enum):
    LEGACY = "legacy"
    ENGINE = "engine"
    WAIT = "wait"


class StoreSays(NamedTuple):
    """What the control store answered when no news of an instrument came for too long."""

    symbol: str
    stage: InstrumentStage | None  # None: it is away, or has none


# Goes on with a request. None: a newer snapshot lets it go.
Resume = Callable[[Exchange, StoreSays | None], None]


class _Held(NamedTuple):
    exchange: Exchange
    resume: Resume
    since: float  # loop clock


class Holds:
    """`symbols_of` finds the instruments that a request under way concerns; None: not known yet,
    or all of them.
    """

    def __init__(
        self,
        *,
        symbols_of: Callable[[Exchange], frozenset[str] | None],
        expired: Callable[[str], None],
        drained_changed: Callable[[], None],
    ) -> None:
        """`expired` is called once when requests of an instrument have waited for too long: whoever
        hears it calls `release_late`.
        """
        self.snapshot = StageSnapshot(version=-1, instruments={})
        self.special = False  # some instrument is held, or answered by the engine
        self.live: tuple[InstrumentStage, ...] = ()  # answered by the engine
        self.drained: dict[str, int] = {}  # symbol -> flip id
        self._holding = False
        self._is_counted = True
        self._symbols_of = symbols_of
        self._expired = expired
        self._drained_changed = drained_changed
        self._under_way: dict[Exchange, frozenset[str] | None] = {}
        self._waiting: dict[str, deque[_Held]] = {}
        self._bytes = 0  # of the bodies of those
        self._late: set[str] = set()  # symbols that `expired` has been called for

    def way_of(self, symbol: str) -> Way:
        """An instrument that no stage is known of is the monolith's."""
        stage = self.snapshot.instruments.get(symbol)
        if self._waiting.get(symbol) or (stage is not None and stage.holding):
            return Way.WAIT
        if stage is not None and stage.stage.answered_by_engine:
            return Way.ENGINE
        return Way.LEGACY

    def stage_of(self, symbol: str) -> InstrumentStage | None:
        return self.snapshot.instruments.get(symbol)

    def enter(self, exchange: Exchange, symbols: frozenset[str] | None = None) -> None:
        """From now on it is under way on the side that answers; of these instruments, if they are
        known already.
        """
        self._under_way[exchange] = symbols
        if self._holding:
            self._note_drained()

    def leave(self, exchange: Exchange) -> None:
        self._under_way.pop(exchange, None)
        if self._holding:
            self._note_drained()

    def wait(
        self, symbol: str, exchange: Exchange, resume: Resume, *, since: float, now: float
    ) -> bool:
        """False when there is no room, or when it has waited for too long. Else `resume` is called
        once a newer snapshot lets it go, or the control store has been asked.

        `since`: when it arrived. One that waits again takes its old place.
        """
        waiting = self._waiting.get(symbol, ())
        if len(waiting) >= HOLD_REQUESTS_MAX or now - since >= HOLD_S:
            return False
        if self._bytes + exchange.body_size > HOLD_BYTES_MAX:
            return False
        self._bytes += exchange.body_size
        queue = self._waiting.setdefault(symbol, deque())
        place = len(queue)
        while place and queue[place - 1].since > since:
            place -= 1
        queue.insert(place, _Held(exchange, resume, since))
        return True

    @property
    def is_counted(self) -> bool:
        """All that is under way is known here. Until it is, nothing has drained."""
        return self._is_counted

    @is_counted.setter
    def is_counted(self, value: bool) -> None:
        self._is_counted = value
        self._note_drained()

    def count_complete(self) -> None:
        self.is_counted = True

    @property
    def under_way(self) -> int:
        return len(self._under_way)

    def held(self) -> int:
        return sum(map(len, self._waiting.values()))

    def apply(self, snapshot: StageSnapshot) -> None:
        """Decides by a newer snapshot, and releases what it lets go; an older one is ignored."""
        if snapshot.version <= self.snapshot.version:
            return
        self.snapshot = snapshot
        stages = snapshot.instruments.values()
        self.live = tuple(stage for stage in stages if stage.stage.answered_by_engine)
        self._holding = any(stage.holding for stage in stages)
        self.special = self._holding or bool(self.live)
        self._note_drained()
        for symbol in tuple(self._waiting):
            self._release(symbol)

    def sweep(self, now: float) -> None:
        """Tells whose requests have waited for too long. They keep their places meanwhile: nobody
        who came later overtakes them.
        """
        for symbol, waiting in tuple(self._waiting.items()):
            if symbol not in self._late and now - waiting[0].since >= HOLD_S:
                self._late.add(symbol)
                self._expired(symbol)

    def release_late(self, says: StoreSays, now: float) -> None:
        """Lets go what has waited for too long, by what the control store says."""
        self._late.discard(says.symbol)
        waiting = self._waiting.get(says.symbol)
        late: list[_Held] = []
        while waiting and now - waiting[0].since >= HOLD_S:
            late.append(waiting.popleft())
        if waiting is not None and not waiting:
            del self._waiting[says.symbol]
        self._resume_all(late, says)

    def _release(self, symbol: str) -> None:
        stage = self.snapshot.instruments.get(symbol)
        if stage is not None and stage.holding:
            return
        # All at once: whoever must wait again queues up behind nobody that came later.
        self._resume_all(self._waiting.pop(symbol, ()), None)

    def _resume_all(
        self, released: deque[_Held] | list[_Held] | tuple[()], says: StoreSays | None
    ) -> None:
        for held in released:
            self._bytes -= held.exchange.body_size
        for held in released:
            held.resume(held.exchange, says)

    def _note_drained(self) -> None:
        drained = dict(self._drained())
        if drained != self.drained:
            self.drained = drained
            self._drained_changed()

    def _drained(self) -> Iterator[tuple[str, int]]:
        held = {
            symbol: stage.holding
            for symbol, stage in self.snapshot.instruments.items()
            if stage.holding
        }
        if not held or not self._is_counted:
            return
        under_way: set[str] = set()
        for exchange, symbols in self._under_way.items():
            if symbols is None:
                symbols = self._under_way[exchange] = self._symbols_of(exchange)
            if symbols is None:
                return
            under_way |= symbols
        for symbol, flip_id in held.items():
            if symbol not in under_way:
                yield symbol, flip_id
