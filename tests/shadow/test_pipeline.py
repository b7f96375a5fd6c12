"""The comparison as a whole: a running market is loaded, followed, compared, and handed over."""

from __future__ import annotations

from datetime import date
from itertools import islice
from typing import Any

import msgspec
import psycopg
import pytest
from harness import BTC, ETH, World, buy, play, sell, shadow

from bridge.bench.synthetic import Done, random_flow
from engine.types import Command, CommandKind, Mode
from shadow.answer import OrderView
from shadow.known import Rule
from shadow.operation import (
    FillInserted,
    LegacyTransaction,
    OrderDeleted,
    OrderUpdated,
    Unreadable,
)
from shadow.verdict import Kind, OperationVerdict, Verdict

pytestmark = pytest.mark.usefixtures("impatient")


def kinds(verdict: OperationVerdict) -> list[Kind]:
    return [one.kind for one in verdict.differences]


def last_come(world: World) -> Done:
    """The younger of two equal orders is served first: what a monolith that breaks time priority
    writes. Its own book is in order again afterwards, as if both had been one's.
    """
    younger = max(world.monolith.images)
    done = world.monolith.place(buy(100, 4))
    return msgspec.structs.replace(done, tx=_met_instead(done.tx, younger))


def _met_instead(tx: LegacyTransaction, maker: int) -> LegacyTransaction:
    changes: list[Any] = []
    for change in tx.changes:
        if isinstance(change, FillInserted):
            fill = msgspec.structs.replace(change.fill, maker_order_id=maker)
            change = FillInserted(fill=fill)
        changes.append(change)
    return msgspec.structs.replace(tx, changes=tuple(changes))


# --- following


