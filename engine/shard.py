"""One shard at work: market, journal and sequencer, joined by the committer.

The loop owns all state but the market, which is the committer's while something is in hand.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic

from engine import limits
from engine.commit import Committer, Settled, create_committer
from engine.errors import MarketFailed
from engine.garbage import GarbageWhenIdle
from engine.journal import Journal
from engine.market import create_market
from engine.outcomes import Outcome
from engine.recovery import recover
from engine.sequencer import Sender, SenderT, Sequencer
from engine.snapshotting import Snapshots
from engine.tail import TailFeed, TailFrame
from engine.types import Role

__all__ = ["Sender", "Shard"]

log = logging.getLogger(__name__)


class Shard(Generic[SenderT]):
    """`recover`, then `run`; `close` in the end, whatever happened. All calls from the loop."""

    def __init__(self, directory: Path, *, number: int, implementation: str) -> None:
        self.number = number
        self.directory = directory
        self.market = create_market(implementation)
        self.sequencer = Sequencer[SenderT]()
        self.feed = TailFeed(directory, shard=number, implementation=implementation)
        self.frames = 0  # journalled since the start
        self._journal: Journal | None = None
        self._snapshots: Snapshots | None = None
        self._committer: Committer | None = None
        self._garbage: GarbageWhenIdle | None = None
        self._is_held = False  # nothing is applied that is not durable
        self._settled: list[Callable[[], None]] = []
        self._watchers: list[Callable[[TailFrame], None]] = []

    # --- life

    async def recover(self, stop: asyncio.Event) -> None:
        """Brings market and sequencer to the journal's end. Gives up, leaving all as it is, once
        told to stop.

        Raises JournalInUse, JournalDamaged, JournalFailed or MarketFailed.
        """
        recovered = await recover(
            self.directory,
            number=self.number,
            market=self.market,
            sequencer=self.sequencer,
            feed=self.feed,
            stop=stop,
        )
        if recovered is None:
            return
        self._journal, self.market = recovered
        self._committer = create_committer(self.market, recovered.journal, self._told)
        self.sequencer.begin(self.market.sessions(), self._committer)
        self._snapshots = Snapshots(
            self.directory, shard=self.number, implementation=self.market.implementation
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop`, and until the frame in flight then has been answered.

        Raises JournalFailed or MarketFailed: the process has to end then.
        """
        committer = self._committer
        assert committer is not None
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        with GarbageWhenIdle() as self._garbage:
            looking = asyncio.ensure_future(self._look_whether_idle())
            await asyncio.wait({committer.failed, stopping}, return_when=asyncio.FIRST_COMPLETED)
            looking.cancel()
            stopping.cancel()
            await self._stop_committer()
        if committer.failed.done():
            committer.failed.result()

    async def close(self) -> None:
        await self._stop_committer()
        if self._snapshots is not None:
            self._snapshots.close()
        self.feed.close()
        if self._journal is not None:
            self._journal.close()

    # --- what is to be sequenced

    def receive(self, sender: SenderT, session: int, commands: memoryview) -> None:
        """Whole commands of one session, at least one; their session fields are overwritten.
        Answered by `Sender.events`.
        """
        self.sequencer.receive(sender, session, commands, time.time_ns())

    def enter(self, sender: SenderT, name: str, role: Role) -> None:
        """A login. Answered by `Sender.admitted`."""
        self.sequencer.enter(sender, name, role, time.time_ns())

    def own(self, command: bytes, answered: Callable[[Outcome], None], *, session: int = 0) -> None:
        """A command of the gateway's own (64 bytes, reference 0): sequenced after whatever was
        received of `session` before. `answered` is told its events once they are durable.
        """
        self.sequencer.own(session, command, answered, time.time_ns())

    # --- what may be seen

    def when_settled(self, call: Callable[[], None]) -> None:
        """Calls soon, at once if possible, with all that the market has applied being durable: only
        in such calls may it be read. Never calls once the committer has failed or stopped with
        something in hand: the market is then ahead of the journal for good.
        """
        if self._is_held or not self.sequencer.unsettled:
            call()
        elif self._committer is not None:
            self._settled.append(call)
            self._committer.hold()

    def watch(self, frame: Callable[[TailFrame], None]) -> None:
        """Is told of every frame from now on, as soon as it is durable."""
        self._watchers.append(frame)

    def last_ref(self, session: int) -> int:
        return self.sequencer.last_ref(session)

    # --- what has become durable

    def _told(self, frames: Sequence[Settled], *, is_held: bool) -> None:
        now_ns = time.time_ns()
        try:
            for frame in frames:
                self._release(frame, now_ns)
            if is_held:
                self._let_read()
            elif self._settled and self._committer is not None:
                self._committer.hold()
        except Exception as error:
            self._fail(error)
        if self._garbage is not None and not self.sequencer.unsettled:
            self._garbage.moment()

    def _let_read(self) -> None:
        """The first of those who wait to look. What has arrived meanwhile is committed before the
        others do: that many looks may take long.
        """
        settled = self._settled[: limits.LOOKS_AT_ONCE]
        del self._settled[: limits.LOOKS_AT_ONCE]
        self._is_held = True
        for call in settled:
            call()
        self._is_held = False
        if self._committer is not None:
            self._committer.resume()
            if self._settled:
                asyncio.get_running_loop().call_soon(self._let_others_read)

    def _let_others_read(self) -> None:
        # With something on its way they look once that has been told.
        if self._committer is not None and self._settled and not self.sequencer.unsettled:
            self._committer.hold()

    def _release(self, frame: Settled, now_ns: int) -> None:
        self.frames += 1
        last_seq = frame.first_seq + frame.length - 1
        tail = TailFrame(frame.first_seq, last_seq, frame.ts_ns, frame.events)
        self.feed.append(tail)
        try:
            self.sequencer.settle(frame, now_ns)
        except ValueError as error:
            raise MarketFailed.on(frame.first_seq, error) from error
        for watcher in self._watchers:
            watcher(tail)

    def _fail(self, error: Exception) -> None:
        failed = self._committer.failed if self._committer is not None else None
        if failed is not None and not failed.done():
            failed.set_exception(error)

    async def _look_whether_idle(self) -> None:
        assert self._garbage is not None
        frames = self.frames
        while True:
            await asyncio.sleep(limits.HEARTBEAT_S)
            if self.frames == frames and not self.sequencer.unsettled:
                self._garbage.idle(limits.HEARTBEAT_S)
            else:
                self._garbage.busy()
            frames = self.frames

    async def _stop_committer(self) -> None:
        committer = self._committer
        if committer is not None:
            await committer.stop()
            self._committer = None
