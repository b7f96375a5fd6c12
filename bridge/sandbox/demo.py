"""The demo: a monolith loses an instrument to the engine under load, and gets it back.

Three instruments trade all the while. BTC-USD goes the whole way; ETH-USD's monolith breaks time
priority, and SOL-USD has a console that writes behind the proxy's back: their gates must refuse.
Nothing here is staged: what fails makes the demo fail.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bridge.control.messages import ActOutcome, InstrumentStatus, Status
from bridge.errors import DemoFailed
from bridge.limits import DEMO_GATE_S, DEMO_LOOK_S, DEMO_RECOVER_S, DEMO_SETTLE_S
from bridge.sandbox.demo_audit import DemoAudit, collect_audit
from bridge.sandbox.demo_report import (
    DemoReport,
    FlipReport,
    InstrumentReport,
    PhaseLatency,
    StoryLine,
)
from bridge.sandbox.demo_world import World
from bridge.sandbox.load import Load
from bridge.sandbox.told import LoadResult
from shadow.verdict import OperationVerdict

FLIPPED, UNFAIR, DARK = "BTC-USD", "ETH-USD", "SOL-USD"
SYMBOLS = (FLIPPED, UNFAIR, DARK)
FAULTS = (f"priority:{UNFAIR}:0.02", f"dark:{DARK}:2")

BEFORE = "before: shadow"
AFTER = "after: live"
KILLED = "engine killed"
BACK = "rolled back"
AGAIN = "live again"
_ANSWERED_BY = {BEFORE: "monolith", AFTER: "engine", KILLED: "engine", BACK: "monolith"}
_CURVE = (0.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99)


class Tempo(msgspec.Struct, frozen=True, kw_only=True):
    """How long the story dwells on what; seconds."""

    rate_per_s: float = 300.0
    market_s: float = 5.0  # trading before anything is shadowed
    live_s: float = 15.0
    after_kill_s: float = 6.0
    again_s: float = 8.0


QUICK = Tempo(market_s=2.0, live_s=4.0, after_kill_s=3.0, again_s=3.0)

Tell = Callable[[StoryLine], None]
Watch = Callable[[Sequence[InstrumentStatus]], None]


class Demo:
    """One run in a world that has been started. `watch` gets the parity while it grows."""

    def __init__(self, world: World, *, seed: int, tempo: Tempo, tell: Tell, watch: Watch) -> None:
        self._world = world
        self._seed = seed
        self._tempo = tempo
        self._tell = tell
        self._watch = watch
        self._began_s = time.monotonic()
        self._story: list[StoryLine] = []
        self._flips: list[FlipReport] = []
        self._failures: list[str] = []
        self._engine_away_ms = 0.0
        self._load = Load(world.proxy_url, seed=seed, rate_per_s=tempo.rate_per_s)

    def say(self, text: str) -> None:
        line = StoryLine(at_s=round(time.monotonic() - self._began_s, 1), text=text)
        self._story.append(line)
        self._tell(line)

    async def run(self) -> DemoReport:
        """Raises DemoFailed when the story can't go on; what merely did not hold is reported."""
        await self._open_market()
        try:
            await self._shadow()
            await self._flip_under_load()
            await self._kill_engine()
            await self._roll_back()
            await self._flip_again()
            refused = await self._refusals()
        finally:
            self.say("the clients stop; every request that is under way is answered")
            result = await self._load.stop()
        audit = await self._audit([result])
        return self._report(result, refused, audit)

    async def _open_market(self) -> None:
        self.say(
            f"three instruments trade through the proxy, {self._tempo.rate_per_s:g} requests/s in "
            "all; the monolith answers, the proxy only passes on"
        )
        self._load.phase("warm-up")
        await self._load.start()
        await asyncio.sleep(self._tempo.market_s)

    async def _shadow(self) -> None:
        self.say("all three go into shadow, on the running market: open orders are loaded at one")
        self.say("  position of the change stream, and everything after it is fed to the engine")
        for symbol in SYMBOLS:
            await self._act(symbol, "stage", stage="shadow")
        self._load.phase(BEFORE)
        status = await self._until_gate_passes(FLIPPED)
        self.say(f"the gate of {FLIPPED} passes: {status.gate_reason}")

    async def _flip_under_load(self) -> None:
        self.say(f"{FLIPPED} is flipped while its clients trade")
        outcome = await self._act(FLIPPED, "flip")
        self._load.phase(AFTER, FLIPPED)
        self.say(
            f"{FLIPPED} is live at epoch {outcome.epoch}; the longest that a client was held: "
            f"{outcome.hold_ms or 0:.0f} ms"
        )
        await asyncio.sleep(self._tempo.live_s)
        before, after = (self._percentiles(phase) for phase in (BEFORE, AFTER))
        self.say(f"clients of {FLIPPED}: {before} from the monolith, {after} from the engine")

    async def _kill_engine(self) -> None:
        self._load.phase(KILLED, FLIPPED)
        killed_at_s = time.time()
        pid = self._world.kill("engine")
        self.say(f"the engine (process {pid}) is killed with -9, in the middle of trading")
        self._engine_away_ms = await self._first_answer_after(killed_at_s)
        self.say(
            f"it has recovered from its journal; after {self._engine_away_ms:.0f} ms {FLIPPED} "
            "was answered again, and nothing that was answered is lost (the audit will look)"
        )
        await asyncio.sleep(self._tempo.after_kill_s)

    async def _roll_back(self) -> None:
        self.say(f"{FLIPPED} is taken back to the monolith, with all that was traded in between")
        outcome = await self._act(FLIPPED, "rollback")
        self._load.phase(BACK, FLIPPED)
        self.say(f"the monolith answers for {FLIPPED} again, held {outcome.hold_ms or 0:.0f} ms")

    async def _flip_again(self) -> None:
        self.say(f"{FLIPPED} must earn its parity anew")
        await self._until_gate_passes(FLIPPED)
        outcome = await self._act(FLIPPED, "flip")
        self._load.phase(AGAIN, FLIPPED)
        self.say(f"{FLIPPED} is live again, held {outcome.hold_ms or 0:.0f} ms")
        await asyncio.sleep(self._tempo.again_s)

    async def _refusals(self) -> tuple[InstrumentReport, ...]:
        reports = []
        for symbol in SYMBOLS:
            report = await self._instrument(symbol)
            reports.append(report)
            if symbol == FLIPPED:
                continue
            if report.gate != "fail":
                self._failures.append(f"the gate of {symbol} says {report.gate}, and must fail")
            self.say(f"the gate of {symbol} refuses: {report.reasons[0] if report.reasons else ''}")
        return tuple(reports)

    async def _audit(self, results: list[LoadResult]) -> DemoAudit:
        await self._settled()
        self.say("the audit compares clients, legacy database and journal, order by order")
        return await collect_audit(self._world, results)

    # What the story needs to know and to do.

    async def status(self) -> Status:
        document = await asyncio.to_thread(self._world.control.status)
        return msgspec.convert(document, Status)

    async def _act(self, symbol: str, what: str, **fields: Any) -> ActOutcome:
        """Raises DemoFailed when it was refused or came to another end."""
        body = {"actor": "demo", "execute": True, **fields}
        lines = await asyncio.to_thread(lambda: list(self._world.control.act(symbol, what, body)))
        outcome = msgspec.convert(lines[-1], ActOutcome)
        if outcome.outcome != "done":
            raise DemoFailed(f"{what} of {symbol}: {outcome.outcome}: {'; '.join(outcome.reasons)}")
        if what != "stage":
            self._flips.append(
                FlipReport(
                    symbol=symbol,
                    direction=what,
                    state=outcome.outcome,
                    hold_ms=round(outcome.hold_ms or 0.0, 1),
                    epoch=outcome.epoch,
                )
            )
        return outcome

    async def _until_gate_passes(self, symbol: str) -> InstrumentStatus:
        deadline = time.monotonic() + DEMO_GATE_S
        while True:
            status = await self.status()
            self._watch(status.instruments)
            one = next(i for i in status.instruments if i.symbol == symbol)
            if one.gate == "pass":
                return one
            if one.gate == "fail" or time.monotonic() > deadline:
                raise DemoFailed(f"the gate of {symbol} does not pass: {one.gate_reason}")
            await asyncio.sleep(DEMO_LOOK_S)

    async def _first_answer_after(self, killed_at_s: float) -> float:
        """Milliseconds from the kill to the first live answer by the engine that came back."""
        samples = self._load.result.samples
        deadline = time.monotonic() + DEMO_RECOVER_S
        pid = 0
        while time.monotonic() < deadline:
            pid = pid or self._world.pid("engine")
            index = samples.symbols.index(FLIPPED)
            gap = _longest_gap_ms(
                [
                    at_s
                    for at_s, symbol in zip(samples.at_s, samples.symbol, strict=False)
                    if symbol == index and at_s > killed_at_s - 1
                ]
            )
            if pid and samples.at_s and samples.at_s[-1] > killed_at_s + 1 and gap > 0:
                return gap
            await asyncio.sleep(DEMO_LOOK_S)
        raise DemoFailed(f"{FLIPPED} was not answered within {DEMO_RECOVER_S:.0f} s of the kill")

    async def _settled(self) -> None:
        """Until the write-back has written everything and the shadow has judged everything."""
        deadline = time.monotonic() + DEMO_SETTLE_S
        while True:
            status = await self.status()
            pending = sum(i.counts.pending for i in status.instruments if i.stage == "shadow")
            if status.write_back.behind == 0 and not pending:
                return
            if time.monotonic() > deadline:
                behind = status.write_back.behind
                self._failures.append(f"after the end: {behind} commands not written back")
                return
            await asyncio.sleep(DEMO_LOOK_S)

    async def _instrument(self, symbol: str) -> InstrumentReport:
        status = await self.status()
        one = next(i for i in status.instruments if i.symbol == symbol)
        roots = await asyncio.to_thread(self._world.roots, symbol)
        return instrument_report(one, roots)

    def _percentiles(self, phase: str) -> str:
        histogram = self._load.result.latency(phase, FLIPPED)
        p50, p99 = (histogram.get_value_at_percentile(p) / 1000 for p in (50, 99))
        return f"P50 {p50:.1f} ms, P99 {p99:.1f} ms"

    def _report(
        self, result: LoadResult, instruments: tuple[InstrumentReport, ...], audit: DemoAudit
    ) -> DemoReport:
        failures = [*self._failures, *audit.failures]
        failures += [f"{count} requests failed: {why}" for why, count in result.failed.items()]
        self.say("everything held" if not failures else f"NOT everything held: {failures[0]}")
        return DemoReport(
            ok=not failures,
            failures=tuple(failures),
            seconds=round(time.monotonic() - self._began_s, 1),
            seed=self._seed,
            flow="",
            orders_sent=result.requests,
            orders_answered=result.answered,
            orders_lost=audit.result.lost,
            orders_duplicated=audit.result.duplicated,
            requests_failed=dict(result.failed),
            fills_compared=sum(i.counts.fills for i in instruments),
            instruments=instruments,
            flips=tuple(self._flips),
            latency=latencies(result, (BEFORE, AFTER, KILLED, BACK, AGAIN), FLIPPED),
            engine_away_ms=round(self._engine_away_ms, 1),
            audit=audit.checks,
            story=tuple(self._story),
            conditions=conditions(self._world, self._tempo.rate_per_s),
        )