def test_a_running_market_is_loaded_and_followed_without_a_difference(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        flow = random_flow(world.monolith, [BTC, ETH], seed=1)
        for done in islice(flow, 200):  # before shadowing begins: only the open orders matter
            await world.do(done)
        await shadow(world, BTC)
        async with world.running():
            await world.loaded()
            done = [await world.do(one) for one in islice(flow, 400)]
            wanted = sum(one.capture.response_body.count(b"BTC-USD") for one in done)
            await world.settled(wanted)
            found = await world.until(lambda one: one.engine_latency.count == wanted)
            assert found.counts.matched == found.counts.seen == wanted
            assert found.counts.fills > 20
            assert found.counts.dark == found.counts.gaps == 0
            assert found.taint == ""
            assert found.legacy_latency.count == wanted
            assert found.legacy_latency.p50_us == pytest.approx(900, rel=0.01)
            found = await world.until(lambda one: one.book_equal is not None)
            assert found.book_equal
            assert found.lag_ms is not None
        assert await world.verdicts() == []
        assert world.shard.market.orders(2) == b""  # ETH-USD is off: nothing of it was fed

    play(control_database, scenario)


def test_an_instrument_that_is_put_off_is_left_alone(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC, ETH)
        async with world.running():
            await world.loaded(BTC)
            await world.loaded(ETH)
            await world.place(sell(100))
            await world.settled(1)
            await world.stage(BTC, "off", 2, stage_from="shadow")
            sent = await _until_left(world)
            await world.place(sell(101))
            await world.place(sell(100, symbol=ETH))
            await world.settled(1, ETH)
            assert world.feed.sent == sent + 1

    play(control_database, scenario)


async def _until_left(world: World) -> int:
    """Marks are written only while something is followed, so one more load says it: ETH is."""
    await world.until(lambda found: found.stage == "off")
    async with await psycopg.AsyncConnection.connect(world.url, autocommit=True) as connection:
        while True:
            cursor = await connection.execute(
                "SELECT following FROM railswitch.shadow_instrument WHERE symbol = %s", (BTC,)
            )
            if await cursor.fetchone() == (False,):
                return world.feed.sent


def test_an_engine_that_is_not_open_yet_is_waited_for_with_the_reason(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        world.shard.mode(1, Mode.CLOSED, 2)
        await world.place(sell(100))
        await shadow(world)
        async with world.running():
            found = await world.until(lambda one: one.taint != "")
            assert "closed" in found.taint
            world.shard.mode(1, Mode.SHADOW, 3)
            found = await world.loaded()
            await world.place(buy(100))
            found = await world.settled(1)
            assert found.counts.matched == 1
            assert found.taint == ""

    play(control_database, scenario)


# --- differences


def test_a_broken_time_priority_is_one_root_with_its_dependants_and_then_resynced(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100, 4))
            await world.place(sell(100, 4))
            world.feed.alter = lambda one: _other_quantity(one, order_id=3, qty_lots=1)
            await world.place(buy(100, 4))
            await world.place(buy(100, 4))
            found = await world.until(lambda one: one.run == 2 and one.counts.pending == 0)
            root, dependant = [one for one in await world.verdicts() if one.order_id in (3, 4)]
            assert root.verdict is dependant.verdict is Verdict.MISMATCH
            assert (root.root_order_id, dependant.root_order_id) == (0, 3)
            assert kinds(root) == [Kind.QUANTITY]
            assert root.legacy["fills"] == [{"maker": 1, "price_ticks": 100, "qty_lots": 4}]
            assert root.engine["fills"] == [{"maker": 1, "price_ticks": 100, "qty_lots": 1}]
            # After the resync all agrees again, and what was is not forgotten.
            await world.place(sell(105))
            found = await world.settled(5)
            assert (found.counts.matched, found.counts.mismatched) == (3, 2)
            assert [one.order_id for one in found.mismatches] == [3]
            found = await world.until(lambda one: bool(one.book_equal) and one.taint == "")
            (parity,) = await world.reader.parity(BTC)
            assert [one.reason.split(":")[0] for one in parity.runs] == [
                "resync",
                "shadowing begins",
            ]
            assert [one.dependants for one in parity.roots] == [1]
            assert parity.counts_by_run[2].matched == 1

    play(control_database, scenario)


def _other_quantity(command: Command, *, order_id: int, qty_lots: int) -> Command:
    if command.order_id != order_id:
        return command
    return msgspec.structs.replace(command, qty_lots=qty_lots)


def test_the_younger_order_served_first_is_a_priority_mismatch(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100, 4))
            await world.place(sell(100, 4))
            await world.do(last_come(world))
            found = await world.settled(3)
            assert found.counts.mismatched == 1
            assert kinds(found.mismatches[0]) == [Kind.PRIORITY]

    play(control_database, scenario)


def test_a_declared_difference_is_known_up_to_its_cap(control_database: str) -> None:
    async def scenario(world: World) -> None:
        world.known = (
            Rule(id="lifo", kinds=(Kind.PRIORITY,), expires=date(2100, 1, 1), hits_max=1),
        )
        await shadow(world)
        async with world.running():
            await world.loaded()
            for _ in range(2):
                await world.place(sell(100, 4))
                await world.place(sell(100, 4))
            await world.do(last_come(world))
            found = await world.settled(5)
            assert (found.counts.known, found.counts.mismatched) == (1, 0)
            await world.until(lambda one: one.run == 2 and one.taint == "")
            await world.do(last_come(world))
            found = await world.settled(6)
            assert (found.counts.known, found.counts.mismatched) == (1, 1)
            (known,) = [one for one in await world.verdicts() if one.verdict is Verdict.KNOWN]
            assert known.reason == "lifo"

    play(control_database, scenario)


