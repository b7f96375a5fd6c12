"""Orders that the engine answers, told in the monolith's words.

A command goes to the engine once, under one reference; when its answer is lost the client library
asks again for the same outcome. What stays unknown is told as unknown, and tried nowhere else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple, Protocol

import msgspec

from bridge.errors import LegacyLookupFailed
from bridge.limits import ENGINE_ANSWER_S, ENGINE_RETRY_AFTER_S, WRITTEN_ROW_S
from bridge.proxy.dialect import Dialect, Rendered, render_status
from bridge.proxy.exchange import Exchange
from bridge.proxy.ids import KnownOrder, LegacyOrders, OrderIds, OrderIndex
from bridge.stage import InstrumentStage
from engine.client import Answer, EngineClient
from engine.endpoint import Endpoint
from engine.errors import (
    Disconnected,
    EngineError,
    EngineUnavailable,
    LoginRefused,
    OutcomeUnknown,
    SessionTaken,
)
from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventKind
from shadow.answer import canceled, placed
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Route, Words
from shadow.normalise import Refusal, place_command
from shadow.operation import OrderImage

_log = logging.getLogger(__name__)

# The engine's way to say that our stage snapshot is behind.
_BEHIND = {Reason.STALE_EPOCH, Reason.INSTRUMENT_CLOSED, Reason.INSTRUMENT_IN_SHADOW}

# What stays refused however often it is sent: our name of the field ("base": none), and a message
# in Rails' manner. Limits of the running engine may be narrower than those that normalise knows.
_INVALID = {
    Reason.BAD_PRICE: ("price", "must be greater than 0"),
    Reason.PRICE_TOO_HIGH: ("price", "is too high"),
    Reason.BAD_QUANTITY: ("quantity", "must be greater than 0"),
    Reason.QUANTITY_TOO_LARGE: ("quantity", "is too large"),
    Reason.PRICE_TOO_LOW: ("price", "is too low"),
    Reason.PRICE_OFF_TICK: ("price", "must be a multiple of the tick size"),
    Reason.QUANTITY_OFF_LOT: ("quantity", "must be a multiple of the lot size"),
    Reason.NOTIONAL_TOO_LARGE: ("quantity", "is too large at this price"),
    Reason.ALREADY_EXPIRED: ("base", "has expired"),
    Reason.WOULD_TRADE: ("base", "would trade at once"),
}
_FORBIDDEN = {
    Reason.ACCOUNT_KILLED: "may not place orders",
    Reason.ACCOUNT_OPEN_ORDERS: "has too many open orders",
    Reason.ACCOUNT_OPEN_QUANTITY: "has too large an open quantity",
}
# Operators set these, or the market is as full as it may be: no defect of ours.
_LIMITS = {
    *(_INVALID.keys() - {Reason.BAD_PRICE, Reason.BAD_QUANTITY, Reason.ALREADY_EXPIRED}),
    *_FORBIDDEN,
    Reason.ACCOUNT_RATE,
    Reason.INSTRUMENT_HALTED,
    Reason.BOOK_FULL,
    Reason.LEVELS_FULL,
}


class Reply(NamedTuple):
    status: int
    body: bytes
    retry_after_s: int = 0  # 0: nothing is said


class Elsewhere(Enum):
    BEHIND = "behind"  # the engine answers for the instrument no longer, or not yet, at our epoch
    LEGACY = "legacy"  # nothing the engine knows of: the monolith answers


class Engine(Protocol):
    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]: ...


class WriteBarrier:
    """How far the write-back has come, and how far our own clients may expect it to be."""

    def __init__(self, shard: int) -> None:
        self._shard = shard
        self.answered = 0  # the newest sequence number that one of our answers told of
        self.written = 0
        self._waiting: list[tuple[int, asyncio.Future[None]]] = []

    def note_answered(self, seq: int) -> None:
        self.answered = max(self.answered, seq)

    def note_written(self, shard: int, seq: int) -> None:
        if shard != self._shard or seq <= self.written:
            return
        self.written = seq
        waiting, self._waiting = self._waiting, []
        for wanted, future in waiting:
            if wanted > seq:
                self._waiting.append((wanted, future))
            elif not future.done():
                future.set_result(None)

    async def wait(self, seq: int, within_s: float) -> bool:
        """Whether everything up to `seq` is written."""
        if self.written >= seq:
            return True
        entry = (seq, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            async with asyncio.timeout(within_s):
                await entry[1]
        except TimeoutError:
            return False
        finally:
            if entry in self._waiting:
                self._waiting.remove(entry)
        return True


class EngineSession:
    """This worker's session with the engine. The engine may be away when it begins, and later."""

    def __init__(self, engine: Endpoint, *, name: str, key: str) -> None:
        self._engine, self._name, self._key = engine, name, key
        self._client: EngineClient | None = None
        self._ready = asyncio.Event()
        self._ended = asyncio.Event()  # the client will not mend itself

    async def run(self) -> None:
        """Keeps a client logged in until it is cancelled."""
        said = ""
        while True:
            client = EngineClient.at(self._engine, name=self._name, key=self._key)
            try:
                await client.start()
                self._client = client
                self._ended.clear()
                self._ready.set()
                said = ""
                await self._ended.wait()
            except EngineError as error:
                if str(error) != said:
                    _log.warning("no session with the engine: %s", error)
                said = str(error)
            finally:
                self._ready.clear()
                await client.close()
            await asyncio.sleep(ENGINE_RETRY_AFTER_S)

    async def send(self, commands: Sequence[Command], *, timeout_s: float) -> list[Answer]:
        """Raises EngineUnavailable when nothing was sent, OutcomeUnknown when that is not sure."""
        if not self._ready.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ready.wait(), timeout_s)
        client = self._client
        if client is None or not self._ready.is_set():
            raise EngineUnavailable("the engine has not let this worker in yet")
        try:
            return await client.send(commands, timeout_s=timeout_s)
        except (SessionTaken, LoginRefused, Disconnected) as error:
            self._ended.set()
            raise OutcomeUnknown(str(error)) from error


