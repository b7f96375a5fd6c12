"""Captures on their way to Redis, over the disk while it is away: nothing is lost in silence, and
what a dead worker has left is brought by the next one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
from capture_rig import (
    WORKER,
    Given,
    Reader,
    Relay,
    a_redis,
    batch,
    files,
    files_up_to,
    home,
    shipping,
)
from proxy_rig import NOWHERE, run, until

from bridge.proxy.capture import ship, spool, stream
from bridge.proxy.capture.home import Home
from bridge.proxy.capture.ship import SPOOL_FAILED, SPOOL_FULL, Shipper
from bridge.proxy.capture.spool import Spool
from shadow.capture import CAPTURE_STREAM

MB = 1 << 20


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ship, "TEE_AGAIN_S", 0.01)
    monkeypatch.setattr("bridge.proxy.capture.adopt.ADOPT_S", 0.02)


def test_a_worker_that_stops_closes_its_sequence_and_leaves_nothing(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        async with shipping(Shipper([source], redis_url, home=mine, spool_bytes_max=MB)):
            source.give(3)
            source.give(2, lost=True)
        reader = Reader().read(redis_url)
        assert reader.lost == {WORKER: [4, 5]}
        reader.assert_closed(5)
        assert files(tmp_path) == []

    run(story())


def test_without_a_spool_it_closes_its_sequence_too(redis_url: str) -> None:
    async def story() -> None:
        source = Given()
        async with shipping(Shipper([source], redis_url)):
            source.give(3)
        Reader().read(redis_url).assert_closed(3)

    run(story())


def test_a_redis_that_comes_back_gets_everything_in_order(tmp_path: Path) -> None:
    async def story() -> None:
        with a_redis(tmp_path / "redis") as server:
            mine = home(tmp_path)
            source = Given(numbers=mine.number_file())
            shipper = Shipper([source], server.url, home=mine, spool_bytes_max=MB)
            async with shipping(shipper):
                source.give(2)
                await until(lambda: Reader().read(server.url).arrived)
                os.kill(server.pid or 0, signal.SIGKILL)
                for _ in range(20):
                    source.give(5)
                    await asyncio.sleep(0)
                await until(lambda: shipper.spooled_bytes)
                server.stop()
                server._wanted_port = server.port
                await asyncio.to_thread(server.start)
                source.give(5)
                await until(lambda: len(Reader().read(server.url).numbers()) == 107)
            reader = Reader().read(server.url)
            reader.assert_closed(107)
            assert (reader.lost, source.dropped) == ({}, {})

    run(story())


def test_while_nobody_answers_nothing_is_read_from_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[object] = []
    asked: list[object] = []
    oldest, answers = Spool.oldest, stream.CaptureStream.answers

    def counted(self: Spool) -> spool.Chunk | None:
        read.append(self)
        return oldest(self)

    async def asking(self: stream.CaptureStream) -> bool:
        asked.append(self)
        return await answers(self)

    monkeypatch.setattr(Spool, "oldest", counted)
    monkeypatch.setattr(stream.CaptureStream, "answers", asking)

    async def story() -> None:
        source = Given()
        shipper = Shipper([source], NOWHERE, home=home(tmp_path), spool_bytes_max=MB)
        async with shipping(shipper, within_s=0.1):
            source.give(3)
            await until(lambda: len(asked) >= 5)
            assert len(read) <= 1

    run(story())


def test_what_comes_while_the_spool_drains_stays_behind_it(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "SPOOL_RECORD_BYTES_MAX", 12_000)
    monkeypatch.setattr(ship, "SPOOL_DRAIN_BYTES_PER_S", 100_000)

    async def story() -> None:
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        async with Relay(port) as wire:
            wire.refuses = True
            shipper = Shipper([source], wire.url, home=mine, spool_bytes_max=MB)
            async with shipping(shipper, within_s=20.0):
                for _ in range(5):
                    source.give(1, body=b"x" * 10_000)
                await until(lambda: shipper.spooled_bytes > 50_000)
                wire.refuses = False
                await until(lambda: Reader().read(redis_url).arrived)
                assert shipper.spooled_bytes  # it takes its time
                source.give(1)
        reader = Reader().read(redis_url)
        reader.assert_closed(6)
        assert reader.lost == {}

    run(story())


def test_a_full_redis_is_one_that_is_away(tmp_path: Path) -> None:
    async def story() -> None:
        with a_redis(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as admin:
            mine = home(tmp_path)
            source = Given(numbers=mine.number_file())
            shipper = Shipper([source], server.url, home=mine, spool_bytes_max=MB)
            async with shipping(shipper):
                admin.config_set("maxmemory", "1")
                source.give(3)
                source.give(3)
                await until(lambda: shipper.spooled_bytes)
                assert admin.xlen(CAPTURE_STREAM) == 0
                admin.config_set("maxmemory", "0")
            Reader().read(server.url).assert_closed(6)
            assert not source.dropped

    run(story())


def test_a_redis_that_became_a_replica_is_one_that_is_away(tmp_path: Path) -> None:
    async def story() -> None:
        with a_redis(tmp_path / "redis") as server, redis.Redis.from_url(server.url) as admin:
            mine = home(tmp_path)
            source = Given(numbers=mine.number_file())
            shipper = Shipper([source], server.url, home=mine, spool_bytes_max=MB)
            async with shipping(shipper):
                admin.replicaof("127.0.0.1", "1")
                source.give(3)
                await until(lambda: shipper.spooled_bytes)
                admin.replicaof("NO", "ONE")
            Reader().read(server.url).assert_closed(3)

    run(story())


def test_a_batch_whose_answer_is_lost_comes_twice_and_counts_once(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "REDIS_ANSWER_S", 0.05)

    async def story() -> None:
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        async with Relay(port) as wire:
            shipper = Shipper([source], wire.url, home=mine, spool_bytes_max=MB)
            async with shipping(shipper):
                source.give(1)
                await until(lambda: Reader().read(redis_url).arrived)
                wire.answers.clear()  # what we say arrives
                source.give(3)
                source.give(4)
                await until(lambda: shipper.spooled_bytes)
                wire.answers.set()
        with redis.Redis.from_url(redis_url) as connection:
            told = [int(fields[b"first"]) for _, fields in connection.xrange(CAPTURE_STREAM)]
        assert len(told) > len(set(told))
        reader = Reader().read(redis_url)
        reader.assert_closed(8)
        assert reader.lost == {}

    run(story())


def test_a_spool_that_is_full_drops_and_counts(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        async with Relay(port) as wire:
            wire.refuses = True
            shipper = Shipper([source], wire.url, home=mine, spool_bytes_max=20_000)
            async with shipping(shipper):
                for _ in range(10):
                    source.give(1, body=b"x" * 5_000)
                await until(lambda: source.dropped[SPOOL_FULL] == 7)
                assert 0 < shipper.spooled_bytes <= 20_000
                wire.refuses = False
        reader = Reader().read(redis_url)
        assert reader.lost == {WORKER: list(range(4, 11))}
        reader.assert_closed(10)

    run(story())


def test_a_disk_that_fails_is_counted(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        async with Relay(port) as wire:
            wire.refuses = True
            async with shipping(Shipper([source], wire.url, home=mine, spool_bytes_max=MB)):
                with files_up_to(0):
                    source.give(5)
                    await until(lambda: source.dropped[SPOOL_FAILED] == 5)
                source.give(2)
                wire.refuses = False
        reader = Reader().read(redis_url)
        assert reader.lost == {WORKER: [1, 2, 3, 4, 5]}
        reader.assert_closed(7)

    run(story())


def test_a_segment_that_can_t_be_read_is_given_up_and_the_next_ones_flow(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """T24."""
    monkeypatch.setattr(spool, "SPOOL_SEGMENT_BYTES", 1)

    async def story() -> None:
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        async with Relay(port) as wire:
            wire.refuses = True
            async with shipping(Shipper([source], wire.url, home=mine, spool_bytes_max=MB)):
                for _ in range(3):
                    source.give(1)
                await until(lambda: len(mine.segments(spool.SUFFIX)) == 3)
                mine.segments(spool.SUFFIX)[1].unlink()
                wire.refuses = False
                await until(lambda: len(Reader().read(redis_url).numbers()) == 2)
        reader = Reader().read(redis_url)
        assert reader.lost == {WORKER: [2]}
        reader.assert_closed(3)

    run(story())


def test_a_stop_without_redis_leaves_all_to_the_next_process(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        source = Given(numbers=mine.number_file())
        async with shipping(Shipper([source], NOWHERE, home=mine, spool_bytes_max=MB)):
            for _ in range(5):
                source.give(3)
        assert not source.dropped
        next_one = Shipper([], redis_url, home=home(tmp_path, "next"), spool_bytes_max=MB)
        async with shipping(next_one):
            await until(lambda: files(tmp_path) == ["next.lock"])
        reader = Reader().read(redis_url)
        reader.assert_closed(15)
        assert reader.lost == {}

    run(story())


CHILD = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from capture_rig import Given, home
from bridge.proxy.capture.ship import Shipper

async def main():
    mine = home(Path(sys.argv[2]), sys.argv[4])
    source = Given(sys.argv[4], mine.number_file())
    shipper = Shipper([source], sys.argv[3], home=mine, spool_bytes_max=1 << 20)
    running = asyncio.create_task(shipper.run())
    for _ in range(4):
        source.give(5)
        while source._batches:
            await asyncio.sleep(0.001)
    while not shipper.spooled_bytes:
        await asyncio.sleep(0.001)
    source.give(2, lost=True)
    print("ready", flush=True)
    await running

asyncio.run(main())
"""