def test_an_answer_that_the_client_would_read_otherwise_is_a_mismatch_and_no_divergence(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            done = world.monolith.place(sell(100))
            body = done.capture.response_body.replace(b'"1.0"', b'"1.00"')
            assert body != done.capture.response_body
            capture = msgspec.structs.replace(done.capture, response_body=body)
            await world.do(msgspec.structs.replace(done, capture=capture))
            await world.place(sell(101))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.mismatched) == (1, 1)
            assert found.taint == ""
            (verdict,) = await world.verdicts()
            assert kinds(verdict) == [Kind.ANSWER]
            assert "body.order.price" in verdict.differences[0].what

    play(control_database, scenario)


def test_a_request_for_something_else_than_was_written_is_a_mismatch(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            done = world.monolith.place(sell(100))
            body = world.monolith.request_body(sell(101))
            capture = msgspec.structs.replace(done.capture, request_body=body)
            await world.do(msgspec.structs.replace(done, capture=capture))
            await world.settled(1)
            (verdict,) = await world.verdicts()
            assert kinds(verdict) == [Kind.COMMAND]

    play(control_database, scenario)


def test_an_unreadable_row_is_uncomparable_and_taints_until_the_resync(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            row = Unreadable(symbol=BTC, order_id=77, reason="price off the tick")
            await world.slot.append(world.monolith.transaction(row))
            found = await world.until(lambda one: one.counts.uncomparable == 1)
            found = await world.until(lambda one: one.run == 2)
            await world.place(sell(100))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.uncomparable) == (1, 1)
            (verdict,) = await world.verdicts()
            assert (verdict.order_id, verdict.reason) == (77, "price off the tick")

    play(control_database, scenario)


def test_an_open_order_that_cannot_be_read_keeps_the_instrument_tainted(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        world.unreadable = [Unreadable(symbol=BTC, order_id=5, reason="price off the tick")]
        await shadow(world)
        async with world.running():
            found = await world.until(lambda one: one.run == 1 and one.book_equal is not None)
            assert "order 5: price off the tick" in found.taint
            assert found.book_equal is False

    play(control_database, scenario)


def test_a_deleted_open_order_is_uncomparable_and_an_old_one_is_nothing(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.slot.append(world.monolith.transaction(OrderDeleted(order_id=999)))
            await world.slot.append(world.monolith.transaction(OrderDeleted(order_id=1)))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.uncomparable) == (1, 1)

    play(control_database, scenario)


def test_a_touched_order_is_nothing_and_an_amended_one_is_uncomparable(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            image = world.monolith.images[1]
            await world.slot.append(world.monolith.transaction(OrderUpdated(order=image)))
            found = await world.settled(1)
            amended = msgspec.structs.replace(image, price_ticks=99)
            await world.slot.append(world.monolith.transaction(OrderUpdated(order=amended)))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.uncomparable) == (1, 1)
            (verdict,) = await world.verdicts()
            assert "amended" in verdict.reason

    play(control_database, scenario)


def test_a_book_that_differs_behind_the_feed_s_back_is_found_and_resynced(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.settled(1)
            cancel = Command(kind=CommandKind.CANCEL, instrument=1, account=1, order_id=1)
            await world.load.send([cancel], timeout_s=1)
            found = await world.until(lambda one: one.book_equal is False)
            assert "open in legacy and not in the engine" in found.taint
            found = await world.until(lambda one: one.run == 2 and bool(one.book_equal))
            assert found.taint == ""

    play(control_database, scenario)


def test_a_comparison_that_fails_is_uncomparable_and_the_others_go_on(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        render = world.dialect.render_placed

        def failing(view: OrderView) -> tuple[int, bytes]:
            if view.order_id == 2:
                raise KeyError("no such word")
            return render(view)

        monkeypatch.setattr(world.dialect, "render_placed", failing)
        await shadow(world)
        async with world.running():
            await world.loaded()
            for price in (100, 101, 102):
                await world.place(sell(price))
            found = await world.settled(3)
            assert (found.counts.matched, found.counts.uncomparable) == (2, 1)
            (verdict,) = await world.verdicts()
            assert (verdict.order_id, "no such word" in verdict.reason) == (2, True)

    play(control_database, scenario)
