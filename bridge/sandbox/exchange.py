"""The sandbox monolith's transactions: each order is matched inside its own request's transaction,
under the row lock of its market.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from random import Random
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from bridge.limits import SANDBOX_MAKERS_BLOCK, SANDBOX_ROWS_SHOWN_MAX
from bridge.sandbox.matching import OPEN, Faults, Maker, Matched, match
from bridge.sandbox.params import MarketRules, NewOrder
from bridge.sandbox.pool import Pool

Row = dict[str, Any]

_LOCK_MARKET = "SELECT id FROM markets WHERE id = %s FOR UPDATE"
_LOCK_MARKET_OF_ORDER = (
    "SELECT id FROM markets WHERE id ="
    " (SELECT market_id FROM orders WHERE id = %s AND member_id = %s) FOR UPDATE"
)
_CROSSING_ASKS = (
    "SELECT id, price, remaining_quantity FROM orders"
    " WHERE market_id = %s AND side = 1 AND state = 0 AND price <= %s"
    " ORDER BY price, created_at, id LIMIT %s"
)
_CROSSING_BIDS = (
    "SELECT id, price, remaining_quantity FROM orders"
    " WHERE market_id = %s AND side = 0 AND state = 0 AND price >= %s"
    " ORDER BY price DESC, created_at, id LIMIT %s"
)
_INSERT_ORDER = (
    "INSERT INTO orders (market_id, member_id, side, order_type, time_in_force, price, quantity,"
    " remaining_quantity, state, created_at, updated_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 0, %s, %s) RETURNING id"
)
_UPDATE_MAKERS = (
    "UPDATE orders SET remaining_quantity = maker.remaining,"
    " state = CASE WHEN maker.remaining = 0 THEN 1 ELSE 0 END,"
    " lock_version = lock_version + 1, updated_at = %s"
    " FROM unnest(%s::bigint[], %s::numeric[]) AS maker (id, remaining)"
    " WHERE orders.id = maker.id"
)
_INSERT_TRADES = (
    "INSERT INTO trades (market_id, maker_order_id, taker_order_id, price, quantity, taker_side,"
    " created_at, updated_at)"
    " SELECT %s, maker, currval('orders_id_seq'), price, quantity, %s, %s, %s"
    " FROM unnest(%s::bigint[], %s::numeric[], %s::numeric[])"
    " WITH ORDINALITY AS trade (maker, price, quantity, turn) ORDER BY turn"
)
_UPDATE_NEW_ORDER = (
    "UPDATE orders SET remaining_quantity = %s, state = %s, lock_version = lock_version + 1,"
    " updated_at = %s WHERE id = currval('orders_id_seq')"
)
_ORDER_OF_MEMBER = "SELECT * FROM orders WHERE id = %s AND member_id = %s"
_CANCEL_ORDER = (
    "UPDATE orders SET state = 2, lock_version = lock_version + 1, updated_at = %s WHERE id = %s"
)
_TRADES_OF_TAKERS = (
    "SELECT taker_order_id, maker_order_id, price, quantity FROM trades"
    " WHERE taker_order_id = ANY(%s) ORDER BY id"
)
_ORDERS_OF_MEMBER = (
    "SELECT * FROM orders WHERE member_id = %s AND (%s::text IS NULL OR market_id = %s)"
    " AND (%s::int IS NULL OR state = %s) ORDER BY id DESC LIMIT %s"
)
_OPEN_ORDERS_OF_MEMBER = (
    "SELECT id FROM orders WHERE member_id = %s AND state = 0"
    " AND (%s::text IS NULL OR market_id = %s) AND (%s::int IS NULL OR side = %s) ORDER BY id"
)
_LATEST_TRADES = "SELECT * FROM trades WHERE market_id = %s ORDER BY id DESC LIMIT %s"

_HIGHEST_PRICE = Decimal(10**11)


class NotOpen(msgspec.Struct, frozen=True):
    """The order is filled or cancelled already."""


class Exchange:
    """The models of the monolith. One for each worker; each call takes one pooled connection."""

    def __init__(self, pool: Pool, faults: Faults, chance: Random) -> None:
        self._pool = pool
        self._faults = faults
        self._chance = chance

    async def markets(self) -> list[Row]:
        return await self._rows("SELECT * FROM markets ORDER BY id")

    async def market_rules(self) -> dict[str, MarketRules]:
        return {
            row["id"]: MarketRules(symbol=row["id"], tick=row["tick_size"], lot=row["lot_size"])
            for row in await self.markets()
        }

    async def place(self, order: NewOrder) -> tuple[Row, list[Row]]:
        """The order as the transaction left it, and its trades as the taker.

        Raises psycopg.Error, and nothing happened, unless the connection broke during the commit.
        """
        async with self._pool.connection() as connection:
            makers = await _lock_and_find_makers(connection, order)
            matched = match(order, makers, self._faults, self._chance)
            now = _now()
            order_id = await _write_and_commit(connection, order, matched, now)
        return _placed_row(order_id, order, matched, now), _trade_rows(order_id, matched)

    async def cancel(self, order_id: int, member: int) -> Row | NotOpen | None:
        """The order as it is now; None when the member has no such order."""
        async with self._pool.connection() as connection:
            async with connection.pipeline():
                await connection.execute("BEGIN")
                await connection.execute(_LOCK_MARKET_OF_ORDER, [order_id, member], prepare=True)
                found = connection.cursor(row_factory=dict_row)
                await found.execute(
                    _ORDER_OF_MEMBER + " FOR UPDATE", [order_id, member], prepare=True
                )
            row = await found.fetchone()
            if row is None or row["state"] != OPEN:
                await connection.execute("ROLLBACK")
                return None if row is None else NotOpen()
            now = _now()
            async with connection.pipeline():
                await connection.execute(_CANCEL_ORDER, [now, order_id], prepare=True)
                await connection.execute("COMMIT")
        return row | {"state": 2, "updated_at": now}

    async def order(self, order_id: int, member: int) -> tuple[Row, list[Row]] | None:
        rows = await self._rows(_ORDER_OF_MEMBER, [order_id, member])
        return (rows[0], await self._rows(_TRADES_OF_TAKERS, [[order_id]])) if rows else None

    async def orders(
        self, member: int, market: str | None, state: int | None
    ) -> tuple[list[Row], Mapping[int, list[Row]]]:
        """The member's newest orders, and the trades of each as the taker."""
        limit = SANDBOX_ROWS_SHOWN_MAX
        rows = await self._rows(_ORDERS_OF_MEMBER, [member, market, market, state, state, limit])
        trades: dict[int, list[Row]] = {}
        for trade in await self._rows(_TRADES_OF_TAKERS, [[row["id"] for row in rows]]):
            trades.setdefault(trade["taker_order_id"], []).append(trade)
        return rows, trades

    async def open(self, member: int, market: str | None, side: int | None) -> list[int]:
        """The ids of the member's open orders."""
        values = [member, market, market, side, side]
        return [row["id"] for row in await self._rows(_OPEN_ORDERS_OF_MEMBER, values)]

    async def trades(self, market: str) -> list[Row]:
        return await self._rows(_LATEST_TRADES, [market, SANDBOX_ROWS_SHOWN_MAX])

    async def _rows(self, query: str, params: Sequence[Any] = ()) -> list[Row]:
        async with self._pool.connection() as connection:
            cursor = connection.cursor(row_factory=dict_row)
            await cursor.execute(query, params, prepare=True)
            return list(await cursor.fetchall())


