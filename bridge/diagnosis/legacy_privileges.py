"""Roles: ours, which reads, replicates and writes back, and the one that installs the fence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg
from psycopg import sql

from bridge.diagnosis.asking import AREA, CREATE_ROLE, WRITER_ROLE, Legacy, one_line, quoted
from bridge.diagnosis.finding import Finding
from bridge.limits import CONNECT_S, PASSWORD_DAYS_MIN


def _role(legacy: Legacy) -> Iterator[Finding]:
    name, replicates, expires_days, connections = legacy.rows(
        "SELECT rolname, rolreplication OR rolsuper,"
        " extract(epoch FROM nullif(rolvaliduntil, 'infinity') - now())::float8 / 86400,"
        " rolconnlimit FROM pg_roles WHERE rolname = session_user"
    )[0]
    yield AREA.judge(
        name == WRITER_ROLE,
        "role",
        name,
        "the fence would refuse our own write-back",
        "" if name == WRITER_ROLE else _how_to_log_in(legacy),
    )
    if not replicates and legacy.value("SELECT to_regrole('rds_replication')") is not None:
        replicates = legacy.value("SELECT pg_has_role(session_user, 'rds_replication', 'MEMBER')")
    yield AREA.judge(
        bool(replicates) or legacy.polls,
        "replication",
        "permitted" if replicates else "not needed" if legacy.polls else "not permitted",
        "no change stream: nothing can be shadowed",
        f"ALTER ROLE {WRITER_ROLE} REPLICATION (on RDS: GRANT rds_replication TO {WRITER_ROLE})",
    )
    if expires_days is not None and expires_days < PASSWORD_DAYS_MIN:
        yield AREA.warn(
            "password",
            f"of {name}, expires in {expires_days:.0f} days",
            "from then on nothing of ours can connect",
            f"ALTER ROLE {name} VALID UNTIL 'infinity'",
        )
    if connections >= 0:
        yield AREA.warn(
            "connections",
            f"{name} may have {connections} at once",
            "proxies, shadow and control need some each; beyond it orders of live instruments wait",
            f"ALTER ROLE {name} CONNECTION LIMIT -1",
        )


def _how_to_log_in(legacy: Legacy) -> str:
    log_in = f"let legacy.database_url log in as {WRITER_ROLE}"
    if legacy.value("SELECT to_regrole(%s)", WRITER_ROLE) is not None:
        return log_in
    return f"{CREATE_ROLE}; then {log_in}"


def _privileges(legacy: Legacy) -> Iterator[Finding]:
    orders = legacy.mapping.orders
    hidden = "" if legacy.exists(orders.id_sequence) else legacy.hidden_in(orders.id_sequence)
    if hidden:
        yield AREA.fail(
            "privileges",
            f"no USAGE on schema {hidden}",
            "its tables can't be found: nothing can be shadowed",
            f"GRANT USAGE ON SCHEMA {hidden} TO {WRITER_ROLE}",
        )
        return
    if not legacy.exists(orders.id_sequence):
        yield AREA.fail(
            "order ids",
            f"no sequence {orders.id_sequence}",
            "live orders can't get ids: no instrument can be flipped",
            "correct mapping.orders.id_sequence",
        )
        return
    lacking = [one for one in _wanted(legacy) if not _has(legacy, *one)]
    yield AREA.judge(
        not lacking,
        "privileges",
        ", ".join(f"no {right} on {_plain(name)}" for _, name, right in lacking)
        or "read and write back",
        "an instrument can be shadowed at most: write-back could not follow a flip"
        if not any(right == "SELECT" or kind == "schema" for kind, _, right in lacking)
        else "its rows can't be read",
        "`railswitch legacy install --execute` grants what is missing; by hand: "
        + "; ".join(
            f"GRANT {right} ON {kind.upper()} {_plain(name)} TO {WRITER_ROLE}"
            for kind, name, right in lacking
        ),
    )


def _wanted(legacy: Legacy) -> list[tuple[str, str, str]]:
    """(kind, name, right): the schemas first, without which no table is found."""
    orders, fills = legacy.mapping.orders, legacy.mapping.fills
    wanted: list[tuple[str, str, str]] = []
    for table in legacy.existing:
        schema = legacy.value(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.oid = %s::regclass",
            quoted(table.table),
        )
        wanted.append(("schema", schema, "USAGE"))
        rights = ("SELECT", "INSERT", "UPDATE") if table is orders else ("SELECT", "INSERT")
        wanted += [("table", quoted(table.table), right) for right in rights]
        if table.symbol.table and legacy.exists(table.symbol.table):
            wanted.append(("table", quoted(table.symbol.table), "SELECT"))
    wanted.append(("sequence", quoted(orders.id_sequence), "USAGE"))
    if fills in legacy.existing:
        sequence = legacy.value(
            "SELECT pg_get_serial_sequence(%s, %s)", quoted(fills.table), _id(legacy)
        )
        if sequence:
            wanted.append(("sequence", sequence, "USAGE"))
    return list(dict.fromkeys(wanted))


def _plain(name: str) -> str:
    """Without the quotes that no name of small letters needs."""
    return name.replace('"', "") if name == name.lower() else name


def _id(legacy: Legacy) -> str:
    """The fills' id column, or another that is there, for a question that would fail on none."""
    fills = legacy.mapping.fills
    return str(
        legacy.value(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
            " AND NOT attisdropped ORDER BY attname = %s DESC, attnum LIMIT 1",
            quoted(fills.table),
            fills.id.column,
        )
    )


def _has(legacy: Legacy, kind: str, name: str, right: str) -> bool:
    return bool(legacy.value(f"SELECT has_{kind}_privilege(%s, %s)", name, right))


def _row_security(legacy: Legacy) -> Iterator[Finding]:
    """Policies hide rows without a word."""
    bypasses = legacy.value(
        "SELECT rolbypassrls OR rolsuper FROM pg_roles WHERE rolname = session_user"
    )
    for table in legacy.existing:
        secured = legacy.value(
            "SELECT relrowsecurity FROM pg_class WHERE oid = %s::regclass", quoted(table.table)
        )
        if secured and not bypasses:
            yield AREA.fail(
                f"row security of {table.table}",
                "policies decide which rows we see",
                "loads and checks miss rows that the change stream has",
                f"ALTER ROLE {WRITER_ROLE} BYPASSRLS",
            )


def _install_role(legacy: Legacy) -> Iterator[Finding]:
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
            one_line(error),
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
    ).format(sql.Literal(quoted(table)))
    row = connection.execute(query).fetchone()
    return bool(row and row[0])


CHECKS = (_role, _privileges, _row_security, _install_role)
