"""How the steps of a flip or rollback are taken: written down before, measured, told, and bounded
in time.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import msgspec

from bridge.announce import Announcer
from bridge.config import FlipConfig
from bridge.engine_admin import EngineAdmin
from bridge.errors import BridgeError, RedisUnreachable, StepFailed
from bridge.ledger import Ledger
from bridge.ledger_rows import FlipRow
from bridge.legacy_side import LegacySide
from bridge.workers import Workers
from bridge.writeback import WriteBack
from engine.errors import EngineError
from shadow.errors import ShadowError
from shadow.verdict import Evidence

_log = logging.getLogger(__name__)

OPERATING_FAULTS = (BridgeError, EngineError, ShadowError, OSError, TimeoutError)


class StepUpdate(msgspec.Struct, frozen=True, kw_only=True, tag="step", tag_field="type"):
    """One line of progress: a step is intended, and then done or failed."""

    flip_id: int
    symbol: str
    direction: str
    n: int
    step: str
    state: str
    elapsed_ms: float  # since it was intended
    detail: dict[str, Any]


Report = Callable[[StepUpdate], None]
Probe = Callable[[str, str], Awaitable[None]]


def silent(_: StepUpdate) -> None:
    """A report that nobody reads."""


async def unprobed(_step: str, _moment: str) -> None:
    """Tests put their kill points here: (step, "intended" | "taken" | "recorded")."""


@dataclass(frozen=True, kw_only=True)
class Tools:
    """All that flips, rollbacks and their recovery act through."""

    ledger: Ledger
    announcer: Announcer
    workers: Workers
    engine: EngineAdmin
    legacy: LegacySide
    write_back: WriteBack
    evidence: Callable[[str], Awaitable[Evidence | None]]  # of an instrument, as the shadow left it
    config: FlipConfig
    probe: Probe = unprobed


class Drive:
    """One flip or rollback on its way. `flip` is its row as it was last decided."""

    def __init__(self, tools: Tools, flip: FlipRow, report: Report) -> None:
        self.tools = tools
        self.flip = flip
        self._report = report
        self._clock = time.monotonic  # the loop's own may be a whole ms behind
        self._held_at_s: float | None = None
        self._deadline_s: float | None = None
        self._budget_ms = 0
        self._bound: asyncio.Timeout | None = None

    def begin_hold(self, budget_ms: int) -> None:
        """From here on every step, this one too, must be over within the budget."""
        self._held_at_s = self._clock()
        self._deadline_s = self._held_at_s + budget_ms / 1000
        self._budget_ms = budget_ms
        if self._bound is not None:
            self._bound.reschedule(asyncio.get_running_loop().time() + budget_ms / 1000)

    def unbounded(self) -> None:
        self._deadline_s = None

    @property
    def remaining_s(self) -> float:
        return float("inf") if self._deadline_s is None else self._deadline_s - self._clock()

    @property
    def hold_ms(self) -> float | None:
        """None when the hold began in another process."""
        return None if self._held_at_s is None else 1000 * (self._clock() - self._held_at_s)

    @asynccontextmanager
    async def step(self, name: str, *, durable: bool = False) -> AsyncIterator[dict[str, Any]]:
        """The body takes the step, and puts what it found into the yielded detail.

        A step that raises StepFailed has certainly not been taken, and is written down as failed;
        after any other error it stays intended: it may have been taken. `durable` is for the steps
        whose record decides what an undo has to take back.
        """
        began_s = self._clock()
        detail: dict[str, Any] = {}
        n = await self.tools.ledger.intend(self.flip, name, durable=durable)
        self._tell(n, name, "intended", began_s, detail)
        await self.tools.probe(name, "intended")
        try:
            bound_s = None if self._deadline_s is None else self.remaining_s
            async with asyncio.timeout(bound_s) as self._bound:
                yield detail
        except Exception as error:
            failure = self._over_budget(name, error)
            detail["reasons"] = reasons_of(failure)
            if isinstance(error, StepFailed):
                with suppress(BridgeError):
                    await self.tools.ledger.end_step(self.flip, n, "failed", detail)
            self._tell(n, name, "failed", began_s, detail)
            if failure is error:
                raise
            raise failure from error
        await self.tools.probe(name, "taken")
        await self.tools.ledger.end_step(self.flip, n, "done", detail)
        self._tell(n, name, "done", began_s, detail)
        await self.tools.probe(name, "recorded")

    async def announce(self) -> None:
        """Best effort: the stage row says it already, and the next announcement says it again."""
        try:
            await self.tools.announcer.stages()
        except RedisUnreachable as error:
            _log.warning("%s", error)

    def _over_budget(self, name: str, error: Exception) -> Exception:
        if not isinstance(error, TimeoutError) or self._deadline_s is None:
            return error
        return StepFailed(
            f"step {name} was not over within the hold budget of {self._budget_ms} ms"
        )

    def _tell(self, n: int, name: str, state: str, began_s: float, detail: dict[str, Any]) -> None:
        self._report(
            StepUpdate(
                flip_id=self.flip.id,
                symbol=self.flip.symbol,
                direction=self.flip.direction,
                n=n,
                step=name,
                state=state,
                elapsed_ms=round(1000 * (self._clock() - began_s), 3),
                detail=dict(detail),
            )
        )


def reasons_of(error: BaseException) -> list[str]:
    if isinstance(error, StepFailed):
        return list(error.reasons)
    if isinstance(error, OPERATING_FAULTS):
        return [str(error) or type(error).__name__]
    return [f"{type(error).__name__}: {error} (a defect in railswitch)"]
