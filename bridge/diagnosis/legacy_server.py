"""The server: what it is, what it is set to, and whether we really talk to it."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.diagnosis.asking import AREA, WRITER_ROLE, Legacy, quoted
from bridge.diagnosis.finding import Finding

SERVER_VERSION_MIN = 140000  # the first whose change stream carries our markers
_FILTERS = 150000  # publications may have row filters and column lists
_FAILOVER = 170000  # slots may survive a failover

# That would end a session or statement of ours in the middle.
_TIMEOUTS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "transaction_timeout",
)


def _version(legacy: Legacy) -> Iterator[Finding]:
    version = legacy.version
    shown = f"PostgreSQL {version // 10000}.{version % 10000}"
    if version < SERVER_VERSION_MIN:
        yield AREA.fail(
            "version",
            shown,
            "the change stream can't carry the flip's marker: no instrument can be flipped",
            "upgrade the server to PostgreSQL 14 or later",
        )
        return
    lacks = []
    if version < _FILTERS:
        lacks.append("no filters in publications (from 15 on)")
    if version < _FAILOVER:
        lacks.append("no slot survives a failover (from 17 on)")
    yield AREA.ok("version", "; ".join([shown, *lacks]))


def _wal_level(legacy: Legacy) -> Iterator[Finding]:
    level = legacy.value("SHOW wal_level")
    if legacy.polls:
        yield AREA.ok("wal_level", f"{level}; changes are polled, which needs none")
        return
    yield AREA.judge(
        level == "logical",
        "wal_level",
        level,
        "no change stream: nothing can be shadowed",
        "ALTER SYSTEM SET wal_level = 'logical'; then restart the server in a quiet hour. A managed"
        " one has a parameter for it (RDS: rds.logical_replication = 1). Where it can't be changed:"
        ' legacy.changes = "poll"',
    )


def _standby(legacy: Legacy) -> Iterator[Finding]:
    if legacy.value("SELECT pg_is_in_recovery()"):
        yield AREA.fail(
            "primary",
            "a standby: it takes no writes",
            "no mark, fence or write-back: nothing can be shadowed",
            "let legacy.database_url name the primary; a URL of several hosts takes"
            " target_session_attrs=read-write",
        )
    else:
        yield AREA.ok("primary", "yes")


def _pooler(legacy: Legacy) -> Iterator[Finding]:
    """A pooler hands out process ids of its own, so that it can tell its clients apart."""
    told, real = legacy.connection.info.backend_pid, legacy.value("SELECT pg_backend_pid()")
    yield AREA.judge(
        told == real,
        "direct",
        "yes" if told == real else f"a pooler such as PgBouncer answers (pid {told}, not {real})",
        "the change stream does not pass it, and settings and locks of our sessions are lost",
        "let legacy.database_url name the server itself: its own host and port; the monolith may"
        " stay behind the pooler",
    )


def _failover(legacy: Legacy) -> Iterator[Finding]:
    standbys = legacy.value(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_type = 'physical'"
    )
    if not standbys:
        return
    name = legacy.config.legacy.slot
    if legacy.version < _FAILOVER:
        yield AREA.warn(
            "failover",
            f"{standbys} standby with a slot, and PostgreSQL before 17",
            "after a failover the slot is gone: every instrument in shadow is loaded again; do not"
            " fail over in a flip",
            "nothing to do beforehand: the shadow makes a new slot when it finds none",
        )
        return
    kept = legacy.value("SELECT failover FROM pg_replication_slots WHERE slot_name = %s", name)
    if kept is not None and not kept:
        yield AREA.warn(
            "failover",
            f"{standbys} standby with a slot; {name} is not kept on it",
            "after a failover every instrument in shadow is loaded again",
            f"with the shadow stopped: SELECT pg_drop_replication_slot('{name}'); SELECT"
            f" pg_create_logical_replication_slot('{name}', 'pgoutput', failover => true); and"
            " sync_replication_slots = on on the standby",
        )


def _timeouts(legacy: Legacy) -> Iterator[Finding]:
    limited = {name: legacy.setting(name) for name in _TIMEOUTS}
    limited = {name: value for name, value in limited.items() if value not in ("", "0")}
    if limited:
        shown = ", ".join(f"{name} = {value} ms" for name, value in limited.items())
        yield AREA.warn(
            "timeouts",
            shown,
            "a load, a flip or write-back may be ended in the middle; each is then tried again",
            "; ".join(f"ALTER ROLE {_role(legacy)} SET {name} = 0" for name in limited),
        )
    else:
        yield AREA.ok("timeouts", "none for our role")


def _synchronous_commit(legacy: Legacy) -> Iterator[Finding]:
    value = legacy.setting("synchronous_commit")
    if value == "off":
        yield AREA.warn(
            "synchronous_commit",
            "off",
            "a crash of the server takes back what it has confirmed: orders that clients have"
            " seen answered, and the write-back's last rows, which are then written again",
            f"for our role: ALTER ROLE {_role(legacy)} SET synchronous_commit = on; the"
            " monolith's own risk stays",
        )
    else:
        yield AREA.ok("synchronous_commit", value)


def _time_zone(legacy: Legacy) -> Iterator[Finding]:
    """Rails sets its sessions' zone itself; defaults and triggers of others use the server's."""
    zone = legacy.setting("TimeZone")
    for table in legacy.existing:
        column = table.created_at
        if not column.column or column.form != "timestamp":
            continue
        ((kind, default),) = legacy.rows(
            "SELECT format_type(a.atttypid, NULL), pg_get_expr(d.adbin, d.adrelid)"
            " FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid"
            " AND d.adnum = a.attnum WHERE a.attrelid = %s::regclass AND a.attname = %s",
            quoted(table.table),
            column.column,
        ) or [(None, None)]
        if kind != "timestamp without time zone":
            continue
        same = legacy.value(
            "SELECT now() AT TIME ZONE %s = now() AT TIME ZONE %s"
            " AND date_trunc('year', now()) AT TIME ZONE %s"
            "   = date_trunc('year', now()) AT TIME ZONE %s",
            *(zone, column.zone, zone, column.zone),
        )
        if not same:
            by = f", default {default}" if default else ""
            yield AREA.warn(
                f"time zone of {table.table}",
                f"the server's is {zone}, the mapping's {column.zone}{by}",
                "rows whose times are set by SQL (defaults, triggers, the console) are hours off",
                "see in which zone the monolith writes: `railswitch mapping check`; for sessions of"
                f" SQL: ALTER DATABASE {legacy.connection.info.dbname} SET timezone ="
                f" '{column.zone}'",
            )


def _role(legacy: Legacy) -> str:
    return str(legacy.connection.info.user or WRITER_ROLE)


CHECKS = (
    _version,
    _standby,
    _pooler,
    _wal_level,
    _failover,
    _timeouts,
    _synchronous_commit,
    _time_zone,
)
