"""Requests that cancel many orders, while some instrument is live or held."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from bulk_world import (
    BTC,
    ETH,
    SOL,
    UNKNOWN,
    World,
    cancel,
    cancel_all,
    insert_row,
    monolith_s_answer,
    shown,
    told,
    world,
)
from proxy_rig import SCALES, response, run, until

from bridge.proxy.desk.ids import KnownOrder
from bridge.stage import Stage
from engine.errors import EngineUnavailable
from engine.reject import Reason

# --- by id


def test_cancels_follow_their_orders(legacy_database: str) -> None:
    """Cached, written, known to the engine alone, and to nobody; one query for all unknown ones."""

    async def story() -> None:
        async with world(legacy=legacy_database) as one:
            btc, eth = SCALES[BTC].instrument, SCALES[ETH].instrument
            one.stages(ETH=(Stage.LIVE, 0))
            for order_id, where in ((1, btc), (2, eth), (3, eth)):
                one.engine.open[order_id] = (where, 7)
            one.front.index.put(1, KnownOrder(BTC, 7, 9, 1))
            one.front.index.put(4, KnownOrder(BTC, 7))
            await insert_row(legacy_database, 2, ETH)
            await insert_row(legacy_database, 5, SOL)
            one.front.barrier.note_written(1, 10**9)
            asked: list[set[int]] = []
            find_many = one.front.legacy.find_many

            async def counted(ids: Any) -> Any:
                asked.append(set(ids))
                if asked[1:] == [{3, 990}]:
                    await insert_row(legacy_database, 3, ETH)
                return await find_many(ids)

            one.front.legacy.find_many = counted  # type: ignore[assignment,method-assign]
            answer = await one.ask(cancel(5, 1, 2, 3, 4, 990, "x"))
            assert told(answer)[0] == 200
            assert asked[0] == {2, 3, 5, 990}
            ids = [5, 1, 2, 3, {"state": ["is not open"]}]
            assert shown(answer, "id")[:5] == ids
            assert shown(answer, "id")[5] == {"base": ["Not Found"]}
            assert one.came == [
                b"DELETE /api/v1/orders/5",
                b"DELETE /api/v1/orders/990",
                b"DELETE /api/v1/orders/x",
            ]

    run(story())


def test_cancels_of_the_monolith_s_orders_pass_untouched(legacy_database: str) -> None:
    """Also where the engine had to be asked about one that nobody knows."""

    async def story() -> None:
        async with world(legacy=legacy_database) as one:
            one.front.barrier.note_written(1, 10**9)
            await insert_row(legacy_database, 5, ETH)
            assert (await one.ask(cancel(5, 6))).endswith(b'"as it came"')
            assert one.came == [b"DELETE /api/v1/orders/batch"]
            assert len(one.engine.calls) == 1

    run(story())


def test_cancels_wait_with_a_held_order_and_are_looked_for_again(legacy_database: str) -> None:
    async def story() -> None:
        async with world(legacy=legacy_database) as one:
            one.front.index.put(1, KnownOrder(BTC, 7, 9, 1))
            one.stages(BTC=(Stage.LIVE, 5))
            client = await one.begun(cancel(1, 2), lambda: one.front.desk.holds.held() == 1)
            one.engine.open = {1: (SCALES[BTC].instrument, 7), 2: (SCALES[BTC].instrument, 7)}
            await insert_row(legacy_database, 2, BTC)
            one.stages(BTC=(Stage.LIVE, 0))
            assert shown(await client.response(), "id") == [1, 2]
            assert len(one.engine.calls) == 1

    run(story())


def test_cancels_whose_orders_can_t_be_looked_for_come_again_later() -> None:
    async def story() -> None:
        async with world() as one:
            one.front.index.put(1, KnownOrder(BTC, 7, 9, 1))
            assert told(await one.ask(cancel(1, 2)))[0] == 503
            assert (one.came, one.engine.calls) == ([], [])

    run(story())


# --- everything


@contextlib.asynccontextmanager
async def open_orders(legacy: str, answer: Any = monolith_s_answer) -> AsyncIterator[World]:
    """Account 7 has orders 1, 3 and 5 in the engine; 2, 4 and 9 at the monolith, 9 a sale. Row 1 is
    written back; the fence guards it.
    """
    async with world(answer, legacy=legacy) as one:
        btc = SCALES[BTC].instrument
        one.engine.open = {1: (btc, 7), 3: (btc, 7), 5: (btc, 7), 6: (btc, 8)}
        for order_id, symbol, account, side in (
            (1, BTC, 7, 0),
            (2, ETH, 7, 0),
            (4, "DOGE-USD", 7, 0),
            (8, ETH, 8, 0),
            (9, SOL, 7, 1),
        ):
            await insert_row(legacy, order_id, symbol, account, side)
        for order_id in (3, 5):
            one.front.index.put(order_id, KnownOrder(BTC, 7, 9, 1))
        yield one


def test_a_cancel_of_everything_goes_to_both_sides_and_is_answered_once(
    legacy_database: str,
) -> None:
    async def story() -> None:
        async with open_orders(legacy_database) as one:
            answer = await one.ask(cancel_all())
            assert told(answer)[0] == 200
            assert shown(answer, "id") == [1, 2, 3, 4, 5, 9]
            assert one.came == [b"DELETE /api/v1/orders/%d" % n for n in (2, 4, 9)]
            assert [len(call) for call in one.engine.calls] == [1, 1]  # two at a time
            assert list(one.engine.open) == [6]
            assert [each[:2] for each in one.recorded] == [
                ("cancel", f"/api/v1/orders/{n}") for n in (2, 4, 9)
            ]

    run(story())


@pytest.mark.parametrize(
    ("query", "ids", "side"),
    [
        ("?market=BTC-USD", [1, 3, 5], 0),
        ("?side=sell", [9], 2),
        ("?market=BTC-USD&side=sell", [], 2),
    ],
)
def test_a_cancel_of_everything_of_one_kind(
    legacy_database: str, query: str, ids: list[int], side: int
) -> None:
    async def story() -> None:
        async with open_orders(legacy_database) as one:
            if side:
                one.engine.open = {6: (SCALES[BTC].instrument, 8)}
            answer = await one.ask(cancel_all(query))
            assert shown(answer, "id") == ids
            assert {(each.instrument, each.side) for call in one.engine.calls for each in call} == {
                (SCALES[BTC].instrument, side)
            }

    run(story())


@pytest.mark.parametrize("query", ["?market=ETH-USD", "?market=DOGE-USD", "?side=up"])
def test_a_cancel_of_everything_that_is_the_monolith_s_passes_untouched(
    legacy_database: str, query: str
) -> None:
    async def story() -> None:
        async with open_orders(legacy_database) as one:
            assert (await one.ask(cancel_all(query))).endswith(b'"as it came"')
            assert one.engine.calls == []

    run(story())


def test_a_cancel_of_everything_waits_for_every_hold_and_blocks_every_drain(
    legacy_database: str,
) -> None:
    async def story() -> None:
        async with open_orders(legacy_database) as one:
            one.stages(ETH=(Stage.SHADOW, 5))
            holds = one.front.desk.holds
            client = await one.begun(cancel_all(), lambda: holds.held() == 1)
            one.engine.go_on.clear()
            one.stages(ETH=(Stage.SHADOW, 0))
            await until(lambda: one.engine.calls)
            one.stages(SOL=(Stage.SHADOW, 6))
            assert holds.drained == {}
            one.engine.go_on.set()
            assert shown(await client.response(), "id") == [1, 2, 3, 4, 5, 9]
            assert holds.drained == {SOL: 6}

    run(story())


def test_an_order_that_closed_meanwhile_is_left_out(legacy_database: str) -> None:
    async def story() -> None:
        async with open_orders(legacy_database) as one:
            await insert_row(legacy_database, 990, ETH)
            answer = await one.ask(cancel_all())
            assert told(answer)[0] == 200
            assert 990 not in shown(answer, "id")
            assert b"DELETE /api/v1/orders/990" in one.came

    run(story())


def test_a_cancel_of_everything_while_the_engine_is_away_cancels_nothing(
    legacy_database: str,
) -> None:
    async def story() -> None:
        async with open_orders(legacy_database) as one:
            one.engine.fails = EngineUnavailable("away")
            assert told(await one.ask(cancel_all()))[0] == 503
            assert one.came == []

    run(story())


def test_a_cancel_of_everything_that_can_t_be_finished_lists_what_it_did(
    legacy_database: str,
) -> None:
    def answer(sent: bytes) -> bytes:
        return response(b"{}", "500 X") if b"orders/4" in sent else monolith_s_answer(sent)

    async def story() -> None:
        async with open_orders(legacy_database, answer) as one:
            status, body = told(await one.ask(cancel_all()))
            assert status == 504
            assert [each.get("id", each) for each in body["orders"]] == [1, 2, 3, UNKNOWN, 5]
            assert one.came[-1] == b"DELETE /api/v1/orders/4"

    run(story())


def test_a_cancel_of_everything_after_news_finds_the_orders_on_the_other_side(
    legacy_database: str,
) -> None:
    """Bitcoin's rollback was ahead of us: its orders are the monolith's again."""

    async def story() -> None:
        async with open_orders(legacy_database) as one:
            one.stages(ETH=(Stage.LIVE, 0))
            one.engine.open = {2: (SCALES[ETH].instrument, 7)}
            one.engine.reasons[SCALES[BTC].instrument] = [Reason.INSTRUMENT_CLOSED]
            client = await one.begun(cancel_all(), lambda: one.front.desk.holds.held() == 1)
            assert one.came == [b"DELETE /api/v1/orders/%d" % n for n in (4, 9)]
            async with await psycopg.AsyncConnection.connect(legacy_database) as connection:
                await connection.execute("UPDATE orders SET state = 2 WHERE id IN (2, 4, 9)")
            one.stages(BTC=(Stage.SHADOW, 0))
            assert shown(await client.response(), "id") == [1, 2, 4, 9]
            assert one.came[2:] == [b"DELETE /api/v1/orders/1"]
            assert len(one.engine.calls) == 1  # Ether has been through

    run(story())


def test_a_cancel_of_everything_that_the_monolith_refuses_is_refused(legacy_database: str) -> None:
    refusal = response(b'{"errors":{"base":["is read only"]}}', "403 Forbidden")

    async def story() -> None:
        async with open_orders(legacy_database, refusal) as one:
            one.engine.open.clear()
            assert told(await one.ask(cancel_all())) == (
                403,
                {"errors": {"base": ["is read only"]}},
            )
            assert len(one.came) == 1

    run(story())
