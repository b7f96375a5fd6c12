"""Orders that the engine answers, told in the monolith's words.

A command goes to the engine once, under one reference; when its answer is lost the client library
asks again for the same outcome. What stays unknown is told as unknown, and tried nowhere else.
Everything here works on lists: a single order is a list of one, a bulk request is one batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from functools import partial
from typing import NamedTuple

import msgspec

from bridge.errors import LegacyLookupFailed
from bridge.limits import ENGINE_ANSWER_S, WRITTEN_ROW_S
from bridge.proxy.desk.dialect import Dialect, Rendered
from bridge.proxy.desk.funds import LiveFunds, can_reserve, no_market_buys
from bridge.proxy.desk.ids import KnownOrder, LegacyOrders, OrderIds, OrderIndex
from bridge.proxy.desk.reply import (
    Fate,
    Reply,
    not_open,
    refused,
    unauthorized,
    unavailable,
    unknown,
)
from bridge.proxy.desk.session import Engine, WriteBarrier
from bridge.stage import InstrumentStage
from engine.client import Answer
from engine.errors import EngineError, OutcomeUnknown
from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventKind, MassCancelScope
from shadow.answer import Traded, canceled, placed
from shadow.errors import AdapterFailed
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Words
from shadow.normalise import Fields, Refusal, place_command

_log = logging.getLogger(__name__)

# The engine's way to say that our stage snapshot is behind.
_BEHIND = {Reason.STALE_EPOCH, Reason.INSTRUMENT_CLOSED, Reason.INSTRUMENT_IN_SHADOW}


class Behind(NamedTuple):
    """Nothing was done: the engine answers for this instrument no longer, or not yet, at this
    epoch.
    """

    stage: InstrumentStage


class Elsewhere(Enum):
    LEGACY = "legacy"  # nothing the engine knows of: the monolith answers
    AGAIN = "again"  # its instrument is known now: it is decided anew


Found = Reply | Behind | Elsewhere
_Sent = Answer | Reply | Behind


class MassCanceled(NamedTuple):
    canceled: list[tuple[int, Reply]]  # order id and what a cancel of it would be told
    failed: list[Reply | Behind]  # one for each instrument of which this is not all


class _Rows(NamedTuple):
    known: dict[int, KnownOrder]
    complete: bool  # what is missing does not exist
    traded: Mapping[int, Traded] = {}  # of canceled orders, where an answer shows it


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
        funds: LiveFunds | None = None,
    ) -> None:
        """`funds`: where orders lock money in the monolith's accounts."""
        self._engine = engine
        self._funds = funds
        self._legacy = legacy
        self._ids = ids
        self._index = index
        self._barrier = barrier
        self.dialect = dialect
        self._scales = scales
        self._words = words

    def expect(self, orders: int) -> None:
        """So many new orders may come at once, when a hold ends."""
        self._ids.expect(orders)

    async def place(
        self, orders: Sequence[tuple[Fields, InstrumentStage]], account: int
    ) -> list[Reply | Behind]:
        """What each is told, in their order."""
        told: dict[int, Reply | Behind] = {}
        commands: dict[int, Command] = {}
        for n, (fields, stage) in enumerate(orders):
            scale = self._scales[stage.symbol]
            command = place_command(fields, account, 0, scale, self._words, epoch=stage.epoch)
            if isinstance(command, Refusal):
                told[n] = Reply(*self.dialect.render_refusal(command), Fate.REFUSED)
            elif self._funds is not None and not can_reserve(command):
                told[n] = no_market_buys(self.dialect, fields.route)
            else:
                commands[n] = command
        try:
            ids = await self._ids.take_many(len(commands))
        except LegacyLookupFailed as error:
            _log.warning("no order id: %s", error)
            told |= dict.fromkeys(commands, unavailable())
            return [told[n] for n in range(len(orders))]
        entered = [
            msgspec.structs.replace(command, order_id=order_id)
            for command, order_id in zip(commands.values(), ids, strict=True)
        ]
        sent = await self._enter(entered, [orders[n][1] for n in commands])
        for n, answer in zip(commands, sent, strict=True):
            told[n] = self._placed(*orders[n], account, answer)
        return [told[n] for n in range(len(orders))]

    async def cancel(
        self, cancels: Sequence[tuple[int, InstrumentStage]], account: int
    ) -> list[Reply | Behind]:
        """What each is told, in their order; order ids with the instruments that they are of."""
        if not account:
            return [unauthorized(self.dialect)] * len(cancels)
        commands = [_cancel(order_id, account, stage) for order_id, stage in cancels]
        sent = await self._send(commands, [stage for _, stage in cancels])
        rows = await self._rows(sent, [order_id for order_id, _ in cancels])
        return [
            self._canceled(order_id, stage, account, answer, rows)
            for (order_id, stage), answer in zip(cancels, sent, strict=True)
        ]

    async def cancel_anywhere(
        self, order_ids: Sequence[int], account: int, stages: Sequence[InstrumentStage]
    ) -> list[Found]:
        """Orders that the legacy database does not show: one of these instruments may have them,
        and the write-back be behind.
        """
        if not account:
            return [Elsewhere.LEGACY] * len(order_ids)
        pairs = [(order_id, stage) for order_id in order_ids for stage in stages]
        commands = [_cancel(order_id, account, stage) for order_id, stage in pairs]
        sent = await self._send(commands, [stage for _, stage in pairs])
        by_order = [
            _most_telling(sent[n : n + len(stages)]) for n in range(0, len(sent), len(stages))
        ]
        # Everything before our question is written once the question's own number is.
        rows = await self._rows(by_order, order_ids)
        symbols = {stage.symbol for stage in stages}
        instruments = {stage.instrument: stage for stage in stages}
        found: list[Found] = []
        for order_id, answer in zip(order_ids, by_order, strict=True):
            known = rows.known.get(order_id)
            if not _is_unknown_order(answer):
                stage = stages[0]
                if isinstance(answer, Answer):
                    stage = instruments.get(answer.events[-1].instrument, stage)
                found.append(self._canceled(order_id, stage, account, answer, rows))
            elif known is not None and known.symbol in symbols:
                found.append(not_open(known.account, account, self.dialect))
            elif known is not None:
                found.append(Elsewhere.AGAIN)
            else:
                found.append(Elsewhere.LEGACY if rows.complete else unavailable(Fate.REFUSED))
        return found

    async def cancel_all(
        self, stages: Sequence[InstrumentStage], side: int, account: int
    ) -> MassCanceled:
        """The account's open orders of these instruments, of one side (0: both)."""
        events: list[tuple[InstrumentStage, Event, Answer]] = []
        failed: list[Reply | Behind] = []
        pending = list(stages)
        while pending:
            sent = await self._send([_cancel_all(account, side, one) for one in pending], pending)
            asked, pending = pending, []
            for stage, answer in zip(asked, sent, strict=True):
                if not isinstance(answer, Answer):
                    failed.append(answer)
                    continue
                *removed, last = answer.events
                if last.kind is not EventKind.MASS_CANCELED:
                    failed.append(refused(last.reason, self.dialect))
                elif last.leaves_lots:
                    pending.append(stage)  # one command removes only so many
                events += [(stage, one, answer) for one in removed]
        singly = [Answer(answer.seq, answer.at_ns, (event,)) for _, event, answer in events]
        ids = [event.order_id for _, event, _ in events]
        rows = await self._rows(singly, ids)
        canceled_ = [
            (order_id, self._shown(stage.symbol, answer, rows))
            for order_id, (stage, _, _), answer in zip(ids, events, singly, strict=True)
        ]
        return MassCanceled(canceled_, failed)

    async def _enter(
        self, commands: Sequence[Command], stages: Sequence[InstrumentStage]
    ) -> list[_Sent]:
        """New orders, once what they cost is locked. What the engine refuses is released by the
        write-back, which reads of it; what it has never got, by us.
        """
        funds = self._funds
        if funds is None:
            return await self._send(commands, stages)
        refusals = await funds.reserve(commands)
        going = [n for n, refusal in enumerate(refusals) if refusal is None]
        told: dict[int, _Sent] = {
            n: self._without_funds(one) for n, one in enumerate(refusals) if one is not None
        }
        sent = await self._send([commands[n] for n in going], [stages[n] for n in going])
        told |= zip(going, sent, strict=True)
        ids = [one.order_id for one in commands]
        funds.note_unknown(ids[n] for n in going if _is_fate(told[n], Fate.UNKNOWN))
        await funds.give_back(
            [
                ids[n]
                for n in going
                if isinstance(told[n], Behind) or _is_fate(told[n], Fate.NOT_SENT)
            ]
        )
        return [told[n] for n in range(len(commands))]

    def _without_funds(self, reply: Reply) -> Reply:
        if reply.fate is not Fate.REFUSED:
            return reply
        usual = reply.status, reply.body
        return Reply(*self.dialect.render_reason("insufficient_funds", usual), Fate.REFUSED)

    async def _send(
        self, commands: Sequence[Command], stages: Sequence[InstrumentStage]
    ) -> list[_Sent]:
        if not commands:
            return []
        what = f"{len(commands)} commands from order {commands[0].order_id} on"
        try:
            answers = await self._engine.send(commands, timeout_s=ENGINE_ANSWER_S)
        except OutcomeUnknown as error:
            _log.warning("%s: outcome unknown: %s", what, error)
            return [unknown()] * len(commands)
        except EngineError as error:
            _log.warning("%s: not sent: %s", what, error)
            return [unavailable()] * len(commands)
        return [
            self._noted(answer, stage, command)
            for answer, stage, command in zip(answers, stages, commands, strict=True)
        ]

    def _noted(self, answer: Answer, stage: InstrumentStage, command: Command) -> _Sent:
        reason = answer.events[-1].reason
        if reason in _BEHIND:
            return Behind(stage)
        if not answer.seq:
            _log.error("order %d: the engine knows no outcome: %s", command.order_id, reason.name)
            return unknown()
        self._barrier.note_answered(answer.seq)
        return answer

    def _placed(
        self, fields: Fields, stage: InstrumentStage, account: int, answer: _Sent
    ) -> Reply | Behind:
        if not isinstance(answer, Answer):
            return answer
        view = placed(stage.symbol, answer.events, answer.at_ns)
        if isinstance(view, Reason):
            return refused(view, self.dialect, fields.route)
        known = KnownOrder(stage.symbol, account, view.qty_lots, view.created_at_us)
        self._index.put(view.order_id, known)
        return _done(partial(self.dialect.render_placed, view))

    def _canceled(
        self, order_id: int, stage: InstrumentStage, account: int, answer: _Sent, rows: _Rows
    ) -> Reply | Behind:
        if not isinstance(answer, Answer):
            return answer
        event = answer.events[-1]
        if event.kind is EventKind.CANCELED:
            return self._shown(stage.symbol, answer, rows)
        if event.reason is Reason.NOT_OWNER:
            return not_open(0, account, self.dialect)
        if event.reason is not Reason.UNKNOWN_ORDER:
            return refused(event.reason, self.dialect)
        known = rows.known.get(order_id)
        if known is None and not rows.complete:
            return unavailable(Fate.REFUSED)
        return not_open(known.account if known is not None else 0, account, self.dialect)

    def _shown(self, symbol: str, answer: Answer, rows: _Rows) -> Reply:
        """A canceled order, by what the engine said and what its row has said at some time.

        Where the mapping shows only what the engine tells of a cancel, no row is needed. Otherwise,
        without one, the outcome is told as unknown: it was executed, so 503 and any refusal would
        be lies; and an answer that lacks fields would break a client's reader at a place that
        nobody has tested. Whoever asks again is told that the order is not open.
        """
        event = answer.events[-1]
        known = rows.known.get(event.order_id) or KnownOrder(symbol, event.contra_id)
        if not self.dialect.can_show(known.qty_lots, known.created_at_us):
            return unknown()
        view = canceled(
            symbol,
            event,
            answer.at_ns,
            qty_lots=known.qty_lots,
            created_at_us=known.created_at_us,
            traded=rows.traded.get(event.order_id),
        )
        if self.dialect.shows_traded and view.traded is None:
            return unknown()
        return _done(partial(self.dialect.render_canceled, view))

    async def _rows(self, sent: Sequence[_Sent], order_ids: Sequence[int]) -> _Rows:
        """What their answers need to be told of the orders, with all that the engine has done."""
        known: dict[int, KnownOrder] = {}
        missing: set[int] = set()
        seq = 0
        for answer, order_id in zip(sent, order_ids, strict=True):
            if not isinstance(answer, Answer):
                continue
            one = self._index.get(order_id)
            if one is not None and self._is_enough(one, answer.events[-1]):
                known[order_id] = one
            elif self._needs_row(answer.events[-1]):
                missing.add(order_id)
                seq = max(seq, answer.seq)
        rows = _Rows(known, complete=True)
        if missing:
            rows = await self._read(missing, seq)
            rows = rows._replace(known=known | rows.known)
        if self.dialect.shows_traded:
            rows = rows._replace(traded=await self._traded(sent, rows.known))
        return rows

    async def _traded(
        self, sent: Sequence[_Sent], known: Mapping[int, KnownOrder]
    ) -> Mapping[int, Traded]:
        """Of those that have been filled in part before they were canceled."""
        partly: set[int] = set()
        seq = 0
        for answer in sent:
            if not isinstance(answer, Answer):
                continue
            event = answer.events[-1]
            row = known.get(event.order_id)
            canceled_ = event.kind is EventKind.CANCELED
            if canceled_ and row is not None and row.qty_lots != event.qty_lots:
                partly.add(event.order_id)
                seq = max(seq, answer.seq)
        try:
            if partly and await self._barrier.wait(seq, WRITTEN_ROW_S):
                return await self._legacy.traded(partly)
        except LegacyLookupFailed as error:
            _log.warning("the fills of %d orders: %s", len(partly), error)
        return {}

    def _is_enough(self, known: KnownOrder, event: Event) -> bool:
        if event.kind is EventKind.CANCELED:
            return self.dialect.can_show(known.qty_lots, known.created_at_us)
        return known.account != 0

    def _needs_row(self, event: Event) -> bool:
        if event.kind is EventKind.CANCELED:
            return not self.dialect.can_show(0, 0)
        return event.reason is Reason.UNKNOWN_ORDER

    async def _read(self, order_ids: Iterable[int], seq: int) -> _Rows:
        missing = set(order_ids)
        found: dict[int, KnownOrder] = {}
        try:
            found = await self._legacy.find_many(missing)
            missing -= found.keys()
            if missing and not await self._barrier.wait(seq, WRITTEN_ROW_S):
                return _Rows(found, complete=False)
            found |= await self._legacy.find_many(missing)
        except LegacyLookupFailed as error:
            _log.warning("%d orders: %s", len(missing), error)
            return _Rows(found, complete=False)
        for order_id, known in found.items():
            self._index.put(order_id, known)
        return _Rows(found, complete=True)


