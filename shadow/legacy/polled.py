"""A row of our table of changes as the messages that the change stream would have brought. Pure.

The triggers write whole rows as JSON, whatever their columns are; values come out as the texts that
PostgreSQL writes into the change stream.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from shadow.errors import UndecodableChange
from shadow.legacy.assemble import MESSAGE_PREFIX
from shadow.legacy.mapping import Mapping
from shadow.legacy.pgoutput import (
    Column,
    Delete,
    Insert,
    LogicalMessage,
    Message,
    Relation,
    Row,
    Truncate,
    Update,
)

_ROW: msgspec.json.Decoder[dict[str, msgspec.Raw]] = msgspec.json.Decoder(dict[str, msgspec.Raw])
_TEXT: msgspec.json.Decoder[str] = msgspec.json.Decoder(str)
_WORDS: dict[bytes, bytes | None] = {b"null": None, b"true": b"t", b"false": b"f"}
_NUMBERS = {"orders": 1, "fills": 2}


class Polled(NamedTuple):
    """As the table has it."""

    kind: str
    op: str
    was: bytes | None
    becomes: bytes | None


class Translator:
    """For one assembler: it remembers which columns that one has been told of."""

    def __init__(self, mapping: Mapping) -> None:
        self._names = {"orders": mapping.orders.table, "fills": mapping.fills.table}
        self._columns: dict[str, tuple[str, ...]] = {}

    def messages(self, polled: Polled) -> list[Message]:
        """Raises UndecodableChange."""
        kind, op, was, becomes = polled
        if op == "M":
            return [LogicalMessage(0, True, MESSAGE_PREFIX, becomes or b"")]
        number = _NUMBERS.get(kind)
        if number is None:
            raise UndecodableChange(f"railswitch.changes has a row of kind {kind!r}")
        if op == "T":
            told = [] if kind in self._columns else [self._relation(kind, ())]
            return [*told, Truncate((number,))]
        try:
            old = _ROW.decode(was) if was is not None else {}
            new = _ROW.decode(becomes) if becomes is not None else {}
        except msgspec.DecodeError as error:
            raise UndecodableChange(f"a row of railswitch.changes: {error}") from error
        columns = tuple(new or old)
        found: list[Message] = []
        if self._columns.get(kind) != columns:
            found.append(self._relation(kind, columns))
        if op == "I":
            found.append(Insert(number, _values(new)))
        elif op == "U":
            found.append(Update(number, _values(old), True, _values(new)))
        else:
            found.append(Delete(number, _values(old), True))
        return found

    def _relation(self, kind: str, columns: tuple[str, ...]) -> Relation:
        self._columns[kind] = columns
        schema, _, name = self._names[kind].rpartition(".")
        known = tuple(Column(column, True) for column in columns)
        return Relation(_NUMBERS[kind], schema, name, "f", known)


def _values(row: dict[str, msgspec.Raw]) -> Row:
    return tuple(_value(bytes(one)) for one in row.values())


def _value(raw: bytes) -> bytes | None:
    """
    >>> _value(b'"a"'), _value(b"1.50"), _value(b"true"), _value(b"null")
    (b'a', b'1.50', b't', None)
    """
    if raw[0] == 0x22:  # "
        return _TEXT.decode(raw).encode()
    return _WORDS.get(raw, raw)
