"""A cancel of everything that an account has open, while some instrument is live or held.

It goes to both sides and is answered once: the engine cancels all of the account's orders of its
instruments at once, the monolith's are found in its database and canceled one by one. To pass the
request on as it came would touch rows of live instruments, which the fence refuses.

The answer lists what has been canceled, by id. An order that was closed in the meantime is left
out. Where nothing has been canceled because a side is away or says no, that is the whole answer.
Where some were canceled and others could not be, or their outcome is not known, it is a 504 that
lists what was canceled all the same; nothing further is sent after an order of that kind.
"""

from __future__ import annotations

import logging
from functools import partial
from http import HTTPStatus

from bridge.errors import LegacyLookupFailed
from bridge.limits import BULK_ORDERS_MAX
from bridge.proxy.desk.bulk import element_of
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.desk.handling import Handling
from bridge.proxy.desk.hold import StoreSays, Way
from bridge.proxy.desk.ids import LegacyOrders, OpenOrder
from bridge.proxy.desk.live import Behind, LiveOrders
from bridge.proxy.desk.monolith import MonolithSide
from bridge.proxy.desk.reply import Fate, Reply, busy, unauthorized
from bridge.proxy.plane.exchange import Exchange
from bridge.stage import InstrumentStage
from engine.types import Side
from shadow.normalise import Fields, Filter, Refusal, cancel_filter

_log = logging.getLogger(__name__)
# What a monolith says to the cancel of an order that it shows as open a moment before.
_CLOSED_MEANWHILE = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.UNPROCESSABLE_ENTITY)
_SIDES = {Side.BUY: "buy", Side.SELL: "sell"}


class _Job:
    def __init__(self, exchange: Exchange, wanted: Filter) -> None:
        self.exchange = exchange
        self.wanted = wanted
        self.canceled: dict[int, Reply] = {}
        self.done: set[str] = set()  # live instruments that the engine has been through
        self.asked = 0  # requests of our own
        self.is_short = False  # some orders could not be reached, or may have been canceled

    @property
    def begun(self) -> bool:
        return bool(self.canceled or self.done or self.asked)

    @property
    def symbols(self) -> frozenset[str] | None:
        return frozenset((self.wanted.symbol,)) if self.wanted.symbol is not None else None


