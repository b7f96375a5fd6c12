"""The demo: a monolith loses an instrument to the engine under load, and gets it back.

Three instruments trade all the while. BTC-USD goes the whole way; ETH-USD's monolith breaks time
priority, and SOL-USD has a console that writes behind the proxy's back: their gates must refuse.
Nothing here is staged: what fails makes the demo fail.
"""

from __future__ import annotations

import asyncio

import msgspec

from bridge.sandbox.demo_report import DemoReport, InstrumentReport
from bridge.sandbox.demo_story import AFTER, BEFORE, Story, latency_of, percentiles
from bridge.sandbox.load import DEFAULT_MIX, Load

FLIPPED, UNFAIR, DARK = "BTC-USD", "ETH-USD", "SOL-USD"
SYMBOLS = (FLIPPED, UNFAIR, DARK)
FAULTS = (f"priority:{UNFAIR}:0.05", f"dark:{DARK}:2")

_BULK = 0.02  # share of requests with several orders; of several instruments, mostly

_KILLED = "the engine is killed and recovers"
_BACK = "rolled back"
_AGAIN = "live again"
_PHASES = {
    BEFORE: "monolith",
    AFTER: "engine",
    _KILLED: "engine",
    _BACK: "monolith",
    _AGAIN: "engine",
}


class Tempo(msgspec.Struct, frozen=True, kw_only=True):
    """How much traffic there is, and how long the story dwells on what; seconds."""

    rate_per_s: float = 300.0
    market_s: float = 8.0  # trading before anything is shadowed
    live_s: float = 25.0
    after_kill_s: float = 8.0
    again_s: float = 12.0


QUICK = Tempo(market_s=2.0, live_s=4.0, after_kill_s=2.0, again_s=3.0)


class Demo:
    def __init__(self, story: Story, *, seed: int, tempo: Tempo) -> None:
        self._story = story
        self._seed = seed
        self._tempo = tempo
        mix = msgspec.structs.replace(DEFAULT_MIX, bulk=_BULK)
        self._load = Load(story.world.proxy_url, seed=seed, rate_per_s=tempo.rate_per_s, mix=mix)
        self._fills_compared = 0  # of BTC-USD before its flips: each load counts anew

    async def run(self) -> DemoReport:
        """Raises DemoFailed when the story can't go on; what merely did not hold is reported."""
        story = self._story
        try:
            await self._open_market()
            await self._shadow()
            await self._flip_under_load()
            await self._kill_engine()
            await self._roll_back_and_flip_again()
        finally:
            result = await self._load.stop()
        story.say("the clients have stopped, and all their requests have been answered")
        audit = await story.audit([result])
        instruments = await story.reported(SYMBOLS)
        self._check_refusals(instruments)
        return story.report(
            result,
            instruments,
            audit,
            latency_of(result, FLIPPED, _PHASES),
            seed=self._seed,
            fills_compared=self._fills_compared
            + sum(i.counts.fills for i in instruments if i.symbol != FLIPPED),
            offered=f"{self._tempo.rate_per_s:g} requests/s in all, {_BULK:.0%} bulk, open loop",
        )

    async def _open_market(self) -> None:
        self._story.say(
            f"three instruments trade through the proxy, {self._tempo.rate_per_s:g} requests/s in "
            f"all, {_BULK:.0%} with several orders: the monolith answers, the proxy passes on"
        )
        self._load.phase("warm-up")
        await self._load.start()
        await asyncio.sleep(self._tempo.market_s)

    async def _shadow(self) -> None:
        self._story.say(
            "all three go into shadow, on the running market: their open orders are loaded as of "
            "one position in the change stream, and all that commits after it is fed to the engine"
        )
        for symbol in SYMBOLS:
            await self._story.shadow(symbol)
        self._load.phase(BEFORE)
        await self._gate_passes()

    async def _gate_passes(self) -> None:
        one = await self._story.until_gate_passes(FLIPPED)
        self._fills_compared += one.counts.fills
        self._story.say(f"the gate of {FLIPPED} passes: {one.gate_reason}")

    async def _flip_under_load(self) -> None:
        self._story.say(f"{FLIPPED} is flipped while its clients trade")
        flip = await self._story.flip(FLIPPED)
        self._load.phase(AFTER, FLIPPED)
        self._story.say(
            f"{FLIPPED} is live at epoch {flip.epoch}: the engine answers. Its clients were held "
            f"for {flip.hold_ms:.0f} ms"
        )
        await asyncio.sleep(self._tempo.live_s)
        before, after = (
            percentiles(self._load.result, FLIPPED, phase) for phase in (BEFORE, AFTER)
        )
        self._story.say(f"before, from the monolith: {before}; after, from the engine: {after}")

    async def _kill_engine(self) -> None:
        self._load.phase(_KILLED, FLIPPED)
        self._story.say("the engine is killed with -9, in the middle of trading")
        pid = await self._story.kill_engine(FLIPPED, self._load.result.samples)
        self._story.say(
            f"process {pid} is gone; a new one has recovered from the journal, and clients of "
            f"{FLIPPED} waited {self._story.engine_away_ms:.0f} ms for their next answer"
        )
        await asyncio.sleep(self._tempo.after_kill_s)

    async def _roll_back_and_flip_again(self) -> None:
        self._story.say(f"{FLIPPED} is taken back to the monolith, with all that traded meanwhile")
        back = await self._story.roll_back(FLIPPED)
        self._load.phase(_BACK, FLIPPED)
        self._story.say(
            f"the monolith answers for {FLIPPED} again, held for {back.hold_ms:.0f} ms; its parity "
            "must be earned anew"
        )
        await self._gate_passes()
        again = await self._story.flip(FLIPPED)
        self._load.phase(_AGAIN, FLIPPED)
        self._story.say(f"{FLIPPED} is live again, held for {again.hold_ms:.0f} ms")
        await asyncio.sleep(self._tempo.again_s)

    def _check_refusals(self, instruments: tuple[InstrumentReport, ...]) -> None:
        for one in instruments:
            if one.symbol == FLIPPED:
                continue
            self._story.say(f"the gate of {one.symbol} says {one.gate}: {'; '.join(one.reasons)}")
            if one.gate != "fail":
                self._story.failures.append(f"the gate of {one.symbol} should have failed")
            if one.symbol == UNFAIR and not one.roots:
                self._story.failures.append(f"no differing order of {one.symbol} is shown")
