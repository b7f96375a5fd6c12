"""Cancels find their order's side, whatever is held, live, away or unreadable meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec
import psycopg
import pytest
from proxy_rig import MAPPING, SCALES, Client, Front, between, request, response, run, until

from bridge.proxy.desk import hold as hold_module
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.ids import KnownOrder, LegacyOrders
from bridge.stage import InstrumentStage, Stage, StageSnapshot
from engine.client import Answer
from engine.errors import EngineUnavailable
from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventKind
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Enumerated

BTC, ETH = "BTC-USD", "ETH-USD"
ORDERS = "/api/v1/orders"


def cancel(order_id: object, account: int = 7) -> bytes:
    return request("DELETE", f"{ORDERS}/{order_id}", fields=[("X-Member-Id", str(account))])


def status_of(answer: bytes) -> int:
    return int(answer.split(b" ")[1])


async def insert_row(url: str, order_id: int, symbol: str, account: int = 7) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET session_replication_role = replica")  # any symbol will do
        await connection.execute(
            "INSERT INTO orders (id, market_id, member_id, side, order_type, price, quantity,"
            " remaining_quantity, state, created_at, updated_at)"
            " VALUES (%s, %s, %s, 0, 0, 100, 9, 9, 0, '2015-05-01', '2015-05-01')",
            [order_id, symbol, account],
        )


class Book:
    """An engine that has these orders open, by instrument; all are account 7's."""

    def __init__(self, **open_orders: Sequence[int]) -> None:
        self.open = {
            SCALES[f"{name}-USD"].instrument: set(ids) for name, ids in open_orders.items()
        }
        self.commands: list[Command] = []
        self.away = False

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        if self.away:
            raise EngineUnavailable("away")
        self.commands.extend(commands)
        return [Answer(len(self.commands), 10**18, (self._event(one),)) for one in commands]

    def _event(self, command: Command) -> Event:
        assert command.kind is CommandKind.CANCEL
        found = self.open.get(command.instrument, set())
        if command.order_id not in found:
            return Event(kind=EventKind.REJECTED, reason=Reason.UNKNOWN_ORDER)
        found.remove(command.order_id)
        return Event(
            kind=EventKind.CANCELED,
            reason=Reason.BY_REQUEST,
            side=1,
            ord_type=2,
            tif=1,
            instrument=command.instrument,
            order_id=command.order_id,
            contra_id=command.account,
            price_ticks=10_000,
            qty_lots=9,
        )


class Stages:
    """Both instruments' stages, as the news and the control store tell of them."""

    def __init__(self, front: Front) -> None:
        self._front = front
        self._version = 1000
        self.now: dict[str, InstrumentStage] = {}

    def set(self, **stages: tuple[Stage, int]) -> None:
        """`BTC=(Stage.LIVE, 5)`: live, and held for flip 5."""
        self._version += 1
        for name, (stage, holding) in stages.items():
            symbol = f"{name}-USD"
            self.now[symbol] = InstrumentStage(
                symbol=symbol,
                instrument=SCALES[symbol].instrument,
                stage=stage,
                epoch=2,
                holding=holding,
            )
        snapshot = StageSnapshot(version=self._version, instruments=dict(self.now))
        # The plane in Rust has to hear of it too.
        getattr(self._front.server, "apply", self._front.desk.holds.apply)(snapshot)


def _held_are(front: Front, count: int) -> bool:
    return front.desk.holds.held() == count


async def held(front: Front, *sent: bytes) -> list[Client]:
    """Each waits in a hold before the next one is sent."""
    clients = []
    for n, one in enumerate(sent, front.desk.holds.held() + 1):
        client = await front.client()
        await client.send(one)
        await until(partial(_held_are, front, n))
        clients.append(client)
    return clients


# --- looked for again after a hold


@pytest.mark.parametrize("of", [BTC, ETH])
def test_an_order_that_nobody_knew_is_looked_for_again_after_the_hold(
    legacy_database: str, of: str
) -> None:
    """It was written back while its cancel waited, and is not of the instrument that was held."""

    async def story() -> None:
        engine = Book(BTC=[501] if of == BTC else [], ETH=[501] if of == ETH else [])
        async with between(response(), engine=engine, legacy_url=legacy_database) as (front, _):
            stages = Stages(front)
            stages.set(BTC=(Stage.LIVE, 5), ETH=(Stage.LIVE, 0))
            (client,) = await held(front, cancel(501))
            await insert_row(legacy_database, 501, of)
            stages.set(BTC=(Stage.LIVE, 0))
            assert status_of(await client.response()) == 200
            assert [one.instrument for one in engine.commands] == [SCALES[of].instrument]

    run(story())


