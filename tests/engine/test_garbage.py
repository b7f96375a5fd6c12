"""The garbage collector runs in moments when nothing is on its way, and in no other."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path
from typing import Any

import pytest
from engine_harness import run, service, started
from market_driver import new

from engine import limits
from engine.garbage import GarbageWhenIdle
from engine.shard import Shard


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


def test_it_is_off_inside_and_as_before_outside() -> None:
    assert gc.isenabled()
    with GarbageWhenIdle():
        assert not gc.isenabled()
        assert gc.get_freeze_count() > 0
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_young_garbage_goes_when_there_is_much_of_it() -> None:
    with GarbageWhenIdle() as garbage:
        few = [Cycle() for _ in range(10)]
        count = gc.get_count()[0]
        garbage.moment()
        assert gc.get_count()[0] >= count - 10
        few += [Cycle() for _ in range(limits.GARBAGE_YOUNG)]
        garbage.moment()
        assert gc.get_count()[0] < limits.GARBAGE_YOUNG
    assert few


def test_everything_is_collected_once_when_nothing_has_come_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    collected: list[tuple[Any, ...]] = []
    with GarbageWhenIdle() as garbage:
        monkeypatch.setattr(gc, "collect", lambda *of: collected.append(of))
        garbage.idle(limits.GARBAGE_IDLE_S - 1)
        garbage.busy()
        garbage.idle(limits.GARBAGE_IDLE_S - 1)
        assert collected == []
        for _ in range(10):
            garbage.idle(1.0)
        assert collected == [()]


def test_it_never_runs_while_orders_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards: list[Shard[Any]] = []
    made = Shard.__init__

    def remembered(shard: Shard[Any], *rest: Any, **named: Any) -> None:
        made(shard, *rest, **named)
        shards.append(shard)

    monkeypatch.setattr(Shard, "__init__", remembered)
    monkeypatch.setattr("engine.garbage.limits.GARBAGE_YOUNG", 50)
    waiting: list[int] = []

    def look(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            waiting.append(shards[0].sequencer.unsettled)

    async def story() -> None:
        async with service(tmp_path) as port, started(port) as one:
            gc.callbacks.append(look)
            try:
                for first in range(1, 400, 20):
                    sends = [one.send([new(first + n)], timeout_s=20) for n in range(20)]
                    await asyncio.gather(*sends)
            finally:
                gc.callbacks.remove(look)

    run(story())
    assert waiting
    assert set(waiting) == {0}
