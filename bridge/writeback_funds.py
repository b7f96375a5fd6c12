"""Settles what live orders have locked in the monolith's accounts, in the write-back's own
transaction: exactly once, by its watermark.

The orders are locked already, as in the monolith; the accounts come after them, sorted.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import psycopg
from psycopg import sql

from bridge.errors import FundsFailed, WriteBackStopped
from bridge.funds import Funds, Reserved, forget, taken
from bridge.funds_moves import Moves, Released, moves_of
from bridge.limits import RESERVATIONS_KEPT_S
from bridge.writeback_rows import Frame
from shadow.legacy import database, funds
from shadow.legacy.convert import Scale
from shadow.legacy.funds import Reservation
from shadow.legacy.mapping import Mapping as LegacyMapping

_log = logging.getLogger(__name__)
_Cursor = psycopg.AsyncCursor[dict[str, Any]]


class FundsWriter:
    def __init__(self, mapping: LegacyMapping, scales: Mapping[int, Scale]) -> None:
        self._funds = Funds(mapping.accounts)
        self._mapping = mapping
        self._scales = scales
        self._forget_at_s = 0.0
        self._by_symbol = {scale.symbol: scale for scale in scales.values()}

    def moves(self, frames: Iterable[Frame]) -> Moves:
        return moves_of(
            frames,
            self._scales,
            maker_rule=self._mapping.fills.maker_rule,
            release_filled=self._mapping.accounts.release_filled,
        )

    async def write(self, cursor: _Cursor, moves: Moves, fill_ids: Sequence[int]) -> None:
        """`fill_ids` are the monolith's, in the order of the fills. Raises WriteBackStopped."""
        try:
            await self._write(cursor, await self._with_accounts(cursor, moves), fill_ids)
        except FundsFailed as error:
            raise WriteBackStopped(str(error)) from error

    async def _write(self, cursor: _Cursor, moves: Moves, fill_ids: Sequence[int]) -> None:
        late = await self._not_reserved(cursor, moves.opened)
        refused = []
        if moves.refused:
            refused = await taken(cursor, "order_id = ANY (%s)", (list(moves.refused),))
        for symbol, epoch in moves.ended:
            refused += await taken(cursor, "symbol = %s AND epoch < %s", (symbol, epoch))
        await self._funds.lock(cursor, _accounts(moves, refused, late))
        await self._reserve_late(cursor, late)
        await self._open(cursor, moves.opened)
        await self._settle(cursor, moves, fill_ids)
        await self._release(cursor, moves.released)
        await self._funds.release(cursor, refused)
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._forget_at_s:
            await forget(cursor)
            self._forget_at_s = now_s + RESERVATIONS_KEPT_S / 10

    async def _with_accounts(self, cursor: _Cursor, moves: Moves) -> Moves:
        """Those of orders whose rows were there before; these are locked already."""
        missing = moves.without_account
        if not missing:
            return moves
        orders = self._mapping.orders
        query = sql.SQL("SELECT {id} AS id, {account} AS account FROM {table}").format(
            id=sql.Identifier(orders.id.column),
            account=sql.Identifier(orders.account.column),
            table=database.table(orders.table),
        ) + sql.SQL(" WHERE {} = ANY (%s)").format(sql.Identifier(orders.id.column))
        await cursor.execute(query, (list(missing),))
        accounts = {row["id"]: row["account"] for row in await cursor.fetchall()}
        if missing - accounts.keys():
            raise WriteBackStopped(
                f"{orders.table} has no order {min(missing - accounts.keys())}, which traded: "
                "compare the books before anything else"
            )
        return msgspec.structs.replace(
            moves,
            fills=tuple(
                one if one.account else one._replace(account=accounts[one.order_id])
                for one in moves.fills
            ),
            released=tuple(
                one if one.account else one._replace(account=accounts[one.order_id])
                for one in moves.released
            ),
        )

    async def _not_reserved(
        self, cursor: _Cursor, opened: Sequence[Reservation]
    ) -> list[Reservation]:
        """The engine has these orders now: what they locked is told by them from here on."""
        if not opened:
            return []
        await cursor.execute(
            "DELETE FROM railswitch.reservations WHERE order_id = ANY (%s) AND state = 'reserved'"
            " RETURNING order_id",
            ([one.order_id for one in opened],),
        )
        known = {row["order_id"] for row in await cursor.fetchall()}
        return [one for one in opened if one.order_id not in known]

    async def _reserve_late(self, cursor: _Cursor, late: Sequence[Reservation]) -> None:
        """Somebody has sent orders to the engine without reserving: it must be made up for."""
        if not late:
            return
        _log.error(
            "%d orders from %d on were entered without a reservation: see that nobody but the "
            'proxy sends orders to the engine, and that every proxy runs with funds = "legacy"',
            len(late),
            late[0].order_id,
        )
        values = [funds.reservation_values(one, self._funds.accounts) for one in late]
        for one, count in zip(late, await self._funds.run(cursor, "reserve", values), strict=True):
            if not count:
                raise WriteBackStopped(
                    f"order {one.order_id} of account {one.account} was entered without a "
                    f"reservation, and the account lacks the {one.amount} that it locks: provide "
                    "for it there, and the write-back goes on"
                )

    async def _open(self, cursor: _Cursor, opened: Sequence[Reservation]) -> None:
        if opened and self._funds.has("opened"):
            values = [funds.reservation_values(one, self._funds.accounts) for one in opened]
            counts = await self._funds.run(cursor, "opened", values)
            for one, count in zip(opened, counts, strict=True):
                _demand(count >= 1, "opened", one.order_id, count, "at least 1")

    async def _settle(self, cursor: _Cursor, moves: Moves, fill_ids: Sequence[int]) -> None:
        accounts = self._funds.accounts
        if not moves.fills:
            return
        sides = [(one, fill_ids[n // 2]) for n, one in enumerate(moves.fills)]
        sides.sort(key=lambda side: side[0].account)
        values = [
            funds.settle_values(one, fill_id, self._by_symbol[one.symbol], accounts)
            for one, fill_id in sides
        ]
        counts = await self._funds.run(cursor, "settle", values)
        for (one, _), count in zip(sides, counts, strict=True):
            wanted = accounts.settle_rows
            _demand(count == wanted, "settle", one.order_id, count, str(wanted))

    async def _release(self, cursor: _Cursor, released: Sequence[Released]) -> None:
        if not released:
            return
        ordered = sorted(released, key=lambda one: one.account)
        values = [
            funds.release_values(
                one.order_id,
                one.symbol,
                one.account,
                one.side,
                one.amount,
                one.leaves,
                self._funds.accounts,
            )
            for one in ordered
        ]
        counts = await self._funds.run(cursor, "release", values)
        for one, count in zip(ordered, counts, strict=True):
            _demand(count >= 1, "release", one.order_id, count, "at least 1")


def _accounts(moves: Moves, refused: Sequence[Reserved], late: Sequence[Reservation]) -> set[int]:
    return {
        *(one.account for one in moves.opened),
        *(one.account for one in moves.fills),
        *(one.account for one in moves.released),
        *(one.account for one in refused),
        *(one.account for one in late),
    }


def _demand(is_so: bool, name: str, order_id: int, count: int, wanted: str) -> None:
    if not is_so:
        raise WriteBackStopped(
            f"mapping.accounts.{name} changed {count} rows for order {order_id}, and must change "
            f"{wanted}: an account is missing, or the statement does not find it; nothing was "
            "written"
        )
