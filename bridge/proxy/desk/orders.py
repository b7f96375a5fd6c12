"""Decides who answers an order-entry request, and sees it answered.

While no instrument is held or live everything goes to the monolith as it comes. Otherwise the
instrument is found first: in the body of a new order, by the order's id for a cancel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from functools import partial
from http import HTTPStatus

from bridge.errors import LegacyLookupFailed
from bridge.limits import READ_BARRIER_S
from bridge.proxy.desk.answers import PlacedAnswers
from bridge.proxy.desk.bulk import BulkOrders
from bridge.proxy.desk.cancel_all import CancelAll
from bridge.proxy.desk.dialect import render_status
from bridge.proxy.desk.handling import Handling
from bridge.proxy.desk.hold import Holds, StoreSays, Way
from bridge.proxy.desk.ids import KnownOrder, LegacyOrders, OrderIndex
from bridge.proxy.desk.live import Behind, Elsewhere, Found, LiveOrders
from bridge.proxy.desk.monolith import (
    AskMonolith,
    MonolithSide,
    Record,
    nobody_asks,
    nobody_records,
)
from bridge.proxy.desk.reply import Fate, Reply, busy
from bridge.proxy.desk.session import WriteBarrier
from bridge.proxy.desk.uuids import OrderUuids
from bridge.proxy.plane.exchange import Exchange
from bridge.stage import InstrumentStage
from shadow.errors import AdapterFailed
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.mapping import Responses
from shadow.normalise import Fields

_log = logging.getLogger(__name__)


class OrderDesk:
    def __init__(
        self,
        *,
        live: LiveOrders,
        legacy: LegacyOrders,
        index: OrderIndex,
        barrier: WriteBarrier,
        responses: Responses,
        read_stage: Callable[[str], Awaitable[InstrumentStage | None]],
        drained_changed: Callable[[], None],
        forward: Callable[[Exchange], None],
        ask_monolith: AskMonolith = nobody_asks,
        record: Record = nobody_records,
        adapter: Adapted = PLAIN,
    ) -> None:
        """`read_stage` asks the control store, None when it can't be asked; `forward` sends an
        exchange to the monolith. `ask_monolith` sends a request of our own, a part of a client's;
        `record` gets it then as an exchange without a client, and its outcome, for the capture.
        """
        self.holds = Holds(
            symbols_of=self._symbols_of, expired=self._on_expired, drained_changed=drained_changed
        )
        self._handling = handling = Handling(self.holds, forward)
        self._live = live
        self._legacy = legacy
        self._index = index
        self._barrier = barrier
        self._answers = PlacedAnswers(responses)
        self._uuids = OrderUuids(are_mapped=bool(legacy.mapping.orders.uuid))
        self.monolith = MonolithSide(legacy.mapping, ask_monolith, record=record, learn=self.learn)
        self._bulk = BulkOrders(handling, live, legacy, index, self.monolith)
        self._cancel_all = CancelAll(handling, live, legacy, self.monolith)
        self._read_stage = read_stage
        self._forward = forward
        self._adapter = adapter
        self._loop = asyncio.get_running_loop()

    # The server's side.

    def begin(self, exchange: Exchange) -> None:
        """An exchange of a mapped route, whose turn has come."""
        if not self.holds.special:
            if exchange.is_order:
                self.holds.enter(exchange)
            self._forward(exchange)
        elif not exchange.is_order:
            self._read(exchange)
        elif exchange.request_done:
            self.collected(exchange)
        elif exchange.client is not None:
            exchange.collecting = True
            exchange.client.ask_for_body(exchange)

    def collected(self, exchange: Exchange) -> None:
        """More of the body has come of an exchange that waits for it."""
        if exchange.body is None:
            exchange.collecting = False
            exchange.keep_alive = False
            too_large = render_status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
            self._handling.answer(exchange, Reply(*too_large, Fate.REFUSED))
        elif exchange.request_done:
            exchange.collecting = False
            self._decide(exchange)

    def left(self, exchange: Exchange) -> None:
        """It is no longer under way: answered, failed or given up. A command can't be given up."""
        if not exchange.at_engine:
            self.holds.leave(exchange)

    def learn(self, exchange: Exchange) -> None:
        """The instruments of the orders that the monolith has just taken."""
        if exchange.route is None or not exchange.response_body:
            return
        body = b"".join(exchange.response_body)
        for order_id, symbol in self._answers.read(exchange.route, exchange.status, body):
            self._index.put(order_id, KnownOrder(symbol, exchange.account))

    async def close(self) -> None:
        await self._handling.close()

    # Deciding.

    def _decide(self, exchange: Exchange, says: StoreSays | None = None) -> None:
        """Anew each time: whatever was known before a wait may be otherwise now."""
        if exchange.client is not None:
            exchange.held_since = exchange.held_since or self._loop.time()
            self._handling.guarded(exchange, partial(self._decide_now, exchange, says))

    def _decide_now(self, exchange: Exchange, says: StoreSays | None) -> None:
        fields = self._fields(exchange)
        if fields is None:
            self._handling.to_legacy(exchange)
        elif fields.route.action == "cancel_all":
            self._cancel_all.decide(exchange, fields, says)
        elif fields.route.each:
            self._bulk.begin(exchange, fields, says)
        elif fields.route.action == "place":
            self._decide_place(exchange, fields, says)
        elif fields.route.action == "cancel":
            self._decide_cancel(exchange, fields, says)
        else:
            self._read(exchange)

    def _fields(self, exchange: Exchange) -> Fields | None:
        """None for what can't be read, by us or by the adapter: it goes to the monolith as it came,
        where the fence refuses what it writes of a live instrument.
        """
        fields = exchange.fields()
        if fields is None:
            return None
        try:
            return self._adapter.fields(fields)
        except AdapterFailed as error:
            _log.error("%s: the request goes to the monolith as it came", error)
            return None

    def _decide_place(self, exchange: Exchange, fields: Fields, says: StoreSays | None) -> None:
        if not self._held(exchange, fields.symbol, says):
            self._settle(exchange, fields.symbol, says)
        else:
            self._live.expect(self.holds.held())

    def _decide_cancel(self, exchange: Exchange, fields: Fields, says: StoreSays | None) -> None:
        order_id = self._uuids.order_id_of(fields)
        known = self._index.get(order_id)
        uuid = self._uuids.to_look_up(fields)
        if uuid:
            self._handling.spawn(self._find_by_uuid(exchange, uuid, says), exchange)
        elif known is None and order_id:
            self._handling.spawn(self._find(exchange, order_id, says), exchange)
        else:
            self._route(exchange, known.symbol if known is not None else None, says)

    def _route(self, exchange: Exchange, symbol: str | None, says: StoreSays | None) -> None:
        if not self._held(exchange, symbol, says):
            self._settle(exchange, symbol, says)

    def _held(self, exchange: Exchange, symbol: str | None, says: StoreSays | None) -> bool:
        """It waits now, or has been told that it can't."""
        exchange.symbol = symbol
        if symbol is None or self._handling.who(symbol, says)[0] is not Way.WAIT:
            return False
        self._wait(exchange, symbol)
        return True

    def _settle(self, exchange: Exchange, symbol: str | None, says: StoreSays | None) -> None:
        if exchange.client is None:
            return
        way, stage = self._handling.who(symbol, says)
        if way is Way.ENGINE and stage is not None:
            self._handling.begin_work(exchange, frozenset((stage.symbol,)))
            self._handling.spawn(self._answer_live(exchange, stage), exchange)
        else:
            self._handling.to_legacy(exchange)

    def _wait(self, exchange: Exchange, symbol: str) -> None:
        if not self._handling.wait(exchange, symbol, self._decide):
            self._handling.answer(exchange, busy())

    async def _answer_live(self, exchange: Exchange, stage: InstrumentStage) -> None:
        try:
            fields = self._fields(exchange)
            assert fields is not None
            if fields.route.action == "place":
                (reply,) = await self._live.place([(fields, stage)], exchange.account)
            else:
                cancels = [(self._uuids.order_id_of(fields), stage)]
                (reply,) = await self._live.cancel(cancels, exchange.account)
        finally:
            self._handling.end_work(exchange)
        self._conclude(exchange, reply)

    def _conclude(self, exchange: Exchange, reply: Found) -> None:
        if isinstance(reply, Reply):
            self._handling.answer(exchange, reply)
        elif reply is Elsewhere.LEGACY:
            self._handling.to_legacy(exchange, frozenset())
        elif isinstance(reply, Behind) and not self._handling.is_news(reply.stage):
            # The engine knows of a change of stage that we have not heard of yet.
            self._wait(exchange, reply.stage.symbol)
        else:
            self._decide(exchange)

    async def _find_by_uuid(self, exchange: Exchange, uuid: str, says: StoreSays | None) -> None:
        try:
            order_id = await self._legacy.id_of_uuid(uuid)
        except LegacyLookupFailed as error:
            _log.warning("order %s: %s", uuid, error)
            self._handling.answer(exchange, busy())
            return
        if order_id:
            self._uuids.put(uuid, order_id)
            self._decide(exchange, says)
        else:
            self._route(exchange, None, says)

    async def _find(self, exchange: Exchange, order_id: int, says: StoreSays | None) -> None:
        """The instrument of an order that has not passed by here."""
        try:
            known = await self._legacy.find(order_id)
        except LegacyLookupFailed as error:
            _log.warning("order %d: %s", order_id, error)
            self._handling.answer(exchange, busy())
            return
        if known is not None:
            self._index.put(order_id, known)
            self._route(exchange, known.symbol, says)
            return
        if exchange.client is None:
            return
        stages = self._handling.live(says)
        for stage in stages:
            if self._handling.who(stage.symbol, says)[0] is Way.WAIT:
                self._wait(exchange, stage.symbol)
                return
        if not stages:
            # Of no order that anybody could have been told of: it keeps no hold waiting.
            self._handling.to_legacy(exchange, frozenset())
            return
        self._handling.begin_work(exchange, None)
        try:
            (reply,) = await self._live.cancel_anywhere([order_id], exchange.account, stages)
        finally:
            self._handling.end_work(exchange)
        self._conclude(exchange, reply)

    def _on_expired(self, symbol: str) -> None:
        self._handling.spawn(self._by_the_store(symbol))

    async def _by_the_store(self, symbol: str) -> None:
        """No news for too long: what the control store says holds; if it is away, the monolith."""
        stage = None
        try:
            stage = await self._read_stage(symbol)
        except Exception:
            _log.exception("the stage of %s could not be read", symbol)
        self.holds.release_late(StoreSays(symbol, stage), self._loop.time())

    # Reading, learning.

    def _read(self, exchange: Exchange) -> None:
        """A read of one's own order shows what one was told before: it waits for the write-back."""
        if not self.holds.live or self._barrier.written >= self._barrier.answered:
            self._forward(exchange)
        else:
            self._handling.spawn(self._read_later(exchange), exchange)

    async def _read_later(self, exchange: Exchange) -> None:
        await self._barrier.wait(self._barrier.answered, READ_BARRIER_S)
        if exchange.client is not None:
            self._forward(exchange)

    def _symbols_of(self, exchange: Exchange) -> frozenset[str] | None:
        """The instruments that a request concerns; None: not known, or all of them."""
        if exchange.symbol is not None:
            return frozenset((exchange.symbol,))
        fields = self._fields(exchange)
        if fields is None:
            return None
        if fields.route.action == "cancel":
            found = [
                self._index.get(self._uuids.order_id_of(one)) for one in fields.each or (fields,)
            ]
            known = [one.symbol for one in found if one is not None]
            return frozenset(known) if len(known) == len(found) else None
        named = [one.symbol for one in fields.each or (fields,)]
        return None if None in named else fields.symbols
