"""The engine's process is killed while it publishes; Redis as well."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_harness import WAIT_S, EngineProcess, engine_process, raw, run, started
from feed_harness import Flow, check_books, check_trades, mode, opening

from bridge.sandbox.processes import free_port
from bridge.sandbox.servers import EmbeddedRedis
from engine.protocol import FeedStatus
from engine.service import FeedSettings
from engine.types import Mode, Role


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis", port=free_port())
    server.start()
    yield server
    server.remove()


def settings(server: EmbeddedRedis) -> FeedSettings:
    return FeedSettings(url=server.url, interval_ms=5, levels=10, orders=10, stream_length=100_000)


async def feed_status(port: int) -> tuple[int, FeedStatus]:
    async with raw(port) as one:
        await one.login("reader", Role.READ_ONLY, observe=True)
        reply = await one.ask("status")
    assert reply.status is not None
    assert reply.status.market_data is not None
    return reply.status.seq, reply.status.market_data


async def all_published(port: int) -> FeedStatus:
    async with asyncio.timeout(WAIT_S):
        while True:
            seq, status = await feed_status(port)
            if status.state == "publishing" and status.published_seq == seq:
                return status
            await asyncio.sleep(0.02)


def test_killed_engines_and_redises_publish_every_trade_once(
    tmp_path: Path, own_redis: EmbeddedRedis
) -> None:
    journal = tmp_path / "journal"

    async def life(engine: EngineProcess, number: int) -> None:
        """Sends orders until it is killed in the middle of them."""
        if number == 0:
            async with started(engine.port, "control", Role.ADMIN) as control:
                await control.send(opening(), timeout_s=WAIT_S)
        async with started(engine.port, f"proxy-{number}") as client:
            flow = Flow(number + 1)
            for _ in range(8):
                await client.send(flow.batch(25), timeout_s=WAIT_S)
            sending = asyncio.ensure_future(client.send(flow.batch(500), timeout_s=WAIT_S))
            await asyncio.sleep(0)
            if number % 2:
                assert own_redis.pid is not None
                os.kill(own_redis.pid, signal.SIGKILL)
            engine.kill()
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    for number in range(4):
        with engine_process(journal, market_data=settings(own_redis)) as engine:
            run(life(engine, number))
        own_redis.start()

    async def last(engine: EngineProcess) -> None:
        await all_published(engine.port)
        async with started(engine.port, "control", Role.ADMIN) as control:
            await control.send([mode(1, Mode.CLOSED, 2)], timeout_s=WAIT_S)
        status = await all_published(engine.port)
        assert status.gaps == 0
        await check_books(journal, own_redis.url)

    with engine_process(journal, market_data=settings(own_redis)) as engine:
        run(last(engine))
        code, _ = engine.terminate()
    assert code == 0
    assert check_trades(journal, own_redis.url) > 100


def test_an_engine_without_its_redis_serves_and_says_so(tmp_path: Path) -> None:
    away = FeedSettings(url="redis://127.0.0.1:1")

    async def story(engine: EngineProcess) -> None:
        async with started(engine.port, "control", Role.ADMIN) as control:
            await control.send(opening(), timeout_s=WAIT_S)
        async with started(engine.port) as client:
            await client.send(Flow(1).batch(50), timeout_s=WAIT_S)
        async with asyncio.timeout(WAIT_S):
            while True:
                seq, status = await feed_status(engine.port)
                if status.errors.get("unreachable"):
                    break
                await asyncio.sleep(0.02)
        assert status.state == "waiting"
        assert "127.0.0.1:1" in status.problem
        assert (status.published_seq, status.lag) == (0, seq)

    with engine_process(tmp_path, market_data=away) as engine:
        run(story(engine))
        code, told = engine.terminate()
    assert code == 0, told
