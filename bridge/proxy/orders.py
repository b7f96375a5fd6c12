"""Decides who answers an order-entry request, and sees it answered.

While no instrument is held or live everything goes to the monolith as it comes. Otherwise the
instrument is found first: in the body of a new order, by the order's id for a cancel.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from bridge.errors import LegacyLookupFailed
from bridge.limits import HOLD_RETRY_AFTER_S, HOLD_S, READ_BARRIER_S
from bridge.proxy.dialect import answer_fields, render_status
from bridge.proxy.exchange import Exchange
from bridge.proxy.hold import Holds, Way
from bridge.proxy.ids import KnownOrder, LegacyOrders, OrderIndex
from bridge.proxy.live import Elsewhere, LiveOrders, Reply, WriteBarrier
from bridge.stage import InstrumentStage
from shadow.legacy.mapping import Responses
from shadow.normalise import order_id_of

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
    ) -> None:
        """`read_stage` asks the control store, None when it can't be asked; `forward` sends an
        exchange to the monolith.
        """
        self.holds = Holds(
            symbol_of=self._symbol_of, expired=self._on_expired, drained_changed=drained_changed
        )
        self._live = live
        self._legacy = legacy
        self._index = index
        self._barrier = barrier
        self._responses = responses
        self._read_answer = _placed_answer(responses)
        self._read_stage = read_stage
        self._forward = forward
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

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
            self._answer(exchange, Reply(*render_status(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)))
        elif exchange.request_done:
            exchange.collecting = False
            self._decide(exchange)

    def left(self, exchange: Exchange) -> None:
        """It is no longer under way: answered, failed or given up. A command can't be given up."""
        if not exchange.at_engine:
            self.holds.leave(exchange)

    def learn(self, exchange: Exchange) -> None:
        """The instrument of an order that the monolith has just taken."""
        if exchange.status != self._responses.placed_status or not exchange.response_body:
            return
        try:
            order_id, symbol = self._read_answer(b"".join(exchange.response_body))
        except msgspec.MsgspecError:
            return
        self._index.put(order_id, KnownOrder(symbol, exchange.account))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Deciding.

    def _decide(self, exchange: Exchange) -> None:
        if exchange.client is None:
            return
        fields = exchange.fields()
        if fields is None or exchange.route is None:
            self._to_legacy(exchange)
        elif exchange.route.action == "place":
            self._route(exchange, fields.symbol)
        else:
            order_id = order_id_of(fields)
            known = self._index.get(order_id)
            if known is not None or not order_id:
                self._route(exchange, known.symbol if known else None)
            else:
                self._spawn(self._find(exchange, order_id), exchange)

    def _route(self, exchange: Exchange, symbol: str | None) -> None:
        if exchange.client is None:
            return
        exchange.symbol = symbol
        way = Way.LEGACY if symbol is None else self.holds.way_of(symbol)
        if symbol is None or way is Way.LEGACY:
            self._to_legacy(exchange)
        elif way is Way.WAIT:
            self._wait(exchange, symbol, self._resume)
        else:
            stage = self.holds.stage_of(symbol)
            if stage is not None:
                self._to_engine(exchange, stage)

    def _resume(self, exchange: Exchange) -> None:
        self._route(exchange, exchange.symbol)

    def _wait(self, exchange: Exchange, symbol: str, resume: Callable[[Exchange], None]) -> None:
        now = self._loop.time()
        exchange.held_since = exchange.held_since or now
        if not self.holds.wait(symbol, exchange, resume, now):
            self._answer(exchange, _busy())

    def _to_legacy(self, exchange: Exchange) -> None:
        if exchange.client is not None:
            self.holds.enter(exchange)
            self._forward(exchange)

    def _to_engine(self, exchange: Exchange, stage: InstrumentStage) -> None:
        if exchange.client is not None:
            exchange.at_engine = True
            self.holds.enter(exchange)
            self._spawn(self._answer_live(exchange, stage), exchange)

    async def _answer_live(self, exchange: Exchange, stage: InstrumentStage) -> None:
        reply: Reply | Elsewhere
        try:
            fields = exchange.fields()
            if exchange.route is not None and exchange.route.action == "place":
                reply = await self._live.place(exchange, stage)
            else:
                order_id = order_id_of(fields) if fields else 0
                reply = await self._live.cancel(exchange, order_id, stage)
        finally:
            exchange.at_engine = False
            self.holds.leave(exchange)
        if reply is Elsewhere.BEHIND and self.holds.stage_of(stage.symbol) == stage:
            self._wait_for_news(exchange, stage.symbol, self._resume)
        else:
            self._conclude(exchange, reply)

    def _wait_for_news(
        self, exchange: Exchange, symbol: str, resume: Callable[[Exchange], None]
    ) -> None:
        """The engine knows of a change of stage that we have not heard of yet."""
        if exchange.held_since and self._loop.time() - exchange.held_since >= HOLD_S:
            self._answer(exchange, _busy())
            return
        self._wait(exchange, symbol, resume)

    def _conclude(self, exchange: Exchange, reply: Reply | Elsewhere) -> None:
        if isinstance(reply, Reply):
            self._answer(exchange, reply)
        elif reply is Elsewhere.LEGACY:
            self._to_legacy(exchange)
        else:
            self._decide(exchange)

    async def _find(self, exchange: Exchange, order_id: int) -> None:
        """The instrument of an order that has not passed by here."""
        try:
            row = await self._legacy.find(order_id)
        except LegacyLookupFailed as error:
            _log.warning("order %d: %s", order_id, error)
            self._answer(exchange, _busy())
            return
        if row is not None:
            known = KnownOrder(row.symbol, row.account, row.qty_lots, row.created_at_us)
            self._index.put(order_id, known)
            self._route(exchange, row.symbol)
            return
        stages = self.holds.live
        for stage in stages:
            if self.holds.way_of(stage.symbol) is Way.WAIT:
                self._wait(exchange, stage.symbol, self._decide)
                return
        if not stages:
            self._to_legacy(exchange)
            return
        exchange.at_engine = True
        self.holds.enter(exchange)
        try:
            reply = await self._live.cancel_anywhere(exchange, order_id, stages)
        finally:
            exchange.at_engine = False
            self.holds.leave(exchange)
        if reply is Elsewhere.BEHIND and stages == self.holds.live:
            # Whose order it is, is not known yet: that is looked for anew.
            self._wait_for_news(exchange, stages[0].symbol, self._decide)
        else:
            self._conclude(exchange, reply)

    def _on_expired(self, symbol: str, exchanges: Sequence[Exchange]) -> None:
        self._spawn(self._by_the_store(symbol, exchanges), *exchanges)

    async def _by_the_store(self, symbol: str, exchanges: Sequence[Exchange]) -> None:
        """No news for too long: what the control store says holds; if it is away, the monolith."""
        stage = await self._read_stage(symbol)
        for exchange in exchanges:
            if stage is not None and stage.stage.answered_by_engine:
                self._to_engine(exchange, stage)
            else:
                self._to_legacy(exchange)

    # Reading, answering.

    def _read(self, exchange: Exchange) -> None:
        """A read of one's own order shows what one was told before: it waits for the write-back."""
        if not self.holds.live or self._barrier.written >= self._barrier.answered:
            self._forward(exchange)
        else:
            self._spawn(self._read_later(exchange), exchange)

    async def _read_later(self, exchange: Exchange) -> None:
        await self._barrier.wait(self._barrier.answered, READ_BARRIER_S)
        if exchange.client is not None:
            self._forward(exchange)

    def _answer(self, exchange: Exchange, reply: Reply) -> None:
        if exchange.client is None:
            return
        fields = answer_fields(reply.status, reply.body, exchange.request_id)
        if reply.retry_after_s:
            fields = (*fields, (b"Retry-After", b"%d" % reply.retry_after_s))
        exchange.client.answer(exchange, reply.status, reply.body, fields)

    def _symbol_of(self, exchange: Exchange) -> str | None:
        if exchange.symbol is None:
            fields = exchange.fields()
            if fields is not None and fields.route.action == "place":
                exchange.symbol = fields.symbol
            elif fields is not None:
                known = self._index.get(order_id_of(fields))
                exchange.symbol = known.symbol if known is not None else None
        return exchange.symbol

    def _spawn(self, work: Coroutine[Any, Any, None], *exchanges: Exchange) -> None:
        """A defect in the work leaves none of the exchanges unanswered."""
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled() or task.exception() is None:
                return
            _log.error("an order could not be answered", exc_info=task.exception())
            for exchange in exchanges:
                if exchange.upstream is None:
                    failure = render_status(HTTPStatus.INTERNAL_SERVER_ERROR)
                    self._answer(exchange, Reply(*failure))

        task.add_done_callback(done)


def _busy() -> Reply:
    rendered = render_status(HTTPStatus.SERVICE_UNAVAILABLE)
    return Reply(*rendered, retry_after_s=HOLD_RETRY_AFTER_S)


def _placed_answer(responses: Responses) -> Callable[[bytes], tuple[int, str]]:
    """Reads id and symbol of the monolith's answer to a new order, and nothing else of it."""
    keys = {ours: theirs for theirs, ours in responses.order.items()}
    if "id" not in keys or "symbol" not in keys:
        return _read_nothing
    order = msgspec.defstruct(
        "PlacedOrder",
        [("id", int), ("symbol", str)],
        rename={"id": keys["id"], "symbol": keys["symbol"]},
    )
    root = responses.root
    answer = msgspec.defstruct("Placed", [("order", order)], rename={"order": root or "order"})
    decoder = msgspec.json.Decoder(answer if root else order)

    def read(body: bytes) -> tuple[int, str]:
        found: Any = decoder.decode(body)
        found = found.order if root else found
        return found.id, found.symbol

    return read


def _read_nothing(body: bytes) -> tuple[int, str]:
    raise msgspec.ValidationError("the mapping names no id or no symbol in an answer")
