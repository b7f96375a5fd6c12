"""The fence in the legacy database: one owner for each instrument, whoever writes (DESIGN.md
section 8).

`fence.sql` says how it works; here it is put in, taken out, read and moved. Moving it is step 2 of
a flip: from the commit on no transaction of the other side can write a row of the instrument, and
the marker in the change stream comes after the last one that did.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Literal, LiteralString

import msgspec
import psycopg
from psycopg import AsyncConnection, errors, sql
from psycopg.rows import TupleRow

from bridge.errors import BridgeError, FenceBusy, FenceNotInstalled, FenceUnknown, StaleEpoch
from bridge.fence_rows import expressions
from bridge.limits import FENCE_TIMEOUT_MARGIN_S
from shadow.errors import ShadowError
from shadow.legacy import polling_slots
from shadow.legacy.database import connected, table, target
from shadow.legacy.mapping import Mapping
from shadow.legacy.slots import drop_slot
from shadow.legacy.snapshot import emit
from shadow.legacy.symbols import resolved, tables_of, values_of
from shadow.limits import SLOT_BUSY_S

ADVISORY_KEY = 0x52535743 >> 1  # our half of PostgreSQL's two-integer advisory locks
Owner = Literal["legacy", "engine"]

# Triggers that would let a writer through, who may be one that calls himself a replica.
_UNGUARDED = """
    SELECT t.name, g.name FROM unnest(%s::text[]) AS t (name),
        (VALUES ('railswitch_guard'), ('railswitch_guard_truncate')) AS g (name)
    WHERE NOT EXISTS (
        SELECT FROM pg_trigger WHERE tgrelid = to_regclass(t.name) AND tgname = g.name
            AND tgenabled = 'A')
    LIMIT 1"""
_UNKNOWN = "it was committing, and may have or not: read the fence before going on"
_ROLE_COMMENT = "made by railswitch legacy install"
_CREATE_ROLE = """
-- The role that reads, replicates, and is recognised as our writer; give it a password or a
-- certificate. Needs a superuser, or CREATEROLE and REPLICATION.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = {role_text}) THEN
        CREATE ROLE {role} LOGIN REPLICATION;
        COMMENT ON ROLE {role} IS {role_comment};
    END IF;
END
$$;
"""


class FenceRow(msgspec.Struct, frozen=True, kw_only=True):
    symbol: str
    owner: Owner
    epoch: int
    flip_id: int


def install_sql(
    mapping: Mapping,
    publication: str,
    role: str,
    *,
    create_role: bool = True,
    instruments: Sequence[str] = (),
) -> str:
    """For the owner of the legacy tables; may be run again. `create_role`: where it is missing.

    `instruments`: tables that the mapping's instruments were read from. Raises BridgeError for
    one that has not been read; `plan` reads it.
    """
    rows = expressions(mapping) | {"instrument_tables": _tables(instruments, "{}::regclass")}
    return _filled("fence.sql", mapping, publication, role, create_role=create_role, rows=rows)


def polling_sql(mapping: Mapping, role: str) -> str:
    """For a database without logical decoding, after `install_sql`; may be run again."""
    return _filled("polling.sql", mapping, "", role, create_role=False)


def uninstall_sql(mapping: Mapping, publication: str, role: str) -> str:
    """Refuses while the engine owns an instrument. The replication slot is dropped apart."""
    return _filled("fence_uninstall.sql", mapping, publication, role, create_role=False)


async def plan(
    install_url: str, mapping: Mapping, publication: str, role: str, *, polling: bool = False
) -> str:
    """`install_sql` for this database: it creates the role only if there is none. With `polling`,
    `polling_sql` too.
    """
    async with _connection(install_url) as connection:
        cursor = await connection.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
        missing = await cursor.fetchone() is None
        instruments = tables_of(mapping)
        mapping = await resolved(install_url, mapping)
    script = install_sql(mapping, publication, role, create_role=missing, instruments=instruments)
    return f"{script}\n{polling_sql(mapping, role)}" if polling else script


async def install(
    install_url: str, mapping: Mapping, publication: str, role: str, *, polling: bool = False
) -> None:
    """Runs it. Raises FenceBusy when a table stayed locked, BridgeError for all else."""
    script = await plan(install_url, mapping, publication, role, polling=polling)
    await _run(install_url, script, mapping)


async def uninstall(
    install_url: str,
    mapping: Mapping,
    publication: str,
    role: str,
    *,
    url: str,
    slot: str,
    busy_s: float = SLOT_BUSY_S,
) -> None:
    """Leaves no trace. `url` is the role's own: it drops the slot, once nobody reads it.

    Raises BridgeError, with nothing changed while the engine owns an instrument.
    """
    await _require_legacy_owns_all(install_url)
    try:
        await drop_slot(url, slot, busy_s=busy_s)
        await polling_slots.drop_slot(url, slot, busy_s=busy_s)
    except ShadowError as error:
        raise BridgeError(str(error)) from error
    await _run(install_url, uninstall_sql(mapping, publication, role), mapping)


async def read(url: str) -> dict[str, FenceRow]:
    """Every instrument that has a row; all others are legacy's at epoch 0."""
    async with _connection(url) as connection:
        with _translated(url, "reading the fence"):
            cursor = await connection.execute(
                "SELECT symbol, owner, epoch, flip_id FROM railswitch.fence"
            )
            rows = await cursor.fetchall()
    return {
        symbol: FenceRow(symbol=symbol, owner=owner, epoch=epoch, flip_id=flip_id)
        for symbol, owner, epoch, flip_id in rows
    }


