"""Markers of the fence in the change stream: from which transaction on an instrument is not ours
to follow, and from which one it is again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from engine.errors import EngineUnavailable, QueryRefused
from shadow.errors import StoreUnavailable
from shadow.feed import Feed
from shadow.instrument import Instrument, Run
from shadow.limits import (
    CAPTURE_GRACE_AT_MARKER_S,
    FEED_RETRY_S,
    OPERATIONS_PENDING_MAX,
    STORE_RETRY_S,
    TURN_S,
)
from shadow.mirror import Mirror
from shadow.operation import Marker
from shadow.ports import Book, Clock, Engine
from shadow.recorder import Recorder
from shadow.settle import Settler
from shadow.store import Store
from shadow.store_rows import RunRow

log = logging.getLogger(__name__)


class Fences:
    def __init__(
        self,
        *,
        store: Store,
        engine: Engine,
        feed: Feed,
        settler: Settler,
        recorder: Recorder,
        clock: Clock,
        wake: asyncio.Event,
        resync: Callable[[Instrument], None],
    ) -> None:
        self._store = store
        self._engine = engine
        self._feed = feed
        self._settler = settler
        self._recorder = recorder
        self._clock = clock
        self._wake = wake
        self._resync = resync

    async def pass_marker(self, instrument: Instrument, marker: Marker, commit_lsn: int) -> None:
        """Returns when the store has it. One that was passed before a restart changes nothing."""
        if commit_lsn <= instrument.applied_lsn:
            return
        if marker.owner == "engine":
            instrument.following = False
            await self._settle(instrument)
            instrument.marker_flip_id = marker.flip_id
            instrument.load_reason = ""
        else:
            direction = await self._direction(marker.flip_id)
            if direction == "flip":  # given up before its commit: the monolith never stopped
                instrument.following = instrument.run.number > 0
                if instrument.run.divergence is not None:
                    self._resync(instrument)
            else:
                await self._return(instrument, marker, commit_lsn)
        instrument.applied_lsn = commit_lsn
        instrument.is_changed = True
        await self._recorder.recorded()

    async def _settle(self, instrument: Instrument) -> None:
        """Everything of it before the marker gets its verdict now."""
        await self._feed.drain()
        grace_ns = int(CAPTURE_GRACE_AT_MARKER_S * 1e9)
        instrument.hurry_at_ns = self._clock.mono_ns() + grace_ns
        while True:
            self._settler.advance(instrument, OPERATIONS_PENDING_MAX)
            if not instrument.waiting or self._feed.failure is not None:
                break
            self._wake.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TURN_S):
                    await self._wake.wait()
        instrument.hurry_at_ns = 0

    async def _return(self, instrument: Instrument, marker: Marker, commit_lsn: int) -> None:
        """A rollback: the engine's book is the monolith's, and a new run begins with it."""
        book = await self._book(instrument)
        run = Run(
            instrument.symbol,
            instrument.run.number + 1,
            mirror=Mirror(book.orders, seq=book.seq),
            loaded_ns=self._clock.wall_ns(),
        )
        instrument.first_run, instrument.resyncs = run.number, 0
        instrument.book_equal = None
        instrument.start_run(run, lsn=commit_lsn, epoch=marker.epoch, taint="")
        self._recorder.run(
            RunRow(
                symbol=instrument.symbol,
                run=run.number,
                epoch=marker.epoch,
                loaded_lsn=commit_lsn,
                orders=len(book.orders),
                reason=f"rollback {marker.flip_id}",
            )
        )

    async def _direction(self, flip_id: int) -> str:
        while True:
            try:
                return await self._store.flip_direction(flip_id)
            except StoreUnavailable as error:
                log.warning("reading flip %d: %s", flip_id, error)
                await asyncio.sleep(STORE_RETRY_S)

    async def _book(self, instrument: Instrument) -> Book:
        while True:
            try:
                return await self._engine.book(instrument.number)
            except (EngineUnavailable, QueryRefused) as error:
                log.warning("reading the engine's book of %s: %s", instrument.symbol, error)
                await asyncio.sleep(FEED_RETRY_S)
