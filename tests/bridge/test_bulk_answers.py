"""Bulk requests while instruments are live: what the proxy answers is what the monolith answers.

The same requests go to two exchanges that know nothing of each other: the sandbox monolith alone,
and another one behind the proxy, with a real engine that answers for some of the instruments.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from bulk_world import BATCH, BTC, ETH, JSON, ORDERS, SOL
from proxy_rig import MAPPING, SCALES, Client, Front, request, run
from running import fresh_database
from test_proxy_live import EPOCH, KEYS, EngineService, monolith

from bridge.proxy.desk.monolith import MonolithSide, nobody_records
from bridge.proxy.desk.own_requests import OwnRequests
from bridge.proxy.desk.reply import Fate
from bridge.proxy.desk.session import EngineSession
from bridge.proxy.plane.exchange import Exchange
from bridge.sandbox.servers import EmbeddedPostgres
from bridge.stage import InstrumentStage, Stage, StageSnapshot
from engine.endpoint import Endpoint
from engine.types import Command, CommandKind, Mode, Role
from engine.wire import instrument_command
from shadow.answer_check import compare_answer

FORM = ("Content-Type", "application/x-www-form-urlencoded")
# Their values are of one moment or of one body.
OWN_VALUES = {b"date", b"x-runtime", b"etag", b"content-length"}
ALWAYS = 10**9
PLAIN = ("place", "")  # action, and where its list stands

Ids = Sequence[int]  # of all orders that were told of, in the order of the answers
Step = Callable[[Ids], bytes]


def order(market: object = BTC, side: str = "buy", price: object = "100", **more: object) -> Any:
    given = {"market": market, "side": side, "price": price, "quantity": "1"} | more
    return {key: value for key, value in given.items() if value != "absent"}


def json_request(method: str, target: str, body: object, member: object, *more: Any) -> bytes:
    fields = [JSON, ("X-Member-Id", str(member)), ("X-Request-Id", "same"), *more]
    return request(method, target, msgspec.json.encode(body), fields)


def place(*orders: object, member: object = 7, target: str = BATCH) -> Step:
    return lambda ids: json_request("POST", target, {"orders": orders}, member)


def cancel(*given: object, member: object = 7) -> Step:
    """A number below 1000 stands for the order of that place in the story; of several, a tuple."""

    def step(ids: Ids) -> bytes:
        named = [ids[one] if type(one) is int and one < 1000 else one for one in given]
        shown = [one(ids) if callable(one) else one for one in named]
        return json_request("DELETE", BATCH, {"ids": shown}, member)

    return step


def cancel_all(query: str = "", member: object = 7) -> Step:
    fields = [("X-Member-Id", str(member)), ("X-Request-Id", "same")]
    return lambda ids: request("DELETE", f"{ORDERS}{query}", fields=fields)


def raw(method: str, target: str, body: bytes, *fields: tuple[str, str]) -> Step:
    return lambda ids: request(method, target, body, [*fields, ("X-Request-Id", "same")])


def form(method: str, body: str, member: object = 7) -> Step:
    """`%1` in it stands for the order of that place in the story."""

    def step(ids: Ids) -> bytes:
        filled = re.sub(r"%(\d+);", lambda found: str(ids[int(found[1])]), body)
        fields = [FORM, ("X-Member-Id", str(member)), ("X-Request-Id", "same")]
        return request(method, BATCH, filled.encode(), fields)

    return step


PLACES: Sequence[Step] = (
    place(order(), order(ETH), order(SOL), order(BTC, "sell", 101, quantity=2)),
    place(order(BTC, "buy", "100.00000000"), order(BTC, "buy", 99.5, quantity=0.25)),
    # Takers of several makers, of each other, and of what came before them in their own list.
    place(
        order(BTC, "sell", "99.5", quantity="2.5"),
        order(BTC, "sell", "100", quantity="1"),
        order(BTC, "buy", "100", quantity="0.5", time_in_force="ioc"),
        order(ETH, "sell", "absent", order_type="market"),
        order(ETH, "buy", "1", time_in_force="ioc"),
        order(SOL, "sell", "99", time_in_force="gtc", quantity="3"),
        member=8,
    ),
    # Refused ones among others, of either side and of neither.
    place(
        order(price="99.999"),
        order(ETH, price="a"),
        order(),
        order("XXX"),
        order(None),
        order(["BTC-USD"]),
        order(market="absent"),
        order(BTC, "hold", None, quantity=None, order_type="stop", time_in_force="day"),
        order(SOL, "hold", None, quantity=None, order_type="stop", time_in_force="day"),
        order(order_type="market", price="1"),
        order(price=True, quantity=[1]),
        order(price=" 1"),
        order(price="1e2"),
        order(price=10_000_000_000),
        order(ETH, quantity="0.000000001"),
        {},
        order(ETH, note={"a": [1, None]}),
    ),
    place(order(price="a"), order(quantity="0")),
    place(order(price="a"), order(ETH, quantity="-1")),
    # What is no list of orders, or not all of it.
    place(),
    place(1, "a", None, [order()]),
    place(None, order(), 5, order(ETH), [order(ETH)]),
    lambda ids: json_request("POST", BATCH, {"orders": order()}, 7),
    lambda ids: json_request("POST", BATCH, {"orders": {"0": order()}}, 7),
    lambda ids: json_request("POST", BATCH, [order(), order(ETH)], 7),
    lambda ids: json_request("POST", BATCH, {}, 7),
    raw("POST", BATCH, b"{", JSON, ("X-Member-Id", "7")),
    raw("POST", BATCH, b"", JSON, ("X-Member-Id", "7")),
    raw("POST", BATCH, b"orders", ("Content-Type", "text/plain"), ("X-Member-Id", "7")),
    # Who asks.
    place(order(), order(ETH), member=""),
    place(order(), order(ETH), member="0"),
    place(order(), member="x"),
    raw("POST", BATCH, b'{"orders":[{"market":"BTC-USD"}]}', JSON),
    raw("POST", BATCH, b'{"orders":[]}', JSON),
    # Other ways to say it.
    form(
        "POST",
        "orders[][market]=BTC-USD&orders[][side]=buy&orders[][price]=9.50&orders[][quantity]=1"
        "&orders[][market]=ETH-USD&orders[][side]=sell&orders[][price]=&orders[][quantity]=2"
        "&orders[][market]=SOL-USD&orders[][side]=sell&orders[][price]=200&orders[][quantity]=2",
    ),
    place(order(), target=f"{BATCH}?orders[][market]=ETH-USD&orders[][side]=up"),
    place(order(), order(ETH), target=f"{BATCH}/"),
    place(order(), order(ETH), target=f"{BATCH}.json"),
)

CANCELS: Sequence[Step] = (
    place(*(order(market, "buy", n) for n in (1, 2, 3) for market in (BTC, ETH, SOL))),  # 0 to 8
    place(order(BTC, "sell", 200), order(ETH, "sell", 200), member=8),  # 9, 10
    place(order(BTC, "sell", 3), order(ETH, "sell", 3), member=9),  # 11, 12: fill 6 and 7
    cancel(0, 1, 2),
    cancel(2, 0, 1, 3),  # three are canceled already
    cancel(6, 7, 11, 3, 12, member=7),  # filled ones, others', and a canceled one
    cancel(9, 10, 8),  # others' and an own one
    cancel(4, 4),
    cancel(lambda ids: str(ids[5]), lambda ids: f"0{ids[5]}"),
    cancel(10**12, 10**15, 2**63, 2**64, lambda ids: 0, lambda ids: -1),
    place(order(BTC, "buy", 4), order(ETH, "buy", 4), order(SOL, "buy", 4)),  # 13, 14, 15
    # What is no id, and must not become one: the order itself stays open.
    cancel("x", 13, "", "batch", None, True, 1.5, "..", ".", "a/b", "?", "%2f", "é", " "),
    cancel(lambda ids: f"{ids[14]}.5", lambda ids: f"{ids[15]}.json", 13),
    cancel(lambda ids: f"{ids[14]}/", lambda ids: f" {ids[15]}", lambda ids: f"+{ids[14]}", 13),
    cancel(14, 15),
    cancel(),
    cancel(None),
    cancel([0]),
    cancel({"id": 0}, 1),
    lambda ids: json_request("DELETE", BATCH, {"ids": ids[0]}, 7),
    lambda ids: json_request("DELETE", BATCH, list(ids[:2]), 7),
    lambda ids: json_request("DELETE", BATCH, {}, 7),
    raw("DELETE", BATCH, b"", ("X-Member-Id", "7")),
    raw("DELETE", BATCH, b'{"ids":[1', JSON, ("X-Member-Id", "7")),
    cancel(0, 1, member=""),
    cancel(10**12, member="0"),
    cancel(member="x"),
    place(*(order(market, "buy", n) for n in (5, 6) for market in (BTC, ETH))),  # 16 to 19
    form("POST", "_method=delete&ids[]=%16;&ids[]=%17;&ids[]=nothing"),
    form("DELETE", "ids[]=%18;&ids[]=%16;"),
    form("DELETE", "ids=%19;"),
    lambda ids: request(
        "DELETE",
        f"{BATCH}?ids[]={ids[19]}&ids[]={ids[18]}",
        fields=[("X-Member-Id", "7"), ("X-Request-Id", "same")],
    ),
    lambda ids: json_request(
        "POST", BATCH, {"ids": ids[16:18]}, 7, ("X-HTTP-Method-Override", "DELETE")
    ),
)

_FOUR = [order(market, *way) for market in (BTC, ETH, SOL) for way in (("buy", 1), ("sell", 9))]
EVERYTHING: Sequence[Step] = (
    cancel_all(),
    place(*_FOUR),
    place(*_FOUR, member=8),
    cancel_all("?market=BTC-USD&side=sell"),
    cancel_all("?market=ETH-USD&side=sell"),
    cancel_all("?side=sell"),
    cancel_all("?side=up"),
    cancel_all("?market=XXX"),
    cancel_all("?market=BTC-USD&side=up"),
    cancel_all("?market[]=BTC-USD"),
    cancel_all("?side[a]=buy"),
    cancel_all("?market=%ZZ"),
    cancel_all("?market=&side="),
    cancel_all("?market"),
    place(*_FOUR),
    cancel_all("?market=SOL-USD"),
    cancel_all("?market=BTC-USD&market=ETH-USD"),
    cancel_all("?market=BTC-USD&other=1"),
    cancel_all("?market=BTC-USD"),
    cancel_all(member=""),
    cancel_all(member="0"),
    cancel_all(member=9),
    cancel_all(),
    cancel_all(),
    place(order(BTC, "sell", 1), order(ETH, "sell", 1), member=9),  # member 8 has bought
    place(*_FOUR),
    lambda ids: json_request("DELETE", ORDERS, {"market": "ETH-USD"}, 7),  # no parameter of the URL
    raw("POST", ORDERS, b"_method=delete&market=BTC-USD", FORM, ("X-Member-Id", "8")),
    cancel_all(member=8),
    cancel_all(member=9),
)


class Pair:
    """Both exchanges, and what their orders are called there."""

    def __init__(self, theirs: Client, ours: Client, *, by_id: bool) -> None:
        """`by_id`: what was canceled is told in the order of its ids, not of its request."""
        self._theirs, self._ours, self._by_id = theirs, ours, by_id
        self._ids: dict[int, int] = {}  # theirs -> ours, in the order of the answers

    async def ask(self, n: int, step: Step) -> tuple[int, Any]:
        """What both have answered alike."""
        theirs = await self._theirs.ask(step(list(self._ids)))
        ours = await self._ours.ask(step(list(self._ids.values())))
        their_status, their_head, their_body = _split(theirs)
        our_status, our_head, our_body = _split(ours)
        self._learn(their_body, our_body)
        if self._by_id and our_status == 200:
            our_body = self._sorted(our_body)
        what = f"step {n}: {step(list(self._ids))!r}\n{their_body!r}\n{our_body!r}"
        told = (their_status, their_body), (our_status, self._as_theirs(our_body))
        assert compare_answer(*told) == (), what
        assert _fields(their_head) == _fields(our_head), what
        etag = b'W/"%b"' % hashlib.sha256(_split(ours)[2]).hexdigest()[:32].encode()
        assert our_head.get(b"etag", etag) == etag
        assert int(our_head[b"content-length"]) == len(_split(ours)[2])
        return their_status, msgspec.json.decode(their_body)

    def _learn(self, theirs: bytes, ours: bytes) -> None:
        for one, other in zip(_orders(theirs), _orders(ours), strict=False):
            known = one.get("id") in self._ids or other.get("id") in self._ids.values()
            if "id" in one and "id" in other and not known:
                self._ids[one["id"]] = other["id"]

    def _as_theirs(self, body: bytes) -> bytes:
        names = self._names
        return re.sub(rb'(id":)(\d+)', lambda one: one[1] + b"%d" % names[int(one[2])], body)

    def _sorted(self, body: bytes) -> bytes:
        """By their ids: which of two instruments' orders has the lower one is chance."""
        orders = _orders(body)
        ids = [one["id"] for one in orders]
        assert ids == sorted(ids)
        orders.sort(key=lambda one: self._names[one["id"]])
        return msgspec.json.encode({"orders": orders})

    @property
    def _names(self) -> dict[int, int]:
        return {ours: theirs for theirs, ours in self._ids.items()}


