"""Transactions from decoded messages: what becomes a change, what taints, what is left out."""

from __future__ import annotations

from collections.abc import Mapping as Texts

import msgspec
import pytest
from legacy_side import MAPPING, SCALES, order_row, trade_row

from shadow.errors import UndecodableChange
from shadow.legacy.assemble import Assembler
from shadow.legacy.mapping import Symbol
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
    Change,
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
    members = msgspec.structs.replace(relation(ORDERS, name="members"), relation_id=98)
    assert assembled(members, Insert(98, order())) is None
    assert assembled(Insert(99, order())) is None


def test_a_table_that_was_renamed_is_told_and_not_read_any_more() -> None:
    change = only_unreadable(relation(ORDERS, name="old_orders"), Insert(ORDERS, order()))
    assert (change.symbol, change.order_id) == ("", 0)
    assert change.reason == "orders was renamed to public.old_orders"


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


# --- filters, and instruments by another name ----------------------------------------------------

FILTERED = msgspec.structs.replace(
    MAPPING,
    orders=msgspec.structs.replace(
        MAPPING.orders,
        where={"note": ("spot", "true")},
        symbol=Symbol(column="market_id", map={"3": "BTC-USD", "9": "DOGE-USD"}),
    ),
    fills=msgspec.structs.replace(MAPPING.fills, where={"note": ("spot",)}),
)


def filtered(*messages: Message, assembler: Assembler | None = None) -> list[Change]:
    transaction = assembled(*messages, assembler=assembler or Assembler(FILTERED, SCALES))
    return list(transaction.changes) if transaction is not None else []


def spot(unchanged: tuple[str, ...] = (), **changes: str | None) -> Row:
    return order(unchanged, **{"note": "spot", "market_id": "3", **changes})


def test_rows_outside_the_filter_are_not_there() -> None:
    outside = spot(note="margin")
    assert filtered(Insert(ORDERS, outside)) == []
    assert filtered(Insert(ORDERS, spot(note=None))) == []
    assert filtered(Insert(TRADES, trade(note="margin"))) == []
    assert filtered(Update(TRADES, trade(note="margin"), True, trade(note="future"))) == []
    assert filtered(Update(ORDERS, outside, True, spot(note="margin", state="1"))) == []
    assert filtered(Delete(ORDERS, outside, True)) == []
    assert filtered(Delete(TRADES, trade(note="margin"), True)) == []


def test_rows_inside_it_are_read_by_the_map_of_symbols() -> None:
    for note in ("spot", "t"):  # a boolean is written "t" here, and "true" in the mapping
        (change,) = filtered(Insert(ORDERS, spot(note=note)))
        assert isinstance(change, OrderInserted)
        assert change.order.symbol == "BTC-USD"
    (fill,) = filtered(Insert(TRADES, trade(note="spot")))
    assert isinstance(fill, FillInserted)


def test_a_value_that_no_configured_instrument_has_is_left_out_and_counted() -> None:
    assembler = Assembler(FILTERED, SCALES)
    for market_id in ("9", "10", "BTC-USD"):
        row = spot(market_id=market_id)
        assert filtered(Insert(ORDERS, row), assembler=assembler) == []
    assert assembler.ignored.rows_of_unknown_symbols == 3


def test_a_row_that_leaves_the_filter_may_have_been_an_open_order() -> None:
    """Of default replica identity nobody knows what it was: whoever has it open must hear of it."""
    for old, whole in ((None, False), (spot(), True)):
        (change,) = filtered(Update(ORDERS, old, whole, spot(note="margin")))
        assert change == Unreadable(
            symbol="",
            order_id=7,
            reason="orders: its row is not one of mapping.orders.where any more",
        )
    (change,) = filtered(Update(TRADES, trade(note="spot"), True, trade(note="margin")))
    assert isinstance(change, Unreadable)
    assert "fill 3 was changed after it was written" in change.reason


def test_a_row_that_enters_it_is_an_order_that_nobody_has_seen() -> None:
    (change,) = filtered(Update(ORDERS, spot(note="margin"), True, spot()))
    assert isinstance(change, OrderUpdated)


def test_a_filter_whose_column_is_unchanged_and_out_of_line_lets_the_row_through() -> None:
    (change,) = filtered(Update(ORDERS, None, False, spot(unchanged=("note",))))
    assert isinstance(change, OrderUpdated)


def test_an_order_that_changes_its_instrument_is_named_by_the_one_it_had() -> None:
    (change,) = filtered(Update(ORDERS, spot(), True, spot(market_id="9")))
    assert isinstance(change, Unreadable)
    assert (change.symbol, change.order_id) == ("BTC-USD", 7)
    assert "market_id changed from 3 to 9" in change.reason
