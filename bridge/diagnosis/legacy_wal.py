"""The server's log on its disk: how fast it grows, and what stops it from filling the disk."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.diagnosis.asking import AREA, WRITER_ROLE, Legacy, mib
from bridge.diagnosis.finding import Finding
from bridge.diagnosis.legacy_server import SERVER_VERSION_MIN
from bridge.limits import WAL_KEEP_H_MIN

_MIB = 2**20


def _kept_wal(legacy: Legacy) -> Iterator[Finding]:
    if legacy.polls:
        return
    limit_mib = int(
        legacy.value("SELECT setting FROM pg_settings WHERE name = 'max_slot_wal_keep_size'")
    )
    an_hour = _bytes_per_hour(legacy)
    grows = f"the log grows by {mib(an_hour)} an hour in the mean" if an_hour else "growth unknown"
    if limit_mib < 0:
        wanted = max(1 << 30, int(an_hour * 2 * WAL_KEEP_H_MIN))
        yield AREA.warn(
            "max_slot_wal_keep_size",
            f"no limit; {grows}",
            "while the shadow stands still its slot keeps the log: the disk fills up, and the"
            " monolith stops",
            f"ALTER SYSTEM SET max_slot_wal_keep_size = '{-(-wanted // (1 << 30))}GB';"
            " SELECT pg_reload_conf()",
        )
    elif an_hour and limit_mib * _MIB < an_hour * WAL_KEEP_H_MIN:
        hours = limit_mib * _MIB / an_hour
        yield AREA.warn(
            "max_slot_wal_keep_size",
            f"{mib(limit_mib * _MIB)}; {grows}",
            f"a shadow that stands still for {hours:.1f} h loses its slot: every instrument is"
            " loaded again",
            f"ALTER SYSTEM SET max_slot_wal_keep_size ="
            f" '{-(-int(an_hour * WAL_KEEP_H_MIN) // (1 << 30))}GB'; SELECT pg_reload_conf()",
        )
    else:
        yield AREA.ok("max_slot_wal_keep_size", f"{mib(limit_mib * _MIB)}; {grows}")


def _bytes_per_hour(legacy: Legacy) -> float:
    """Since the statistics began; 0 where that is too short to say, and before version 14."""
    if legacy.version < SERVER_VERSION_MIN:
        return 0.0
    found = legacy.value(
        "SELECT (wal_bytes / nullif(extract(epoch FROM now() - stats_reset), 0) * 3600)::float8"
        " FROM pg_stat_wal WHERE now() - stats_reset > interval '1 minute'"
    )
    return float(found or 0)


def _wal_on_disk(legacy: Legacy) -> Iterator[Finding]:
    if not legacy.value("SELECT has_function_privilege('pg_ls_waldir()', 'EXECUTE')"):
        yield AREA.warn(
            "log on disk",
            "not visible",
            "doctor can't say how much the server keeps",
            f"GRANT pg_monitor TO {WRITER_ROLE}; and see the free space of its disk yourself: no"
            " SQL tells it",
        )
        return
    size, most_mib = legacy.rows(
        "SELECT (SELECT coalesce(sum(size), 0)::bigint FROM pg_ls_waldir()),"
        " (SELECT setting::bigint FROM pg_settings WHERE name = 'max_wal_size')"
    )[0]
    seen = f"{mib(size)}, max_wal_size {mib(most_mib * _MIB)}"
    if size > 2 * most_mib * _MIB:
        yield AREA.warn(
            "log on disk",
            seen,
            "something holds the log back: a slot, the archiver, or wal_keep_size",
            "SELECT slot_name, active, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) FROM"
            " pg_replication_slots ORDER BY 3 DESC",
        )
    else:
        yield AREA.ok("log on disk", f"{seen}; the free space of its disk no SQL tells")


def _archiver(legacy: Legacy) -> Iterator[Finding]:
    failed, seen = legacy.rows(
        "SELECT last_failed_time > coalesce(last_archived_time, '-infinity')"
        " AND current_setting('archive_mode') <> 'off',"
        " last_failed_wal || ' at ' || date_trunc('second', last_failed_time)"
        " FROM pg_stat_archiver"
    )[0]
    if failed:
        yield AREA.warn(
            "archiver",
            f"failed on {seen}, and has not succeeded since",
            "the log it can't archive stays on the disk, beside what our slot keeps",
            "see archive_command and the server's own messages; SELECT * FROM pg_stat_archiver",
        )


CHECKS = (_kept_wal, _wal_on_disk, _archiver)
