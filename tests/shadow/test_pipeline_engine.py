"""The comparison with the real engine service, its real client and the real Redis between."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import msgspec
import pytest
import redis
from harness import BTC, ETH, SCALES, World, play

from bridge.bench.synthetic import open_for_shadow, random_flow
from engine.client import EngineClient
from engine.service import EngineKey, EngineSettings, serve
from engine.types import Role
from shadow.capture import CAPTURE_STREAM, encode_batch
from shadow.captures import RedisCaptures
from shadow.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("impatient")


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Service:
    """The engine service in this process, on one port and one journal whatever is restarted."""

    def __init__(self, directory: Path) -> None:
        self.settings = EngineSettings(
            host="127.0.0.1",
            port=_free_port(),
            directory=directory,
            implementation="python",
            shard=1,
            keys=tuple(EngineKey(role=role, key=f"key-{role}") for role in Role),
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop, ready = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(serve(self.settings, ready=lambda _: ready.set(), stop=stop))
        try:
            async with asyncio.timeout(20):
                await ready.wait()
            yield
        finally:
            stop.set()
            await task

    async def client(self, name: str, role: Role) -> EngineClient:
        client = EngineClient(
            host="127.0.0.1", port=self.settings.port, name=name, key=f"key-{role}"
        )
        await client.start()
        return client


@asynccontextmanager
async def comparing(world: World, service: Service, redis_url: str) -> AsyncIterator[None]:
    feed = await service.client("shadow-feed", Role.SHADOW)
    load = await service.client("shadow-load", Role.SHADOW)
    captures = RedisCaptures(redis_url)
    pipeline: Pipeline = world.pipeline(feed=feed, load=load, captures=captures)
    stop = asyncio.Event()
    task = asyncio.create_task(pipeline.run(stop))
    try:
        yield
        assert not task.done()
    finally:
        stop.set()
        await task
        await pipeline._store.close()
        await feed.close()
        await load.close()
        await captures.close()


def test_engine_and_shadow_restart_in_turn_and_every_operation_counts_once(
    control_database: str, redis_url: str, tmp_path: Path
) -> None:
    async def scenario(world: World) -> None:
        service = Service(tmp_path / "engine")
        writer = redis.Redis.from_url(redis_url)
        flow = random_flow(world.monolith, [BTC, ETH], seed=21)
        for symbol in (BTC, ETH):
            await world.stage(symbol, "shadow", 1, stage_from="off")
        wanted = {BTC: 0, ETH: 0}

        async def trade(count: int) -> None:
            for one in islice(flow, count):
                capture = msgspec.structs.replace(one.capture, sent_at_ns=time.time_ns())
                await world.slot.append(one.tx)
                writer.xadd(CAPTURE_STREAM, encode_batch([capture]))
                wanted[BTC if b"BTC-USD" in capture.response_body else ETH] += 1
                await asyncio.sleep(0)

        async with service.running():
            control = await service.client("control", Role.ADMIN)
            await control.send(open_for_shadow(SCALES.values(), session=0), timeout_s=10)
            await control.close()
            async with comparing(world, service, redis_url):
                await world.loaded(BTC)
                await world.loaded(ETH)
                await trade(100)
            await trade(50)  # the shadow is away
            async with comparing(world, service, redis_url):
                await trade(50)
        async with service.running():
            async with comparing(world, service, redis_url):
                await trade(100)
                for symbol in (BTC, ETH):
                    found = await world.settled(wanted[symbol], symbol)
                    assert found.counts.seen == found.counts.matched == wanted[symbol]
                    assert found.counts.dark == 0
                    found = await world.until(lambda one: one.book_equal is True, symbol)
                    assert found.taint == ""
        writer.close()

    play(control_database, scenario)


def test_an_engine_that_dies_under_the_shadow_is_waited_for(
    control_database: str, redis_url: str, tmp_path: Path
) -> None:
    async def scenario(world: World) -> None:
        service = Service(tmp_path / "engine")
        writer = redis.Redis.from_url(redis_url)
        flow = random_flow(world.monolith, [BTC], seed=22)
        await world.stage(BTC, "shadow", 1, stage_from="off")

        async def trade(count: int) -> None:
            for one in islice(flow, count):
                capture = msgspec.structs.replace(one.capture, sent_at_ns=time.time_ns())
                await world.slot.append(one.tx)
                writer.xadd(CAPTURE_STREAM, encode_batch([capture]))
                await asyncio.sleep(0)

        first = service.running()
        await first.__aenter__()
        control = await service.client("control", Role.ADMIN)
        await control.send(open_for_shadow(SCALES.values(), session=0), timeout_s=10)
        await control.close()
        async with comparing(world, service, redis_url):
            await world.loaded()
            await trade(60)
            await first.__aexit__(None, None, None)
            await trade(60)
            await world.until(lambda one: "does not answer" in one.taint)
            async with service.running():
                await trade(60)
                found = await world.settled(180)
                assert found.counts.seen == found.counts.matched == 180
                assert found.run == 1
        writer.close()

    play(control_database, scenario)
