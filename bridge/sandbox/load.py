"""The load generator: many clients that place and cancel orders, at a rate or as fast as they can.

With a rate it is an open loop: requests are due at random moments whatever the answers do, and a
latency runs from the moment a request was due, so that a pause of the exchange shows in full.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from decimal import Decimal
from random import Random

from bridge.limits import LOAD_BACKLOG_MAX, LOAD_RETRY_S, LOAD_TIMEOUT_S
from bridge.sandbox.client import HttpConnection
from bridge.sandbox.flow_random import CancelWish, LoadSymbol, Member, Mix, Walk
from bridge.sandbox.pacer import Pacer
from bridge.sandbox.sender import Sender
from bridge.sandbox.told import LoadResult

DEFAULT_SYMBOLS = (
    LoadSymbol(
        symbol="BTC-USD", tick=Decimal("0.01"), lot=Decimal("0.00000001"), middle=Decimal("236.50")
    ),
    LoadSymbol(
        symbol="ETH-USD", tick=Decimal("0.01"), lot=Decimal("0.00000001"), middle=Decimal("180.00")
    ),
    LoadSymbol(
        symbol="SOL-USD", tick=Decimal("0.001"), lot=Decimal("0.0001"), middle=Decimal("24.500")
    ),
)
DEFAULT_MIX = Mix()
_NOW = 0  # a closed loop's request is scheduled when it is sent


class Load:
    """`clients` members, numbered from `first_member`, each with a connection of its own.

    `rate_per_s` None: a closed loop, each client sends as soon as it was answered. The same seed
    gives the same wishes for the same answers.
    """

    def __init__(
        self,
        base_url: str,
        symbols: Sequence[LoadSymbol] = DEFAULT_SYMBOLS,
        *,
        seed: int = 1,
        rate_per_s: float | None = 200.0,
        clients: int = 24,
        first_member: int = 1,
        mix: Mix = DEFAULT_MIX,
        timeout_s: float = LOAD_TIMEOUT_S,
    ) -> None:
        self.result = LoadResult()
        self._rate_per_s = rate_per_s
        walks = [Walk(symbol, Random(f"{seed}/{symbol.symbol}")) for symbol in symbols]
        self._clients = [
            (
                Member(number, walks, mix, Random(f"{seed}/{number}")),
                Sender(HttpConnection(base_url, timeout_s), self.result),
            )
            for number in range(first_member, first_member + clients)
        ]
        self._chance = Random(f"{seed}/pace")
        self._phase = "start"
        self._phases: dict[str, str] = {}
        self._due: asyncio.Queue[int] = asyncio.Queue()
        self._tasks: list[asyncio.Task[None]] = []
        self._pacer: Pacer | None = None
        self._going = False
        self._tokens = 0  # closed loop: requests that wait or are being answered

    async def start(self) -> None:
        self._tasks = [asyncio.create_task(self._serve(*client)) for client in self._clients]
        if self._rate_per_s is not None:
            loop = asyncio.get_running_loop()
            self._pacer = Pacer(loop, self._schedule, self._rate_per_s, self._chance)
            self._pacer.start()
        self.resume()

    def phase(self, name: str, symbol: str = "") -> None:
        """Counts latencies under this name from now on: of one symbol, or of all of them."""
        if symbol:
            self._phases[symbol] = name
        else:
            self._phase = name
            self._phases.clear()

    def pause(self) -> None:
        """No more requests become due; `quiet` waits for those that are."""
        self._going = False
        if self._pacer is not None:
            self._pacer.pause()

    def resume(self) -> None:
        self._going = True
        if self._pacer is not None:
            self._pacer.resume()
        else:
            self._schedule([_NOW] * (len(self._clients) - self._tokens))

    async def quiet(self) -> None:
        """While paused: returns when every request that was due has been answered or has failed."""
        await self._due.join()

    async def stop(self) -> LoadResult:
        """Lets what is due be answered, at most for the timeout, and hands out the ledger."""
        self.pause()
        if self._pacer is not None:
            await asyncio.to_thread(self._pacer.end)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOAD_TIMEOUT_S):
                await self.quiet()
        while not self._due.empty():
            self._due.get_nowait()
            self.result.count_skipped("stopped before it was sent")
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _, sender in self._clients:
            sender.close()
        return self.result

    def _schedule(self, scheduled_ns: list[int]) -> None:
        for one_ns in scheduled_ns:
            if self._due.qsize() >= LOAD_BACKLOG_MAX:
                self.result.count_skipped("too many were due already")
                continue
            self._tokens += 1
            self._due.put_nowait(one_ns)

    async def _serve(self, member: Member, sender: Sender) -> None:
        """One client: takes the oldest request that is due, whosever turn it is."""
        while True:
            scheduled_ns = await self._due.get()
            try:
                await self._one(member, sender, scheduled_ns or time.monotonic_ns())
            finally:
                self._tokens -= 1
                if self._pacer is None and self._going:
                    self._schedule([_NOW])
                self._due.task_done()
            if sender.unreachable:
                await asyncio.sleep(LOAD_RETRY_S)

    async def _one(self, member: Member, sender: Sender, scheduled_ns: int) -> None:
        bulk = member.bulk()
        if bulk is not None:
            phase = self._phases.get(bulk.symbol, self._phase)
            for taken in await sender.bulk(member.number, bulk, scheduled_ns, phase):
                if taken.state == "open":
                    member.rests(taken.order_id, taken.wish.symbol)
            return
        wish = member.next()
        phase = self._phases.get(wish.symbol, self._phase)
        if isinstance(wish, CancelWish):
            await sender.cancel(member.number, wish.order_id, scheduled_ns, phase)
            return
        order = await sender.place(wish, scheduled_ns, phase)
        if order is not None and order.state == "open":
            member.rests(order.order_id, wish.symbol)
