"""Decodes the messages of PostgreSQL's `pgoutput` plugin, protocol version 1.

Pure. Column values stay the bytes that PostgreSQL sent (its text output, in the client
encoding): most columns of a row are never looked at, so decoding them is left to whoever does.
"""

from __future__ import annotations

import struct
from enum import Enum

import msgspec

from shadow.errors import UndecodableChange

POSTGRES_EPOCH_US = 946_684_800_000_000  # 2000-01-01 in microseconds since 1970


class Unchanged(Enum):
    """The value of a column that the change left as it was, and that is stored out of line."""

    TOAST = "unchanged"


Value = bytes | None | Unchanged
Row = tuple[Value, ...]  # one for each column of the relation, in its order


class Begin(msgspec.Struct, frozen=True, gc=False):
    commit_lsn: int  # of the transaction that begins: it comes whole, after its commit
    committed_at_us: int
    xid: int


class Commit(msgspec.Struct, frozen=True, gc=False):
    commit_lsn: int
    end_lsn: int
    committed_at_us: int  # microseconds since 1970


class Column(msgspec.Struct, frozen=True, gc=False):
    name: str
    identity: bool  # part of the replica identity


class Relation(msgspec.Struct, frozen=True, gc=False):
    """A table as it is from here on; sent before its first change and after it was altered."""

    relation_id: int
    namespace: str
    name: str
    replica_identity: str  # pg_class.relreplident: d, f, i or n
    columns: tuple[Column, ...]


class Insert(msgspec.Struct, frozen=True, gc=False):
    relation_id: int
    new: Row


class Update(msgspec.Struct, frozen=True, gc=False):
    """`old`: the whole old row (replica identity full); else its key if that changed; else None."""

    relation_id: int
    old: Row | None
    old_is_whole: bool
    new: Row


class Delete(msgspec.Struct, frozen=True, gc=False):
    relation_id: int
    old: Row
    old_is_whole: bool  # otherwise only the key; the other values are None


class Truncate(msgspec.Struct, frozen=True, gc=False):
    relation_ids: tuple[int, ...]


class LogicalMessage(msgspec.Struct, frozen=True, gc=False):
    """Of pg_logical_emit_message."""

    lsn: int
    transactional: bool
    prefix: str
    content: bytes


class Other(msgspec.Struct, frozen=True, gc=False):
    """An origin or a data type: nothing that we need."""

    kind: str


Message = Begin | Commit | Relation | Insert | Update | Delete | Truncate | LogicalMessage | Other

_U16 = struct.Struct(">H")
_U32 = struct.Struct(">I")
_BEGIN = struct.Struct(">QqI")
_COMMIT = struct.Struct(">xQQq")  # one unused byte of flags
_UPDATE_OLD = (0x4B, 0x4F)  # K: key, O: whole


def decode(data: bytes) -> Message:
    """One message. Raises UndecodableChange."""
    try:
        kind = data[0]
        if kind == 0x49:  # I
            return _insert(data)
        if kind == 0x55:  # U
            return _update(data)
        if kind == 0x42:  # B
            lsn, time_us, xid = _BEGIN.unpack_from(data, 1)
            return Begin(lsn, time_us + POSTGRES_EPOCH_US, xid)
        if kind == 0x43:  # C
            lsn, end_lsn, time_us = _COMMIT.unpack_from(data, 1)
            return Commit(lsn, end_lsn, time_us + POSTGRES_EPOCH_US)
        return _decode_rarer(kind, data)
    except (struct.error, IndexError, ValueError) as error:
        raise UndecodableChange(f"message {data[:16]!r}… of the change stream: {error}") from error


def _decode_rarer(kind: int, data: bytes) -> Message:
    match chr(kind):
        case "R":
            return _relation(data)
        case "D":
            return _delete(data)
        case "T":
            count, _options = struct.unpack_from(">IB", data, 1)
            return Truncate(struct.unpack_from(f">{count}I", data, 6))
        case "M":
            return _message(data)
        case "O" | "Y" as other:
            return Other(other)
        case other:
            raise ValueError(f"unknown kind {other!r}")


def _insert(data: bytes) -> Insert:
    (relation_id,) = _U32.unpack_from(data, 1)
    _expect(data, 5, 0x4E)
    new, _ = _row(data, 6)
    return Insert(relation_id, new)


def _update(data: bytes) -> Update:
    (relation_id,) = _U32.unpack_from(data, 1)
    old: Row | None = None
    mark, at = data[5], 6
    whole = mark == 0x4F
    if mark in _UPDATE_OLD:
        old, at = _row(data, at)
        mark, at = data[at], at + 1
    _expect(data, at - 1, 0x4E)
    new, _ = _row(data, at)
    return Update(relation_id, old, whole, new)


def _delete(data: bytes) -> Delete:
    (relation_id,) = _U32.unpack_from(data, 1)
    if data[5] not in _UPDATE_OLD:
        raise ValueError("a deletion without its old row")
    old, _ = _row(data, 6)
    return Delete(relation_id, old, data[5] == 0x4F)


def _expect(data: bytes, at: int, byte: int) -> None:
    if data[at] != byte:
        raise ValueError(f"{chr(byte)!r} expected at byte {at}")


def _row(data: bytes, at: int) -> tuple[Row, int]:
    """The row that begins there, and where it ends."""
    (count,) = _U16.unpack_from(data, at)
    at += 2
    values: list[Value] = []
    append, size_at = values.append, _U32.unpack_from
    for _ in range(count):
        kind = data[at]
        if kind == 0x74:  # t
            start = at + 5
            at = start + size_at(data, at + 1)[0]
            append(data[start:at])
        elif kind == 0x6E:  # n
            append(None)
            at += 1
        elif kind == 0x75:  # u
            append(Unchanged.TOAST)
            at += 1
        else:
            raise ValueError(f"a value of unknown kind {chr(kind)!r}")
    if at > len(data):
        raise ValueError("a value ends after the message")
    return tuple(values), at


def _relation(data: bytes) -> Relation:
    (relation_id,) = _U32.unpack_from(data, 1)
    namespace, at = _string(data, 5)
    name, at = _string(data, at)
    identity = chr(data[at])
    (count,) = _U16.unpack_from(data, at + 1)
    at += 3
    columns: list[Column] = []
    for _ in range(count):
        flags = data[at]
        column, at = _string(data, at + 1)
        _U32.unpack_from(data, at + 4)  # type and its modifier: text is text
        at += 8
        columns.append(Column(column, bool(flags & 1)))
    # pg_catalog is sent as an empty name.
    return Relation(relation_id, namespace or "pg_catalog", name, identity, tuple(columns))


def _message(data: bytes) -> LogicalMessage:
    flags = data[1]
    (lsn,) = struct.unpack_from(">Q", data, 2)
    prefix, at = _string(data, 10)
    (size,) = _U32.unpack_from(data, at)
    content = data[at + 4 : at + 4 + size]
    if len(content) != size:
        raise ValueError("the content ends after the message")
    return LogicalMessage(lsn, bool(flags & 1), prefix, content)


def _string(data: bytes, at: int) -> tuple[str, int]:
    end = data.index(0, at)
    return data[at:end].decode(), end + 1
