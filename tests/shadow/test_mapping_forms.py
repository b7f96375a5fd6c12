"""Whatever a monolith's tables look like: written back, streamed, loaded and looked up, they say
the same as the sandbox's.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from legacy_side import PUBLICATION, SCALES, SLOT, ours, run, take
from odd_forms import FORMS, Form, make_tables, write
from psycopg.rows import dict_row

from bridge import fence
from bridge.errors import WriteBackStopped
from bridge.proxy.desk.ids import KnownOrder, LegacyOrders, OpenOrder
from bridge.writeback_rows import ChangedOrder, NewFill, NewOrder
from engine.types import OrderType, Side, TimeInForce
from shadow.legacy.changes import ChangeStream, create_slot
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Mapping
from shadow.legacy.owners import owners_of
from shadow.legacy.rows import fill_columns, legacy_fill, order_columns, order_image
from shadow.legacy.snapshot import open_orders_at
from shadow.legacy.symbols import resolved
from shadow.operation import (
    FillInserted,
    LegacyFill,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Status,
)

LOT = 100_000_000
AT_US = 1_430_438_400_250_000  # 2015-05-01 00:00:00.25 UTC: a day earlier in New York

odd = pytest.mark.parametrize("name", FORMS)


def new_order(order_id: int, side: Side, quantity: int, **changes: Any) -> NewOrder:
    values: dict[str, Any] = {
        "instrument": 1,
        "order_id": order_id,
        "account": 42,
        "side": side,
        "ord_type": OrderType.LIMIT,
        "tif": TimeInForce.GTC,
        "price_ticks": 23647,
        "qty_lots": quantity,
        "leaves_lots": quantity,
        "status": Status.OPEN,
        "created_at_us": AT_US,
        "updated_at_us": AT_US,
    }
    return NewOrder(**values | changes)


RESTING = new_order(11, Side.SELL, 150 * LOT // 100, account=7)
TAKER = new_order(12, Side.BUY, 2 * LOT, leaves_lots=LOT // 2, filled_lots=150 * LOT // 100)
MARKET = new_order(
    13,
    Side.BUY,
    LOT // 4,
    ord_type=OrderType.MARKET,
    tif=TimeInForce.IOC,
    price_ticks=None,
    status=Status.CANCELED,
)
FILLED = ChangedOrder(
    instrument=1,
    order_id=11,
    leaves_lots=0,
    status=Status.FILLED,
    updated_at_us=AT_US + 1_000_000,
    filled_lots=150 * LOT // 100,
)
FILL = NewFill(
    seq=1,
    sub=1,
    instrument=1,
    maker_order_id=11,
    taker_order_id=12,
    taker_side=Side.BUY,
    price_ticks=23647,
    qty_lots=150 * LOT // 100,
    at_us=AT_US,
)


def image_of(order: NewOrder, form: Form | None = None) -> OrderImage:
    """As its row says it; of no form: all of it."""
    return OrderImage(
        symbol={1: "BTC-USD", 2: "ETH-USD"}[order.instrument],
        order_id=order.order_id,
        account=order.account,
        side=order.side,
        ord_type=order.ord_type,
        tif=order.tif,
        price_ticks=order.price_ticks or 0,
        qty_lots=order.qty_lots if form is None or form.says_quantity else None,
        leaves_lots=order.leaves_lots if form is None or form.says_leaves else None,
        status=order.status,
        created_at_us=order.created_at_us,
    )


async def connect(url: str) -> psycopg.AsyncConnection[dict[str, Any]]:
    return await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row, options="-c TimeZone=UTC"
    )


async def traded(database: str, mapping: Mapping) -> None:
    """Three transactions of the monolith, in its own form."""
    async with await connect(database) as connection:
        await write(connection, mapping, orders=[RESTING])
        async with connection.transaction():
            await write(connection, mapping, orders=[TAKER], changes=[FILLED], fills=[FILL])
        await write(connection, mapping, orders=[MARKET])


def prepared(database: str, form: Form) -> Mapping:
    """Tables, fence, publication and slot."""
    make_tables(database, form)
    run(fence.install(database, form.mapping(), PUBLICATION, "railswitch"))
    run(create_slot(ours(database), SLOT))
    return run(resolved(ours(database), form.mapping()))


def fill_of(fill: NewFill, fill_id: int) -> LegacyFill:
    return LegacyFill(
        symbol={1: "BTC-USD", 2: "ETH-USD"}[fill.instrument],
        fill_id=fill_id,
        maker_order_id=fill.maker_order_id,
        taker_order_id=fill.taker_order_id,
        price_ticks=fill.price_ticks,
        qty_lots=fill.qty_lots,
    )


@odd
def test_it_is_streamed_loaded_looked_up_and_fenced_as_the_sandbox_s(
    legacy_database: str, name: str
) -> None:
    form = FORMS[name]
    mapping = prepared(legacy_database, form)

    async def main() -> None:
        await traded(legacy_database, mapping)
        await streamed(ours(legacy_database), mapping, form)
        await loaded_and_looked_up(ours(legacy_database), form)
        await fenced(legacy_database, mapping)

    run(main())


async def streamed(url: str, mapping: Mapping, form: Form) -> None:
    stream = ChangeStream(url, SLOT, PUBLICATION, mapping, SCALES)
    await stream.open()
    try:
        first, second, third = await take(stream, 3)
    finally:
        await stream.close()
    filled = msgspec.structs.replace(
        RESTING, leaves_lots=0, filled_lots=RESTING.qty_lots, status=Status.FILLED
    )
    assert first.changes == (OrderInserted(order=image_of(RESTING, form)),)
    assert second.changes == (
        OrderUpdated(order=image_of(filled, form)),
        OrderInserted(order=image_of(TAKER, form)),
        FillInserted(fill=fill_of(FILL, 1)),
    )
    assert third.changes == (OrderInserted(order=image_of(MARKET, form)),)


async def loaded_and_looked_up(url: str, form: Form) -> None:
    """A snapshot works out what the row does not say."""
    mapping = await resolved(url, form.mapping())
    snapshot = await open_orders_at(url, mapping, SCALES, ["BTC-USD", "ETH-USD"])
    assert snapshot.orders == (image_of(TAKER),)
    assert await owners_of(url, mapping, [11, 99]) == {11: ("BTC-USD", 7)}
    legacy = LegacyOrders(url, form.mapping(), SCALES)
    try:
        known = KnownOrder("BTC-USD", 42, 2 * LOT if form.says_quantity else 0, AT_US)
        assert await legacy.find_many([12, 99]) == {12: known}
        for only, besides, side, found in (
            ("", "ETH-USD", "", [12]),
            ("BTC-USD", "ETH-USD", "buy", [12]),
            ("BTC-USD", "ETH-USD", "sell", []),
            ("ETH-USD", "BTC-USD", "", []),
            ("", "BTC-USD", "", []),
        ):
            orders = await legacy.open_orders(
                42, only=only, besides=[besides], side=side, orders_max=10
            )
            assert orders == [OpenOrder(one, "BTC-USD") for one in found]
    finally:
        await legacy.close()


async def fenced(database: str, mapping: Mapping) -> None:
    """The instrument is the engine's: its rows are ours to write, and no others are."""
    url = ours(database)
    assert await fence.unguarded(url, mapping, "BTC-USD") == ""
    await fence.take(url, symbol="BTC-USD", owner="engine", epoch=1, flip_id=1, timeout_ms=10_000)
    of_bitcoin = msgspec.structs.replace(RESTING, order_id=21)
    of_ether = msgspec.structs.replace(RESTING, order_id=22, instrument=2)
    refused = psycopg.errors.ObjectNotInPrerequisiteState
    for writer, allowed, forbidden in (
        (database, of_ether, of_bitcoin),
        (url, of_bitcoin, msgspec.structs.replace(of_ether, order_id=23)),
    ):
        async with await connect(writer) as connection:
            with pytest.raises(refused, match="is owned by"):
                await write(connection, mapping, orders=[forbidden])
            await write(connection, mapping, orders=[allowed])


