"""A whole worker: where it learns its stages, what it reports, and how several share a port."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator

import msgspec
import psycopg
import pytest
import redis
from proxy_rig import (
    CONFIG,
    Client,
    Monolith,
    Visit,
    request,
    response,
    run,
    until,
)

from bridge.errors import PortInUse, StageUnknown
from bridge.proxy import master
from bridge.proxy.settings import ProxySettings
from bridge.proxy.worker import serve_worker
from bridge.stage import (
    STAGES_CHANNEL,
    STAGES_KEY,
    WORKERS_CHANNEL,
    WORKERS_KEY_PREFIX,
    InstrumentStage,
    Stage,
    StageSnapshot,
    WorkerReport,
    decode_report,
    encode,
)
from engine.endpoint import Endpoint
from shadow.capture import CAPTURE_STREAM, decode_batch

FIELDS = [("Content-Type", "application/json"), ("X-Member-Id", "7")]
ORDER = request("POST", "/api/v1/orders", b'{"order":{"market":"BTC-USD"}}', FIELDS)
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/nothing"


def settings(upstream_port: int, redis_url: str, control_url: str) -> ProxySettings:
    return ProxySettings(
        listen_host="127.0.0.1",
        listen_port=0,
        upstreams=(f"http://127.0.0.1:{upstream_port}",),
        mapping=CONFIG.mapping,
        instruments=CONFIG.instruments,
        redis_url=redis_url,
        control_url=control_url,
        legacy_url=NO_DATABASE,
        engine=Endpoint(host="127.0.0.1", port=1),
        engine_key="",
    )


@contextlib.asynccontextmanager
async def serving(wanted: ProxySettings, workers: int = 0) -> AsyncIterator[int]:
    """The port of one worker in this loop, or of so many processes."""
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    stop = asyncio.Event()
    work = (
        master.run(wanted, workers, ready=ready.set_result, stop=stop)
        if workers
        else serve_worker(wanted, ready=ready.set_result, stop=stop)
    )
    task = asyncio.create_task(work)
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield ready.result()
    finally:
        stop.set()
        await task


async def connect(port: int) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", port))


def snapshot(version: int, stage: Stage = Stage.SHADOW, holding: int = 0) -> StageSnapshot:
    one = InstrumentStage(symbol="BTC-USD", instrument=1, stage=stage, epoch=1, holding=holding)
    return StageSnapshot(version=version, instruments={"BTC-USD": one})


def tell(connection: redis.Redis, news: StageSnapshot) -> None:
    connection.set(STAGES_KEY, encode(news))
    connection.publish(STAGES_CHANNEL, encode(news))


def reports(connection: redis.Redis) -> list[WorkerReport]:
    keys = connection.keys(f"{WORKERS_KEY_PREFIX}*")
    return [decode_report(value) for value in connection.mget(keys) if value] if keys else []


def write_stages(url: str, stage: str = "shadow", holding: int = 0) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch, holding)"
            " VALUES ('BTC-USD', 1, %s, 1, %s) ON CONFLICT (symbol) DO UPDATE"
            " SET stage = EXCLUDED.stage, holding = EXCLUDED.holding,"
            " version = nextval('railswitch.stage_version')",
            [stage, holding],
        )


def test_it_starts_from_the_control_store(
    redis_url: str, control_database: str, plane: str
) -> None:
    write_stages(control_database, holding=7)

    async def story() -> None:
        async with Monolith(response(b"x")) as monolith:
            async with serving(settings(monolith.port, redis_url, control_database)) as port:
                with redis.Redis.from_url(redis_url) as connection:
                    (report,) = reports(connection)
                    assert report.drained == {"BTC-USD": 7}
                    assert (report.pid, report.implementation) == (os.getpid(), plane)
                    assert connection.ttl(WORKERS_KEY_PREFIX + report.worker) in range(1, 6)
                client = await connect(port)
                assert (await client.ask(request())).endswith(b"x")
                client.close()

    run(story())


@pytest.mark.parametrize("control", ["empty", "away"])
def test_without_any_stage_it_does_not_guess(
    redis_url: str, control_database: str, control: str
) -> None:
    url = control_database if control == "empty" else NO_DATABASE

    async def story() -> None:
        with pytest.raises(StageUnknown, match=r"no stage is known: .*start `railswitch up`"):
            async with serving(settings(1, redis_url, url)):
                pass

    run(story())


def test_redis_will_do_where_the_control_store_is_away(redis_url: str) -> None:
    async def story() -> None:
        with redis.Redis.from_url(redis_url) as connection:
            connection.set(STAGES_KEY, encode(snapshot(3, holding=4)))
            async with serving(settings(1, redis_url, NO_DATABASE)):
                assert [one.version for one in reports(connection)] == [3]

    run(story())


def test_news_hold_and_release_and_drained_is_told_at_once(
    redis_url: str, control_database: str
) -> None:
    write_stages(control_database)
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        while True:
            await visit.request()
            await go_on.wait()
            await visit.answer(response(b"x"))

    async def story(connection: redis.Redis) -> None:
        told: list[tuple[float, WorkerReport]] = []

        def listen() -> None:
            with connection.pubsub() as heard:
                heard.subscribe(WORKERS_CHANNEL)
                for message in heard.listen():
                    if message["type"] == "message":
                        told.append((time.monotonic(), decode_report(message["data"])))
                        if told[-1][1].requests >= 2:
                            return

        listening = asyncio.create_task(asyncio.to_thread(listen))
        async with Monolith(monolith) as script:
            async with serving(settings(script.port, redis_url, control_database)) as port:
                first, second = await connect(port), await connect(port)
                await first.send(ORDER)
                await until(lambda: any(one.requests == 1 for _, one in told))
                tell(connection, snapshot(1_000_000, holding=9))
                await until(lambda: told[-1][1].version == 1_000_000)
                assert told[-1][1].drained == {}
                go_on.set()
                await first.response()
                await until(lambda: told[-1][1].drained == {"BTC-USD": 9})
                await second.send(ORDER)
                await until(lambda: any(one.held == 1 for _, one in told))
                await listening
                tell(connection, snapshot(1_000_001))
                assert (await second.response()).endswith(b"x")
                first.close()
                second.close()

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


def test_captures_come_to_the_stream_and_a_stopped_worker_leaves(
    redis_url: str, control_database: str
) -> None:
    write_stages(control_database)

    async def story(connection: redis.Redis) -> None:
        async with Monolith(response(b"x")) as monolith:
            async with serving(settings(monolith.port, redis_url, control_database)) as port:
                client = await connect(port)
                for _ in range(5):
                    await client.ask(ORDER)
                client.close()
        entries = connection.xrange(CAPTURE_STREAM)
        captures = [capture for _, fields in entries for capture in decode_batch(fields)]
        assert [capture.number for capture in captures] == [1, 2, 3, 4, 5]
        assert len({capture.worker for capture in captures}) == 1
        assert connection.keys("railswitch:worker*") == []

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


def test_when_redis_is_silent_the_control_store_is_read(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.proxy.stages.SNAPSHOT_AGE_S_MAX", 0.1)
    monkeypatch.setattr("bridge.proxy.worker.WORKER_REPORT_S", 0.05)
    monkeypatch.setattr("bridge.proxy.worker.TEE_FLUSH_S", 0.1)
    write_stages(control_database)

    async def story() -> None:
        async with Monolith(response(b"x")) as monolith:
            nowhere = settings(monolith.port, "redis://127.0.0.1:1/0", control_database)
            async with serving(nowhere) as port:
                client = await connect(port)
                assert (await client.ask(ORDER)).endswith(b"x")
                await asyncio.to_thread(write_stages, control_database, holding=3)
                held = await connect(port)
                while True:  # until the news has come, orders pass
                    await held.send(ORDER)
                    try:
                        await asyncio.wait_for(held.reader.readexactly(1), 0.3)
                    except TimeoutError:
                        break
                    await held.reader.readuntil(b"\r\n\r\nx")
                await asyncio.to_thread(write_stages, control_database)
                assert (await held.response()).endswith(b"x")
                client.close()
                held.close()

    run(story())


def test_workers_share_a_port_and_a_dead_one_is_replaced(
    redis_url: str, control_database: str
) -> None:
    write_stages(control_database)

    async def story(connection: redis.Redis) -> None:
        async with Monolith(response(b"x")) as monolith:
            wanted = settings(monolith.port, redis_url, control_database)
            async with serving(wanted, workers=2) as port:
                first = {one.pid for one in reports(connection)}
                assert len(first) == 2
                assert os.getpid() not in first
                victim = min(first)
                os.kill(victim, signal.SIGKILL)
                survivor = (first - {victim}).pop()
                await until(lambda: {one.pid for one in reports(connection)} - first)
                await until(lambda: answered_by(connection, survivor))
                client = await connect(port)
                assert (await client.ask(request())).endswith(b"x")
                client.close()
        assert {one.pid for one in reports(connection)} <= {victim}  # its key expires by itself

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


def answered_by(connection: redis.Redis, pid: int) -> bool:
    return any(one.pid == pid for one in reports(connection))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_port_in_use_is_named(redis_url: str, control_database: str, workers: int) -> None:
    write_stages(control_database)

    async def story() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            wanted = msgspec.structs.replace(
                settings(1, redis_url, control_database), listen_port=port
            )
            with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port}.*proxy\.listen"):
                async with serving(wanted, workers=workers):
                    pass

    run(story())
