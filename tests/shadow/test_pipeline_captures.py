"""What captures add: dark orders, gaps, refusals, answers that never came."""

from __future__ import annotations

import msgspec
import pytest
from harness import BTC, ETH, World, buy, play, sell, shadow

from bridge.bench.synthetic import Order
from engine.types import OrderType, Side, TimeInForce
from shadow.capture import Capture, Outcome
from shadow.errors import AdapterFailed
from shadow.normalise import Refusal
from shadow.store import Store
from shadow.store_rows import StageRow
from shadow.verdict import Kind, OperationVerdict

pytestmark = pytest.mark.usefixtures("impatient")


def kinds(verdict: OperationVerdict) -> list[Kind]:
    return [one.kind for one in verdict.differences]


def test_an_order_that_never_passed_a_proxy_is_dark(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(101))
            await world.place(sell(100), captured=False)
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.dark) == (2, 1)

    play(control_database, scenario)


def test_a_capture_that_comes_late_takes_the_darkness_back(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            done = await world.place(sell(100), captured=False)
            await world.until(lambda one: one.counts.dark == 1)
            world.redis.add([done.capture])
            found = await world.until(lambda one: one.counts.dark == 0)
            assert found.counts.matched == found.counts.seen == 1

    play(control_database, scenario)


def test_an_operation_whose_capture_is_lost_is_a_gap_and_not_dark(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.place(sell(101), captured=False)  # its number is skipped
            await world.place(sell(102))
            found = await world.settled(3)
            assert (found.counts.matched, found.counts.gaps, found.counts.dark) == (2, 1, 0)

    play(control_database, scenario)


def test_a_gap_that_shows_later_takes_the_darkness_back(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.place(sell(101), captured=False)
            await world.until(lambda one: one.counts.dark == 1)
            await world.place(sell(102))
            found = await world.until(lambda one: one.counts.gaps == 1)
            assert (found.counts.seen, found.counts.matched, found.counts.dark) == (3, 2, 0)

    play(control_database, scenario)


def test_a_lost_capture_that_no_operation_misses_counts_for_every_instrument(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world, BTC, ETH)
        async with world.running():
            await world.loaded(BTC)
            await world.loaded(ETH)
            await world.place(sell(100))
            world.monolith.capture("place", 1, b"", 422, b"")  # never sent
            await world.place(sell(101))
            found = await world.until(lambda one: one.counts.gaps == 1)
            assert (found.counts.seen, found.counts.matched) == (3, 2)
            found = await world.until(lambda one: one.counts.gaps == 1, ETH)
            assert found.counts.seen == 1

    play(control_database, scenario)


def test_an_unreadable_entry_is_a_gap_and_the_others_go_on(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100), captured=False)
            world.redis.add_fields(
                {b"worker": b"synthetic", b"first": b"1", b"count": b"1", b"batch": b"\xc1"}
            )
            world.redis.add_fields({b"worker": b"\xff", b"first": b"x"})
            await world.place(sell(101))
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.gaps, found.counts.dark) == (1, 1, 0)

    play(control_database, scenario)


def test_a_client_that_left_without_an_answer_is_found_by_its_request(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            done = world.monolith.place(sell(100))
            capture = msgspec.structs.replace(
                done.capture,
                outcome=Outcome.UPSTREAM_FAILED,
                status=0,
                response_body=b"",
                answered_mono_ns=0,
            )
            await world.do(msgspec.structs.replace(done, capture=capture))
            found = await world.settled(1)
            assert (found.counts.matched, found.counts.dark) == (1, 0)

    play(control_database, scenario)


def test_its_request_is_kept_while_the_operation_waits_for_the_engine(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow.books.BOOK_CHECK_S", 60.0)  # it would wait for the engine too

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.shard.present.clear()
            done = world.monolith.place(sell(100))
            capture = msgspec.structs.replace(
                done.capture, outcome=Outcome.UPSTREAM_FAILED, status=0, response_body=b""
            )
            await world.do(msgspec.structs.replace(done, capture=capture))
            marks = len(world.slot.log) + 8  # a tenth of a second each; it is over after three
            await world.happened(lambda: len(world.slot.log) >= marks)
            world.shard.present.set()
            found = await world.settled(1)
            assert (found.counts.matched, found.counts.dark) == (1, 0)

    play(control_database, scenario)


def test_a_lost_capture_is_kept_for_an_operation_that_waits_for_the_engine(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadow.books.BOOK_CHECK_S", 60.0)  # it would wait for the engine too

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.shard.present.clear()
            await world.place(sell(100), captured=False)  # its number is skipped
            await world.place(sell(101))
            marks = len(world.slot.log) + 15  # a tenth of a second each; it counts after a second
            await world.happened(lambda: len(world.slot.log) >= marks)
            world.shard.present.set()
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.gaps, found.counts.dark) == (1, 1, 0)

    play(control_database, scenario)


def test_captures_of_orders_behind_it_do_not_stop_an_operation_for_ever(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when Redis was away, and one worker's captures are far ahead of another's."""
    monkeypatch.setattr("shadow.joins.CAPTURES_HELD_MAX", 3)
    monkeypatch.setattr("shadow.pipeline.OPERATIONS_PENDING_MAX", 1)

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            world.slot.flows.clear()
            late = await world.place(sell(100), captured=False)
            world.monolith._next_capture = 1  # it is another worker's
            for price in range(101, 105):
                await world.place(sell(price))
            world.redis.add([msgspec.structs.replace(late.capture, worker="late")])
            world.slot.flows.set()
            found = await world.settled(5)
            assert (found.counts.matched, found.counts.gaps, found.counts.dark) == (4, 1, 0)

    play(control_database, scenario)


def test_an_order_that_was_answered_and_never_written_is_a_mismatch(
    control_database: str,
) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            lost = world.monolith.place(sell(101))
            world.monolith.cancel(2)  # it is nowhere: not in the stream, nor in the open orders
            world.redis.add([world.timed(lost.capture)])
            found = await world.settled(2)
            assert (found.counts.matched, found.counts.mismatched) == (1, 1)
            (verdict,) = await world.verdicts()
            assert (verdict.order_id, kinds(verdict)) == (2, [Kind.AGE])

    play(control_database, scenario)


def _refused_place(world: World, order: Order, *errors: tuple[str, str]) -> Capture:
    status, body = world.dialect.render_refusal(Refusal(status=422, errors=errors))
    request = world.monolith.request_body(order)
    return world.timed(world.monolith.capture("place", order.account, request, status, body))


def test_refused_orders_are_compared_by_their_answers(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            zero = msgspec.structs.replace(sell(100), qty_lots=0)
            told = ("quantity", "must be greater than 0")
            world.redis.add([_refused_place(world, zero, told)])
            found = await world.settled(1)
            assert found.counts.matched == 1
            world.redis.add([_refused_place(world, zero, ("quantity", "must be more"))])
            world.redis.add([_refused_place(world, sell(100), ("base", "insufficient funds"))])
            found = await world.settled(3)
            assert (found.counts.matched, found.counts.mismatched) == (1, 2)
            assert [kinds(one) for one in found.mismatches] == [
                [Kind.ANSWER],
                [Kind.REJECTED_BY_ONE],
            ]
            assert found.taint == ""

    play(control_database, scenario)


def _refused_cancel(world: World, order_id: int, answer: tuple[int, bytes]) -> Capture:
    path = {"id": str(order_id)}
    return world.timed(world.monolith.capture("cancel", 1, b"", *answer, path_params=path))


def test_refused_cancels_are_compared_once_a_mark_has_passed(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            await world.place(sell(101))
            await world.place(sell(102, account=9))
            await world.do(world.monolith.cancel(1))
            not_open, not_found = world.dialect.render_not_open(), world.dialect.render_not_found()
            world.redis.add([_refused_cancel(world, 1, not_open)])  # canceled already: right
            world.redis.add([_refused_cancel(world, 3, not_found)])  # another's: right
            world.redis.add([_refused_cancel(world, 2, not_open)])  # it is open: wrong
            world.redis.add([_refused_cancel(world, 1, not_found)])  # it is their own: wrong
            world.redis.add([_refused_cancel(world, 12345, not_found)])  # nobody's
            found = await world.settled(8)
            assert (found.counts.matched, found.counts.mismatched) == (6, 2)
            assert [(one.order_id, kinds(one)) for one in found.mismatches] == [
                (2, [Kind.REJECTED_BY_ONE]),
                (1, [Kind.ANSWER]),
            ]

    play(control_database, scenario)


def test_a_refusal_whose_comparison_fails_is_uncomparable_and_the_others_go_on(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(world: World) -> None:
        def failing(*_: object) -> tuple[int, bytes]:
            raise AdapterFailed("no such word")

        await shadow(world)
        async with world.running():
            await world.loaded()
            zero = world.monolith.request_body(msgspec.structs.replace(sell(100), qty_lots=0))
            errors = (("quantity", "must be greater than 0"),)
            refused = world.dialect.render_refusal(Refusal(status=422, errors=errors))
            not_open = world.dialect.render_not_open()
            monkeypatch.setattr(world.dialect, "render_refusal", failing)
            world.redis.add([world.timed(world.monolith.capture("place", 1, zero, *refused))])
            await world.place(sell(100))
            await world.do(world.monolith.cancel(1))
            world.redis.add([_refused_cancel(world, 1, not_open)])
            await world.place(sell(101))
            found = await world.settled(5)
            assert (found.counts.matched, found.counts.uncomparable) == (3, 2)
            assert all("no such word" in one.reason for one in await world.verdicts())

    play(control_database, scenario)


def test_market_and_immediate_orders_agree_too(control_database: str) -> None:
    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            market = Order(
                symbol=BTC,
                account=3,
                side=Side.BUY,
                qty_lots=15,
                ord_type=OrderType.MARKET,
                tif=TimeInForce.IOC,
            )
            immediate = msgspec.structs.replace(buy(90), tif=TimeInForce.IOC)
            await world.place(market)
            await world.place(sell(100))
            await world.place(market)
            await world.place(immediate)
            found = await world.settled(4)
            assert found.counts.matched == 4

    play(control_database, scenario)


def test_the_first_capture_after_a_rollback_is_kept_until_its_marker_comes(
    control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be read before the stage row is looked at again, and before the marker too."""
    looked: list[str] = []
    stages = Store.stages

    async def looking(store: Store) -> dict[str, StageRow]:
        rows = await stages(store)
        looked.append(rows[BTC].stage)
        return rows

    monkeypatch.setattr(Store, "stages", looking)

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            flip_id = await world.flip(BTC, "flip")
            await world.mark_fence(BTC, flip_id, "engine", 2)
            await world.until(lambda one: one.run == 1)
            await world.stage(BTC, "live", 2, stage_from="shadow")
            looked.clear()
            await world.happened(lambda: looked.count("live") > 1)  # and followed
            back_id = await world.flip(BTC, "rollback")
            world.slot.flows.clear()
            await world.mark_fence(BTC, back_id, "legacy", 3)
            await world.place(sell(100))
            await world.happened(lambda: world.redis.read_after == world.redis.entries[-1].id)
            await world.stage(BTC, "shadow", 3, stage_from="live")
            world.slot.flows.set()
            found = await world.until(lambda one: one.run == 2 and one.counts.seen == 1)
            found = await world.until(lambda one: one.counts.pending == 0)
            assert (found.counts.matched, found.counts.dark) == (1, 0)

    play(control_database, scenario)


def test_a_canceled_row_that_a_job_writes_again_is_no_new_cancel(control_database: str) -> None:
    """The change stream shows the row as it is now, and not what it was before."""

    async def scenario(world: World) -> None:
        await shadow(world)
        async with world.running():
            await world.loaded()
            await world.place(sell(100))
            canceled = await world.do(world.monolith.cancel(1))
            await world.settled(2)
            await world.slot.append(world.monolith.transaction(*canceled.tx.changes))
            await world.place(sell(101))
            found = await world.settled(3)
            found = await world.until(lambda one: one.counts.pending == 0)
            assert (found.counts.seen, found.counts.matched) == (3, 3)
            assert (found.counts.dark, found.taint, found.mismatches) == (0, "", ())

    play(control_database, scenario)
