"""From the disk back to the state that a journal's commands made: before a shard is opened.

The newest snapshot that can be used, then every later frame of the journal.
"""

from __future__ import annotations

import asyncio
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from engine.errors import MarketFailed
from engine.held import Held
from engine.journal import Journal
from engine.market import Market
from engine.replay import Frame
from engine.sequencer import Sequencer
from engine.snapshot_file import Snapshot, restored_market
from engine.tail import TailFeed, TailFrame

log = logging.getLogger(__name__)


class Recovered(NamedTuple):
    journal: Journal
    market: Market


async def recover(
    directory: Path,
    *,
    number: int,
    market: Market,
    sequencer: Sequencer[Any],
    feed: TailFeed,
    stop: asyncio.Event,
) -> Recovered | None:
    """Opens the journal and brings `market` (empty; another one takes its place after a snapshot),
    `sequencer` and `feed` to its end, in a thread. None if it was told to stop meanwhile.
    """
    recovery = _Recovery(market, sequencer, feed)
    with ThreadPoolExecutor(1, thread_name_prefix="recover") as thread:
        opening = asyncio.get_running_loop().run_in_executor(
            thread, recovery.open, directory, number
        )
        waiting: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({opening, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            recovery.is_abandoned = not opening.done()
        with suppress(_Abandoned):
            return Recovered(await opening, recovery.market)
    return None


class _Recovery:
    def __init__(self, market: Market, sequencer: Sequencer[Any], feed: TailFeed) -> None:
        self.market = market
        self.is_abandoned = False
        self._held = Held()
        self._sequencer = sequencer
        self._feed = feed

    def open(self, directory: Path, number: int) -> Journal:
        began = time.monotonic()
        journal = Journal.open(directory, shard=number, restore=self._restore, replay=self._replay)
        for session, expired_ref, frames in self._held.sessions():
            self._sequencer.restored(session, expired_ref, frames)
        self._held = Held()
        last_seq, took_s = journal.link.next_seq - 1, time.monotonic() - began
        log.info("recovered all up to sequence %d in %.1f s", last_seq, took_s)
        return journal

    def _restore(self, snapshot: Snapshot) -> None:
        self.market = restored_market(self.market.implementation, snapshot)
        self._held = Held(snapshot.outcomes)
        self._feed.begin_after(snapshot.seq)

    def _replay(self, frame: Frame) -> None:
        if self.is_abandoned:
            raise _Abandoned
        try:
            events = self.market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
            self._held.add(frame.commands, frame.first_seq, frame.ts_ns, events)
        except Exception as error:
            raise MarketFailed.on(frame.first_seq, error) from error
        self._feed.append(TailFrame(frame.first_seq, frame.last_seq, frame.ts_ns, events))


class _Abandoned(Exception):
    """Recovery was told to stop."""
