"""What the leading control process looks at all the time: lag, silence, half-done flips, the
engine's modes.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

from bridge import limits
from bridge.config import RollbackConfig
from bridge.control.messages import EngineState, WriteBackStatus
from bridge.control.switch import Switch
from bridge.ledger_rows import FlipRow
from bridge.stage import Stage
from bridge.steps import OPERATING_FAULTS, Tools
from bridge.tasks import ended
from engine.client import EngineStatus
from engine.types import Mode

_log = logging.getLogger(__name__)


class LagMeter:
    """How long ago the engine did the oldest thing that is not written back."""

    def __init__(self) -> None:
        self._heads: deque[tuple[int, float]] = deque(maxlen=limits.LAG_SAMPLES_MAX)

    def note(self, head_seq: int, at_s: float) -> None:
        """The engine's head, as it was at `at_s`."""
        if not self._heads or head_seq > self._heads[-1][0]:
            self._heads.append((head_seq, at_s))

    def lag_ms(self, reached_seq: int, now_s: float) -> float:
        while self._heads and self._heads[0][0] <= reached_seq:
            self._heads.popleft()
        return 1000 * (now_s - self._heads[0][1]) if self._heads else 0.0


def breaches(config: RollbackConfig, *, lag_ms: float, silent_ms: float) -> tuple[str, ...]:
    """Why a live instrument must go back. `silent_ms`: how long the engine, which answers again,
    had not.

    >>> breaches(RollbackConfig(), lag_ms=6000.0, silent_ms=0.0)
    ('the write-back is 6000 ms behind, over 5000 ms',)
    """
    found = []
    most_ms = config.write_back_lag_ms_max
    if most_ms and lag_ms > most_ms:
        found.append(f"the write-back is {lag_ms:.0f} ms behind, over {most_ms:g} ms")
    most_ms = config.engine_silence_ms_max
    if most_ms and silent_ms > most_ms:
        found.append(f"the engine was silent for {silent_ms:.0f} ms, over {most_ms:g} ms")
    return tuple(found)


class Watch:
    def __init__(
        self,
        tools: Tools,
        switch: Switch,
        config: RollbackConfig,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._tools = tools
        self._switch = switch
        self._config = config
        self._clock = clock
        self._lag = LagMeter()
        self._heard_at_s = clock()
        self._engine: EngineStatus | None = None
        self._engine_trouble = "it has not been asked yet"
        self._longest_silence_ms = 0.0  # of the engine, since breaches were last looked for
        self._rolling_back: dict[str, asyncio.Task[None]] = {}
        self._again_at_s: dict[str, float] = {}  # after a rollback that did not succeed

    async def run(self) -> None:
        """Until cancelled. Whoever waits for one server keeps nobody from another."""
        looks = [
            asyncio.create_task(_repeat(look)) for look in (self.announce, self.listen, self.tend)
        ]
        try:
            await asyncio.gather(*looks)
        finally:
            await ended(*looks, *self._rolling_back.values())

    async def announce(self) -> None:
        """The stages, again: a worker may have missed a message, Redis may have been empty."""
        await self._tools.announcer.stages()

    async def listen(self) -> None:
        """To the engine: its head, and that it answers at all."""
        try:
            self._engine = await self._tools.engine.status()
        except OPERATING_FAULTS as error:
            self._engine, self._engine_trouble = None, str(error)
            return
        now_s = self._clock()
        silence_ms = 1000 * (now_s - self._heard_at_s)
        self._longest_silence_ms = max(self._longest_silence_ms, silence_ms)
        self._heard_at_s = now_s
        self._lag.note(self._engine.seq, now_s)

    async def tend(self) -> None:
        """Finishes what is half-done, sets modes right, takes back what must go back."""
        await self._switch.finish_unfinished()
        if self._engine is None:
            return  # it can't be frozen while it is away; its silence counts when it is back
        await self._switch.reconcile()
        silent_ms, self._longest_silence_ms = self._longest_silence_ms, 0.0
        found = breaches(self._config, lag_ms=self.lag_ms(), silent_ms=silent_ms)
        if not found:
            return
        for stage in (await self._tools.ledger.snapshot()).instruments.values():
            if stage.stage is Stage.LIVE and not stage.holding:
                try:
                    await self._roll_back(stage.symbol, "; ".join(found))
                except OPERATING_FAULTS as error:  # the others must go back all the same
                    _log.error("%s does not go back yet: %s", stage.symbol, error)

    def lag_ms(self) -> float:
        return self._lag.lag_ms(self._tools.write_back.reached_seq, self._clock())

    def engine(self) -> EngineState:
        status = self._engine
        if status is None:
            return EngineState(reachable=False, trouble=self._engine_trouble)
        return engine_state(status)

    def write_back(self) -> WriteBackStatus:
        write_back = self._tools.write_back
        head_seq = self._engine.seq if self._engine is not None else None
        return WriteBackStatus(
            running=write_back.running,
            trouble=write_back.trouble,
            written_seq=write_back.written_seq,
            behind=None if head_seq is None else max(0, head_seq - write_back.reached_seq),
            lag_ms=self.lag_ms(),
        )

    async def _roll_back(self, symbol: str, reason: str) -> None:
        if symbol in self._rolling_back or self._clock() < self._again_at_s.get(symbol, 0.0):
            return
        _log.error("%s goes back to legacy by itself: %s", symbol, reason)
        self._again_at_s[symbol] = self._clock() + limits.ROLLBACK_AGAIN_S
        flip = await self._switch.begin_unattended(symbol, reason)
        task = asyncio.create_task(self._carry(flip))
        self._rolling_back[symbol] = task
        task.add_done_callback(lambda _: self._rolling_back.pop(symbol, None))

    async def _carry(self, flip: FlipRow) -> None:
        try:
            outcome = await self._switch.carry(flip, unattended=True)
        except OPERATING_FAULTS as error:
            _log.error("the rollback of %s: %s", flip.symbol, error)
        else:
            _log.warning(
                "the rollback of %s is %s: %s %s",
                flip.symbol,
                outcome.outcome,
                "; ".join(outcome.reasons),
                outcome.next,
            )


async def _repeat(look: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await look()
        except OPERATING_FAULTS as error:
            _log.warning("%s", error)
        await asyncio.sleep(limits.WATCH_S)


def engine_state(status: EngineStatus) -> EngineState:
    return EngineState(
        reachable=True,
        implementation=status.implementation,
        shard=status.shard,
        seq=status.seq,
        modes={
            one.name: f"{Mode(one.mode).name.lower()} at epoch {one.epoch}"
            for one in status.instruments
        },
    )
