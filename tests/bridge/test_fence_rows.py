"""Which rows the fence is about, where the mapping filters them or names instruments by another
table.
"""

from __future__ import annotations

from typing import Any

import msgspec
import psycopg
import pytest
from legacy_side import (
    MAPPING,
    PUBLICATION,
    SCALES,
    application,
    give,
    insert_order,
    ours,
    run,
)
from psycopg.errors import ObjectNotInPrerequisiteState

from bridge import fence
from bridge.errors import BridgeError
from bridge.legacy_side import LegacySide
from shadow.legacy.mapping import Mapping, Symbol
from shadow.legacy.symbols import resolved

COPY_OUTSIDE = (
    "INSERT INTO orders SELECT 3, market_id, member_id, side, order_type, time_in_force, price,"
    " quantity, remaining_quantity, state, 0, created_at, updated_at, 'margin' FROM orders"
    " WHERE id = 2"
)
BY_TABLE = Symbol(column="market", table="numbers", key="n", name="market_id")


def of_orders(**changes: Any) -> Mapping:
    return msgspec.structs.replace(
        MAPPING, orders=msgspec.structs.replace(MAPPING.orders, **changes)
    )


def install(database: str, mapping: Mapping) -> None:
    run(fence.install(database, mapping, PUBLICATION, "railswitch"))


@pytest.fixture
def kinds(legacy_database: str) -> str:
    """Spot orders are the mapping's; the instrument is the engine's."""
    with application(legacy_database) as app:
        app.execute("ALTER TABLE orders ADD kind text DEFAULT 'spot'")
        insert_order(app)
        insert_order(app)
        app.execute("UPDATE orders SET kind = 'margin' WHERE id = 2")
    install(legacy_database, of_orders(where={"kind": ("spot", "swap")}))
    give(legacy_database, "engine")
    return legacy_database


@pytest.mark.parametrize(
    "allowed",
    [
        "UPDATE orders SET state = 1 WHERE id = 2",
        "UPDATE orders SET kind = NULL WHERE id = 2",
        "DELETE FROM orders WHERE id = 2",
        COPY_OUTSIDE,
    ],
)
def test_rows_outside_the_filter_are_never_fenced(kinds: str, allowed: str) -> None:
    with application(kinds) as app:
        assert app.execute(allowed.encode()).rowcount == 1


@pytest.mark.parametrize(
    "forbidden",
    [
        "UPDATE orders SET state = 1 WHERE id = 1",
        "UPDATE orders SET kind = 'margin' WHERE id = 1",  # it was one, and must not get away
        "UPDATE orders SET kind = 'swap' WHERE id = 2",  # it becomes one
        "DELETE FROM orders WHERE id = 1",
        "UPDATE orders SET state = 1",
    ],
)
def test_rows_inside_it_are_whether_they_were_or_become_so(kinds: str, forbidden: str) -> None:
    with application(kinds) as app:
        with pytest.raises(ObjectNotInPrerequisiteState, match="BTC-USD is owned by the matching"):
            app.execute(forbidden.encode())
        assert app.execute("SELECT state, kind FROM orders ORDER BY id").fetchall() == [
            (0, "spot"),
            (0, "margin"),
        ]


@pytest.fixture
def numbered(legacy_database: str) -> str:
    """Orders name their market by a number of the application's own table."""
    with application(legacy_database) as app:
        app.execute(
            "CREATE TABLE numbers (n integer PRIMARY KEY, market_id text);"
            " INSERT INTO numbers VALUES (1, 'BTC-USD'), (2, 'ETH-USD');"
            " ALTER TABLE orders ADD market integer REFERENCES numbers DEFAULT 1"
        )
    return legacy_database


def test_the_fence_is_of_our_symbol_whatever_the_table_calls_it(numbered: str) -> None:
    install(numbered, of_orders(symbol=BY_TABLE))
    give(numbered, "engine")
    with application(numbered) as app:
        with pytest.raises(ObjectNotInPrerequisiteState, match="instrument BTC-USD is owned by"):
            insert_order(app)
        app.execute("ALTER TABLE orders ALTER market SET DEFAULT 2")
        order_id = insert_order(app)
        with pytest.raises(ObjectNotInPrerequisiteState, match="instrument BTC-USD is owned by"):
            app.execute("UPDATE orders SET market = 1 WHERE id = %s", [order_id])


def test_its_writers_are_waited_for_by_our_symbol(numbered: str) -> None:
    install(numbered, of_orders(symbol=BY_TABLE))
    with application(numbered) as app:
        app.execute("BEGIN")
        insert_order(app)
        with pytest.raises(BridgeError, match=f"pid {app.info.backend_pid}"):
            give(numbered, "engine", timeout_ms=100)


def test_a_market_that_came_after_the_install_is_found_before_a_flip(numbered: str) -> None:
    mapping = of_orders(symbol=BY_TABLE)
    install(numbered, mapping)
    with application(numbered) as app:
        app.execute("INSERT INTO numbers VALUES (7, 'SOL-USD')")
    side = LegacySide(ours(numbered), mapping, SCALES)

    async def asked() -> list[str]:
        try:
            return [await side.unguarded(one) for one in ("BTC-USD", "SOL-USD", "XRP-USD")]
        finally:
            await side.close()

    known, late, none = run(asked())
    assert known == ""
    assert late == (
        "the fence was installed before market = '7' was SOL-USD: run `railswitch legacy install"
        " --execute` again"
    )
    assert none == "mapping.orders.symbol has no value for XRP-USD"
    install(numbered, mapping)
    assert run(fence.unguarded(ours(numbered), run(resolved(numbered, mapping)), "SOL-USD")) == ""


def test_a_table_that_was_not_read_makes_no_script() -> None:
    with pytest.raises(BridgeError, match=r"mapping\.orders\.symbol\.table = 'numbers'"):
        fence.install_sql(of_orders(symbol=BY_TABLE), PUBLICATION, "railswitch")


def test_uninstalling_takes_the_right_to_read_it_back(numbered: str) -> None:
    mapping = of_orders(symbol=BY_TABLE)
    install(numbered, mapping)
    may = "SELECT has_table_privilege('railswitch', 'numbers', 'SELECT')"
    with psycopg.connect(numbered, autocommit=True) as admin:
        assert admin.execute(may).fetchone() == (True,)
        admin.execute(fence.uninstall_sql(mapping, PUBLICATION, "railswitch").encode())
        assert admin.execute(may).fetchone() == (False,)
        left = "SELECT count(*) FROM pg_proc WHERE pronamespace = to_regnamespace('railswitch')"
        assert admin.execute(left).fetchone() == (0,)