@pytest.mark.parametrize("stored", [Stage.LIVE, Stage.SHADOW, None])
@pytest.mark.parametrize("written", [True, False])
def test_an_order_that_waited_for_too_long_is_not_asked_for_at_the_held_instrument_only(
    legacy_database: str, monkeypatch: pytest.MonkeyPatch, stored: Stage | None, written: bool
) -> None:
    """It is Ether's. What the control store says of Bitcoin does not make it Bitcoin's."""
    monkeypatch.setattr(hold_module, "HOLD_S", 0.2)

    async def story() -> None:
        engine = Book(ETH=[501])
        async with between(response(), engine=engine, legacy_url=legacy_database) as (
            front,
            script,
        ):
            stages = Stages(front)
            stages.set(BTC=(Stage.LIVE, 5), ETH=(Stage.LIVE, 0))
            if stored is not None:
                front.stored = {
                    BTC: msgspec.structs.replace(stages.now[BTC], stage=stored, epoch=9)
                }
            (client,) = await held(front, cancel(501))
            if written:
                await insert_row(legacy_database, 501, ETH)
            else:
                await until(lambda: front.barrier._waiting)  # the engine has canceled it
                await insert_row(legacy_database, 501, ETH)
                front.barrier.note_written(1, 10**9)
            assert status_of(await client.response()) == 200
            assert engine.open[SCALES[ETH].instrument] == set()
            assert script.requests == []
            asked = {(one.instrument, one.epoch) for one in engine.commands}
            btc, eth = (SCALES[BTC].instrument, 9), (SCALES[ETH].instrument, 2)
            assert asked == ({btc, eth} if stored is Stage.LIVE and not written else {eth})

    run(story())


def test_an_instrument_that_went_live_while_the_order_was_looked_for(legacy_database: str) -> None:
    """The engine's other instruments do not have it; its row says it is of one that is live now."""

    async def story() -> None:
        engine = Book(ETH=[501])
        async with between(response(b"monolith"), engine=engine, legacy_url=legacy_database) as (
            front,
            script,
        ):
            stages = Stages(front)
            stages.set(BTC=(Stage.LIVE, 0), ETH=(Stage.SHADOW, 0))
            client = await front.client()
            await client.send(cancel(501))
            await until(lambda: front.barrier._waiting)
            await insert_row(legacy_database, 501, ETH)
            stages.set(ETH=(Stage.LIVE, 0))
            front.barrier.note_written(1, 10**9)
            assert status_of(await client.response()) == 200
            assert script.requests == []

    run(story())


def test_waiting_for_news_of_one_instrument_holds_up_no_other(legacy_database: str) -> None:
    """The engine was asked for an unknown order at both; one of them was ahead of us."""

    class Ahead(Book):
        def _event(self, command: Command) -> Event:
            if command.instrument == SCALES[ETH].instrument and command.epoch == 2:
                return Event(kind=EventKind.REJECTED, reason=Reason.STALE_EPOCH)
            return super()._event(command)

    async def story() -> None:
        engine = Ahead(BTC=[502])
        async with between(response(), engine=engine, legacy_url=legacy_database) as (
            front,
            script,
        ):
            Stages(front).set(BTC=(Stage.LIVE, 0), ETH=(Stage.LIVE, 0))
            await held(front, cancel(501))
            front.index.put(502, KnownOrder(BTC, 7, 9, 1))
            assert status_of(await (await front.client()).ask(cancel(502))) == 200
            assert script.requests == []

    run(story())


def test_a_cancel_does_not_overtake_held_orders_that_need_ids(legacy_database: str) -> None:
    """More ids than a block has are fetched while they wait."""

    class Takes(Book):
        def _event(self, command: Command) -> Event:
            if command.kind is CommandKind.CANCEL:
                return super()._event(command)
            return Event(kind=EventKind.REJECTED, reason=Reason.BOOK_FULL)

    async def story() -> None:
        engine = Takes(BTC=[1])
        async with between(response(), engine=engine, legacy_url=legacy_database) as (front, _):
            front.index.put(1, KnownOrder(BTC, 7, 9, 1))
            stages = Stages(front)
            stages.set(BTC=(Stage.SHADOW, 5))
            body = b'{"order":{"market":"BTC-USD","side":"buy","price":"1","quantity":"1"}}'
            fields = [("Content-Type", "application/json"), ("X-Member-Id", "7")]
            placed = request("POST", ORDERS, body, fields)
            clients = await held(front, *[placed] * 25, cancel(1))
            await until(lambda: len(front.ids._free) >= 25)
            stages.set(BTC=(Stage.LIVE, 0))
            for client in clients:
                await client.response()
            kinds = [one.kind for one in engine.commands]
            assert kinds == [CommandKind.NEW] * 25 + [CommandKind.CANCEL]

    run(story())


