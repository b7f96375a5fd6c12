"""An exchange whose orders lock money in accounts, and a proxy worker's parts before it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import msgspec
import psycopg
from switch_world import BTC, CONFIG, KEYS, SCALES, Control, World, new_order, shadowing, until

from bridge.control.messages import ActRequest
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.funds import LiveFunds
from bridge.proxy.desk.ids import LegacyOrders, OrderIds, OrderIndex
from bridge.proxy.desk.live import Behind, LiveOrders
from bridge.proxy.desk.reply import Reply
from bridge.proxy.desk.session import EngineSession, WriteBarrier
from bridge.stage import InstrumentStage, Stage
from bridge.tasks import ended
from engine.endpoint import Endpoint
from engine.types import Role, Side
from shadow.legacy.mapping import Accounts, Currencies, Mapping
from shadow.normalise import Fields

ACT = ActRequest(actor="ann", execute=True)
MEMBERS = (1, 2, 3, 7)
DEPOSIT = {"btc": Decimal(1000), "usd": Decimal(100_000)}  # of each member
SCHEMA = """
    CREATE TABLE accounts (
        id bigserial PRIMARY KEY,
        member_id bigint NOT NULL,
        currency text NOT NULL,
        balance numeric(32, 16) NOT NULL CHECK (balance >= 0),
        locked numeric(32, 16) NOT NULL CHECK (locked >= 0),
        UNIQUE (member_id, currency)
    );
    CREATE TABLE revenues (
        id bigserial PRIMARY KEY,
        trade_id bigint NOT NULL,
        order_id bigint NOT NULL,
        currency text NOT NULL,
        amount numeric(32, 16) NOT NULL
    );
    CREATE TABLE holds (order_id bigint PRIMARY KEY, amount numeric(32, 16) NOT NULL);"""
_FEE = "CASE :role WHEN 'maker' THEN 0.001 ELSE 0.002 END"
ACCOUNTS = Accounts(
    table="accounts",
    others=("revenues",),
    currencies={one.symbol: Currencies(base="btc", quote="usd") for one in CONFIG.instruments},
    lock="SELECT 1 FROM accounts WHERE member_id = ANY (:accounts) ORDER BY id FOR UPDATE",
    reserve="UPDATE accounts SET balance = balance - :amount, locked = locked + :amount"
    " WHERE member_id = :account AND currency = :currency AND balance >= :amount",
    settle="WITH fee AS (INSERT INTO revenues (trade_id, order_id, currency, amount) VALUES"
    f" (:fill_id, :order_id, CASE :side WHEN 'buy' THEN :base ELSE :quote END, :received * {_FEE}))"
    " UPDATE accounts SET"
    " locked = locked - CASE currency WHEN :currency THEN :amount ELSE 0 END,"
    " balance = balance + CASE currency WHEN :currency THEN :refund"
    f" ELSE :received - :received * {_FEE} END"
    " WHERE member_id = :account AND currency IN (:base, :quote)",
    release="UPDATE accounts SET balance = balance + :amount, locked = locked - :amount"
    " WHERE member_id = :account AND currency = :currency",
)
MAPPING: Mapping = msgspec.structs.replace(CONFIG.mapping, funds="legacy", accounts=ACCOUNTS)
PLACE = next(one for one in MAPPING.routes if one.action == "place" and not one.each)


def deposit(url: str) -> None:
    """Makes the accounts, as the monolith's own role."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(SCHEMA)
        for member in MEMBERS:
            for currency, balance in DEPOSIT.items():
                connection.execute(
                    "INSERT INTO accounts (member_id, currency, balance, locked)"
                    " VALUES (%s, %s, %s, 0)",
                    (member, currency, balance),
                )


async def flipped(world: World, control: Control, *orders: tuple[int, Side, str, str]) -> int:
    """BTC-USD is live, its epoch: with orders of the monolith, whose money it had locked, in the
    book. More of them: (account, side, price, quantity).
    """
    await shadowing(world, control)
    for account, side, price, quantity in orders:
        await followed(world, account, side, price, quantity)
    await world.rows(
        "UPDATE accounts SET balance = balance - f.amount, locked = locked + f.amount FROM"
        " (SELECT member_id, CASE side WHEN 0 THEN 'usd' ELSE 'btc' END AS currency,"
        " sum(CASE side WHEN 0 THEN price * remaining_quantity ELSE remaining_quantity END)"
        " AS amount FROM orders WHERE state = 0 GROUP BY 1, 2) AS f"
        " WHERE accounts.member_id = f.member_id AND accounts.currency = f.currency"
    )
    await conserved(world)
    return await flip(world, control)


async def followed(world: World, account: int, side: Side, price: str, quantity: str) -> int:
    """An open order of the monolith that the engine has followed; its money is not locked."""
    order_id = await world.legacy_order(side, price, quantity)
    await world.rows("UPDATE orders SET member_id = %s WHERE id = %s", account, order_id)
    command = new_order(order_id, side, price, quantity, account=account)
    await world.send("shadow-feed", Role.SHADOW, [command])
    return order_id


