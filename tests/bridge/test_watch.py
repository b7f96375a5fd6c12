"""What is taken back without asking: lag and silence, measured from the oldest thing that waits."""

from __future__ import annotations

import asyncio
import time

import msgspec
import psycopg
import pytest
from switch_world import Control, InWorld, World, shadowing, until

from bridge.config import RollbackConfig
from bridge.control.messages import ActRequest
from bridge.control.watch import LagMeter, Watch, breaches
from bridge.errors import NotNow
from bridge.ledger_rows import FlipRow
from bridge.stage import Stage, StageSnapshot
from bridge.tasks import ended
from engine.types import Side

ACT = ActRequest(actor="ann", execute=True)


def test_lag_is_the_age_of_the_oldest_head_that_is_not_written() -> None:
    meter = LagMeter()
    meter.note(10, 1.0)
    meter.note(20, 2.0)
    meter.note(20, 3.0)
    assert meter.lag_ms(5, 4.0) == 3000.0
    assert meter.lag_ms(10, 4.0) == 2000.0
    assert meter.lag_ms(20, 4.0) == 0.0
    meter.note(30, 5.0)
    assert meter.lag_ms(20, 5.5) == 500.0


@pytest.mark.parametrize(
    ("lag_ms", "silent_ms", "words"),
    [
        (5000.0, 10_000.0, ()),
        (5001.0, 0.0, ("write-back",)),
        (0.0, 10_001.0, ("engine was silent",)),
        (6000.0, 20_000.0, ("write-back", "engine was silent")),
    ],
)
def test_a_breach_is_what_is_over_its_limit(
    lag_ms: float, silent_ms: float, words: tuple[str, ...]
) -> None:
    found = breaches(RollbackConfig(), lag_ms=lag_ms, silent_ms=silent_ms)
    assert len(found) == len(words)
    for reason, word in zip(found, words, strict=True):
        assert word in reason


def test_a_limit_of_zero_switches_a_check_off() -> None:
    config = RollbackConfig(write_back_lag_ms_max=0, engine_silence_ms_max=0)
    assert breaches(config, lag_ms=1e9, silent_ms=1e9) == ()


async def live(world: World, control: Control) -> None:
    await shadowing(world, control)
    outcome = await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))
    assert outcome.outcome == "done", outcome


def watch(control: Control, config: RollbackConfig) -> Watch:
    return Watch(control.tools, control.switch, config, clock=time.monotonic)


async def rolled_back(control: Control) -> str:
    """Waits for it: the reason that was kept."""

    async def ended() -> bool:
        newest = await control.ledger.newest_flip("BTC-USD")
        return newest is not None and newest.direction == "rollback" and newest.state == "done"

    await until(ended, "rolled back by itself")
    newest = await control.ledger.newest_flip("BTC-USD")
    assert newest is not None
    assert newest.actor == "railswitch"
    stage = await control.ledger.stage("BTC-USD")
    assert (stage.stage, stage.holding) == (Stage.SHADOW, 0)
    return newest.reason


def test_a_write_back_that_lags_takes_a_live_instrument_back(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            looking = watch(control, RollbackConfig(write_back_lag_ms_max=300))
            task = asyncio.create_task(looking.run())
            try:
                async with await psycopg.AsyncConnection.connect(world.super_url) as blocker:
                    await blocker.execute("LOCK TABLE trades IN ACCESS EXCLUSIVE MODE")
                    await world.live_order(2, Side.SELL, "100", "1")

                    async def begun() -> bool:
                        return bool(await control.ledger.unfinished())

                    await until(begun, "a rollback begun")
                assert "write-back" in await rolled_back(control)
                assert await world.rows("SELECT count(*) FROM trades") == [(1,)]
            finally:
                await ended(task)

    in_world(work)


def test_an_engine_that_was_away_too_long_loses_the_instrument_when_it_is_back(
    in_world: InWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.engine_admin.ENGINE_CONTROL_S", 0.5)

    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            looking = watch(control, RollbackConfig(engine_silence_ms_max=200))
            await looking.listen()
            await looking.tend()
            await world.engine.stop()
            await looking.listen()
            assert not looking.engine().reachable
            await looking.tend()
            assert await control.ledger.unfinished() == []
            await world.engine.start()
            await looking.listen()
            await looking.tend()
            assert "engine was silent" in await rolled_back(control)

    in_world(work)


def test_the_engine_s_modes_follow_the_stage_table(in_world: InWorld) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await shadowing(world, control)
            looking = watch(control, RollbackConfig())
            off = await control.ledger.stage("BTC-USD")
            await control.ledger.change_stage(off, Stage.OFF, actor="ann", reason="")
            await looking.listen()
            await looking.tend()
            assert await world.engine_mode() == ("closed", 2)
            assert await world.engine_mode(2) == ("closed", 0)  # defined, though never shadowed

    in_world(work)


def test_an_engine_without_a_live_instrument_s_book_is_told_and_never_opened(
    in_world: InWorld,
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            await world.engine.stop()
            world.engine.directory = world.engine.directory.with_name("another")
            await world.engine.start()
            looking = watch(control, RollbackConfig())
            await looking.listen()
            await looking.tend()
            assert await world.engine_mode() == ("closed", 0)
            (trouble,) = control.switch.troubles.values()
            assert "its own journal" in trouble

    in_world(work)


def test_a_rollback_that_can_t_begin_does_not_keep_the_others_from_theirs(
    in_world: InWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(world: World) -> None:
        async with world.control() as control:
            await live(world, control)
            begun: list[str] = []

            async def refused(symbol: str, reason: str) -> FlipRow:
                begun.append(symbol)
                raise NotNow(f"{symbol} does not go back now: {reason}")

            snapshot = await control.ledger.snapshot()
            btc = snapshot.instruments["BTC-USD"]
            both = msgspec.structs.replace(
                snapshot,
                instruments={
                    "BTC-USD": btc,
                    "ETH-USD": msgspec.structs.replace(btc, symbol="ETH-USD"),
                },
            )

            async def two_live() -> StageSnapshot:
                return both

            looking = watch(control, RollbackConfig(engine_silence_ms_max=1e-9))
            await looking.listen()
            monkeypatch.setattr(control.switch, "begin_unattended", refused)
            monkeypatch.setattr(control.ledger, "snapshot", two_live)
            await looking.tend()
            assert begun == ["BTC-USD", "ETH-USD"]

    in_world(work)
