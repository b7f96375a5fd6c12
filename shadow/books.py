"""Loads and book checks: whatever needs the monolith's open orders at an exact position.

From before a snapshot's position is taken until it has been read nothing is fed, so that the
position lies ahead of the engine's book. A load happens there and then; a check waits until
everything before the position has been applied.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from engine.errors import EngineUnavailable, QueryRefused
from shadow.book_check import compare_books
from shadow.errors import LoadFailed, ShadowError
from shadow.feed import Feed
from shadow.instrument import Instrument, Run
from shadow.limits import (
    BOOK_CHECK_AGAIN_S,
    BOOK_CHECK_S,
    BOOK_CHECK_SNAPSHOT_S,
    RESYNC_AFTER_S,
    RESYNC_S,
    RESYNC_UNREADABLE_S,
    RESYNCS_MAX,
    SNAPSHOT_S,
)
from shadow.load import load, require_shadow_mode
from shadow.operation import OrderImage, Unreadable
from shadow.ports import Clock, Engine, OpenOrders, Snapshots
from shadow.recorder import Recorder
from shadow.store_rows import RunRow
from shadow.work import CheckedBook, Group

log = logging.getLogger(__name__)

_S = 1_000_000_000


Row = OrderImage | Unreadable
Rows = Callable[[Instrument, Sequence[Row]], Sequence[Row]]


class Books:
    def __init__(
        self,
        *,
        instruments: Mapping[str, Instrument],
        snapshots: Snapshots,
        feed: Feed,
        feed_engine: Engine,
        load_engine: Engine,
        recorder: Recorder,
        clock: Clock,
        loaded: Callable[[Instrument, Sequence[OrderImage]], None],
        begin: Rows,
        as_fed: Rows,
        places_are_known: bool,
        news: Callable[[], None],
    ) -> None:
        """`loaded` is called with the orders that a new run begins with; `begin` says which of a
        snapshot the engine must be loaded with, `as_fed` what it must have of those at a check.
        """
        self._begin_with = begin
        self._as_fed = as_fed
        self._places_are_known = places_are_known
        self._instruments = instruments
        self._snapshots = snapshots
        self._feed = feed
        self._feed_engine = feed_engine
        self._load_engine = load_engine
        self._recorder = recorder
        self._clock = clock
        self._loaded = loaded
        self._news = news
        self._reading: asyncio.Task[OpenOrders] | None = None
        self._is_held = False
        self._deadline_ns = 0
        self._loads: list[Instrument] = []
        self._checks: list[Instrument] = []
        self._check_at: OpenOrders | None = None
        self._next_check_ns = 0

    @property
    def is_holding(self) -> bool:
        """Nothing may be fed now."""
        return self._is_held and self._reading is not None

    def due_at(self, commit_lsn: int) -> bool:
        """The books must be compared before a transaction at this position is applied."""
        return self._check_at is not None and commit_lsn >= self._check_at.lsn

    def want_load(self, instrument: Instrument, reason: str) -> None:
        instrument.load_reason = reason
        instrument.load_at_ns = self._clock.mono_ns()

    def want_resync(self, instrument: Instrument) -> None:
        """After a divergence: soon, but not too often, and not for ever."""
        if instrument.load_reason:
            return
        if instrument.resyncs >= RESYNCS_MAX:
            instrument.taint += (
                f"; loaded again {RESYNCS_MAX} times by itself, not any more: "
                "put the instrument off, and into shadow again"
            )
            return
        now = self._clock.mono_ns()
        earliest = instrument.loaded_mono_ns + int(RESYNC_S * _S)
        instrument.load_reason = f"resync: {instrument.taint}"
        instrument.load_at_ns = max(now + int(RESYNC_AFTER_S * _S), earliest)

    def give_way(self) -> None:
        """A flip is under way and waits for us: no snapshot now, and no comparison either."""
        self._check_at = None
        if self._reading is not None:
            self._reading.cancel()

    async def turn(self, *, may_begin: bool) -> None:
        """Begins what is due, ends what has come. Feeding stands still while a load happens."""
        if self._reading is None:
            if may_begin:
                self._begin()
            return
        if not self._reading.done():
            if self._clock.mono_ns() >= self._deadline_ns:
                self._reading.cancel()
            return
        reading, self._reading = self._reading, None
        loads, self._loads = self._loads, []
        checks, self._checks = self._checks, []
        if reading.cancelled():
            if checks and not loads:
                self._next_check_ns = self._clock.mono_ns() + int(BOOK_CHECK_AGAIN_S * _S)
            return
        error = reading.exception()
        if error is not None:
            self._failed(error, loads)
            return
        self._recorder.trouble["snapshot"] = ""
        snapshot = reading.result()
        for instrument in loads:
            await self._load(instrument, snapshot)
        self._checks = [one for one in checks if one.following]
        self._check_at = snapshot if self._checks else None

    async def compare(self) -> None:
        """Everything before the snapshot's position has been applied, and nothing after it."""
        snapshot, self._check_at = self._check_at, None
        checks, self._checks = self._checks, []
        if snapshot is None:
            return
        await self._feed.drain()
        for instrument in checks:
            if instrument.following:
                await self._compare(instrument, snapshot)

    async def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})

    def _begin(self) -> None:
        now = self._clock.mono_ns()
        every = self._instruments.values()
        loads = [one for one in every if one.load_reason and one.load_at_ns <= now]
        followed = [one for one in every if one.following and one not in loads]
        check = self._check_at is None and now >= self._next_check_ns and bool(followed)
        if not loads and not check:
            return
        self._loads, self._checks = loads, followed if check else []
        if check:
            self._next_check_ns = now + int(BOOK_CHECK_S * _S)
        symbols = [one.symbol for one in (*self._loads, *self._checks)]
        self._deadline_ns = now + int((SNAPSHOT_S if loads else BOOK_CHECK_SNAPSHOT_S) * _S)
        self._is_held = False
        self._reading = asyncio.ensure_future(self._snapshots.open_orders(symbols, self._hold))
        self._reading.add_done_callback(lambda _: self._news())

    def _hold(self) -> None:
        self._is_held = True

    def _failed(self, error: BaseException, loads: Sequence[Instrument]) -> None:
        if not isinstance(error, ShadowError):
            raise error
        if self._recorder.trouble.get("snapshot") != str(error):
            log.warning("reading open orders: %s", error)
        self._recorder.trouble["snapshot"] = str(error)
        for instrument in loads:
            instrument.load_at_ns = self._clock.mono_ns() + int(RESYNC_S * _S)

    async def _load(self, instrument: Instrument, snapshot: OpenOrders) -> None:
        rows = _of(snapshot, instrument)
        reason = instrument.load_reason
        await self._feed.drain()
        try:
            await require_shadow_mode(self._feed_engine, instrument.number)
            instrument.following, instrument.loading = False, True
            instrument.is_changed = True
            await self._recorder.recorded()
            resting = self._begin_with(instrument, rows)
            done = await load(self._load_engine, instrument.number, resting)
        except LoadFailed as error:
            log.warning("loading %s: %s", instrument.symbol, error)
            instrument.taint = f"not loaded: {error}"
            instrument.is_changed = True
            instrument.load_at_ns = self._clock.mono_ns() + int(RESYNC_AFTER_S * _S)
            return
        run = Run(
            instrument.symbol,
            instrument.run.number + 1,
            mirror=done.mirror,
            loaded_ns=self._clock.wall_ns(),
        )
        if reason.startswith("resync"):
            instrument.resyncs += 1
        else:
            instrument.first_run, instrument.resyncs = run.number, 0
            instrument.book_equal = None
        instrument.start_run(run, lsn=snapshot.lsn, epoch=instrument.wanted_epoch, taint=done.taint)
        instrument.loaded_mono_ns = self._clock.mono_ns()
        self._record_run(instrument, done.orders, reason)
        self._loaded(instrument, [row for row in rows if isinstance(row, OrderImage)])
        if done.taint:
            self._want_another_look(instrument)
        await self._recorder.recorded()

    def _record_run(self, instrument: Instrument, orders: int, reason: str) -> None:
        self._recorder.run(
            RunRow(
                symbol=instrument.symbol,
                run=instrument.run.number,
                epoch=instrument.epoch,
                loaded_lsn=instrument.loaded_lsn,
                orders=orders,
                reason=reason,
            )
        )

    def _want_another_look(self, instrument: Instrument) -> None:
        if instrument.resyncs < RESYNCS_MAX:
            instrument.load_reason = f"resync: {instrument.taint}"
            instrument.load_at_ns = self._clock.mono_ns() + int(RESYNC_UNREADABLE_S * _S)

    async def _compare(self, instrument: Instrument, snapshot: OpenOrders) -> None:
        try:
            book = await self._feed_engine.book(instrument.number)
        except (EngineUnavailable, QueryRefused) as error:
            log.warning("reading the engine's book of %s: %s", instrument.symbol, error)
            return
        rows = self._as_fed(instrument, _of(snapshot, instrument))
        check = compare_books(rows, book.orders, by_place=self._places_are_known)
        group = Group(instrument.run, snapshot.lsn, None)
        group.book = CheckedBook(check, snapshot.lsn, self._clock.wall_ns())
        instrument.waiting.append(group)


def _of(snapshot: OpenOrders, instrument: Instrument) -> list[OrderImage | Unreadable]:
    return [row for row in snapshot.orders if row.symbol == instrument.symbol]
