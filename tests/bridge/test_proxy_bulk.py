"""Requests with many new orders in them, while some instrument is live or held."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from bulk_world import (
    BATCH,
    BTC,
    ETH,
    JSON,
    MEMBER,
    NOT_SENT,
    ORDERS,
    SOL,
    UNKNOWN,
    monolith_s_answer,
    order,
    place,
    shown,
    told,
    world,
)
from proxy_rig import SCALES, Visit, request, response, run, until

from bridge.proxy.desk.ids import KnownOrder
from bridge.stage import Stage
from engine.errors import EngineUnavailable, OutcomeUnknown
from engine.reject import Reason
from shadow.capture import Outcome


@pytest.mark.parametrize("live", ["", "BTC"])
def test_what_is_the_monolith_s_alone_passes_untouched(live: str) -> None:
    async def story() -> None:
        async with world(live=live) as one:
            sent = place(order(ETH), order(SOL), order("DOGE-USD"))
            assert (await one.ask(sent)).endswith(b'"as it came"')
            (came,) = one.monolith.requests
            assert came.endswith(sent.partition(b"\r\n\r\n")[2])
            assert (one.engine.calls, one.recorded) == ([], [])

    run(story())


def test_what_is_the_engine_s_alone_goes_in_one_batch_in_order() -> None:
    async def story() -> None:
        async with world() as one:
            prices = ["3.00", "1.00", "bad", "2.00"]
            answer = await one.ask(place(*(order(price=price) for price in prices)))
            assert told(answer)[0] == 201
            assert shown(answer, "price") == ["3.0", "1.0", {"price": ["is not a number"]}, "2.0"]
            (batch,) = one.engine.calls
            assert [command.price_ticks for command in batch] == [300, 100, 200]
            assert [command.order_id for command in batch] == [1, 2, 3]
            assert one.came == []
            assert one.front.index.get(2) is not None

    run(story())


def test_a_mixed_request_is_answered_once_in_its_order() -> None:
    fields = (
        JSON,
        MEMBER,
        ("Authorization", "Bearer me"),
        ("Cookie", "_session=1"),
        ("X-Request-Id", "abc"),
        ("Idempotency-Key", "once"),
    )

    async def story() -> None:
        async with world() as one:
            orders = [
                order(ETH, "1", client_order_id="mine", nested={"a": [1]}),
                order(BTC, "2.00"),
                order(ETH, "bad"),
                order(BTC, "bad"),
                order(SOL, "3"),
            ]
            answer = await one.ask(place(*orders, fields=fields))
            assert told(answer)[0] == 201
            bad = {"price": ["is not a number"]}
            assert shown(answer) == [ETH, BTC, bad, bad, SOL]
            assert shown(answer, "id") == [901, 1, bad, bad, 903]
            assert one.came == [b"POST /api/v1/orders"] * 3
            first, _, third = one.monolith.requests
            body = msgspec.json.decode(first.partition(b"\r\n\r\n")[2])
            assert body == {"order": orders[0]}
            for line in (b"X-Member-Id: 7", b"Authorization: Bearer me", b"Cookie: _session=1"):
                assert line in first
            assert b"X-Request-Id: abc-1\r\n" in first
            assert b"X-Request-Id: abc-5\r\n" in third
            assert b"Idempotency-Key: once-5\r\n" in third
            assert first.lower().count(b"\r\nhost:") == 1
            assert one.recorded == [
                ("place", ORDERS, status, Outcome.ANSWERED) for status in (201, 422, 201)
            ]
            assert one.front.index.get(901) == KnownOrder(ETH, 7)

    run(story())


def test_a_form_is_taken_apart_into_forms() -> None:
    def answer(sent: bytes) -> bytes:
        assert sent.endswith(
            b"order%5Bnote%5D=a%26b&order%5Bmarket%5D=ETH-USD&order%5Bside%5D=buy"
            b"&order%5Bprice%5D=1&order%5Bquantity%5D=2"
        )
        return response(b'{"order":{"id":5,"market":"ETH-USD"}}', "201 Created")

    async def story() -> None:
        async with world(answer) as one:
            parts = [
                f"orders[][{key}]={value}"
                for market in (ETH, BTC)
                for key, value in (
                    ("market", market),
                    ("side", "buy"),
                    ("price", "1"),
                    ("quantity", "2"),
                    ("note", "a%26b"),
                )
            ]
            fields = [("Content-Type", "application/x-www-form-urlencoded"), MEMBER]
            sent = request("POST", BATCH, "&".join(parts).encode(), fields)
            assert shown(await one.ask(sent)) == [ETH, BTC]

    run(story())


def test_without_an_account_nothing_of_it_is_sent() -> None:
    async def story() -> None:
        async with world() as one:
            assert told(await one.ask(place(order(ETH), order(BTC), fields=(JSON,))))[0] == 401
            assert (one.came, one.engine.calls) == ([], [])

    run(story())


@pytest.mark.parametrize("to", [Stage.LIVE, Stage.SHADOW])
def test_a_held_instrument_holds_the_whole_request_in_its_queue(to: Stage) -> None:
    """It is decided anew then; whoever came later comes later."""

    async def story() -> None:
        async with world(live="SOL", upstream_connections_max=1) as one:
            one.stages(ETH=(Stage.SHADOW, 5))
            held = one.front.desk.holds
            bulk = await one.begun(
                place(order(BTC, "1"), order(ETH, "2")), lambda: held.held() == 1
            )
            body = msgspec.json.encode({"order": order(ETH, "3")})
            single = await one.begun(
                request("POST", ORDERS, body, (JSON, MEMBER)), lambda: held.held() == 2
            )
            assert held.drained == {ETH: 5}
            one.stages(ETH=(to, 0))
            answer = await bulk.response()
            await single.response()
            if to is Stage.LIVE:
                assert shown(answer) == [BTC, ETH]
                prices = [[command.price_ticks for command in call] for call in one.engine.calls]
                assert prices == [[200], [300]]
                assert one.came == [b"POST /api/v1/orders"]
            else:
                assert one.came == [b"POST /api/v1/orders/batch", b"POST /api/v1/orders"]
                assert one.engine.calls == []

    run(story())


def test_a_request_counts_as_under_way_for_all_its_instruments() -> None:
    async def story() -> None:
        async with world() as one:
            one.engine.go_on.clear()
            client = await one.begun(place(order(BTC), order(ETH)), lambda: one.engine.calls)
            one.stages(BTC=(Stage.LIVE, 5), ETH=(Stage.SHADOW, 6), SOL=(Stage.SHADOW, 7))
            assert one.front.desk.holds.drained == {SOL: 7}
            one.engine.go_on.set()
            await client.response()
            assert one.front.desk.holds.drained == {BTC: 5, ETH: 6, SOL: 7}

    run(story())


def test_a_request_that_the_monolith_has_counts_for_all_its_instruments() -> None:
    came, go_on = asyncio.Event(), asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        came.set()
        await go_on.wait()
        await visit.answer(response(b"{}", "201 Created"))

    async def story() -> None:
        async with world(monolith, live="") as one:
            client = await one.begun(place(order(BTC), order(ETH)), came.is_set)
            one.stages(BTC=(Stage.SHADOW, 5), ETH=(Stage.SHADOW, 6), SOL=(Stage.SHADOW, 7))
            await until(lambda: one.front.desk.holds.drained == {SOL: 7})
            go_on.set()
            await client.response()
            await until(lambda: one.front.desk.holds.drained == {BTC: 5, ETH: 6, SOL: 7})

    run(story())


def test_instruments_of_whole_requests_are_learnt_from_the_monolith_s_answer() -> None:
    body = b'{"orders":[{"id":41,"market":"ETH-USD"},{"errors":{"price":["x"]}}]}'

    async def story() -> None:
        async with world(response(body, "201 Created"), live="") as one:
            await one.ask(place(order(ETH), order(ETH)))
            await until(lambda: one.front.index.get(41) == KnownOrder(ETH, 7))

    run(story())


def test_what_the_engine_refuses_as_too_early_or_late_waits_and_the_rest_is_not_repeated() -> None:
    """The engine has Ether at another epoch; Bitcoin's order has been executed meanwhile."""

    async def story() -> None:
        async with world() as one:
            one.stages(ETH=(Stage.LIVE, 0))
            one.engine.reasons[SCALES[ETH].instrument] = [Reason.STALE_EPOCH]
            holds = one.front.desk.holds
            sent = place(order(SOL, "1"), order(BTC, "2"), order(ETH, "3"))
            client = await one.begun(sent, lambda: holds.held() == 1)
            one.stages(ETH=(Stage.SHADOW, 8))
            assert holds.drained == {ETH: 8}  # it waits, and has nothing under way
            one.stages(ETH=(Stage.SHADOW, 0))
            assert shown(await client.response()) == [SOL, BTC, ETH]
            assert one.came == [b"POST /api/v1/orders"] * 2
            assert len(one.engine.calls) == 1

    run(story())


