"""Exchanges for `railswitch init`: one seeded run of a market, in any monolith's tables."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any

import psycopg
from psycopg import sql

from bridge.undecided import DECIDE

HERE = Path(__file__).parent
BEGIN = datetime(2015, 5, 1, tzinfo=UTC).replace(tzinfo=None)
MARKETS = ("btcusd", "ethusd")
TICK, LOT = Decimal("0.01"), Decimal("0.0001")

Row = dict[str, Any]


@dataclass
class Order:
    id: int
    market: str
    member: int
    side: str
    kind: str
    tif: str
    price: Decimal | None
    quantity: Decimal
    created: datetime
    updated: datetime
    remaining: Decimal = Decimal(0)
    status: str = "open"

    def __post_init__(self) -> None:
        self.remaining = self.quantity


@dataclass
class Fill:
    id: int
    maker: Order
    taker: Order
    price: Decimal
    quantity: Decimal
    at: datetime


@dataclass
class Run:
    orders: list[Order] = field(default_factory=list)
    fills: list[Fill] = field(default_factory=list)


def run(
    count: int = 2_000, seed: int = 1, later: timedelta = timedelta(0), tif: bool = True
) -> Run:
    """`later`: how long after its order a fill is written; nothing for a synchronous monolith."""
    made, chance, now = Run(), Random(seed), BEGIN
    middle = dict.fromkeys(MARKETS, 20_000)
    for number in range(1, count + 1):
        now += timedelta(milliseconds=chance.randint(2_000, 9_000))
        resting = [one for one in made.orders if one.status == "open"]
        if resting and chance.random() < 0.2:
            gone = chance.choice(resting)
            gone.status, gone.updated = "canceled", now
            continue
        market = chance.choice(MARKETS)
        middle[market] += chance.choice((-7, -3, 0, 3, 7))
        side = chance.choice(("buy", "sell"))
        kind = "market" if chance.random() < 0.1 else "limit"
        away = chance.randint(-12, 30) * (-1 if side == "buy" else 1)
        order = Order(
            id=number,
            market=market,
            member=chance.randint(1, 20),
            side=side,
            kind=kind,
            tif="ioc" if kind == "market" or (tif and chance.random() < 0.1) else "gtc",
            price=None if kind == "market" else (middle[market] + away) * TICK,
            quantity=chance.randint(1, 50_000) * LOT,
            created=now,
            updated=now,
        )
        made.orders.append(order)
        _match(made, order, now + later)
    return made


def _match(made: Run, order: Order, at: datetime) -> None:
    sign = 1 if order.side == "buy" else -1
    book = [
        one
        for one in made.orders
        if one.status == "open" and one.market == order.market and one.side != order.side
    ]
    for maker in sorted(book, key=lambda one: (sign * (one.price or 0), one.id)):
        assert maker.price is not None
        if not order.remaining or (order.price and sign * maker.price > sign * order.price):
            break
        quantity = min(order.remaining, maker.remaining)
        made.fills.append(Fill(len(made.fills) + 1, maker, order, maker.price, quantity, at))
        for one in (maker, order):
            one.remaining -= quantity
            one.updated = at
            one.status = "open" if one.remaining else "filled"
    if order.remaining and order.tif == "ioc":
        order.status = "canceled"


def insert(url: str, table: str, rows: Iterable[Row]) -> None:
    listed = list(rows)
    statement = sql.SQL("INSERT INTO {} ({}) VALUES ({})").format(
        sql.Identifier(*table.split(".")),
        sql.SQL(", ").join(map(sql.Identifier, listed[0])),
        sql.SQL(", ").join(sql.Placeholder() * len(listed[0])),
    )
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany(statement, [list(row.values()) for row in listed])


def execute(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def _times(one: Order | Fill) -> Row:
    if isinstance(one, Fill):
        return {"created_at": one.at, "updated_at": one.at}
    return {"created_at": one.created, "updated_at": one.updated}


def sandbox(url: str) -> Run:
    """Into a database that has the sandbox's tables and markets."""
    made, codes = run(), {"open": 0, "filled": 1, "canceled": 2}
    names = dict(zip(MARKETS, ("BTC-USD", "ETH-USD"), strict=True))
    insert(
        url,
        "orders",
        (
            {
                "id": one.id,
                "market_id": names[one.market],
                "member_id": one.member,
                "side": int(one.side == "sell"),
                "order_type": int(one.kind == "market"),
                "time_in_force": int(one.tif == "ioc"),
                "price": one.price,
                "quantity": one.quantity,
                "remaining_quantity": one.remaining,
                "state": codes[one.status],
                **_times(one),
            }
            for one in made.orders
        ),
    )
    insert(
        url,
        "trades",
        (
            {
                "market_id": names[one.taker.market],
                "maker_order_id": one.maker.id,
                "taker_order_id": one.taker.id,
                "price": one.price,
                "quantity": one.quantity,
                "taker_side": int(one.taker.side == "sell"),
                **_times(one),
            }
            for one in made.fills
        ),
    )
    return made


def rails(url: str) -> Run:
    execute(url, (HERE / "bridge/onboard_rails.sql").read_text())
    ids = {name: number for number, name in enumerate(MARKETS, 7)}
    once = {"created_at": BEGIN, "updated_at": BEGIN}
    insert(url, "members", ({"id": n, "email": f"m{n}@example.com", **once} for n in range(1, 21)))
    insert(
        url,
        "markets",
        (
            {
                "id": ids[name],
                "symbol": name,
                "base": name[:3],
                "quote": name[3:],
                "tick_size": TICK,
                "lot_size": LOT,
                **once,
            }
            for name in MARKETS
        ),
    )
    return rails_orders(url, ids)


