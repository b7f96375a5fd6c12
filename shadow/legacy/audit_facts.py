"""Rows into what the mapping makes of them: readable, hidden, of other instruments. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from shadow.legacy.audit_types import Facts, Met, Recent, Row, SeenFill, SeenOrder
from shadow.legacy.convert import Scale
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Mapping, OrdersTable, Symbol
from shadow.legacy.rows import legacy_fill, named_symbol, order_id_columns, order_image
from shadow.legacy.symbols import symbol_of
from shadow.legacy.words import is_inside
from shadow.operation import Unreadable


def facts(recent: Recent, mapping: Mapping, scales: dict[str, Scale]) -> Facts:
    orders: dict[int, SeenOrder] = {}
    repeated, inside, broken = [], [], []
    hidden_ids, broken_ids, stranger_ids = set(), set(), set()
    strangers: Counter[str] = Counter()
    for row, is_recent in _rows(recent):
        number = number_of(row.get(mapping.orders.id.column), mapping.orders.id)
        if not is_inside(row, mapping.orders.where):
            hidden_ids.add(number)
            continue
        inside.append(row)
        if is_stranger(row, mapping.orders.symbol, scales):
            strangers[named_symbol(row, mapping.orders.symbol)] += is_recent
            stranger_ids.add(number)
            continue
        image = order_image(row, mapping, scales)
        if isinstance(image, Unreadable):
            broken.append((row, image.reason))
            broken_ids.add(number)
        elif image.order_id in orders:
            repeated.append(image.order_id)
        else:
            orders[image.order_id] = SeenOrder(image=image, row=row, is_recent=is_recent)
    fills, hidden_fills, broken_fills = _fills(recent, mapping, scales)
    return Facts(
        recent=recent,
        mapping=mapping,
        orders=orders,
        fills=fills,
        met=tuple(_met(fills, orders)),
        inside=tuple(inside),
        broken=tuple(broken),
        broken_fills=broken_fills,
        repeated=tuple(repeated),
        hidden_ids=frozenset(hidden_ids),
        broken_ids=frozenset(broken_ids),
        strangers=+strangers,
        stranger_ids=frozenset(stranger_ids),
        hidden_fills=hidden_fills,
    )


def is_stranger(row: Row, symbol: Symbol, scales: dict[str, Scale]) -> bool:
    """The row is of an instrument that is not configured. NULL is none: it is unreadable."""
    value = row.get(symbol.column)
    return value is not None and symbol_of(symbol, value) not in scales


def named_orders(row: Row, mapping: Mapping) -> set[int]:
    """The orders that a fill's row names, as far as that can be read."""
    key = mapping.orders.id
    return {number_of(row.get(column), key) for column in order_id_columns(mapping.fills)} - {0}


def raw_of(column: str, orders: Iterable[SeenOrder]) -> str:
    """What these orders have in a column: `state = '2' (31), '0' (2)`; "" without a column."""
    if not column:
        return ""
    counted = Counter(one.row.get(column) for one in orders)
    shown = ", ".join(
        f"{'NULL' if value is None else repr(value)} ({count})"
        for value, count in counted.most_common(3)
    )
    return f"{column} = {shown}"


def id_of(row: Row, orders: OrdersTable) -> int:
    return number_of(row.get(orders.id.column), orders.id)


def _rows(recent: Recent) -> Iterable[tuple[Row, bool]]:
    yield from ((row, True) for row in recent.orders)
    yield from ((row, False) for row in recent.others)


def _fills(
    recent: Recent, mapping: Mapping, scales: dict[str, Scale]
) -> tuple[tuple[SeenFill, ...], tuple[Row, ...], tuple[tuple[Row, str], ...]]:
    """(readable, hidden, unreadable with the reason)"""
    read, hidden, broken = [], [], []
    for row in recent.fills:
        if not is_inside(row, mapping.fills.where):
            hidden.append(row)
            continue
        if is_stranger(row, mapping.fills.symbol, scales):
            continue
        fill = legacy_fill(row, mapping, scales)
        if isinstance(fill, Unreadable):
            broken.append((row, fill.reason))
        else:
            read.append(SeenFill(fill=fill, row=row))
    return tuple(read), tuple(hidden), tuple(broken)


def _met(fills: Iterable[SeenFill], orders: dict[int, SeenOrder]) -> Iterable[Met]:
    for one in fills:
        maker = orders.get(one.fill.maker_order_id)
        taker = orders.get(one.fill.taker_order_id)
        if maker is not None and taker is not None:
            yield Met(seen=one, maker=maker, taker=taker)
