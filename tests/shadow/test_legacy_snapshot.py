"""Open orders at an exact position of a running market."""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest
from legacy_side import (
    MAPPING,
    SCALES,
    application,
    insert_order,
    install,
    ours,
    run,
    wait_for,
)

from bridge.sandbox.provision import as_role
from engine.types import Side
from shadow.errors import LegacyNotReady, LegacyUnavailable, SlotNotCreated
from shadow.legacy.adapter import Adapted, Row
from shadow.legacy.database import connected
from shadow.legacy.mapping import Amount, Enumerated, Mapping, Symbol
from shadow.legacy.snapshot import open_orders_at, read_open_orders
from shadow.legacy.symbols import resolved
from shadow.operation import (
    OrderImage,
    Unreadable,
)

BOTH = ("BTC-USD", "ETH-USD")


@pytest.fixture
def legacy(legacy_database: str) -> str:
    install(legacy_database)
    return legacy_database


def ids(orders: tuple[OrderImage | Unreadable, ...]) -> list[int]:
    return [one.order_id for one in orders]


def test_orders_come_by_symbol_and_side_best_price_first_then_in_queue_order(legacy: str) -> None:
    with application(legacy) as app:
        first_sell = insert_order(app, side=1, price="300")
        low_buy = insert_order(app, price="9")
        high_buy = insert_order(app, price="100")
        best_sell = insert_order(app, side=1, price="299.99")
        late_buy = insert_order(app, price="100")
        early_buy = insert_order(app, price="100")
        app.execute("UPDATE orders SET created_at = '2015-01-01' WHERE id = %s", [early_buy])
        ether = insert_order(app, market="ETH-USD")
        insert_order(app, market="SOL-USD", price="1", quantity="1")
        insert_order(app, state=2)
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, ("ETH-USD", "BTC-USD")))
    buys = [early_buy, high_buy, late_buy, low_buy]
    assert ids(snapshot.orders) == [ether, *buys, best_sell, first_sell]


def test_an_unreadable_row_comes_last_with_its_reason(legacy: str) -> None:
    with application(legacy) as app:
        odd = insert_order(app, price="1.001")
        even = insert_order(app, price="1.00")
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH))
    assert ids(snapshot.orders) == [even, odd]
    assert isinstance(snapshot.orders[1], Unreadable)


def test_rows_are_as_the_adapter_shows_them(legacy: str) -> None:
    class Noted:
        order_columns = ("updated_at",)

        def order_row(self, row: Row) -> Row | None:
            assert row["updated_at"] is not None
            if row["price"] == "2.00000000":
                return None
            if row["price"] == "3.00000000":
                raise ValueError("three")
            return row | {"price": "7"}

    with application(legacy) as app:
        shown, _, odd = (insert_order(app, price=price) for price in ("1", "2", "3"))
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH, adapter=Adapted(Noted())))
    good, bad = snapshot.orders
    assert isinstance(good, OrderImage)
    assert (good.order_id, good.price_ticks) == (shown, 700)
    assert isinstance(bad, Unreadable)
    assert (bad.symbol, bad.order_id) == ("BTC-USD", odd)
    assert "the adapter's order_row failed: ValueError: three" in bad.reason


def test_no_symbols_is_a_position_and_no_orders(legacy: str) -> None:
    snapshot = run(open_orders_at(ours(legacy), MAPPING, SCALES, ()))
    assert snapshot.orders == ()
    assert snapshot.lsn > 0


def test_values_are_written_as_in_the_change_stream(legacy: str) -> None:
    """A boolean is "t" there, and "true" where it is cast to text."""
    with application(legacy) as app:
        app.execute("ALTER TABLE orders ALTER side TYPE boolean USING side = 0")
        app.execute("ALTER TABLE orders ALTER market_id TYPE char(10)")
        order_id = insert_order(app, side="t")
    side = Enumerated(column="side", map={"t": "buy", "f": "sell"})
    mapping = msgspec.structs.replace(
        MAPPING, orders=msgspec.structs.replace(MAPPING.orders, side=side)
    )
    scales = {"BTC-USD   ": msgspec.structs.replace(SCALES["BTC-USD"], symbol="BTC-USD   ")}
    snapshot = run(open_orders_at(ours(legacy), mapping, scales, tuple(scales)))
    (read,) = snapshot.orders
    assert isinstance(read, OrderImage)
    assert (read.order_id, read.side) == (order_id, Side.BUY)


