"""Monoliths that say the same in other ways: the sandbox's tables, changed in one thing each."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
from legacy_side import CONFIG, SCALES

from bridge import writeback_sql
from bridge.writeback_rows import ChangedOrder, NewFill, NewOrder
from shadow.legacy.mapping import Mapping
from shadow.legacy.shorthand import expanded

_ORDERS = {
    "id": "bigserial PRIMARY KEY",
    "market_id": "varchar NOT NULL",
    "member_id": "bigint NOT NULL",
    "side": "integer NOT NULL",
    "order_type": "integer NOT NULL",
    "time_in_force": "integer NOT NULL",
    "price": "numeric(20, 8)",
    "quantity": "numeric(20, 8) NOT NULL",
    "remaining_quantity": "numeric(20, 8) NOT NULL",
    "state": "integer",
    "lock_version": "integer NOT NULL DEFAULT 0",
    "created_at": "timestamp(6) NOT NULL",
    "updated_at": "timestamp(6) NOT NULL",
}
_FILLS = {
    "id": "bigserial PRIMARY KEY",
    "market_id": "varchar NOT NULL",
    "maker_order_id": "bigint NOT NULL",
    "taker_order_id": "bigint NOT NULL",
    "price": "numeric(20, 8) NOT NULL",
    "quantity": "numeric(20, 8) NOT NULL",
    "taker_side": "integer NOT NULL",
    "created_at": "timestamp(6) NOT NULL",
    "updated_at": "timestamp(6) NOT NULL",
}


class Form(msgspec.Struct, frozen=True, kw_only=True):
    """What differs from the sandbox. A column or key that is None is not there."""

    before: str = ""  # SQL
    order_columns: dict[str, str | None] = {}
    fill_columns: dict[str, str | None] = {}
    orders: dict[str, Any] = {}  # of the mapping
    fills: dict[str, Any] = {}
    unknown_words: tuple[str, ...] = ()  # times in force that its clients can't ask for
    says_quantity: bool = True
    says_leaves: bool = True

    def mapping(self) -> Mapping:
        whole = msgspec.to_builtins(CONFIG.mapping)
        whole["orders"] |= {"table": "odd_orders", "id_sequence": "odd_orders_id_seq"}
        whole["fills"] |= {"table": "odd_trades"}
        for word in self.unknown_words:
            del whole["words"]["tif"][word]
        for name, changes in (("orders", self.orders), ("fills", self.fills)):
            merged = whole[name] | changes
            whole[name] = {key: value for key, value in merged.items() if value is not None}
        return msgspec.convert(expanded(whole), Mapping)

    def tables(self) -> str:
        return (
            self.before
            + _create("odd_orders", _ORDERS | self.order_columns)
            + _create("odd_trades", _FILLS | self.fill_columns)
        )


def _create(table: str, columns: dict[str, str | None]) -> str:
    kept = ", ".join(f"{name} {kind}" for name, kind in columns.items() if kind)
    return f"CREATE TABLE {table} ({kept});"


def _words(column: str, **words: str) -> dict[str, Any]:
    return {"column": column, "map": words}


_MARKETS = """
    CREATE TABLE odd_markets (number integer PRIMARY KEY, ticker varchar NOT NULL);
    INSERT INTO odd_markets VALUES (31, 'BTC-USD'), (32, 'ETH-USD'), (33, 'DOGE-USD');
