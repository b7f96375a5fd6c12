"""From messages of the change stream to whole transactions of the monolith, in commit order. Pure.

What a transaction did to other tables, and to orders of symbols that are not configured, is
left out. What can't be read becomes an `Unreadable` that taints its instrument; nothing is
dropped without being counted.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Rows
from typing import TypeVar

import msgspec

from shadow.errors import AdapterFailed, UndecodableChange
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.convert import Scale
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Mapping
from shadow.legacy.pgoutput import (
    Begin,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    Row,
    Truncate,
    Unchanged,
    Update,
)
from shadow.legacy.rows import (
    fill_columns,
    legacy_fill,
    named_symbol,
    order_columns,
    order_image,
    taker_of,
)
from shadow.legacy.symbols import symbol_of
from shadow.legacy.words import is_inside
from shadow.limits import TRANSACTION_CHANGES_MAX
from shadow.operation import (
    Change,
    FillInserted,
    LegacyTransaction,
    Mark,
    Marker,
    OrderDeleted,
    OrderImage,
    OrderInserted,
    OrderUpdated,
    Unreadable,
)

MESSAGE_PREFIX = "railswitch"  # of pg_logical_emit_message, for our own messages in the stream

_Texts = dict[str, str | None]
_RowMessage = TypeVar("_RowMessage", Insert, Update, Delete)
_TOAST = Unchanged.TOAST  # looked at for every value: a member costs more than the value
_FULL = " (ALTER TABLE … REPLICA IDENTITY FULL would show which)"


class _Fence(msgspec.Struct, frozen=True, tag_field="kind", tag="fence"):
    symbol: str
    flip_id: int
    owner: str
    epoch: int


class _Mark(msgspec.Struct, frozen=True, tag_field="kind", tag="mark"):
    id: str


class _Written(msgspec.Struct, frozen=True, tag_field="kind", tag="written"):
    shard: int
    seq: int


_MESSAGES: msgspec.json.Decoder[_Fence | _Mark | _Written] = msgspec.json.Decoder(
    _Fence | _Mark | _Written
)


class _NotAdapted(Exception):
    """The adapter could not read a row; never leaves this module."""

    def __init__(self, row: Unreadable) -> None:
        super().__init__(row.reason)
        self.row = row


class Ignored(msgspec.Struct):
    """What the stream carried and nobody asked for, since the start."""

    rows_of_unknown_symbols: int = 0
    rows_dropped: int = 0  # of transactions that were too large
    messages: int = 0  # under our prefix, of no kind that we know


class _Table(msgspec.Struct, frozen=True):
    """What of a relation is looked at."""

    orders: bool  # else fills
    columns: tuple[tuple[int, str], ...]  # position and name of each mapped column
    missing: tuple[str, ...]  # mapped columns that the table does not have


class Assembler:
    """Feed it the messages of one session in their order; a new session needs a new one."""

    def __init__(
        self,
        mapping: Mapping,
        scales: Rows[str, Scale],
        *,
        ignored: Ignored | None = None,
        changes_max: int = TRANSACTION_CHANGES_MAX,
        adapter: Adapted = PLAIN,
    ) -> None:
        self.ignored = ignored or Ignored()
        self._mapping = mapping
        self._scales = scales
        self._adapter = adapter
        self._changes_max = changes_max
        self._tables: dict[int, _Table] = {}
        self._begin: Begin | None = None
        self._start_transaction(None)

    @property
    def in_transaction(self) -> bool:
        return self._begin is not None

    def feed(self, message: Message) -> LegacyTransaction | None:
        """The transaction that this message ends, if it concerns us. Raises UndecodableChange."""
        match message:
            case Insert():
                self._row_change(message, self._inserted)
            case Update():
                self._row_change(message, self._updated)
            case Begin():
                self._start_transaction(message)
            case Commit():
                return self._commit(message)
            case Delete():
                self._row_change(message, self._deleted)
            case Relation():
                self._relation(message)
            case LogicalMessage():
                self._message(message)
            case Truncate():
                self._truncated(message)
            case _:  # origins and types say nothing about rows
                pass
        return None

    # --- transactions --------------------------------------------------------------------------

    def _start_transaction(self, begin: Begin | None) -> None:
        self._begin = begin
        self._ours = False
        self._changes: list[Change] = []
        self._overflow: set[str] = set()  # symbols whose changes were more than fit

    def _commit(self, commit: Commit) -> LegacyTransaction | None:
        begin = self._begin
        if begin is None:
            raise UndecodableChange("a commit in the change stream without its beginning")
        changes, ours, overflow = self._changes, self._ours, self._overflow
        self._start_transaction(None)
        if overflow:
            changes = self._overflowed(changes, overflow)
        if not changes and not ours:
            return None
        return LegacyTransaction(
            commit_lsn=commit.commit_lsn,
            end_lsn=commit.end_lsn,
            xid=begin.xid,
            committed_at_us=commit.committed_at_us,
            ours=ours,
            changes=tuple(changes),
        )

    def _overflowed(self, changes: list[Change], symbols: set[str]) -> list[Change]:
        """Our own messages stay; of the rows only which instruments were touched."""
        reason = f"a transaction of more than {self._changes_max} changed rows; load it again"
        return [
            *(Unreadable(symbol=symbol, order_id=0, reason=reason) for symbol in sorted(symbols)),
            *(one for one in changes if isinstance(one, Marker | Mark)),
        ]

    def _add(self, change: Change) -> None:
        if self._overflow:
            self._overflow.add(_symbol_of(change))
            self.ignored.rows_dropped += 1
        elif len(self._changes) < self._changes_max:
            self._changes.append(change)
        else:
            rows = [one for one in self._changes if not isinstance(one, Marker | Mark)]
            self._overflow = {_symbol_of(one) for one in (change, *rows)}
            self.ignored.rows_dropped += 1 + len(rows)
            self._changes = [one for one in self._changes if isinstance(one, Marker | Mark)]

    # --- messages ------------------------------------------------------------------------------

    def _message(self, message: LogicalMessage) -> None:
        if message.prefix != MESSAGE_PREFIX or not message.transactional:
            return
        try:
            body = _MESSAGES.decode(message.content)
        except (msgspec.DecodeError, UnicodeDecodeError):
            self.ignored.messages += 1
            return
        match body:
            case _Fence(symbol, flip_id, owner, epoch):
                marker = Marker(symbol=symbol, flip_id=flip_id, owner=owner, epoch=epoch)
                self._changes.append(marker)
            case _Mark(mark):
                self._changes.append(Mark(id=mark))
            case _Written():
                self._ours = True

    # --- rows ----------------------------------------------------------------------------------

    def _relation(self, relation: Relation) -> None:
        orders, fills = self._mapping.orders, self._mapping.fills
        if _is_table(orders.table, relation):
            wanted = (*order_columns(orders), *self._adapter.order_columns)
        elif _is_table(fills.table, relation):
            wanted = (*fill_columns(fills), *self._adapter.fill_columns)
        else:
            self._renamed(relation)
            return
        places = {column.name: n for n, column in enumerate(relation.columns)}
        self._tables[relation.relation_id] = _Table(
            orders=_is_table(orders.table, relation),
            columns=tuple((places[name], name) for name in dict.fromkeys(wanted) if name in places),
            missing=tuple(name for name in wanted if name not in places),
        )

    def _renamed(self, relation: Relation) -> None:
        """Not ours, or not any more: then what is written to it says nothing about our tables."""
        table = self._tables.pop(relation.relation_id, None)
        if table is not None:
            reason = f"{self._name(table)} was renamed to {relation.namespace}.{relation.name}"
            self._add(Unreadable(symbol="", order_id=0, reason=reason))

    def _row_change(
        self, message: _RowMessage, read: Callable[[_Table, _RowMessage], Change | None]
    ) -> None:
        table = self._tables.get(message.relation_id)
        if table is None or self._ours:
            return
        try:
            change = self._missing_columns(table) if table.missing else read(table, message)
        except _NotAdapted as error:
            change = error.row
        if change is not None:
            self._add(change)

    def _missing_columns(self, table: _Table) -> Unreadable:
        name = self._name(table)
        columns = ", ".join(table.missing)
        reason = f"{name} has no column {columns} any more; mapping.{_key(table)} must follow"
        return Unreadable(symbol="", order_id=0, reason=reason)

    def _inserted(self, table: _Table, message: Insert) -> Change | None:
        row = self._adapted(table, _texts(table, message.new))
        if row is None or self._is_unknown(table, row) or not self._is_inside(table, row):
            return None
        if not table.orders:
            fill = legacy_fill(row, self._mapping, self._scales)
            return fill if isinstance(fill, Unreadable) else FillInserted(fill=fill)
        image = order_image(row, self._mapping, self._scales)
        return OrderInserted(order=image) if isinstance(image, OrderImage) else image

    def _updated(self, table: _Table, message: Update) -> Change | None:
        old = _texts(table, message.old) if message.old is not None else {}
        row = _texts(table, message.new)
        if message.old_is_whole:
            row = old | row  # what is unchanged and stored out of line stands in the old row
            old = self._adapted(table, old) or {}
        seen = self._adapted(table, row)
        if seen is None:
            return self._outside(table, row, old if message.old_is_whole else None)
        row = seen
        if self._is_unknown(table, row) and (
            not message.old_is_whole or self._is_unknown(table, old, count=False)
        ):
            return None
        if not self._is_inside(table, row):
            return self._outside(table, row, old if message.old_is_whole else None)
        if not table.orders:
            return self._fill_updated(row, old if message.old_is_whole else None)
        moved = self._moved(row, old, message.old_is_whole)
        if moved is not None:
            return moved
        image = order_image(row, self._mapping, self._scales)
        return OrderUpdated(order=image) if isinstance(image, OrderImage) else image

    def _moved(self, row: _Texts, old: _Texts, old_is_whole: bool) -> Unreadable | None:
        """An order that was given another id or instrument: nothing that an engine can follow."""
        orders = self._mapping.orders
        columns = (orders.id.column, orders.symbol.column) if old_is_whole else (orders.id.column,)
        for column in columns:
            was = old.get(column)
            if was is not None and was != row.get(column):
                symbols = [named_symbol(one, orders.symbol) for one in (old, row)]
                return Unreadable(
                    symbol=next((one for one in symbols if one in self._scales), ""),
                    order_id=number_of(old.get(orders.id.column), orders.id),
                    reason=f"{orders.table}: {column} changed from {was} to {row.get(column)}",
                )
        return None

    def _outside(self, table: _Table, row: _Texts, old: _Texts | None) -> Unreadable | None:
        """A row that the filter hides now; if it did not before, the order is gone for us. Where
        the old row is not known it may be so: that concerns whoever has the order open.
        """
        if old is not None and (not old or not self._is_inside(table, old)):
            return None
        if not table.orders:
            return self._fill_updated(row, old) if old is not None else None
        orders = self._mapping.orders
        return Unreadable(
            symbol="",
            order_id=number_of(row.get(orders.id.column), orders.id),
            reason=f"{orders.table}: its row is not one of mapping.orders.where any more",
        )

    def _fill_updated(self, row: _Texts, old: _Texts | None) -> Unreadable | None:
        fills = self._mapping.fills
        if old == row:
            return None
        fill_id = row.get(fills.id.column)
        return Unreadable(
            symbol=named_symbol(row, fills.symbol),
            order_id=taker_of(row, self._mapping),
            reason=f"{fills.table}: fill {fill_id} was changed after it was written"
            + ("" if old is not None else _FULL),
        )

    def _deleted(self, table: _Table, message: Delete) -> Change | None:
        old = _texts(table, message.old)
        if message.old_is_whole:
            seen = self._adapted(table, old)
            if seen is None or self._is_unknown(table, seen) or not self._is_inside(table, seen):
                return None
            old = seen
        if table.orders:
            orders = self._mapping.orders
            order_id = number_of(old.get(orders.id.column), orders.id)
            if order_id:
                return OrderDeleted(order_id=order_id)
            reason = f"{self._name(table)}: a row was deleted, and its replica identity has no id"
            return Unreadable(symbol="", order_id=0, reason=reason)
        fills = self._mapping.fills
        return Unreadable(
            symbol=named_symbol(old, fills.symbol),
            order_id=taker_of(old, self._mapping),
            reason=f"{fills.table}: fill {old.get(fills.id.column)} was deleted",
        )

    def _truncated(self, message: Truncate) -> None:
        for relation_id in message.relation_ids:
            table = self._tables.get(relation_id)
            if table is not None and not self._ours:
                reason = f"{self._name(table)} was truncated"
                self._add(Unreadable(symbol="", order_id=0, reason=reason))

    def _is_unknown(self, table: _Table, row: _Texts, *, count: bool = True) -> bool:
        """A symbol that is not configured is nobody's business; one that is missing may be."""
        fields = self._mapping.orders if table.orders else self._mapping.fills
        value = row.get(fields.symbol.column)
        unknown = value is not None and symbol_of(fields.symbol, value) not in self._scales
        self.ignored.rows_of_unknown_symbols += unknown and count
        return unknown

    def _is_inside(self, table: _Table, row: _Texts) -> bool:
        where = self._mapping.orders.where if table.orders else self._mapping.fills.where
        return not where or is_inside(row, where)

    def _adapted(self, table: _Table, row: _Texts) -> _Texts | None:
        """As the adapter shows it; None where it hides it. Raises _NotAdapted."""
        try:
            return self._adapter.order_row(row) if table.orders else self._adapter.fill_row(row)
        except AdapterFailed as error:
            orders, fills = self._mapping.orders, self._mapping.fills
            if table.orders:
                named = named_symbol(row, orders.symbol)
                order_id = number_of(row.get(orders.id.column), orders.id)
            else:
                named, order_id = named_symbol(row, fills.symbol), taker_of(row, self._mapping)
            raise _NotAdapted(
                Unreadable(symbol=named, order_id=order_id, reason=f"{self._name(table)}: {error}")
            ) from error

    def _name(self, table: _Table) -> str:
        return self._mapping.orders.table if table.orders else self._mapping.fills.table


def _symbol_of(change: Change) -> str:
    """ "" where the change doesn't say: it may be any instrument's."""
    match change:
        case OrderInserted(order=order) | OrderUpdated(order=order):
            return order.symbol
        case FillInserted(fill=fill):
            return fill.symbol
        case Unreadable(symbol=symbol):
            return symbol
        case _:
            return ""


def _is_table(name: str, relation: Relation) -> bool:
    schema, dot, table = name.rpartition(".")
    return table == relation.name and (not dot or schema == relation.namespace)


def _key(table: _Table) -> str:
    return "orders" if table.orders else "fills"


def _texts(table: _Table, row: Row) -> _Texts:
    """The mapped columns as text; without those that are unchanged and stored out of line."""
    texts: _Texts = {}
    for at, name in table.columns:
        value = row[at]
        if value is None:
            texts[name] = None
        elif value is not _TOAST:
            texts[name] = value.decode("utf-8", "replace")
    return texts