def test_a_writer_that_does_not_end_is_named(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("BEGIN")
        insert_order(app)
        with pytest.raises(SlotNotCreated, match=rf"pid {app.info.backend_pid} \(exchange\)"):
            run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH, timeout_s=0.3))


def test_nothing_is_left_behind(legacy: str) -> None:
    run(open_orders_at(ours(legacy), MAPPING, SCALES, BOTH))
    with psycopg.connect(legacy, autocommit=True) as admin:
        slots = "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"
        # The server ends our session a moment later.
        wait_for(lambda: admin.execute(slots).fetchone() == (0,))


def test_the_lack_of_a_privilege_is_named_with_the_next_step(legacy_database: str) -> None:
    with pytest.raises(LegacyNotReady, match=r"denied for table orders.*legacy install"):
        run(open_orders_at(ours(legacy_database), MAPPING, SCALES, BOTH))
    with pytest.raises(LegacyUnavailable, match="a role with REPLICATION"):
        run(open_orders_at(as_role(legacy_database, "exchange"), MAPPING, SCALES, BOTH))


def test_open_orders_are_read_as_a_transaction_sees_them(legacy: str) -> None:
    async def main() -> None:
        async with connected(ours(legacy)) as connection:
            with application(legacy) as app:
                first = insert_order(app)
                app.execute("BEGIN")
                second = insert_order(app)
                before = await read_open_orders(connection, MAPPING, SCALES, "BTC-USD")
                app.execute("COMMIT")
            after = await read_open_orders(connection, MAPPING, SCALES, "BTC-USD")
            assert (ids(before), ids(after)) == ([first], [first, second])
            assert await read_open_orders(connection, MAPPING, SCALES, "ETH-USD") == ()

    run(main())


# --- what rows do not say ------------------------------------------------------------------------


def without(column: str, **fills: Any) -> Mapping:
    """The sandbox's mapping with one quantity less."""
    orders = msgspec.structs.replace(MAPPING.orders, **{column: Amount()})
    changed = msgspec.structs.replace(MAPPING.fills, **fills)
    return msgspec.structs.replace(MAPPING, orders=orders, fills=changed)


def fill(app: psycopg.Connection[Any], maker: int, taker: int, quantity: str) -> None:
    app.execute(
        "INSERT INTO trades (market_id, maker_order_id, taker_order_id, price, quantity,"
        " taker_side, created_at, updated_at) VALUES ('BTC-USD', %s, %s, 1, %s, 0, now(), now())",
        [maker, taker, quantity],
    )