def _is_fate(answer: _Sent, fate: Fate) -> bool:
    return isinstance(answer, Reply) and answer.fate is fate


def _done(render: Callable[[], Rendered]) -> Reply:
    """It was done, but what the adapter can't write is told as unknown."""
    try:
        return Reply(*render(), Fate.DONE)
    except AdapterFailed as error:
        _log.error("an order was carried out, and can't be shown: %s", error)
        return unknown()


def _most_telling(answers: Sequence[_Sent]) -> _Sent:
    """Of the answers of several instruments about one order: it can be open in one of them only."""

    def weight(answer: _Sent) -> int:
        if isinstance(answer, Reply):
            return 2
        if isinstance(answer, Behind):
            return 1
        last = answer.events[-1]
        if last.kind is EventKind.CANCELED:
            return 4
        if last.reason is Reason.UNKNOWN_ORDER:
            return 0
        return 3

    return max(answers, key=weight)


def _is_unknown_order(answer: _Sent) -> bool:
    return isinstance(answer, Answer) and answer.events[-1].reason is Reason.UNKNOWN_ORDER


def _cancel(order_id: int, account: int, stage: InstrumentStage) -> Command:
    return Command(
        kind=CommandKind.CANCEL,
        instrument=stage.instrument,
        epoch=stage.epoch,
        account=account,
        order_id=order_id,
    )


def _cancel_all(account: int, side: int, stage: InstrumentStage) -> Command:
    return Command(
        kind=CommandKind.MASS_CANCEL,
        instrument=stage.instrument,
        epoch=stage.epoch,
        account=account,
        side=side,
        aux=MassCancelScope.ACCOUNT,
    )
