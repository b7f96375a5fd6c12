"""What was seen of a database: its tables, and a look at some of their rows. Plain values."""

from __future__ import annotations

from typing import Literal

import msgspec

Kind = Literal[
    "integer", "numeric", "float", "text", "uuid", "boolean", "timestamp", "timestamptz", "other"
]
Row = dict[str, str | None]  # PostgreSQL's text of each value


class Column(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    kind: Kind
    type: str  # as PostgreSQL writes it
    nullable: bool = True
    default: str = ""
    comment: str = ""
    labels: tuple[str, ...] = ()  # all values it can have, where its type or a CHECK says them


class ForeignKey(msgspec.Struct, frozen=True, kw_only=True):
    column: str
    table: str  # as `Table.name`
    key: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    newest: tuple[Row, ...] = ()  # by primary key, newest first, none left out between them
    others: tuple[Row, ...] = ()  # from anywhere in the table
    whole: bool = False  # `newest` is all there is
    failure: str = ""  # why rows that were asked for are not here

    @property
    def rows(self) -> tuple[Row, ...]:
        return self.newest + self.others


class Table(msgspec.Struct, frozen=True, kw_only=True):
    schema: str
    bare: str  # its name without the schema
    visible: bool = True  # found without naming the schema
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()  # primary key
    foreign: tuple[ForeignKey, ...] = ()
    sequence: str = ""  # that the primary key comes from
    rows: int = 0  # about
    readable: bool = True
    sample: Sample = Sample()

    @property
    def name(self) -> str:
        """As `railswitch.toml` names it."""
        return self.bare if self.visible else f"{self.schema}.{self.bare}"

    def column(self, name: str) -> Column | None:
        return next((one for one in self.columns if one.name == name), None)

    def refers(self, column: str) -> ForeignKey | None:
        return next((one for one in self.foreign if one.column == column), None)

    def values(self, column: str) -> tuple[str, ...]:
        """Those seen, each once, in the order of the sample; NULL is left out."""
        seen = (row.get(column) for row in self.sample.rows)
        return tuple(dict.fromkeys(value for value in seen if value is not None))


class Database(msgspec.Struct, frozen=True, kw_only=True):
    tables: tuple[Table, ...]
    # Rows of the orders table that the fills seen speak of, beside its own sample.
    linked: tuple[Row, ...] = ()
    read_at_us: int = 0  # by the database's clock; 0: not known

    def table(self, name: str) -> Table | None:
        return next(
            (one for one in self.tables if name in (one.name, f"{one.schema}.{one.bare}")), None
        )
