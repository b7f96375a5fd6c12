"""The service as a process that dies: killed, on a disk that fails, twice on one directory."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from crash_harness import Trader, check_answers, journalled
from engine_harness import (
    EngineProcess,
    client,
    engine_process,
    open_market,
    orders,
    run,
    started,
    until,
)
from market_driver import BTC, market_or_skip, new

from engine.client import Answer
from engine.market import create_market, state_hash
from engine.replay import Frame, JournalReader

SESSIONS = 3
FAILING_SYNC = """
import os
real = os.fdatasync
def failing(fd, n=[0]):
    n[0] += 1
    if n[0] > 40:
        raise OSError(5, "Input/output error")
    real(fd)
os.fdatasync = failing
"""
SMALL_DISK = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (4_300_000, 4_300_000))
"""


@pytest.fixture
def service_implementation(implementation: str) -> str:
    market_or_skip(implementation)
    return implementation


def test_nothing_answered_is_lost_and_nothing_is_there_twice_after_kill_9_under_load(
    tmp_path: Path, service_implementation: str
) -> None:
    traders = [Trader(f"proxy-{n}", 1 + n * 10**6) for n in range(SESSIONS)]

    async def round_(engine: EngineProcess) -> None:
        answered = sum(len(one.answers) for one in traders)
        trading = [asyncio.ensure_future(one.trade(engine.port)) for one in traders]
        await until(lambda: sum(len(one.answers) for one in traders) > answered + 300, "they trade")
        engine.process.kill()
        await asyncio.gather(*trading)

    for n in range(4):
        with engine_process(tmp_path, implementation=service_implementation) as engine:
            assert engine.port, engine.end()
            if not n:
                run(open_market(engine.port))
            run(round_(engine))
    assert all(len(trader.answers) > 300 for trader in traders)
    check_answers(tmp_path, service_implementation, traders)


def test_a_client_goes_through_kill_9_with_each_order_executed_once(
    tmp_path: Path, service_implementation: str
) -> None:
    """The client sends again by itself what was unanswered when the engine died."""

    async def story() -> None:
        port = 0
        sends: list[asyncio.Task[list[Answer]]] = []
        one = None
        for n in range(4):
            with engine_process(
                tmp_path, port=port, implementation=service_implementation
            ) as engine:
                port = engine.port
                assert port, engine.end()
                if one is None:
                    await open_market(port)
                    one = client(port)
                    await one.start()
                    sends = [
                        asyncio.ensure_future(one.send([new(i)], timeout_s=60))
                        for i in range(1, 4_001)
                    ]
                if n < 3:
                    await until(lambda n=n, sends=sends: _done(sends) >= 400 * n, "some answers")
                    engine.process.kill()
                    continue
                answers = [answer for (answer,) in await asyncio.gather(*sends)]
                assert [answer.events[0].ref for answer in answers] == list(range(1, 4_001))
                seqs = [answer.seq for answer in answers]
                assert seqs == sorted(set(seqs))
                book = await one.book(BTC)
                assert [order.order_id for order in book.orders] == list(range(1, 4_001))
                await one.close()

    run(story())


def _done(sends: list[asyncio.Task[list[Answer]]]) -> int:
    return sum(each.done() for each in sends)


def test_a_reference_gets_its_original_outcome_from_the_next_process(tmp_path: Path) -> None:
    async def send(port: int) -> list[Answer]:
        async with started(port) as one:
            return await one.send(orders(1, 6, first_ref=10), timeout_s=10)

    with engine_process(tmp_path) as engine:
        run(open_market(engine.port))
        answers = run(send(engine.port))
        engine.kill()
    with engine_process(tmp_path) as engine:
        assert run(send(engine.port)) == answers


def test_a_journal_is_recovered_by_either_implementation(tmp_path: Path) -> None:
    market_or_skip("rust")

    async def trade(port: int, first_id: int) -> None:
        async with started(port) as one:
            await one.send(orders(first_id, 31), timeout_s=10)

    for n, implementation in enumerate(("python", "rust", "python")):
        with engine_process(tmp_path, implementation=implementation) as engine:
            if not n:
                run(open_market(engine.port))
            run(trade(engine.port, 1 + 100 * n))
            assert engine.terminate()[0] == 0
    hashes = set()
    for implementation in ("python", "rust"):
        reader, market = JournalReader(tmp_path, shard=1), create_market(implementation)
        while isinstance(frame := reader.read(), Frame):
            market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
        reader.close()
        hashes.add(state_hash(market))
    assert len(hashes) == 1


@pytest.mark.parametrize(
    ("before", "told"),
    [(FAILING_SYNC, "Input/output error"), (SMALL_DISK, "File too large")],
    ids=["sync fails", "disk full"],
)
def test_a_disk_that_fails_stops_the_process_and_nothing_undurable_was_answered(
    tmp_path: Path, before: str, told: str
) -> None:
    trader = Trader("proxy-0", 1, size=1_000, instrument=9)  # an unknown one: rejected, cheaply
    with engine_process(tmp_path, before=before, implementation="python") as engine:
        run(open_market(engine.port))
        run(trader.trade(engine.port))
        code, said = engine.end()
    assert code == 1
    assert said.startswith("JournalFailed: writing ")
    assert told in said
    assert "Traceback" not in said
    assert trader.answers
    with engine_process(tmp_path) as engine:
        assert engine.port, engine.end()
    once = {ref: seq for session, ref, seq, _ in journalled(tmp_path, "python") if session == 2}
    for answer in trader.answers:
        assert once[answer.events[0].ref] == answer.seq


def test_a_second_engine_on_the_directory_does_not_start(tmp_path: Path) -> None:
    with engine_process(tmp_path) as first, engine_process(tmp_path) as second:
        assert second.port == 0
        code, said = second.end()
        assert code == 1
        assert f"in use by another engine (process {first.process.pid})" in said


def test_a_damaged_journal_is_not_started_on_and_the_next_step_is_named(tmp_path: Path) -> None:
    with engine_process(tmp_path) as engine:
        run(open_market(engine.port))
        assert engine.terminate()[0] == 0
    (path,) = tmp_path.glob("*.journal")
    with path.open("rb+") as file:
        file.seek(4_096 + 64 + 20)  # in the first command
        file.write(b"\xff")
    with engine_process(tmp_path) as engine:
        assert engine.port == 0
        code, said = engine.end()
    assert code == 1
    assert said.startswith(f"JournalDamaged: {path}: the frame at offset 4096 (sequence 1)")
    assert f"railswitch journal repair {tmp_path}" in said
    assert "Traceback" not in said


def test_an_engine_that_is_told_to_stop_answers_what_it_has_and_ends_well(tmp_path: Path) -> None:
    async def story(engine: EngineProcess) -> None:
        await open_market(engine.port)
        async with started(engine.port) as one:
            await one.send(orders(1, 3), timeout_s=10)
            engine.process.terminate()
            await until(lambda: not one.is_connected, "the end is noticed")

    with engine_process(tmp_path) as engine:
        run(story(engine))
        assert engine.end() == (0, "")
