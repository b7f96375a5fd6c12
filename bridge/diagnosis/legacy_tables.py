"""The two tables: what they are, their columns and keys, and who else is woken by their rows."""

from __future__ import annotations

from collections.abc import Iterator

from bridge.diagnosis.asking import AREA, INSTALL, WRITER_ROLE, Legacy, quoted
from bridge.diagnosis.finding import Finding
from shadow.legacy.mapping import FillsTable, Key, OrdersTable, Time

_KINDS = {"v": "a view", "m": "a materialized view", "f": "a foreign table"}
_INTEGERS = ("smallint", "integer", "bigint")
_TIMESTAMPS = ("timestamp without time zone", "timestamp with time zone")
_INEXACT = ("real", "double precision", "money")
_TEXTS = ("text", "character varying", "character")
_FIRES = {"O": "", "A": ", ALWAYS", "R": ", only on a replica"}


def _tables(legacy: Legacy) -> Iterator[Finding]:
    for table in legacy.tables:
        if not legacy.exists(table.table):
            yield _missing(legacy, table.table)
            continue
        yield from _kind(legacy, table.table)
        types = _types(legacy, table.table)
        yield from _columns(table, types)
        yield from _forms(table, types)
        yield _identity(legacy, table.table)
        yield from _lookup(legacy, table)
        yield from _symbols(legacy, table)


def _missing(legacy: Legacy, table: str) -> Finding:
    hidden = legacy.hidden_in(table)
    return AREA.fail(
        f"table {table}",
        f"in schema {hidden}, which we may not use" if hidden else "does not exist",
        "nothing can be shadowed",
        f"GRANT USAGE ON SCHEMA {hidden} TO {WRITER_ROLE}"
        if hidden
        else "correct mapping.orders.table or mapping.fills.table, or give it with its schema",
    )


def _types(legacy: Legacy, table: str) -> dict[str, str]:
    """By column."""
    return dict(
        legacy.rows(
            "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            quoted(table),
        )
    )


def _kind(legacy: Legacy, table: str) -> Iterator[Finding]:
    check = f"kind of {table}"
    kind, persistence, is_partition, heirs = legacy.rows(
        "SELECT relkind::text, relpersistence::text, relispartition,"
        " (SELECT count(*) FROM pg_inherits WHERE inhparent = c.oid)"
        " FROM pg_class c WHERE oid = %s::regclass",
        quoted(table),
    )[0]
    if kind in _KINDS:
        yield AREA.fail(
            check,
            _KINDS[kind],
            "it has no changes of its own: nothing can be shadowed",
            "name the table that the monolith writes to",
        )
    elif persistence == "u":
        yield AREA.fail(
            check,
            "unlogged",
            "its changes are in no log: nothing can be shadowed",
            f"ALTER TABLE {table} SET LOGGED",
        )
    elif is_partition:
        yield AREA.warn(
            check,
            "a partition of another table",
            "rows of the other partitions are not seen",
            "name the partitioned table itself",
        )
    elif kind == "p":
        yield from _partitioned(legacy, table)
    elif heirs:
        yield AREA.fail(
            check,
            f"{heirs} tables inherit from it",
            "a query sees their rows, the change stream of this table doesn't: orders seem to"
            " vanish",
            "if the monolith writes to a child, name that; else ALTER TABLE child NO INHERIT"
            f" {table}",
        )


def _partitioned(legacy: Legacy, table: str) -> Iterator[Finding]:
    name = legacy.config.legacy.publication
    via_root = legacy.value("SELECT pubviaroot FROM pg_publication WHERE pubname = %s", name)
    if via_root is False:
        yield AREA.fail(
            f"kind of {table}",
            f"partitioned, and publication {name} tells its partitions' names",
            "no change of it is recognised: nothing can be shadowed",
            f"ALTER PUBLICATION {name} SET (publish_via_partition_root = true)",
        )
    else:
        yield AREA.ok(f"kind of {table}", "partitioned, published under its own name")


def _columns(table: OrdersTable | FillsTable, types: dict[str, str]) -> Iterator[Finding]:
    mapped = mapped_columns(table)
    missing = sorted(mapped - set(types))
    yield AREA.judge(
        not missing,
        f"columns of {table.table}",
        f"no {', '.join(missing)}" if missing else f"{len(mapped)} mapped",
        "its rows can't be read",
        f"correct the mapping; the table has {', '.join(sorted(types))}",
    )


