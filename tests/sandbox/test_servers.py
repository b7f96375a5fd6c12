"""The embedded servers: what they are configured to be, and what they survive."""

from __future__ import annotations

import psycopg


def test_a_fresh_database_is_empty(database: str) -> None:
    with psycopg.connect(database) as connection:
        assert connection.execute("SELECT count(*) FROM pg_stat_user_tables").fetchone() == (0,)


def test_x(legacy_database: str) -> None:
    with psycopg.connect(legacy_database) as connection:
        assert connection.execute("SELECT count(*) FROM orders").fetchone() == (0,)