# --- failures


def test_nothing_is_sent_anywhere_when_the_engine_is_away() -> None:
    async def story() -> None:
        async with world() as one:
            one.engine.fails = EngineUnavailable("away")
            answer = await one.ask(place(order(ETH), order(BTC)))
            assert told(answer) == (503, {"status": 503, "error": "Service Unavailable"})
            assert b"\r\nRetry-After: 1\r\n" in answer
            assert one.came == []

    run(story())


def test_after_an_unknown_outcome_at_the_engine_nothing_further_is_sent() -> None:
    async def story() -> None:
        async with world() as one:
            one.engine.fails = OutcomeUnknown("lost")
            answer = await one.ask(place(order(ETH), order(BTC), order(BTC, "bad")))
            bad = {"errors": {"price": ["is not a number"]}}
            assert told(answer) == (504, {"orders": [NOT_SENT, UNKNOWN, bad]})
            assert b"Retry-After" not in answer
            assert one.came == []

    run(story())


@pytest.mark.parametrize(
    ("second", "outcome"),
    [(b"", Outcome.UPSTREAM_FAILED), (response(b"{}", "500 X"), Outcome.ANSWERED)],
)
def test_a_monolith_that_fails_in_the_middle(second: bytes, outcome: Outcome) -> None:
    """What was done is told as done; nothing is sent twice, and nothing further."""
    came: list[bytes] = []

    async def monolith(visit: Visit) -> None:
        came.append(await visit.request())
        await visit.answer(monolith_s_answer(came[-1]) if len(came) == 1 else second)

    async def story() -> None:
        async with world(monolith) as one:
            orders = [order(ETH, "1"), order(BTC), order(ETH, "2"), order(ETH, "3")]
            answer = await one.ask(place(*orders))
            status, body = told(answer)
            assert status == 504
            assert b"Retry-After" not in answer
            assert [one.get("market") for one in body["orders"][:2]] == [ETH, BTC]
            assert body["orders"][2:] == [UNKNOWN, NOT_SENT]
            assert len(came) == 2
            assert [one[3] for one in one.recorded] == [Outcome.ANSWERED, outcome]

    run(story())