def mapped_columns(table: OrdersTable | FillsTable) -> set[str]:
    """All that the mapping names, the columns of its filter and of what is written included."""
    named = [table.id.column, table.symbol.column, table.price.column, table.quantity.column]
    named += [table.created_at.column, table.updated_at.column]
    if isinstance(table, FillsTable):
        named += [table.taker_side.column, table.total.column]
        named += [table.maker_order, table.taker_order, table.buy_order, table.sell_order]
        named += [table.maker_account, table.taker_account]
        named += [table.buy_account, table.sell_account]
    else:
        named += [
            table.account.column,
            table.leaves.column,
            table.filled.column,
            table.funds.column,
        ]
        enumerated = (table.side, table.ord_type, table.tif, table.status)
        named += [*(each.column for each in enumerated), table.lock_version, table.uuid]
        named += table.priority
    return {*named, *table.where, *table.write} - {""}


def _forms(table: OrdersTable | FillsTable, types: dict[str, str]) -> Iterator[Finding]:
    amounts = [table.price, table.quantity]
    if isinstance(table, OrdersTable):
        amounts += [table.leaves, table.filled]
    inexact = [one.column for one in amounts if types.get(one.column) in _INEXACT]
    if inexact:
        yield AREA.fail(
            f"numbers of {table.table}",
            f"{', '.join(inexact)}: {types[inexact[0]]}",
            "binary fractions are not exact: orders will be uncomparable",
            "the monolith needs numeric or integer columns for prices and quantities",
        )
    wrong = [
        f"{one.column} is {types[one.column]}, the mapping says {one.form}"
        for one in _formed(table)
        if one.column in types and not _fits(one, types[one.column])
    ]
    if wrong:
        yield AREA.fail(
            f"forms of {table.table}",
            "; ".join(wrong),
            "its rows can't be read, or are read as something else",
            f"correct `form` of these columns in mapping.{_part(table)}",
        )


def _formed(table: OrdersTable | FillsTable) -> Iterator[Key | Time]:
    yield from (table.id, table.created_at, table.updated_at)
    if isinstance(table, OrdersTable):
        yield table.account


def _fits(one: Key | Time, kind: str) -> bool:
    if isinstance(one, Key):
        wanted = ("uuid",) if one.form == "uuid" else (*_INTEGERS, "numeric")
        return kind in (*wanted, *_TEXTS)
    return (kind in _TIMESTAMPS) == (one.form == "timestamp")


def _identity(legacy: Legacy, table: str) -> Finding:
    identity, has_key = legacy.rows(
        "SELECT relreplident::text, EXISTS (SELECT 1 FROM pg_index"
        " WHERE indrelid = c.oid AND indisprimary) FROM pg_class c WHERE oid = %s::regclass",
        quoted(table),
    )[0]
    good = identity in "fi" or (identity == "d" and has_key)
    seen = {"d": "primary key" if has_key else "no primary key", "f": "full", "n": "nothing"}
    mend = [] if has_key else [f"ALTER TABLE {table} ADD PRIMARY KEY (...)"]
    mend += [] if identity == "d" else [f"ALTER TABLE {table} REPLICA IDENTITY DEFAULT"]
    return AREA.judge(
        good,
        f"identity of {table}",
        seen.get(identity, "an index"),
        "publishing it would break the monolith's own UPDATE and DELETE",
        f"give {table} a primary key, with REPLICA IDENTITY DEFAULT: {'; '.join(mend)}",
    )


def _lookup(legacy: Legacy, table: OrdersTable | FillsTable) -> Iterator[Finding]:
    """Orders are found by their ids, by the proxy, write-back and the checks."""
    found = legacy.value(
        "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid"
        " AND a.attnum = i.indkey[0] WHERE i.indrelid = %s::regclass AND i.indisvalid"
        " AND i.indpred IS NULL AND a.attname = %s)",
        quoted(table.table),
        table.id.column,
    )
    if not found:
        yield AREA.fail(
            f"lookups in {table.table}",
            f"no index begins with {table.id.column}",
            "each lookup and each row of write-back reads the whole table",
            f"CREATE UNIQUE INDEX CONCURRENTLY ON {table.table} ({table.id.column})",
        )


