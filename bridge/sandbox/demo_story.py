"""What every telling of the demo does: say what happens, act, look, wait, audit, report."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Mapping, Sequence

from bridge.bench.conditions import conditions
from bridge.control.messages import ActOutcome, ActRequest, InstrumentStatus, StageRequest, Status
from bridge.errors import DemoFailed
from bridge.limits import DEMO_GATE_S, DEMO_LOOK_S, DEMO_RECOVER_S, DEMO_SETTLE_S
from bridge.sandbox.demo_audit import DemoAudit, collect_audit, first_differences
from bridge.sandbox.demo_report import (
    DemoReport,
    FlipReport,
    InstrumentReport,
    PhaseLatency,
    StoryLine,
)
from bridge.sandbox.demo_world import World
from bridge.sandbox.told import LoadResult, Samples
from bridge.stage import Stage

BEFORE = "before: the monolith"
AFTER = "after: the engine"
_CURVE = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99)

Tell = Callable[[StoryLine], None]
Watch = Callable[[Sequence[InstrumentStatus]], None]


class Story:
    """In a world that has been started. `watch` gets the parity while it grows."""

    def __init__(self, world: World, tell: Tell, watch: Watch) -> None:
        self.world = world
        self.failures: list[str] = []  # what did not hold
        self.engine_away_ms = 0.0
        self._tell = tell
        self._watch = watch
        self._began_s = time.monotonic()
        self._lines: list[StoryLine] = []
        self._flips: list[FlipReport] = []

    def say(self, text: str) -> None:
        line = StoryLine(at_s=round(time.monotonic() - self._began_s, 1), text=text)
        self._lines.append(line)
        self._tell(line)

    async def status(self) -> Status:
        return await asyncio.to_thread(self.world.control.status)

    async def instrument(self, symbol: str) -> InstrumentStatus:
        return next(i for i in (await self.status()).instruments if i.symbol == symbol)

    async def shadow(self, symbol: str) -> None:
        await self._act(
            symbol, "stage", StageRequest(actor="demo", stage=Stage.SHADOW, execute=True)
        )

    async def flip(self, symbol: str) -> FlipReport:
        return await self._switch(symbol, "flip")

    async def roll_back(self, symbol: str) -> FlipReport:
        return await self._switch(symbol, "rollback")

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110  nothing tells when another part's count has grown
            await asyncio.sleep(DEMO_LOOK_S)

    async def until_gate_passes(self, symbol: str) -> InstrumentStatus:
        """Raises DemoFailed when it takes too long."""
        deadline = time.monotonic() + DEMO_GATE_S
        while True:
            status = await self.status()
            self._watch(status.instruments)
            one = next(i for i in status.instruments if i.symbol == symbol)
            if one.gate == "pass":
                return one
            if time.monotonic() > deadline:
                raise DemoFailed(f"the gate of {symbol} does not pass: {one.gate_reason}")
            await asyncio.sleep(DEMO_LOOK_S)

    async def kill_engine(self, symbol: str, samples: Samples) -> int:
        """With -9; returns its process id when a new one has answered for `symbol`.

        What clients noticed, the longest time without any answer for `symbol`, is remembered.
        """
        killed_at_s = time.time()
        killed = self.world.kill("engine")
        deadline = time.monotonic() + DEMO_RECOVER_S
        while self.world.pid("engine") in (0, killed) or not _went_on(samples, symbol, killed_at_s):
            if time.monotonic() > deadline:
                raise DemoFailed(f"{symbol} was not answered {DEMO_RECOVER_S:.0f} s after the kill")
            await asyncio.sleep(DEMO_LOOK_S)
        self.engine_away_ms = _longest_gap_ms(samples, symbol, killed_at_s - 1)
        return killed

    async def audit(self, results: Sequence[LoadResult]) -> DemoAudit:
        await self._settled()
        self.say("the audit compares what clients were told, the legacy database and the journal")
        return await collect_audit(self.world, results)

    async def reported(self, symbols: Sequence[str]) -> tuple[InstrumentReport, ...]:
        """As they are now, with the first operations that differ."""
        reports = []
        for symbol in symbols:
            one = await self.instrument(symbol)
            reports.append(
                InstrumentReport(
                    symbol=symbol,
                    stage=one.stage,
                    gate=one.gate,
                    reasons=(one.gate_reason,) if one.gate_reason else (),
                    counts=one.counts,
                    roots=await first_differences(self.world, symbol),
                )
            )
        return tuple(reports)

    def report(
        self,
        result: LoadResult,
        instruments: tuple[InstrumentReport, ...],
        audit: DemoAudit,
        latency: tuple[PhaseLatency, ...],
        *,
        seed: int = 0,
        flow: str = "",
        fills_compared: int,
        offered: str,
    ) -> DemoReport:
        failures = [*self.failures, *audit.failures]
        failures += [f"{count} requests failed: {why}" for why, count in result.failed.items()]
        self.say("everything held" if not failures else f"NOT everything held: {failures[0]}")
        found = conditions(self.world.directory) | {"offered": offered}
        return DemoReport(
            ok=not failures,
            failures=tuple(failures),
            seconds=round(time.monotonic() - self._began_s, 1),
            seed=seed,
            flow=flow,
            orders_sent=result.requests,
            orders_answered=result.answered,
            orders_lost=audit.result.lost,
            orders_duplicated=audit.result.duplicated,
            requests_failed=dict(result.failed),
            fills_compared=fills_compared,
            instruments=instruments,
            flips=tuple(self._flips),
            latency=latency,
            engine_away_ms=round(self.engine_away_ms, 1),
            audit=audit.checks,
            story=tuple(self._lines),
            conditions={key: str(value) for key, value in found.items()},
        )

    async def _switch(self, symbol: str, what: str) -> FlipReport:
        outcome = await self._act(symbol, what, ActRequest(actor="demo", execute=True))
        flip = FlipReport(
            symbol=symbol,
            direction=what,
            state=outcome.outcome,
            hold_ms=round(outcome.hold_ms or 0.0, 1),
            epoch=outcome.epoch,
        )
        self._flips.append(flip)
        return flip

    async def _act(self, symbol: str, what: str, body: ActRequest | StageRequest) -> ActOutcome:
        """Raises DemoFailed when it came to another end than wanted, ControlRefused."""
        control = self.world.control
        lines = await asyncio.to_thread(lambda: list(control.act(symbol, what, body)))
        outcome = lines[-1]
        if not isinstance(outcome, ActOutcome) or outcome.outcome != "done":
            raise DemoFailed(f"{what} of {symbol}: {outcome}")
        return outcome

    async def _settled(self) -> None:
        """Until everything is written back, and everything in shadow has been judged."""
        deadline = time.monotonic() + DEMO_SETTLE_S
        while True:
            status = await self.status()
            pending = sum(i.counts.pending for i in status.instruments if i.stage == Stage.SHADOW)
            behind = status.write_back.behind
            if behind == 0 and not pending:
                return
            if time.monotonic() > deadline:
                self.failures.append(f"at the end {behind} commands behind, {pending} pending")
                return
            await asyncio.sleep(DEMO_LOOK_S)


def latency_of(
    result: LoadResult, symbol: str, phases: Mapping[str, str]
) -> tuple[PhaseLatency, ...]:
    """`phases`: name -> who answered then. Curves only for BEFORE and AFTER."""
    made = []
    for phase, answered_by in phases.items():
        histogram = result.latency(phase, symbol)
        count = histogram.get_total_count()
        if not count:
            continue
        at = histogram.get_value_at_percentile
        shown = (p for p in _CURVE if p <= 100 * (1 - 1 / count))
        made.append(
            PhaseLatency(
                phase=phase,
                symbol=symbol,
                answered_by=answered_by,
                count=count,
                p50_us=float(at(50)),
                p99_us=float(at(99)),
                p999_us=float(at(99.9)),
                max_us=float(at(100)),
                curve=tuple((p, float(at(p))) for p in shown) if phase in (BEFORE, AFTER) else (),
            )
        )
    return tuple(made)


def percentiles(result: LoadResult, symbol: str, phase: str) -> str:
    histogram = result.latency(phase, symbol)
    p50, p99 = (histogram.get_value_at_percentile(p) / 1000 for p in (50, 99))
    return f"P50 {p50:.1f} ms, P99 {p99:.1f} ms"


def _answered_at_s(samples: Samples, symbol: str, after_s: float) -> list[float]:
    if symbol not in samples.symbols:
        return []
    wanted = samples.symbols.index(symbol)
    pairs = zip(samples.at_s, samples.symbol, strict=False)
    return sorted(at_s for at_s, index in pairs if index == wanted and at_s >= after_s)


def _went_on(samples: Samples, symbol: str, killed_at_s: float) -> bool:
    """Answers have come again for a while, after the gap that the kill made."""
    answered = _answered_at_s(samples, symbol, killed_at_s)
    return bool(answered) and answered[-1] > killed_at_s + 1.0 and answered[-1] > time.time() - 0.5


def _longest_gap_ms(samples: Samples, symbol: str, after_s: float) -> float:
    answered = _answered_at_s(samples, symbol, after_s)
    gaps = (later - sooner for sooner, later in itertools.pairwise(answered))
    return 1000 * max(gaps, default=0.0)
