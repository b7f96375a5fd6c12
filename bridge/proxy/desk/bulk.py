"""Requests with many orders in them, while some instrument is live or held.

What is the monolith's alone goes there as it came. What is the engine's goes to it in one batch.
Where a request has both, the engine's part goes first and the monolith's follows order by order,
each as a request of its own; the client gets one answer, in the order of its request.

- An order of a held instrument lets the whole request wait in that instrument's queue.
- An order that was refused, by whichever side, is shown with its errors among the others.
- Nothing has been sent because a side is away: 503 to the whole request, which may be sent again.
- Some orders were sent and others could not be: these are shown as not sent among the others.
- What became of some order is not known: 504. Every order is shown all the same, those of unknown
  outcome as such; what was not sent yet is not sent any more, and is shown as not sent.
- Once its first order has been sent, a request is carried out to its end, whether its client stays
  or not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Any

from bridge.errors import LegacyLookupFailed
from bridge.limits import BULK_ORDERS_MAX
from bridge.proxy.desk.dialect import Dialect, refused_element, render_status
from bridge.proxy.desk.handling import Handling
from bridge.proxy.desk.hold import StoreSays, Way
from bridge.proxy.desk.ids import LegacyOrders, OrderIndex
from bridge.proxy.desk.live import Behind, Elsewhere, Found, LiveOrders
from bridge.proxy.desk.monolith import MonolithSide
from bridge.proxy.desk.own import extras_of
from bridge.proxy.desk.reply import Fate, Reply, busy, unauthorized, unavailable
from bridge.proxy.plane.exchange import Exchange
from bridge.stage import InstrumentStage
from shadow.normalise import Fields, Refusal, order_id_of, place_command

_log = logging.getLogger(__name__)

UNKNOWN = refused_element("outcome unknown")
NOT_SENT = refused_element("was not sent")


class _Element:
    """One order of a request."""

    def __init__(self, number: int, fields: Fields, extras: Mapping[str, Any]) -> None:
        self.number = number  # from 1
        self.fields = fields
        self.extras = extras
        self.order_id = 0  # of a cancel
        self.symbol = fields.symbol  # None: it is the monolith's; or see `strays`
        self.strays = False  # neither we nor the legacy database know its instrument
        self.reply: Reply | None = None


class _Job:
    def __init__(self, exchange: Exchange, fields: Fields) -> None:
        self.exchange = exchange
        self.route = fields.route
        self.is_place = fields.route.action == "place"
        extras: Sequence[Mapping[str, Any]] = [{}] * len(fields.each)
        if self.is_place:
            extras = extras_of(exchange, fields.route, len(fields.each))
        self.elements = [
            _Element(n, one, extra)
            for n, (one, extra) in enumerate(zip(fields.each, extras, strict=True), 1)
        ]
        self.begun = False  # something has been sent
        if not self.is_place:
            for element in self.elements:
                element.order_id = order_id_of(element.fields)
                element.symbol, element.strays = None, element.order_id != 0

    @property
    def pending(self) -> list[_Element]:
        return [element for element in self.elements if element.reply is None]

    @property
    def strays(self) -> list[_Element]:
        return [element for element in self.pending if element.strays]

    @property
    def symbols(self) -> frozenset[str] | None:
        """What is still to be done concerns these instruments; None: it may be any."""
        symbols = [one.symbol for one in self.pending if one.symbol is not None]
        return frozenset(symbols) if len(symbols) == len(self.pending) else None

    @property
    def is_untouched(self) -> bool:
        return len(self.pending) == len(self.elements)

    def has(self, fate: Fate) -> bool:
        return any(one.reply is not None and one.reply.fate is fate for one in self.elements)

    def give_up(self, reply: Reply) -> None:
        for element in self.pending:
            element.reply = reply


class BulkOrders:
    def __init__(
        self,
        handling: Handling,
        live: LiveOrders,
        legacy: LegacyOrders,
        index: OrderIndex,
        monolith: MonolithSide,
    ) -> None:
        self._handling = handling
        self._live = live
        self._legacy = legacy
        self._index = index
        self._monolith = monolith
        self._dialect: Dialect = live.dialect
        self._responses = legacy.mapping.responses

    def begin(self, exchange: Exchange, fields: Fields, says: StoreSays | None) -> None:
        self._look(_Job(exchange, fields), says)

    def _look(self, job: _Job, says: StoreSays | None) -> None:
        """Finds the instruments of cancels, as far as they are not known."""
        for element in job.strays:
            known = self._index.get(element.order_id)
            if known is not None:
                element.symbol, element.strays = known.symbol, False
        if job.strays:
            self._handling.spawn(self._find(job, says), job.exchange)
        else:
            self._decide(job, says)

    async def _find(self, job: _Job, says: StoreSays | None) -> None:
        try:
            found = await self._legacy.find_many({one.order_id for one in job.strays})
        except LegacyLookupFailed as error:
            _log.warning("the orders of a bulk request: %s", error)
            self._stop(job, busy())
            return
        for element in job.strays:
            known = found.get(element.order_id)
            if known is not None:
                self._index.put(element.order_id, known)
                element.symbol, element.strays = known.symbol, False
        self._decide(job, says)

    def _decide(self, job: _Job, says: StoreSays | None) -> None:
        exchange, pending = job.exchange, job.pending
        if exchange.client is None and not job.begun:
            return
        anywhere = self._handling.live(says) if job.strays else ()
        symbols = [one.symbol for one in pending if one.symbol is not None]
        for symbol in (*symbols, *(stage.symbol for stage in anywhere)):
            if self._handling.who(symbol, says)[0] is Way.WAIT:
                self._wait(job, symbol)
                return
        engine_s: list[tuple[_Element, InstrumentStage]] = []
        for element in pending:
            way, stage = self._handling.who(element.symbol, says)
            if way is Way.ENGINE and stage is not None:
                engine_s.append((element, stage))
        if not pending:
            self._tell(job)
        elif job.is_untouched and not engine_s and not anywhere:
            self._handling.to_legacy(exchange, job.symbols)
        elif engine_s and not exchange.account:
            self._handling.answer(exchange, unauthorized(self._dialect))
        elif len(job.elements) > BULK_ORDERS_MAX:
            too_large = render_status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            self._handling.answer(exchange, Reply(*too_large, Fate.REFUSED))
        else:
            self._handling.begin_work(exchange, job.symbols)
            self._handling.spawn(self._work(job, engine_s, anywhere), exchange)

    def _wait(self, job: _Job, symbol: str) -> None:
        """Then everything is decided anew."""
        resume = partial(self._resume, job)
        if not self._handling.wait(job.exchange, symbol, resume):
            self._stop(job, busy())
        elif job.is_place:
            self._live.expect(self._handling.holds.held() + len(job.elements))

    def _resume(self, job: _Job, exchange: Exchange, says: StoreSays | None) -> None:
        self._handling.guarded(exchange, partial(self._look, job, says))

    def _stop(self, job: _Job, reply: Reply) -> None:
        job.give_up(reply)
        self._tell(job)

    async def _work(
        self,
        job: _Job,
        engine_s: Sequence[tuple[_Element, InstrumentStage]],
        anywhere: Sequence[InstrumentStage],
    ) -> None:
        """One round: whatever the engine has not heard of, or not yet, is decided anew after it."""
        behind: list[Behind] = []
        try:
            told = await self._engine_part(job, engine_s) if engine_s else []
            strays = job.strays
            if strays and anywhere:
                ids = [one.order_id for one in strays]
                found = await self._live.cancel_anywhere(ids, job.exchange.account, anywhere)
                told += zip(strays, found, strict=True)
            elif strays:
                told += [(one, Elsewhere.LEGACY) for one in strays]
            for element, one in told:
                if isinstance(one, Reply):
                    element.reply = one
                elif isinstance(one, Behind):
                    behind.append(one)
                else:
                    element.strays = one is Elsewhere.AGAIN
            job.begun = job.begun or job.has(Fate.DONE) or job.has(Fate.UNKNOWN)
            asked = {id(element) for element, _ in engine_s}
            rest = [one for one in job.pending if id(one) not in asked and not one.strays]
            if not _may_go_on(job):
                job.give_up(unavailable())
            elif len(rest) < len(job.elements):  # else it goes there as it came
                await self._monolith_part(job, rest)
        finally:
            self._handling.end_work(job.exchange)
        waits = next((one for one in behind if not self._handling.is_news(one.stage)), None)
        if waits is not None and job.pending:
            self._wait(job, waits.stage.symbol)
        else:
            self._look(job, None)

    async def _engine_part(
        self, job: _Job, engine_s: Sequence[tuple[_Element, InstrumentStage]]
    ) -> list[tuple[_Element, Found]]:
        account = job.exchange.account
        replies: Sequence[Reply | Behind]
        if job.is_place:
            orders = [(element.fields, stage) for element, stage in engine_s]
            replies = await self._live.place(orders, account)
        else:
            cancels = [(element.order_id, stage) for element, stage in engine_s]
            replies = await self._live.cancel(cancels, account)
        return [(element, one) for (element, _), one in zip(engine_s, replies, strict=True)]

    async def _monolith_part(self, job: _Job, rest: Sequence[_Element]) -> None:
        for element in rest:
            element.reply = await self._ask_monolith(job, element)
            job.begun = True
            if element.reply.fate in (Fate.UNKNOWN, Fate.NOT_SENT):
                job.give_up(unavailable())
                return

    async def _ask_monolith(self, job: _Job, element: _Element) -> Reply:
        values = element.fields.as_sent
        if not job.is_place:
            order_id = values.get("order_id", "")
            return await self._monolith.cancel(job.exchange, order_id, element.number)
        if not values and not element.extras:
            # Nothing is there to be sent: alone it would be no order at all, in a list it is one.
            refusal = place_command(
                element.fields, job.exchange.account, 0, None, self._legacy.mapping.words
            )
            assert isinstance(refusal, Refusal)
            return Reply(*self._dialect.render_refusal(refusal), Fate.REFUSED)
        return await self._monolith.place(job.exchange, values, element.extras, element.number)

    def _tell(self, job: _Job) -> None:
        unknown = job.has(Fate.UNKNOWN)
        if job.has(Fate.NOT_SENT) and not unknown and not job.has(Fate.DONE):
            not_sent = (one.reply for one in job.elements if one.reply is not None)
            first = next(one for one in not_sent if one.fate is Fate.NOT_SENT)
            self._handling.answer(job.exchange, first)
            return
        elements = []
        for element in job.elements:
            assert element.reply is not None
            shown, fate = element_of(self._dialect, element.reply)
            unknown = unknown or fate is Fate.UNKNOWN
            elements.append(shown)
        status = self._responses.canceled_many_status
        if job.is_place:
            status = self._responses.placed_many_status
        if unknown:
            status = HTTPStatus.GATEWAY_TIMEOUT
        rendered = self._dialect.render_many(status, elements)
        self._handling.answer(job.exchange, Reply(*rendered, Fate.DONE))


def _may_go_on(job: _Job) -> bool:
    """Not after what is unknown; nor where the engine is away and nothing has been done."""
    if job.has(Fate.UNKNOWN):
        return False
    return job.has(Fate.DONE) or not job.has(Fate.NOT_SENT)


def element_of(dialect: Dialect, reply: Reply) -> tuple[bytes, Fate]:
    """How one order is shown among others."""
    if reply.fate is Fate.UNKNOWN:
        return UNKNOWN, Fate.UNKNOWN
    if reply.fate is Fate.NOT_SENT:
        return NOT_SENT, Fate.NOT_SENT
    try:
        return dialect.element(reply.status, reply.body), reply.fate
    except ValueError:
        return UNKNOWN, Fate.UNKNOWN  # taken, and its answer does not say what of it
