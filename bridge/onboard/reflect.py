"""Reads the schema of the monolith's database, and some of its rows: in one transaction that is
read only, with timeouts, and without reading any table whole.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import psycopg
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    FromClause,
    Select,
    Text,
    Uuid,
    cast,
    create_engine,
    func,
    inspect,
    literal,
    select,
    tablesample,
    text,
)
from sqlalchemy import column as sql_column
from sqlalchemy import table as sql_table
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.interfaces import ReflectedColumn
from sqlalchemy.engine.reflection import Inspector
from sqlalchemy.exc import CompileError, DBAPIError, SAWarning
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.elements import ColumnClause
from sqlalchemy.types import TypeEngine

from bridge.errors import DatabaseNotRead
from bridge.limits import (
    CONNECT_S,
    ONBOARD_LOCK_MS,
    ONBOARD_ROWS_MAX,
    ONBOARD_STATEMENT_MS,
    ONBOARD_TABLES_MAX,
)
from bridge.onboard.recognise import interesting, missing_orders
from bridge.onboard.recognise_tables import Wanted
from bridge.onboard.seen import Column, Database, ForeignKey, Kind, Row, Sample, Table

_OURS = ("railswitch",)

_SEQUENCE = re.compile(r"nextval\('((?:[^']|'')+)'::regclass\)")
_CHECKED = re.compile(r"'((?:[^']|'')*)'")

_SETTINGS = f"""\
SET LOCAL statement_timeout = {ONBOARD_STATEMENT_MS};
SET LOCAL lock_timeout = {ONBOARD_LOCK_MS};
SET LOCAL datestyle = 'ISO, YMD';
SET LOCAL timezone = 'UTC';
SET LOCAL extra_float_digits = 1"""

_ABOUT = """
SELECT n.nspname, c.relname, pg_table_is_visible(c.oid), greatest(c.reltuples, 0)::bigint,
       has_table_privilege(c.oid, 'SELECT')
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
   AND n.nspname <> ALL (:hidden) AND n.nspname NOT LIKE 'pg\\_%'
   AND has_schema_privilege(n.oid, 'USAGE')
 ORDER BY 1, 2 LIMIT :most"""

_TYPES: dict[str, TypeEngine[Any]] = {"integer": BigInteger(), "uuid": Uuid(as_uuid=False)}
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_OWNED_SEQUENCE = "SELECT pg_get_serial_sequence(:table, :column)"


def read_database(url: str, wanted: Wanted) -> Database:
    """`url`: of PostgreSQL, as psycopg takes it. Raises DatabaseNotRead, psycopg.Error."""
    engine = create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, connect_timeout=int(CONNECT_S)),
        poolclass=NullPool,
        isolation_level="REPEATABLE READ",
        execution_options={"postgresql_readonly": True},
    )
    try:
        with engine.connect() as connection:
            for setting in _SETTINGS.split(";"):
                connection.execute(text(setting))
            with warnings.catch_warnings():
                # types of extensions that SQLAlchemy does not know are of no interest here
                warnings.simplefilter("ignore", SAWarning)
                database = _described(connection)
            return _looked_at(connection, database, wanted)
    except DBAPIError as error:
        cause = error.orig
        if isinstance(cause, psycopg.OperationalError) and cause.sqlstate is None:
            raise cause from None
        raise DatabaseNotRead(_refusal(cause)) from error


def _refusal(cause: BaseException | None) -> str:
    told = f"the database can't be read: {' '.join(str(cause).split())}"
    if isinstance(cause, psycopg.errors.LockNotAvailable | psycopg.errors.QueryCanceled):
        return f"{told}. A migration or a long transaction holds it up: try again when it is over"
    return (
        f"{told}. A role that may SELECT from the tables of orders, fills and instruments will do"
    )


def _described(connection: Connection) -> Database:
    hidden = [*_OURS, "information_schema"]
    most = ONBOARD_TABLES_MAX
    rows = connection.execute(text(_ABOUT), {"hidden": hidden, "most": most + 1}).all()
    if len(rows) > most:
        raise DatabaseNotRead(
            f"the database has more than {most} tables: use a role that has USAGE only on the"
            " schemas of the exchange"
        )
    inspector = inspect(connection)
    tables: list[Table] = []
    visible = {(schema, name): shown for schema, name, shown, _, _ in rows}
    for schema in dict.fromkeys(row[0] for row in rows):
        names = [row[1] for row in rows if row[0] == schema]
        reflected = _Reflected(inspector, schema, names, visible)
        tables += [
            reflected.table(name, shown, about, readable)
            for its, name, shown, about, readable in rows
            if its == schema
        ]
    found = [_with_sequence(connection, table) for table in tables]
    now_us = connection.execute(text(_NOW)).scalar_one()
    return Database(tables=tuple(found), read_at_us=now_us)


class _Reflected:
    """What SQLAlchemy says of one schema's tables."""

    def __init__(
        self,
        inspector: Inspector,
        schema: str,
        names: Sequence[str],
        visible: dict[tuple[str, str], bool],
    ) -> None:
        self._schema = schema
        self._visible = visible
        self._columns = inspector.get_multi_columns(schema, names)
        self._keys = inspector.get_multi_pk_constraint(schema, names)
        self._foreign = inspector.get_multi_foreign_keys(schema, names)
        self._checks = inspector.get_multi_check_constraints(schema, names)

    def table(self, name: str, visible: bool, rows: int, readable: bool) -> Table:
        at = (self._schema, name)
        checks = [str(one["sqltext"]) for one in self._checks.get(at) or ()]
        columns = tuple(_column(one, checks) for one in self._columns.get(at) or ())
        primary = self._keys.get(at)
        key = tuple(primary["constrained_columns"]) if primary else ()
        defaults = [one.default for one in columns if one.name in key]
        sequence = _SEQUENCE.search(defaults[0]) if len(defaults) == 1 else None
        return Table(
            schema=self._schema,
            bare=name,
            visible=visible,
            columns=columns,
            key=key,
            foreign=tuple(self._refers(at)),
            sequence=_shown(sequence[1].replace("''", "'"), self._schema, visible)
            if sequence
            else "",
            rows=rows,
            readable=readable,
        )

    def _refers(self, at: tuple[str, str]) -> Iterable[ForeignKey]:
        for one in self._foreign.get(at) or ():
            if len(one["constrained_columns"]) != 1:
                continue
            schema, name = one["referred_schema"] or self._schema, one["referred_table"]
            shown = name if self._visible.get((schema, name), True) else f"{schema}.{name}"
            key = one["referred_columns"][0]
            yield ForeignKey(column=one["constrained_columns"][0], table=shown, key=key)


