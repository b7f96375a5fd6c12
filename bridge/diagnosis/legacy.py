"""Is the monolith's database as shadowing, the fence and write-back need it? Reads catalogues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
from psycopg import sql

from bridge.config import Config
from bridge.diagnosis.finding import Area, Finding
from bridge.limits import CONNECT_S
from shadow.legacy.mapping import FillsTable, Mapping, OrdersTable

AREA = Area("legacy")
WRITER_ROLE = "railswitch"  # the fence recognises our own writer by this name
SERVER_VERSION_MIN = 140000  # the first whose change stream carries our markers

_INSTALL = "`railswitch legacy install --execute`"


class _Legacy:
    """A connection, and short ways to ask it."""

    def __init__(self, connection: psycopg.Connection[Any], config: Config) -> None:
        self.connection = connection
        self.config = config
        self.mapping: Mapping = config.mapping

    def value(self, query: str, *parameters: Any) -> Any:
        row = self.connection.execute(query, parameters).fetchone()
        return row[0] if row else None

    def rows(self, query: str, *parameters: Any) -> list[Any]:
        return self.connection.execute(query, parameters).fetchall()

    @property
    def tables(self) -> tuple[OrdersTable | FillsTable, ...]:
        return (self.mapping.orders, self.mapping.fills)


def legacy_findings(config: Config) -> Iterator[Finding]:
    try:
        connection = psycopg.connect(
            config.legacy.database_url, autocommit=True, connect_timeout=int(CONNECT_S)
        )
    except psycopg.Error as error:
        yield AREA.fail(
            "reachable",
            _one_line(error),
            "nothing can be shadowed or written back",
            "check legacy.database_url, that the server listens there, and pg_hba.conf",
        )
        return
    with connection:
        legacy = _Legacy(connection, config)
        connection.execute(f"SET statement_timeout = '{CONNECT_S:g}s'")
        yield AREA.ok("reachable", f"{connection.info.dbname} at {connection.info.host}")
        for check in _CHECKS:
            yield from _guarded(check, legacy)


def _guarded(check: Callable[[_Legacy], Iterator[Finding]], legacy: _Legacy) -> Iterator[Finding]:
    name = check.__name__.removeprefix("_").replace("_", " ")
    try:
        yield from check(legacy)
    except psycopg.Error as error:
        yield AREA.fail(name, _one_line(error), "not checked", "see the message")


def _server(legacy: _Legacy) -> Iterator[Finding]:
    version = legacy.connection.info.server_version
    yield AREA.judge(
        version >= SERVER_VERSION_MIN,
        "version",
        f"PostgreSQL {version // 10000}",
        "the change stream can't carry the flip's marker: no instrument can be flipped",
        "upgrade the server to PostgreSQL 14 or later",
    )
    level = legacy.value("SHOW wal_level")
    yield AREA.judge(
        level == "logical",
        "wal_level",
        level,
        "no change stream: nothing can be shadowed",
        "ALTER SYSTEM SET wal_level = 'logical'; then restart the server in a quiet hour",
    )


def _role(legacy: _Legacy) -> Iterator[Finding]:
    name, replicates = legacy.rows(
        "SELECT rolname, rolreplication OR rolsuper FROM pg_roles WHERE rolname = session_user"
    )[0]
    yield AREA.judge(
        name == WRITER_ROLE,
        "role",
        name,
        "the fence would refuse our own write-back",
        f"let legacy.database_url log in as {WRITER_ROLE}",
    )
    if not replicates and legacy.value("SELECT to_regrole('rds_replication')") is not None:
        replicates = legacy.value("SELECT pg_has_role(session_user, 'rds_replication', 'MEMBER')")
    yield AREA.judge(
        bool(replicates),
        "replication",
        "permitted" if replicates else "not permitted",
        "no change stream: nothing can be shadowed",
        f"ALTER ROLE {name} REPLICATION (on RDS: GRANT rds_replication TO {name})",
    )


def _tables(legacy: _Legacy) -> Iterator[Finding]:
    for table in legacy.tables:
        if legacy.value("SELECT to_regclass(%s)", table.table) is None:
            yield AREA.fail(
                f"table {table.table}",
                "does not exist",
                "nothing can be shadowed",
                "correct mapping.orders.table or mapping.fills.table, or give it with its schema",
            )
            continue
        yield from _columns(legacy, table)
        yield _identity(legacy, table.table)


def _columns(legacy: _Legacy, table: OrdersTable | FillsTable) -> Iterator[Finding]:
    types: dict[str, str] = dict(
        legacy.rows(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            table.table,
        )
    )
    missing = sorted(_mapped_columns(table) - set(types))
    yield AREA.judge(
        not missing,
        f"columns of {table.table}",
        f"no {', '.join(missing)}" if missing else f"{len(_mapped_columns(table))} mapped",
        "its rows can't be read",
        f"correct the mapping; the table has {', '.join(sorted(types))}",
    )
    inexact = [
        column
        for column in (table.price, table.quantity)
        if types.get(column) in ("real", "double precision", "money")
    ]
    if inexact:
        yield AREA.fail(
            f"numbers of {table.table}",
            f"{', '.join(inexact)}: {types[inexact[0]]}",
            "binary fractions are not exact: orders will be uncomparable",
            "the monolith needs numeric or integer columns for prices and quantities",
        )


def _mapped_columns(table: OrdersTable | FillsTable) -> set[str]:
    common = {table.id, table.symbol, table.price, table.quantity, table.created_at}
    if isinstance(table, FillsTable):
        own = {table.maker_order, table.taker_order, table.taker_side.column}
    else:
        enumerated = (table.side, table.ord_type, table.tif, table.status)
        own = {table.account, table.leaves, table.lock_version, *table.priority}
        own |= {one.column for one in enumerated}
    return (common | own | {table.updated_at}) - {""}


def _identity(legacy: _Legacy, table: str) -> Finding:
    identity, has_key = legacy.rows(
        "SELECT relreplident::text, EXISTS (SELECT 1 FROM pg_index"
        " WHERE indrelid = c.oid AND indisprimary) FROM pg_class c WHERE oid = %s::regclass",
        table,
    )[0]
    good = identity == "f" or (identity == "d" and has_key)
    seen = {"d": "primary key" if has_key else "no primary key", "f": "full", "n": "nothing"}
    return AREA.judge(
        good,
        f"identity of {table}",
        seen.get(identity, "an index"),
        "publishing it would break the monolith's own UPDATE and DELETE",
        f"give {table} a primary key, with REPLICA IDENTITY DEFAULT",
    )


def _privileges(legacy: _Legacy) -> Iterator[Finding]:
    orders, fills = legacy.mapping.orders, legacy.mapping.fills
    fill_sequence = legacy.value("SELECT pg_get_serial_sequence(%s, %s)", fills.table, fills.id)
    wanted = [
        *(("table", orders.table, right) for right in ("SELECT", "INSERT", "UPDATE")),
        *(("table", fills.table, right) for right in ("SELECT", "INSERT")),
        ("sequence", orders.id_sequence, "USAGE"),
        *([("sequence", fill_sequence, "USAGE")] if fill_sequence else []),
    ]
    if legacy.value("SELECT to_regclass(%s)", orders.id_sequence) is None:
        yield AREA.fail(
            "order ids",
            f"no sequence {orders.id_sequence}",
            "live orders can't get ids: no instrument can be flipped",
            "correct mapping.orders.id_sequence",
        )
        return
    lacking = [
        (kind, name, right)
        for kind, name, right in wanted
        if not legacy.value(f"SELECT has_{kind}_privilege(%s, %s)", name, right)
    ]
    kind, name, right = lacking[0] if lacking else wanted[0]
    yield AREA.judge(
        not lacking,
        "privileges",
        ", ".join(f"no {right} on {name}" for _, name, right in lacking) or "read and write back",
        "an instrument can be shadowed at most: write-back could not follow a flip"
        if right != "SELECT"
        else "its rows can't be read",
        "`railswitch legacy install --execute` grants what is missing; by hand: "
        f"GRANT {right} ON {kind.upper()} {name} TO {WRITER_ROLE}",
    )


def _publication(legacy: _Legacy) -> Iterator[Finding]:
    name = legacy.config.legacy.publication
    row = legacy.rows(
        "SELECT puballtables, pubinsert AND pubupdate AND pubdelete FROM pg_publication"
        " WHERE pubname = %s",
        name,
    )
    if not row:
        yield AREA.fail(
            "publication", f"no {name}", "no change stream: nothing can be shadowed", _INSTALL
        )
        return
    published = {
        one[0]
        for one in legacy.rows(
            "SELECT format('%%I.%%I', schemaname, tablename)::regclass::text"
            " FROM pg_publication_tables WHERE pubname = %s",
            name,
        )
    }
    wanted = {
        legacy.value("SELECT %s::regclass::text", table.table)
        for table in legacy.tables
        if legacy.value("SELECT to_regclass(%s)", table.table)
    }
    missing = sorted(wanted - published)
    yield AREA.judge(
        not missing and row[0][1],
        "publication",
        f"{name} lacks {', '.join(missing) or 'inserts, updates or deletes'}"
        if missing or not row[0][1]
        else f"{name}: {', '.join(sorted(published))}",
        "changes are missing from the stream",
        f"`railswitch legacy uninstall --execute`, then {_INSTALL}",
    )
    yield from _publication_filters(legacy, name)


def _publication_filters(legacy: _Legacy, name: str) -> Iterator[Finding]:
    if legacy.connection.info.server_version < 150000:
        return  # neither row filters nor column lists before PostgreSQL 15
    filtered = legacy.rows(
        "SELECT prrelid::regclass::text FROM pg_publication_rel r"
        " JOIN pg_publication p ON p.oid = r.prpubid"
        " WHERE pubname = %s AND (prqual IS NOT NULL OR prattrs IS NOT NULL)",
        name,
    )
    if filtered:
        tables = ", ".join(one[0] for one in filtered)
        yield AREA.fail(
            "publication filters",
            f"a row filter or column list on {tables}",
            "it hides changes, and can break the monolith's own UPDATEs",
            f"ALTER PUBLICATION {name} SET TABLE {tables}",
        )


def _fence(legacy: _Legacy) -> Iterator[Finding]:
    installed = {
        one[0]
        for one in legacy.rows(
            "SELECT tgrelid::regclass::text FROM pg_trigger"
            " WHERE tgname = 'railswitch_guard' AND tgenabled <> 'D'"
        )
    }
    missing = [table.table for table in legacy.tables if table.table not in installed]
    missing = [
        name
        for name in missing
        if legacy.value("SELECT to_regclass(%s)::text", name) not in installed
    ]
    yield AREA.judge(
        not missing,
        "fence",
        f"no trigger on {', '.join(missing)}" if missing else "installed",
        "the monolith could write to a flipped instrument: no flip is possible",
        _INSTALL,
    )


def _slot(legacy: _Legacy) -> Iterator[Finding]:
    name = legacy.config.legacy.slot
    rows = legacy.rows(
        "SELECT plugin, active, wal_status, database = current_database(),"
        " pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint"
        " FROM pg_replication_slots WHERE slot_name = %s",
        name,
    )
    if not rows:
        yield from _free_slots(legacy, name)
        return
    plugin, active, wal_status, here, kept = rows[0]
    if not here or plugin != "pgoutput":
        yield AREA.fail(
            "slot",
            f"{name} is of another database or plugin ({plugin})",
            "no change stream: nothing can be shadowed",
            "choose another legacy.slot",
        )
        return
    seen = f"{name}, {'read now' if active else 'not read now'}, keeps {(kept or 0) >> 20} MiB"
    if wal_status == "lost":
        yield AREA.fail(
            "slot",
            f"{seen}, lost",
            "changes are gone: every instrument must be loaded again",
            f"SELECT pg_drop_replication_slot('{name}'); the shadow makes a new one and reloads",
        )
    elif wal_status in ("extended", "unreserved"):
        yield AREA.warn(
            "slot",
            f"{seen}, {wal_status}",
            "the server keeps more log than it wants to, and may drop what is unread",
            "let the shadow run and catch up; see max_slot_wal_keep_size",
        )
    else:
        yield AREA.ok("slot", seen)


def _free_slots(legacy: _Legacy, name: str) -> Iterator[Finding]:
    free = legacy.value(
        "SELECT current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots"
    )
    if free < 2:
        yield AREA.fail(
            "slot",
            f"no {name}, and {free} free of max_replication_slots",
            "the shadow needs one for its stream and one while it loads",
            "raise max_replication_slots and max_wal_senders, or drop unused slots",
        )
    else:
        yield AREA.warn(
            "slot",
            f"no {name} yet",
            "nothing is shadowed yet",
            "nothing to do: the shadow makes it when it first starts",
        )


def _old_transactions(legacy: _Legacy) -> Iterator[Finding]:
    if not legacy.value("SELECT pg_has_role(session_user, 'pg_read_all_stats', 'USAGE')"):
        yield AREA.warn(
            "old transactions",
            "not visible",
            "doctor can't say beforehand what would hold a flip up; the flip itself can",
            f"GRANT pg_read_all_stats TO {WRITER_ROLE}",
        )
        return
    limit_ms = legacy.config.flip.old_transaction_ms_max
    rows = legacy.rows(
        "SELECT pid, usename, extract(epoch FROM clock_timestamp() - xact_start)::float8"
        " FROM pg_stat_activity WHERE backend_xid IS NOT NULL AND datname = current_database()"
        " AND xact_start < clock_timestamp() - make_interval(secs => %s) ORDER BY xact_start",
        limit_ms / 1000,
    )
    if rows:
        pid, user, age_s = rows[0]
        yield AREA.warn(
            "old transactions",
            f"{len(rows)}; the oldest is pid {pid} of {user}, open for {age_s:.0f} s",
            "a flip is refused while it is open",
            f"let it end, or SELECT pg_terminate_backend({pid})",
        )
    else:
        yield AREA.ok("old transactions", f"none over {limit_ms} ms")


def _install_role(legacy: _Legacy) -> Iterator[Finding]:
    url = legacy.config.legacy.install_url
    if not url:
        yield AREA.warn(
            "install role",
            "legacy.install_url is not set",
            "`railswitch legacy install` can print its SQL, but not run it",
            "set it to a role that owns the tables, or let an administrator run the SQL",
        )
        return
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=int(CONNECT_S)) as connection:
            owned = [_owned(connection, table.table) for table in legacy.tables]
            role = connection.info.user
    except psycopg.Error as error:
        yield AREA.warn(
            "install role",
            _one_line(error),
            "`railswitch legacy install` can't run its SQL",
            "check legacy.install_url",
        )
        return
    yield AREA.judge(
        all(owned),
        "install role",
        f"{role} owns the tables" if all(owned) else f"{role} does not own the tables",
        "`railswitch legacy install --execute` will be refused by the server",
        "let legacy.install_url log in as the owner of the tables",
    )


def _owned(connection: psycopg.Connection[Any], table: str) -> bool:
    query = sql.SQL(
        "SELECT pg_has_role(session_user, relowner, 'USAGE') FROM pg_class"
        " WHERE oid = to_regclass({})"
    ).format(sql.Literal(table))
    row = connection.execute(query).fetchone()
    return bool(row and row[0])


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


_CHECKS: tuple[Callable[[_Legacy], Iterator[Finding]], ...] = (
    _server,
    _role,
    _tables,
    _privileges,
    _publication,
    _fence,
    _slot,
    _old_transactions,
    _install_role,
)
