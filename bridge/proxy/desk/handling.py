"""What single orders and bulk requests have in common: who answers, waiting, sending, telling."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any

from bridge.proxy.desk.dialect import answer_fields, render_status
from bridge.proxy.desk.hold import Holds, Resume, StoreSays, Way
from bridge.proxy.desk.reply import Fate, Reply
from bridge.proxy.plane.exchange import Exchange
from bridge.stage import InstrumentStage

_log = logging.getLogger(__name__)


class Handling:
    def __init__(self, holds: Holds, forward: Callable[[Exchange], None]) -> None:
        self.holds = holds
        self._forward = forward
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    def who(
        self, symbol: str | None, says: StoreSays | None = None
    ) -> tuple[Way, InstrumentStage | None]:
        """Who answers for an instrument; what the control store says of it holds. A stage comes
        with the engine.
        """
        if symbol is None:
            return Way.LEGACY, None
        if says is None or says.symbol != symbol:
            return self.holds.way_of(symbol), self.holds.stage_of(symbol)
        if says.stage is not None and says.stage.stage.answered_by_engine:
            return Way.ENGINE, says.stage
        return Way.LEGACY, None

    def live(self, says: StoreSays | None = None) -> tuple[InstrumentStage, ...]:
        """Every instrument that the engine answers for, held ones too."""
        if says is None:
            return self.holds.live
        others = (stage for stage in self.holds.live if stage.symbol != says.symbol)
        way, stage = self.who(says.symbol, says)
        return (*others, stage) if way is Way.ENGINE and stage is not None else tuple(others)

    def wait(self, exchange: Exchange, symbol: str, resume: Resume) -> bool:
        """False: there is no room, or it has waited for too long already."""
        since = exchange.held_since
        return self.holds.wait(symbol, exchange, resume, since=since, now=self._loop.time())

    def is_news(self, stage: InstrumentStage) -> bool:
        """We have heard of a change since it was decided by this stage."""
        return self.holds.stage_of(stage.symbol) != stage

    def to_legacy(self, exchange: Exchange, symbols: frozenset[str] | None = None) -> None:
        """As it came."""
        if exchange.client is not None:
            if exchange.is_order:
                self.holds.enter(exchange, symbols)
            self._forward(exchange)

    def begin_work(self, exchange: Exchange, symbols: frozenset[str] | None) -> None:
        """From here to `end_work` we ourselves have commands or requests under way for it, which
        its client's leaving does not take back.
        """
        exchange.at_engine = True
        self.holds.enter(exchange, symbols)

    def end_work(self, exchange: Exchange) -> None:
        exchange.at_engine = False
        self.holds.leave(exchange)

    def answer(self, exchange: Exchange, reply: Reply) -> None:
        if exchange.client is None:
            return
        fields = answer_fields(reply.status, reply.body, exchange.request_id)
        if reply.retry_after_s:
            fields = (*fields, (b"Retry-After", b"%d" % reply.retry_after_s))
        exchange.client.answer(exchange, reply.status, reply.body, fields)

    def guarded(self, exchange: Exchange, work: Callable[[], None]) -> None:
        """A defect in the work leaves neither this exchange unanswered nor those behind it."""
        try:
            work()
        except Exception:
            _log.exception("an order could not be answered")
            self._answer_defect(exchange)

    def spawn(self, work: Coroutine[Any, Any, None], exchange: Exchange | None = None) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if task.cancelled() or task.exception() is None:
                return
            _log.error("an order could not be answered", exc_info=task.exception())
            if exchange is not None:
                self._answer_defect(exchange)

        task.add_done_callback(done)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _answer_defect(self, exchange: Exchange) -> None:
        if exchange.upstream is None:
            failure = render_status(HTTPStatus.INTERNAL_SERVER_ERROR)
            self.answer(exchange, Reply(*failure, Fate.UNKNOWN))
