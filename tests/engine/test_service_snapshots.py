"""Snapshots of a running engine: made aside, used by the next process, never in the way."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from crash_harness import Trader, answered, check_answers
from engine_harness import (
    EngineProcess,
    engine_process,
    open_market,
    orders,
    run,
    service,
    started,
    until,
)
from journal_story import opened
from market_driver import BTC, market_or_skip

from engine import limits, snapshotting
from engine.client import Answer
from engine.segment import segment_paths
from engine.snapshot_file import snapshot_paths
from engine.snapshotting import Growth

SMALL = """
import logging
import engine.limits as limits
logging.basicConfig(level=logging.INFO)
limits.SEGMENT_BYTES_MIN = limits.SEGMENT_BYTES_MAX = 80_000
limits.SNAPSHOT_EVERY_BYTES = 100_000
limits.SNAPSHOT_LOOK_S = 0.02
limits.SNAPSHOT_NICE = 0
"""


@pytest.fixture(autouse=True)
def _available(implementation: str) -> None:
    market_or_skip(implementation)


def restored(said: str) -> bool:
    return ".snapshot; replaying what follows" in said


async def trade(engine: EngineProcess, traders: list[Trader], directory: Path, n: int) -> None:
    """Until there is another snapshot, or one is being made; then it is killed."""
    before = snapshot_paths(directory)
    trading = [asyncio.ensure_future(one.trade(engine.port)) for one in traders]
    count = answered(traders)
    await until(lambda: answered(traders) > count + 300, "they trade")

    def is_time() -> bool:
        if n % 2:
            return bool(list(directory.glob("*.snapshot-part")))
        return snapshot_paths(directory) != before

    await until(is_time, "a snapshot is made")
    engine.process.kill()
    await asyncio.gather(*trading)


def test_nothing_answered_is_lost_or_doubled_by_kill_9_across_snapshots(
    tmp_path: Path, implementation: str
) -> None:
    traders = [Trader(f"proxy-{n}", 1 + n * 10**6, size=60) for n in range(3)]
    used = 0
    for n in range(4):
        with engine_process(tmp_path, before=SMALL, implementation=implementation) as engine:
            assert engine.port, engine.end()
            if not n:
                run(open_market(engine.port))
            run(trade(engine, traders, tmp_path, n))
            used += restored(engine.end()[1])
    assert used >= 2
    check_answers(tmp_path, implementation, traders)
    found = opened(tmp_path, implementation)
    found.journal.close()
    assert found.snapshots
    for path in snapshot_paths(tmp_path):
        path.unlink()
    whole = opened(tmp_path, implementation)
    whole.journal.close()
    assert not whole.snapshots
    assert found.hash == whole.hash


def test_a_reference_gets_its_original_outcome_across_a_snapshot(
    tmp_path: Path, implementation: str
) -> None:
    """Of a session that has been silent since long before it."""
    traders = [Trader("proxy-1", 10**6, size=60)]

    async def send(port: int) -> list[Answer]:
        async with started(port, "silent") as one:
            return await one.send(orders(1, 40, first_ref=10), timeout_s=10)

    with engine_process(tmp_path, before=SMALL, implementation=implementation) as engine:
        run(open_market(engine.port))
        answers = run(send(engine.port))
        run(trade(engine, traders, tmp_path, 0))
    with engine_process(tmp_path, before=SMALL, implementation=implementation) as engine:
        assert run(send(engine.port)) == answers
        code, said = engine.terminate()
        assert code == 0
        assert restored(said)


def test_a_tail_from_long_ago_begins_at_a_snapshot_before_it(
    tmp_path: Path, implementation: str
) -> None:
    """And one from the beginning at the beginning: the same events."""
    traders = [Trader("proxy-1", 10**6, size=60)]

    async def tails(port: int, from_seq: int) -> dict[int, bytes]:
        async with started(port, "follower") as one:
            found: dict[int, bytes] = {}
            head = one.head_seq
            async for batch in one.tail(from_seq):
                found[batch.last_seq] = batch.events
                if batch.last_seq >= head:
                    return found
        return found

    with engine_process(tmp_path, before=SMALL, implementation=implementation) as engine:
        run(open_market(engine.port))
        run(trade(engine, traders, tmp_path, 0))
    middle = int(snapshot_paths(tmp_path)[0].stem) + 5
    with engine_process(tmp_path, before=SMALL, implementation=implementation) as engine:
        whole = run(tails(engine.port, 1))
        first = next(n for n, one in enumerate(sorted(whole)) if one >= middle)
        part = run(tails(engine.port, middle))
        assert sorted(part)[1:40] == sorted(whole)[first + 1 : first + 40]
        assert all(part[last] == whole[last] for last in sorted(part)[1:40])
        for path in segment_paths(tmp_path):
            if path.stem < snapshot_paths(tmp_path)[0].stem:
                path.rename(path.with_suffix(".aside"))
        again = run(tails(engine.port, middle))
        assert [again[last] for last in sorted(part)[1:40]] == [
            part[last] for last in sorted(part)[1:40]
        ]


def test_a_snapshot_that_cannot_be_made_is_told_and_the_engine_goes_on(
    tmp_path: Path, implementation: str
) -> None:
    # What every Python process of this one runs first.
    site = tmp_path / "site"
    site.mkdir()
    tried = tmp_path / "tried"
    (site / "sitecustomize.py").write_text(
        "import os, sys\n"
        "def full(fd):\n"
        f"    open({str(tried)!r}, 'a').write('.')\n"
        "    raise OSError(28, 'No space left on device')\n"
        "if 'engine.snapshotter' in sys.orig_argv: os.fsync = full\n"
    )
    before = f"{SMALL}\nimport os\nos.environ['PYTHONPATH'] = {str(site)!r}\n"
    directory = tmp_path / "journal"
    trader = Trader("proxy-1", 10**6, size=60)

    async def story(engine: EngineProcess) -> None:
        await open_market(engine.port)
        trading = asyncio.ensure_future(trader.trade(engine.port))
        await until(lambda: tried.exists() and tried.stat().st_size > 1, "it is tried again")
        engine.process.terminate()
        await trading

    with engine_process(directory, before=before, implementation=implementation) as engine:
        run(story(engine))
        code, said = engine.end()
    assert code == 0
    assert "no snapshot could be made, the engine goes on" in said
    assert "No space left on device" in said
    assert snapshot_paths(directory) == []
    assert list(directory.glob("*snapshot*")) == []
    check_answers(directory, implementation, [trader])


def test_a_process_that_hangs_does_not_keep_the_engine_from_ending(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[int] = []

    class Hanging(snapshotting.subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: object, **rest: object) -> None:
            super().__init__(*args, **rest)  # type: ignore[call-overload]
            os.kill(self.pid, signal.SIGSTOP)
            stopped.append(self.pid)

    monkeypatch.setattr(snapshotting.subprocess, "Popen", Hanging)
    monkeypatch.setattr(limits, "SNAPSHOT_EVERY_BYTES", 0)
    monkeypatch.setattr(limits, "SNAPSHOT_LOOK_S", 0.01)

    async def story() -> None:
        async with service(tmp_path, implementation=implementation) as port:
            await open_market(port)
            await until(lambda: stopped, "a snapshot is begun")
            async with started(port) as one:
                assert await one.send(orders(1, 3, instrument=BTC), timeout_s=10)

    run(story())
    for pid in stopped:
        assert not Path(f"/proc/{pid}").exists()


def test_a_snapshot_waits_while_orders_need_the_processor_and_not_for_ever() -> None:
    growth, every, busy = Growth(), limits.SNAPSHOT_EVERY_BYTES, limits.SNAPSHOT_BUSY_BYTES
    assert not growth.is_due(every - 1)
    assert growth.is_due(every)
    grown = every + 2 * busy
    assert not growth.is_due(grown)  # it has just grown by so much
    quiet = [growth.is_due(grown) for _ in range(limits.SNAPSHOT_BUSY_LOOKS)]
    assert quiet[-1]
    assert not quiet[0]
    while grown + 2 * busy < limits.SNAPSHOT_LATEST_BYTES:
        grown += 2 * busy
        assert not growth.is_due(grown)
    assert growth.is_due(limits.SNAPSHOT_LATEST_BYTES)
