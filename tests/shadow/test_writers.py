"""Whose dark operations are: what was seen counts, what was not is never guessed, and in bounds."""

from __future__ import annotations

import doctest
from typing import Any

import msgspec
import psycopg
import pytest
from harness import BTC, SCALES, World, buy, play, sell, shadow
from hypothesis import given
from hypothesis import strategies as st
from peatio import Exchange, Settings
from peatio_told import transactions

from shadow import limits, writers
from shadow.apply import Applier
from shadow.instrument import Instrument
from shadow.later import Later
from shadow.operation import OrderInserted, Place
from shadow.pipeline import SYSTEM_CLOCK
from shadow.store import Store
from shadow.store_rows import Batch, DarkKey, InstrumentRow, Position
from shadow.verdict import Evidence
from shadow.work import TxEntry
from shadow.writers import OTHERS, Writer, WriterCount, Writers, largest, not_seen, told

pytestmark = pytest.mark.usefixtures("impatient")

RAKE = Writer("app", "rake orders:close")
SIDEKIQ = Writer("app", "sidekiq 6.5 [exchange]")


def count(writer: Writer, operations: int) -> WriterCount:
    return WriterCount(role=writer.role, application=writer.application, count=operations)


def named(found: Evidence) -> dict[str, int]:
    return {str(one.writer): one.count for one in found.dark_writers}


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(writers).failed == 0


# --- what is remembered


def test_a_transaction_is_seen_or_it_is_not() -> None:
    known = Writers()
    for _ in range(3):  # looked at three times while it was open
        known.saw(7, RAKE)
    assert (known.of(7), known.of(8)) == (RAKE, None)
    assert known.of(7 + (5 << 32)) == RAKE  # as a reader that polls has its number
    assert known.take_seen() == {RAKE: 1}
    assert known.take_seen() == {}


def test_a_number_that_comes_again_is_its_newest_writer() -> None:
    known = Writers()
    known.saw(7, RAKE)
    known.saw(7, SIDEKIQ)
    assert known.of(7) == SIDEKIQ


def test_the_oldest_transactions_and_too_many_writers_are_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(writers, "WRITERS_KEPT_MAX", 10)
    known = Writers()
    for xid in range(1, 1001):
        known.saw(xid, Writer("app", f"job {xid}"))
    assert [xid for xid in range(1, 1001) if known.of(xid)] == list(range(991, 1001))
    seen = known.take_seen()
    assert len(seen) == limits.WRITERS_MAX + 1
    assert sum(seen.values()) == 1000


# --- what is told


@given(
    st.lists(
        st.builds(
            WriterCount,
            role=st.sampled_from(["", "app", "job"]),
            application=st.text(max_size=2),
            count=st.integers(1, 9),
        )
    ),
    st.integers(0, 5),
)
def test_nothing_is_lost_when_few_are_named(counts: list[WriterCount], most: int) -> None:
    kept = largest(counts, most)
    assert sum(one.count for one in kept) == sum(one.count for one in counts)
    assert len(kept) <= most + 1


def test_what_nobody_has_seen_is_said() -> None:
    assert told(3, ()) == "3 by writers not seen"
    assert not_seen(3, [count(RAKE, 2)]) == 1
    assert told(2, [count(RAKE, 2)]) == "2 by role app, application 'rake orders:close'"
    many = [count(Writer("app", f"job {n}"), 20 - n) for n in range(10)]
    assert told(155, many).endswith("; 65 by others")


# --- of a monolith that matches later


class Deaf:
    """The applier's neighbours, which are not asked here."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: TxEntry(0) if name == "transaction" else None


def test_it_is_who_asked_and_not_who_commits_when_it_is_decided() -> None:
    """A daemon's transaction decides, later, what another has asked for."""
    exchange = Exchange(3, Settings(market=BTC, workers=2))
    later = Later("stop_level")
    later.start(BTC, ())
    instrument = Instrument(SCALES[BTC], InstrumentRow(symbol=BTC, run=1, following=True))
    deaf: Any = Deaf()
    applier = Applier(
        instruments={BTC: instrument},
        joins=deaf,
        feed=deaf,
        recorder=deaf,
        settler=deaf,
        clock=SYSTEM_CLOCK,
        later=later,
    )
    wrote: dict[int, int] = {}  # order -> the transaction that brought it
    for tx in transactions(exchange.run(100)):
        for change in tx.changes:
            if isinstance(change, OrderInserted):
                wrote[change.order.order_id] = tx.xid
        applier.apply(tx)
    found = {
        item.operation.order.order_id: item.xid
        for group in instrument.waiting
        for item in group.items
        if isinstance(item.operation, Place)
    }
    assert len(found) > 50
    assert found == wrote


