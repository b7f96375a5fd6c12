"""Live instruments: the engine answers, in the monolith's words."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import psycopg
import pytest
from aiohttp import web
from proxy_rig import (
    SCALES,
    Client,
    Front,
    Visit,
    between,
    request,
    response,
    run,
    until,
)

from bridge.proxy.desk.ids import KnownOrder
from bridge.proxy.desk.session import EngineSession
from bridge.sandbox.exchange import Exchange
from bridge.sandbox.matching import Faults
from bridge.sandbox.pool import Pool
from bridge.sandbox.provision import as_role
from bridge.sandbox.web import application
from bridge.stage import Stage
from engine.client import Answer, EngineClient
from engine.endpoint import Endpoint
from engine.errors import OutcomeUnknown
from engine.reject import Reason
from engine.service import EngineKey, EngineSettings, serve
from engine.types import Command, CommandKind, Event, EventKind, Mode, Role
from engine.wire import instrument_command
from shadow.answer_check import compare_answer

EPOCH = 2
KEYS = {role: f"key-{role.name}" for role in Role}
ORDERS = "/api/v1/orders"


class EngineService:
    """The real one, in this loop; its journal outlives `stop`."""

    def __init__(self, directory: Path) -> None:
        self.port = 0
        self._directory = directory
        self._stop = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._stop = asyncio.Event()
        settings = EngineSettings(
            host="127.0.0.1",
            port=self.port,
            directory=self._directory,
            implementation="python",
            shard=1,
            keys=tuple(EngineKey(role=role, key=key) for role, key in KEYS.items()),
        )
        self._serving = asyncio.create_task(
            serve(settings, ready=ready.set_result, stop=self._stop)
        )
        self.port = await ready

    async def stop(self) -> None:
        self._stop.set()
        if self._serving is not None:
            await self._serving

    async def control(self, *commands: Command) -> None:
        client = EngineClient(
            host="127.0.0.1", port=self.port, name="control", key=KEYS[Role.ADMIN]
        )
        await client.start()
        for answer in await client.send(commands, timeout_s=5.0):
            assert answer.events[0].reason is Reason.NONE
        await client.close()


def to_mode(mode: Mode, epoch: int = EPOCH) -> Command:
    return Command(kind=CommandKind.MODE, instrument=1, epoch=epoch, aux=mode)


@contextlib.asynccontextmanager
async def live_market(
    directory: Path, legacy: str, upstream: Any = None
) -> AsyncIterator[tuple[Front, EngineService]]:
    """BTC-USD is live; whatever else comes is the scripted monolith's."""
    service = EngineService(directory)
    await service.start()
    btc = SCALES["BTC-USD"]
    await service.control(
        instrument_command(
            instrument=1,
            name="BTC-USD",
            price_ticks_max=btc.price_ticks_max,
            qty_lots_max=btc.qty_lots_max,
        ),
        to_mode(Mode.LIVE),
    )
    session = EngineSession(
        Endpoint(host="127.0.0.1", port=service.port), name="proxy-0", key=KEYS[Role.TRADE]
    )
    keeping = asyncio.create_task(session.run())
    try:
        answer = upstream or response(b"monolith")
        async with between(answer, engine=session, legacy_url=legacy) as (front, _):
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            yield front, service
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await service.stop()


def place(account: int = 7, **order: object) -> bytes:
    fields = [("Content-Type", "application/json"), ("X-Member-Id", str(account))]
    given = {"market": "BTC-USD", "side": "buy", "price": "100.00", "quantity": "1.5"} | order
    return request("POST", ORDERS, msgspec.json.encode({"order": given}), fields)


def cancel(order_id: object, account: int = 7) -> bytes:
    return request("DELETE", f"{ORDERS}/{order_id}", fields=[("X-Member-Id", str(account))])


def split(answer: bytes) -> tuple[int, bytes, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), head, body


async def placed(client: Client, sent: bytes) -> dict[str, Any]:
    status, _, body = split(await client.ask(sent))
    assert status == 201, body
    order: dict[str, Any] = msgspec.json.decode(body)["order"]
    return order


async def insert_row(url: str, order_id: int, account: int = 7, state: int = 0) -> None:
    """As the write-back would."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(
            "INSERT INTO orders (id, market_id, member_id, side, order_type, price, quantity,"
            " remaining_quantity, state, created_at, updated_at) VALUES (%s, 'BTC-USD', %s, 0, 0,"
            " 100, 9, 9, %s, '2015-05-01 00:00:00.1239', '2015-05-01')",
            [order_id, account, state],
        )


# --- the same words


@contextlib.asynccontextmanager
async def monolith(legacy: str) -> AsyncIterator[int]:
    """The sandbox's, in this loop; gives its port."""
    pool = Pool(as_role(legacy, "exchange"), 2)
    exchange = Exchange(pool, Faults(), Random(1))
    runner = web.AppRunner(application(exchange, await exchange.market_rules()))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
        await pool.close()


