"""What moves in the database now: transactions that hold others up, ids, rows, accounts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

from bridge import accounts_seen, writeback_sql
from bridge.accounts_seen import coarse_columns
from bridge.diagnosis.asking import AREA, INSTALL, WRITER_ROLE, Legacy, one_line, quoted
from bridge.diagnosis.finding import Area, Finding, Level
from bridge.errors import BridgeError
from bridge.funds import trials
from bridge.limits import CONNECT_S
from bridge.mapping_check import check
from shadow.errors import ShadowError
from shadow.legacy.audit_types import Oddity, Weight
from shadow.legacy.convert import scales
from shadow.legacy.database import table as identifier
from shadow.legacy.symbols import resolved
from shadow.limits import AUDIT_ORDERS_DOCTOR

MAPPING = Area("mapping")


def _old_transactions(legacy: Legacy) -> Iterator[Finding]:
    if not legacy.sees_others:
        yield AREA.warn(
            "old transactions",
            "not visible",
            "doctor can't say beforehand what would hold a flip up; the flip itself can",
            f"GRANT pg_read_all_stats TO {WRITER_ROLE}",
        )
        return
    limit_ms = legacy.config.flip.old_transaction_ms_max
    rows = legacy.rows(
        "SELECT pid, usename, extract(epoch FROM clock_timestamp() - xact_start)::float8,"
        " application_name, state, to_char(query_start AT TIME ZONE 'UTC', 'HH24:MI:SS')"
        " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()"
        " AND xact_start < clock_timestamp() - make_interval(secs => %s) ORDER BY xact_start",
        limit_ms / 1000,
    )
    if not rows:
        yield AREA.ok("old transactions", f"none over {limit_ms} ms")
        return
    pid, user, age_s, application, state, since = rows[0]
    of = f"{user}, {application}" if application else user
    more = f"; {len(rows) - 1} more" if len(rows) > 1 else ""
    yield AREA.warn(
        "old transactions",
        f"pid {pid} ({of}) has been writing for {age_s:.1f} s; {state}, its last statement began"
        f" at {since} UTC{more}",
        "a load and a flip wait for it, and are refused while it is open",
        f"let it end, or SELECT pg_terminate_backend({pid})",
    )


def _prepared_transactions(legacy: Legacy) -> Iterator[Finding]:
    rows = legacy.rows(
        "SELECT gid, owner, extract(epoch FROM now() - prepared)::float8 FROM pg_prepared_xacts"
        " WHERE database = current_database() ORDER BY prepared"
    )
    limit_s = legacy.config.flip.old_transaction_ms_max / 1000
    for gid, owner, age_s in rows:
        if age_s >= limit_s:
            literal = sql.Literal(gid).as_string(legacy.connection)
            yield AREA.warn(
                "prepared transactions",
                f"{gid} of {owner}, prepared {age_s:.0f} s ago",
                "no slot can be made and no flip begun until somebody ends it: it survives"
                " restarts",
                f"ask its owner, then COMMIT PREPARED {literal} or ROLLBACK PREPARED {literal}",
            )


def _order_ids(legacy: Legacy) -> Iterator[Finding]:
    """The sequence gives the ids of live orders: it must be ahead of the table."""
    orders = legacy.mapping.orders
    if orders.id.form != "integer" or not legacy.exists(orders.table):
        return
    if not legacy.exists(orders.id_sequence):
        return  # told with the privileges
    sequence, table = quoted(orders.id_sequence), quoted(orders.table)
    if not legacy.value("SELECT has_sequence_privilege(%s, 'USAGE, SELECT')", sequence):
        return  # told with the privileges; the server says of such a one that it was never used
    query = sql.SQL("SELECT max({}) FROM {}").format(
        sql.Identifier(orders.id.column), identifier(orders.table)
    )
    found = legacy.connection.execute(query).fetchone()
    highest = int(found[0]) if found and found[0] is not None else 0
    last = legacy.value("SELECT pg_sequence_last_value(%s::regclass)", sequence)
    yield AREA.judge(
        (last or 0) >= highest,
        "order ids",
        f"{orders.id_sequence} at {last or 'its start'}, the highest id is {highest}",
        "new orders, the monolith's and live ones, get ids that are taken: their inserts fail",
        # Never back: rows that are being written, or were deleted, have had higher ids.
        f"SELECT setval('{sequence}', greatest((SELECT max({quoted(orders.id.column)}) FROM"
        f" {table}), (SELECT last_value FROM {sequence})))",
    )


def _write_back(legacy: Legacy) -> Iterator[Finding]:
    """Could its statements be made for these tables? Nothing is written."""
    if len(legacy.existing) < len(legacy.tables):
        return
    try:
        asyncio.run(_prepared(legacy))
    except (BridgeError, ShadowError) as error:
        yield AREA.warn(
            "write-back",
            str(error),
            "an instrument can be shadowed, but not flipped",
            "give such columns a value with `write`, or a default: ALTER TABLE ... ALTER COLUMN ..."
            " SET DEFAULT",
        )
    else:
        yield AREA.ok("write-back", "every column it needs can be written")


async def _prepared(legacy: Legacy) -> None:
    url = legacy.config.legacy.database_url
    mapping = await resolved(url, legacy.mapping)
    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, connect_timeout=int(CONNECT_S), row_factory=dict_row
    )
    async with connection, connection.cursor() as cursor:
        await writeback_sql.prepare(cursor, mapping, scales(legacy.config.instruments).values())


def _funds(legacy: Legacy) -> Iterator[Finding]:
    mapping = legacy.mapping
    if len(legacy.existing) < len(legacy.tables):
        return
    seen = accounts_seen.told(accounts_seen.look(legacy.connection, mapping))
    if not mapping.funds:
        yield AREA.warn(
            "funds",
            f"mapping.funds is not said; {seen or 'no table that orders change was seen'}",
            "no instrument can be flipped",
            'say mapping.funds = "legacy" where orders lock money in accounts, "none" where not',
        )
    elif mapping.funds == "none" and seen:
        yield AREA.warn(
            "funds",
            f'mapping.funds = "none"; but {seen}',
            "once live, the engine would take orders that nobody has the money for",
            'mapping.funds = "legacy", with the statements of [mapping.accounts]; where we may not'
            f" read it: GRANT SELECT on it to {WRITER_ROLE}, and look again",
        )
    else:
        yield AREA.ok("funds", f'mapping.funds = "{mapping.funds}"' + (f"; {seen}" if seen else ""))


def _statements_of_funds(legacy: Legacy) -> Iterator[Finding]:
    accounts = legacy.mapping.accounts
    if legacy.mapping.funds != "legacy":
        return
    for name, query, values in trials(accounts):
        try:
            legacy.connection.execute(query, values)
        except psycopg.Error as error:
            yield AREA.fail(
                f"mapping.accounts.{name}",
                one_line(error),
                "no instrument can be flipped: money could not be locked, or not be freed",
                f"correct the statement, or grant what is missing: {INSTALL} does for the tables "
                "that mapping.accounts.table and .others name",
            )
    for column, digits in coarse_columns(legacy.connection, accounts.table, legacy.config):
        yield AREA.warn(
            f"mapping.accounts.table {accounts.table}",
            f"{column} keeps {digits} digits after the point",
            "a price times a quantity has more, and PostgreSQL rounds it: money would not add up",
            f"round in the statements as the monolith does, or widen {column}",
        )


def _mapping(legacy: Legacy) -> Iterator[Finding]:
    """What `railswitch mapping check` finds in a few of the newest orders."""
    if len(legacy.existing) < len(legacy.tables):
        return
    try:
        found = asyncio.run(check(legacy.config, last=AUDIT_ORDERS_DOCTOR, statement_s=CONNECT_S))
    except (BridgeError, ShadowError) as error:
        next_step = "mend what it says, then `railswitch mapping check`"
        yield MAPPING.fail("rows", str(error), "the newest orders were not read", next_step)
        return
    if not found.oddities:
        yield MAPPING.ok("rows", f"the last {found.orders} orders and {found.fills} fills add up")
    yield from map(_finding, found.oddities)


def _finding(one: Oddity) -> Finding:
    rows = f" ({', '.join(one.rows)})" if one.rows else ""
    return Finding(
        area=MAPPING.name,
        check=f"{one.check}, {one.key}",
        level=Level.FAIL if one.weight is Weight.PROBLEM else Level.WARN,
        seen=one.seen + rows,
        consequence=one.consequence,
        next_step=f"{one.next_step}; more with `railswitch mapping check`",
    )


CHECKS = (
    _old_transactions,
    _prepared_transactions,
    _order_ids,
    _write_back,
    _funds,
    _statements_of_funds,
    _mapping,
)
