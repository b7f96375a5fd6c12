"""The demo on recorded order flow: every order and cancel of a file, one instrument, one flip."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.sandbox.demo_report import DemoReport
from bridge.sandbox.demo_story import AFTER, BEFORE, Story, latency_of, percentiles
from bridge.sandbox.flow import read_flow
from bridge.sandbox.flow_load import FlowLoad, flow_steps

SYMBOL = "BTC-USD"
_WARM_UP_SHARE = 0.05  # of the steps, before shadowing begins on what is then a running market
_FLIP_SHARE = 0.5  # the flip comes no sooner
_CLIENTS = 8


class FlowDemo:
    """Raises FlowUnreadable for a file that is no order flow, before anything is sent."""

    def __init__(self, story: Story, file: Path) -> None:
        self._story = story
        self._file = file
        self._steps = list(flow_steps(read_flow(file), SYMBOL))
        self._load = FlowLoad(story.world.proxy_url, clients=_CLIENTS)
        self._fills_compared = 0

    async def run(self) -> DemoReport:
        story, load = self._story, self._load
        warm_up = int(len(self._steps) * _WARM_UP_SHARE)
        story.say(f"{self._file.name}: {len(self._steps):,} orders and cancels, in their order")
        load.phase("warm-up")
        await load.run(self._steps[:warm_up])
        story.say(f"{SYMBOL} goes into shadow, on the running market")
        await story.shadow(SYMBOL)
        load.phase(BEFORE)
        flipping = asyncio.create_task(self._flip_in_the_middle())
        try:
            await load.run(self._steps[warm_up:])
            await flipping
        finally:
            flipping.cancel()
            load.close()
        before, after = (percentiles(load.result, SYMBOL, phase) for phase in (BEFORE, AFTER))
        story.say(f"before, from the monolith: {before}; after, from the engine: {after}")
        audit = await story.audit([load.result])
        return story.report(
            load.result,
            await story.reported((SYMBOL,)),
            audit,
            latency_of(load.result, SYMBOL, {BEFORE: "monolith", AFTER: "engine"}),
            flow=self._file.name,
            fills_compared=self._fills_compared,
            offered=f"closed loop, {_CLIENTS} clients",
        )

    async def _flip_in_the_middle(self) -> None:
        """The flow goes on meanwhile; should it end sooner, the flip still has to come."""
        story, load = self._story, self._load
        await story.until(lambda: load.result.requests >= _FLIP_SHARE * len(self._steps))
        one = await story.until_gate_passes(SYMBOL)
        counts = one.counts
        self._fills_compared = counts.fills
        story.say(
            f"at {load.result.requests:,} requests the gate passes: {counts.matched:,} matched of "
            f"{counts.seen:,}, {counts.fills:,} fills compared; {one.gate_reason}"
        )
        flip = await story.flip(SYMBOL)
        load.phase(AFTER)
        story.say(f"{SYMBOL} is live at epoch {flip.epoch}, held for {flip.hold_ms:.0f} ms")