# --- any orders and fills ------------------------------------------------------------------------

MOMENTS = st.integers(0, 4_000_000_000_000).map(lambda ms: ms * 1000)
LOTS = st.integers(1, 10**16)


@st.composite
def any_order(draw: st.DrawFn, order_id: int) -> NewOrder:
    market = draw(st.booleans())
    qty_lots = draw(LOTS)
    leaves_lots = draw(st.integers(0, qty_lots))
    status = draw(st.sampled_from([Status.OPEN, Status.CANCELED])) if leaves_lots else Status.FILLED
    at_us = draw(MOMENTS)
    return NewOrder(
        instrument=draw(st.sampled_from([1, 2])),
        order_id=order_id,
        account=draw(st.integers(1, 2**63 - 1)),
        side=draw(st.sampled_from(Side)),
        ord_type=OrderType.MARKET if market else OrderType.LIMIT,
        tif=TimeInForce.IOC if market else TimeInForce.GTC,
        price_ticks=None if market else draw(st.integers(1, 2**31 - 1)),
        qty_lots=qty_lots,
        leaves_lots=leaves_lots,
        filled_lots=qty_lots - leaves_lots,
        status=status,
        created_at_us=at_us,
        updated_at_us=at_us,
    )


@st.composite
def any_fill(draw: st.DrawFn, taker: int) -> NewFill:
    return NewFill(
        seq=taker,
        sub=1,
        instrument=draw(st.sampled_from([1, 2])),
        maker_order_id=draw(st.integers(1, taker - 1)),
        taker_order_id=taker,
        taker_side=draw(st.sampled_from(Side)),
        price_ticks=draw(st.integers(1, 2**31 - 1)),
        qty_lots=draw(LOTS),
        at_us=draw(MOMENTS),
    )