def _column(one: ReflectedColumn, checks: Sequence[str]) -> Column:
    kind = _kind(one["type"])
    labels = tuple(getattr(one["type"], "enums", None) or _checked(one["name"], checks))
    default = str(one.get("default") or "")
    if one.get("identity") or one.get("computed"):
        default = default or "generated"
    return Column(
        name=one["name"],
        kind=kind,
        type=_type_text(one["type"]),
        nullable=bool(one["nullable"]),
        default=default,
        comment=one.get("comment") or "",
        labels=labels,
    )


def _type_text(kind: TypeEngine[Any]) -> str:
    if isinstance(kind, postgresql.ENUM | postgresql.DOMAIN):
        return str(kind.name)
    try:
        return kind.compile(dialect=postgresql.dialect()).lower()  # type: ignore[no-untyped-call]
    except CompileError:
        return "unknown"  # of an extension, or made of several


def _kind(kind: TypeEngine[Any]) -> Kind:
    if isinstance(kind, postgresql.DOMAIN):
        return _kind(kind.data_type)
    if isinstance(kind, postgresql.TIMESTAMP):
        return "timestamptz" if kind.timezone else "timestamp"
    types: tuple[tuple[type, Kind], ...] = (
        (postgresql.DOUBLE_PRECISION, "float"),
        (postgresql.REAL, "float"),
        (postgresql.FLOAT, "float"),
        (postgresql.NUMERIC, "numeric"),
        (postgresql.BIGINT, "integer"),
        (postgresql.INTEGER, "integer"),
        (postgresql.SMALLINT, "integer"),
        (postgresql.UUID, "uuid"),
        (postgresql.BOOLEAN, "boolean"),
        (postgresql.ENUM, "other"),
        (postgresql.VARCHAR, "text"),
        (postgresql.TEXT, "text"),
        (postgresql.CHAR, "text"),
        (postgresql.CITEXT, "text"),
    )
    return next((ours for theirs, ours in types if isinstance(kind, theirs)), "other")


def _checked(column: str, checks: Sequence[str]) -> list[str]:
    """The values that a CHECK of this column alone lists."""
    for check in checks:
        if re.match(rf'\(*"?{re.escape(column)}"?\)?(::\w+)? (= ANY|IN)\b', check):
            return [value.replace("''", "'") for value in _CHECKED.findall(check)]
    return []