def instrument_report(
    one: InstrumentStatus, roots: tuple[OperationVerdict, ...]
) -> InstrumentReport:
    return InstrumentReport(
        symbol=one.symbol,
        stage=one.stage,
        gate=one.gate,
        reasons=(one.gate_reason,) if one.gate_reason else (),
        counts=one.counts,
        roots=roots,
    )


def latencies(
    result: LoadResult, phases: Sequence[str], symbol: str
) -> tuple[PhaseLatency, ...]:
    made = []
    for phase in phases:
        histogram = result.latency(phase, symbol)
        count = histogram.get_total_count()
        if not count:
            continue
        at = histogram.get_value_at_percentile
        points = tuple((p, float(at(p))) for p in _CURVE if p == 0.0 or count >= 1 / (1 - p / 100))
        made.append(
            PhaseLatency(
                phase=phase,
                symbol=symbol,
                answered_by=_ANSWERED_BY.get(phase, "engine"),
                count=count,
                p50_us=float(at(50)),
                p99_us=float(at(99)),
                p999_us=float(at(99.9)),
                max_us=float(at(100)),
                curve=points if phase in (BEFORE, AFTER) else (),
            )
        )
    return tuple(made)


def conditions(world: World, rate_per_s: float) -> dict[str, str]:
    load = ", ".join(f"{value:.2f}" for value in os.getloadavg())
    return {
        "cores": str(os.cpu_count()),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "engine": world.implementation(),
        "rate offered": f"{rate_per_s:g} requests/s, open loop, all processes on this machine",
        "load average at the end": load,
    }


def _longest_gap_ms(answered_at_s: Sequence[float]) -> float:
    ordered = sorted(answered_at_s)
    gaps = (later - sooner for sooner, later in zip(ordered, ordered[1:], strict=False))
    return 1000 * max(gaps, default=0.0)


@asynccontextmanager
async def started(world: World) -> AsyncIterator[World]:
    """The world, started and stopped in a thread: both take seconds."""
    await asyncio.to_thread(world.__enter__)
    try:
        yield world
    finally:
        await asyncio.to_thread(world.__exit__)