"""
_BY_MARKET = {
    "column": "market",
    "table": "odd_markets",
    "key": "number",
    "name": "ticker",
}
_CENTS = {"form": "integer", "exponent": -2}
_SATOSHI = {"form": "integer", "exponent": -8}

FORMS = {
    "the sandbox's": Form(),
    "strings and an enumeration of the database": Form(
        before="CREATE TYPE odd_state AS ENUM ('live', 'done', 'gone');",
        order_columns={"side": "varchar(8)", "state": "odd_state NOT NULL"},
        orders={
            "side": _words("side", bid="buy", ask="sell"),
            "status": _words("state", live="open", done="filled", gone="canceled"),
        },
    ),
    "single-table inheritance": Form(
        order_columns={"side": None, "type": "varchar NOT NULL"},
        orders={"side": _words("type", OrderBid="buy", OrderAsk="sell")},
    ),
    "booleans": Form(
        order_columns={"side": None, "bid": "boolean NOT NULL"},
        fill_columns={"taker_side": None, "bought": "boolean NOT NULL"},
        orders={"side": _words("bid", true="buy", false="sell")},
        fills={"taker_side": _words("bought", true="buy", false="sell")},
    ),
    "a state that is NULL while it is open": Form(
        orders={
            "status": {"column": "state", "map": {"7": "filled", "8": "canceled"}, "null": "open"}
        },
    ),
    "one column for kind and time in force": Form(
        order_columns={"order_type": "varchar NOT NULL", "time_in_force": None},
        orders={
            "ord_type": _words("order_type", limit="limit", ioc="limit", market="market"),
            "tif": _words("order_type", limit="gtc", ioc="ioc", market="ioc"),
        },
    ),
    "instruments of another table": Form(
        before=_MARKETS,
        order_columns={"market_id": None, "market": "integer REFERENCES odd_markets NOT NULL"},
        fill_columns={"market_id": None, "market": "integer NOT NULL"},
        orders={"symbol": _BY_MARKET},
        fills={"symbol": _BY_MARKET},
    ),
    "instruments by code": Form(
        order_columns={"market_id": None, "currency": "integer NOT NULL"},
        fill_columns={"market_id": "smallint NOT NULL"},
        orders={"symbol": {"column": "currency", "map": {"3": "BTC-USD", "4": "ETH-USD"}}},
        fills={"symbol": {"column": "market_id", "map": {"5": "BTC-USD", "4": "ETH-USD"}}},
    ),
    "integers of cents and satoshi": Form(
        order_columns={
            "price": "bigint",
            "quantity": "bigint NOT NULL",
            "remaining_quantity": "bigint NOT NULL",
        },
        fill_columns={
            "price": "integer NOT NULL",
            "quantity": "bigint NOT NULL",
            "total": "numeric(30) NOT NULL",
        },
        orders={
            "price": {"column": "price", **_CENTS},
            "quantity": {"column": "quantity", **_SATOSHI},
            "leaves": {"column": "remaining_quantity", **_SATOSHI},
        },
        fills={
            "price": {"column": "price", **_CENTS},
            "quantity": {"column": "quantity", **_SATOSHI},
            "total": {"column": "total", "form": "integer", "exponent": -10},
        },
    ),
    "decimals in strings": Form(
        order_columns={"price": "varchar", "quantity": "text", "remaining_quantity": "text"},
        fill_columns={"price": "varchar NOT NULL", "quantity": "text NOT NULL", "total": "text"},
        orders={
            "price": {"column": "price", "form": "text"},
            "quantity": {"column": "quantity", "form": "text"},
            "leaves": {"column": "remaining_quantity", "form": "text"},
        },
        fills={
            "price": {"column": "price", "form": "text"},
            "quantity": {"column": "quantity", "form": "text"},
            "total": {"column": "total", "form": "text"},
        },
    ),
    "a local time": Form(
        orders={
            "created_at": {"column": "created_at", "zone": "Europe/Berlin"},
            "updated_at": {"column": "updated_at", "zone": "Europe/Berlin"},
        },
        fills={"created_at": {"column": "created_at", "zone": "America/New_York"}},
    ),
    "a time with its zone": Form(
        order_columns={"created_at": "timestamptz NOT NULL"},
        orders={"created_at": {"column": "created_at", "zone": "Asia/Tokyo"}},
    ),
    "milliseconds since 1970": Form(
        order_columns={"created_at": "bigint NOT NULL", "updated_at": "numeric NOT NULL"},
        orders={
            "created_at": {"column": "created_at", "form": "epoch_ms"},
            "updated_at": {"column": "updated_at", "form": "epoch_us"},
        },
    ),
    "seconds since 1970": Form(
        order_columns={"created_at": "double precision NOT NULL", "updated_at": None},
        orders={"created_at": {"column": "created_at", "form": "epoch_s"}, "updated_at": None},
    ),
    "what was ordered alone": Form(
        order_columns={"remaining_quantity": None}, orders={"leaves": None}, says_leaves=False
    ),
    "what is left alone": Form(
        order_columns={"quantity": None}, orders={"quantity": None}, says_quantity=False
    ),
    "what was ordered and filled": Form(
        order_columns={"remaining_quantity": None, "executed": "numeric(20, 8)"},
        orders={"leaves": None, "filled": "executed"},
    ),
    "what is left and filled, in satoshi": Form(
        order_columns={
            "quantity": None,
            "remaining_quantity": "bigint NOT NULL",
            "executed": "bigint NOT NULL DEFAULT 0",
        },
        orders={
            "quantity": None,
            "leaves": {"column": "remaining_quantity", **_SATOSHI},
            "filled": {"column": "executed", **_SATOSHI},
        },
    ),
    "buyer and seller, and who took": Form(
        fill_columns={
            "maker_order_id": None,
            "taker_order_id": None,
            "bid_id": "bigint NOT NULL",
            "ask_id": "bigint NOT NULL",
            "bid_member_id": "bigint NOT NULL",
            "ask_member_id": "bigint NOT NULL",
        },
        fills={
            "maker_order": None,
            "taker_order": None,
            "buy_order": "bid_id",
            "sell_order": "ask_id",
            "buy_account": "bid_member_id",
            "sell_account": "ask_member_id",
        },
    ),
    "buyer and seller, the lower id being the maker": Form(
        fill_columns={
            "maker_order_id": None,
            "taker_order_id": None,
            "taker_side": None,
            "bid_id": "bigint NOT NULL",
            "ask_id": "bigint NOT NULL",
        },
        fills={
            "maker_order": None,
            "taker_order": None,
            "taker_side": None,
            "buy_order": "bid_id",
            "sell_order": "ask_id",
            "maker_rule": "lower_id",
        },
    ),
    "some rows of a table": Form(
        order_columns={
            "market_type": "varchar NOT NULL",
            "source": "varchar NOT NULL",
            "margin": "boolean NOT NULL",
        },
        fill_columns={"market_type": "varchar NOT NULL", "fee": "numeric NOT NULL"},
        orders={
            "where": {"market_type": ["spot"], "margin": ["false"]},
            "write": {"source": "100%", "margin": "false"},
        },
        fills={
            "where": {"market_type": ["spot", "spot2"]},
            "write": {"market_type": "spot", "fee": "0"},
            "maker_account": None,
        },
    ),
    "neither versions nor times of change": Form(
        order_columns={"lock_version": None, "updated_at": None, "time_in_force": None},
        fill_columns={
            "updated_at": None,
            "maker_member_id": "bigint NOT NULL",
            "taker_member_id": "bigint NOT NULL",
        },
        orders={"lock_version": None, "updated_at": None, "tif": {"other": "gtc"}},
        unknown_words=("ioc",),
        fills={
            "updated_at": None,
            "maker_account": "maker_member_id",
            "taker_account": "taker_member_id",
        },
    ),
}


def make_tables(database: str, form: Form) -> None:
    with psycopg.connect(database, autocommit=True) as admin:
        admin.execute(form.tables().encode())


async def write(
    connection: psycopg.AsyncConnection[dict[str, Any]],
    mapping: Mapping,
    *,
    orders: list[NewOrder] | None = None,
    changes: list[ChangedOrder] | None = None,
    fills: list[NewFill] | None = None,
) -> None:
    """As write-back does it. `mapping` is resolved."""
    known = [SCALES["BTC-USD"], SCALES["ETH-USD"]]
    scales = {one.instrument: one for one in known}
    async with connection.cursor() as cursor:
        statements = await writeback_sql.prepare(cursor, mapping, known)
        if changes:
            values = writeback_sql.change_values(changes, mapping, scales)
            await cursor.execute(statements.update_orders, values)
        if orders:
            values = writeback_sql.order_values(orders, mapping, scales)
            await cursor.execute(statements.insert_orders, values)
        if fills:
            values = writeback_sql.fill_values(fills, mapping, scales)
            await cursor.execute(statements.insert_fills, values)
