"""Many commands at once, as bytes: in order, whole, and safely sent again."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from engine_harness import client, open_market, orders, run, service, started, until
from market_driver import BTC, cancel, new
from test_client import wire

from engine import limits
from engine.calls import BatchCall, Rows, Unanswered
from engine.errors import EngineUnavailable, OutcomeUnknown
from engine.protocol import EVENTS
from engine.reject import Reason
from engine.types import EventFlag, EventKind
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE, encode_commands


def rows_of(events: bytes) -> Rows:
    return np.frombuffer(events, EVENT_DTYPE)


def batch(first_id: int, count: int, *, first_ref: int = 0) -> bytes:
    return encode_commands(orders(first_id, count, first_ref=first_ref))


def test_a_batch_gets_the_events_of_all_its_commands_in_their_order(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                events = rows_of(await one.send_batch(batch(1, 10_000), timeout_s=20))
                assert len(events) == 15_000  # each is accepted, every second fills
                ended = events[(events["flags"] & EventFlag.LAST) != 0]
                assert ended["order_id"].tolist() == list(range(1, 10_001))
                assert ended["ref"].tolist() == list(range(1, 10_001))
                assert (np.diff(events["seq"]) >= 0).all()
                assert one.head_seq == events["seq"][-1]
                assert await one.send_batch(b"", timeout_s=1) == b""

    run(story())


def test_commands_made_with_numpy_are_sent_as_they_are(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                commands = np.zeros(500, COMMAND_DTYPE)
                for name in ("kind", "ord_type", "instrument", "epoch", "account"):
                    commands[name] = getattr(new(1), name)
                commands["tif"], commands["side"] = 1, 1
                commands["order_id"] = np.arange(1, 501)
                commands["price_ticks"] = 100
                commands["qty_lots"] = 5
                events = rows_of(await one.send_batch(commands, timeout_s=20))
                assert (events["kind"] == EventKind.ACCEPTED).all()
                assert len((await one.book(BTC)).orders) == 500

    run(story())


def test_batches_and_single_commands_share_a_session(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                many, few, more = await asyncio.gather(
                    one.send_batch(batch(1, 5_000), timeout_s=20),
                    one.send([new(90_001), cancel(90_001)], timeout_s=20),
                    one.send_batch(batch(100_001, 3_000), timeout_s=20),
                )
                assert set(rows_of(many)["ref"]) == set(range(1, 5_001))
                assert [answer.events[0].ref for answer in few] == [5_001, 5_002]
                assert set(rows_of(more)["ref"]) == set(range(5_003, 8_003))

    run(story())


def test_a_batch_sent_again_gets_its_original_outcomes(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                first = await one.send_batch(batch(1, 3_000, first_ref=50), timeout_s=20)
                # The first half is known, the second half is new, and comes out after it.
                again = await one.send_batch(batch(1, 6_000, first_ref=50), timeout_s=20)
                assert again[: len(first)] == first
                assert len(rows_of(again)) == 9_000
                (next_one,) = await one.send([new(90_000)], timeout_s=10)
                assert next_one.events[0].ref == 6_050

    run(story())


def test_a_batch_survives_connections_that_break(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            await open_market(port)
            one = client(between.port)
            await one.start()
            between.cuts_answers = True
            sending = asyncio.ensure_future(one.send_batch(batch(1, 30_000), timeout_s=60))
            for _ in range(5):
                before = between.swallowed
                await until(lambda b=before: between.swallowed > b, "answers are lost")
                between.cut()
                between.cuts_answers = False
                await until(lambda: one.is_connected, "it is connected again")
                between.cuts_answers = True
            between.cut()
            between.cuts_answers = False
            events = rows_of(await sending)
            assert events["ref"].tolist() == [
                ref for n in range(1, 30_001, 2) for ref in (n, n + 1, n + 1)
            ]
            assert (events["reason"] == Reason.NONE).all()
            await one.close()

    run(story())


@pytest.mark.parametrize(
    ("commands", "told"),
    [
        (batch(1, 2, first_ref=5)[:100], "100 bytes of commands: each is 64"),
        (batch(1, 2, first_ref=5) + batch(3, 1, first_ref=9), "all 0, or consecutive"),
        (batch(1, 2, first_ref=5) + batch(3, 1), "all 0, or consecutive"),
        (batch(1, 1) + batch(3, 1, first_ref=1), "all 0, or consecutive"),
    ],
)
def test_what_is_no_batch_is_not_sent(tmp_path: Path, commands: bytes, told: str) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, started(port) as one:
            with pytest.raises(ValueError, match=told):
                await one.send_batch(commands, timeout_s=5)
            assert len(rows_of(await one.send_batch(batch(1, 1), timeout_s=5))) == 1

    run(story())


def test_a_reference_is_in_one_call_at_a_time(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            one = client(between.port)
            await one.start()
            between.cuts_answers = True
            sending = asyncio.ensure_future(
                one.send_batch(batch(1, 100, first_ref=10), timeout_s=20)
            )
            single = asyncio.ensure_future(one.send([new(1, ref=500)], timeout_s=20))
            await asyncio.sleep(0)
            with pytest.raises(ValueError, match="twice"):
                await one.send([new(1, ref=109)], timeout_s=1)
            with pytest.raises(ValueError, match="twice"):
                await one.send_batch(batch(1, 3, first_ref=108), timeout_s=1)
            with pytest.raises(ValueError, match="twice"):
                await one.send_batch(batch(1, 3, first_ref=498), timeout_s=1)
            between.cuts_answers = False
            between.cut()
            assert len(rows_of(await sending)) == 100
            assert len(await single) == 1
            await one.close()

    run(story())


def test_a_batch_without_an_answer_in_time_says_what_is_not_known(tmp_path: Path) -> None:
    async def story() -> None:
        async with service(tmp_path) as port, wire(port) as between:
            await open_market(port)
            one = client(between.port)
            with pytest.raises(EngineUnavailable, match="has not been started"):
                await one.send_batch(batch(1, 5), timeout_s=1)
            await one.start()
            between.cuts_answers = True
            with pytest.raises(OutcomeUnknown, match="5 of 5 commands of 'proxy-0'"):
                await one.send_batch(batch(1, 5, first_ref=1), timeout_s=0.3)
            between.cuts_answers = False
            between.cut()
            again = await one.send_batch(batch(1, 5, first_ref=1), timeout_s=10)
            assert rows_of(again)["reason"].tolist() == [0] * 7
            await one.close()

    run(story())


def test_no_more_is_unanswered_than_the_engine_keeps_outcomes_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLIENT_UNANSWERED_MAX", 300)
    monkeypatch.setattr(limits, "FRAME_COMMANDS_MAX", 100)
    most = 0
    receive = Unanswered.receive

    def watched(self: Unanswered, payload: memoryview) -> None:
        nonlocal most
        most = max(most, len(self))
        receive(self, payload)

    monkeypatch.setattr(Unanswered, "receive", watched)

    async def story() -> None:
        async with service(tmp_path) as port:
            await open_market(port)
            async with started(port) as one:
                both = await asyncio.gather(
                    one.send_batch(batch(1, 2_000), timeout_s=20),
                    one.send_batch(batch(10_001, 2_000), timeout_s=20),
                )
                assert [len(rows_of(events)) for events in both] == [3_000, 3_000]

    run(story())
    assert 200 <= most <= 300


def test_answers_out_of_order_or_twice_end_up_in_order_and_once() -> None:
    def answered(call: BatchCall, refs: list[int]) -> None:
        rows = np.zeros(2 * len(refs), EVENT_DTYPE)
        rows["kind"], rows["ref"] = EventKind.ACCEPTED, np.repeat(refs, 2)
        rows["sub"] = [0, 1] * len(refs)
        rows["flags"][1::2] = EventFlag.LAST
        unanswered.receive(memoryview(EVENTS.pack(1, 1) + rows.tobytes()))

    async def story() -> None:
        call = BatchCall(batch(1, 6), 10)
        unanswered.enter(call, 0, 4)
        answered(call, [13, 14])
        assert (call.waiting, len(unanswered)) == (2, 2)
        assert np.frombuffer(unanswered.again(), COMMAND_DTYPE)["ref"].tolist() == [11, 12]
        answered(call, [11, 13, 12, 99, 15])  # 13 again, 99 of another, 15 not entered
        unanswered.enter(call, 4, 6)
        answered(call, [15, 16])
        assert call.done.done()
        rows = rows_of(call.events())
        assert rows["ref"].tolist() == [ref for ref in range(11, 17) for _ in range(2)]
        assert rows["sub"].tolist() == [0, 1] * 6

    unanswered = Unanswered()
    run(story())