@st.composite
def any_rows(draw: st.DrawFn) -> tuple[list[NewOrder], list[NewFill]]:
    count = draw(st.integers(2, 8))
    orders = [draw(any_order(n)) for n in range(1, count + 1)]
    return orders, [draw(any_fill(n)) for n in range(2, count + 1)]


def texts(cursor: psycopg.Cursor[Any], columns: tuple[str, ...]) -> list[dict[str, str | None]]:
    """As PostgreSQL writes them by itself."""
    result = cursor.pgresult
    assert result is not None

    def text(n: int, m: int) -> str | None:
        value = result.get_value(n, m)
        return None if value is None else value.decode()

    return [{name: text(n, m) for m, name in enumerate(columns)} for n in range(result.ntuples)]


def is_told_twice(at_us: int) -> bool:
    """In Berlin or New York: an hour of the night in which clocks are put back."""
    return any(
        moment.replace(fold=0).utcoffset() != moment.replace(fold=1).utcoffset()
        for moment in (_local(at_us, zone) for zone in ("Europe/Berlin", "America/New_York"))
    )


def _local(at_us: int, zone: str) -> datetime:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
    return moment.astimezone(ZoneInfo(zone))


@odd
def test_whatever_is_written_back_reads_as_the_same(legacy_database: str, name: str) -> None:
    form = FORMS[name]
    make_tables(legacy_database, form)
    mapping = run(resolved(legacy_database, form.mapping()))
    order_names, fill_names = order_columns(mapping.orders), fill_columns(mapping.fills)

    async def written(orders: list[NewOrder], fills: list[NewFill]) -> None:
        async with await connect(legacy_database) as connection:
            await connection.execute("TRUNCATE odd_orders; TRUNCATE odd_trades RESTART IDENTITY")
            await write(connection, mapping, orders=orders, fills=fills)

    @settings(max_examples=5, suppress_health_check=[HealthCheck.too_slow])
    @given(any_rows())
    def check(rows: tuple[list[NewOrder], list[NewFill]]) -> None:
        orders, fills = rows
        if any(is_told_twice(one.created_at_us) for one in orders):
            return
        asyncio.run(written(orders, fills))
        with psycopg.connect(legacy_database, options="-c TimeZone=UTC") as reader:
            cursor = reader.execute(f"SELECT {', '.join(order_names)} FROM odd_orders ORDER BY id")
            read = [order_image(row, mapping, SCALES) for row in texts(cursor, order_names)]
            assert read == [image_of(one, form) for one in orders]
            cursor = reader.execute(f"SELECT {', '.join(fill_names)} FROM odd_trades ORDER BY id")
            met = [legacy_fill(row, mapping, SCALES) for row in texts(cursor, fill_names)]
            assert met == [fill_of(one, n) for n, one in enumerate(fills, start=1)]

    check()


