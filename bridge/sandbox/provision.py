"""Makes the sandbox exchange's database: the two roles, the tables, its markets and members.

What a monolith's own people have long done before railswitch comes. It grants railswitch's role
nothing but LOGIN and REPLICATION: the rest is `railswitch legacy install`'s business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import psycopg
from psycopg import sql

from bridge.errors import StartFailed

APPLICATION_ROLE = "exchange"
RAILSWITCH_ROLE = "railswitch"


class Market(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    name: str
    tick: str  # decimal
    lot: str  # decimal


# The same as in the railswitch.toml beside this file.
MARKETS = (
    Market(symbol="BTC-USD", name="Bitcoin / US dollar", tick="0.01", lot="0.00000001"),
    Market(symbol="ETH-USD", name="Ether / US dollar", tick="0.01", lot="0.00000001"),
    Market(symbol="SOL-USD", name="Solana / US dollar", tick="0.001", lot="0.0001"),
)


def as_role(url: str, role: str) -> str:
    """The same database, connected to as another role.

    >>> as_role("postgresql://postgres@127.0.0.1:5432/exchange", "railswitch")
    'postgresql://railswitch@127.0.0.1:5432/exchange'
    """
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=f"{role}@{host}").geturl()


def provision(
    admin_url: str,
    *,
    database: str = "exchange",
    markets: Sequence[Market] = MARKETS,
    members: int = 100,
) -> str:
    """Creates what is missing and leaves the rest as it is. Returns the application's URL.

    `admin_url` names any database of the server, as a superuser. Members are numbered from 1.
    Raises StartFailed.
    """
    database_url = urlsplit(admin_url)._replace(path=f"/{database}").geturl()
    application_url = as_role(database_url, APPLICATION_ROLE)
    try:
        with psycopg.connect(admin_url, autocommit=True) as connection:
            _create_role(connection, APPLICATION_ROLE, "LOGIN")
            _create_role(connection, RAILSWITCH_ROLE, "LOGIN REPLICATION")
            _create_database(connection, database)
        with psycopg.connect(application_url) as connection:
            _create_tables(connection)
            _fill(connection, markets, members)
    except psycopg.Error as error:
        raise StartFailed(f"can't make the sandbox's database {database}: {error}") from error
    return application_url


def _create_role(connection: psycopg.Connection, role: str, options: str) -> None:
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role]).fetchone() is None:
        statement = sql.SQL("CREATE ROLE {} " + options)
        connection.execute(statement.format(sql.Identifier(role)))


def _create_database(connection: psycopg.Connection, database: str) -> None:
    found = connection.execute("SELECT FROM pg_database WHERE datname = %s", [database])
    if found.fetchone() is None:
        statement = sql.SQL("CREATE DATABASE {} OWNER {}")
        connection.execute(
            statement.format(sql.Identifier(database), sql.Identifier(APPLICATION_ROLE))
        )


def _create_tables(connection: psycopg.Connection) -> None:
    if connection.execute("SELECT to_regclass('orders')").fetchone() == (None,):
        schema = Path(__file__).with_name("schema.sql").read_bytes()
        connection.execute(schema)


def _fill(connection: psycopg.Connection, markets: Sequence[Market], members: int) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO markets (id, name, tick_size, lot_size) VALUES (%s, %s, %s, %s)"
            " ON CONFLICT (id) DO NOTHING",
            [(market.symbol, market.name, market.tick, market.lot) for market in markets],
        )
    connection.execute(
        "INSERT INTO members (id, email)"
        " SELECT n, 'member' || n || '@example.com' FROM generate_series(1, %s) n"
        " ON CONFLICT DO NOTHING",
        [members],
    )
    connection.execute("SELECT setval('members_id_seq', max(id)) FROM members")
