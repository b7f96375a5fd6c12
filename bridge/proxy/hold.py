"""Who answers for an instrument now, and the requests that wait while that changes.

Requests of a held instrument wait in the order of their arrival and are released in it. What is
under way is counted until it is answered, so that the worker can say when it has drained.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from typing import NamedTuple

from bridge.limits import HOLD_BYTES_MAX, HOLD_REQUESTS_MAX, HOLD_S
from bridge.proxy.exchange import Exchange
from bridge.stage import InstrumentStage, StageSnapshot


class Way(Enum):
    LEGACY = "legacy"
    ENGINE = "engine"
    WAIT = "wait"


class _Held(NamedTuple):
    exchange: Exchange
    resume: Callable[[Exchange], None]
    since: float  # loop clock


class Holds:
    """`symbol_of` finds the instrument that a request under way concerns; None: not known yet."""

    def __init__(
        self,
        *,
        symbol_of: Callable[[Exchange], str | None],
        expired: Callable[[str, Sequence[Exchange]], None],
        drained_changed: Callable[[], None],
    ) -> None:
        self.snapshot = StageSnapshot(version=-1, instruments={})
        self.special = False  # some instrument is held, or answered by the engine
        self.live: tuple[InstrumentStage, ...] = ()  # answered by the engine
        self.drained: dict[str, int] = {}  # symbol -> flip id
        self._holding = False
        self._symbol_of = symbol_of
        self._expired = expired  # they have waited for too long
        self._drained_changed = drained_changed
        self._under_way: set[Exchange] = set()
        self._waiting: dict[str, deque[_Held]] = {}
        self._bytes = 0  # of the bodies of those

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

    def enter(self, exchange: Exchange) -> None:
        """From now on it is under way on the side that answers."""
        self._under_way.add(exchange)

    def leave(self, exchange: Exchange) -> None:
        self._under_way.discard(exchange)
        if self._holding:
            self._note_drained()

    def wait(
        self,
        symbol: str,
        exchange: Exchange,
        resume: Callable[[Exchange], None],
        now: float,
    ) -> bool:
        """False when there is no room. Else `resume` is called once a newer snapshot lets it go, or
        `expired`.
        """
        waiting = self._waiting.setdefault(symbol, deque())
        if len(waiting) >= HOLD_REQUESTS_MAX or self._bytes >= HOLD_BYTES_MAX:
            return False
        self._bytes += exchange.body_size
        waiting.append(_Held(exchange, resume, now))
        return True

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
        """Hands over what has waited for too long."""
        for symbol, waiting in tuple(self._waiting.items()):
            late: list[Exchange] = []
            while waiting and now - waiting[0].since >= HOLD_S:
                late.append(waiting.popleft().exchange)
                self._bytes -= late[-1].body_size
            if late:
                self._expired(symbol, late)
            if not waiting:
                del self._waiting[symbol]

    def _release(self, symbol: str) -> None:
        stage = self.snapshot.instruments.get(symbol)
        if stage is not None and stage.holding:
            return
        # All at once: whoever must wait again queues up behind nobody that came later.
        for held in self._waiting.pop(symbol):
            self._bytes -= held.exchange.body_size
            held.resume(held.exchange)

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
        if not held:
            return
        under_way = {self._symbol_of(exchange) for exchange in self._under_way}
        for symbol, flip_id in held.items():
            if symbol not in under_way and None not in under_way:
                yield symbol, flip_id
