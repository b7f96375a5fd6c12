"""The sandbox's tables as a monolith would have filled them that matches as the engine does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

import msgspec
import psycopg
from legacy_side import MAPPING, SCALES
from psycopg import sql

from bridge.bench.synthetic import Done, Monolith, random_flow
from bridge.sandbox.provision import APPLICATION_ROLE, as_role
from engine.types import OrderType, TimeInForce
from shadow.legacy.audit_types import Recent, Row
from shadow.operation import FillInserted, LegacyFill, OrderImage, OrderInserted, OrderUpdated

BTC, ETH = "BTC-USD", "ETH-USD"
S_US = 1_000_000

_STATES = {"open": "0", "filled": "1", "canceled": "2"}


class Written(msgspec.Struct):
    """What stands in the tables."""

    orders: dict[int, OrderImage] = {}
    fills: list[tuple[LegacyFill, int]] = []  # and when
    at_us: int = 0  # of the last operation

    def add(self, done: Done) -> None:
        for change in done.tx.changes:
            if isinstance(change, OrderInserted | OrderUpdated):
                self.orders[change.order.order_id] = change.order
            elif isinstance(change, FillInserted):
                self.fills.append((change.fill, done.tx.committed_at_us))
        self.at_us = done.tx.committed_at_us

    def order_rows(self) -> tuple[Row, ...]:
        return tuple(order_row(one) for one in self.orders.values())

    def fill_rows(self) -> tuple[Row, ...]:
        return tuple(
            fill_row(fill, self.orders[fill.taker_order_id].side, at_us)
            for fill, at_us in self.fills
        )

    def recent(self) -> Recent:
        """As the reader would give it, a second after the last operation."""
        now_us = self.at_us + S_US
        return Recent(orders=self.order_rows(), fills=self.fill_rows(), now_us=now_us)


def written(operations: Iterable[Done]) -> Written:
    made = Written()
    for done in operations:
        made.add(done)
    return made


def market(
    count: int = 400,
    *,
    symbols: tuple[str, ...] = (BTC, ETH),
    seed: int = 5,
    until_us: int = 1_700_000_000 * S_US,
) -> Written:
    """A random flow, an operation a second, the last of them a second before `until_us`."""
    monolith = Monolith(SCALES, MAPPING, at_us=until_us - count * S_US)
    return written(_spaced(monolith, itertools.islice(random_flow(monolith, symbols, seed), count)))


def order_row(image: OrderImage) -> Row:
    scale = SCALES[image.symbol]
    assert image.qty_lots is not None
    assert image.leaves_lots is not None
    is_limit = image.ord_type == OrderType.LIMIT
    return {
        "id": str(image.order_id),
        "market_id": image.symbol,
        "member_id": str(image.account),
        "side": str(image.side - 1),
        "order_type": "0" if is_limit else "1",
        "time_in_force": "1" if image.tif == TimeInForce.IOC else "0",
        "price": f"{scale.price(image.price_ticks):.8f}" if is_limit else None,
        "quantity": f"{scale.quantity(image.qty_lots):.8f}",
        "remaining_quantity": f"{scale.quantity(image.leaves_lots):.8f}",
        "state": _STATES[image.status],
        "created_at": text_of(image.created_at_us),
        "updated_at": text_of(image.created_at_us),
    }


def fill_row(fill: LegacyFill, taker_side: int, at_us: int) -> Row:
    scale = SCALES[fill.symbol]
    return {
        "id": str(fill.fill_id),
        "market_id": fill.symbol,
        "maker_order_id": str(fill.maker_order_id),
        "taker_order_id": str(fill.taker_order_id),
        "price": f"{scale.price(fill.price_ticks):.8f}",
        "quantity": f"{scale.quantity(fill.qty_lots):.8f}",
        "taker_side": str(taker_side - 1),
        "created_at": text_of(at_us),
        "updated_at": text_of(at_us),
    }


def text_of(us: int) -> str:
    """As PostgreSQL writes a timestamp without time zone, in UTC."""
    return datetime.fromtimestamp(us / S_US, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")


def fill_tables(database: str, made: Written) -> None:
    """Into the sandbox's tables, as its application; the sequences follow."""
    with psycopg.connect(as_role(database, APPLICATION_ROLE), autocommit=True) as connection:
        for name, rows in (("orders", made.order_rows()), ("trades", made.fill_rows())):
            insert(connection, name, rows)
            connection.execute(
                sql.SQL("SELECT setval({}, (SELECT max(id) FROM {}))").format(
                    sql.Literal(f"{name}_id_seq"), sql.Identifier(name)
                )
            )


def insert(
    connection: psycopg.Connection[tuple[object, ...]], table: str, rows: Iterable[Row]
) -> None:
    listed = list(rows)
    columns = list(listed[0])
    copy = sql.SQL("COPY {} ({}) FROM STDIN").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    with connection.cursor() as cursor, cursor.copy(copy) as to:
        for row in listed:
            to.write_row([row[column] for column in columns])


def _spaced(monolith: Monolith, operations: Iterable[Done]) -> Iterator[Done]:
    for done in operations:
        yield done
        monolith.at_us += S_US - 1_000
