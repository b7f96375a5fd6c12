"""Drives a recorded order flow through the exchange: each place and each cancel, in its order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator
from decimal import Decimal

import msgspec

from bridge.limits import LOAD_RETRY_S, LOAD_TIMEOUT_S
from bridge.sandbox.client import HttpConnection
from bridge.sandbox.flow import FlowEvent
from bridge.sandbox.sender import Sender
from bridge.sandbox.told import LoadResult, Wish


class PlaceStep(msgspec.Struct, frozen=True):
    key: int  # the flow's own name for the order
    wish: Wish  # its member doesn't matter: the client that sends it puts in its own


class CancelStep(msgspec.Struct, frozen=True):
    key: int


FlowStep = PlaceStep | CancelStep


def flow_steps(events: Iterable[FlowEvent], symbol: str) -> Iterator[FlowStep]:
    """A recorded flow as steps: the recorded exchange's order ids are the keys."""
    for event in events:
        if event.kind == "cancel":
            yield CancelStep(event.order_id)
            continue
        wish = Wish(
            symbol=symbol,
            member=0,
            side=event.side,
            order_type="limit",
            time_in_force="gtc",
            price=Decimal(event.price),
            quantity=Decimal(event.quantity),
        )
        yield PlaceStep(event.order_id, wish)


class FlowLoad:
    """At most `clients` requests are under way, each client with a connection and a member.

    Steps begin in their order; with one client they are also handled in it. A cancel is sent by the
    client that placed the order, after that was answered. A closed loop: latencies run from the
    moment of sending.
    """

    def __init__(
        self,
        base_url: str,
        *,
        clients: int = 4,
        first_member: int = 1,
        timeout_s: float = LOAD_TIMEOUT_S,
    ) -> None:
        self.result = LoadResult()
        self.order_ids: dict[int, int] = {}  # the flow's key -> the exchange's id
        self._first_member = first_member
        self._senders = [
            Sender(HttpConnection(base_url, timeout_s), self.result) for _ in range(clients)
        ]
        self._queues: list[asyncio.Queue[FlowStep]] = [asyncio.Queue() for _ in range(clients)]
        self._free = asyncio.Semaphore(clients)
        self._phase = "start"
        self._going = asyncio.Event()
        self._going.set()

    def phase(self, name: str) -> None:
        self._phase = name

    def pause(self) -> None:
        """Requests under way go on; no further one begins."""
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    async def run(self, steps: Iterable[FlowStep]) -> LoadResult:
        """Returns when every step was answered or has failed; may be called again with more."""
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(self._serve(number, sender))
                for number, sender in enumerate(self._senders)
            ]
            try:
                for step in steps:
                    await self._going.wait()
                    await self._free.acquire()
                    self._queues[step.key % len(self._queues)].put_nowait(step)
                for queue in self._queues:
                    await queue.join()
            finally:
                for task in tasks:
                    task.cancel()
        return self.result

    def close(self) -> None:
        for sender in self._senders:
            sender.close()

    async def _serve(self, number: int, sender: Sender) -> None:
        queue, member = self._queues[number], self._first_member + number
        while True:
            step = await queue.get()
            try:
                await self._one(step, member, sender)
                if sender.unreachable:
                    await asyncio.sleep(LOAD_RETRY_S)
            finally:
                self._free.release()
                queue.task_done()

    async def _one(self, step: FlowStep, member: int, sender: Sender) -> None:
        if isinstance(step, PlaceStep):
            wish = msgspec.structs.replace(step.wish, member=member)
            order = await sender.place(wish, time.monotonic_ns(), self._phase)
            if order is not None:
                self.order_ids[step.key] = order.order_id
        elif step.key in self.order_ids:
            order_id = self.order_ids[step.key]
            await sender.cancel(member, order_id, time.monotonic_ns(), self._phase)
        else:
            self.result.count_skipped("its order was not taken")
