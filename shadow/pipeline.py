"""The comparison's loop: joins the monolith's transactions, the captures and the engine's answers.

    changes ──▶ apply ──▶ feed ──▶ engine
                  │                  │
    captures ──▶ joins ──▶ settle ◀──┘ ──▶ recorder ──▶ control store ──▶ confirm the slot

One task owns all state; the others only bring what they read to it. A source that is away is
waited for, with the reason recorded; operations wait with it, bounded, and then the stream does.
Nothing is confirmed that is not recorded, and what is read again after a restart counts once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from engine.errors import EngineUnavailable, QueryRefused
from shadow.apply import Applier
from shadow.books import Books
from shadow.capture_reader import CaptureReader
from shadow.errors import ChangesLost, ShadowError, StoreUnavailable
from shadow.exchanges import Exchanges
from shadow.feed import Feed
from shadow.fences import Fences
from shadow.gaps import Claims
from shadow.garbage import seldom_collected
from shadow.instrument import Instrument
from shadow.intake import Intake
from shadow.joins import Joins
from shadow.judge import Judge
from shadow.known import Rule
from shadow.later import Later
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.limits import (
    ANSWERED_UNWRITTEN_S,
    CLOCKS_APART_S,
    COMMANDS_IN_FLIGHT_MAX,
    FEED_RETRY_S,
    OPERATIONS_PENDING_MAX,
    STAGES_S,
    STOP_S,
    STORE_RETRY_S,
    TURN_S,
    TURN_SETTLED_MAX,
    TURN_TRANSACTIONS_MAX,
    UNANSWERED_S,
)
from shadow.marks import Marks
from shadow.mirror import Mirror
from shadow.operation import LegacyTransaction, Mark, Marker, OrderImage
from shadow.ports import Captures, Changes, Clock, Engine, Renderer, Snapshots
from shadow.recorder import Recorder
from shadow.settle import Settler
from shadow.stage_watch import Step, next_step
from shadow.store import Store
from shadow.store_rows import InstrumentRow, Resume, StageRow
from shadow.tasks import cancelled, unless
from shadow.work import Held
from shadow.writers import Writers

log = logging.getLogger(__name__)

SYSTEM_CLOCK = Clock(wall_ns=time.time_ns, mono_ns=time.monotonic_ns)


class Pipeline:
    """Its sources and its store come from outside, opened where they need it; engine clients have
    been started, the feed's and the load's under two names that are theirs alone.
    """

    def __init__(
        self,
        *,
        changes: Callable[[], Changes],
        captures: Captures,
        feed_client: Engine,
        load_client: Engine,
        store: Store,
        snapshots: Snapshots,
        render: Renderer,
        mapping: LegacyMapping,
        scales: Mapping[str, Scale],
        known: Sequence[Rule] = (),
        clock: Clock = SYSTEM_CLOCK,
        judged: Callable[[str, int], None] = lambda symbol, commit_lsn: None,
        adapter: Adapted = PLAIN,
        warning: Callable[[], str] = lambda: "",
        writers: Writers | None = None,
    ) -> None:
        """`changes` makes a stream that has not been opened: after a failure a new one is made.
        `judged` hears of every verdict, by transaction and instrument: for measurements.
        `warning` says what of the sources must be told in status; "" for nothing. `writers` is
        filled by somebody else; without it nobody knows who writes past the proxy.
        """
        self._changes = changes
        self._captures = captures
        self._feed_client = feed_client
        self._load_client = load_client
        self._store = store
        self._snapshots = snapshots
        self._scales = scales
        self._known = known
        self._clock = clock
        self._judged = judged
        self._warning = warning
        self._writers = writers or Writers()
        self._later = Later(mapping.market_buy) if mapping.matching == "later" else None
        self._has_bulk = mapping.has_bulk
        self._exchanges = Exchanges(mapping, scales, adapter)
        rule = mapping.fills.maker_rule
        self._judge = Judge(self._exchanges, scales, render, maker_rule=rule)
        self._instruments: dict[str, Instrument] = {}
        self._wake = asyncio.Event()
        self._stages: dict[str, StageRow] = {}
        self._stages_are_new = False
        self._started_ns = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises what only a person can mend: PositionMoved, and the engine's
        SessionTaken, LoginRefused and Disconnected. What was settled by then is recorded.
        """
        with seldom_collected():
            await self._run(stop)

    async def _run(self, stop: asyncio.Event) -> None:
        stopping = asyncio.ensure_future(stop.wait())
        tasks: list[asyncio.Future[Any]] = []
        try:
            resume = await unless(stopping, self._resume())
            if resume is None:
                return
            self._assemble(resume)
            self._follow_stages()  # before a capture is read: which instruments are wanted
            tasks = [asyncio.ensure_future(one) for one in self._loops(resume)]
            await asyncio.wait([stopping, *tasks], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
        finally:
            stopping.cancel()
            await self._end(tasks)

    # --- putting it together

    async def _resume(self) -> Resume:
        while True:
            try:
                self._stages = await self._store.stages()
                return await self._store.resume()
            except StoreUnavailable as error:
                log.warning("starting the shadow: %s", error)
                await asyncio.sleep(STORE_RETRY_S)

    def _assemble(self, resume: Resume) -> None:
        clock = self._clock
        self._started_ns = clock.wall_ns()
        for symbol, scale in self._scales.items():
            row = resume.instruments.get(symbol, InstrumentRow(symbol=symbol))
            self._instruments[symbol] = one = Instrument(scale, row)
            if self._later is not None and one.following:
                one.following, one.loading = False, True  # what was undecided is not remembered
        self._recorder = Recorder(
            self._store,
            clock,
            resume.position,
            dict(resume.hits),
            self._instruments,
            self._lag_ms,
            self._writers,
        )
        self._joins, self._claims = Joins(self._exchanges), Claims(bulk=self._has_bulk)
        self._feed = Feed(self._feed_client, clock.mono_ns, self._wake.set)
        self._marks = Marks(self._snapshots, clock, self._recorder)
        self._settler = Settler(
            judge=self._judge,
            joins=self._joins,
            claims=self._claims,
            recorder=self._recorder,
            rules=self._known,
            clock=clock,
            captures_read_ns=lambda: self._reader.read_until_ns,
            writer_of=self._writers.of,
            diverged=lambda instrument: self._books.want_resync(instrument),
            judged=self._judged,
        )
        self._reader = CaptureReader(
            captures=self._captures,
            exchanges=self._exchanges,
            joins=self._joins,
            claims=self._claims,
            recorder=self._recorder,
            settler=self._settler,
            generation=lambda: self._marks.generation,
            instruments=self._instruments,
            clock=clock,
            news=self._wake.set,
        )
        self._assemble_rest()

    def _assemble_rest(self) -> None:
        self._applier = Applier(
            instruments=self._instruments,
            joins=self._joins,
            feed=self._feed,
            recorder=self._recorder,
            settler=self._settler,
            clock=self._clock,
            later=self._later,
        )
        self._books = Books(
            instruments=self._instruments,
            snapshots=self._snapshots,
            feed=self._feed,
            feed_engine=self._feed_client,
            load_engine=self._load_client,
            recorder=self._recorder,
            clock=self._clock,
            loaded=self._loaded,
            begin=self._applier.begin,
            as_fed=self._applier.as_fed,
            places_are_known=self._later is None,
            news=self._wake.set,
        )
        self._intake = Intake(
            changes=self._changes,
            recorder=self._recorder,
            news=self._wake.set,
            marker_came=self._books.give_way,
        )
        self._fences = Fences(
            store=self._store,
            engine=self._feed_client,
            feed=self._feed,
            settler=self._settler,
            recorder=self._recorder,
            clock=self._clock,
            wake=self._wake,
            resync=self._books.want_resync,
        )

    def _loops(self, resume: Resume) -> list[Coroutine[Any, Any, None]]:
        return [
            self._recorder.keep_recording(),
            self._reader.keep_reading(),
            self._marks.keep_writing(self._needs_marks),
            self._intake.keep_reading(resume.position.applied_lsn),
            self._watch_stages(),
            self._work(),
        ]

    async def _end(self, tasks: Sequence[asyncio.Future[Any]]) -> None:
        await cancelled(tasks)
        if not tasks:
            return
        await self._books.close()
        await self._feed.close()
        with contextlib.suppress(TimeoutError, ShadowError):
            async with asyncio.timeout(STOP_S):
                await self._recorder.flush()  # what was under way when it was stopped
                await self._recorder.flush()

    async def _watch_stages(self) -> None:
        while True:
            try:
                self._stages = await self._store.stages()
            except StoreUnavailable as error:
                log.warning("reading stages: %s", error)
            else:
                self._stages_are_new = True
                self._wake.set()
            self._note_engine()
            self._recorder.trouble["retained"] = self._warning()
            await asyncio.sleep(STAGES_S)

    # --- what is done

    async def _work(self) -> None:
        await self._mirror_engine()
        while True:
            self._wake.clear()
            if self._stages_are_new:
                self._stages_are_new = False
                self._follow_stages()
            await self._books.turn(may_begin=self._may_begin_snapshot())
            applied = 0
            if not self._books.is_holding:
                applied = await self._apply_some()
            self._feed.flush()
            if self._feed.failure is not None:
                raise self._feed.failure
            is_all = self._settle_some()
            self._settle_lost()
            if applied or not is_all:
                await asyncio.sleep(0)
            else:
                await self._rest()

    def _settle_some(self) -> bool:
        """A few at a time, for many become ready at once. True when nothing more is ready."""
        waiting = [one for one in self._instruments.values() if one.waiting]
        most = max(1, TURN_SETTLED_MAX // max(1, len(waiting)))
        is_all = True
        for one in waiting:
            is_all = self._settler.advance(one, most) and is_all
        return is_all

    async def _rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TURN_S):
                await self._wake.wait()

    async def _apply_some(self) -> int:
        """How many transactions; a few at a time, and none while too much is on its way."""
        applied = 0
        pending = sum(one.queued for one in self._instruments.values())
        room = min(OPERATIONS_PENDING_MAX - pending, COMMANDS_IN_FLIGHT_MAX - self._feed.in_flight)
        while self._intake and applied < min(room, TURN_TRANSACTIONS_MAX):
            if self._books.is_holding:  # since the transaction before
                break
            arrived = self._intake.take()
            applied += 1
            if isinstance(arrived, ChangesLost):
                self._lose(arrived)
            else:
                await self._apply(arrived)
        return applied

    async def _apply(self, tx: LegacyTransaction) -> None:
        if self._books.due_at(tx.commit_lsn):
            await self._books.compare()
        entry = self._applier.apply(tx)
        for change in tx.changes:
            if isinstance(change, Mark):
                await self._mark_came_back(change.id, tx.commit_lsn)
            elif isinstance(change, Marker):
                instrument = self._instruments.get(change.symbol)
                if instrument is not None:
                    entry.open_groups += 1  # the watermark waits for what the marker asks for
                    await self._fences.pass_marker(instrument, change, tx.commit_lsn)
                    entry.open_groups -= 1

    async def _mark_came_back(self, mark_id: str, lsn: int) -> None:
        generation = self._marks.came_back(mark_id)
        if not generation:
            return
        due = self._joins.take_refused_cancels(generation)
        await self._ask_for_owners(due)
        self._applier.decide_refused_cancels(due, lsn)
        now_ns = self._clock.mono_ns()
        read_before_ns = now_ns - int(ANSWERED_UNWRITTEN_S * 1e9)
        for held in self._joins.take_unwritten(generation, read_before_ns):
            self._settle_unwritten(held)
        for held in self._joins.take_unanswered(generation, read_before_ns, now_ns):
            self._settler.release(held)  # no answer and no row: nothing has happened

    def _settle_lost(self) -> None:
        """Once all have claimed that were read in time: some may have waited for the engine."""
        if not self._claims.has_lost:
            return
        oldest_ns = self._joins.waiting_since_ns
        until_ns = self._reader.read_until_ns
        if oldest_ns is not None:
            until_ns = min(until_ns, oldest_ns)
        followed = (one.run for one in self._instruments.values() if one.is_compared)
        self._claims.settle(until_ns, followed)

    async def _ask_for_owners(self, due: Sequence[Held]) -> None:
        """Of orders that closed before this process began; who stays unknown is nobody's."""
        unknown = self._applier.unknown(due)
        if not unknown:
            return
        try:
            self._applier.know_owners(await self._snapshots.owners(unknown))
        except ShadowError as error:
            log.warning("asking whose orders were not canceled: %s", error)

    def _settle_unwritten(self, held: Held) -> None:
        """Those from before the load, or recorded before a restart, have no row to wait for."""
        symbol = held.told.symbol or self._applier.symbol_of(held.told.order_id)
        instrument = self._instruments.get(symbol)
        if instrument is not None and instrument.is_compared:
            begun_ns = max(instrument.since_ns, self._started_ns)
            if held.capture.sent_at_ns > begun_ns + int(CLOCKS_APART_S * 1e9):
                self._settler.unwritten(instrument, held)
                return
        self._settler.release(held)

    def _lose(self, lost: ChangesLost) -> None:
        """Everything that is followed must be loaded again; what lies between was never seen."""
        self._recorder.start_over(lost.slot_lsn)
        for instrument in self._instruments.values():
            if instrument.following:
                self._settler.lost_changes(instrument, str(lost))
                instrument.following = False
                instrument.loading = True  # recorded: a restart before the load must make it too
                instrument.taint = str(lost)
                instrument.is_changed = True
                self._books.want_load(instrument, "resync: changes of the monolith were lost")

    async def _mirror_engine(self) -> None:
        """What the engine has open, of instruments that are followed since before the restart."""
        for instrument in self._instruments.values():
            while instrument.following:
                try:
                    book = await self._feed_client.book(instrument.number)
                except (EngineUnavailable, QueryRefused) as error:
                    log.warning("reading the engine's book of %s: %s", instrument.symbol, error)
                    self._recorder.trouble["engine"] = str(error)
                    await asyncio.sleep(FEED_RETRY_S)
                else:
                    instrument.run.mirror = Mirror(book.orders, seq=book.seq)
                    self._applier.know(
                        instrument, ((one.order_id, one.account) for one in book.orders)
                    )
                    break
        self._recorder.trouble["engine"] = ""

    # --- what must be decided

    def _follow_stages(self) -> None:
        for symbol, row in self._stages.items():
            instrument = self._instruments.get(symbol)
            if instrument is None:
                continue
            instrument.wanted = row.stage == "shadow"
            instrument.captured = row.stage in ("shadow", "live")
            step = next_step(instrument, row)
            if step is Step.LOAD:
                instrument.wanted_epoch = row.epoch
                self._books.want_load(instrument, "shadowing begins")
            elif step is Step.RELOAD:
                self._books.want_load(instrument, "resync: the last load was interrupted")
            elif step is Step.ADOPT:
                instrument.epoch = instrument.wanted_epoch = row.epoch
                instrument.is_changed = True
            elif step is Step.LEAVE:
                instrument.following = instrument.loading = False
                instrument.load_reason = ""
                instrument.is_changed = True

    def _may_begin_snapshot(self) -> bool:
        """A flip that holds orders waits for the feed: it must not stand still then."""
        return self._intake.has_begun and not any(row.holding for row in self._stages.values())

    def _loaded(self, instrument: Instrument, orders: Sequence[OrderImage]) -> None:
        self._applier.know(instrument, ((one.order_id, one.account) for one in orders))

    def _needs_marks(self) -> bool:
        """Also to let go of captures that nothing will be compared with."""
        following = any(one.following for one in self._instruments.values())
        return following or self._joins.waiting > 0

    def _note_engine(self) -> None:
        late = self._feed.unanswered_for_ns() > UNANSWERED_S * 1e9
        text = "the engine does not answer; operations wait for it" if late else ""
        self._recorder.trouble["engine"] = text

    def _lag_ms(self, instrument: Instrument) -> float | None:
        """From the monolith's commit until both sides are known, by the clock of this process."""
        lag_ns = self._marks.lag_ns()
        if lag_ns is None:
            return None
        oldest_ns = self._feed.unanswered_since_ns(instrument.symbol)
        if oldest_ns is not None:
            lag_ns = max(lag_ns, self._clock.mono_ns() - oldest_ns)
        return lag_ns / 1e6
