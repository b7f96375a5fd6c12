"""Transactions from decoded messages: what becomes a change, what taints, what is left out."""

from __future__ import annotations

from collections.abc import Mapping as Texts

import msgspec
import pytest
from legacy_side import MAPPING, SCALES, order_row, trade_row

from shadow.errors import UndecodableChange
from shadow.legacy.assemble import Assembler
from shadow.legacy.pgoutput import (
    Begin,
    Column,
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
from shadow.operation import (
    FillInserted,
    LegacyTransaction,
    Mark,
    Marker,
    OrderDeleted,
    OrderInserted,
    OrderUpdated,
    Unreadable,
)

ORDERS, TRADES = 1, 2
TABLES = {
    ORDERS: ("orders", ("note", *order_row())),
    TRADES: ("trades", ("note", *trade_row())),
}


def relation(relation_id: int, *, name: str | None = None, without: str = "") -> Relation:
    table, columns = TABLES[relation_id]
    found = tuple(Column(one, one == "id") for one in columns if one != without)
    return Relation(relation_id, "public", name or table, "d", found)


def values(relation_id: int, row: Texts[str, str | None], unchanged: tuple[str, ...] = ()) -> Row:
    texts = (
        Unchanged.TOAST if name in unchanged else row.get(name) for name in TABLES[relation_id][1]
    )
    return tuple(one.encode() if isinstance(one, str) else one for one in texts)


def order(unchanged: tuple[str, ...] = (), **changes: str | None) -> Row:
    return values(ORDERS, order_row(**changes), unchanged)


def trade(**changes: str | None) -> Row:
    return values(TRADES, trade_row(**changes))


def ours(body: str, *, transactional: bool = True, prefix: str = "railswitch") -> LogicalMessage:
    return LogicalMessage(900, transactional, prefix, body.encode())


def assembled(*messages: Message, assembler: Assembler | None = None) -> LegacyTransaction | None:
    """One transaction of these messages."""
    assembler = assembler or Assembler(MAPPING, SCALES)
    for message in (relation(ORDERS), relation(TRADES), Begin(1000, 5, 77), *messages):
        assert assembler.feed(message) is None
    return assembler.feed(Commit(1000, 1048, 5))


def only_unreadable(*messages: Message) -> Unreadable:
    transaction = assembled(*messages)
    assert transaction is not None
    (change,) = transaction.changes
    assert isinstance(change, Unreadable)
    return change


def test_a_transaction_is_given_whole_at_its_commit_in_the_order_of_its_writes() -> None:
    transaction = assembled(
        Insert(ORDERS, order(id="9")),
        Insert(TRADES, trade()),
        Update(ORDERS, None, False, order(id="7", remaining_quantity="1")),
        Delete(ORDERS, values(ORDERS, {"id": "5"}), False),
    )
    assert transaction is not None
    assert [type(one) for one in transaction.changes] == [
        OrderInserted,
        FillInserted,
        OrderUpdated,
        OrderDeleted,
    ]
    positions = (transaction.commit_lsn, transaction.end_lsn, transaction.xid)
    assert positions == (1000, 1048, 77)
    assert transaction.committed_at_us == 5
    assert not transaction.ours


def test_a_transaction_of_other_tables_is_not_given() -> None:
    assert assembled(relation(ORDERS, name="members"), Insert(ORDERS, order())) is None
    assert assembled(Insert(99, order())) is None


def test_rows_of_unknown_symbols_are_left_out_and_counted() -> None:
    assembler = Assembler(MAPPING, SCALES)
    rows = (
        Insert(ORDERS, order(market_id="DOGE-USD")),
        Update(ORDERS, None, False, order(market_id="DOGE-USD")),
        Insert(TRADES, trade(market_id="DOGE-USD")),
    )
    assert assembled(*rows, assembler=assembler) is None
    assert assembler.ignored.rows_of_unknown_symbols == 3


def test_the_next_transaction_begins_empty() -> None:
    assembler = Assembler(MAPPING, SCALES)
    first = assembled(Insert(ORDERS, order()), assembler=assembler)
    second = assembled(ours('{"kind":"mark","id":"m"}'), assembler=assembler)
    assert first is not None
    assert second is not None
    assert second.changes == (Mark(id="m"),)


def test_the_fence_and_the_marks_are_read() -> None:
    transaction = assembled(
        ours('{"kind":"fence","symbol":"BTC-USD","flip_id":4,"owner":"engine","epoch":9}'),
        ours('{"kind":"mark","id":"book-1"}'),
    )
    assert transaction is not None
    assert transaction.changes == (
        Marker(symbol="BTC-USD", flip_id=4, owner="engine", epoch=9),
        Mark(id="book-1"),
    )


def test_what_our_write_back_wrote_is_ours_and_not_read() -> None:
    transaction = assembled(
        ours('{"kind":"written","shard":1,"seq":5}'), Insert(ORDERS, order(price=None))
    )
    assert transaction is not None
    assert transaction.ours
    assert transaction.changes == ()


@pytest.mark.parametrize(
    "message",
    [
        ours('{"kind":"written","shard":1,"seq":5}', prefix="somebody"),
        ours('{"kind":"written","shard":1,"seq":5}', transactional=False),
    ],
)
def test_a_message_of_somebody_else_says_nothing(message: LogicalMessage) -> None:
    transaction = assembled(message, Insert(ORDERS, order()))
    assert transaction is not None
    assert not transaction.ours


@pytest.mark.parametrize("body", ["", "{", '{"kind":"new"}', '{"kind":"mark"}', "\udcff"])
def test_a_message_of_a_kind_that_is_not_known_is_counted(body: str) -> None:
    assembler = Assembler(MAPPING, SCALES)
    content = body.encode(errors="surrogateescape")
    message = LogicalMessage(900, True, "railswitch", content)
    assert assembled(message, assembler=assembler) is None
    assert assembler.ignored.messages == 1


def test_an_unreadable_row_leaves_the_others_of_its_transaction() -> None:
    transaction = assembled(Insert(ORDERS, order(price="1.001")), Insert(ORDERS, order(id="8")))
    assert transaction is not None
    unreadable, inserted = transaction.changes
    assert isinstance(unreadable, Unreadable)
    assert isinstance(inserted, OrderInserted)


def test_an_unmapped_column_stored_out_of_line_disturbs_nobody() -> None:
    transaction = assembled(Update(ORDERS, None, False, order(unchanged=("note",))))
    assert transaction is not None
    assert isinstance(transaction.changes[0], OrderUpdated)


def test_a_mapped_column_stored_out_of_line_comes_from_the_whole_old_row_or_is_unreadable() -> None:
    new = order(unchanged=("price",))
    transaction = assembled(Update(ORDERS, order(), True, new))
    assert transaction is not None
    (updated,) = transaction.changes
    assert isinstance(updated, OrderUpdated)
    assert updated.order.price_ticks == 23647
    assert "REPLICA IDENTITY FULL" in only_unreadable(Update(ORDERS, None, False, new)).reason


def test_a_renamed_column_taints_from_there_on_and_an_added_one_does_not() -> None:
    added = Relation(
        ORDERS, "public", "orders", "d", (Column("extra", False), *relation(ORDERS).columns)
    )
    transaction = assembled(added, Insert(ORDERS, (b"x", *order())))
    assert transaction is not None
    assert isinstance(transaction.changes[0], OrderInserted)
    read = only_unreadable(relation(ORDERS, without="price"), Insert(ORDERS, order()[:-1]))
    assert read.symbol == ""
    assert "orders has no column price any more; mapping.orders must follow" in read.reason


def test_an_order_that_gets_another_id_or_instrument_is_unreadable() -> None:
    key = values(ORDERS, {"id": "5"})
    read = only_unreadable(Update(ORDERS, key, False, order(id="6")))
    assert (read.symbol, read.order_id) == ("BTC-USD", 5)
    assert read.reason == "orders: id changed from 5 to 6"
    moved = only_unreadable(Update(ORDERS, order(), True, order(market_id="ETH-USD")))
    assert moved.symbol == "BTC-USD"
    assert "market_id changed from BTC-USD to ETH-USD" in moved.reason


def test_an_order_that_comes_from_an_unknown_instrument_taints_the_one_it_comes_to() -> None:
    read = only_unreadable(Update(ORDERS, order(market_id="DOGE-USD"), True, order()))
    assert read.symbol == "BTC-USD"


def test_an_order_that_leaves_for_an_unknown_instrument_is_not_overlooked() -> None:
    read = only_unreadable(Update(ORDERS, order(), True, order(market_id="DOGE-USD")))
    assert (read.symbol, read.order_id) == ("BTC-USD", 7)


def test_a_fill_that_is_changed_or_deleted_taints() -> None:
    changed = only_unreadable(Update(TRADES, None, False, trade(price="1")))
    assert (changed.symbol, changed.order_id) == ("BTC-USD", 9)
    assert "fill 3 was changed after it was written" in changed.reason
    deleted = only_unreadable(Delete(TRADES, values(TRADES, {"id": "3"}), False))
    assert deleted.reason == "trades: fill 3 was deleted"


def test_with_a_whole_old_row_only_a_change_that_matters_taints() -> None:
    touched = (b"note", *trade()[1:])
    assert assembled(Update(TRADES, trade(), True, touched)) is None
    assert "changed" in only_unreadable(Update(TRADES, trade(), True, trade(price="1"))).reason


def test_a_deleted_row_of_an_unknown_symbol_is_left_out_when_that_can_be_told() -> None:
    gone = order(market_id="DOGE-USD")
    assert assembled(Delete(ORDERS, gone, True)) is None
    transaction = assembled(Delete(ORDERS, values(ORDERS, {"id": "7"}), False))
    assert transaction is not None
    assert transaction.changes == (OrderDeleted(order_id=7),)


def test_a_truncated_table_taints_all() -> None:
    read = only_unreadable(Truncate((TRADES, 99)))
    assert (read.symbol, read.reason) == ("", "trades was truncated")


def test_a_transaction_too_large_taints_its_instruments_and_keeps_our_messages() -> None:
    assembler = Assembler(MAPPING, SCALES, changes_max=3)
    transaction = assembled(
        ours('{"kind":"mark","id":"before"}'),
        *(Insert(ORDERS, order(id=str(n))) for n in range(1, 50)),
        Insert(ORDERS, order(market_id="ETH-USD")),
        ours('{"kind":"mark","id":"after"}'),
        assembler=assembler,
    )
    assert transaction is not None
    first, second, *marks = transaction.changes
    assert isinstance(first, Unreadable)
    assert isinstance(second, Unreadable)
    assert [first.symbol, second.symbol] == ["BTC-USD", "ETH-USD"]
    assert "more than 3 changed rows" in first.reason
    assert marks == [Mark(id="before"), Mark(id="after")]


def test_a_transaction_of_exactly_the_bound_is_read() -> None:
    assembler = Assembler(MAPPING, SCALES, changes_max=3)
    rows = [Insert(ORDERS, order(id=str(n))) for n in (1, 2, 3)]
    transaction = assembled(*rows, assembler=assembler)
    assert transaction is not None
    assert [type(one) for one in transaction.changes] == [OrderInserted] * 3


def test_a_table_may_be_named_with_its_schema() -> None:
    orders = msgspec.structs.replace(MAPPING.orders, table="trading.orders")
    mapping = msgspec.structs.replace(MAPPING, orders=orders)
    assembler = Assembler(mapping, SCALES)
    assert assembled(Insert(ORDERS, order()), assembler=assembler) is None
    elsewhere = Relation(ORDERS, "trading", "orders", "d", relation(ORDERS).columns)
    assert assembled(elsewhere, Insert(ORDERS, order()), assembler=assembler) is not None


def test_a_commit_without_its_beginning_is_an_error() -> None:
    with pytest.raises(UndecodableChange):
        Assembler(MAPPING, SCALES).feed(Commit(1, 2, 3))