def test_those_who_waited_for_too_long_are_not_overtaken_by_what_the_store_releases(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Reading the control store brings news, which release what came later."""
    monkeypatch.setattr(hold_module, "HOLD_S", 0.2)

    async def story() -> None:
        engine = Book(BTC=range(1, 9))
        async with between(response(), engine=engine) as (front, _):
            stages = Stages(front)
            for order_id in range(1, 9):
                front.index.put(order_id, KnownOrder(BTC, 7, 9, 1))
            stages.set(BTC=(Stage.SHADOW, 5))
            reading, go_on = asyncio.Event(), asyncio.Event()

            async def read_stage(symbol: str) -> InstrumentStage | None:
                reading.set()
                await go_on.wait()
                stages.set(BTC=(Stage.LIVE, 0))
                return stages.now[symbol]

            front.desk._read_stage = read_stage
            clients = await held(front, cancel(1), cancel(2))
            await reading.wait()
            clients += await held(front, cancel(3), cancel(4))
            go_on.set()
            for client in clients:
                assert status_of(await client.response()) == 200
            assert [one.order_id for one in engine.commands] == [1, 2, 3, 4]

    run(story())


# --- what is the monolith's, whoever else is away


@pytest.mark.parametrize("held_too", [False, True])
def test_an_order_of_no_configured_instrument_goes_to_the_monolith_at_once(
    legacy_database: str, held_too: bool
) -> None:
    async def story() -> None:
        engine = Book()
        engine.away = True
        async with between(response(b"monolith"), engine=engine, legacy_url=legacy_database) as (
            front,
            _,
        ):
            await insert_row(legacy_database, 501, "DOGE-USD")
            Stages(front).set(BTC=(Stage.LIVE, 5 if held_too else 0), ETH=(Stage.LIVE, 0))
            client = await front.client()
            assert (await client.ask(cancel(501))).endswith(b"monolith")
            body = b'{"order":{"market":"DOGE-USD","side":"buy","price":"1","quantity":"1"}}'
            fields = [("Content-Type", "application/json"), ("X-Member-Id", "7")]
            placed = await client.ask(request("POST", ORDERS, body, fields))
            assert placed.endswith(b"monolith")

    run(story())


# --- the legacy database's own spelling


def test_rows_are_read_as_the_change_stream_spells_them(database: str) -> None:
    """CHAR(n) keeps its padding, a boolean is t or f; a cast to text would say otherwise."""
    symbol = "BTC-USD   "
    scale: Scale = msgspec.structs.replace(SCALES[BTC], symbol=symbol)
    orders = msgspec.structs.replace(
        MAPPING.orders,
        side=Enumerated(column="is_sell", map={"f": "buy", "t": "sell"}),
        status=Enumerated(column="state", map={"o ": "open", "x ": "canceled"}),
    )
    mapping = msgspec.structs.replace(MAPPING, orders=orders)

    async def story() -> None:
        async with await psycopg.AsyncConnection.connect(database, autocommit=True) as connection:
            await connection.execute(
                "CREATE TABLE orders (id numeric(20), market_id char(10), member_id int,"
                " is_sell boolean, state char(2), quantity numeric(20, 8), created_at timestamptz)"
            )
            for n, (sell, state) in enumerate([("t", "o"), ("f", "o"), ("t", "x")], 1):
                await connection.execute(
                    "INSERT INTO orders VALUES (%s, 'BTC-USD', 7, %s, %s, 1.5, '2015-05-01+02')",
                    [n, sell, state],
                )
        legacy = LegacyOrders(database, mapping, {symbol: scale})
        try:
            found = await legacy.find_many([1, 2, 99])
            at_us = 1_430_431_200_000_000
            assert found == dict.fromkeys((1, 2), KnownOrder(symbol, 7, 150_000_000, at_us))
            ask: Any = lambda **one: legacy.open_orders(  # noqa: E731
                **{"account": 7, "only": "", "besides": (), "side": "", "orders_max": 9} | one
            )
            assert await ask() == [(1, symbol), (2, symbol)]
            assert await ask(side="sell") == [(1, symbol)]
            assert await ask(only=symbol, orders_max=1) == [(1, symbol)]
            assert await ask(besides=[symbol]) == await ask(account=8) == []
        finally:
            await legacy.close()

    run(story())


# --- executed, and its row can't be read


@pytest.mark.parametrize(
    ("left_out", "status"),
    [
        (("quantity", "filled", "created_at"), 200),
        (("quantity", "filled"), 504),
        (("created_at",), 504),
        (("quantity", "created_at"), 504),
    ],
)
def test_an_executed_cancel_is_shown_without_its_row_where_no_field_needs_it(
    monkeypatch: pytest.MonkeyPatch, left_out: tuple[str, ...], status: int
) -> None:
    order = {key: ours for key, ours in MAPPING.responses.order.items() if ours not in left_out}
    responses = msgspec.structs.replace(MAPPING.responses, order=order)
    dialect = Dialect(responses, MAPPING.words, SCALES)
    monkeypatch.setattr("proxy_rig.DIALECT", dialect)

    async def story() -> None:
        async with between(response(), engine=Book(BTC=[501])) as (front, script):
            front.index.put(501, KnownOrder(BTC, 7))
            Stages(front).set(BTC=(Stage.LIVE, 0))
            answer = await (await front.client()).ask(cancel(501))
            assert status_of(answer) == status
            assert script.requests == []
            if status == 200:
                shown = msgspec.json.decode(answer.partition(b"\r\n\r\n")[2])["order"]
                assert shown["id"] == 501
                assert shown["remaining_quantity"] == "0.00000009"
                assert shown["state"] == "cancelled"

    run(story())
