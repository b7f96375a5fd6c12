"""What the tests of bulk requests share: one instrument is live, the others the monolith's."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import psycopg
from proxy_rig import SCALES, Client, Front, Monolith, between, request, response, until

from bridge.proxy.desk.own_requests import OwnRequests
from bridge.stage import InstrumentStage, Stage, StageSnapshot
from engine.client import Answer
from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventKind
from shadow.capture import Outcome

BTC, ETH, SOL = "BTC-USD", "ETH-USD", "SOL-USD"
BATCH, ORDERS = "/api/v1/orders/batch", "/api/v1/orders"
JSON = ("Content-Type", "application/json")
MEMBER = ("X-Member-Id", "7")
UNKNOWN = {"errors": {"base": ["outcome unknown"]}}
NOT_SENT = {"errors": {"base": ["was not sent"]}}


def order(market: str = BTC, price: str = "100.00", **more: object) -> dict[str, object]:
    return {"market": market, "side": "buy", "price": price, "quantity": "1.5"} | more


def place(*orders: dict[str, object], fields: Sequence[tuple[str, str]] = (JSON, MEMBER)) -> bytes:
    return request("POST", BATCH, msgspec.json.encode({"orders": orders}), fields)


def cancel(*ids: object) -> bytes:
    return request("DELETE", BATCH, msgspec.json.encode({"ids": ids}), (JSON, MEMBER))


def cancel_all(query: str = "", *fields: tuple[str, str]) -> bytes:
    return request("DELETE", f"{ORDERS}{query}", fields=fields or (MEMBER,))


def told(answer: bytes) -> tuple[int, Any]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), msgspec.json.decode(body)


def shown(answer: bytes, key: str = "market") -> list[Any]:
    """One thing of each order of an answer; of one that was refused, why."""
    return [one.get(key, one.get("errors")) for one in told(answer)[1]["orders"]]


class Engine:
    """Takes every order and cancels what is open; `reasons` for those that it refuses."""

    def __init__(self) -> None:
        self.calls: list[list[Command]] = []
        self.open: dict[int, tuple[int, int]] = {}  # order id -> instrument, account
        self.reasons: dict[int, list[Reason]] = {}  # by instrument
        self.fails: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        self.calls.append(list(commands))
        await self.go_on.wait()
        if self.fails is not None:
            raise self.fails
        return [Answer(len(self.calls), 10**18, tuple(self._events(one))) for one in commands]

    def _events(self, one: Command) -> list[Event]:
        reasons = self.reasons.get(one.instrument)
        if reasons:
            return [Event(kind=EventKind.REJECTED, reason=reasons.pop(0))]
        if one.kind is CommandKind.NEW:
            self.open[one.order_id] = (one.instrument, one.account)
            return [self._event(EventKind.ACCEPTED, one.order_id, one)]
        if one.kind is CommandKind.MASS_CANCEL:
            ids = [n for n, where in self.open.items() if where == (one.instrument, one.account)]
            first, rest = ids[:2], ids[2:]  # two at a time
            events = [self._event(EventKind.CANCELED, n, one) for n in first]
            for n in first:
                del self.open[n]
            return [*events, Event(kind=EventKind.MASS_CANCELED, leaves_lots=len(rest))]
        if self.open.get(one.order_id) != (one.instrument, one.account):
            return [Event(kind=EventKind.REJECTED, reason=Reason.UNKNOWN_ORDER)]
        del self.open[one.order_id]
        return [self._event(EventKind.CANCELED, one.order_id, one)]

    def _event(self, kind: EventKind, order_id: int, one: Command) -> Event:
        return Event(
            kind=kind,
            side=one.side or 1,
            ord_type=2,
            tif=1,
            instrument=one.instrument,
            order_id=order_id,
            contra_id=one.account,
            price_ticks=one.price_ticks or 100,
            qty_lots=one.qty_lots or 9,
            leaves_lots=one.qty_lots or 9,
        )


def monolith_s_answer(sent: bytes) -> bytes:
    """To each single order, by what is asked; to whole requests, that they came."""
    head, _, body = sent.partition(b"\r\n\r\n")
    method, target, _ = head.split(b" ", 2)
    single = re.fullmatch(rb"/api/v1/orders/(\w+)", target)
    if method == b"POST" and target == ORDERS.encode():
        given = msgspec.json.decode(body)["order"]
        if given["price"] == "bad":
            return response(b'{"errors":{"price":["is not a number"]}}', "422 Unprocessable Entity")
        taken = {"order": {"id": 900 + int(float(given["price"])), "market": given["market"]}}
        return response(msgspec.json.encode(taken), "201 Created")
    if method == b"DELETE" and single and single[1] != b"batch":
        if not single[1].isdigit() or int(single[1]) >= 990:
            return response(b'{"status":404,"error":"Not Found"}', "404 Not Found")
        canceled = {"order": {"id": int(single[1]), "market": "theirs"}}
        return response(msgspec.json.encode(canceled))
    return response(b'"as it came"')


class World:
    def __init__(self, front: Front, monolith: Monolith, engine: Engine) -> None:
        self.front, self.monolith, self.engine = front, monolith, engine
        self.recorded: list[tuple[str, str, int, Outcome]] = []
        self._stages: dict[str, InstrumentStage] = {}
        self._version = 1000
        front.desk.monolith.record = self._record

    def stages(self, **stages: tuple[Stage, int]) -> None:
        """`BTC=(Stage.LIVE, 5)`: live, and held for flip 5."""
        self._version += 1
        for name, (stage, holding) in stages.items():
            symbol = f"{name}-USD"
            self._stages[symbol] = InstrumentStage(
                symbol=symbol,
                instrument=SCALES[symbol].instrument,
                stage=stage,
                epoch=2,
                holding=holding,
            )
        snapshot = StageSnapshot(version=self._version, instruments=dict(self._stages))
        # The plane in Rust has to hear of it too.
        getattr(self.front.server, "apply", self.front.desk.holds.apply)(snapshot)

    def _record(self, exchange: Any, outcome: Outcome) -> None:
        captured = exchange.capture("w", 1, outcome)
        self.recorded.append((captured.action, captured.target, captured.status, outcome))

    async def ask(self, sent: bytes) -> bytes:
        return await (await self.front.client()).ask(sent)

    async def begun(self, sent: bytes, condition: Callable[[], object]) -> Client:
        client = await self.front.client()
        await client.send(sent)
        await until(condition)
        return client

    @property
    def came(self) -> list[bytes]:
        """Method and target of what the monolith has got."""
        return [b" ".join(sent.split(b" ", 2)[:2]) for sent in self.monolith.requests]


@contextlib.asynccontextmanager
async def world(
    answer: Any = monolith_s_answer, *, legacy: str = "", live: str = "BTC", **options: Any
) -> AsyncIterator[World]:
    """One instrument is live, the others are the monolith's."""
    engine = Engine()
    options |= {"legacy_url": legacy} if legacy else {}
    async with between(answer, engine=engine, **options) as (front, monolith):
        front.ids._free.extend(range(1, 500))
        own = OwnRequests([monolith.upstream], answer_s=5.0)
        front.desk.monolith.ask = own.ask
        there = World(front, monolith, engine)
        stages = dict.fromkeys(("BTC", "ETH", "SOL"), (Stage.SHADOW, 0))
        there.stages(**stages | ({live: (Stage.LIVE, 0)} if live else {}))
        try:
            yield there
        finally:
            await own.close()


async def insert_row(url: str, order_id: int, symbol: str, account: int = 7, side: int = 0) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(
            "INSERT INTO orders (id, market_id, member_id, side, order_type, price, quantity,"
            " remaining_quantity, state, created_at, updated_at)"
            " VALUES (%s, %s, %s, %s, 0, 100, 9, 9, 0, '2015-05-01', '2015-05-01')",
            [order_id, symbol, account, side],
        )