def _split(answer: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
    fields = {name.lower(): value.strip() for name, _, value in lines}
    assert len(fields) == len(lines), head
    return int(head.split(b" ")[1]), fields, body


def _fields(head: dict[bytes, bytes]) -> dict[bytes, bytes]:
    """X-Runtime and Date are the monolith's servers' own."""
    kept = {name: b"" if name in OWN_VALUES else value for name, value in head.items()}
    return {name: value for name, value in kept.items() if name not in (b"x-runtime", b"date")}


def _orders(body: bytes) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = msgspec.json.decode(body).get("orders", [])
    return found


@contextlib.asynccontextmanager
async def engine(directory: Path, live: Sequence[str]) -> AsyncIterator[EngineSession]:
    service = EngineService(directory)
    await service.start()
    for symbol in (BTC, ETH, SOL):
        scale = SCALES[symbol]
        mode = Mode.LIVE if symbol in live else Mode.SHADOW
        await service.control(
            instrument_command(
                instrument=scale.instrument,
                name=symbol,
                price_ticks_max=scale.price_ticks_max,
                qty_lots_max=scale.qty_lots_max,
            ),
            Command(kind=CommandKind.MODE, instrument=scale.instrument, epoch=EPOCH, aux=mode),
        )
    endpoint = Endpoint(host="127.0.0.1", port=service.port)
    session = EngineSession(endpoint, name="proxy-0", key=KEYS[Role.TRADE])
    keeping = asyncio.create_task(session.run())
    try:
        yield session
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await service.stop()


@contextlib.asynccontextmanager
async def pair(
    directory: Path, databases: tuple[str, str], live: Sequence[str], *, by_id: bool
) -> AsyncIterator[Pair]:
    async with (
        monolith(databases[0]) as alone,
        monolith(databases[1]) as behind,
        engine(directory, live) as session,
        Front(f"http://127.0.0.1:{behind}", engine=session, legacy_url=databases[1]) as front,
    ):
        own = OwnRequests([f"http://127.0.0.1:{behind}"])
        front.desk.monolith.ask = own.ask
        front.barrier.note_written(1, ALWAYS)  # there is no write-back here to wait for
        stages = {
            symbol: InstrumentStage(
                symbol=symbol,
                instrument=SCALES[symbol].instrument,
                stage=Stage.LIVE if symbol in live else Stage.SHADOW,
                epoch=EPOCH,
            )
            for symbol in (BTC, ETH, SOL)
        }
        snapshot = StageSnapshot(version=1000, instruments=stages)
        getattr(front.server, "apply", front.desk.holds.apply)(snapshot)
        direct = Client(*await asyncio.open_connection("127.0.0.1", alone))
        try:
            yield Pair(direct, await front.client(), by_id=by_id)
        finally:
            direct.close()
            await own.close()


@pytest.fixture
def databases(
    legacy_database: str, postgres_server: EmbeddedPostgres, legacy_template: str
) -> Iterator[tuple[str, str]]:
    """Of two exchanges."""
    with fresh_database(postgres_server, legacy_template, owner="exchange") as other:
        yield legacy_database, other


LIVE = [[BTC], [ETH, SOL], [BTC, ETH, SOL]]


@pytest.mark.parametrize("live", LIVE, ids=" ".join)
def test_lists_of_new_orders(
    tmp_path: Path, databases: tuple[str, str], live: Sequence[str]
) -> None:
    statuses = _tell(tmp_path, databases, live, PLACES)
    assert statuses == {201, 400, 401}


@pytest.mark.parametrize("live", LIVE, ids=" ".join)
def test_lists_of_orders_to_cancel(
    tmp_path: Path, databases: tuple[str, str], live: Sequence[str]
) -> None:
    statuses = _tell(tmp_path, databases, live, CANCELS)
    assert statuses == {200, 201, 400, 401}


@pytest.mark.parametrize("live", LIVE, ids=" ".join)
def test_cancels_of_everything(
    tmp_path: Path, databases: tuple[str, str], live: Sequence[str]
) -> None:
    statuses = _tell(tmp_path, databases, live, EVERYTHING, by_id=True)
    assert statuses == {200, 201, 400, 401}


def _tell(
    directory: Path,
    databases: tuple[str, str],
    live: Sequence[str],
    steps: Sequence[Step],
    *,
    by_id: bool = False,
) -> set[int]:
    async def story() -> set[int]:
        async with pair(directory, databases, live, by_id=by_id) as both:
            return {(await both.ask(n, step))[0] for n, step in enumerate(steps)}

    return run(story())


def test_a_part_that_would_be_read_as_another_request_is_not_sent() -> None:
    """Here orders stand in the body itself, where Rack looks for `_method` too."""
    fields = {"symbol": "market", "side": "side", "price": "price", "quantity": "quantity"}
    routes = [
        msgspec.structs.replace(one, fields=fields) if (one.action, one.each) == PLAIN else one
        for one in MAPPING.routes
    ]
    asked: list[bytes] = []

    async def ask(method: bytes, target: bytes, *rest: Any) -> tuple[int, bytes]:
        asked.append(b"%b %b" % (method, target))
        return 201, b"{}"

    async def story() -> None:
        side = MonolithSide(
            msgspec.structs.replace(MAPPING, routes=tuple(routes)),
            ask,
            record=nobody_records,
            learn=lambda exchange: None,
        )
        exchange = Exchange(None)
        exchange.method, exchange.content_type = b"POST", FORM[1].encode()
        values = {"symbol": ETH, "side": "buy", "price": "1", "quantity": "1"}
        replies = [
            await side.place(exchange, values, {"_method": word}, n)
            for n, word in enumerate(("delete", "post"), 1)
        ]
        assert [one.fate for one in replies] == [Fate.NOT_SENT, Fate.DONE]
        for order_id in (7, "7.5", "7.json", "", "batch", "7/", "7"):
            await side.cancel(exchange, order_id, 3)
        assert asked == [
            b"POST /api/v1/orders",
            b"DELETE /api/v1/orders/7",
            b"DELETE /api/v1/orders/7%2F",
            b"DELETE /api/v1/orders/7",
        ]

    run(story())
