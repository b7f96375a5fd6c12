"""Live answers that need more than the engine's word: the fills of an order, or an adapter."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec
import psycopg
import pytest
from bulk_world import BTC, ETH, order, told, world
from bulk_world import place as place_many
from proxy_rig import MAPPING, SCALES, Client, Front, between, response, run
from test_proxy_cancels import Book, Stages, cancel, insert_row, status_of
from test_proxy_live import place

from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.ids import KnownOrder
from bridge.stage import Stage
from shadow.legacy.adapter import Adapted, Row
from shadow.legacy.mapping import Route

WITH_FILLS = msgspec.structs.replace(
    MAPPING.responses,
    order={"id": "id", "filled": "filled", "avg": "average_price:round4", "n": "trades_count"},
)


def shown(answer: bytes) -> Any:
    return msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["order"]


async def insert_fill(url: str, maker: int, taker: int, price: str, quantity: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "INSERT INTO trades (market_id, maker_order_id, taker_order_id, price, quantity,"
            " taker_side, created_at, updated_at) VALUES (%s, %s, %s, %s, %s, 0, now(), now())",
            [BTC, maker, taker, price, quantity],
        )


async def canceled(front: Front, written: int) -> bytes:
    Stages(front).set(BTC=(Stage.LIVE, 0))
    front.barrier.note_written(1, written)
    return await (await front.client()).ask(cancel(501))


def test_a_canceled_order_is_shown_with_the_fills_that_it_has_had(
    monkeypatch: pytest.MonkeyPatch, legacy_database: str
) -> None:
    monkeypatch.setattr("proxy_rig.DIALECT", Dialect(WITH_FILLS, MAPPING.words, SCALES))

    async def story() -> None:
        options = {"engine": Book(BTC=[501]), "legacy_url": legacy_database}
        async with between(response(), **options) as (front, _):
            await insert_row(legacy_database, 501, BTC)  # 9 units; 9 lots are open
            await insert_fill(legacy_database, 501, 600, "100.00", "4")
            await insert_fill(legacy_database, 601, 501, "101.00", "4.99999991")
            await insert_fill(legacy_database, 602, 603, "500.00", "1")
            found = shown(await canceled(front, 1))
            assert (found["filled"], found["n"]) == ("8.99999991", 2)
            assert Decimal(found["avg"]) == Decimal("100.5556")

    run(story())


def test_an_order_without_fills_needs_none_to_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy_rig.DIALECT", Dialect(WITH_FILLS, MAPPING.words, SCALES))

    async def story() -> None:
        async with between(response(), engine=Book(BTC=[501])) as (front, _):
            front.index.put(501, KnownOrder(BTC, 7, 9, 1))
            found = shown(await canceled(front, 0))
            assert found == {"id": 501, "filled": "0.0", "avg": "0.0", "n": 0}

    run(story())


def test_fills_that_can_not_be_read_leave_the_outcome_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy_rig.DIALECT", Dialect(WITH_FILLS, MAPPING.words, SCALES))

    async def story() -> None:
        engine = Book(BTC=[501])
        async with between(response(), engine=engine) as (front, script):
            front.index.put(501, KnownOrder(BTC, 7, 20, 1))
            assert status_of(await canceled(front, 1)) == 504
            assert (len(engine.commands), script.requests) == (1, [])

    run(story())


class Failing:
    def request(self, route: Route, values: dict[str, object]) -> dict[str, object]:
        raise ValueError("no such price")

    def answer(self, action: str, body: Any) -> Any:
        raise ValueError("no such word")


class Cents:
    def request(self, route: Route, values: dict[str, object]) -> dict[str, object]:
        return values | {"price": "-1"} if "price" in values else values

    def order_row(self, row: Row) -> Row:
        return row


def test_a_request_that_the_adapter_can_not_read_goes_to_the_monolith_as_it_came() -> None:
    async def story() -> None:
        engine = Book(BTC=[501])
        async with between(response(b"monolith"), engine=engine) as (front, script):
            front.desk._adapter = Adapted(Failing())
            Stages(front).set(BTC=(Stage.LIVE, 0))
            client: Client = await front.client()
            assert (await client.ask(place())).endswith(b"monolith")
            assert (await client.ask(cancel(501))).endswith(b"monolith")
            assert (len(script.requests), engine.commands) == (2, [])

    run(story())


def test_what_the_adapter_makes_of_a_request_is_what_is_judged() -> None:
    async def story() -> None:
        async with between(response(b"monolith"), engine=Book()) as (front, script):
            front.desk._adapter = Adapted(Cents())
            Stages(front).set(BTC=(Stage.LIVE, 0))
            answer = await (await front.client()).ask(place())
            assert answer.endswith(b'{"errors":{"price":["must be greater than 0"]}}')
            assert script.requests == []

    run(story())


def test_an_order_that_was_canceled_and_can_not_be_shown_has_an_unknown_outcome(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = Dialect(MAPPING.responses, MAPPING.words, SCALES, adapter=Adapted(Failing()))
    monkeypatch.setattr("proxy_rig.DIALECT", failing)

    async def story() -> None:
        engine = Book(BTC=[501])
        async with between(response(), engine=engine) as (front, script):
            front.index.put(501, KnownOrder(BTC, 7, 9, 1))
            Stages(front).set(BTC=(Stage.LIVE, 0))
            client = await front.client()
            assert status_of(await client.ask(cancel(501))) == 504
            assert status_of(await client.ask(place(price="0"))) == 500
            assert (len(engine.commands), script.requests) == (1, [])

    run(story())


def test_the_monolith_s_part_of_a_bulk_request_is_what_the_client_sent() -> None:
    async def story() -> None:
        async with world() as one:  # BTC-USD is live, ETH-USD is the monolith's
            one.front.desk._adapter = Adapted(Doubling())
            answer = await one.ask(place_many(order(BTC, "1.00"), order(ETH, "2.00")))
            assert told(answer)[0] == 201
            ((command,),) = one.engine.calls
            assert command.price_ticks == 200
            (came,) = one.monolith.requests
            body = came.partition(b"\r\n\r\n")[2]
            assert msgspec.json.decode(body)["order"]["price"] == "2.00"

    run(story())


class Doubling:
    def request(self, route: Route, values: dict[str, object]) -> dict[str, object]:
        values["price"] = str(2 * Decimal(str(values["price"])))
        return values
