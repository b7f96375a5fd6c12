"""Money for live orders, reserved in the monolith's accounts before the engine has them.

Whoever waits is served in batches, a transaction each. An order's reservation is a row of ours,
inserted in the transaction that locks its money: whatever is tried again, or dies when, it is
locked once. A reservation that the engine never hears of is released only when that is certain:

- the command was not sent, or was refused because the instrument has moved on: at once;
- the process died, or the engine's answer was lost: when a later command of the same session has
  been sequenced, and the write-back has come past it;
- anything else: by the write-back, at the instrument's next epoch.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from bridge.errors import FundsFailed
from bridge.funds import Funds, taken, void
from bridge.limits import (
    ENGINE_ANSWER_S,
    FUNDS_ANSWER_S,
    FUNDS_BATCH_MAX,
    FUNDS_CONNECTIONS_MAX,
    FUNDS_LEFT_LOOK_S,
    FUNDS_TRIES,
)
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.reply import Fate, Reply, unavailable
from bridge.proxy.desk.session import Engine
from bridge.store import first_line
from engine.errors import EngineError
from engine.types import Command, CommandKind, OrderType, Side
from shadow.errors import LegacyUnavailable
from shadow.legacy import database, funds
from shadow.legacy.convert import Scale
from shadow.legacy.funds import Reservation
from shadow.legacy.mapping import Accounts, Route
from shadow.normalise import Refusal

_log = logging.getLogger(__name__)
_Connection = psycopg.AsyncConnection[TupleRow]
_Cursor = psycopg.AsyncCursor[TupleRow]
_TROUBLE = (psycopg.Error, LegacyUnavailable, FundsFailed, OSError, TimeoutError)
_NO_ORDER = 2**63 - 1  # no sequence comes so far

_INSERT = """
    INSERT INTO railswitch.reservations (order_id, symbol, epoch, account, side, price, quantity,
        amount, session, worker, state)
    SELECT u.*, %s, %s, 'reserved' FROM unnest(%s::bigint[], %s::text[], %s::bigint[],
        %s::bigint[], %s::smallint[], %s::numeric[], %s::numeric[], %s::numeric[]) AS u
    ORDER BY 1 ON CONFLICT DO NOTHING RETURNING order_id"""
_LEFT = """
    SELECT order_id, symbol, epoch FROM railswitch.reservations
    WHERE state = 'reserved' AND session = %s AND (worker <> %s OR order_id = ANY (%s))"""


class _Waiting:
    def __init__(self, command: Command, scale: Scale) -> None:
        limit_ticks = None if command.ord_type == OrderType.MARKET else command.price_ticks
        amount = funds.amount_of(scale, command.side, limit_ticks, command.qty_lots)
        assert amount is not None, "a market order to buy is refused beforehand"
        self.reservation = Reservation(
            order_id=command.order_id,
            symbol=scale.symbol,
            account=command.account,
            side=command.side,
            price=None if limit_ticks is None else scale.price(limit_ticks),
            quantity=scale.quantity(command.qty_lots),
            amount=amount,
        )
        self.epoch = command.epoch
        self.begun = False
        self.given_up = False
        # True: reserved, False: the account can't pay. None: it is not known, or could not be done.
        self.done: asyncio.Future[bool | None] = asyncio.get_running_loop().create_future()

    def tell(self, reserved: bool | None) -> None:
        if not self.done.done():
            self.done.set_result(reserved)


def can_reserve(command: Command) -> bool:
    """What a market order to buy costs, only the market can tell."""
    return command.ord_type != OrderType.MARKET or command.side == Side.SELL


def no_market_buys(dialect: Dialect, route: Route) -> Reply:
    errors = ((route.leaf("ord_type"), "can't be market for a buy order: give a price"),)
    refusal = Refusal(status=HTTPStatus.UNPROCESSABLE_ENTITY, errors=errors)
    return Reply(*dialect.render_refusal(refusal), Fate.REFUSED)


class LiveFunds:
    def __init__(
        self,
        url: str,
        accounts: Accounts,
        scales: Iterable[Scale],
        *,
        session: str,
        worker: str,
        shard: int,
    ) -> None:
        """`session`: this worker's with the engine, which outlives the process; `worker`: this
        process's own name.
        """
        self._url = _bounded(url)
        self._funds = Funds(accounts)
        self._scales = {scale.instrument: scale for scale in scales}
        self._session, self._worker, self._shard = session, worker, shard
        self._queue: deque[_Waiting] = deque()
        self._idle: list[_Connection] = []
        self._serving = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._never_sent: set[int] = set()
        self._unknown: set[int] = set()

    async def reserve(self, commands: Sequence[Command]) -> list[Reply | None]:
        """None for each that may be sent: its money is locked, durably. Within FUNDS_ANSWER_S."""
        waiting = [_Waiting(one, self._scales[one.instrument]) for one in commands]
        if not waiting:
            return []
        self._queue.extend(waiting)
        if self._serving < FUNDS_CONNECTIONS_MAX:
            self._serving += 1
            self._spawn(self._serve())
        await asyncio.wait([one.done for one in waiting], timeout=FUNDS_ANSWER_S)
        doubtful = [one for one in waiting if not one.done.done() or one.done.result() is None]
        for one in doubtful:
            one.given_up = True
        begun = [one.reservation.order_id for one in doubtful if one.begun]
        if begun:
            self._never_sent.update(begun)
            self._spawn(self._void())
        return [self._told(one) for one in waiting]

    async def give_back(self, order_ids: Sequence[int]) -> None:
        """The engine has not got these orders, and never will. What can't be done at once is done
        later.
        """
        if order_ids:
            self._never_sent.update(order_ids)
            await asyncio.wait((self._spawn(self._void()),), timeout=FUNDS_ANSWER_S)

    def note_unknown(self, order_ids: Iterable[int]) -> None:
        """Nobody knows whether the engine has these orders; `tend` finds it out."""
        self._unknown.update(order_ids)

    async def tend(self, engine: Engine) -> None:
        """Until cancelled: releases what a dead process, or a lost answer, has left reserved."""
        has_looked, said = False, ""
        while True:
            try:
                if self._never_sent:
                    await self._void_now()
                if self._unknown or not has_looked:
                    await self._release_left(engine)
                    has_looked = True
                said = ""
            except (*_TROUBLE, EngineError) as error:
                if str(error) != said:
                    _log.warning("reservations that may be left wait: %s", first_line(error))
                said = str(error)
            await asyncio.sleep(FUNDS_LEFT_LOOK_S)

    async def close(self) -> None:
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        while self._idle:
            await self._idle.pop().close()

    # Reserving

    def _told(self, one: _Waiting) -> Reply | None:
        reserved = one.done.result() if one.done.done() and not one.given_up else None
        if reserved is None:
            return unavailable()
        refusal = self._funds.accounts.refusal
        return None if reserved else Reply(refusal.status, refusal.body.encode(), Fate.REFUSED)

    async def _serve(self) -> None:
        """Batch after batch, on one connection at a time."""
        try:
            while batch := self._next_batch():
                await self._reserve(batch)
        finally:
            self._serving -= 1

    def _next_batch(self) -> list[_Waiting]:
        batch: list[_Waiting] = []
        while self._queue and len(batch) < FUNDS_BATCH_MAX:
            one = self._queue.popleft()
            if not one.given_up:
                one.begun = True
                batch.append(one)
        batch.sort(key=lambda one: (one.reservation.account, one.reservation.order_id))
        return batch

    async def _reserve(self, batch: Sequence[_Waiting]) -> None:
        for _ in range(FUNDS_TRIES):
            if all(one.given_up for one in batch):
                break
            try:
                async with self._cursor() as cursor:
                    lacking = await self._reserve_in(cursor, batch)
            except psycopg.OperationalError as error:
                _log.warning("reserving again: %s", first_line(error))
                continue
            except (LegacyUnavailable, OSError) as error:
                _log.warning("%s", error)
                break
            except _TROUBLE as error:
                await self._reserve_apart(batch, error)
                return
            for one in batch:
                one.tell(one.reservation.order_id not in lacking)
            return
        for one in batch:
            one.tell(None)

    async def _reserve_apart(self, batch: Sequence[_Waiting], error: Exception) -> None:
        """One of them fails: not the others with it."""
        if len(batch) > 1:
            for one in batch:
                await self._reserve([one])
        elif isinstance(error.__cause__, psycopg.errors.CheckViolation):
            batch[0].tell(False)
        else:
            _log.error("%s", first_line(error))
            batch[0].tell(None)

    async def _reserve_in(self, cursor: _Cursor, batch: Sequence[_Waiting]) -> set[int]:
        """The orders that their accounts can't pay for."""
        new = await self._insert(cursor, batch)
        fresh = [one.reservation for one in batch if one.reservation.order_id in new]
        if not fresh:
            return set()  # tried before, and it had worked
        if len(fresh) > 1:
            await self._funds.lock(cursor, (one.account for one in fresh))
        values = [funds.reservation_values(one, self._funds.accounts) for one in fresh]
        counts = await self._funds.run(cursor, "reserve", values)
        lacking = {one.order_id for one, count in zip(fresh, counts, strict=True) if not count}
        if lacking:
            await cursor.execute(
                "DELETE FROM railswitch.reservations WHERE order_id = ANY (%s)", (list(lacking),)
            )
        return lacking

    async def _insert(self, cursor: _Cursor, batch: Sequence[_Waiting]) -> set[int]:
        made = [one.reservation for one in batch]
        await cursor.execute(
            _INSERT,
            (
                self._session,
                self._worker,
                [one.order_id for one in made],
                [one.symbol for one in made],
                [one.epoch for one in batch],
                [one.account for one in made],
                [int(one.side) for one in made],
                [one.price for one in made],
                [one.quantity for one in made],
                [one.amount for one in made],
            ),
        )
        return {order_id for (order_id,) in await cursor.fetchall()}

    # Releasing

    async def _void(self) -> None:
        try:
            await self._void_now()
        except _TROUBLE as error:
            _log.warning("reservations are released later: %s", first_line(error))

    async def _void_now(self) -> None:
        ids = tuple(sorted(self._never_sent))
        async with self._cursor() as cursor:
            reserved = await void(cursor, ids, self._session, self._worker)
            await self._funds.release(cursor, reserved)
        self._never_sent.difference_update(ids)

    async def _release_left(self, engine: Engine) -> None:
        unknown = tuple(self._unknown)
        async with self._cursor() as cursor:
            await cursor.execute(_LEFT, (self._session, self._worker, list(unknown)))
            left = await cursor.fetchall()
        if left:
            await self._written_past(engine, left[0][1], left[0][2])
            async with self._cursor() as cursor:
                ids = [order_id for order_id, _, _ in left]
                reserved = await taken(cursor, "order_id = ANY (%s)", (ids,))
                await self._funds.release(cursor, reserved)
            _log.warning("%d orders never reached the engine: their money is free", len(reserved))
        self._unknown.difference_update(unknown)

    async def _written_past(self, engine: Engine, symbol: str, epoch: int) -> None:
        """Returns when everything that this session has ever sent is written back, or never
        happens: a session's commands are sequenced in their order.
        """
        by_symbol: Mapping[str, int] = {
            scale.symbol: number for number, scale in self._scales.items()
        }
        last = Command(
            kind=CommandKind.CANCEL,
            instrument=by_symbol.get(symbol, 0),
            epoch=epoch,
            account=_NO_ORDER,
            order_id=_NO_ORDER,
        )
        (answer,) = await engine.send([last], timeout_s=ENGINE_ANSWER_S)
        if not answer.seq:
            raise FundsFailed("the engine can't say how far this session has come")
        while True:
            async with self._cursor() as cursor:
                query = "SELECT seq FROM railswitch.written WHERE shard = %s"
                await cursor.execute(query, (self._shard,))
                row: Any = await cursor.fetchone()
            if row is not None and row[0] >= answer.seq:
                return
            await asyncio.sleep(FUNDS_LEFT_LOOK_S)

    # Connections

    @asynccontextmanager
    async def _cursor(self) -> AsyncIterator[_Cursor]:
        """Of one transaction, committed at the end."""
        connection = self._idle.pop() if self._idle else await database.connect(self._url)
        try:
            async with connection.transaction(), connection.cursor() as cursor:
                yield cursor
        except (psycopg.OperationalError, psycopg.InterfaceError, asyncio.CancelledError):
            await connection.close()
            raise
        finally:
            if not connection.closed:
                self._idle.append(connection)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _bounded(url: str) -> str:
    """No transaction outlives the patience of its client: it would keep accounts locked."""
    patience_ms = int(1000 * FUNDS_ANSWER_S)
    given = str(conninfo_to_dict(url).get("options") or "")
    options = (
        f"{given} -c synchronous_commit=on -c statement_timeout={patience_ms}"
        f" -c idle_in_transaction_session_timeout={patience_ms}"
    )
    return make_conninfo(url, options=options.strip(), application_name="railswitch funds")