def _with_sequence(connection: Connection, table: Table) -> Table:
    """That of an identity column, or of one that owns it otherwise."""
    if table.sequence or len(table.key) != 1:
        return table
    column = table.column(table.key[0])
    if column is None or column.kind != "integer" or not column.default:
        return table
    quoted = ".".join(_quoted(connection, part) for part in (table.schema, table.bare))
    values = {"table": quoted, "column": column.name}
    name = connection.execute(text(_OWNED_SEQUENCE), values).scalar()
    sequence = _shown(str(name), table.schema, table.visible) if name else ""
    return msgspec.structs.replace(table, sequence=sequence)


def _shown(name: str, schema: str, visible: bool) -> str:
    """The name of a sequence as `railswitch.toml` has it: without quotes, and without the schema
    of its table where that can be left out.
    """
    parts = [part.strip('"').replace('""', '"') for part in name.split(".")]
    if len(parts) == 1 and not visible:
        parts = [schema, *parts]
    return parts[-1] if visible and parts[:-1] == [schema] else ".".join(parts)


def _looked_at(connection: Connection, database: Database, wanted: Wanted) -> Database:
    chosen = {(one.schema, one.bare) for one in interesting(database, wanted)}
    tables = tuple(
        msgspec.structs.replace(one, sample=_sample(connection, one))
        if (one.schema, one.bare) in chosen
        else one
        for one in database.tables
    )
    database = msgspec.structs.replace(database, tables=tables)
    lookup = missing_orders(database, wanted)
    if lookup is None or not lookup.ids:
        return database
    column = lookup.table.column(lookup.key)
    if column is None or column.kind not in _TYPES:
        return database
    rows = _Rows(lookup.table)
    ids = [int(one) if column.kind == "integer" else one for one in lookup.ids]
    query = rows.query().where(rows.column(lookup.key).in_(ids)).limit(len(ids))
    found, _ = rows.read(connection, query)
    return msgspec.structs.replace(database, linked=found)


def _sample(connection: Connection, table: Table) -> Sample:
    """The newest rows by primary key, which its index gives at once; without one whichever come."""
    rows = _Rows(table)
    key = table.key[0] if len(table.key) == 1 else ""
    query = rows.query().limit(ONBOARD_ROWS_MAX)
    if key:
        query = query.order_by(rows.column(key).desc())
    newest, failure = rows.read(connection, query)
    if failure or len(newest) < ONBOARD_ROWS_MAX:
        return Sample(newest=newest, whole=not failure, failure=failure)
    if table.rows <= ONBOARD_ROWS_MAX:
        return Sample(newest=newest)
    scattered = _Rows(table, share=min(100.0, 100.0 * ONBOARD_ROWS_MAX / table.rows))
    others, failure = scattered.read(connection, scattered.query().limit(ONBOARD_ROWS_MAX))
    seen = {row.get(key) for row in newest} if key else set()
    kept = tuple(row for row in others if not key or row.get(key) not in seen)
    return Sample(newest=newest, others=kept, failure=failure)


class _Rows:
    """Queries for a table's rows, every value as PostgreSQL's text."""

    def __init__(self, table: Table, share: float | None = None) -> None:
        columns: list[ColumnClause[Any]] = [
            sql_column(one.name, _TYPES.get(one.kind, Text())) for one in table.columns
        ]
        plain = sql_table(table.bare, *columns, schema=table.schema)
        self._from: FromClause = plain.alias("looked")
        if share is not None:  # the same pages for the same table, and no more than these
            self._from = tablesample(plain, func.system(share), name="looked", seed=literal(1))
        self._names = [one.name for one in table.columns]

    def column(self, name: str) -> ColumnElement[Any]:
        return self._from.c[name]

    def query(self) -> Select[*tuple[Any, ...]]:
        texts = (
            cast(self._from.c[name], Text).label(f"value{n}") for n, name in enumerate(self._names)
        )
        query: Select[*tuple[Any, ...]] = select(*texts)
        return query

    def read(
        self, connection: Connection, query: Select[*tuple[Any, ...]]
    ) -> tuple[tuple[Row, ...], str]:
        """The rows, and why there are none: it takes too long, or is not allowed after all."""
        try:
            with connection.begin_nested():
                found = connection.execute(query).all()
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            return (), " ".join(str(error.orig).split())
        return tuple(dict(zip(self._names, row, strict=True)) for row in found), ""


def _quoted(connection: Connection, name: str) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(name)