def test_the_missing_quantity_is_worked_out_from_all_fills_of_the_order(legacy: str) -> None:
    with application(legacy) as app:
        order_id = insert_order(app, quantity="2")
        other = insert_order(app, quantity="3")
        fill(app, order_id, 901, "0.5")
        fill(app, 902, order_id, "0.25")
        fill(app, 903, 904, "1")
    lots = 100_000_000
    for column, expected in (
        ("leaves", {order_id: (2 * lots, 5 * lots // 4), other: (3 * lots, 3 * lots)}),
        ("quantity", {order_id: (11 * lots // 4, 2 * lots), other: (3 * lots, 3 * lots)}),
    ):
        snapshot = run(open_orders_at(ours(legacy), without(column), SCALES, BOTH))
        found = {
            one.order_id: (one.qty_lots, one.leaves_lots)
            for one in snapshot.orders
            if isinstance(one, OrderImage)
        }
        assert found == expected


@pytest.mark.parametrize(
    ("quantity", "reason"),
    [
        ("0.000000001", "is not a multiple of the lot"),
        ("2.5", "its fills are more than quantity"),
        ("about one", "the quantity of one of its fills can't be read"),
    ],
)
def test_fills_that_do_not_add_up_make_their_order_unreadable_and_no_other(
    legacy: str, quantity: str, reason: str
) -> None:
    with application(legacy) as app:
        app.execute("ALTER TABLE trades ALTER quantity TYPE text")
        odd, even = insert_order(app, quantity="2"), insert_order(app, quantity="2")
        fill(app, odd, even, quantity)
        app.execute("UPDATE trades SET taker_order_id = 77")
        fill(app, 78, even, "0.5")
    mapping = without("leaves", quantity=Amount(column="quantity", form="text"))
    snapshot = run(open_orders_at(ours(legacy), mapping, SCALES, BOTH))
    first, second = snapshot.orders
    assert isinstance(first, OrderImage)
    assert (first.order_id, first.leaves_lots) == (even, 150_000_000)
    assert isinstance(second, Unreadable)
    assert (second.symbol, second.order_id) == ("BTC-USD", odd)
    assert reason in second.reason


def test_a_filter_hides_orders_and_their_fills(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("ALTER TABLE orders ADD kind text; ALTER TABLE trades ADD hidden boolean")
        seen, hidden = insert_order(app, quantity="2"), insert_order(app, quantity="2")
        app.execute("UPDATE orders SET kind = 'margin' WHERE id = %s", [hidden])
        app.execute("UPDATE orders SET kind = 'spot' WHERE id = %s", [seen])
        fill(app, seen, 77, "0.5")
        app.execute("UPDATE trades SET hidden = true")
        fill(app, seen, 77, "0.25")
        app.execute("UPDATE trades SET hidden = false WHERE hidden IS NULL")
    mapping = without("leaves", where={"hidden": ("false",)})
    where = msgspec.structs.replace(mapping.orders, where={"kind": ("spot", "swap")})
    mapping = msgspec.structs.replace(mapping, orders=where)
    snapshot = run(open_orders_at(ours(legacy), mapping, SCALES, BOTH))
    (order,) = snapshot.orders
    assert isinstance(order, OrderImage)
    assert (order.order_id, order.leaves_lots) == (seen, 175_000_000)


def test_a_status_may_be_null_or_whatever_is_not_named(legacy: str) -> None:
    with application(legacy) as app:
        app.execute("ALTER TABLE orders ALTER state DROP NOT NULL")
        null, odd, done = insert_order(app, state=None), insert_order(app, state=9), 0
        done = insert_order(app, state=1)
    for status, expected in (
        (Enumerated(column="state", map={"1": "filled", "9": "canceled"}, null="open"), [null]),
        (Enumerated(column="state", map={"1": "filled"}, null="canceled", other="open"), [odd]),
        (Enumerated(column="state", map={"1": "filled"}, null="open", other="open"), [null, odd]),
        (Enumerated(column="state", map={"1": "open"}, other="filled"), [done]),
        (Enumerated(column="state", map={"1": "filled"}, other="canceled"), []),
    ):
        orders = msgspec.structs.replace(MAPPING.orders, status=status)
        mapping = msgspec.structs.replace(MAPPING, orders=orders)
        snapshot = run(open_orders_at(ours(legacy), mapping, SCALES, BOTH))
        assert sorted(ids(snapshot.orders)) == expected


def test_a_table_of_instruments_is_read_and_what_is_none_is_refused(legacy: str) -> None:
    by_market = Symbol(column="market_id", table="markets", key="name", name="id")
    fills = msgspec.structs.replace(MAPPING.fills, symbol=by_market)
    mapping = msgspec.structs.replace(MAPPING, fills=fills)
    read = run(resolved(legacy, mapping))
    assert read.fills.symbol.map["Bitcoin / US dollar"] == "BTC-USD"
    assert read.orders == MAPPING.orders
    assert run(resolved("postgresql://nowhere.invalid/x", MAPPING)) is MAPPING
    with psycopg.connect(legacy, autocommit=True) as admin:
        admin.execute("TRUNCATE markets")
        with pytest.raises(LegacyNotReady, match=r"markets in .* names no instrument by name and"):
            run(resolved(legacy, mapping))
        admin.execute("INSERT INTO markets SELECT n, n, 1, 1, 0 FROM generate_series(1, 10001) n")
        with pytest.raises(LegacyNotReady, match="more than 10000 rows"):
            run(resolved(legacy, mapping))
        admin.execute("DROP TABLE markets")
        with pytest.raises(LegacyNotReady, match="markets"):
            run(resolved(legacy, mapping))
