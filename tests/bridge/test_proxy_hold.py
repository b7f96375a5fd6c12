"""Holds: who waits, in which order, for how long, and when a worker has drained."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

import msgspec
import pytest
from proxy_rig import Client, Front, Visit, between, request, response, run, until

from bridge.proxy.desk import hold as hold_module
from bridge.proxy.desk.ids import KnownOrder
from bridge.stage import InstrumentStage, Stage
from engine.client import Answer
from engine.reject import Reason
from engine.types import Command, Event, EventFlag, EventKind

FIELDS = [("Content-Type", "application/json"), ("X-Member-Id", "7")]


def order(symbol: str = "BTC-USD", price: str = "1.0") -> bytes:
    body = {
        "order": {"market": symbol, "side": "buy", "price": price, "quantity": "1"},
    }
    return request("POST", "/api/v1/orders", msgspec.json.encode(body), FIELDS)


def price_of(sent: bytes) -> str:
    found = msgspec.json.decode(sent.partition(b"\r\n\r\n")[2])
    return str(found["order"]["price"])


class ScriptedEngine:
    """Accepts everything, and remembers it."""

    def __init__(self, answer: Callable[[Command], Event] | None = None) -> None:
        self.commands: list[Command] = []
        self._answer = answer or accepted
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        self.commands.extend(commands)
        await self.go_on.wait()
        seq = len(self.commands)
        return [Answer(seq, 10**18, (self._answer(command),)) for command in commands]


def accepted(command: Command) -> Event:
    return Event(
        kind=EventKind.ACCEPTED,
        side=command.side,
        ord_type=command.ord_type,
        tif=command.tif,
        flags=EventFlag.LAST,
        order_id=command.order_id,
        price_ticks=command.price_ticks,
        qty_lots=command.qty_lots,
        leaves_lots=command.qty_lots,
    )


def rejected(reason: Reason) -> Callable[[Command], Event]:
    return lambda command: Event(kind=EventKind.REJECTED, reason=reason, order_id=command.order_id)


async def send_all(front: Front, orders: Sequence[bytes]) -> list[Client]:
    """One client for each, its order read by the proxy before the next one is sent."""
    clients = []
    for sent in orders:
        before = front.server.requests
        client = await front.client()
        await client.send(sent)
        await until(lambda before=before: front.server.requests > before)
        clients.append(client)
    return clients


def with_ids(front: Front) -> None:
    """Order ids without a database."""
    front.ids._free.extend(range(1000, 2000))


def test_only_the_held_instrument_waits_and_goes_on_in_order() -> None:
    async def story() -> None:
        async with between(response(b"x", "201 Created")) as (front, monolith):
            front.set_stages(holding=5)
            held = await send_all(front, [order(price=f"{n}.0") for n in range(1, 21)])
            other = await front.client()
            assert (await other.ask(order("ETH-USD"))).startswith(b"HTTP/1.1 201")
            assert (await other.ask(request())).endswith(b"x")
            assert front.desk.holds.held() == 20
            assert len(monolith.requests) == 2
            front.set_stages()
            for client in held:
                assert (await client.response()).startswith(b"HTTP/1.1 201")
            assert front.desk.holds.held() == 0

    run(story())


def test_released_orders_reach_the_engine_in_the_order_of_their_arrival() -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        async with between(response(), engine=engine) as (front, monolith):
            with_ids(front)
            front.set_stages(holding=5)
            held = await send_all(front, [order(price=f"{n}.0") for n in range(1, 31)])
            front.set_stages(Stage.LIVE, epoch=2)
            late = (await send_all(front, [order(price="99.0")]))[0]
            for client in (*held, late):
                assert (await client.response()).startswith(b"HTTP/1.1 201 Created")
            prices = [command.price_ticks for command in engine.commands]
            assert prices == [*(100 * n for n in range(1, 31)), 9900]
            assert {command.epoch for command in engine.commands} == {2}
            assert monolith.requests == []

    run(story())


def test_released_orders_reach_the_monolith_in_order_on_one_connection() -> None:
    async def story() -> None:
        async with between(response(b"x"), upstream_connections_max=1) as (front, monolith):
            front.set_stages(holding=5)
            held = await send_all(front, [order(price=f"{n}.0") for n in range(1, 21)])
            front.set_stages()
            for client in held:
                await client.response()
            assert [price_of(sent) for sent in monolith.requests] == [
                f"{n}.0" for n in range(1, 21)
            ]

    run(story())


def test_a_worker_has_drained_when_its_last_answer_has_come() -> None:
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        while True:
            await visit.request()
            await go_on.wait()
            await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith) as (front, _):
            under_way = await send_all(front, [order(), order("ETH-USD")])
            front.set_stages(holding=5)
            assert front.desk.holds.drained == {}
            changes = front.drained_changes
            go_on.set()
            await under_way[0].response()
            await until(lambda: front.desk.holds.drained == {"BTC-USD": 5})
            assert front.drained_changes == changes + 1
            front.set_stages()
            assert front.desk.holds.drained == {}

    run(story())


def test_other_instruments_under_way_do_not_keep_a_worker_from_draining() -> None:
    async def monolith(visit: Visit) -> None:
        await visit.request()
        await visit.reader.read()

    async def story() -> None:
        async with between(monolith) as (front, _):
            await send_all(front, [order("ETH-USD")])
            front.set_stages(holding=5)
            await until(lambda: front.desk.holds.drained == {"BTC-USD": 5})

    run(story())


@pytest.mark.parametrize(
    "unknown",
    [
        pytest.param(order()[:-5], id="half a body"),
        pytest.param(
            request("DELETE", "/api/v1/orders/17", fields=FIELDS), id="a strange order id"
        ),
    ],
)
def test_what_may_be_of_the_instrument_keeps_a_worker_from_draining(unknown: bytes) -> None:
    go_on = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        await visit.answer(response(b"x"))

    async def story() -> None:
        async with between(monolith) as (front, _):
            (client,) = await send_all(front, [unknown])
            front.set_stages(holding=5)
            await until(lambda: front.desk.holds.under_way == 1)
            assert front.desk.holds.drained == {}
            go_on.set()
            await client.response()
            client.reset()
            await until(lambda: front.desk.holds.drained == {"BTC-USD": 5})

    run(story())


def test_a_cancel_waits_with_the_instrument_of_its_order() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            front.index.put(17, KnownOrder("BTC-USD", 7))
            front.index.put(18, KnownOrder("ETH-USD", 7))
            front.set_stages(holding=5)
            cancels = [request("DELETE", f"/api/v1/orders/{n}", fields=FIELDS) for n in (17, 18)]
            held, free = await send_all(front, cancels)
            await free.response()
            assert front.desk.holds.held() == 1
            front.set_stages()
            await held.response()
            assert len(monolith.requests) == 2

    run(story())


def test_the_instruments_of_orders_are_learnt_from_passing_answers() -> None:
    answer = response(b'{"order":{"id":41,"market":"BTC-USD"}}', "201 Created")

    async def story() -> None:
        async with between(answer) as (front, _):
            client = await front.client()
            await client.ask(order())
            await until(lambda: front.index.get(41) == KnownOrder("BTC-USD", 7))

    run(story())


def test_a_full_hold_says_when_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "HOLD_REQUESTS_MAX", 3)

    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            front.set_stages(holding=5)
            held = await send_all(front, [order()] * 3)
            client = await front.client()
            got = await client.ask(order())
            assert got.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 1\r\n" in got
            front.set_stages()
            for one in held:
                assert (await one.response()).endswith(b"x")

    run(story())


def test_a_hold_is_bounded_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """And has its room again once they have gone."""
    monkeypatch.setattr(hold_module, "HOLD_BYTES_MAX", 2 * len(order()))

    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            for _ in range(2):
                front.set_stages(holding=5)
                held = await send_all(front, [order()] * 20)
                room = 2 * len(order()) // len(order().partition(b"\r\n\r\n")[2])
                for client in held[room:]:
                    assert (await client.response()).startswith(b"HTTP/1.1 503 ")
                assert 0 < room == front.desk.holds.held() < 20
                front.set_stages()
                for client in held[:room]:
                    assert (await client.response()).startswith(b"HTTP/1.1 200 ")

    run(story())


@pytest.mark.parametrize("stored", [None, Stage.SHADOW, Stage.LIVE])
def test_without_news_the_control_store_decides(
    stored: Stage | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the monolith when that can't be read either."""
    monkeypatch.setattr(hold_module, "HOLD_S", 0.05)

    async def story() -> None:
        engine = ScriptedEngine()
        async with between(response(b"x"), engine=engine) as (front, monolith):
            with_ids(front)
            if stored is not None:
                stage = InstrumentStage(
                    symbol="BTC-USD", instrument=1, stage=stored, epoch=9, holding=5
                )
                front.stored = {"BTC-USD": stage}
            front.set_stages(holding=5)
            clients = await send_all(front, [order(price=f"{n}.0") for n in range(1, 4)])
            for client in clients:
                await client.response()
            if stored is Stage.LIVE:
                assert [command.price_ticks for command in engine.commands] == [100, 200, 300]
                assert {command.epoch for command in engine.commands} == {9}
                assert monolith.requests == []
            else:
                assert sorted(map(price_of, monolith.requests)) == ["1.0", "2.0", "3.0"]
                assert engine.commands == []

    run(story())