def _named(mapping: Mapping) -> list[str]:
    return [table(one).as_string() for one in (mapping.orders.table, mapping.fills.table)]


async def unguarded(url: str, mapping: Mapping, symbol: str) -> str:
    """Why the guard would not know every row of the instrument for what it is; "" when it does.

    Its triggers may be gone or disabled, and it knows the instruments of another table as they were
    when it was installed. `mapping` is resolved. Raises BridgeError.
    """
    tables = (("orders", mapping.orders.symbol), ("fills", mapping.fills.symbol))
    async with _connection(url) as connection:
        with _translated(url, "reading the fence"):
            cursor = await connection.execute(_UNGUARDED, [_named(mapping)])
            bare = await cursor.fetchone()
        if bare is not None:
            return (
                f"trigger {bare[1]} of {bare[0]} is not there, or not ENABLE ALWAYS: the monolith"
                " could write while the engine answers; run `railswitch legacy install --execute`"
            )
        for kind, column in tables:
            values = values_of(column, symbol)
            if not values:
                return f"mapping.{kind}.symbol has no value for {symbol}"
            if not column.map:
                continue
            with _translated(url, "reading the fence"):
                cursor = await connection.execute(
                    "SELECT value FROM unnest(%s::text[]) AS value"
                    " WHERE railswitch.instrument_of(%s, value) IS DISTINCT FROM %s",
                    [list(values), kind, symbol],
                )
                unknown = await cursor.fetchone()
            if unknown is not None:
                return (
                    f"the fence was installed before {column.column} = {unknown[0]!r} was {symbol}:"
                    " run `railswitch legacy install --execute` again"
                )
    return ""


async def take(
    where: str | AsyncConnection[TupleRow],
    *,
    symbol: str,
    owner: Owner,
    epoch: int,
    flip_id: int,
    timeout_ms: int,
) -> None:
    """Makes `owner` the only one who can write rows of the instrument, and marks the change stream.

    Waits for the transactions that have written such rows; later ones wait behind it. Taken again
    with the same values it changes nothing and marks again. A flip may give back what it took, at
    its own epoch; otherwise (epoch, flip_id) must grow.

    `where`: the role's own URL, or an idle connection in autocommit mode. Raises StaleEpoch,
    FenceBusy (not taken in time), FenceNotInstalled, BridgeError: the fence is as it was. Raises
    FenceUnknown when the database fell silent while committing: only `read` can tell. A connection
    that fell silent is closed.
    """
    wanted = FenceRow(symbol=symbol, owner=owner, epoch=epoch, flip_id=flip_id)
    if isinstance(where, str):
        async with _connection(where) as connection:
            await _take_in_time(connection, wanted, timeout_ms)
    else:
        await _take_in_time(where, wanted, timeout_ms)


async def _take_in_time(
    connection: AsyncConnection[TupleRow], wanted: FenceRow, timeout_ms: int
) -> None:
    work = asyncio.create_task(_take(connection, wanted, timeout_ms))
    try:
        await asyncio.wait({work}, timeout=timeout_ms / 1000 + FENCE_TIMEOUT_MARGIN_S)
    finally:
        fell_silent = not work.done()
        if fell_silent:
            # Not cancelled: that would wait for an answer from who doesn't give one.
            _hang_up(connection)
            await asyncio.wait({work})
    if not fell_silent:
        return work.result()
    error = work.exception()
    silent = f"the legacy database has not answered for {timeout_ms} ms"
    if error is None or isinstance(error, FenceUnknown):
        raise FenceUnknown(f"{_giving(wanted)}: {silent}; {_UNKNOWN}") from error
    raise BridgeError(f"{_giving(wanted)}: {silent}; nothing was changed") from error


