"""Who has drained, and who is silent; heard over the channel and read from the keys."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio as redis
from switch_world import FakeWorker, until

from bridge.stage import WORKERS_KEY_PREFIX, WorkerReport, encode
from bridge.tasks import ended
from bridge.workers import Heard, Workers, silent_workers, undrained


def report(worker: str = "w1", *, drained: dict[str, int] | None = None) -> WorkerReport:
    return WorkerReport(
        worker=worker,
        pid=9,
        version=1,
        drained=drained or {},
        held=0,
        captured=0,
        dropped={},
        requests=0,
        at_s=time.time(),
    )


def heard(worker: str, age_s: float = 0.1, **drained: int) -> Heard:
    return Heard(report=report(worker, drained=drained), age_s=age_s)


def test_all_must_have_drained_for_this_very_flip() -> None:
    assert undrained([heard("a", X=7), heard("b", X=7)], "X", 7, silence_s=3) == ""
    assert "1 of 2 workers have not drained: b" in undrained(
        [heard("a", X=7), heard("b", X=6)], "X", 7, silence_s=3
    )


def test_nobody_is_not_everybody() -> None:
    assert "railswitch proxy" in undrained([], "X", 7, silence_s=3)


def test_a_silent_worker_is_named_with_its_process() -> None:
    both = [heard("a"), heard("b", age_s=4.0)]
    assert silent_workers(both, silence_s=3) == ["b (process 9, 4.0 s)"]
    assert "silent: b" in undrained(both, "X", 7, silence_s=3)


def test_workers_come_and_go(redis_url: str) -> None:
    async def work() -> None:
        workers = Workers(redis_url)
        following = asyncio.create_task(workers.run())
        worker = FakeWorker(redis_url, "w1")
        running = asyncio.create_task(worker.run())

        async def here() -> bool:
            return [one.report.worker for one in workers.heard()] == ["w1"]

        async def gone() -> bool:
            return not workers.heard()

        try:
            await until(here, "the worker heard")
            assert workers.trouble == ""
            await ended(running)
            await until(gone, "the worker forgotten")
        finally:
            await ended(running, following)
            await workers.close()

    asyncio.run(work())


def test_a_report_that_only_the_key_has_is_enough(redis_url: str) -> None:
    async def work() -> None:
        workers = Workers(redis_url)
        try:
            async with redis.Redis.from_url(redis_url) as client:
                drained = encode(report(drained={"BTC-USD": 7}))
                await client.set(WORKERS_KEY_PREFIX + "w1", drained)
            assert await workers.drained("BTC-USD", 7, silence_s=3, wait_s=10) == ""
        finally:
            await workers.close()

    asyncio.run(work())


def test_an_old_report_counts_with_its_age(redis_url: str) -> None:
    async def work() -> None:
        workers = Workers(redis_url)
        try:
            async with redis.Redis.from_url(redis_url) as client:
                old = report()
                encoded = encode(old).replace(str(old.at_s).encode(), str(old.at_s - 100).encode())
                await client.set(WORKERS_KEY_PREFIX + "w1", encoded)
            await workers.read_keys()
            assert workers.heard()[0].age_s >= 100
        finally:
            await workers.close()

    asyncio.run(work())


def test_without_redis_it_says_so() -> None:
    async def work() -> None:
        workers = Workers("redis://127.0.0.1:1/0")
        await workers.look()
        assert "Redis does not answer" in workers.trouble
        await workers.close()

    asyncio.run(work())