@pytest.mark.parametrize(
    "reason", [Reason.STALE_EPOCH, Reason.INSTRUMENT_CLOSED, Reason.INSTRUMENT_IN_SHADOW]
)
def test_an_order_that_meets_an_old_epoch_waits_for_news(reason: Reason) -> None:
    async def story() -> None:
        engine = ScriptedEngine(rejected(reason))
        async with between(response(b"x"), engine=engine) as (front, monolith):
            with_ids(front)
            front.set_stages(Stage.LIVE, epoch=2)
            first, second = await send_all(front, [order(price="1.0"), order(price="2.0")])
            await until(lambda: front.desk.holds.held() == 2)
            front.set_stages(Stage.SHADOW, epoch=3)
            assert (await first.response()).endswith(b"x")
            assert (await second.response()).endswith(b"x")
            assert len(monolith.requests) == 2

    run(story())


def test_nobody_overtakes_an_order_that_waits_for_news() -> None:
    async def story() -> None:
        stale = rejected(Reason.STALE_EPOCH)
        engine = ScriptedEngine(lambda one: stale(one) if one.epoch == 2 else accepted(one))
        async with between(response(b"x"), engine=engine) as (front, _):
            with_ids(front)
            front.set_stages(Stage.LIVE, epoch=2)
            (first,) = await send_all(front, [order(price="1.0")])
            await until(lambda: front.desk.holds.held() == 1)
            (second,) = await send_all(front, [order(price="2.0")])
            await until(lambda: front.desk.holds.held() == 2)
            assert len(engine.commands) == 1
            front.set_stages(Stage.LIVE, epoch=3)
            await first.response()
            await second.response()
            assert [one.price_ticks for one in engine.commands[1:]] == [100, 200]

    run(story())


