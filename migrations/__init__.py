"""The control store's schema, as Alembic migrations: PostgreSQL, schema `railswitch`, ours alone.

There is no ini file: `upgrade` is the only way in, and it says everything that Alembic must know.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

SCHEMA = "railswitch"

# One migration at a time, whichever process begins it; the number is ours alone in this database.
_LOCK_KEY = 0x5257_4D49_4752

_CONNECT_S = 10


class MigrationFailed(Exception):
    """The control store could not be brought to this version's schema; it is as it was before."""


def upgrade(url: str, revision: str = "head") -> None:
    """Creates the schema if need be and brings it to `revision`. Blocks; does nothing when it is
    there.

    Raises MigrationFailed.
    """
    with _connected(url) as connection:
        command.upgrade(_config(connection), revision)


def downgrade(url: str, revision: str) -> None:
    """Takes the schema back; "base" removes it with all that it holds. Raises MigrationFailed."""
    with _connected(url) as connection:
        command.downgrade(_config(connection), revision)


def head() -> str:
    """The revision that this version of the code needs."""
    return ScriptDirectory.from_config(_config(None)).get_current_head() or ""


def _config(connection: Connection | None) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    return config


@contextmanager
def _connected(url: str) -> Iterator[Connection]:
    """One transaction, alone: what fails in it leaves nothing behind."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, connect_timeout=_CONNECT_S),
        poolclass=NullPool,
    )
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
            yield connection
    except (DBAPIError, psycopg.Error) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        raise MigrationFailed(
            f"the control store can't be migrated: {str(cause).strip()}. Check "
            "control.database_url, "
            "and that its role may create a schema in that database"
        ) from error
    except CommandError as error:
        raise MigrationFailed(
            f"the control store is at a revision that this version does not know: {error}. "
            "Run the version of railswitch that wrote it, or a newer one"
        ) from error
    finally:
        engine.dispose()