class CancelAll:
    def __init__(
        self, handling: Handling, live: LiveOrders, legacy: LegacyOrders, monolith: MonolithSide
    ) -> None:
        self._handling = handling
        self._live = live
        self._legacy = legacy
        self._monolith = monolith
        self._dialect: Dialect = live.dialect
        self._mapping = legacy.mapping

    def decide(self, exchange: Exchange, fields: Fields, says: StoreSays | None) -> None:
        wanted = cancel_filter(fields, self._mapping.words)
        if isinstance(wanted, Refusal) or wanted.side < 0:
            self._handling.to_legacy(exchange)  # it cancels nothing, and is refused there if at all
        else:
            self._decide(_Job(exchange, wanted), says)

    def _decide(self, job: _Job, says: StoreSays | None) -> None:
        exchange, only = job.exchange, job.wanted.symbol
        if exchange.client is None and not job.begun:
            return
        symbols = tuple(self._handling.holds.snapshot.instruments) if only is None else (only,)
        stages: list[InstrumentStage] = []
        for symbol in symbols:
            way, stage = self._handling.who(symbol, says)
            if way is Way.WAIT:
                self._wait(job, symbol)
                return
            if way is Way.ENGINE and stage is not None:
                stages.append(stage)
        if not stages and not job.begun:
            self._handling.to_legacy(exchange, job.symbols)
        elif not exchange.account:
            self._handling.answer(exchange, unauthorized(self._dialect))
        else:
            self._handling.begin_work(exchange, job.symbols)
            self._handling.spawn(self._work(job, stages), exchange)

    def _wait(self, job: _Job, symbol: str) -> None:
        def resume(exchange: Exchange, says: StoreSays | None) -> None:
            self._handling.guarded(exchange, partial(self._decide, job, says))

        if not self._handling.wait(job.exchange, symbol, resume):
            job.is_short = True
            self._tell(job, busy())

    async def _work(self, job: _Job, stages: list[InstrumentStage]) -> None:
        try:
            behind, failed = await self._both_parts(job, stages)
        finally:
            self._handling.end_work(job.exchange)
        if failed is not None or behind is None:
            self._tell(job, failed)
        elif self._handling.is_news(behind.stage):
            self._decide(job, None)
        else:
            self._wait(job, behind.stage.symbol)

    async def _both_parts(
        self, job: _Job, stages: list[InstrumentStage]
    ) -> tuple[Behind | None, Reply | None]:
        """(an instrument whose stage has changed meanwhile, why the rest could not be done)."""
        try:
            orders = await self._open_orders(job, stages)
        except LegacyLookupFailed as error:
            _log.warning("the open orders of account %d: %s", job.exchange.account, error)
            return None, self._short(job, busy())
        if len(orders) > BULK_ORDERS_MAX:
            message = "has too many open orders to cancel at once"
            errors = (("account", message),)
            refusal = Refusal(status=422, errors=errors, reasons=("too_many_orders",))
            rendered = self._dialect.render_refusal(refusal)
            return None, self._short(job, Reply(*rendered, Fate.REFUSED))
        behind, failed = await self._engine_part(job, stages)
        if failed is None:
            failed = await self._legacy_part(job, orders)
        return behind, failed

    async def _open_orders(self, job: _Job, stages: list[InstrumentStage]) -> list[OpenOrder]:
        """The monolith's, asked for before anything is done: its database may be away."""
        only, besides = job.wanted.symbol or "", [stage.symbol for stage in stages]
        if only in besides:
            return []
        return await self._legacy.open_orders(
            job.exchange.account,
            only=only,
            besides=besides,
            side=_SIDES[Side(job.wanted.side)] if job.wanted.side else "",
            orders_max=BULK_ORDERS_MAX + 1,
        )

    async def _engine_part(
        self, job: _Job, stages: list[InstrumentStage]
    ) -> tuple[Behind | None, Reply | None]:
        todo = [stage for stage in stages if stage.symbol not in job.done]
        side, account = job.wanted.side, job.exchange.account
        found = await self._live.cancel_all(todo, side, account)
        job.canceled |= dict(found.canceled)
        behind = next((one for one in found.failed if isinstance(one, Behind)), None)
        late = {one.stage.symbol for one in found.failed if isinstance(one, Behind)}
        job.done |= {stage.symbol for stage in todo} - late
        failed = next((one for one in found.failed if isinstance(one, Reply)), None)
        return behind, self._short(job, failed) if failed is not None else None

    async def _legacy_part(self, job: _Job, orders: list[OpenOrder]) -> Reply | None:
        for order in orders:
            job.asked += 1
            reply = await self._monolith.cancel(job.exchange, order.order_id, job.asked)
            if reply.fate in (Fate.DONE, Fate.UNKNOWN):
                job.canceled[order.order_id] = reply
            if reply.fate is not Fate.DONE and reply.status not in _CLOSED_MEANWHILE:
                return self._short(job, reply)
        return None

    def _short(self, job: _Job, reply: Reply) -> Reply:
        job.is_short = True
        return reply

    def _tell(self, job: _Job, failed: Reply | None) -> None:
        """`failed`: why not all was done. It is the whole answer where nothing was."""
        if failed is not None and not job.canceled:
            self._handling.answer(job.exchange, failed)
            return
        shown = [element_of(self._dialect, job.canceled[one]) for one in sorted(job.canceled)]
        status = self._mapping.responses.canceled_many_status
        if job.is_short or any(fate is Fate.UNKNOWN for _, fate in shown):
            status = HTTPStatus.GATEWAY_TIMEOUT
        rendered = self._dialect.render_many(status, [element for element, _ in shown])
        self._handling.answer(job.exchange, Reply(*rendered, Fate.DONE))
