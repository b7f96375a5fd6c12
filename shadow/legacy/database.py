"""Connections to the monolith's database, and what its errors mean for whoever reads it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from shadow.errors import LegacyNotReady, LegacyUnavailable
from shadow.limits import CONNECT_ATTEMPTS, CONNECT_S

# Times as `rows.timestamp_us` reads them, whatever the database's or the role's defaults are.
# The server notices within half a minute that our host is gone, and frees what we hold there.
_OPTIONS = (
    "-c datestyle=ISO -c timezone=UTC"
    " -c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"
)


@asynccontextmanager
async def connected(
    url: str, *, replication: bool = False
) -> AsyncIterator[AsyncConnection[TupleRow]]:
    """An autocommitting connection, closed at the end. Raises LegacyUnavailable."""
    connection = await connect(url, replication=replication)
    try:
        yield connection
    finally:
        await connection.close()


async def connect(url: str, *, replication: bool = False) -> AsyncConnection[TupleRow]:
    """An autocommitting connection; with `replication` it also takes replication commands.

    Raises LegacyUnavailable, also for a URL that can't be read.
    """
    try:
        given = conninfo_to_dict(url)
        options = f"{given.get('options') or ''} {_OPTIONS}".strip()
        extra: dict[str, str] = {"replication": "database"} if replication else {}
        conninfo = make_conninfo(
            url, options=options, client_encoding="UTF8", connect_timeout=CONNECT_S, **extra
        )
        return await _attempted(conninfo)
    except psycopg.Error as error:
        needs = (
            "; reading changes needs a role with REPLICATION and a free one of max_wal_senders"
            if replication
            else "; is the URL right, and does the server run?"
        )
        raise LegacyUnavailable(f"connecting to {target(url)}: {_said(error)}{needs}") from error


async def _attempted(conninfo: str) -> AsyncConnection[TupleRow]:
    """Once more when the socket breaks while it is being opened: nothing has been asked yet."""
    for _ in range(CONNECT_ATTEMPTS - 1):
        try:
            return await AsyncConnection.connect(conninfo, autocommit=True)
        except psycopg.OperationalError as error:
            if not isinstance(error.__cause__, OSError):
                raise  # the server said no
    return await AsyncConnection.connect(conninfo, autocommit=True)


@contextmanager
def translated(url: str, doing: str) -> Iterator[None]:
    """psycopg's errors as ours; `doing` begins the message."""
    try:
        yield
    except psycopg.ProgrammingError as error:
        raise LegacyNotReady(
            f"{doing} {target(url)}: {_said(error)}; `railswitch legacy install` makes and grants"
            " what is ours, `[mapping]` names what is the monolith's"
        ) from error
    except psycopg.Error as error:
        raise LegacyUnavailable(f"{doing} {target(url)}: {_said(error)}") from error


def target(url: str) -> str:
    """The database of a URL for messages, without its password."""
    try:
        given = conninfo_to_dict(url)
    except psycopg.Error:
        return "the legacy database (its URL can't be read)"
    place = f"{given.get('host') or 'local socket'}:{given.get('port') or 5432}"
    return f"database {given.get('dbname') or ''} at {place} as {given.get('user') or 'default'}"


def table(name: str) -> sql.Identifier:
    """A table of the mapping, with its schema if it was given."""
    return sql.Identifier(*name.split("."))


def literals(values: Iterable[str]) -> sql.Composed:
    """For IN (…): untyped, so that an index on the column serves, whatever its type."""
    return sql.SQL(", ").join(sql.Literal(value) for value in values)


def parse_lsn(text: str) -> int:
    """
    >>> parse_lsn("16/B374D848") == 0x16B374D848
    True
    """
    high, _, low = text.partition("/")
    return int(high, 16) << 32 | int(low, 16)


def format_lsn(lsn: int) -> str:
    return f"{lsn >> 32:X}/{lsn & 0xFFFFFFFF:X}"


def _said(error: psycopg.Error) -> str:
    said = error.diag.message_primary or str(error) or type(error).__name__
    return " ".join(said.split()).rstrip(".")