STORY: Sequence[bytes | tuple[str, int, int]] = (
    place(side="sell", price="101.00", quantity="1"),
    place(side="sell", price="101.00", quantity="0.50000000", time_in_force="gtc"),
    place(side="sell", price=102, quantity=3),
    place(account=8, side="buy", price="101.50", quantity="2.00000001"),
    place(account=8, side="buy", price="103", quantity="1", time_in_force="ioc"),
    place(account=8, side="buy", price="1", quantity="1", time_in_force="ioc"),
    place(account=8, side="buy", order_type="market", price=None, quantity="1.25"),
    place(account=9, side="buy", order_type="market", price="", quantity="100"),
    place(account=9, side="sell", order_type="market", quantity="0.1", time_in_force="nonsense"),
    ("cancel", 3, 8),  # which order, by its place in the story, and by whom
    ("cancel", 3, 8),
    ("cancel", 0, 7),
    ("cancel", 3, 7),
    ("cancel", 3, 0),
    place(price="99.999"),
    place(price="0"),
    place(price=""),
    place(price="a"),
    place(price="1e2"),
    place(price="10000000000"),
    place(quantity="0.000000001"),
    place(side="hold", order_type="stop", time_in_force="day", price=None, quantity=None),
    place(order_type="market", price="1"),
    place(account=0),
    place(market="XXX"),
    request("POST", ORDERS, b"{", [("Content-Type", "application/json"), ("X-Member-Id", "7")]),
    request("POST", ORDERS, b"{}", [("Content-Type", "application/json"), ("X-Member-Id", "7")]),
    request("POST", ORDERS, b"{}", [("X-Member-Id", "7")]),
    request(
        "POST",
        ORDERS,
        b"order[market]=BTC-USD&order[side]=buy&order[price]=1.00&order[quantity]=2",
        [("Content-Type", "application/x-www-form-urlencoded"), ("X-Member-Id", "7")],
    ),
    request(
        "POST",
        ORDERS,
        b'{"market":"BTC-USD","side":"buy","price":1.10,"quantity":2}',
        [("Content-Type", "application/json"), ("X-Member-Id", "7")],
    ),
)


def test_the_engine_s_answers_are_the_monolith_s(tmp_path: Path, legacy_database: str) -> None:
    """The same requests to both, answer by answer: status, JSON and header fields."""

    async def story() -> None:
        async with (
            monolith(legacy_database) as port,
            live_market(tmp_path, legacy_database, _relay_to(port)) as (front, _),
        ):
            front.barrier.note_written(1, 10**9)
            direct = Client(*await asyncio.open_connection("127.0.0.1", port))
            live = await front.client()
            ids: list[tuple[int, int]] = []
            for n, step in enumerate(STORY):
                sent = (step, step)
                if isinstance(step, tuple):
                    sent = tuple(cancel(one, step[2]) for one in ids[step[1]])  # type: ignore[assignment]
                theirs = await direct.ask(sent[0])  # type: ignore[arg-type]
                ours = await live.ask(sent[1])  # type: ignore[arg-type]
                ids.append((id_of(theirs), id_of(ours)))
                assert_same(n, theirs, ours, ids)
            direct.close()

    run(story())


def _relay_to(port: int) -> Any:
    """The proxy's monolith is the real one; this rig only knows scripted ones."""

    async def relay(visit: Visit) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            while True:
                writer.write(await visit.request())
                await visit.answer(await Client(reader, writer).response())
        finally:
            writer.close()

    return relay


def id_of(answer: bytes) -> int:
    found = re.search(rb'^{"order":{"id":(\d+)', split(answer)[2])
    return int(found[1]) if found else 0


def assert_same(n: int, theirs: bytes, ours: bytes, ids: Sequence[tuple[int, int]]) -> None:
    their_status, their_head, their_body = split(theirs)
    our_status, our_head, our_body = split(ours)
    for their_id, our_id in ids:
        our_body = re.sub(rb"(id\":)%d\b" % our_id, rb"\g<1>%d" % their_id, our_body)
    assert compare_answer((their_status, their_body), (our_status, our_body)) == (), (n, our_body)
    assert names(their_head) - {b"x-runtime", b"date"} == names(our_head) - {b"x-runtime", b"date"}


def names(head: bytes) -> set[bytes]:
    return {line.partition(b":")[0].lower() for line in head.split(b"\r\n")[1:]}


