"""The control store's journal: one flip at a time, and one decision for each, whoever drives it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psycopg
import pytest

from bridge.errors import FlipRunning, StageConflict, StoreUnreachable, UnknownInstrument
from bridge.ledger import Ledger
from bridge.ledger_rows import FlipRow
from bridge.stage import InstrumentStage, Stage
from shadow.legacy.mapping import InstrumentConfig

T = TypeVar("T")

BTC = InstrumentConfig(symbol="BTC-USD", id=1, tick="0.01", lot="0.001")
ETH = InstrumentConfig(symbol="ETH-USD", id=2, tick="0.01", lot="0.001")


def with_ledger(url: str, work: Callable[[Ledger], Awaitable[T]]) -> T:
    async def run() -> T:
        ledger = Ledger(url)
        try:
            return await work(ledger)
        finally:
            await ledger.close()

    return asyncio.run(run())


async def in_shadow(ledger: Ledger) -> InstrumentStage:
    await ledger.add_missing([BTC, ETH])
    off = await ledger.stage("BTC-USD")
    return await ledger.change_stage(off, Stage.SHADOW, actor="ann", reason="begin")


async def begun(ledger: Ledger) -> FlipRow:
    stage = await in_shadow(ledger)
    return await ledger.begin(stage, "flip", actor="ann", reason="", evidence={"decision": "pass"})


def test_missing_rows_are_inserted_once_and_stay_as_they_are(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        changed = await in_shadow(ledger)
        await ledger.add_missing([BTC, ETH])
        snapshot = await ledger.snapshot()
        assert snapshot.instruments["BTC-USD"] == changed
        assert snapshot.instruments["ETH-USD"] == InstrumentStage(
            symbol="ETH-USD", instrument=2, stage=Stage.OFF, epoch=0
        )

    with_ledger(control_database, work)


def test_an_instrument_s_number_never_changes(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_missing([BTC])
        for other in (("BTC-USD", 5), ("XRP-USD", 1)):
            moved = InstrumentConfig(symbol=other[0], id=other[1], tick="1", lot="1")
            with pytest.raises(StageConflict, match="id"):
                await ledger.add_missing([moved])
        assert list((await ledger.snapshot()).instruments) == ["BTC-USD"]

    with_ledger(control_database, work)


def test_an_unknown_instrument_is_told_the_known_ones(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_missing([BTC, ETH])
        with pytest.raises(UnknownInstrument, match="BTC-USD, ETH-USD"):
            await ledger.stage("XRP-USD")

    with_ledger(control_database, work)


def test_a_change_of_stage_raises_epoch_and_version_and_is_remembered(
    control_database: str,
) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_missing([BTC, ETH])
        before = (await ledger.snapshot()).version
        changed = await in_shadow(ledger)
        assert (changed.stage, changed.epoch) == (Stage.SHADOW, 1)
        assert (await ledger.snapshot()).version > before
        assert await ledger.last_change("BTC-USD") == ("off", "shadow")

    with_ledger(control_database, work)


def test_a_stale_change_of_stage_is_refused(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_missing([BTC])
        off = await ledger.stage("BTC-USD")
        await ledger.change_stage(off, Stage.SHADOW, actor="ann", reason="")
        with pytest.raises(StageConflict):
            await ledger.change_stage(off, Stage.SHADOW, actor="bob", reason="")

    with_ledger(control_database, work)


def test_a_second_flip_is_told_who_runs_the_first(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await begun(ledger)
        stage = await ledger.stage("BTC-USD")
        with pytest.raises(FlipRunning, match=f"number {flip.id}, started by ann"):
            await ledger.begin(stage, "flip", actor="bob", reason="", evidence={})
        with pytest.raises(FlipRunning):
            await ledger.change_stage(stage, Stage.OFF, actor="bob", reason="")

    with_ledger(control_database, work)


def test_an_aborted_flip_bars_the_next_one_until_it_is_undone(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await ledger.abandon(await begun(ledger), ["too slow"])
        stage = await ledger.stage("BTC-USD")
        with pytest.raises(FlipRunning):
            await ledger.begin(stage, "flip", actor="bob", reason="", evidence={})
        await ledger.finish(flip, None)
        again = await ledger.begin(stage, "flip", actor="bob", reason="", evidence={})
        assert again.id != flip.id

    with_ledger(control_database, work)


def test_a_flip_runs_through_hold_commit_and_release(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await begun(ledger)
        n = await ledger.intend(flip, "hold", durable=True)
        await ledger.hold(flip)
        await ledger.end_step(flip, n, "done", {"workers": 2})
        assert (await ledger.stage("BTC-USD")).holding == flip.id
        committed = await ledger.commit(flip, Stage.LIVE)
        assert await ledger.stage("BTC-USD") == InstrumentStage(
            symbol="BTC-USD", instrument=1, stage=Stage.LIVE, epoch=2, holding=flip.id
        )
        await ledger.release(committed)
        done = await ledger.finish(committed, 42.5)
        assert (done.state, done.hold_ms) == ("done", 42.5)
        assert done.ended_at_s is not None
        assert (await ledger.stage("BTC-USD")).holding == 0
        assert await ledger.unfinished() == []
        assert await ledger.last_change("BTC-USD") == ("shadow", "live")
        steps = await ledger.steps(flip.id)
        assert [(one.n, one.step, one.state, one.detail) for one in steps] == [
            (0, "hold", "done", {"workers": 2})
        ]

    with_ledger(control_database, work)


def test_of_commit_and_abandon_only_the_first_counts(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await begun(ledger)
        await ledger.hold(flip)
        await ledger.abandon(flip, ["the driver was believed dead"])
        with pytest.raises(StageConflict, match="aborted"):
            await ledger.commit(flip, Stage.LIVE)
        assert (await ledger.stage("BTC-USD")).stage is Stage.SHADOW

    with_ledger(control_database, work)


def test_a_driver_that_was_overtaken_takes_no_further_step(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await begun(ledger)
        await ledger.abandon(flip, ["overtaken"])
        with pytest.raises(StageConflict, match="step fence not taken"):
            await ledger.intend(flip, "fence", durable=True)
        with pytest.raises(StageConflict):
            await ledger.hold(flip)
        assert await ledger.steps(flip.id) == []

    with_ledger(control_database, work)


def test_two_drivers_deciding_at_once_agree(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        other = Ledger(control_database)
        try:
            flip = await begun(ledger)
            await ledger.hold(flip)
            results = await asyncio.gather(
                ledger.commit(flip, Stage.LIVE),
                other.abandon(flip, ["overtaken"]),
                return_exceptions=True,
            )
        finally:
            await other.close()
        refused = [one for one in results if isinstance(one, StageConflict)]
        assert len(refused) == 1
        decided = await ledger.flip(flip.id)
        stage = await ledger.stage("BTC-USD")
        assert (decided.state, stage.stage) in {("committed", "live"), ("aborted", "shadow")}

    with_ledger(control_database, work)


def test_an_undone_flip_leaves_a_higher_epoch_and_its_reasons(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await begun(ledger)
        await ledger.intend(flip, "hold", durable=True)
        await ledger.hold(flip)
        aborted = await ledger.abandon(flip, ["a", "b"])
        for _ in range(2):
            await ledger.release(aborted, epoch=flip.epoch_to + 1)
        stage = await ledger.stage("BTC-USD")
        assert (stage.stage, stage.epoch, stage.holding) == (Stage.SHADOW, 3, 0)
        done = await ledger.finish(aborted, None)
        assert (done.state, done.reason) == ("aborted", "a; b")
        assert done.hold_ms is not None
        assert await ledger.last_change("BTC-USD") == ("shadow", "shadow")

    with_ledger(control_database, work)


def test_versions_never_go_back_however_many_change_at_once(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_missing([BTC, ETH])
        other, watcher = Ledger(control_database), Ledger(control_database)

        async def turn(mine: Ledger, symbol: str) -> None:
            for wanted in [Stage.SHADOW, Stage.OFF] * 10:
                stage = await mine.stage(symbol)
                await mine.change_stage(stage, wanted, actor="ann", reason="")

        changes = asyncio.gather(turn(ledger, "BTC-USD"), turn(other, "ETH-USD"))
        seen: dict[int, object] = {}
        while not changes.done():
            snapshot = await watcher.snapshot()
            assert seen.setdefault(snapshot.version, snapshot.instruments) == snapshot.instruments
            assert snapshot.version == max(seen)
        await changes
        await other.close()
        await watcher.close()

    with_ledger(control_database, work)


def test_a_lost_connection_is_told_and_opened_again(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        await ledger.add_missing([BTC])
        with psycopg.connect(control_database, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'railswitch control' AND datname = current_database()"
            )
        with pytest.raises(StoreUnreachable):
            await ledger.snapshot()
        assert list((await ledger.snapshot()).instruments) == ["BTC-USD"]

    with_ledger(control_database, work)


def test_a_store_without_migrations_is_named(database: str) -> None:
    async def work(ledger: Ledger) -> None:
        with pytest.raises(StoreUnreachable, match="not migrated"):
            await ledger.snapshot()

    with_ledger(database, work)


def test_nothing_was_ever_live_before_the_first_commit(control_database: str) -> None:
    async def work(ledger: Ledger) -> None:
        flip = await begun(ledger)
        await ledger.hold(flip)
        assert not await ledger.ever_live()
        await ledger.commit(flip, Stage.LIVE)
        assert await ledger.ever_live()

    with_ledger(control_database, work)
