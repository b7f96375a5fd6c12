"""What is published of the two tables, by us and by others: a publication that lacks something can
make the monolith's own statements fail.
"""

from __future__ import annotations

from collections.abc import Iterator

from bridge.diagnosis.asking import AREA, INSTALL, Legacy, quoted
from bridge.diagnosis.finding import Finding

# Row filters and column lists of every publication that concern one table. PostgreSQL refuses an
# UPDATE of it where the filter needs, or the list lacks, a column of the replica identity.
_FILTERS = """
    WITH identity AS (
        SELECT CASE c.relreplident
            WHEN 'f' THEN (SELECT array_agg(attnum) FROM pg_attribute
                           WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped)
            ELSE (SELECT i.indkey::int2[] FROM pg_index i WHERE i.indrelid = c.oid
                  AND CASE c.relreplident WHEN 'd' THEN i.indisprimary
                      WHEN 'i' THEN i.indisreplident END) END AS columns
        FROM pg_class c WHERE c.oid = %(table)s::regclass)
    SELECT p.pubname, pg_get_expr(r.prqual, r.prrelid),
        (SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
         WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs)),
        (p.pubupdate OR p.pubdelete) AND coalesce(
            EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_publication_rel'::regclass
                    AND d.objid = r.oid AND d.refobjid = r.prrelid AND d.refobjsubid > 0
                    AND d.refclassid = 'pg_class'::regclass
                    AND r.prqual IS NOT NULL AND d.refobjsubid::int2 <> ALL (identity.columns))
            OR NOT identity.columns <@ coalesce(r.prattrs::int2[], identity.columns), true)
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid, identity
    WHERE (r.prqual IS NOT NULL OR r.prattrs IS NOT NULL) AND r.prrelid = %(table)s::regclass
    ORDER BY p.pubname"""
_FILTERS_FROM = 150000  # neither row filters nor column lists before PostgreSQL 15


def _publication(legacy: Legacy) -> Iterator[Finding]:
    name = legacy.config.legacy.publication
    row = legacy.rows(
        "SELECT puballtables, pubinsert AND pubupdate AND pubdelete FROM pg_publication"
        " WHERE pubname = %s",
        name,
    )
    if not row:
        yield AREA.fail(
            "publication", f"no {name}", "no change stream: nothing can be shadowed", INSTALL
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
        legacy.value("SELECT %s::regclass::text", quoted(table.table)) for table in legacy.existing
    }
    missing = sorted(wanted - published)
    yield AREA.judge(
        not missing and row[0][1],
        "publication",
        f"{name} lacks {', '.join(missing) or 'inserts, updates or deletes'}"
        if missing or not row[0][1]
        else f"{name}: {', '.join(sorted(published))}",
        "changes are missing from the stream",
        f"`railswitch legacy uninstall --execute`, then {INSTALL}",
    )


def _publication_filters(legacy: Legacy) -> Iterator[Finding]:
    if legacy.version < _FILTERS_FROM:
        return
    ours = legacy.config.legacy.publication
    for table in legacy.existing:
        found = legacy.connection.execute(_FILTERS, {"table": quoted(table.table)}).fetchall()
        for name, rows, columns, breaks in found:
            what = f"on {table.table}: " + (f"WHERE {rows}" if rows else f"columns {columns}")
            if name == ours:
                yield AREA.fail(
                    "publication filters",
                    f"a row filter or column list {what}",
                    "it hides changes, and can break the monolith's own UPDATEs",
                    f"ALTER PUBLICATION {name} SET TABLE "
                    + ", ".join(one.table for one in legacy.existing),
                )
            elif breaks:
                yield AREA.fail(
                    f"publication {name}",
                    f"somebody else's, {what}",
                    "it needs more of the old row than the replica identity has: every UPDATE of"
                    " the table fails, the monolith's and write-back's",
                    f"ask whose it is, then BEGIN; ALTER PUBLICATION {name} DROP TABLE"
                    f" {table.table}; ALTER PUBLICATION {name} ADD TABLE {table.table}; COMMIT; or"
                    f" ALTER TABLE {table.table} REPLICA IDENTITY FULL, for more log",
                )
            else:
                yield AREA.ok(f"publication {name}", f"somebody else's, {what}")


CHECKS = (_publication, _publication_filters)