# --- through the comparison and its store


def test_dark_operations_are_their_writers_also_after_a_restart(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            seen = world.monolith.place(buy(90))
            world.writers.saw(seen.tx.xid, SIDEKIQ)
            await world.do(seen)  # through the proxy: not dark, whoever wrote it
            for order, writer in ((sell(102), RAKE), (sell(101), SIDEKIQ), (sell(100), None)):
                done = world.monolith.place(order)
                if writer is not None:
                    world.writers.saw(done.tx.xid, writer)
                await world.do(done, captured=False)
            found = await world.until(lambda one: one.counts.dark == 3)
            assert named(found) == {str(RAKE): 1, str(SIDEKIQ): 1}
        async with world.running():
            done = world.monolith.place(sell(103))
            world.writers.saw(done.tx.xid, RAKE)
            await world.do(done, captured=False)
            found = await world.until(lambda one: one.counts.dark == 4)
            assert named(found) == {str(RAKE): 2, str(SIDEKIQ): 1}
            (parity,) = await world.reader.parity(BTC)
            assert not_seen(4, parity.evidence.dark_writers) == 1

    play(control_database, scenario)


def test_a_capture_that_comes_late_takes_it_back_from_the_writer(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            done = world.monolith.place(sell(100))
            world.writers.saw(done.tx.xid, RAKE)
            await world.do(done, captured=False)
            found = await world.until(lambda one: one.counts.dark == 1)
            assert named(found) == {str(RAKE): 1}
            world.redis.add([done.capture])
            found = await world.until(lambda one: one.counts.dark == 0)
            assert named(found) == {}

    play(control_database, scenario)


def test_a_dark_operation_that_differs_is_its_writers_too(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.feed.alter = lambda command: msgspec.structs.replace(
                command, price_ticks=command.price_ticks + 1
            )
            done = world.monolith.place(sell(100))
            world.writers.saw(done.tx.xid, SIDEKIQ)
            await world.do(done)
            await world.settled(1)
            world.feed.alter = lambda command: command
            done = world.monolith.place(buy(100))  # trades there, and not in the engine
            world.writers.saw(done.tx.xid, RAKE)
            await world.do(done, captured=False)
            found = await world.until(lambda one: one.counts.dark == 1)
            assert found.counts.mismatched >= 1
            assert named(found) == {str(RAKE): 1}

    play(control_database, scenario)


def test_the_store_keeps_a_bounded_number_of_writers(control_database: str) -> None:
    most, every = limits.WRITERS_MAX, limits.WRITERS_MAX + 20
    named = [Writer("app", f"job {n:03}") for n in range(every)]

    def batch(flushes: int, operations: int, order: list[Writer]) -> Batch:
        return Batch(
            position=Position(flushes=flushes),
            instruments=[InstrumentRow(symbol=BTC, run=1, first_run=1)],
            dark={DarkKey(BTC, 1, writer): operations for writer in order},
            writers_seen=dict.fromkeys(order, operations),
        )

    async def scenario(world: World) -> None:
        await shadow(world)
        store = Store(control_database)
        await store.resume()
        await store.record(batch(1, 2, named))
        await store.record(batch(2, -1, named[::-1]))  # what is taken back is taken from the same
        await store.close()
        found = (await world.evidence()).dark_writers
        assert len(found) == most + 1
        assert {one.count for one in found[:-1]} == {1}
        assert (found[-1].writer, found[-1].count) == (OTHERS, every - most)
        (parity,) = await world.reader.parity(BTC)
        assert len(parity.writers_seen) == limits.WRITERS_SEEN_TOLD

    play(control_database, scenario)
    with psycopg.connect(control_database) as connection:
        for table in ("dark_writer", "writer_seen"):
            row = connection.execute(f"SELECT count(*) FROM railswitch.{table}").fetchone()
            assert row == (most + 1,)
