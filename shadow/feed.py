"""Commands for the engine, in the monolith's commit order, and their answers.

The reference of a command is made of its transaction's position and its index therein: whoever
reads the transaction again sends it under the same reference, and gets the original outcome.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import msgspec

from engine.errors import EngineUnavailable, OutcomeUnknown
from engine.types import Command, CommandKind, OrderType, TimeInForce
from shadow.limits import FEED_RETRY_S, FEED_TIMEOUT_S
from shadow.operation import (
    Cancel,
    OrderImage,
    Place,
    Requeue,
    Unexplained,
    open_lots,
    ordered_lots,
)
from shadow.ports import Answered, Engine
from shadow.work import Item

log = logging.getLogger(__name__)

_INDEX_BITS = 16


def reference(commit_lsn: int, index: int) -> int:
    """Grows with the feed. `index` is of the operation in its transaction."""
    return commit_lsn << _INDEX_BITS | index


def command_of(operation: Place | Cancel | Requeue, instrument: int, ref: int) -> Command:
    order = operation.order
    if isinstance(operation, Requeue):
        return Command(
            kind=CommandKind.REPLACE,  # by itself: it goes to the end of its queue
            instrument=instrument,
            ref=ref,
            account=order.account,
            order_id=order.order_id,
            price_ticks=order.price_ticks,
            qty_lots=open_lots(order),
            aux=order.order_id,
        )
    if isinstance(operation, Cancel):
        return Command(
            kind=CommandKind.CANCEL,
            instrument=instrument,
            ref=ref,
            account=order.account,
            order_id=order.order_id,
        )
    qty_lots = ordered_lots(order)
    if operation.cut_lots == qty_lots:
        return _unpaid(order, instrument, qty_lots, ref)
    return new_order(order, instrument, qty_lots - operation.cut_lots, ref)


def _unpaid(order: OrderImage, instrument: int, qty_lots: int, ref: int) -> Command:
    """A market buy that can't pay for the best offer: one that offers the least there is, so that
    the engine takes note of it, and cancels it. An offer at one tick it could have paid for.
    """
    command = new_order(order, instrument, qty_lots, ref)
    return msgspec.structs.replace(command, ord_type=OrderType.LIMIT, price_ticks=1)


def new_order(order: OrderImage, instrument: int, qty_lots: int, ref: int = 0) -> Command:
    market = order.ord_type == OrderType.MARKET
    return Command(
        kind=CommandKind.NEW,
        side=order.side,
        ord_type=order.ord_type,
        tif=TimeInForce.IOC if market else order.tif,
        instrument=instrument,
        ref=ref,
        account=order.account,
        order_id=order.order_id,
        price_ticks=0 if market else order.price_ticks,
        qty_lots=qty_lots,
    )


class Feed:
    """Sends without waiting; `answered` is called whenever answers have come."""

    def __init__(
        self, engine: Engine, mono_ns: Callable[[], int], answered: Callable[[], None]
    ) -> None:
        self._engine = engine
        self._mono_ns = mono_ns
        self._answered = answered
        self._items: list[Item] = []
        self._commands: list[Command] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: deque[Sequence[Item]] = deque()  # batches, oldest first
        self._idle = asyncio.Event()
        self._idle.set()
        self.in_flight = 0
        self.failure: Exception | None = None  # this session can't go on at all

    def add(self, item: Item, command: Command) -> None:
        self._items.append(item)
        self._commands.append(command)
        self.in_flight += 1

    def flush(self) -> None:
        """Sends what was added, as one batch."""
        if not self._items:
            return
        items, commands = self._items, self._commands
        self._items, self._commands = [], []
        now = self._mono_ns()
        for item in items:
            item.sent_ns = now
        self._idle.clear()
        self._under_way.append(items)
        task = asyncio.create_task(self._send(items, commands))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        """Until everything sent has been answered."""
        self.flush()
        while not self._idle.is_set():
            await self._idle.wait()

    def unanswered_since_ns(self, symbol: str) -> int | None:
        """When the oldest operation of the instrument was read that has no answer yet."""
        for items in (*self._under_way, self._items):
            for item in items:
                operation = item.operation
                if not isinstance(operation, Unexplained) and operation.order.symbol == symbol:
                    return item.read_ns
        return None

    def unanswered_for_ns(self) -> int:
        """How long the oldest command has been under way; 0 when none is."""
        return self._mono_ns() - self._under_way[0][0].sent_ns if self._under_way else 0

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, items: Sequence[Item], commands: Sequence[Command]) -> None:
        while True:
            try:
                answers = await self._engine.send(commands, timeout_s=FEED_TIMEOUT_S)
            except (EngineUnavailable, OutcomeUnknown) as error:
                log.warning("feeding the engine: %s; the same commands are sent again", error)
                await asyncio.sleep(FEED_RETRY_S)
            except Exception as error:
                self.failure = self.failure or error
                self._idle.set()
                self._answered()
                return
            else:
                self._take(items, answers)
                return

    def _take(self, items: Sequence[Item], answers: Sequence[Answered]) -> None:
        now = self._mono_ns()
        for item, answer in zip(items, answers, strict=True):
            item.events = answer.events
            item.seq = answer.seq
            item.at_ns = answer.at_ns
            item.answered_ns = now
            item.is_answered = True
        self.in_flight -= len(items)
        self._under_way.remove(items)
        if not self.in_flight:
            self._idle.set()
        self._answered()