def test_an_engine_that_never_agrees_ends_in_a_503(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hold_module, "HOLD_S", 0.05)

    async def story() -> None:
        engine = ScriptedEngine(rejected(Reason.STALE_EPOCH))
        async with between(response(b"x"), engine=engine) as (front, monolith):
            with_ids(front)
            stage = InstrumentStage(symbol="BTC-USD", instrument=1, stage=Stage.LIVE, epoch=2)
            front.stored = {"BTC-USD": stage}
            front.set_stages(Stage.LIVE, epoch=2)
            client = await front.client()
            assert (await client.ask(order())).startswith(b"HTTP/1.1 503 ")
            assert monolith.requests == []

    run(story())


def test_a_live_instrument_drains_when_the_engine_has_answered() -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        engine.go_on.clear()
        async with between(response(b"x"), engine=engine) as (front, _):
            with_ids(front)
            front.set_stages(Stage.LIVE, epoch=2)
            (client,) = await send_all(front, [order()])
            await until(lambda: engine.commands)
            front.set_stages(Stage.LIVE, epoch=2, holding=6)
            assert front.desk.holds.drained == {}
            engine.go_on.set()
            await client.response()
            await until(lambda: front.desk.holds.drained == {"BTC-USD": 6})

    run(story())


def test_a_command_under_way_counts_though_its_client_has_gone() -> None:
    async def story() -> None:
        engine = ScriptedEngine()
        engine.go_on.clear()
        async with between(response(b"x"), engine=engine) as (front, _):
            with_ids(front)
            front.set_stages(Stage.LIVE, epoch=2)
            (client,) = await send_all(front, [order()])
            await until(lambda: engine.commands)
            client.reset()
            await until(lambda: front.server.clients == 0)
            front.set_stages(Stage.LIVE, epoch=2, holding=6)
            assert front.desk.holds.drained == {}
            engine.go_on.set()
            await until(lambda: front.desk.holds.drained == {"BTC-USD": 6})

    run(story())


