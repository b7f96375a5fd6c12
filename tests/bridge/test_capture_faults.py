"""Whatever happens to Redis and to the reading side, in both modes: clients get their answers, what
is kept is bounded, and afterwards every number has arrived or is known to be lost.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import redis
from capture_rig import WORKER, Reader, Relay, a_redis, files, home, shipping
from plane_rig import bounds
from proxy_rig import Client, Front, between, request, response, run, until

from bridge.proxy.capture import ship
from bridge.proxy.capture import tee as tee_module
from bridge.proxy.capture.ahead_log import AheadLog
from bridge.sandbox.servers import EmbeddedRedis
from shadow.capture import CAPTURE_STREAM
from shadow.captures import RedisCaptures
from shadow.errors import CapturesUnavailable

QUEUE_MAX, SPOOL_MAX, STREAM_MAX = 100, 100_000, 60_000
CLIENTS, ORDERS = 4, 100
BODY = b'{"order":{"market":"BTC-USD","side":"buy","price":"236.47","note":"%b"}}' % (b"x" * 400)
ORDER = request("POST", "/api/v1/orders", BODY, [("Content-Type", "application/json")])
ANSWER = response(b'{"order":{"id":11,"market":"BTC-USD"}}', "201 Created")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds(
        monkeypatch,
        TEE_CAPTURES_MAX=QUEUE_MAX,
        TEE_BATCH_CAPTURES_MAX=8,
        TEE_STREAM_BYTES_MAX=STREAM_MAX,
        REDIS_ANSWER_S=0.1,
        TEE_AGAIN_S=0.01,
    )


@asynccontextmanager
async def capturing(
    directory: Path, url: str, mode: str
) -> AsyncIterator[tuple[Front, AheadLog | None]]:
    """A front whose captures go over a spool to Redis."""
    mine = home(directory)
    log = AheadLog(mine) if mode == "ahead" else None
    options = {"redis_url": url, "home": mine, "spool_bytes_max": SPOOL_MAX, "ahead": log}
    async with between(ANSWER, **options) as (front, _):
        yield front, log


async def trade(front: Front, orders: int) -> None:
    """Each of some clients, so many orders."""
    clients = [await front.client() for _ in range(CLIENTS)]

    async def one(client: Client) -> None:
        for _ in range(orders):
            assert await client.ask(ORDER) == ANSWER
            assert front.waiting <= QUEUE_MAX
            assert front.shipper.spooled_bytes <= SPOOL_MAX

    await asyncio.gather(*map(one, clients))


class Consumer:
    """The reading side, and what may be wrong with it."""

    def __init__(self, url: str, fault: str) -> None:
        self.reader = Reader()
        self.is_over = False  # nothing more comes
        self._captures = RedisCaptures(url)
        self._fault = fault
        self._healed = asyncio.Event()

    def heal(self) -> None:
        self._fault = ""
        self._healed.set()

    async def run(self) -> None:
        after = "0-0"
        while True:
            was_over = self.is_over
            if self._fault == "dead" or (self._fault == "hung" and self.reader.arrived):
                await self._healed.wait()
            try:
                count = 1 if self._fault == "slow" else 64
                entries = await self._captures.read(after, count, 10)
            except CapturesUnavailable:
                await asyncio.sleep(0.01)
                continue
            for entry in entries:
                self.reader.take(entry.fields)
                after = entry.id
            if self._fault == "slow":
                await asyncio.sleep(0.02)
            if was_over and not entries:
                await self._captures.close()
                return


async def break_redis(fault: str, server: EmbeddedRedis, wire: Relay) -> None:
    if fault == "slow":
        wire.delay_s = 0.03
    elif fault == "hung":
        wire.passes.clear()
    elif fault == "full":
        with redis.Redis.from_url(server.url) as admin:
            admin.config_set("maxmemory", "1")
    else:
        os.kill(server.pid or 0, signal.SIGKILL)


async def mend_redis(fault: str, server: EmbeddedRedis, wire: Relay) -> None:
    wire.delay_s = 0.0
    wire.passes.set()
    if fault == "full":
        with redis.Redis.from_url(server.url) as admin:
            admin.config_set("maxmemory", "0")
    elif fault == "dead":
        server.stop()
        server._wanted_port = server.port  # where its clients look for it
        await asyncio.to_thread(server.start)


@pytest.mark.parametrize("mode", ["async", "ahead"])
@pytest.mark.parametrize("consumer_fault", ["slow", "hung", "dead"])
@pytest.mark.parametrize("redis_fault", ["slow", "hung", "full", "dead"])
def test_no_fault_is_noticed_and_none_loses_anything_in_silence(
    tmp_path: Path, redis_fault: str, consumer_fault: str, mode: str
) -> None:
    """T1, T2, T3, T5, T11, T25."""
    used = CLIENTS * (2 + ORDERS + 2)

    async def story(server: EmbeddedRedis) -> None:
        async with (
            Relay(server.port) as wire,
            capturing(tmp_path, wire.url, mode) as (front, _),
        ):
            consumer = Consumer(server.url, consumer_fault)
            consuming = asyncio.create_task(consumer.run())
            async with shipping(front.shipper, within_s=20.0):
                await trade(front, 2)
                await until(lambda: Reader().read(server.url).arrived)
                await break_redis(redis_fault, server, wire)
                await trade(front, ORDERS)
                await mend_redis(redis_fault, server, wire)
                await trade(front, 2)
                await until(lambda: front.tee.captured == used)
                await front.server.stop(0.0)  # before the shipper, as a worker does
            with redis.Redis.from_url(server.url) as admin:
                assert admin.memory_usage(CAPTURE_STREAM, samples=0) < 3 * STREAM_MAX
            consumer.heal()
            consumer.is_over = True
            await consuming
            consumer.reader.assert_closed(used)
            assert set(front.tee.dropped) <= {tee_module.QUEUE_FULL, ship.SPOOL_FULL}
            assert files(tmp_path) == []

    with a_redis(tmp_path / "redis") as server:
        run(story(server))


@pytest.mark.parametrize("mode", ["async", "ahead"])
def test_a_disk_that_is_no_good_is_not_noticed_either(
    tmp_path: Path, redis_url: str, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int, data: bytes) -> None:
        raise OSError(28, "no space left on device")

    async def story() -> None:
        port = int(redis_url.rpartition(":")[2].partition("/")[0])
        async with Relay(port) as wire, capturing(tmp_path, wire.url, mode) as (front, log):
            async with shipping(front.shipper, within_s=20.0):
                monkeypatch.setattr("bridge.proxy.capture.record.write", broken)
                wire.refuses = True
                await trade(front, 5)
                await until(lambda: front.tee.dropped[ship.SPOOL_FAILED])
                wire.refuses = False
                await trade(front, 5)
                await until(lambda: front.tee.captured == 10 * CLIENTS)
                await front.server.stop(0.0)
            reader = Reader().read(redis_url)
            reader.assert_closed(10 * CLIENTS)
            lost = len(reader.lost.get(WORKER, []))
            assert 0 < lost == front.tee.dropped[ship.SPOOL_FAILED]
            if log is not None:
                assert log.failed == 10 * CLIENTS

    run(story())