# --- what only a live instrument meets


def test_ids_come_from_the_monolith_s_sequence(tmp_path: Path, legacy_database: str) -> None:
    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            ids = [(await placed(client, place()))["id"] for _ in range(25)]
            assert ids == sorted(set(ids))
            async with await psycopg.AsyncConnection.connect(legacy_database) as connection:
                cursor = await connection.execute("SELECT nextval('orders_id_seq')")
                assert (await cursor.fetchone() or (0,))[0] > max(ids)

    run(story())


def test_an_order_of_another_worker_is_canceled_with_the_legacy_row(
    tmp_path: Path, legacy_database: str
) -> None:
    """Its leaves are the engine's: the row may be behind."""

    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            order = await placed(client, place(quantity="9"))
            await placed(client, place(account=8, side="sell", quantity="2"))
            await insert_row(legacy_database, order["id"])
            front.index._known.clear()
            status, _, body = split(await client.ask(cancel(order["id"])))
            assert status == 200
            canceled = msgspec.json.decode(body)["order"]
            assert canceled["created_at"] == "2015-05-01T00:00:00.123Z"
            assert (canceled["quantity"], canceled["remaining_quantity"]) == ("9.0", "7.0")
            assert (canceled["filled_quantity"], canceled["state"]) == ("2.0", "cancelled")
            assert canceled["trades"] == []

    run(story())


def test_a_cancel_finds_an_order_that_is_not_written_back_yet(
    tmp_path: Path, legacy_database: str
) -> None:
    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            order = await placed(client, place(quantity="9"))
            front.index._known.clear()
            await client.send(cancel(order["id"]))
            await until(lambda: front.barrier._waiting)
            await insert_row(legacy_database, order["id"])
            front.barrier.note_written(1, front.barrier.answered)
            status, _, body = split(await client.response())
            assert status == 200
            assert msgspec.json.decode(body)["order"]["state"] == "cancelled"

    run(story())


def test_a_cancel_of_an_order_that_was_filled_elsewhere(
    tmp_path: Path, legacy_database: str
) -> None:
    """Neither in our cache nor open in the engine: the written row says whose it was."""

    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            front.barrier.note_written(1, 10**9)
            await insert_row(legacy_database, 501, account=7, state=1)
            assert split(await client.ask(cancel(501)))[0] == 422
            assert split(await client.ask(cancel(501, account=8)))[0] == 404
            assert split(await client.ask(cancel(502)))[2] == b"monolith"

    run(story())


def test_a_cancel_follows_its_order_to_the_monolith(tmp_path: Path, legacy_database: str) -> None:
    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            front.index.put(77, KnownOrder("ETH-USD", 7))
            assert split(await client.ask(cancel(77)))[2] == b"monolith"
            assert split(await client.ask(cancel("x")))[2] == b"monolith"
            await until(lambda: front.tee.captured == 2)

    run(story())


def test_what_the_engine_answers_is_not_captured(tmp_path: Path, legacy_database: str) -> None:
    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            order = await placed(client, place())
            await client.ask(cancel(order["id"]))
            await client.ask(place(price="a"))
            assert front.tee.captured == 0

    run(story())


def test_a_read_waits_for_the_write_back_and_not_for_ever(
    tmp_path: Path, legacy_database: str
) -> None:
    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, _):
            client = await front.client()
            read = request("GET", f"{ORDERS}/1", fields=[("X-Member-Id", "7")])
            assert split(await client.ask(read))[2] == b"monolith"  # nothing answered yet
            await placed(client, place())
            await client.send(read)
            await until(lambda: front.barrier._waiting)
            front.barrier.note_written(1, front.barrier.answered)
            assert split(await client.response())[2] == b"monolith"
            await placed(client, place())
            await client.send(read)
            await until(lambda: front.barrier._waiting)
            assert split(await client.response())[2] == b"monolith"  # the budget is over

    run(story())


def test_an_engine_that_restarts_is_a_pause(tmp_path: Path, legacy_database: str) -> None:
    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, service):
            client = await front.client()
            first = await placed(client, place())
            await service.stop()
            await client.send(place())
            await service.start()
            status, _, body = split(await client.response())
            assert status == 201
            second = msgspec.json.decode(body)["order"]["id"]
            assert second > first["id"]
            for order_id in (first["id"], second):
                assert split(await client.ask(cancel(order_id)))[0] == 200

    run(story())