# --- what can't be written back ------------------------------------------------------------------

REFUSED: dict[str, tuple[Form, str]] = {
    "orders by UUID": (
        Form(
            order_columns={"id": "uuid PRIMARY KEY"},
            fill_columns={"maker_order_id": "uuid", "taker_order_id": "uuid"},
            orders={"id": {"column": "id", "form": "uuid"}, "id_sequence": ""},
        ),
        "mapping.orders.id is a UUID, of which the engine knows 63 bits: such orders can be",
    ),
    "fills by UUID": (
        Form(fill_columns={"id": "uuid"}, fills={"id": {"column": "id", "form": "uuid"}}),
        "mapping.fills.id is a UUID",
    ),
    "a price with fewer digits than the tick": (
        Form(order_columns={"price": "numeric(20, 1)"}),
        "odd_orders.price keeps 1 digits after the point, and BTC-USD trades in 2",
    ),
    "a total with fewer digits than its factors": (
        Form(fill_columns={"total": "numeric(20, 8)"}, fills={"total": "total"}),
        "odd_trades.total keeps 8 digits after the point, and BTC-USD trades in 10",
    ),
    "quantities in units larger than the lot": (
        Form(
            order_columns={"filled": "bigint"},
            orders={"filled": {"column": "filled", "form": "integer", "exponent": -6}},
        ),
        "odd_orders.filled counts 0.000001, and BTC-USD trades in 0.00000001",
    ),
    "binary fractions": (
        Form(fill_columns={"price": "double precision"}),
        "odd_trades.price is double precision, which is not exact",
    ),
    "a word that only NULL's neighbours mean": (
        Form(orders={"status": {"column": "state", "map": {"1": "filled"}, "other": "open"}}),
        "mapping.orders.status has no value for 'open'",
    ),
    "a column that needs a value": (
        Form(order_columns={"bid": "varchar NOT NULL"}),
        "odd_orders.bid needs a value, and the mapping doesn't know it",
    ),
    "a constant for a column that is not there": (
        Form(orders={"write": {"source": "web"}}),
        "the mapping names column source, which odd_orders doesn't have",
    ),
}


