"""Orders that clients know by a UUID beside the id: written with it, found by it."""

from __future__ import annotations

import msgspec
import psycopg
import pytest
from proxy_rig import MAPPING, SCALES, between, response, run
from psycopg.rows import dict_row
from test_proxy_cancels import BTC, Book, Stages, cancel, insert_row, status_of

from bridge import writeback_sql
from bridge.proxy.desk.uuids import OrderUuids
from bridge.stage import Stage
from bridge.writeback_rows import NewOrder
from shadow.answer import uuid_of
from shadow.normalise import Fields, request_fields
from shadow.operation import Status

WITH_UUID = msgspec.structs.replace(
    MAPPING, orders=msgspec.structs.replace(MAPPING.orders, uuid="uuid")
)
CANCEL = next(one for one in MAPPING.routes if one.action == "cancel" and not one.each)
DRAWN = "0b9e3f5c-1111-4a3b-9c4d-5e6f70819203"


async def give_uuid(url: str, order_id: int) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute("ALTER TABLE orders ADD COLUMN uuid uuid")
        await connection.execute("UPDATE orders SET uuid = %s WHERE id = %s", [DRAWN, order_id])


@pytest.mark.parametrize("named", [DRAWN, DRAWN.upper()])
def test_a_cancel_by_the_monolith_s_uuid_finds_its_live_order(
    monkeypatch: pytest.MonkeyPatch, legacy_database: str, named: str
) -> None:
    monkeypatch.setattr("proxy_rig.MAPPING", WITH_UUID)

    async def story() -> None:
        engine = Book(BTC=[501])
        async with between(response(b"monolith"), engine=engine, legacy_url=legacy_database) as (
            front,
            script,
        ):
            await insert_row(legacy_database, 501, BTC)
            await give_uuid(legacy_database, 501)
            Stages(front).set(BTC=(Stage.LIVE, 0))
            client = await front.client()
            assert status_of(await client.ask(cancel(named))) == 200
            assert [one.order_id for one in engine.commands] == [501]
            other = cancel("0b9e3f5c-1111-4a3b-9c4d-000000000000")
            assert (await client.ask(other)).endswith(b"monolith")
            assert len(script.requests) == 1

    run(story())


def test_a_cancel_by_uuid_while_the_database_is_away_can_be_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("proxy_rig.MAPPING", WITH_UUID)

    async def story() -> None:
        engine = Book(BTC=[501])
        async with between(response(), engine=engine) as (front, script):
            Stages(front).set(BTC=(Stage.LIVE, 0))
            client = await front.client()
            assert status_of(await client.ask(cancel(DRAWN))) == 503
            assert (engine.commands, script.requests) == ([], [])

    run(story())


def test_a_new_order_is_written_with_the_uuid_that_its_answer_showed(legacy_database: str) -> None:
    async def story() -> None:
        await give_uuid(legacy_database, 0)
        order = NewOrder(
            instrument=SCALES[BTC].instrument,
            order_id=777,
            account=1,
            side=1,
            ord_type=2,
            tif=1,
            price_ticks=10_000,
            qty_lots=5,
            leaves_lots=5,
            status=Status.OPEN,
            created_at_us=1,
            updated_at_us=1,
        )
        async with await psycopg.AsyncConnection.connect(
            legacy_database, row_factory=dict_row
        ) as connection:
            await connection.execute("SET session_replication_role = replica")
            async with connection.cursor() as cursor:
                statements = await writeback_sql.prepare(cursor, WITH_UUID, SCALES.values())
                scales = {one.instrument: one for one in SCALES.values()}
                values = writeback_sql.order_values([order], WITH_UUID, scales)
                await cursor.execute(statements.insert_orders, values)
                await cursor.execute("SELECT uuid::text FROM orders WHERE id = 777")
                assert await cursor.fetchone() == {"uuid": uuid_of(777)}

    run(story())


def named(text: str) -> Fields:
    fields = request_fields(CANCEL, {"id": text}, "", "", b"")
    assert isinstance(fields, Fields)
    return fields


def test_only_what_may_be_an_order_s_is_looked_up_and_once() -> None:
    uuids = OrderUuids(are_mapped=True, orders_max=2)
    assert uuids.to_look_up(named(DRAWN.upper())) == DRAWN
    for text in ("17", "", "x", uuid_of(17), DRAWN[:-1]):
        assert uuids.to_look_up(named(text)) == ""
    assert uuids.order_id_of(named(uuid_of(17))) == uuids.order_id_of(named("17")) == 17
    uuids.put(DRAWN, 5)
    assert (uuids.to_look_up(named(DRAWN)), uuids.order_id_of(named(DRAWN))) == ("", 5)
    uuids.put("a", 6)
    uuids.put("b", 7)
    assert uuids.to_look_up(named(DRAWN)) == DRAWN
    assert OrderUuids(are_mapped=False).to_look_up(named(DRAWN)) == ""
