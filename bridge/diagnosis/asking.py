"""A connection to the monolith's database, and short ways to ask it."""

from __future__ import annotations

from typing import Any

import psycopg

from bridge.config import Config
from bridge.diagnosis.finding import Area
from shadow.legacy.database import table as identifier
from shadow.legacy.mapping import FillsTable, Mapping, OrdersTable

AREA = Area("legacy")
WRITER_ROLE = "railswitch"  # the fence recognises our own writer by this name
CREATE_ROLE = (
    f"CREATE ROLE {WRITER_ROLE} LOGIN REPLICATION PASSWORD '...' (on RDS: without REPLICATION, and"
    f" GRANT rds_replication TO {WRITER_ROLE})"
)
INSTALL = "`railswitch legacy install --execute`"


class Legacy:
    def __init__(self, connection: psycopg.Connection[Any], config: Config) -> None:
        self.connection = connection
        self.config = config
        self.mapping: Mapping = config.mapping
        self.version: int = connection.info.server_version  # 150004: 15.4

    @property
    def polls(self) -> bool:
        return self.config.legacy.changes == "poll"

    def value(self, query: str, *parameters: Any) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        return row[0] if row else None

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        return self.connection.execute(query, parameters).fetchall()

    @property
    def tables(self) -> tuple[OrdersTable | FillsTable, ...]:
        return (self.mapping.orders, self.mapping.fills)

    def exists(self, name: str) -> bool:
        return self.value("SELECT to_regclass(%s)", quoted(name)) is not None

    def hidden_in(self, name: str) -> str:
        """The schema where a table or sequence is that we can't reach by name; "" for none."""
        found = self.value(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relname = %s AND NOT has_schema_privilege(n.oid, 'USAGE') LIMIT 1",
            name.rpartition(".")[2],
        )
        return str(found or "")

    def setting(self, name: str) -> str:
        """As a new session of ours has it; "" for one that this server does not know."""
        found = self.value("SELECT reset_val FROM pg_settings WHERE name = %s", name)
        return "" if found is None else str(found)

    @property
    def existing(self) -> tuple[OrdersTable | FillsTable, ...]:
        return tuple(table for table in self.tables if self.exists(table.table))

    @property
    def sees_others(self) -> bool:
        """What sessions of other roles do is shown to us."""
        return bool(self.value("SELECT pg_has_role(session_user, 'pg_read_all_stats', 'USAGE')"))


def quoted(name: str) -> str:
    """A table of the mapping as SQL has it."""
    return identifier(name).as_string()


def mib(size: float | None) -> str:
    """
    >>> mib(3 << 20), mib(5 << 30)
    ('3 MiB', '5.0 GiB')
    """
    mebibytes = (size or 0) / 2**20
    return f"{mebibytes:.0f} MiB" if mebibytes < 1024 else f"{mebibytes / 1024:.1f} GiB"


def one_line(error: Exception) -> str:
    return " ".join(str(error).split())