def test_who_goes_away_while_held_is_not_sent() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            front.set_stages(holding=5)
            first, second = await send_all(front, [order(price="1.0"), order(price="2.0")])
            first.reset()
            await until(lambda: front.server.clients == 1)
            front.set_stages()
            await second.response()
            assert [price_of(sent) for sent in monolith.requests] == ["2.0"]
            await until(lambda: front.desk.holds.under_way == 0)

    run(story())


def test_the_body_of_a_held_order_may_come_late() -> None:
    """The proxy itself says that it may come, and says so once."""

    async def monolith(visit: Visit) -> None:
        await visit.reader.readuntil(b"\r\n\r\n")
        await visit.answer(b"HTTP/1.1 100 Continue\r\n\r\n" + response(b"x"))

    async def story() -> None:
        async with between(monolith) as (front, _):
            front.set_stages(holding=5)
            client = await front.client()
            head, _, body = order().partition(b"\r\n\r\n")
            await client.send(head + b"\r\nExpect: 100-continue\r\n\r\n")
            assert await client.response() == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(body[:10])
            await client.send(body[10:])
            await until(lambda: front.desk.holds.held() == 1)
            front.set_stages()
            assert await client.response() == response(b"x")

    run(story())


def test_a_held_order_that_is_too_large_is_refused() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            front.set_stages(holding=5)
            client = await front.client()
            await client.send(request("POST", "/api/v1/orders", b"x" * 70_000, FIELDS))
            assert (await client.rest()).startswith(b"HTTP/1.1 413 ")
            assert monolith.requests == []

    run(story())


def test_who_sends_too_much_still_reads_the_refusal() -> None:
    """A reset while it still sends would destroy the answer before it is read."""
    body = b"x" * 5_000_000
    sent = request("POST", "/api/v1/orders", body, FIELDS)

    def send_all_then_read(port: int) -> bytes:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(sent)
            return connection.recv(1000)

    async def story() -> None:
        async with between(response(b"x")) as (front, monolith):
            front.set_stages(holding=5)
            got = await asyncio.to_thread(send_all_then_read, front.port)
            assert got.startswith(b"HTTP/1.1 413 ")
            assert monolith.requests == []

    run(story())


def test_an_older_snapshot_changes_nothing() -> None:
    async def story() -> None:
        async with between(response(b"x")) as (front, _):
            old = front.desk.holds.snapshot
            front.set_stages(holding=5)
            front.desk.holds.apply(old)
            assert front.desk.holds.special

    run(story())
