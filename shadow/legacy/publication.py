"""The publication that says what of the monolith's changes is in the stream.

The server decides by the publication as it was when a row was written. What a table wrote while it
was left out never comes, and nothing in the stream says so: therefore a publication that is not the
same any more counts as a loss, also when it is as it must be again.
"""

from __future__ import annotations

from typing import Any

from psycopg import AsyncConnection
from psycopg.rows import TupleRow

from shadow.errors import ChangesLost, LegacyNotReady
from shadow.legacy.database import table
from shadow.legacy.mapping import Mapping
from shadow.legacy.rows import fill_columns, order_columns

# `age` of a row of the catalogue turns negative 2^31 transactions after it was written.
_ROWS = """
    WITH found AS (SELECT oid, xmin FROM pg_publication WHERE pubname = %s)
    SELECT c.name, c.number || ':' || c.xmin, age(c.xmin) BETWEEN 0 AND age(s.catalog_xmin)
    FROM (
        SELECT '' AS name, 'p' || oid AS number, xmin FROM found UNION ALL
        SELECT pr.prrelid::regclass::text, 't' || pr.oid, pr.xmin
        FROM pg_publication_rel pr JOIN found p ON p.oid = pr.prpubid
        WHERE pr.prrelid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)) c
    LEFT JOIN pg_replication_slots s ON s.slot_name = %s ORDER BY 1"""


class Published:
    """The rows of the catalogue that a slot is read with, as long as this process lives. Of a slot
    that another process has made it is asked whether they are older than what it has come to.
    """

    def __init__(self) -> None:
        self.rows: frozenset[str] = frozenset()


async def note_published(
    connection: AsyncConnection[TupleRow], publication: str, mapping: Mapping, published: Published
) -> None:
    """Before a slot is made: whatever comes later is a change."""
    rows = await _rows(connection, "", publication, mapping)
    published.rows = frozenset(row for _, row, _ in rows)


async def require_unchanged(
    connection: AsyncConnection[TupleRow],
    slot: str,
    publication: str,
    mapping: Mapping,
    published: Published,
) -> None:
    """Raises ChangesLost where something has been left out for a time."""
    rows = await _rows(connection, slot, publication, mapping)
    known = published.rows
    changed = [name for name, row, young in rows if (row not in known if known else young)]
    if changed:
        tables = ", ".join(filter(None, changed))
        what = f"{tables} came into publication {publication}"
        raise ChangesLost(
            f"{what if tables else f'publication {publication} was changed'} after replication"
            f" slot {slot} was last read: the table was made again, or the publication was. What"
            " was written before is not in the stream; drop the slot and load all instruments"
            " again",
            slot_lsn=0,
        )
    published.rows = frozenset(row for _, row, _ in rows)


async def _rows(
    connection: AsyncConnection[TupleRow], slot: str, publication: str, mapping: Mapping
) -> list[TupleRow]:
    """(table, "" for the publication itself; what tells the row from others; younger than what
    the slot has come to).
    """
    tables = [table(one).as_string() for one in (mapping.orders.table, mapping.fills.table)]
    cursor = await connection.execute(_ROWS, [publication, tables, slot])
    return await cursor.fetchall()


async def require_published(
    connection: AsyncConnection[TupleRow], publication: str, mapping: Mapping
) -> None:
    """Raises LegacyNotReady where it leaves something out that the mapping names."""
    install = "`railswitch legacy install --execute` makes it as it must be"
    cursor = await connection.execute(
        "SELECT pubinsert AND pubupdate AND pubdelete FROM pg_publication WHERE pubname = %s",
        [publication],
    )
    row = await cursor.fetchone()
    if row is None:
        raise LegacyNotReady(f"publication {publication} does not exist: {install}")
    if not row[0]:
        raise LegacyNotReady(
            f"publication {publication} leaves out inserts, updates or deletes: {install}"
        )
    # As JSON: PostgreSQL 14 has neither row filters nor column lists.
    cursor = await connection.execute(
        "SELECT to_jsonb(t) FROM pg_publication_tables t WHERE pubname = %s", [publication]
    )
    published = [row[0] async for row in cursor]
    orders, fills = mapping.orders, mapping.fills
    for key, name, columns in (
        ("orders", orders.table, order_columns(orders)),
        ("fills", fills.table, fill_columns(fills)),
    ):
        schema, _, plain = name.rpartition(".")
        found = [
            one
            for one in published
            if one["tablename"] == plain and schema in ("", one["schemaname"])
        ]
        lack = _lack(found[0], columns, f"of {name} that mapping.{key} names") if found else name
        if lack:
            raise LegacyNotReady(f"publication {publication} does not hold {lack}: {install}")


def _lack(published: dict[str, Any], columns: tuple[str, ...], whose: str) -> str:
    """What of a published table the change stream would not show; "" for nothing."""
    if published.get("rowfilter"):
        return f"all rows {whose}, for it has a filter, which makes the monolith's updates fail too"
    missing = set(columns) - set(published.get("attnames") or columns)
    return f"the columns {', '.join(sorted(missing))} {whose}" if missing else ""