def rails_orders(url: str, ids: Mapping[str, int]) -> Run:
    """Where members and markets, with these ids, are there already."""
    made, codes = run(), {"open": 100, "filled": 200, "canceled": -100}
    sides = {"buy": "bid", "sell": "ask"}
    insert(
        url,
        "orders",
        (
            {
                "id": one.id,
                "market_id": ids[one.market],
                "member_id": one.member,
                "side": sides[one.side],
                "order_type": 2 if one.kind == "market" else 1,
                "time_in_force": int(one.tif == "ioc"),
                "price": one.price,
                "quantity": one.quantity,
                "remaining": one.remaining,
                "state": codes[one.status],
                "source": "api",
                **_times(one),
            }
            for one in made.orders
        ),
    )
    insert(
        url,
        "trades",
        (
            {
                "market_id": ids[one.taker.market],
                "maker_order_id": one.maker.id,
                "taker_order_id": one.taker.id,
                "maker_id": one.maker.member,
                "taker_id": one.taker.member,
                "taker_side": sides[one.taker.side],
                "price": one.price,
                "quantity": one.quantity,
                "total": one.price * one.quantity,
                **_times(one),
            }
            for one in made.fills
        ),
    )
    return made


_LATER = timedelta(milliseconds=37)


def peatio_3(url: str) -> Run:
    execute(url, (HERE / "legacies/peatio_3.sql").read_text())
    made = run(later=_LATER, tif=False)
    codes, once = {"open": 100, "filled": 200, "canceled": -100}, {"created_at": BEGIN}
    insert(
        url,
        "markets",
        (
            {
                "id": n,
                "symbol": name,
                "base_unit": name[:3],
                "quote_unit": name[3:],
                "engine_id": 1,
                "amount_precision": 4,
                "price_precision": 2,
                "position": n,
                **once,
                "updated_at": BEGIN,
            }
            for n, name in enumerate(MARKETS, 1)
        ),
    )
    insert(
        url,
        "orders",
        (
            {
                "id": one.id,
                "bid": one.market[3:],
                "ask": one.market[:3],
                "market_id": one.market,
                "price": one.price,
                "volume": one.remaining,
                "origin_volume": one.quantity,
                "state": codes[one.status],
                "type": "OrderBid" if one.side == "buy" else "OrderAsk",
                "member_id": one.member,
                "ord_type": one.kind,
                "locked": one.remaining,
                "origin_locked": one.quantity,
                **_times(one),
            }
            for one in made.orders
        ),
    )
    insert(
        url,
        "trades",
        (
            {
                "price": one.price,
                "amount": one.quantity,
                "total": one.price * one.quantity,
                "maker_order_id": one.maker.id,
                "taker_order_id": one.taker.id,
                "market_id": one.taker.market,
                "maker_id": one.maker.member,
                "taker_id": one.taker.member,
                "taker_type": one.taker.side,
                **_times(one),
            }
            for one in made.fills
        ),
    )
    return made


def peatio_2015(url: str) -> Run:
    execute(url, (HERE / "legacies/peatio_2015.sql").read_text())
    made = run(later=_LATER, tif=False)
    codes = {"open": 100, "filled": 200, "canceled": 0}
    currencies = {name: number for number, name in enumerate(MARKETS, 3)}
    insert(
        url,
        "orders",
        (
            {
                "id": one.id,
                "bid": 1,
                "ask": currencies[one.market],
                "currency": currencies[one.market],
                "price": one.price,
                "volume": one.remaining,
                "origin_volume": one.quantity,
                "state": codes[one.status],
                "type": "OrderBid" if one.side == "buy" else "OrderAsk",
                "member_id": one.member,
                "source": "APIv2",
                "ord_type": one.kind,
                "locked": one.remaining,
                "origin_locked": one.quantity,
                **_times(one),
            }
            for one in made.orders
        ),
    )
    insert(url, "trades", (_trade_2015(one, currencies) for one in made.fills))
    return made


def _trade_2015(one: Fill, currencies: Mapping[str, int]) -> Row:
    bid, ask = (one.maker, one.taker) if one.maker.side == "buy" else (one.taker, one.maker)
    return {
        "price": one.price,
        "volume": one.quantity,
        "ask_id": ask.id,
        "bid_id": bid.id,
        "trend": one.id % 2,
        "currency": currencies[one.taker.market],
        "ask_member_id": ask.member,
        "bid_member_id": bid.member,
        "funds": one.price * one.quantity,
        **_times(one),
    }


def decided(text: str, answer: Callable[[str], str | None]) -> str:
    """The file with every decision made: by `answer`, TOML for a key, else by its first choice."""
    made, section, first, counts = [], "", "", dict[str, int]()
    for line in text.splitlines():
        header = re.fullmatch(r"\[\[?(.+?)\]\]?", line)
        if header:
            section, first = header[1], ""
            if line.startswith("[["):
                counts[section] = counts.get(section, -1) + 1
                section = f"{section}.{counts[section]}"
        if line.startswith("# DECIDE"):
            first = ""
        name, found, value = line.partition(" = ")
        if line.startswith("#   ") and found and not first:
            first = value
        if found and value == f'"{DECIDE}"':
            (bare,) = tomllib.loads(line)
            line = f"{name} = {answer(f'{section}.{bare}') or first}"
            assert first or answer(f"{section}.{bare}"), f"nothing to choose for {section}.{bare}"
        made.append(line)
    return "\n".join(made) + "\n"