async def _lock_and_find_makers(
    connection: psycopg.AsyncConnection, order: NewOrder
) -> list[Maker]:
    """Leaves the transaction open, the market locked. At least two makers, where there are two."""
    worst = order.price
    if worst is None:
        worst = _HIGHEST_PRICE if order.side == 0 else Decimal(0)
    query = _CROSSING_ASKS if order.side == 0 else _CROSSING_BIDS
    cursor = connection.cursor()
    limit = SANDBOX_MAKERS_BLOCK
    async with connection.pipeline():
        await connection.execute("BEGIN")
        await connection.execute(_LOCK_MARKET, [order.market], prepare=True)
        # A statement sees what was committed before it began: here, all that held the lock before.
        await cursor.execute(query, [order.market, worst, limit], prepare=True)
    rows = await cursor.fetchall()
    while len(rows) == limit and sum(row[2] for row in rows) < order.quantity:
        limit *= 8
        await cursor.execute(query, [order.market, worst, limit], prepare=True)
        rows = await cursor.fetchall()
    return [Maker(order_id=row[0], price=row[1], remaining=row[2]) for row in rows]


async def _write_and_commit(
    connection: psycopg.AsyncConnection, order: NewOrder, matched: Matched, now: datetime
) -> int:
    """Returns the order's id. Its own row first, as ActiveRecord would."""
    trades = matched.trades
    cursor = connection.cursor()
    async with connection.pipeline():
        await cursor.execute(_INSERT_ORDER, _order_values(order, now), prepare=True)
        if trades:
            ids = [trade.maker_order_id for trade in trades]
            remaining = [trade.maker_remaining for trade in trades]
            await connection.execute(_UPDATE_MAKERS, [now, ids, remaining], prepare=True)
            prices = [trade.price for trade in trades]
            quantities = [trade.quantity for trade in trades]
            await connection.execute(
                _INSERT_TRADES,
                [order.market, order.side, now, now, ids, prices, quantities],
                prepare=True,
            )
        if trades or matched.state != OPEN:
            await connection.execute(
                _UPDATE_NEW_ORDER, [matched.remaining, matched.state, now], prepare=True
            )
        await connection.execute("COMMIT")
    inserted = await cursor.fetchone()
    assert inserted is not None
    order_id: int = inserted[0]
    return order_id


def _order_values(order: NewOrder, now: datetime) -> list[Any]:
    codes = [order.side, order.order_type, order.time_in_force]
    numbers = [order.price, order.quantity, order.quantity]
    return [order.market, order.member, *codes, *numbers, now, now]


def _placed_row(order_id: int, order: NewOrder, matched: Matched, now: datetime) -> Row:
    return {
        "id": order_id,
        "market_id": order.market,
        "side": order.side,
        "order_type": order.order_type,
        "time_in_force": order.time_in_force,
        "price": order.price,
        "quantity": order.quantity,
        "remaining_quantity": matched.remaining,
        "state": matched.state,
        "created_at": now,
        "updated_at": now,
    }


def _trade_rows(order_id: int, matched: Matched) -> list[Row]:
    return [
        {
            "taker_order_id": order_id,
            "maker_order_id": trade.maker_order_id,
            "price": trade.price,
            "quantity": trade.quantity,
        }
        for trade in matched.trades
    ]


def _now() -> datetime:
    """The application's clock, as ActiveRecord stores it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)