async def _take(connection: AsyncConnection[TupleRow], wanted: FenceRow, timeout_ms: int) -> None:
    what = _giving(wanted)
    committing = False
    try:
        async with connection.transaction():
            await connection.execute(
                sql.SQL(
                    "SET TRANSACTION ISOLATION LEVEL READ COMMITTED;"
                    "SET LOCAL lock_timeout = {};"
                    # An answer of ours must outlive a crash, whatever the role's default is.
                    "SELECT set_config('synchronous_commit', 'on', true)"
                    " WHERE current_setting('synchronous_commit') IN ('off', 'local')"
                ).format(sql.Literal(timeout_ms))
            )
            await connection.execute(
                "SELECT pg_advisory_xact_lock(%s, hashtext(%s::text))",
                [ADVISORY_KEY, wanted.symbol],
            )
            await _move(connection, wanted)
            committing = True
    except errors.LockNotAvailable as error:
        raise FenceBusy(
            f"{what}: within {timeout_ms} ms not all who write its rows had ended:"
            f" {await _writers(connection, wanted.symbol)}; end them, or try again"
        ) from error
    except psycopg.OperationalError as error:
        if committing:
            raise FenceUnknown(f"{what}: the connection was lost; {_UNKNOWN}") from error
        raise BridgeError(f"{what}: {_said(error)}; nothing was changed") from error
    except psycopg.Error as error:
        raise _error(error, what) from error


def _giving(wanted: FenceRow) -> str:
    return f"giving the fence of {wanted.symbol} to {wanted.owner} at epoch {wanted.epoch}"


async def _move(connection: AsyncConnection[TupleRow], wanted: FenceRow) -> None:
    cursor = await connection.execute(
        "SELECT owner, epoch, flip_id FROM railswitch.fence WHERE symbol = %s FOR UPDATE",
        [wanted.symbol],
    )
    row = await cursor.fetchone()
    owner, epoch, flip_id = row or ("legacy", 0, 0)
    if row is not None and not _may_move(owner, epoch, flip_id, wanted):
        raise StaleEpoch(
            f"{wanted.symbol} was given to {owner} at epoch {epoch} by flip {flip_id}; flip"
            f" {wanted.flip_id} at epoch {wanted.epoch} comes too late and must be given up"
        )
    await connection.execute(
        "INSERT INTO railswitch.fence (symbol, owner, epoch, flip_id) VALUES (%s, %s, %s, %s)"
        " ON CONFLICT (symbol) DO UPDATE SET (owner, epoch, flip_id, changed_at)"
        " = (excluded.owner, excluded.epoch, excluded.flip_id, clock_timestamp())",
        [wanted.symbol, wanted.owner, wanted.epoch, wanted.flip_id],
    )
    await emit(connection, {"kind": "fence", **msgspec.structs.asdict(wanted)})


def _may_move(owner: str, epoch: int, flip_id: int, wanted: FenceRow) -> bool:
    if (wanted.epoch, wanted.flip_id) == (epoch, flip_id):
        # Again, or the flip gives it back. Never forward again: whoever gave it back has decided.
        return wanted.owner in (owner, "legacy")
    return (wanted.epoch, wanted.flip_id) > (epoch, flip_id)


async def _writers(connection: AsyncConnection[TupleRow], symbol: str) -> str:
    return await _pids(
        connection,
        """
        SELECT pid FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND classid = %s::oid AND objsubid = 2
          AND objid = (hashtext(%s::text)::bigint & 4294967295)::oid
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
        [ADVISORY_KEY, symbol],
    )


async def _holders(connection: AsyncConnection[TupleRow], tables: tuple[str, ...]) -> str:
    return await _pids(
        connection,
        """
        SELECT pid FROM pg_locks
        WHERE granted AND pid <> pg_backend_pid()
          AND relation = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) name)
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())""",
        [[table(name).as_string() for name in tables]],
    )


async def _pids(connection: AsyncConnection[TupleRow], query: str, values: list[object]) -> str:
    """The processes that a query finds, with their roles, for an error's message."""
    named = sql.SQL(
        "SELECT 'pid ' || pid || coalesce(' (' || usename || ')', '')"
        " FROM ({}) l LEFT JOIN pg_stat_activity USING (pid)"
        " GROUP BY pid, usename ORDER BY pid LIMIT 5"
    ).format(sql.SQL(query))
    try:
        cursor = await connection.execute(named, values)
        found = [row[0] for row in await cursor.fetchall()]
    except psycopg.Error:
        return "processes that can't be asked for now"
    return ", ".join(found) or "processes that have just ended"