def test_a_monolith_that_is_away_is_told_beside_what_the_engine_did() -> None:
    async def story() -> None:
        async with world() as one:
            await one.monolith.stop()
            answer = await one.ask(place(order(BTC), order(ETH), order(ETH)))
            status, body = told(answer)
            assert status == 201
            assert body["orders"][0]["market"] == BTC
            assert body["orders"][1:] == [NOT_SENT, NOT_SENT]
            assert one.recorded == []

    run(story())


def test_a_request_that_has_begun_is_carried_out_though_its_client_leaves() -> None:
    async def story() -> None:
        async with world() as one:
            one.engine.go_on.clear()
            client = await one.begun(place(order(BTC), order(ETH)), lambda: one.engine.calls)
            client.reset()
            await one.ask(request())  # by now the proxy has noticed
            one.engine.go_on.set()
            await until(lambda: b"POST /api/v1/orders" in one.came)
            await until(lambda: one.front.desk.holds.under_way == 0)

    run(story())


def test_also_what_of_it_had_to_wait_is_carried_out() -> None:
    async def story() -> None:
        async with world() as one:
            one.stages(ETH=(Stage.LIVE, 0))
            one.engine.reasons[SCALES[ETH].instrument] = [Reason.STALE_EPOCH]
            holds = one.front.desk.holds
            sent = place(order(BTC, "2"), order(ETH, "3"))
            client = await one.begun(sent, lambda: holds.held() == 1)
            client.reset()
            await one.ask(request())  # by now the proxy has noticed
            one.stages(ETH=(Stage.SHADOW, 0))
            await until(lambda: b"POST /api/v1/orders" in one.came)

    run(story())


def test_a_request_of_too_many_orders_is_refused_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.proxy.desk.bulk.BULK_ORDERS_MAX", 2)

    async def story() -> None:
        async with world() as one:
            assert told(await one.ask(place(order(BTC), order(ETH))))[0] == 201
            assert told(await one.ask(place(order(BTC), order(ETH), order(ETH))))[0] == 413
            assert len(one.engine.calls) == 1

    run(story())