@contextmanager
def a_worker(directory: Path, url: str, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has used up 22 numbers, the last 2 of them for nothing."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", CHILD, here, str(directory), url, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline() == b"ready\n"
            yield child
        finally:
            child.kill()


def test_what_a_killed_worker_has_left_is_brought_by_the_next_one(
    tmp_path: Path, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        with a_worker(tmp_path, NOWHERE, "dies") as dies, a_worker(tmp_path, NOWHERE, "lives"):
            dies.kill()
            dies.wait()
            mine = home(tmp_path, "next")
            async with shipping(Shipper([], redis_url, home=mine, spool_bytes_max=MB)):
                await until(lambda: not [one for one in files(tmp_path) if "dies" in one])
            reader = Reader().read(redis_url)
            assert reader.lost == {"dies": [21, 22]}
            reader.assert_closed(22, "dies")
            assert "lives" not in reader.arrived

    with caplog.at_level(logging.WARNING):
        run(story())
    assert "worker dies ended" in caplog.text


def test_taking_over_goes_on_where_it_was_interrupted(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis goes in the middle of it, and then the process that was at it."""

    async def story() -> None:
        mine = Home.open(tmp_path / "captures", "dead")
        mine.number_file("dead").set(40)
        left = Spool(mine, 100 * MB)
        for n in range(1, 31):
            assert left.append(batch(n, n, "dead", body=b"x" * 300_000))
        mine.release()
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        async with Relay(port) as wire:
            first = Shipper([], wire.url, home=home(tmp_path, "first"), spool_bytes_max=MB)
            async with shipping(first, within_s=0.0):
                await until(lambda: Reader().read(redis_url).arrived)
                wire.passes.clear()
        assert [one for one in files(tmp_path) if "dead" in one]
        second = Shipper([], redis_url, home=home(tmp_path, "second"), spool_bytes_max=MB)
        async with shipping(second):
            await until(lambda: files(tmp_path) == ["second.lock"])
        reader = Reader().read(redis_url)
        assert reader.lost == {"dead": list(range(31, 41))}
        reader.assert_closed(40, "dead")

    monkeypatch.setattr(ship, "SPOOL_DRAIN_BYTES_PER_S", 10 * MB)
    run(story())


# --- the stream ----------------------------------------------------------------------------------


def test_the_stream_is_bounded_in_bytes_and_what_it_loses_shows(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reader that is dead meanwhile finds the rest as gaps."""
    monkeypatch.setattr(stream, "TEE_STREAM_BYTES_MAX", 200_000)

    async def story() -> None:
        source = Given()
        async with shipping(Shipper([source], redis_url)):
            for _ in range(100):
                source.give(1, body=b"x" * 10_000)
            await until(lambda: not source._batches)
            reader = Reader().read(redis_url, count=1)
        assert len(reader.numbers()) == 1
        with redis.Redis.from_url(redis_url) as connection:
            assert connection.memory_usage(CAPTURE_STREAM, samples=0) < 400_000
        reader.read(redis_url)
        assert len(reader.lost[WORKER]) > 70
        reader.assert_closed(100)

    run(story())


def test_a_wire_that_is_cut_in_the_middle_of_several_batches_brings_none(redis_url: str) -> None:
    async def story() -> None:
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        with redis.Redis.from_url(redis_url) as connection:
            before = connection.info("clients")["connected_clients"]
        async with Relay(port) as wire:
            writer = stream.CaptureStream(wire.url)
            assert await writer.add([batch(1, 1)])
            wire.bytes_left = 40_000
            assert not await writer.add([batch(n, n, body=b"x" * 10_000) for n in range(2, 9)])
            with redis.Redis.from_url(redis_url) as connection:
                await until(lambda: connection.info("clients")["connected_clients"] <= before)
            assert Reader().read(redis_url).numbers() == [1]
            await writer.close()

    run(story())


def test_many_small_entries_are_bounded_in_number(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "TEE_STREAM_ENTRIES_MAX", 100)

    async def story() -> None:
        source = Given()
        async with shipping(Shipper([source], redis_url)):
            for _ in range(500):
                source.give(1)
            await until(lambda: not source._batches)
        with redis.Redis.from_url(redis_url) as connection:
            assert connection.xlen(CAPTURE_STREAM) < 300

    run(story())
