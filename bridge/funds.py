"""The mapping's statements on the monolith's accounts, run within the transactions of whoever needs
them: the proxy that reserves, and the write-back that settles.

`railswitch.reservations` says what is locked for orders of which the engine has said nothing yet.
Whoever takes a row out of state "reserved" releases it, in the same transaction: nobody else does.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg

from bridge.errors import FundsFailed
from bridge.limits import RESERVATIONS_KEPT_S
from bridge.store import first_line
from shadow.legacy import funds
from shadow.legacy.mapping import Accounts

_PASSED_ON = (
    psycopg.OperationalError,  # deadlocks and serialisation failures among them
    psycopg.errors.UndefinedTable,
    psycopg.errors.InvalidSchemaName,
)
_COLUMNS = "order_id, symbol, account, side, quantity, amount"


class Reserved(NamedTuple):
    """A row that somebody has just taken out of state "reserved"."""

    order_id: int
    symbol: str
    account: int
    side: int
    quantity: Decimal
    amount: Decimal


class Funds:
    def __init__(self, accounts: Accounts) -> None:
        """Raises ValueError for statements that the check of the mapping would have named."""
        self.accounts = accounts
        self._statements = funds.statements(accounts)

    def has(self, name: str) -> bool:
        return name in self._statements

    async def lock(self, cursor: psycopg.AsyncCursor[Any], accounts: Iterable[int]) -> None:
        """In the monolith's own order, so that nobody waits for us in a circle."""
        values = {"accounts": sorted(set(accounts))}
        if values["accounts"]:
            await self.run(cursor, "lock", [values])

    async def run(
        self, cursor: psycopg.AsyncCursor[Any], name: str, values: Sequence[dict[str, Any]]
    ) -> list[int]:
        """How many rows each of them changed. Raises FundsFailed, naming the statement; what may
        pass (a deadlock, a lost connection) as psycopg's own error.
        """
        statement = self._statements[name]
        given = [{key: one[key] for key in statement.names} for one in values]
        try:
            if len(given) == 1:
                await cursor.execute(statement.query.encode(), given[0])
                return [cursor.rowcount]
            await cursor.executemany(statement.query.encode(), given, returning=True)
        except _PASSED_ON:
            raise
        except psycopg.Error as error:
            first = given[0].get("order_id", "?")
            of = f"order {first}" if len(given) == 1 else f"{len(given)} orders from {first} on"
            raise FundsFailed(
                f"mapping.accounts.{name} failed for {of}: {first_line(error)}"
            ) from error
        counts = [cursor.rowcount]
        while cursor.nextset():
            counts.append(cursor.rowcount)
        return counts

    async def release(self, cursor: psycopg.AsyncCursor[Any], reserved: Sequence[Reserved]) -> None:
        """All of what these orders locked. Raises FundsFailed for one that frees nothing."""
        if not reserved:
            return
        ordered = sorted(reserved, key=lambda one: (one.account, one.order_id))
        await self.lock(cursor, (one.account for one in ordered))
        counts = await self.run(
            cursor,
            "release",
            [
                funds.release_values(
                    one.order_id,
                    one.symbol,
                    one.account,
                    one.side,
                    one.amount,
                    one.quantity,
                    self.accounts,
                )
                for one in ordered
            ],
        )
        for one, count in zip(ordered, counts, strict=True):
            if not count:
                raise FundsFailed(
                    f"mapping.accounts.release of order {one.order_id} found no account "
                    f"{one.account} to free its money in: see that the statement finds its row"
                )


def trials(accounts: Accounts) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """What has PostgreSQL plan each statement, check our rights, and carry out nothing."""
    for name, statement in funds.statements(accounts).items():
        values = funds.example_values(name)
        query = f"EXPLAIN {statement.query}".encode()
        yield name, query, {key: values[key] for key in statement.names}


async def first_failing(connection: psycopg.AsyncConnection[Any], accounts: Accounts) -> str:
    """The statement that PostgreSQL would refuse, and why; "": none. Plans, and carries out
    nothing.
    """
    for name, query, values in trials(accounts):
        try:
            await connection.execute(query, values)
        except psycopg.OperationalError:
            raise
        except psycopg.Error as error:
            return f"mapping.accounts.{name}: {first_line(error)}"
    try:
        await connection.execute("SELECT FROM railswitch.reservations LIMIT 0")
    except psycopg.ProgrammingError as error:
        return (
            f"railswitch.reservations: {first_line(error)}; `railswitch legacy install --execute` "
            "makes it"
        )
    return ""


async def taken(
    cursor: psycopg.AsyncCursor[Any], condition: str, values: Sequence[Any]
) -> list[Reserved]:
    """Takes away the reservations that meet the condition (our own SQL), whose transactions have
    certainly ended.
    """
    query = (
        f"DELETE FROM railswitch.reservations WHERE state = 'reserved' AND ({condition})"
        f" RETURNING {_COLUMNS}"
    )
    await cursor.execute(query.encode(), values)
    return [_reserved(row) for row in await cursor.fetchall()]


async def void(
    cursor: psycopg.AsyncCursor[Any], ids: Sequence[int], session: str, worker: str
) -> list[Reserved]:
    """Takes these orders out of state "reserved", and lets no transaction that still runs reserve
    for them later: it is waited for, or finds its place taken.
    """
    await cursor.execute(
        "INSERT INTO railswitch.reservations (order_id, symbol, epoch, account, side,"
        " quantity, amount, session, worker, state)"
        " SELECT id, '', 0, 0, 1, 0, 0, %s, %s, 'released' FROM unnest(%s::bigint[]) AS u (id)"
        " ORDER BY id ON CONFLICT DO NOTHING",
        (session, worker, list(ids)),
    )
    await cursor.execute(
        "UPDATE railswitch.reservations SET state = 'released', reserved_at = clock_timestamp()"
        f" WHERE state = 'reserved' AND order_id = ANY (%s) RETURNING {_COLUMNS}".encode(),
        (list(ids),),
    )
    return [_reserved(row) for row in await cursor.fetchall()]


async def forget(cursor: psycopg.AsyncCursor[Any]) -> None:
    """What was released so long ago that nobody can come late for it any more."""
    await cursor.execute(
        "DELETE FROM railswitch.reservations WHERE state = 'released'"
        " AND reserved_at < clock_timestamp() - make_interval(secs => %s)",
        (RESERVATIONS_KEPT_S,),
    )


def _reserved(row: Any) -> Reserved:
    return Reserved(*(row.values() if isinstance(row, dict) else row))
