"""Against an encoder written from PostgreSQL's protocol documentation, and against rubbish."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.errors import UndecodableChange
from shadow.legacy.pgoutput import (
    POSTGRES_EPOCH_US,
    Begin,
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Other,
    Relation,
    Row,
    Truncate,
    Unchanged,
    Update,
    Value,
    decode,
)

U32 = st.integers(0, 2**32 - 1)
LSNS = st.integers(0, 2**64 - 1)
TIMES_US = st.integers(0, 2**52)
NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=10)
ROWS = st.lists(st.none() | st.just(Unchanged.TOAST) | st.binary(max_size=12), max_size=6).map(
    tuple
)

MESSAGES = st.one_of(
    st.builds(Begin, LSNS, TIMES_US, U32),
    st.builds(Commit, LSNS, LSNS, TIMES_US),
    st.builds(
        Relation,
        U32,
        NAMES,
        NAMES,
        st.sampled_from("dfin"),
        st.lists(st.builds(Column, NAMES, st.booleans()), max_size=5).map(tuple),
    ),
    st.builds(Insert, U32, ROWS),
    st.builds(Update, U32, st.none(), st.just(value=False), ROWS),
    st.builds(Update, U32, ROWS, st.booleans(), ROWS),
    st.builds(Delete, U32, ROWS, st.booleans()),
    st.builds(Truncate, st.lists(U32, max_size=4).map(tuple)),
    st.builds(LogicalMessage, LSNS, st.booleans(), NAMES, st.binary(max_size=40)),
)


def encode(message: Message) -> bytes:
    match message:
        case Begin(lsn, at_us, xid):
            return b"B" + struct.pack(">QqI", lsn, at_us - POSTGRES_EPOCH_US, xid)
        case Commit(lsn, end_lsn, at_us):
            return b"C\0" + struct.pack(">QQq", lsn, end_lsn, at_us - POSTGRES_EPOCH_US)
        case Relation(relation_id, namespace, name, identity, columns):
            head = struct.pack(">I", relation_id) + text(namespace) + text(name)
            count = struct.pack(">H", len(columns))
            rows = (bytes([one.identity]) + text(one.name) + bytes(8) for one in columns)
            return b"R" + head + identity.encode() + count + b"".join(rows)
        case Insert(relation_id, new):
            return b"I" + struct.pack(">I", relation_id) + b"N" + row(new)
        case Update(relation_id, old, whole, new):
            before = b"" if old is None else (b"O" if whole else b"K") + row(old)
            return b"U" + struct.pack(">I", relation_id) + before + b"N" + row(new)
        case Delete(relation_id, old, whole):
            return b"D" + struct.pack(">I", relation_id) + (b"O" if whole else b"K") + row(old)
        case Truncate(ids):
            return b"T" + struct.pack(f">IB{len(ids)}I", len(ids), 0, *ids)
        case LogicalMessage(lsn, transactional, prefix, content):
            head = b"M" + bytes([transactional]) + struct.pack(">Q", lsn) + text(prefix)
            return head + struct.pack(">I", len(content)) + content
        case _:
            raise AssertionError(message)


def text(value: str) -> bytes:
    return value.encode() + b"\0"


def row(values: Row) -> bytes:
    def one(value: Value) -> bytes:
        if isinstance(value, bytes):
            return b"t" + struct.pack(">I", len(value)) + value
        return b"u" if value is Unchanged.TOAST else b"n"

    return struct.pack(">H", len(values)) + b"".join(map(one, values))


@given(MESSAGES)
def test_every_message_comes_back_as_it_was_sent(message: Message) -> None:
    assert decode(encode(message)) == message


@given(MESSAGES.filter(lambda one: not isinstance(one, Truncate)), st.data())
def test_a_message_that_was_cut_is_an_error_and_nothing_else(
    message: Message, data: st.DataObject
) -> None:
    whole = encode(message)
    length = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(UndecodableChange):
        decode(whole[:length])


@given(st.binary(max_size=60))
def test_rubbish_is_a_message_or_an_error_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(UndecodableChange):
        decode(data)


@pytest.mark.parametrize("kind", [b"O", b"Y"])
def test_origins_and_types_are_passed_over(kind: bytes) -> None:
    assert decode(kind + bytes(20)) == Other(kind.decode())


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"S" + bytes(8), "unknown kind 'S'"),  # a streamed transaction: protocol 2
        (b"I" + bytes(4) + b"N\0\1b\0\0\0\0", "unknown kind 'b'"),  # a binary value: not asked for
    ],
)
def test_what_protocol_1_does_not_have_is_named(data: bytes, what: str) -> None:
    with pytest.raises(UndecodableChange, match=what):
        decode(data)


def test_pg_catalog_travels_as_an_empty_name() -> None:
    message = Relation(1, "", "pg_class", "n", ())
    assert decode(encode(message)) == Relation(1, "pg_catalog", "pg_class", "n", ())


def test_a_name_that_is_no_utf8_is_an_error() -> None:
    with pytest.raises(UndecodableChange):
        decode(b"R" + bytes(4) + b"public\0\xff\0d\0\0")