class LiveOrders:
    def __init__(
        self,
        engine: Engine,
        legacy: LegacyOrders,
        ids: OrderIds,
        index: OrderIndex,
        barrier: WriteBarrier,
        dialect: Dialect,
        scales: Mapping[str, Scale],
        words: Words,
    ) -> None:
        self._engine = engine
        self._legacy = legacy
        self._ids = ids
        self._index = index
        self._barrier = barrier
        self._dialect = dialect
        self._scales = scales
        self._words = words

    async def place(self, exchange: Exchange, stage: InstrumentStage) -> Reply | Elsewhere:
        fields, account = exchange.fields(), exchange.account
        if fields is None:
            return Elsewhere.LEGACY
        scale = self._scales[stage.symbol]
        command = place_command(fields, account, 0, scale, self._words, epoch=stage.epoch)
        if isinstance(command, Refusal):
            return _reply(self._dialect.render_refusal(command))
        try:
            order_id = await self._ids.take()
        except LegacyLookupFailed as error:
            _log.warning("no order id: %s", error)
            return _unavailable()
        answer = await self._send(msgspec.structs.replace(command, order_id=order_id))
        if not isinstance(answer, Answer):
            return answer
        view = placed(stage.symbol, answer.events, answer.at_ns)
        if isinstance(view, Reason):
            return self._refused(view, fields.route)
        known = KnownOrder(stage.symbol, account, view.qty_lots, view.created_at_us)
        self._index.put(order_id, known)
        return _reply(self._dialect.render_placed(view))

    async def cancel(
        self, exchange: Exchange, order_id: int, stage: InstrumentStage
    ) -> Reply | Elsewhere:
        account = exchange.account
        if not account:
            return _reply(self._dialect.render_refusal(Refusal(status=HTTPStatus.UNAUTHORIZED)))
        answer = await self._send(_cancel(order_id, account, stage))
        if not isinstance(answer, Answer):
            return answer
        event = answer.events[-1]
        if event.kind is EventKind.CANCELED:
            return await self._canceled(stage.symbol, event, answer)
        if event.reason is Reason.UNKNOWN_ORDER:
            owner = await self._owner(order_id, answer.seq)
            return owner if isinstance(owner, Reply) else self._not_open(owner, account)
        if event.reason is Reason.NOT_OWNER:
            return _reply(self._dialect.render_not_found())
        return self._refused(event.reason)

    async def cancel_anywhere(
        self, exchange: Exchange, order_id: int, stages: Sequence[InstrumentStage]
    ) -> Reply | Elsewhere:
        """An order that the legacy database does not show: one of these instruments may have it,
        and the write-back be behind.
        """
        account = exchange.account
        if not account:
            return Elsewhere.LEGACY
        seq = 0
        for stage in stages:
            answer = await self._send(_cancel(order_id, account, stage))
            if not isinstance(answer, Answer):
                return answer
            event, seq = answer.events[-1], answer.seq
            if event.kind is EventKind.CANCELED:
                return await self._canceled(stage.symbol, event, answer)
            if event.reason is Reason.NOT_OWNER:
                return _reply(self._dialect.render_not_found())
            if event.reason is not Reason.UNKNOWN_ORDER:
                return self._refused(event.reason)
        # Everything before our question is written once the question's own number is.
        row = await self._row(order_id, seq)
        if isinstance(row, Reply):
            return row
        if row is None or row.symbol not in {stage.symbol for stage in stages}:
            return Elsewhere.LEGACY
        return self._not_open(row.account, account)

    async def _send(self, command: Command) -> Answer | Reply | Elsewhere:
        try:
            (answer,) = await self._engine.send([command], timeout_s=ENGINE_ANSWER_S)
        except OutcomeUnknown as error:
            _log.warning("outcome of order %d unknown: %s", command.order_id, error)
            return _reply(render_status(HTTPStatus.GATEWAY_TIMEOUT))
        except EngineError as error:
            _log.warning("order %d was not sent: %s", command.order_id, error)
            return _unavailable()
        reason = answer.events[-1].reason
        if reason in _BEHIND:
            return Elsewhere.BEHIND
        if not answer.seq:
            _log.error("order %d: the engine knows no outcome: %s", command.order_id, reason.name)
            return _reply(render_status(HTTPStatus.GATEWAY_TIMEOUT))
        self._barrier.note_answered(answer.seq)
        return answer

    async def _canceled(self, symbol: str, event: Event, answer: Answer) -> Reply:
        known = self._index.get(event.order_id)
        if known is None or not known.qty_lots:
            row = await self._row(event.order_id, answer.seq)
            if not isinstance(row, OrderImage):
                # It is canceled: only what its answer shows can't be had. "Try again" would be
                # a lie, and so would any other outcome.
                return _reply(render_status(HTTPStatus.GATEWAY_TIMEOUT))
            known = KnownOrder(symbol, row.account, row.qty_lots, row.created_at_us)
        view = canceled(
            symbol,
            event,
            answer.at_ns,
            qty_lots=known.qty_lots,
            created_at_us=known.created_at_us,
        )
        return _reply(self._dialect.render_canceled(view))

    def _refused(self, reason: Reason, route: Route | None = None) -> Reply:
        """`route` names the fields as the client does; a cancel has none to name.

        Only what may pass later says "try again".
        """
        level = logging.WARNING if reason in _LIMITS else logging.ERROR
        _log.log(level, "the engine refused an order: %s", reason.name)
        if reason in _INVALID:
            ours, message = _INVALID[reason]
            where = route.fields.get(ours, ours) if route is not None else ours
            errors = ((where.rpartition(".")[2], message),)
            refusal = Refusal(status=HTTPStatus.UNPROCESSABLE_ENTITY, errors=errors)
            return _reply(self._dialect.render_refusal(refusal))
        if reason in _FORBIDDEN:
            errors = (("account", _FORBIDDEN[reason]),)
            refusal = Refusal(status=HTTPStatus.FORBIDDEN, errors=errors)
            return _reply(self._dialect.render_refusal(refusal))
        if reason is Reason.ACCOUNT_RATE:  # a limit per second
            rendered = render_status(HTTPStatus.TOO_MANY_REQUESTS)
            return Reply(*rendered, retry_after_s=ENGINE_RETRY_AFTER_S)
        return _unavailable()

    def _not_open(self, owner: int, account: int) -> Reply:
        """`owner` is 0 for an order that does not exist."""
        if owner == account:
            return _reply(self._dialect.render_not_open())
        return _reply(self._dialect.render_not_found())

    async def _owner(self, order_id: int, seq: int) -> int | Reply:
        known = self._index.get(order_id)
        if known is not None and known.account:
            return known.account
        row = await self._row(order_id, seq)
        return row if isinstance(row, Reply) else 0 if row is None else row.account

    async def _row(self, order_id: int, seq: int) -> OrderImage | Reply | None:
        """The order as the legacy database has it, with all that the engine did up to `seq`."""
        try:
            row = await self._legacy.find(order_id)
            if row is None:
                if not await self._barrier.wait(seq, WRITTEN_ROW_S):
                    return _unavailable()
                row = await self._legacy.find(order_id)
        except LegacyLookupFailed as error:
            _log.warning("order %d: %s", order_id, error)
            return _unavailable()
        return row


def _cancel(order_id: int, account: int, stage: InstrumentStage) -> Command:
    return Command(
        kind=CommandKind.CANCEL,
        instrument=stage.instrument,
        epoch=stage.epoch,
        account=account,
        order_id=order_id,
    )


def _reply(rendered: Rendered) -> Reply:
    return Reply(*rendered)


def _unavailable() -> Reply:
    rendered = render_status(HTTPStatus.SERVICE_UNAVAILABLE)
    return Reply(*rendered, retry_after_s=ENGINE_RETRY_AFTER_S)
