"""The control process as an operator meets it: over HTTP, with its reasons, and when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import psycopg
import pytest
from switch_world import CONFIG, GATE, KEYS, PATIENCE_S, InWorld, World, until

from bridge.config import FlipConfig, RollbackConfig
from bridge.control.messages import Status
from bridge.control.process import ControlSettings, serve
from bridge.control.status import StatusSources, status
from bridge.errors import PortInUse
from bridge.ledger import Ledger
from engine.endpoint import Endpoint
from engine.types import Role, Side
from shadow.store import Store

ROOT = Path(__file__).parents[2]
ACT = {"actor": "ann", "execute": True}


def settings(world: World, **changes: Any) -> ControlSettings:
    made = ControlSettings(
        store_url=world.control_url,
        legacy_url=world.legacy_url,
        redis_url=world.redis_url,
        host="127.0.0.1",
        port=0,
        engine=Endpoint(host="127.0.0.1", port=world.engine.port),
        engine_key=KEYS[Role.ADMIN],
        shard=1,
        mapping=CONFIG.mapping,
        instruments=CONFIG.instruments,
        gate=GATE,
        flip=FlipConfig(hold_ms_max=10_000),
        rollback=RollbackConfig(),
    )
    return msgspec.structs.replace(made, **changes)


class Api:
    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"

    async def get(self, path: str) -> tuple[int, Any]:
        async with self._session.get(self._base + path) as response:
            return response.status, await response.json()

    async def post(self, path: str, body: Any) -> tuple[int, list[Any]]:
        """The status, and the lines."""
        async with self._session.post(self._base + path, json=body) as response:
            text = await response.text()
            return response.status, [msgspec.json.decode(line) for line in text.splitlines()]

    async def leave_during(self, path: str, body: Any) -> None:
        """Asks, and hangs up after the first line."""
        async with self._session.post(self._base + path, json=body) as response:
            await response.content.readline()
            response.close()

    async def raw(self, path: str, data: bytes, content_type: str) -> tuple[int, Any]:
        headers = {"Content-Type": content_type}
        async with self._session.post(self._base + path, data=data, headers=headers) as response:
            return response.status, await response.json()


@asynccontextmanager
async def leading(world: World, **changes: Any) -> AsyncIterator[Api]:
    """The control process, in this one."""
    stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings(world, **changes), ready=ready.set_result, stop=stop))
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
        async with aiohttp.ClientSession() as session:
            yield Api(session, ready.result())
    finally:
        stop.set()
        await task


async def shadowed(world: World, api: Api) -> None:
    code, lines = await api.post("/instruments/BTC-USD/stage", {**ACT, "stage": "shadow"})
    assert (code, lines[-1]["stage"]) == (200, "shadow"), lines
    for price in ("100", "99"):
        await world.shadowed_order(Side.BUY, price)
    await world.evidence()
    await ready_to_flip(api)


async def ready_to_flip(api: Api) -> None:
    async def ready() -> bool:
        _, look = await api.get("/instruments/BTC-USD/flip")
        return bool(look["ready"])

    await until(ready, "ready to flip")


async def flipped(api: Api) -> list[Any]:
    code, lines = await api.post("/instruments/BTC-USD/flip", ACT)
    assert (code, lines[-1]["outcome"]) == (200, "done"), lines
    return lines


def test_the_whole_way_over_http(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            lines = await flipped(api)
            assert [line["step"] for line in lines if line.get("state") == "done"] == [
                *("hold", "fence", "catch-up", "compare", "commit", "open", "release")
            ]
            assert (lines[-1]["stage"], lines[-1]["epoch"]) == ("live", 2)
            assert lines[-1]["hold_ms"] > 0
            assert "rollback BTC-USD" in lines[-1]["next"]
            await world.live_order(2, Side.SELL, "100", "0.5")
            code, lines = await api.post("/instruments/BTC-USD/rollback", ACT)
            assert (code, lines[-1]["outcome"], lines[-1]["stage"]) == (200, "done", "shadow")
            code, lines = await api.post("/instruments/BTC-USD/stage", {**ACT, "stage": "off"})
            assert (code, lines[-1]["stage"], lines[-1]["epoch"]) == (200, "off", 4)

    in_world(work)


def test_a_drill_flips_and_rolls_back(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            code, lines = await api.post("/instruments/BTC-USD/flip", {**ACT, "drill_s": 0.05})
            outcomes = [line for line in lines if line["type"] == "outcome"]
            assert code == 200
            assert [(one["action"], one["outcome"], one["stage"]) for one in outcomes] == [
                ("flip", "done", "live"),
                ("rollback", "done", "shadow"),
            ]
            assert lines[-1] == outcomes[-1]

    in_world(work)


def test_without_execute_nothing_is_changed(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            code, (look,) = await api.post(
                "/instruments/BTC-USD/stage", {"actor": "ann", "stage": "shadow"}
            )
            assert (code, look["type"], look["ready"]) == (200, "dry-run", True)
            _, (look,) = await api.post("/instruments/BTC-USD/flip", {"actor": "ann"})
            assert (look["ready"], look["gate"]["decision"]) == (False, "fail")
            assert len(look["plan"]) == 7
            assert "put it into shadow first" in " ".join(look["reasons"])
            _, document = await api.get("/status")
            assert {one["stage"] for one in document["instruments"]} == {"off"}

    in_world(work)


def test_every_refusal_names_its_reasons_and_a_next_step(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            for code, words, got in [
                (404, "BTC-USD, ETH-USD, SOL-USD", await api.get("/instruments/XRP-USD/gate")),
                (404, "GET /nothing", await api.get("/nothing")),
                (409, "off", await api.post("/instruments/BTC-USD/flip", ACT)),
                (409, "not live", await api.post("/instruments/BTC-USD/rollback", ACT)),
                (
                    409,
                    "does not become live",
                    await api.post("/instruments/BTC-USD/stage", {**ACT, "stage": "live"}),
                ),
                (
                    409,
                    "is off already",
                    await api.post("/instruments/BTC-USD/stage", {**ACT, "stage": "off"}),
                ),
                (400, "unknown field", await api.post("/instruments/BTC-USD/flip", {"x": 1})),
                (400, "actor", await api.post("/instruments/BTC-USD/flip", {})),
                (400, "JSON", await api.raw("/instruments/BTC-USD/flip", b"{", "application/json")),
                (
                    415,
                    "application/json",
                    await api.raw("/instruments/BTC-USD/flip", b"{}", "text/plain"),
                ),
            ]:
                body = got[1][0] if isinstance(got[1], list) else got[1]
                assert got[0] == code, body
                assert words in body["error"], body
                assert body["type"] == "refused"
                assert code in (404, 415) or (body["reasons"] and body["next"])

    in_world(work)


def test_a_flip_without_a_passing_gate_is_refused_with_the_gate_s_reasons(
    in_world: InWorld,
) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            await world.evidence(mismatched=3, seen=1003)
            code, (refused,) = await api.post("/instruments/BTC-USD/flip", ACT)
            assert code == 409
            assert "the gate says fail: 3 operations differ" in refused["reasons"][0]
            _, report = await api.get("/instruments/BTC-USD/gate")
            assert report["decision"]["decision"] == "fail"
            assert "3 operations differ" in report["statement"]

    in_world(work)


def test_a_second_flip_is_told_who_runs_the_first(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            world.shadow.consumes = False
            first = asyncio.create_task(api.post("/instruments/BTC-USD/flip", ACT))

            async def running() -> bool:
                _, document = await api.get("/status")
                flip = document["instruments"][0].get("running")
                return bool(flip) and flip["step"] == "catch-up"

            await until(running, "the flip catching up")
            code, (refused,) = await api.post(
                "/instruments/BTC-USD/flip", {"actor": "bob", "execute": True}
            )
            assert code == 409
            assert "started by ann at " in refused["error"]
            world.shadow.consumes = True
            assert (await first)[1][-1]["outcome"] == "done"

    in_world(work)


def test_a_flip_goes_on_when_its_client_leaves(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            await api.leave_during("/instruments/BTC-USD/flip", ACT)

            async def live() -> bool:
                _, document = await api.get("/status")
                one = document["instruments"][0]
                return one["stage"] == "live" and not one["holding"]

            await until(live, "live all the same")

    in_world(work)


def test_the_status_document_says_what_runs(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            documents: list[Status] = []

            async def engine_seen() -> bool:
                documents.append(msgspec.convert((await api.get("/status"))[1], Status))
                return documents[-1].engine.modes["BTC-USD"] == "shadow at epoch 1"

            await until(engine_seen, "the engine's mode seen")
            document = documents[-1]
            assert document.control == "leads"
            assert [one.worker for one in document.workers] == ["w1", "w2"]
            assert document.engine.reachable
            assert document.engine.implementation == "python"
            assert document.write_back.running
            btc, eth = document.instruments[0], document.instruments[1]
            assert (btc.gate, btc.counts.seen, btc.coverage) == ("pass", 1000, 1.0)
            assert (eth.stage, eth.gate) == ("off", "")
            assert document.problems == ()

    in_world(work)


def test_the_status_without_a_control_process_comes_from_the_stores(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            await shadowed(world, api)
            await flipped(api)
        sources = StatusSources(
            store_url=world.control_url,
            redis_url=world.redis_url,
            legacy_url=world.legacy_url,
            engine=Endpoint(host="127.0.0.1", port=world.engine.port),
            engine_key=KEYS[Role.READ_ONLY],
            shard=1,
            gate=GATE,
            funds="none",
        )
        store = Store(world.control_url)
        document = await status(sources, store.read_evidence, control="nobody answers")
        assert (document.control, document.problems) == ("nobody answers", ("nobody answers",))
        assert (document.instruments[0].stage, document.instruments[0].epoch) == ("live", 2)
        assert document.instruments[0].last_flip is not None
        assert document.engine.modes["BTC-USD"] == "live at epoch 2"
        assert document.write_back.written_seq is not None
        assert len(document.workers) == 2
        await world.engine.stop()
        nothing = msgspec.structs.replace(
            sources, redis_url="redis://127.0.0.1:1", legacy_url="postgresql://127.0.0.1:1/x"
        )
        document = await status(nothing, store.read_evidence, control="nobody answers")
        assert len(document.problems) == 4
        assert document.instruments[0].stage == "live"
        await store.close()

    in_world(work)


def test_a_port_that_is_taken_is_named(in_world: InWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.control.process.PORT_FREE_S", 0.0)

    async def work(world: World) -> None:
        with pytest.raises(PortInUse, match=f"127.0.0.1:{world.engine.port}"):
            async with leading(world, port=world.engine.port):
                pass

    in_world(work)


def test_a_standby_waits_for_the_lead(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        stop, ready = asyncio.Event(), asyncio.get_running_loop().create_future()
        async with leading(world) as api:
            standby = asyncio.create_task(serve(settings(world), ready=ready.set_result, stop=stop))
            await shadowed(world, api)
            assert not ready.done()
        async with asyncio.timeout(PATIENCE_S), aiohttp.ClientSession() as session:
            _, document = await Api(session, await ready).get("/status")
        assert document["instruments"][0]["stage"] == "shadow"
        stop.set()
        await standby

    in_world(work)


def test_a_leader_that_loses_its_connection_goes_on(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with leading(world) as api:
            async with await psycopg.AsyncConnection.connect(world.control_url) as connection:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'railswitch control%%'"
                    " AND datname = current_database()"
                )

            async def acts() -> bool:
                body = {**ACT, "stage": "shadow"}
                code, lines = await api.post("/instruments/ETH-USD/stage", body)
                assert code in (200, 503), lines
                return code == 200

            async def answers() -> bool:
                code, document = await api.get("/status")
                return code == 200 and document["control"] == "leads"

            await until(acts, "the stage changed after all")
            await until(answers, "the status answered again")

    in_world(work)


@asynccontextmanager
async def child(world: World, step: str, moment: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("control_child.py")),
        msgspec.json.encode(settings(world)).decode(),
        step,
        moment,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        process._transport.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("step", "moment", "stage"), [("fence", "taken", "shadow"), ("commit", "taken", "live")]
)
def test_a_control_process_killed_in_a_flip_is_followed_by_one_that_finishes_it(
    in_world: InWorld, step: str, moment: str, stage: str
) -> None:
    async def work(world: World) -> None:
        async with child(world, step, moment) as process:
            assert process.stdout is not None
            port = int(await process.stdout.readline())
            async with aiohttp.ClientSession() as session:
                api = Api(session, port)
                await shadowed(world, api)
                with pytest.raises(aiohttp.ClientError):
                    await api.post("/instruments/BTC-USD/flip", ACT)
            assert await process.wait() == -signal.SIGKILL
        async with leading(world) as api:
            _, document = await api.get("/status")
            one = document["instruments"][0]
            assert (one["stage"], one["holding"], one.get("running")) == (stage, 0, None)
            ledger = Ledger(world.control_url)
            assert await ledger.unfinished() == []
            await ledger.close()
            assert (await world.fence_owner())[0] == ("engine" if stage == "live" else "legacy")
            assert (await world.engine_mode())[0] == stage

    in_world(work)