def test_an_engine_that_stays_away_is_a_503(
    tmp_path: Path, legacy_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.proxy.desk.live.ENGINE_ANSWER_S", 0.2)

    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, service):
            client = await front.client()
            order = await placed(client, place())
            await service.stop()
            # An order that went out on the old link may have been taken: that is no 503.
            await until(lambda: not front.engine.is_connected)
            for sent in (place(), cancel(order["id"])):
                status, head, body = split(await client.ask(sent))
                assert status == 503
                assert b"\r\nRetry-After: 1" in head
                assert body == b'{"status":503,"error":"Service Unavailable"}'
            assert split(await client.ask(place(market="ETH-USD")))[2] == b"monolith"

    run(story())


class NeverSure:
    def __init__(self) -> None:
        self.commands: list[Command] = []

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        self.commands.extend(commands)
        raise OutcomeUnknown("lost")


def test_an_unknown_outcome_is_told_as_such_and_tried_nowhere_else(legacy_database: str) -> None:
    async def story() -> None:
        engine = NeverSure()
        async with between(response(), engine=engine, legacy_url=legacy_database) as (
            front,
            script,
        ):
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            client = await front.client()
            status, head, _ = split(await client.ask(place()))
            assert status == 504
            assert b"Retry-After" not in head
            assert len(engine.commands) == 1
            assert script.requests == []

    run(story())


def test_without_order_ids_a_new_order_is_a_503() -> None:
    async def story() -> None:
        engine = NeverSure()
        async with between(response(), engine=engine) as (front, _):
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            client = await front.client()
            status, head, _ = split(await client.ask(place()))
            assert (status, engine.commands) == (503, [])
            assert b"\r\nRetry-After: 1" in head
            assert split(await client.ask(place(price="a")))[0] == 422  # refused without an id

    run(story())


def test_a_flip_under_way_meets_both_fences(tmp_path: Path, legacy_database: str) -> None:
    """The engine has been closed, and we have not heard: the order waits, and goes to legacy."""

    async def story() -> None:
        async with live_market(tmp_path, legacy_database) as (front, service):
            client = await front.client()
            await placed(client, place())
            await service.control(to_mode(Mode.CLOSED, EPOCH + 1))
            await client.send(place())
            await until(lambda: front.desk.holds.held() == 1)
            front.set_stages(Stage.SHADOW, epoch=EPOCH + 1)
            assert split(await client.response())[2] == b"monolith"

    run(story())


def test_a_defect_leaves_nobody_waiting(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
            raise RuntimeError("a defect")

    async def story() -> None:
        async with between(response(), engine=Broken()) as (front, _):
            front.ids._free.append(1)
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            assert split(await (await front.client()).ask(place()))[0] == 500
            await until(lambda: front.desk.holds.under_way == 0)

    run(story())
    assert "a defect" in caplog.text


class Cancels:
    """An engine that knows of a newer stage at first, and cancels whatever it is asked to then."""

    def __init__(self, *reasons: Reason) -> None:
        self.reasons = list(reasons)
        self.commands: list[Command] = []

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        self.commands.extend(commands)
        if self.reasons:
            return [Answer(1, 1, (Event(kind=EventKind.REJECTED, reason=self.reasons.pop(0)),))]
        (command,) = commands
        done = Event(
            kind=EventKind.CANCELED,
            reason=Reason.BY_REQUEST,
            side=1,
            ord_type=2,
            tif=1,
            order_id=command.order_id,
            contra_id=command.account,
            price_ticks=10_000,
            qty_lots=9,
        )
        return [Answer(2, 1, (done,))]


def test_a_cancel_that_was_executed_is_never_told_to_be_tried_again() -> None:
    """Its row can't be read, so its answer can't be written; 503 would say nothing was done."""

    async def story() -> None:
        engine = Cancels()
        async with between(response(), engine=engine) as (front, script):
            front.index.put(501, KnownOrder("BTC-USD", 7))
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            status, head, _ = split(await (await front.client()).ask(cancel(501)))
            assert status == 504
            assert b"Retry-After" not in head
            assert (len(engine.commands), script.requests) == (1, [])

    run(story())


def test_after_news_the_instrument_of_an_unknown_order_is_looked_for_anew(
    legacy_database: str,
) -> None:
    async def story() -> None:
        engine = Cancels(Reason.STALE_EPOCH)
        async with between(response(), engine=engine, legacy_url=legacy_database) as (
            front,
            script,
        ):
            front.set_stages(Stage.LIVE, epoch=EPOCH)
            client = await front.client()
            await client.send(cancel(501))
            await until(lambda: front.desk.holds.held() == 1)
            await insert_row(legacy_database, 501)
            front.set_stages(Stage.LIVE, epoch=EPOCH + 1)
            assert split(await client.response())[0] == 200
            assert [command.epoch for command in engine.commands] == [EPOCH, EPOCH + 1]
            assert script.requests == []

    run(story())
