"""Replication slots: ours, and room for it beside those of others."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.diagnosis.asking import AREA, Legacy, mib
from bridge.diagnosis.finding import Finding
from bridge.limits import SLOT_KEPT_BYTES_MAX

_KEPT = (
    "pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()"
    " ELSE pg_current_wal_lsn() END, restart_lsn)::bigint"
)
_DROP = "SELECT pg_drop_replication_slot('{}')"


def _slot(legacy: Legacy) -> Iterator[Finding]:
    name = legacy.config.legacy.slot
    if legacy.polls:
        return
    rows = legacy.rows(
        "SELECT plugin, active, wal_status, database = current_database(),"
        f" {_KEPT}, safe_wal_size, active_pid FROM pg_replication_slots WHERE slot_name = %s",
        name,
    )
    if not rows:
        yield from _free_slots(legacy, name)
        return
    plugin, active, wal_status, here, kept, safe, pid = rows[0]
    if not here or plugin != "pgoutput":
        yield AREA.fail(
            "slot",
            f"{name} is of another database or plugin ({plugin})",
            "no change stream: nothing can be shadowed",
            "choose another legacy.slot",
        )
        return
    seen = f"{name}, {'read now' if active else 'not read now'}, keeps {mib(kept)}"
    if safe is not None:
        seen += f", {mib(max(0, safe))} more before it is lost"
    if wal_status == "lost":
        yield AREA.fail(
            "slot",
            f"{seen}, lost",
            "changes are gone: every instrument must be loaded again",
            f"{_DROP.format(name)}; the shadow makes a new one and reloads",
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
    if active:
        yield from _reader(legacy, name, pid)


def _reader(legacy: Legacy, name: str, pid: int) -> Iterator[Finding]:
    """Only one may read a slot: is it ours?"""
    rows = legacy.rows(
        "SELECT coalesce(usename, ''), coalesce(application_name, ''),"
        " coalesce(host(client_addr), 'local'), usename = session_user"
        " FROM pg_stat_activity WHERE pid = %s",
        pid,
    )
    if rows and not rows[0][3]:
        user, application, address, _ = rows[0]
        yield AREA.fail(
            "reader of the slot",
            f"pid {pid}, {user} {application} from {address}".replace("  ", " "),
            "somebody else reads our changes: they are lost for us",
            f"end that program, or choose another legacy.slot; SELECT pg_terminate_backend({pid})",
        )


def _free_slots(legacy: Legacy, name: str) -> Iterator[Finding]:
    most, free = legacy.rows(
        "SELECT current_setting('max_replication_slots')::int,"
        " current_setting('max_replication_slots')::int - count(*) FROM pg_replication_slots"
    )[0]
    if free < 2:
        yield AREA.fail(
            "slot",
            f"no {name}, and {free} free of max_replication_slots = {most}",
            "the shadow needs one for its stream and one while it loads",
            f"ALTER SYSTEM SET max_replication_slots = {most + 2 - free}, and a restart; or drop"
            " unused slots",
        )
    else:
        yield AREA.warn(
            "slot",
            f"no {name} yet; {free} of {most} are free",
            "nothing is shadowed yet",
            "nothing to do: the shadow makes it when it first starts",
        )


def _other_slots(legacy: Legacy) -> Iterator[Finding]:
    """Of others, that nobody reads: they fill the disk that our slot stands on too."""
    for name, kept in legacy.rows(
        f"SELECT slot_name, {_KEPT} FROM pg_replication_slots"
        f" WHERE NOT active AND slot_name <> %s AND {_KEPT} > %s ORDER BY 2 DESC",
        legacy.config.legacy.slot,
        SLOT_KEPT_BYTES_MAX,
    ):
        yield AREA.warn(
            f"slot {name}",
            f"somebody else's, not read now, keeps {mib(kept)}",
            "the disk of the server fills up, and the monolith stops",
            f"ask whose it is, then {_DROP.format(name)}",
        )


def _senders(legacy: Legacy) -> Iterator[Finding]:
    if legacy.polls:
        return
    most, free = legacy.rows(
        "SELECT current_setting('max_wal_senders')::int,"
        " current_setting('max_wal_senders')::int - count(*) FROM pg_stat_replication"
    )[0]
    yield AREA.judge(
        free >= 2,
        "wal senders",
        f"{free} of {most} are free",
        "the shadow needs one for its stream and one while it loads",
        f"ALTER SYSTEM SET max_wal_senders = {most + 2}, and a restart",
    )


CHECKS = (_slot, _other_slots, _senders)
