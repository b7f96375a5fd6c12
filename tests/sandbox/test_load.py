"""The load generator against the real monolith, and against servers that behave badly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from random import Random

import psycopg
import pytest
from running import running_monolith

from bridge.sandbox.audit import audit
from bridge.sandbox.audit_rows import read_legacy
from bridge.sandbox.flow import read_flow
from bridge.sandbox.flow_load import CancelStep, FlowLoad, FlowStep, PlaceStep, flow_steps
from bridge.sandbox.flow_random import BulkWish, CancelWish, Member, Mix, Walk
from bridge.sandbox.load import DEFAULT_SYMBOLS, Load
from bridge.sandbox.params import MarketRules, NewOrder, validate
from bridge.sandbox.told import Wish

SYMBOLS = [one.symbol for one in DEFAULT_SYMBOLS]


async def until(condition: Callable[[], bool], what: str) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110  what is waited for has no event of its own
            await asyncio.sleep(0.005)
    assert condition(), what


def test_what_clients_were_told_is_what_the_database_holds(
    monolith: str, legacy_database: str
) -> None:
    async def run() -> Load:
        load = Load(monolith, rate_per_s=400.0, clients=8, seed=3)
        load.phase("first")
        await load.start()
        await until(lambda: load.result.requests > 250, "some requests")
        load.phase("second", "ETH-USD")
        await until(lambda: load.result.requests > 500, "some more")
        await load.stop()
        return load

    result = asyncio.run(run()).result
    assert (result.failed, result.unanswered, result.wrong) == ({}, [], [])
    assert result.requests == result.answered == sum(result.statuses.values())
    assert result.statuses.keys() == {200, 201, 422}
    kinds = {(order.wish.order_type, order.wish.time_in_force) for order in result.orders.values()}
    assert kinds == {("limit", "gtc"), ("limit", "ioc"), ("market", "ioc")}
    assert result.latency().total_count == result.answered == len(result.samples.latency_us)
    assert {phase for phase, symbol in result.latencies if symbol == "BTC-USD"} == {"first"}
    assert {phase for phase, symbol in result.latencies if symbol == "ETH-USD"} == {
        "first",
        "second",
    }
    audited = audit([result], read_legacy(legacy_database), [], {})
    assert audited.ok, audited.checks
    assert (audited.lost, audited.duplicated) == (0, 0)
    assert audited.answered == len(result.orders) > 100
    assert audited.fills > 20


def test_bulk_requests_are_told_order_by_order(monolith: str, legacy_database: str) -> None:
    async def run() -> Load:
        load = Load(monolith, rate_per_s=200.0, clients=8, seed=3, mix=Mix(bulk=0.5))
        await load.start()
        await until(lambda: load.result.requests > 300, "some requests")
        await load.stop()
        return load

    result = asyncio.run(run()).result
    assert (result.failed, result.unanswered, result.wrong) == ({}, [], [])
    assert result.requests == result.answered
    audited = audit([result], read_legacy(legacy_database), [], {})
    assert audited.ok, audited.checks
    assert len(result.orders) > result.statuses[201] + 50  # answers that told of several
    canceled = sum(one.cancelled_remaining is not None for one in result.orders.values())
    assert canceled > result.statuses[200]
    told_apart = {symbol for _, symbol in result.latencies}
    assert told_apart == {*SYMBOLS, *(f"{symbol} in bulk" for symbol in SYMBOLS)}


def test_the_same_seed_gives_the_same_bulk_requests_and_all_three_kinds() -> None:
    def made(seed: int) -> list[object]:
        walks = [Walk(symbol, Random(f"{seed}/{symbol.symbol}")) for symbol in DEFAULT_SYMBOLS]
        member = Member(1, walks, Mix(bulk=0.5), Random(seed))
        wishes: list[object] = []
        for number in range(400):
            bulk = member.bulk()
            wishes.append(bulk)
            if bulk is None:
                member.rests(number, "BTC-USD")
        return wishes

    assert made(1) == made(1) != made(2)
    kinds = {(bool(one.places), bool(one.cancels)) for one in made(1) if isinstance(one, BulkWish)}
    assert kinds == {(True, False), (False, True), (False, False)}


def test_a_closed_loop_goes_on_until_paused_and_the_same_again_after_resuming(
    monolith: str,
) -> None:
    async def run() -> None:
        load = Load(monolith, rate_per_s=None, clients=3)
        await load.start()
        await until(lambda: load.result.answered > 30, "thirty answers")
        load.pause()
        await load.quiet()
        assert load.result.answered == load.result.requests
        before = load.result.requests
        load.resume()
        await until(lambda: load.result.answered > before + 30, "thirty more")
        result = await load.stop()
        assert result.answered == result.requests

    asyncio.run(run())


class Gate:
    """A server that answers every request with 500, but only while it is open."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.requests = 0
        self.url = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                await reader.readexactly(length)
                self.requests += 1
                await self.open.wait()
                writer.write(b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def gate() -> AsyncIterator[Gate]:
    one = Gate()
    server = await asyncio.start_server(one.serve, "127.0.0.1", 0)
    one.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield one
    finally:
        server.close()


def test_requests_that_wait_for_a_stalled_exchange_count_from_when_they_were_due() -> None:
    async def run() -> None:
        async with gate() as server:
            load = Load(server.url, rate_per_s=2000.0, clients=1)
            await load.start()
            await until(lambda: server.requests == 1, "the first request")
            stalled_s = time.monotonic()
            await until(lambda: time.monotonic() > stalled_s + 0.2, "a while")
            server.open.set()
            stalled_us = (time.monotonic() - stalled_s) * 1e6
            await until(lambda: load.result.answered > 20, "twenty answers")
            result = await load.stop()
            # All that were due early in the stall, and not only the one that was under way.
            assert sum(latency > stalled_us / 2 for latency in result.samples.latency_us) > 10
            assert {one.reason for one in result.unanswered} == {"status 500"}

    asyncio.run(run())


def test_an_answer_that_never_comes_is_recorded_and_the_request_not_repeated() -> None:
    async def run() -> None:
        async with gate() as server:
            load = Load(server.url, rate_per_s=100.0, clients=2, timeout_s=0.05)
            await load.start()
            await until(lambda: load.result.requests >= 6, "some requests")
            result = await load.stop()
            assert server.requests == result.requests == sum(result.failed.values())
            assert set(result.failed) == {"no answer in 0.05 s"}
            assert all(one.possible and one.wish for one in result.unanswered)
            assert result.latency().total_count == 0

    asyncio.run(run())


def test_a_server_that_is_not_there_is_recorded_as_not_sent(unused_url: str) -> None:
    async def run() -> None:
        load = Load(unused_url, rate_per_s=200.0, clients=2)
        await load.start()
        await until(lambda: load.result.requests >= 4, "some requests")
        result = await load.stop()
        assert result.answered == 0
        assert [reason for reason in result.failed if not reason.startswith("not connected")] == []
        assert not any(one.possible for one in result.unanswered)

    asyncio.run(run())


@pytest.fixture
def unused_url() -> str:
    from bridge.sandbox.processes import free_port

    return f"http://127.0.0.1:{free_port()}"


def wishes(seed: int) -> list[Wish | CancelWish]:
    walks = [Walk(symbol, Random(f"{seed}/{symbol.symbol}")) for symbol in DEFAULT_SYMBOLS]
    member = Member(1, walks, Mix(), Random(seed))
    made = []
    for number in range(2000):
        wish = member.next()
        made.append(wish)
        if isinstance(wish, Wish) and wish.time_in_force == "gtc":
            member.rests(number, wish.symbol)
    return made


def test_the_same_seed_wishes_the_same_and_only_what_the_exchange_accepts() -> None:
    made = wishes(1)
    assert made == wishes(1)
    assert made != wishes(2)
    rules = {
        one.symbol: MarketRules(symbol=one.symbol, tick=one.tick, lot=one.lot)
        for one in DEFAULT_SYMBOLS
    }
    for wish in made:
        if isinstance(wish, Wish):
            params = {"market": wish.symbol, "side": wish.side, "order_type": wish.order_type}
            numbers = {"quantity": str(wish.quantity), "price": wish.price and str(wish.price)}
            order = validate(params | numbers | {"time_in_force": wish.time_in_force}, 1, rules)
            assert isinstance(order, NewOrder), order
    cancels = sum(isinstance(wish, CancelWish) for wish in made)
    market_orders = sum(isinstance(wish, Wish) and wish.price is None for wish in made)
    assert 500 < cancels < 900
    assert 20 < market_orders < 150


def flow_wish(side: str, price: str, quantity: str) -> Wish:
    return Wish(
        symbol="BTC-USD",
        member=0,
        side=side,
        order_type="limit",
        time_in_force="gtc",
        price=Decimal(price),
        quantity=Decimal(quantity),
    )


def test_a_flow_is_driven_in_its_order_and_cancels_follow_their_orders(
    monolith: str, legacy_database: str
) -> None:
    steps: list[FlowStep] = [
        *(PlaceStep(key, flow_wish("sell", f"{100 + key}", "1")) for key in range(1, 6)),
        CancelStep(2),
        CancelStep(77),
        PlaceStep(6, flow_wish("buy", "104", "3.5")),
        CancelStep(6),
    ]

    async def run() -> FlowLoad:
        flow = FlowLoad(monolith, clients=1)
        try:
            await flow.run(steps)
        finally:
            flow.close()
        return flow

    flow = asyncio.run(run())
    ids = flow.order_ids
    result = flow.result
    assert [ids[key] for key in range(1, 7)] == sorted(ids.values())
    taker = result.orders[ids[6]]
    assert [fill.maker_order_id for fill in taker.fills] == [ids[1], ids[3], ids[4]]
    assert result.orders[ids[2]].cancelled_remaining == 1
    assert taker.cancelled_remaining == Decimal("0.5")
    assert result.skipped == {"its order was not taken": 1}
    assert audit([result], read_legacy(legacy_database), [], {}).ok


def test_a_flow_over_several_connections_loses_nothing(
    legacy_database: str, postgres_server: object
) -> None:
    chance = Random(5)
    steps: list[FlowStep] = []
    for key in range(150):
        price = f"{chance.randint(95, 105)}"
        steps.append(PlaceStep(key, flow_wish(chance.choice(("buy", "sell")), price, "1.5")))
        if key % 3 == 0:
            steps.append(CancelStep(key - key % 6))

    async def run(url: str) -> FlowLoad:
        flow = FlowLoad(url, clients=6)
        try:
            await flow.run(steps)
        finally:
            flow.close()
        return flow

    with running_monolith(legacy_database) as url:
        flow = asyncio.run(run(url))
    assert len(flow.order_ids) == len(flow.result.orders) == 150
    with psycopg.connect(legacy_database) as connection:
        row = connection.execute(
            "SELECT max(price) FILTER (WHERE side = 0) < min(price) FILTER (WHERE side = 1)"
            " FROM orders WHERE state = 0"
        ).fetchone()
    assert row == (True,), "the book is crossed"
    audited = audit([flow.result], read_legacy(legacy_database), [], {})
    assert audited.ok, audited.checks


def test_a_recorded_flow_becomes_steps(tmp_path: Path) -> None:
    recorded = tmp_path / "events.csv"
    recorded.write_text(
        "received_ms,event,order_id,side,price,amount\n"
        "1,order_created,11,sell,236.50,2.00000000\n"
        "2,order_created,12,buy,236.50,0.50000000\n"
        "3,trade,5,,236.50,0.50000000\n"
        "4,order_deleted,11,sell,236.50,1.50000000\n"
    )
    assert list(flow_steps(read_flow(recorded), "BTC-USD")) == [
        PlaceStep(11, flow_wish("sell", "236.50", "2")),
        PlaceStep(12, flow_wish("buy", "236.50", "0.5")),
        CancelStep(11),
    ]