async def trouble(database: str, mapping: Mapping) -> str:
    async with await connect(database) as connection:
        with pytest.raises(WriteBackStopped) as refused:
            await write(connection, mapping)
    return str(refused.value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_written_exactly_is_refused_before_anything_is(
    legacy_database: str, name: str
) -> None:
    form, reason = REFUSED[name]
    make_tables(legacy_database, form)
    assert reason in run(trouble(legacy_database, form.mapping()))


def test_a_price_may_have_fewer_digits_than_the_lot(legacy_database: str) -> None:
    form = Form(order_columns={"price": "numeric(20, 2)"}, fill_columns={"price": "numeric(9, 2)"})
    make_tables(legacy_database, form)
    run(traded(legacy_database, form.mapping()))


@pytest.mark.parametrize(
    ("orders", "changes", "reason"),
    [
        (
            [msgspec.structs.replace(RESTING, tif=TimeInForce.IOC)],
            [],
            "order 11 is IOC, for which the mapping has no word",
        ),
        (
            [],
            [msgspec.structs.replace(FILLED, status=Status.OPEN, leaves_lots=5, is_cut=True)],
            "order 11 was reduced without a fill, which odd_orders can't say",
        ),
    ],
)
def test_what_a_row_cannot_say_stops_write_back(
    legacy_database: str, orders: list[NewOrder], changes: list[ChangedOrder], reason: str
) -> None:
    form = Form(
        order_columns={"time_in_force": None, "remaining_quantity": None},
        orders={"tif": {"other": "gtc"}, "leaves": None},
        unknown_words=("ioc",),
    )
    make_tables(legacy_database, form)

    async def main() -> None:
        async with await connect(legacy_database) as connection:
            with pytest.raises(WriteBackStopped, match=reason):
                await write(connection, form.mapping(), orders=orders, changes=changes)

    run(main())


def test_orders_by_uuid_are_shadowed_by_their_numbers(legacy_database: str) -> None:
    form, _ = REFUSED["orders by UUID"]
    mapping = prepared(legacy_database, form)
    url = ours(legacy_database)
    ids = ["5f0c1d3e-8a52-4a6b-9a41-0d2f3b4c5d6e", "018f0c1d-3e8a-7a6b-9a41-0d2f3b4c5d6e"]
    with psycopg.connect(legacy_database, autocommit=True) as app:
        for order_id in ids:
            app.execute(
                "INSERT INTO odd_orders SELECT %s, 'BTC-USD', 42, 0, 0, 0, 236.47, 2, 1.5, 0, 0,"
                " now(), now()",
                [order_id],
            )
        app.execute(
            "INSERT INTO odd_trades SELECT 1, 'BTC-USD', %s, %s, 1, 2, 0, now(), now()", ids
        )
    maker, taker = (number_of(one, "uuid") for one in ids)

    async def main() -> None:
        stream = ChangeStream(url, SLOT, PUBLICATION, mapping, SCALES)
        await stream.open()
        try:
            changes = [one.changes[0] for one in await take(stream, 3)]
        finally:
            await stream.close()
        assert [type(one) for one in changes] == [OrderInserted, OrderInserted, FillInserted]
        assert isinstance(changes[2], FillInserted)
        fill = changes[2].fill
        assert (fill.maker_order_id, fill.taker_order_id) == (maker, taker)
        snapshot = await open_orders_at(url, mapping, SCALES, ["BTC-USD"])
        assert {one.order_id for one in snapshot.orders} == {maker, taker}
        assert await owners_of(url, mapping, [maker]) == {}
        legacy = LegacyOrders(url, mapping, SCALES)
        try:
            assert await legacy.find(maker) is None
        finally:
            await legacy.close()

    run(main())


@pytest.mark.parametrize(
    ("name", "query", "expected"),
    [
        (
            "integers of cents and satoshi",
            "SELECT price, quantity, total FROM odd_trades",
            [(23647, 150_000_000, 3_547_050_000_000)],
        ),
        (
            "decimals in strings",
            "SELECT price, quantity, total FROM odd_trades",
            [("236.47", "1.50000000", "354.7050000000")],
        ),
        (
            "buyer and seller, and who took",
            "SELECT bid_id, ask_id, bid_member_id, ask_member_id, taker_side FROM odd_trades",
            [(12, 11, 42, 7, 0)],
        ),
        (
            "neither versions nor times of change",
            "SELECT maker_order_id, maker_member_id, taker_member_id FROM odd_trades",
            [(11, 7, 42)],
        ),
        (
            "some rows of a table",
            "SELECT DISTINCT market_type, source, margin FROM odd_orders",
            [("spot", "100%", False)],
        ),
        (
            "what is left and filled, in satoshi",
            "SELECT id, remaining_quantity, executed FROM odd_orders ORDER BY id",
            [(11, 0, 150_000_000), (12, 50_000_000, 150_000_000), (13, 25_000_000, 0)],
        ),
        (
            "a local time",
            "SELECT min(created_at)::text, max(updated_at)::text FROM odd_orders",
            [("2015-05-01 02:00:00.25", "2015-05-01 02:00:01.25")],
        ),
        (
            "milliseconds since 1970",
            "SELECT DISTINCT created_at FROM odd_orders",
            [(1_430_438_400_250,)],
        ),
    ],
)
def test_what_nobody_reads_back_is_written_too(
    legacy_database: str, name: str, query: str, expected: list[tuple[Any, ...]]
) -> None:
    form = FORMS[name]
    make_tables(legacy_database, form)
    run(traded(legacy_database, form.mapping()))
    with psycopg.connect(legacy_database) as reader:
        assert reader.execute(query.encode()).fetchall() == expected
