"""The sandbox's database as railswitch finds it, its change stream, and the monolith's writes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg

import bridge.sandbox
from bridge import fence
from bridge.config import load
from bridge.fence import Owner, install_sql
from bridge.sandbox.provision import as_role
from shadow.legacy.changes import ChangeStream
from shadow.legacy.convert import Scale, scales
from shadow.legacy.publication import Published
from shadow.operation import LegacyTransaction

CONFIG = load(Path(bridge.sandbox.__file__).parent / "railswitch.toml")
MAPPING = CONFIG.mapping
SCALES: dict[str, Scale] = scales(CONFIG.instruments)
SLOT = PUBLICATION = "railswitch"
DEADLINE_S = 20.0

T = TypeVar("T")


def order_row(**changes: str | None) -> dict[str, str | None]:
    """An open limit order, as PostgreSQL writes it."""
    row: dict[str, str | None] = {
        "id": "7",
        "market_id": "BTC-USD",
        "member_id": "42",
        "side": "0",
        "order_type": "0",
        "time_in_force": "0",
        "price": "236.47000000",
        "quantity": "2.00000000",
        "remaining_quantity": "1.50000000",
        "state": "0",
        "created_at": "2015-05-01 00:00:00.25",
    }
    return row | changes


def trade_row(**changes: str | None) -> dict[str, str | None]:
    row: dict[str, str | None] = {
        "id": "3",
        "market_id": "BTC-USD",
        "maker_order_id": "7",
        "taker_order_id": "9",
        "price": "236.47000000",
        "quantity": "0.50000000",
    }
    return row | changes


INSERT_ORDER = (
    "INSERT INTO orders (market_id, member_id, side, order_type, time_in_force, price, quantity,"
    " remaining_quantity, state, created_at, updated_at)"
    " VALUES (%(market)s, 1, %(side)s, 0, 0, %(price)s, %(quantity)s, %(quantity)s, %(state)s,"
    " clock_timestamp(), clock_timestamp()) RETURNING id"
)
ORDER: dict[str, Any] = {
    "market": "BTC-USD",
    "side": 0,
    "price": "236.47",
    "quantity": "2",
    "state": 0,
}
INSERT_TRADE = (
    "INSERT INTO trades (market_id, maker_order_id, taker_order_id, price, quantity, taker_side,"
    " created_at, updated_at) VALUES ('BTC-USD', 1, 2, 236.47, 0.5, 0, now(), now())"
)


def insert_order(connection: psycopg.Connection[Any], **changes: Any) -> int:
    row = connection.execute(INSERT_ORDER, ORDER | changes).fetchone()
    assert row is not None
    return int(row[0])


def application(database: str) -> psycopg.Connection[Any]:
    """The monolith's own connection, autocommitting."""
    return psycopg.connect(as_role(database, "exchange"), autocommit=True)


def ours(database: str) -> str:
    return as_role(database, "railswitch")


def install(database: str) -> None:
    with application(database) as connection:
        connection.execute(install_sql(MAPPING, PUBLICATION, "railswitch").encode())


@asynccontextmanager
async def streaming(
    url: str, expected_lsn: int = 0, published: Published | None = None
) -> AsyncIterator[ChangeStream]:
    stream = ChangeStream(url, SLOT, PUBLICATION, MAPPING, SCALES, published=published)
    await stream.open(expected_lsn)
    try:
        yield stream
    finally:
        await stream.close()


async def take(stream: ChangeStream, count: int) -> list[LegacyTransaction]:
    """So many transactions that hold something, within the deadline."""
    taken: list[LegacyTransaction] = []
    async with asyncio.timeout(DEADLINE_S):
        async for transaction in stream.transactions():
            if transaction.changes or transaction.ours:
                taken.append(transaction)
            if len(taken) == count:
                break
    return taken


def wait_for(condition: Callable[[], bool]) -> None:
    """Asks again and again, at most until the deadline."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline


def run(main: Awaitable[T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(2 * DEADLINE_S):
            return await main

    return asyncio.run(bounded())


def give(
    database: str,
    owner: Owner = "engine",
    epoch: int = 1,
    flip_id: int = 1,
    *,
    symbol: str = "BTC-USD",
    timeout_ms: int = 10_000,
) -> None:
    """Moves the fence."""
    run(
        fence.take(
            ours(database),
            symbol=symbol,
            owner=owner,
            epoch=epoch,
            flip_id=flip_id,
            timeout_ms=timeout_ms,
        )
    )


def cut(database: str) -> None:
    """Ends the server's side of the stream, as a failing network or server would."""
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots"
            " WHERE slot_name = %s AND active_pid IS NOT NULL",
            [SLOT],
        )


def confirmed_lsn(database: str) -> int:
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT confirmed_flush_lsn - '0/0'::pg_lsn FROM pg_replication_slots"
            " WHERE slot_name = %s",
            [SLOT],
        ).fetchone()
        assert row is not None
        return int(row[0])
