"""The rows seen, joined: each order with its fills. Pure.

The newest fills are read without a hole, so that an order which has one of them has its last one
among them; and an order that was placed after the oldest of them has all of its fills there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from decimal import Decimal

import msgspec

from bridge.onboard.columns import FillColumns, OrderColumns
from bridge.onboard.recognise_orders import decimal
from bridge.onboard.seen import Database, Row, Table
from shadow.legacy.mapping import Time
from shadow.legacy.times import time_us

MARGIN_US = 1_000_000  # between two clocks of one monolith


class Met(msgspec.Struct, frozen=True, kw_only=True):
    """A fill as one of its orders has it."""

    role: str  # maker, taker, buy, sell: the column that names the order
    rested: bool  # it was there first; of a buyer's and a seller's columns, by its lower id
    price: Decimal
    quantity: Decimal
    at_us: int | None
    fill: Row


class OrderSeen(msgspec.Struct, frozen=True, kw_only=True):
    row: Row
    symbol: str
    price: Decimal | None
    quantity: Decimal | None
    leaves: Decimal | None
    created_us: int | None
    updated_us: int | None
    fills: tuple[Met, ...]  # those seen
    has_all: bool  # of its fills

    @property
    def filled(self) -> Decimal:
        return sum((one.quantity for one in self.fills), Decimal(0))

    @property
    def was_maker(self) -> bool:
        return any(one.rested for one in self.fills)


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    orders: tuple[OrderSeen, ...]
    # (symbol as in the row, price, time) of each fill seen
    prints: tuple[tuple[str, Decimal, int], ...]
    fills: int  # rows seen
    unexplained: int  # of them, with an order that is not there

    @property
    def at_limits(self) -> int:
        """How many fills are at the limit of one of their orders, if all are; else 0, and then
        prices or links are not what they are taken for.
        """
        held: dict[int, bool] = {}
        for order in self.orders:
            for fill in order.fills:
                held[id(fill.fill)] = held.get(id(fill.fill), False) or order.price == fill.price
        return len(held) if all(held.values()) else 0


def gather(
    database: Database, orders: Table, fills: Table | None, its: OrderColumns, theirs: FillColumns
) -> Evidence:
    rows = (
        {row[its.id]: row for row in (*orders.sample.rows, *database.linked) if row.get(its.id)}
        if its.id
        else {}
    )
    fill_rows = fills.sample.rows if fills else ()
    met: dict[str, list[Met]] = {}
    for row in fill_rows:
        for role, column in theirs.orders:
            one = _met(row, role, column, theirs, fills)
            if one is not None and row.get(column):
                met.setdefault(str(row[column]), []).append(one)
    since = _since(fills, theirs)
    seen = tuple(
        _order(row, its, orders, met.get(str(key), []), since) for key, row in rows.items()
    )
    return Evidence(
        orders=seen,
        prints=tuple(_prints(fill_rows, theirs, fills)),
        fills=len(fill_rows),
        unexplained=sum(
            any(row.get(column) not in rows for _, column in theirs.orders) for row in fill_rows
        ),
    )


def _met(row: Row, role: str, column: str, theirs: FillColumns, table: Table | None) -> Met | None:
    price, quantity = decimal(row.get(theirs.price)), decimal(row.get(theirs.quantity))
    if price is None or quantity is None:
        return None
    at_us = moment_us(row, theirs.created_at, table)
    rested = role == "maker"
    if role in ("buy", "sell"):
        others = (other for _, other in theirs.orders if other != column)
        rested = all(_is_before(row.get(column), row.get(other)) for other in others)
    return Met(role=role, rested=rested, price=price, quantity=quantity, at_us=at_us, fill=row)


def _is_before(one: str | None, other: str | None) -> bool:
    left, right = decimal(one), decimal(other)
    return left is not None and right is not None and left < right


def _order(
    row: Row, its: OrderColumns, table: Table, met: list[Met], since: int | None
) -> OrderSeen:
    quantity, leaves = decimal(row.get(its.quantity)), decimal(row.get(its.leaves))
    filled = decimal(row.get(its.filled))
    created = moment_us(row, its.created_at, table)
    has_all = since is not None and (since < 0 or (created is not None and created > since))
    if leaves is None and quantity is not None:
        done = filled
        if done is None and has_all:
            done = sum((one.quantity for one in met), Decimal(0))
        leaves = quantity - done if done is not None else None
    elif quantity is None and leaves is not None and filled is not None:
        quantity = leaves + filled
    return OrderSeen(
        row=row,
        symbol=row.get(its.symbol) or "",
        price=decimal(row.get(its.price)),
        quantity=quantity,
        leaves=leaves,
        created_us=created,
        updated_us=moment_us(row, its.updated_at, table),
        fills=tuple(met),
        has_all=has_all,
    )


def _since(fills: Table | None, theirs: FillColumns) -> int | None:
    """Orders placed later have all of their fills in the sample; -1: all have; None: none has."""
    if fills is None or not theirs.orders:
        return None
    if fills.sample.whole:
        return -1
    times = [moment_us(row, theirs.created_at, fills) for row in fills.sample.newest]
    known = [one for one in times if one is not None]
    return min(known) + MARGIN_US if known else None


def _prints(
    rows: Iterable[Row], theirs: FillColumns, table: Table | None
) -> Iterable[tuple[str, Decimal, int]]:
    for row in rows:
        price, at_us = decimal(row.get(theirs.price)), moment_us(row, theirs.created_at, table)
        if price is not None and at_us is not None:
            yield row.get(theirs.symbol) or "", price, at_us


def moment_us(row: Row, name: str, table: Table | None) -> int | None:
    """Only for comparing with each other: of a number the unit does not matter."""
    text, column = row.get(name), table.column(name) if table and name else None
    if text is None or column is None:
        return None
    if column.kind in ("integer", "numeric"):
        number = decimal(text)
        return int(number) if number is not None else None
    with contextlib.suppress(ValueError, OverflowError):
        return time_us(text, Time(column=name))
    return None