def _symbols(legacy: Legacy, table: OrdersTable | FillsTable) -> Iterator[Finding]:
    symbol = table.symbol
    if symbol.table and not legacy.exists(symbol.table):
        yield AREA.fail(
            f"instruments of {table.table}",
            f"no table {symbol.table}",
            "which instrument a row is of can't be told: nothing can be shadowed",
            f"correct mapping.{_part(table)}.symbol.table",
        )


def _triggers(legacy: Legacy) -> Iterator[Finding]:
    """Those of others. What write-back writes wakes them as the monolith's own rows do."""
    for table in legacy.existing:
        rows = legacy.rows(
            "SELECT tgname, tgenabled::text, p.oid::regproc::text, pg_get_triggerdef(t.oid)"
            " FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid"
            " WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgenabled <> 'D'"
            " AND tgname NOT LIKE '%%railswitch%%' ORDER BY tgname",
            quoted(table.table),
        )
        fired = [row for row in rows if row[1] != "R" and not _is_spared(row[3])]
        shown = ", ".join(f"{name} ({run}{_FIRES[state]})" for name, state, run, _ in rows)
        if not rows:
            yield AREA.ok(f"triggers of {table.table}", "none but ours")
        elif not fired:
            yield AREA.ok(f"triggers of {table.table}", shown)
        else:
            yield AREA.warn(
                f"triggers of {table.table}",
                shown,
                "they run for what write-back writes too: mails, sums and counts may come twice,"
                " or be right only so",
                "where they must not: " + "; ".join(_spared(row[3]) for row in fired),
            )


def _is_spared(definition: str) -> bool:
    return f"SESSION_USER <> '{WRITER_ROLE}'" in definition


def _spared(definition: str) -> str:
    """The same trigger, but not for our own writer."""
    create = definition.replace("CREATE TRIGGER", "CREATE OR REPLACE TRIGGER", 1)
    head, execute, call = create.rpartition(" EXECUTE ")
    ours = f"session_user <> '{WRITER_ROLE}'"
    if create.startswith("CREATE CONSTRAINT") or " WHEN (" in head:
        return f"add the condition {ours} to: {definition}"
    return f"{head} WHEN ({ours}){execute}{call}"


def _fence(legacy: Legacy) -> Iterator[Finding]:
    guards = ("railswitch_guard", "railswitch_guard_truncate")
    missing = list(dict.fromkeys(one for guard in guards for one in _without(legacy, guard)))
    yield AREA.judge(
        not missing,
        "fence",
        f"no trigger on {', '.join(missing)}" if missing else "installed",
        "the monolith could write to a flipped instrument: no flip is possible",
        INSTALL,
    )
    if legacy.polls:
        missing = _without(legacy, "0_railswitch_capture")
        yield AREA.judge(
            not missing,
            "changes to poll",
            f"no trigger on {', '.join(missing)}" if missing else "kept by triggers",
            "there are no changes to read: nothing can be shadowed",
            INSTALL,
        )
        yield _commit_times(legacy)


def _commit_times(legacy: Legacy) -> Finding:
    kept = str(legacy.value("SHOW track_commit_timestamp"))
    if kept == "on":
        return AREA.ok("track_commit_timestamp", kept)
    return AREA.warn(
        "track_commit_timestamp",
        kept,
        "the order of some commits can't be told, and may show as mismatches that are none",
        "ALTER SYSTEM SET track_commit_timestamp = on; then restart the server when you can",
    )


def _without(legacy: Legacy, trigger: str) -> list[str]:
    """Tables that do not have it, or not so that it fires for every writer."""
    having = {
        row[0]
        for row in legacy.rows(
            "SELECT tgrelid::bigint FROM pg_trigger WHERE tgname = %s AND tgenabled = 'A'", trigger
        )
    }
    return [
        table.table
        for table in legacy.tables
        if legacy.value("SELECT to_regclass(%s)::oid::bigint", quoted(table.table)) not in having
    ]


def _part(table: OrdersTable | FillsTable) -> str:
    return "fills" if isinstance(table, FillsTable) else "orders"


CHECKS = (_tables, _triggers, _fence)