def _hang_up(connection: AsyncConnection[TupleRow]) -> None:
    """Shuts the socket down, so that whoever waits for an answer on it stops waiting."""
    try:
        with socket.socket(fileno=os.dup(connection.fileno())) as wire:
            wire.shutdown(socket.SHUT_RDWR)
    except (OSError, psycopg.Error):
        pass  # gone already


async def _require_legacy_owns_all(url: str) -> None:
    try:
        rows = await read(url)
    except FenceNotInstalled:
        return
    held = sorted(one.symbol for one in rows.values() if one.owner == "engine")
    if held:
        raise BridgeError(
            f"the matching engine owns {', '.join(held)}: without the fence, legacy would match its"
            " orders too; take it back with `railswitch rollback` first"
        )


async def _run(install_url: str, script: str, mapping: Mapping) -> None:
    async with _connection(install_url) as connection:
        try:
            await connection.execute(script.encode())
        except errors.LockNotAvailable as error:
            await connection.execute("ROLLBACK")
            tables = (mapping.orders.table, mapping.fills.table)
            raise FenceBusy(
                f"{' or '.join(tables)} stayed locked for 2 s, by"
                f" {await _holders(connection, tables)}; nothing was changed: end them, or try"
                " again when it is quieter"
            ) from error
        except psycopg.Error as error:
            hint = f" ({error.diag.message_hint})" if error.diag.message_hint else ""
            raise BridgeError(
                f"{target(install_url)}: {_said(error)}{hint}; nothing was changed"
            ) from error


@asynccontextmanager
async def _connection(url: str) -> AsyncIterator[AsyncConnection[TupleRow]]:
    try:
        async with connected(url) as connection:
            yield connection
    except ShadowError as error:
        raise BridgeError(str(error)) from error


@contextmanager
def _translated(url: str, doing: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise _error(error, f"{doing} in {target(url)}") from error


def _error(error: psycopg.Error, doing: str) -> BridgeError:
    missing = errors.UndefinedTable | errors.UndefinedFunction | errors.InvalidSchemaName
    if isinstance(error, missing):
        return FenceNotInstalled(
            f"{doing}: the fence is not installed; run `railswitch legacy install --execute`"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return FenceNotInstalled(
            f"{doing}: {_said(error)}; `railswitch legacy install --execute` grants what is needed"
        )
    return BridgeError(f"{doing}: {_said(error)}")


def _said(error: psycopg.Error) -> str:
    return error.diag.message_primary or str(error).strip()


def _filled(
    name: str,
    mapping: Mapping,
    publication: str,
    role: str,
    *,
    create_role: bool,
    rows: dict[str, sql.Composable] | None = None,
) -> str:
    orders, fills = mapping.orders, mapping.fills
    names: dict[str, sql.Composable] = {
        "role": sql.Identifier(role),
        "role_text": sql.Literal(role),
        "role_comment": sql.Literal(_ROLE_COMMENT),
        "publication": sql.Identifier(publication),
        "publication_text": sql.Literal(publication),
        "orders": table(orders.table),
        "orders_text": sql.Literal(table(orders.table).as_string()),
        "orders_id_text": sql.Literal(orders.id.column),
        "id_sequence_text": sql.Literal(
            table(orders.id_sequence).as_string() if orders.id_sequence else None
        ),
        "fills": table(fills.table),
        "fills_text": sql.Literal(table(fills.table).as_string()),
        "fills_id_text": sql.Literal(fills.id.column),
        "tables": sql.SQL(", ").join((table(orders.table), table(fills.table))),
        "funds_tables": _funds_tables(mapping, "{}::regclass"),
        "funds_tables_there": _funds_tables(mapping, "to_regclass({})"),
        "instrument_tables_there": _tables(tables_of(mapping), "to_regclass({})"),
        "key": sql.Literal(ADVISORY_KEY),
    }
    role_sql = sql.SQL(_CREATE_ROLE).format(**names) if create_role else sql.SQL("")
    script = Path(__file__).with_name(name).read_text()
    return sql.SQL(script).format(**names, **(rows or {}), create_role=role_sql).as_string()


def _funds_tables(mapping: Mapping, each: LiteralString) -> sql.Composable:
    accounts = mapping.accounts
    named = (accounts.table, *accounts.others) if mapping.funds == "legacy" else ()
    return _tables(named, each)


def _tables(names: Sequence[str], each: LiteralString) -> sql.Composable:
    tables = (sql.SQL(each).format(sql.Literal(table(one).as_string())) for one in names)
    return sql.SQL("ARRAY[{}]::regclass[]").format(sql.SQL(", ").join(tables))
