"""The control store keeps verdicts and watermarks together, once, and reads them back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import psycopg
import pytest

from shadow import latency
from shadow.captures import Gap
from shadow.errors import PositionMoved, StoreUnavailable
from shadow.latency import Window
from shadow.store import Store
from shadow.store_rows import (
    Batch,
    CountKey,
    InstrumentRow,
    Position,
    RunRow,
    Tally,
    VerdictRow,
)
from shadow.verdict import Difference, Kind, OperationVerdict, Verdict

BTC = "BTC-USD"


def use(url: str, scenario: Callable[[Store], Awaitable[None]]) -> None:
    async def main() -> None:
        store = Store(url)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(main())


def execute(url: str, statement: str, values: Sequence[Any] = ()) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement, values)


def rows(url: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(statement).fetchall()


def stage(url: str, symbol: str = BTC, *, stage: str = "shadow", epoch: int = 1) -> None:
    execute(
        url,
        "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch) VALUES (%s, 1, %s, %s)",
        (symbol, stage, epoch),
    )


def tally(**counts: int) -> Tally:
    made = Tally()
    for name, count in counts.items():
        setattr(made, name, count)
    return made


def verdict(order_id: int, what: Verdict = Verdict.MISMATCH, **changed: Any) -> OperationVerdict:
    given: dict[str, Any] = {
        "symbol": BTC,
        "operation": "place",
        "order_id": order_id,
        "verdict": what,
        "differences": (Difference(kind=Kind.PRICE, what="differs", legacy=1, engine=2),),
    }
    return OperationVerdict(**(given | changed))


def instrument(**changed: Any) -> InstrumentRow:
    given: dict[str, Any] = {"symbol": BTC, "run": 1, "first_run": 1, "epoch": 1}
    return InstrumentRow(**(given | changed))


RUN = RunRow(symbol=BTC, run=1, epoch=1, loaded_lsn=50, orders=3, reason="shadowing begins")


def test_a_first_start_begins_at_nothing(control_database: str) -> None:
    async def scenario(store: Store) -> None:
        resume = await store.resume()
        assert resume.position == Position(flushes=1)
        assert (resume.instruments, resume.hits) == ({}, {})

    use(control_database, scenario)


def test_what_was_recorded_is_where_the_next_process_goes_on(control_database: str) -> None:
    row = instrument(
        loaded_lsn=50,
        loaded_ns=1_700_000_000_123_456_000,
        following=True,
        applied_lsn=70,
        resyncs=2,
        marker_flip_id=9,
        taint="diverged",
        root_order_id=4,
        root_verdict="mismatch",
        pending=3,
        book_equal=False,
        book_lsn=60,
        book_checked_ns=1_700_000_001_000_000_000,
        book_differences=[{"order_id": 4}],
        lag_ms=1.5,
    )

    async def scenario(store: Store) -> None:
        await store.resume()
        position = Position(
            applied_lsn=77,
            capture_id="5-0",
            capture_next={"w": 8},
            trouble="Redis is away",
            flushes=1,
        )
        batch = Batch(position=position, instruments=[row], runs=[RUN], hits={"lifo": 2})
        await store.record(batch)
        other = Store(control_database)
        resume = await other.resume()
        assert resume.position == Position(
            applied_lsn=77,
            capture_id="5-0",
            capture_next={"w": 8},
            trouble="Redis is away",
            flushes=3,
        )
        assert resume.instruments == {BTC: row}
        assert resume.hits == {"lifo": 2}
        await other.close()

    use(control_database, scenario)


def test_counts_of_a_minute_add_up(control_database: str) -> None:
    stage(control_database)

    async def scenario(store: Store) -> None:
        key = CountKey(BTC, 1, 1_700_000_040)
        later = CountKey(BTC, 1, 1_700_000_100)
        for flushes, tallies in enumerate(
            (
                {key: tally(seen=3, matched=2, mismatched=1, fills=5)},
                {key: tally(seen=2, matched=2, dark=1), later: tally(seen=1, gaps=1)},
                {key: tally(dark=-1)},
            )
        ):
            batch = Batch(
                position=Position(flushes=flushes + 1),
                instruments=[instrument(pending=4)],
                runs=[RUN] if not flushes else [],
                tallies=tallies,
            )
            if not flushes:
                await store.resume()
            await store.record(batch)
        found = await store.read_evidence(BTC)
        assert found is not None
        counts = found.counts
        assert (counts.seen, counts.matched, counts.mismatched) == (10, 4, 1)
        assert (counts.gaps, counts.dark, counts.fills, counts.pending) == (1, 0, 5, 4)
        assert counts.closes()

    use(control_database, scenario)


def test_evidence_counts_from_the_first_run_of_the_stage(control_database: str) -> None:
    stage(control_database, epoch=3)

    async def scenario(store: Store) -> None:
        await store.resume()
        runs = [
            RunRow(symbol=BTC, run=n, epoch=n, loaded_lsn=n, orders=0, reason="r")
            for n in (1, 2, 3)
        ]
        await store.record(
            Batch(
                position=Position(flushes=1),
                instruments=[instrument(run=3, first_run=2, epoch=3)],
                runs=runs,
                tallies={CountKey(BTC, n, 60): tally(seen=10**n, matched=10**n) for n in (1, 2, 3)},
                verdicts=[VerdictRow(n, verdict(n)) for n in (1, 2, 3)],
            )
        )
        found = await store.read_evidence(BTC)
        assert found is not None
        assert found.counts.seen == 1100
        assert [one.order_id for one in found.mismatches] == [2, 3]
        assert found.loaded_at_s > 0
        assert (found.run, found.epoch) == (3, 3)

    use(control_database, scenario)


def test_a_second_process_takes_over_and_the_first_can_write_no_more(
    control_database: str,
) -> None:
    async def scenario(store: Store) -> None:
        await store.resume()
        await store.record(Batch(position=Position(applied_lsn=5, flushes=1)))
        other = Store(control_database)
        position = (await other.resume()).position
        await other.record(Batch(position=position))
        with pytest.raises(PositionMoved, match="another process"):
            await store.record(
                Batch(
                    position=Position(applied_lsn=6, flushes=2),
                    tallies={CountKey(BTC, 1, 60): tally(seen=1)},
                )
            )
        await other.close()

    use(control_database, scenario)
    assert rows(control_database, "SELECT * FROM railswitch.parity_count") == []


def test_a_record_whose_outcome_was_lost_counts_once(control_database: str) -> None:
    async def scenario(store: Store) -> None:
        await store.resume()
        batch = Batch(
            position=Position(applied_lsn=5, flushes=1),
            tallies={CountKey(BTC, 1, 60): tally(seen=1, matched=1)},
            latencies={Window(BTC, 1, "engine", 60): _histogram(100)},
        )
        await store.record(batch)
        await store.record(batch)

    use(control_database, scenario)
    assert rows(control_database, "SELECT seen FROM railswitch.parity_count") == [(1,)]


def _histogram(*samples_us: int) -> Any:
    histogram = latency.empty()
    for sample in samples_us:
        latency.record(histogram, sample * 1000)
    return histogram


def test_latencies_add_up_over_flushes_and_processes(control_database: str) -> None:
    stage(control_database)
    window = Window(BTC, 1, "engine", 60)

    async def scenario(store: Store) -> None:
        position = (await store.resume()).position
        first = Batch(
            position=position,
            instruments=[instrument()],
            latencies={window: _histogram(100, 200)},
        )
        await store.record(first)
        await store.record(Batch(position=Position(flushes=2), latencies={window: _histogram(300)}))
        other = Store(control_database)
        await other.record(
            Batch(
                position=(await other.resume()).position,
                latencies={window: _histogram(400), window._replace(minute_s=120): _histogram(500)},
            )
        )
        found = await other.read_evidence(BTC)
        assert found is not None
        assert found.engine_latency.count == 5
        assert found.engine_latency.max_us == pytest.approx(500, rel=0.001)
        assert found.engine_latency.p50_us == pytest.approx(300, rel=0.001)
        assert found.legacy_latency.count == 0
        await other.close()

    use(control_database, scenario)


def test_verdicts_come_newest_first(control_database: str) -> None:
    async def scenario(store: Store) -> None:
        await store.resume()
        known = verdict(2, Verdict.KNOWN, reason="lifo")
        await store.record(
            Batch(
                position=Position(flushes=1),
                verdicts=[VerdictRow(1, verdict(1)), VerdictRow(1, known)],
            )
        )
        assert await store.verdicts(BTC, 10) == [known, verdict(1)]
        assert await store.verdicts(BTC, 1) == [known]
        assert await store.verdicts("ETH-USD", 10) == []

    use(control_database, scenario)


def test_what_a_client_sent_never_stops_the_record(control_database: str) -> None:
    async def scenario(store: Store) -> None:
        await store.resume()
        hostile = verdict(1, legacy={"body": "a\0b\ud800".encode("utf-8", "replace").decode()})
        await store.record(Batch(position=Position(flushes=1), verdicts=[VerdictRow(1, hostile)]))
        (found,) = await store.verdicts(BTC, 1)
        assert found.legacy["body"].startswith("a")

    use(control_database, scenario)


def test_a_gap_found_again_after_a_restart_is_the_same_gap(control_database: str) -> None:
    async def scenario(store: Store) -> None:
        await store.resume()
        for flushes in range(2):
            batch = Batch(position=Position(flushes=flushes + 1), gaps=[Gap("w", 3, 5)])
            await store.record(batch)

    use(control_database, scenario)
    found = rows(control_database, "SELECT worker, first, last FROM railswitch.capture_gap")
    assert found == [("w", 3, 5)]


def test_an_instrument_that_was_never_loaded_has_empty_evidence(control_database: str) -> None:
    stage(control_database, stage="off", epoch=0)

    async def scenario(store: Store) -> None:
        found = await store.read_evidence(BTC)
        assert found is not None
        assert (found.run, found.loaded_at_s, found.book_equal, found.lag_ms) == (0, 0, None, None)
        assert found.counts.closes()
        assert found.now_s > 1_600_000_000
        assert await store.read_evidence("DOGE-USD") is None
        (parity,) = await store.parity()
        assert parity.runs == ()

    use(control_database, scenario)


def test_what_the_shadow_waits_for_taints_every_instrument(control_database: str) -> None:
    stage(control_database)

    async def scenario(store: Store) -> None:
        await store.resume()
        await store.record(
            Batch(position=Position(trouble="Redis is away", flushes=1), instruments=[instrument()])
        )
        found = await store.read_evidence(BTC)
        assert found is not None
        assert found.taint == "Redis is away"

    use(control_database, scenario)


def test_stages_are_read_with_where_they_came_from(control_database: str) -> None:
    stage(control_database, epoch=2)
    for epoch, before in ((1, "off"), (2, "live")):
        execute(
            control_database,
            "INSERT INTO railswitch.stage_history"
            " (symbol, stage_from, stage_to, epoch, actor, reason)"
            " VALUES (%s, %s, 'shadow', %s, 'test', '')",
            (BTC, before, epoch),
        )

    async def scenario(store: Store) -> None:
        row = (await store.stages())[BTC]
        assert (row.stage, row.epoch, row.stage_from, row.holding) == ("shadow", 2, "live", 0)

    use(control_database, scenario)


def test_a_store_that_is_away_or_not_migrated_is_told_with_what_to_do(database: str) -> None:
    async def away(store: Store) -> None:
        with pytest.raises(StoreUnavailable, match="see that it runs"):
            await store.resume()

    use("postgresql://nobody@127.0.0.1:1/nothing", away)

    async def bare(store: Store) -> None:
        with pytest.raises(StoreUnavailable, match="not migrated"):
            await store.read_evidence(BTC)

    use(database, bare)


def test_a_failed_record_leaves_nothing_and_can_be_tried_again(control_database: str) -> None:
    async def scenario(store: Store) -> None:
        await store.resume()
        position = Position(applied_lsn=9, flushes=1)
        bad = Batch(
            position=position,
            tallies={CountKey(BTC, 1, 60): tally(seen=1)},
            runs=[RUN, RUN],  # twice the same key
        )
        with pytest.raises(StoreUnavailable):
            await store.record(bad)
        assert (await store.resume()).position == Position(flushes=2)
        position = Position(applied_lsn=9, flushes=2)
        await store.record(Batch(position=position, tallies=bad.tallies, runs=[RUN]))
        assert (await store.resume()).position.applied_lsn == 9

    use(control_database, scenario)
