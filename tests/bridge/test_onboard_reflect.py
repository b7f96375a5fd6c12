"""`railswitch init` on databases that are not as one would wish."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import onboard_world as world
import psycopg
import pytest
from onboard_rig import Written, loaded, written
from sqlalchemy import event
from sqlalchemy.engine import Engine

from bridge.errors import DatabaseNotRead
from bridge.limits import ONBOARD_ROWS_MAX
from bridge.onboard.finding import Confidence
from bridge.onboard.recognise_tables import Wanted
from bridge.onboard.reflect import read_database
from bridge.sandbox.provision import as_role
from shadow.legacy.mapping import Amount, Key, Time

ORDERS = """CREATE TABLE {name} (
  id bigserial PRIMARY KEY, market_id varchar NOT NULL, member_id bigint NOT NULL,
  side integer NOT NULL, order_type integer NOT NULL, price numeric(20, 8),
  quantity numeric(20, 8) NOT NULL, remaining_quantity numeric(20, 8) NOT NULL,
  state integer NOT NULL, created_at timestamp NOT NULL, updated_at timestamp NOT NULL)"""
TRADES = """CREATE TABLE {name} (
  id bigserial PRIMARY KEY, market_id varchar NOT NULL, maker_order_id bigint NOT NULL,
  taker_order_id bigint NOT NULL, price numeric(20, 8) NOT NULL,
  quantity numeric(20, 8) NOT NULL, created_at timestamp NOT NULL)"""


def claims(one: Written, start: str = "mapping.") -> dict[str, Any]:
    return {
        found.key: found.value
        for found in one.findings
        if found.key.startswith(start) and not found.undecided
    }


def part(one: Written, what: str) -> tuple[str, Confidence]:
    (found,) = [part for part in one.recognised.parts if part.what == what]
    return found.table, found.confidence


@pytest.fixture
def statements() -> Iterator[list[tuple[str, str]]]:
    """Of every statement: its text, and whether its transaction may only read."""
    seen: list[tuple[str, str]] = []

    def look(_c: Any, cursor: Any, statement: str, *_: Any) -> None:
        cursor.execute("SHOW transaction_read_only")
        seen.append((statement, cursor.fetchone()[0]))

    event.listen(Engine, "before_cursor_execute", look)
    yield seen
    event.remove(Engine, "before_cursor_execute", look)


def test_no_orders_at_all(database: str) -> None:
    world.execute(database, "CREATE TABLE posts (id bigserial PRIMARY KEY, title varchar)")
    one = written(database)
    assert part(one, "orders") == ("", Confidence.GUESS)
    assert {"mapping.orders.table", "mapping.fills.table"} <= one.open
    assert not one.recognised.is_exchange


def test_an_empty_database(database: str) -> None:
    assert not written(database).recognised.is_exchange


def test_two_tables_that_could_be_the_orders_are_both_named(database: str) -> None:
    world.execute(
        database,
        ORDERS.format(name="orders"),
        ORDERS.format(name="spot_orders"),
        TRADES.format(name="trades"),
    )
    one = written(database)
    assert part(one, "orders") == ("", Confidence.GUESS)
    (asked,) = [found for found in one.findings if found.key == "mapping.orders.table"]
    assert set(asked.choices) == {'"orders"', '"spot_orders"'}
    chosen = written(database, wanted=Wanted(orders="spot_orders"))
    assert claims(chosen)["mapping.orders.id_sequence"] == "spot_orders_id_seq"


def test_a_table_about_orders_is_no_rival(database: str) -> None:
    world.execute(
        database,
        ORDERS.format(name="orders"),
        ORDERS.format(name="order_history"),
        ORDERS.format(name="orders_backup"),
        TRADES.format(name="trades"),
    )
    assert part(written(database), "orders")[0] == "orders"


def test_empty_tables_make_no_meaning_certain(database: str) -> None:
    world.execute(database, ORDERS.format(name="orders"), TRADES.format(name="trades"))
    one = written(database)
    sure = {found.key for found in one.findings if found.confidence is Confidence.CERTAIN}
    assert {key for key in sure if key.startswith("mapping")} == {
        "mapping.orders.id",
        "mapping.orders.id_sequence",
        "mapping.fills.id",
    }
    assert {
        "mapping.orders.side.map",
        "mapping.orders.status.map",
        "instruments.0.tick",
    } <= one.open


def test_names_in_another_language(database: str) -> None:
    world.execute(
        database,
        "CREATE TABLE auftraege (id bigserial PRIMARY KEY, markt varchar NOT NULL,"
        " kunde_id bigint NOT NULL, seite varchar NOT NULL, art varchar NOT NULL,"
        " preis numeric(20, 8), menge numeric(20, 8) NOT NULL, restmenge numeric(20, 8) NOT NULL,"
        " zustand integer NOT NULL, erstellt_am timestamp NOT NULL,"
        " geaendert_am timestamp NOT NULL)",
        "CREATE TABLE ausfuehrungen (id bigserial PRIMARY KEY, markt varchar NOT NULL,"
        " kauf_auftrag_id bigint NOT NULL, verkauf_auftrag_id bigint NOT NULL,"
        " preis numeric(20, 8) NOT NULL, menge numeric(20, 8) NOT NULL,"
        " erstellt_am timestamp NOT NULL)",
    )
    made, states = world.run(tif=False), {"open": 1, "filled": 2, "canceled": 3}
    world.insert(
        database,
        "auftraege",
        (
            {
                "id": one.id,
                "markt": one.market,
                "kunde_id": one.member,
                "seite": "KAUF" if one.side == "buy" else "VERKAUF",
                "art": "LIMIT" if one.kind == "limit" else "MARKET",
                "preis": one.price,
                "menge": one.quantity,
                "restmenge": one.remaining,
                "zustand": states[one.status],
                "erstellt_am": one.created,
                "geaendert_am": one.updated,
            }
            for one in made.orders
        ),
    )
    sides = [
        (one, *((one.maker, one.taker) if one.maker.side == "buy" else (one.taker, one.maker)))
        for one in made.fills
    ]
    world.insert(
        database,
        "ausfuehrungen",
        (
            {
                "markt": one.taker.market,
                "kauf_auftrag_id": buy.id,
                "verkauf_auftrag_id": sell.id,
                "preis": one.price,
                "menge": one.quantity,
                "erstellt_am": one.at,
            }
            for one, buy, sell in sides
        ),
    )
    one = written(database)
    assert part(one, "orders") == ("auftraege", Confidence.CERTAIN)
    mapping = loaded(one).mapping
    assert mapping.orders.side.map == {"KAUF": "buy", "VERKAUF": "sell"}
    assert mapping.orders.leaves == Amount(column="restmenge")
    assert mapping.orders.status.map == {"1": "open", "2": "filled", "3": "canceled"}
    assert mapping.fills.buy_order == "kauf_auftrag_id"


def test_a_role_that_may_not_read_the_fills_is_told(database: str) -> None:
    world.execute(
        database,
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "DO $$ BEGIN CREATE ROLE onlooker LOGIN; EXCEPTION WHEN duplicate_object THEN END $$",
        "GRANT SELECT ON orders TO onlooker",
    )
    one = written(as_role(database, "onlooker"))
    assert part(one, "orders")[0] == "orders"
    assert part(one, "fills") == ("", Confidence.GUESS)
    assert one.recognised.not_readable == ("trades",)
    assert "this role may not read" in one.text


def test_quoted_names_in_a_schema_of_their_own(database: str) -> None:
    world.execute(
        database,
        'CREATE SCHEMA "Trading"',
        'CREATE TABLE "Trading"."Orders" ("Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,'
        ' "marketId" varchar, "userId" bigint, "isBuy" boolean, "orderType" varchar,'
        ' "limitPrice" numeric, "Quantity" numeric, "filledQuantity" numeric, "Status" varchar,'
        ' "created 100%" integer, "createdAt" timestamptz)',
        'CREATE TABLE "Trading"."Trades" ("Id" bigserial PRIMARY KEY, "marketId" varchar,'
        ' "makerOrderId" bigint REFERENCES "Trading"."Orders", "takerOrderId" bigint REFERENCES'
        ' "Trading"."Orders", "Price" numeric, "Quantity" numeric, "createdAt" timestamptz)',
        'INSERT INTO "Trading"."Orders" OVERRIDING SYSTEM VALUE SELECT n, \'btcusd\', 1,'
        " n % 2 = 0, 'limit', 100, 1, 0, 'open', 1, now() FROM generate_series(1, 20) n",
        'INSERT INTO "Trading"."Trades" SELECT n, \'btcusd\', n, n + 1, 100, 1, now()'
        " FROM generate_series(1, 9) n",
    )
    one = written(database)
    seen = claims(one)
    assert seen["mapping.orders.table"] == "Trading.Orders"
    assert seen["mapping.orders.id_sequence"] == "Trading.Orders_Id_seq"
    assert seen["mapping.orders.filled"] == "filledQuantity"
    assert seen["mapping.orders.side.map.true"] == "buy"
    assert seen["mapping.fills.taker_order"] == "takerOrderId"
    assert "no value seen means filled, canceled" in one.text
    more = '[mapping.orders.status.map]\n"done" = "filled"\n"gone" = "canceled"'
    whole = one.text.replace("[mapping.orders.status.map]", more)
    mapping = loaded(msgspec.structs.replace(one, text=whole)).mapping
    assert mapping.orders.table == "Trading.Orders"


def test_what_the_database_itself_says_of_values_is_certain(database: str) -> None:
    world.execute(
        database,
        "CREATE TYPE order_state AS ENUM ('open', 'filled', 'cancelled')",
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "ALTER TABLE orders DROP COLUMN state, ADD COLUMN state order_state NOT NULL,"
        " ADD COLUMN time_in_force varchar CHECK (time_in_force IN ('gtc', 'ioc')),"
        " ALTER COLUMN price SET NOT NULL, DROP COLUMN order_type",
        "COMMENT ON COLUMN orders.side IS '0 = buy, 1 = sell'",
    )
    one = written(database)
    seen = claims(one)
    assert seen["mapping.orders.status.map.cancelled"] == "canceled"
    assert seen["mapping.orders.tif.map.ioc"] == "ioc"
    assert (seen["mapping.orders.side.map.0"], seen["mapping.orders.side.map.1"]) == ("buy", "sell")
    assert one.confidence("mapping.orders.side.map.1") == "certain"
    assert seen["mapping.orders.ord_type.other"] == "limit"


def test_forms_of_ids_amounts_and_times(database: str) -> None:
    world.execute(
        database,
        "CREATE TABLE orders (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), symbol varchar,"
        " user_id uuid, side varchar, ord_type varchar, status varchar, price_cents bigint,"
        " quantity varchar, left_quantity bigint, ctime bigint)",
        TRADES.format(name="trades"),
        "INSERT INTO orders SELECT gen_random_uuid(), 'btcusd', gen_random_uuid(), 'buy', 'limit',"
        " 'open', 10000, '1.50', 3, 1430438400250 FROM generate_series(1, 3)",
    )
    one = written(database)
    seen = claims(one)
    assert seen["mapping.orders.id"] == {"column": "id", "form": "uuid"}
    assert seen["mapping.orders.price"] == {
        "column": "price_cents",
        "form": "integer",
        "exponent": -2,
    }
    assert seen["mapping.orders.quantity"] == {"column": "quantity", "form": "text"}
    assert seen["mapping.orders.created_at"] == {"column": "ctime", "form": "epoch_ms"}
    assert "mapping.orders.leaves" in one.open  # an integer: of what unit?
    assert Key(**seen["mapping.orders.id"]).form == "uuid"
    assert Time(**seen["mapping.orders.created_at"]).form == "epoch_ms"


def test_types_that_nobody_knows_are_no_hindrance(database: str) -> None:
    world.execute(
        database,
        "CREATE TYPE pair AS (one integer, other integer)",
        "CREATE DOMAIN money_amount AS numeric(20, 8) CHECK (VALUE >= 0)",
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "ALTER TABLE orders ADD COLUMN a pair, ADD COLUMN b tsvector, ADD COLUMN c inet[],"
        " ADD COLUMN d xml, ADD COLUMN e numrange, ADD COLUMN f pg_lsn, ADD COLUMN g jsonb,"
        " ADD COLUMN h money, ADD COLUMN i bytea, ALTER COLUMN price TYPE money_amount",
        "INSERT INTO orders SELECT n, 'btcusd', 1, 0, 0, 100, 1, 1, 0, now(), now(), (n, n)::pair"
        " FROM generate_series(1, 3) n",
    )
    one = written(database)
    assert claims(one)["mapping.orders.price"] == "price"
    assert "Looked at 3 of about 3 rows of orders" in one.text


def test_steps_too_fine_for_64_bits_bring_their_bound(database: str) -> None:
    world.execute(
        database,
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "ALTER TABLE orders ALTER COLUMN quantity TYPE numeric(32, 16)",
        "INSERT INTO orders SELECT n, 'btcusd', 1, 0, 0, 100, 0.000000000001, 0, 0, now(), now()"
        " FROM generate_series(1, 3) n",
    )
    seen = claims(written(database), "instruments.")
    assert seen["instruments.0.lot"] == "0.000000000001"
    assert seen["instruments.0.quantity_max"] == "1000000"
    assert "instruments.0.price_max" not in seen


def test_a_huge_table_is_not_read_whole(database: str, statements: list[tuple[str, str]]) -> None:
    world.execute(
        database,
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "INSERT INTO orders SELECT n, 'btcusd', 1, n % 2, 0, 100, 1, 1, 0, now(), now()"
        " FROM generate_series(1, 60000) n",
        "ANALYZE orders",
    )
    found = read_database(database, Wanted())
    table = found.table("orders")
    assert table is not None
    assert len(table.sample.newest) == ONBOARD_ROWS_MAX
    assert [row["id"] for row in table.sample.newest[:2]] == ["60000", "59999"]
    assert 0 < len(table.sample.others) <= ONBOARD_ROWS_MAX
    assert not table.sample.whole
    rows = [text for text, _ in statements if "FROM public.orders AS looked" in text]
    assert rows
    assert all(" LIMIT " in text for text in rows)
    assert f"of about {table.rows} rows of orders" in written(database).text


def test_its_transaction_may_only_read(database: str, statements: list[tuple[str, str]]) -> None:
    world.execute(database, ORDERS.format(name="orders"), TRADES.format(name="trades"))
    read_database(database, Wanted())
    assert {allowed for _, allowed in statements} == {"on"}


def test_a_filter_is_asked_for_where_some_rows_are_set_apart(database: str) -> None:
    world.execute(
        database,
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "ALTER TABLE orders ADD COLUMN market_type varchar NOT NULL DEFAULT 'spot'",
        "INSERT INTO orders SELECT n, 'btcusd', 1, 0, 0, 100, 1, 1, 0, now(), now(),"
        " CASE WHEN n % 3 = 0 THEN 'qe' ELSE 'spot' END FROM generate_series(1, 20) n",
    )
    assert "mapping.orders.where" in written(database).open


def test_a_lock_is_not_waited_for_for_long(database: str) -> None:
    world.execute(database, ORDERS.format(name="orders"), TRADES.format(name="trades"))
    with psycopg.connect(database) as other:
        other.execute("LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(DatabaseNotRead, match=r"lock timeout.*try again"):
            read_database(database, Wanted())


def test_what_is_no_database_of_postgresql_is_said(database: str) -> None:
    with pytest.raises(psycopg.OperationalError):
        read_database("postgresql://nobody@127.0.0.1:1/none", Wanted())
    with pytest.raises((psycopg.OperationalError, DatabaseNotRead)):
        read_database(database.rpartition("/")[0] + "/no_such_database", Wanted())


@pytest.mark.parametrize(
    ("zone", "open_"), [("UTC", False), ("Asia/Tokyo", True), ("America/New_York", False)]
)
def test_times_that_would_be_in_the_future_need_their_zone(
    database: str, zone: str, open_: bool
) -> None:
    """Of those in the past nobody knows: the exchange may have been closed."""
    world.execute(
        database,
        ORDERS.format(name="orders"),
        TRADES.format(name="trades"),
        "INSERT INTO orders SELECT n, 'btcusd', 1, 0, 0, 100, 1, 1, 0,"
        f" now() AT TIME ZONE '{zone}', now() AT TIME ZONE '{zone}' FROM generate_series(1, 3) n",
    )
    one = written(database)
    assert ("mapping.orders.created_at" in one.open) is open_
    assert ("as UTC the newest is" in one.text) is (zone == "UTC")
    if open_:
        assert "9 h ahead of the database's clock" in one.text


def test_a_maker_by_rule_and_one_by_rest_are_not_told_apart_where_they_are_the_same(
    database: str,
) -> None:
    """Matched later, whoever has the lower id may not be the one that rested."""
    world.peatio_3(database)
    assert "mapping.fills.maker_rule" in written(database).open
