"""Is the monolith's database as shadowing, the fence and write-back need it? Reads catalogues, and
through the mapping a few of the newest rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import psycopg

from bridge.config import Config
from bridge.diagnosis import (
    legacy_data,
    legacy_privileges,
    legacy_published,
    legacy_server,
    legacy_slot,
    legacy_tables,
    legacy_wal,
)
from bridge.diagnosis.asking import AREA, CREATE_ROLE, INSTALL, Legacy, one_line
from bridge.diagnosis.finding import Finding
from bridge.limits import CONNECT_S

_CHECKS: tuple[Callable[[Legacy], Iterator[Finding]], ...] = (
    *legacy_server.CHECKS,
    *legacy_privileges.CHECKS,
    *legacy_tables.CHECKS,
    *legacy_published.CHECKS,
    *legacy_slot.CHECKS,
    *legacy_wal.CHECKS,
    *legacy_data.CHECKS,
)


def legacy_findings(config: Config) -> Iterator[Finding]:
    try:
        connection = psycopg.connect(
            config.legacy.database_url, autocommit=True, connect_timeout=int(CONNECT_S)
        )
    except psycopg.Error as error:
        yield AREA.fail(
            "reachable",
            one_line(error),
            "nothing can be shadowed or written back",
            "check legacy.database_url, that the server listens there, and pg_hba.conf; the role,"
            f" where there is none yet: {CREATE_ROLE}",
        )
        return
    with connection:
        legacy = Legacy(connection, config)
        connection.execute(f"SET statement_timeout = '{CONNECT_S:g}s'")
        yield AREA.ok("reachable", f"{connection.info.dbname} at {connection.info.host}")
        for check in _CHECKS:
            yield from _guarded(check, legacy)


def _guarded(check: Callable[[Legacy], Iterator[Finding]], legacy: Legacy) -> Iterator[Finding]:
    name = check.__name__.removeprefix("_").replace("_", " ")
    try:
        yield from check(legacy)
    except psycopg.errors.InsufficientPrivilege as error:
        yield AREA.fail(
            name, one_line(error), "not checked", f"first what `privileges` says: {INSTALL}"
        )
    except psycopg.Error as error:
        yield AREA.fail(
            name, one_line(error), "not checked", "mend what it says, then doctor again"
        )