async def flip(world: World, control: Control) -> int:
    outcome = await control.switch.carry(await control.switch.begin("BTC-USD", "flip", ACT))
    assert outcome.outcome == "done", outcome
    return outcome.epoch


async def roll_back(control: Control) -> None:
    flip_row = await control.switch.begin("BTC-USD", "rollback", ACT)
    outcome = await control.switch.carry(flip_row)
    assert outcome.outcome == "done", outcome


async def caught_up(control: Control) -> None:
    await control.write_back.drain(await control.engine.head_seq())


async def accounts(world: World) -> dict[tuple[int, str], tuple[Decimal, Decimal]]:
    """(member, currency) -> balance and locked."""
    rows = await world.rows("SELECT member_id, currency, balance, locked FROM accounts")
    return {(member, currency): (balance, locked) for member, currency, balance, locked in rows}


async def conserved(world: World) -> None:
    """No money was made or lost; and locked is what the open orders, and nothing else, lock."""
    found = await accounts(world)
    fees = dict(await world.rows("SELECT currency, sum(amount) FROM revenues GROUP BY currency"))
    for currency, each in DEPOSIT.items():
        there = sum(sum(one) for (_, of), one in found.items() if of == currency)
        assert there + fees.get(currency, 0) == each * len(MEMBERS), currency
    wanted = {
        (member, currency): amount
        for member, currency, amount in await world.rows(
            "SELECT member_id, CASE side WHEN 0 THEN 'usd' ELSE 'btc' END,"
            " sum(CASE side WHEN 0 THEN price * remaining_quantity ELSE remaining_quantity END)"
            " FROM orders WHERE state = 0 GROUP BY 1, 2"
        )
    }
    assert {of: locked for of, (_, locked) in found.items() if locked} == wanted


class Worker:
    """A proxy worker's parts that answer live orders."""

    def __init__(
        self,
        world: World,
        *,
        name: str = "worker-1",
        session: str = "proxy-0",
        mapping: Mapping = MAPPING,
        engine: Any = None,
    ) -> None:
        self.session = EngineSession(
            Endpoint(host="127.0.0.1", port=world.engine.port),
            name=session,
            key=KEYS[Role.TRADE],
        )
        self.funds = LiveFunds(
            world.legacy_url,
            mapping.accounts,
            SCALES.values(),
            session=session,
            worker=name,
            shard=1,
        )
        self.legacy = LegacyOrders(world.legacy_url, mapping, SCALES)
        self.ids = OrderIds(self.legacy, block=10)
        self.live = LiveOrders(
            engine or self.session,
            self.legacy,
            self.ids,
            OrderIndex(),
            WriteBarrier(1),
            Dialect(mapping.responses, mapping.words, SCALES),
            SCALES,
            mapping.words,
            self.funds,
        )

    async def place(
        self, epoch: int, account: int, *orders: tuple[Side, str, str], **values: str
    ) -> list[Reply | Behind]:
        """(side, price, quantity); price "" for a market order."""
        asked = [
            (Fields(route=PLACE, values=_values(*order) | values), stage(epoch)) for order in orders
        ]
        return await self.live.place(asked, account)

    async def placed(
        self, epoch: int, account: int, side: Side, price: str, quantity: str, **values: str
    ) -> int:
        """The id of an order that was taken."""
        (reply,) = await self.place(epoch, account, (side, price, quantity), **values)
        assert told(reply).status == 201, reply
        return order_id_in(told(reply))

    async def cancel(self, epoch: int, account: int, ids: Sequence[int]) -> list[Reply | Behind]:
        return await self.live.cancel([(one, stage(epoch)) for one in ids], account)


def told(one: Reply | Behind) -> Reply:
    assert isinstance(one, Reply), one
    return one


def order_id_in(reply: Reply) -> int:
    return int(msgspec.json.decode(reply.body)["order"]["id"])


def stage(epoch: int) -> InstrumentStage:
    return InstrumentStage(
        symbol=BTC.symbol, instrument=BTC.instrument, stage=Stage.LIVE, epoch=epoch
    )


def _values(side: Side, price: str, quantity: str) -> dict[str, object]:
    values = {"symbol": "BTC-USD", "side": side.name.lower(), "quantity": quantity}
    return {**values, "price": price} if price else {**values, "ord_type": "market"}


@asynccontextmanager
async def worker(world: World, **options: Any) -> AsyncIterator[Worker]:
    """With its session, and looking after what was left."""
    one = Worker(world, **options)
    tasks = [asyncio.create_task(work) for work in (one.session.run(), one.funds.tend(one.session))]
    try:

        async def is_in() -> bool:
            return one.session.is_connected

        await until(is_in, "the engine lets the worker in")
        yield one
    finally:
        await ended(*tasks)
        await one.ids.close()
        await one.funds.close()
        await one.legacy.close()
