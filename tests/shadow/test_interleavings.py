"""Any interleaving of concurrent transactions is delivered whole, in order and once in effect, by
both readers, whoever is killed on the way.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random

import pytest
from change_sources import WAYS, Streaming, ready
from hypothesis import HealthCheck, example, given, settings
from interleavings import STEPS, WRITERS, Effect, Market, Step, effect_of, of_order
from legacy_side import application, insert_order, run, take, wait_for
from reader_process import kept

from shadow.legacy.source import Source


@pytest.fixture(params=WAYS, ids=lambda way: way.name)
def side(request: pytest.FixtureRequest, legacy_database: str) -> Streaming:
    return ready(request.param, legacy_database)


@contextmanager
def market(side: Streaming) -> Iterator[Market]:
    with ExitStack() as stack:
        yield Market([stack.enter_context(application(side.database)) for _ in range(WRITERS)])


def require_delivered(side: Streaming, effects: list[Effect], market: Market) -> None:
    """In commit order; by asking, in that of those that waited for each other."""
    if side.name == "stream":
        assert effects == market.committed
    assert sorted(map(repr, effects)) == sorted(map(repr, market.committed))
    for order_id in market.shared:
        assert of_order(effects, order_id) == of_order(market.committed, order_id)


class Consumer:
    """One that keeps its effects and its watermark in one place, as a transaction would."""

    def __init__(self, side: Streaming) -> None:
        self.side = side
        self.effects: list[Effect] = []
        self.watermark = 0
        self.source: Source = side.source()

    async def apply_one(self) -> Effect:
        (transaction,) = await take(self.source, 1)
        self.effects.append(effect_of(transaction))
        self.watermark = transaction.end_lsn
        return self.effects[-1]

    async def restart(self) -> None:
        await self.source.close()
        self.source = self.side.source()
        await self.source.open(self.watermark)


async def follow(side: Streaming, steps: list[Step], market: Market) -> list[Effect]:
    consumer = Consumer(side)
    await consumer.source.open()
    for step in steps:
        market.step(step)
        if step.action == "cut":
            side.cut()
        elif step.action == "restart":
            await consumer.restart()
        elif step.action == "confirm" and consumer.watermark:
            consumer.source.confirm(consumer.watermark)
        elif step.action == "take" and len(consumer.effects) < len(market.committed):
            await consumer.apply_one()
    market.end()
    await side.write_mark("end")
    while await consumer.apply_one() != [["mark", "end", 0]]:
        pass
    await consumer.source.close()
    return consumer.effects[:-1]


def steps(text: str) -> list[Step]:
    """ "insert 0; update 1 0": an action, a writer, and a shared order."""
    words = [one.strip().rsplit(" ", 2) for one in text.split(";")]
    return [Step(action, int(writer), int(row)) for action, writer, row in words]


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
@example(
    steps=steps(
        "insert 0 0; savepoint 0 0; update 0 0; roll back to 0 0; update 1 0; insert 1 0;"
        "commit 1 0; update 2 1; take 0 0; fill 0 0; cut 0 0; commit 2 0; update 0 1; commit 0 0;"
        "take 0 0; restart 0 0; update 1 1; confirm 0 0; commit 1 0; take 0 0; confirm 0 0"
    )
)
def test_any_interleaving_is_applied_whole_in_order_and_exactly_once(
    side: Streaming, steps: list[Step]
) -> None:
    run(side.drop_slot())
    run(side.create_slot())
    with market(side) as live:
        effects = run(follow(side, steps, live))
        require_delivered(side, effects, live)


def child(side: Streaming, file: Path) -> subprocess.Popen[bytes]:
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent), str(here.parent.parent)])
    return subprocess.Popen(
        [sys.executable, str(here / "reader_process.py"), side.name, side.database, str(file)],
        env={**os.environ, "PYTHONPATH": path},
    )


def test_a_reader_that_is_killed_again_and_again_applies_everything_once(
    side: Streaming, tmp_path: Path
) -> None:
    file, chance = tmp_path / "effects", Random(7)
    with market(side) as live:
        for _ in range(3):
            before = len(kept(file))
            reader = child(side, file)
            try:
                while len(kept(file)) < before + 5:
                    action = chance.choice(["insert", "update", "fill", "savepoint", "commit"])
                    live.step(Step(action, chance.randrange(WRITERS), chance.randrange(2)))
                    assert reader.poll() is None
            finally:
                reader.kill()
                reader.wait()
        live.end()
        run(side.write_mark("end"))
        reader = child(side, file)
        try:
            wait_for(lambda: [["mark", "end", 0]] in [effect for _, effect in kept(file)])
        finally:
            reader.kill()
            reader.wait()
        effects = [effect for _, effect in kept(file) if effect]
        require_delivered(side, effects[:-1], live)


def test_writers_at_full_speed_lose_nothing(side: Streaming) -> None:
    """Windows are cut at any moment while transactions begin and end."""

    async def write(seed: int) -> list[int]:
        chance, written = Random(seed), []

        def some() -> None:
            with application(side.database) as app:
                for _ in range(60):
                    with app.transaction():
                        written.extend(insert_order(app) for _ in range(chance.randint(1, 3)))

        await asyncio.to_thread(some)
        return written

    async def main() -> None:
        read: list[int] = []
        source = side.source()
        await source.open()
        writers = asyncio.gather(*(write(seed) for seed in range(4)))
        writers.add_done_callback(lambda _: asyncio.ensure_future(side.write_mark("end")))
        ended = False
        while not ended:
            (transaction,) = await take(source, 1)
            effect = effect_of(transaction)
            ended = effect == [["mark", "end", 0]]
            read += [of for what, of, _ in effect if what == "insert"]
        await source.close()
        assert sorted(read) == sorted(one for each in await writers for one in each)

    run(main())
