"""Gathers what was settled and records it, verdicts and watermarks in one transaction.

One flush is under way at a time. What it holds is cut from the state of one moment, so that the
counts close and a restart goes on exactly where the newest committed flush ended.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable

from hdrh.histogram import HdrHistogram

from shadow import latency
from shadow.captures import Gap, forget_oldest
from shadow.errors import StoreUnavailable
from shadow.gaps import Dark
from shadow.instrument import Instrument, Run
from shadow.latency import Side, Window
from shadow.limits import (
    DEPENDANTS_STORED_MAX,
    FLUSH_S,
    FLUSH_VERDICTS,
    HEARTBEAT_S,
    LATENCY_SAMPLES_MAX,
    STORE_RETRY_S,
    VERDICTS_STORED_MAX,
)
from shadow.ports import Clock
from shadow.store import Store
from shadow.store_rows import Batch, CountKey, DarkKey, Position, RunRow, Tally, VerdictRow
from shadow.verdict import OperationVerdict, Verdict
from shadow.work import Settled, StreamEntry, TxEntry
from shadow.writers import Writer, Writers

log = logging.getLogger(__name__)

_COUNTED_AS = {
    Verdict.MATCH: "matched",
    Verdict.KNOWN: "known",
    Verdict.MISMATCH: "mismatched",
    Verdict.UNCOMPARABLE: "uncomparable",
}


class Recorder:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        position: Position,
        hits: dict[str, int],
        instruments: dict[str, Instrument],
        lag_ms: Callable[[Instrument], float | None],
        writers: Writers,
    ) -> None:
        self.hits = hits  # of each rule, those included that are not recorded yet
        self.trouble: dict[str, str] = {}  # by what it is about; empty values are none
        self.on_recorded: Callable[[int], None] = lambda lsn: None
        self._store = store
        self._clock = clock
        self._position = position  # as recorded
        self._instruments = instruments
        self._lag_ms = lag_ms
        self._writers = writers
        self._transactions: deque[TxEntry] = deque()
        self._entries: deque[StreamEntry] = deque()
        self._applied_lsn = position.applied_lsn
        self._capture_id = position.capture_id
        self._capture_next = dict(position.capture_next)
        self._next = Batch(position=position)
        self._under_way: Batch | None = None  # cut, and not known to be recorded
        self._flush_wanted = asyncio.Event()
        self._cut_number = 0  # of the newest flush begun
        self._recorded_number = 0
        self._recorded = asyncio.Condition()
        self._latencies_at_ns = 0
        self._heartbeat_at_ns = 0
        # What was counted into last, for the next is mostly the same: (run, minute), and its tally.
        self._tallied: tuple[Run | None, int, Tally] = (None, 0, Tally())
        # Samples that are not in their histogram yet: those of one batch are all the same.
        self._samples: dict[tuple[Run, Side, int, int], int] = {}

    # --- what comes in

    def transaction(self, end_lsn: int) -> TxEntry:
        entry = TxEntry(end_lsn)
        self._transactions.append(entry)
        return entry

    def entry(self, entry: StreamEntry) -> None:
        self._entries.append(entry)

    def begin_captures(self, capture_id: str, expected: dict[str, int]) -> None:
        """The first start: where in the stream it begins."""
        self._capture_id, self._capture_next = capture_id, expected

    def capture_start(self) -> tuple[str, dict[str, int]]:
        return self._capture_id, self._capture_next

    def start_over(self, applied_lsn: int) -> None:
        """Changes up to here are lost."""
        self._applied_lsn = max(self._applied_lsn, applied_lsn)

    def run(self, row: RunRow) -> None:
        self._next.runs.append(row)

    def gap(self, gap: Gap) -> None:
        self._next.gaps.append(gap)

    def match(
        self,
        run: Run,
        *,
        fills: int,
        dark: bool,
        gap: bool,
        reordered: bool = False,
        writer: Writer | None = None,
    ) -> None:
        """The common case, told without a verdict."""
        tally = self._tally(run)
        tally.seen += 1
        tally.fills += fills
        tally.dark += dark
        self._wrote(run, writer, dark)
        if gap:
            tally.gaps += 1
        else:
            tally.matched += 1
            tally.reordered += reordered

    def settle(self, settled: Settled) -> None:
        run, verdict = settled.run, settled.verdict
        tally = self._tally(run)
        tally.seen += 1
        tally.dark += verdict.dark
        self._wrote(run, settled.writer, verdict.dark)
        if settled.gap:
            tally.gaps += 1
            return
        name = _COUNTED_AS[verdict.verdict]
        setattr(tally, name, getattr(tally, name) + 1)
        if verdict.verdict is not Verdict.UNCOMPARABLE:
            tally.fills += verdict.fills
        if verdict.verdict is Verdict.MISMATCH and verdict.root_order_id:
            tally.dependants += 1
        for rule in settled.rules:
            self._next.hits[rule] = self._next.hits.get(rule, 0) + 1
        if verdict.verdict is not Verdict.MATCH and _is_kept(run, verdict):
            self._next.verdicts.append(VerdictRow(run.number, verdict))
        if len(self._next.verdicts) >= FLUSH_VERDICTS:
            self._flush_wanted.set()

    def hit(self, rules: Iterable[str]) -> None:
        """They have explained an operation, which will be settled."""
        for rule in rules:
            self.hits[rule] = self.hits.get(rule, 0) + 1

    def late_capture(self, dark: Dark) -> None:
        """An operation that was counted as dark was not: its capture was only late."""
        self._tally(dark.run).dark -= 1
        self._wrote(dark.run, dark.writer, -1)

    def late_gap(self, dark: Dark) -> None:
        """An operation that was counted as dark has lost its capture, as a gap now shows."""
        tally = self._tally(dark.run)
        tally.dark -= 1
        self._wrote(dark.run, dark.writer, -1)
        tally.matched -= 1
        tally.gaps += 1

    def latency(self, run: Run, side: Side, elapsed_ns: int) -> None:
        minute_s = latency.minute_of(self._clock.wall_ns())
        key = (run, side, minute_s, elapsed_ns)
        self._samples[key] = self._samples.get(key, 0) + 1
        if len(self._samples) >= LATENCY_SAMPLES_MAX:
            self._add_samples()

    # --- what goes out

    @property
    def trouble_text(self) -> str:
        return "; ".join(text for text in self.trouble.values() if text)

    async def keep_recording(self) -> None:
        """Until it is cancelled. Raises PositionMoved."""
        while True:
            try:
                async with asyncio.timeout(FLUSH_S):
                    await self._flush_wanted.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Records what there is now. Tried until it succeeds; cancelled on the way, the next call
        first records what this one had cut."""
        self._flush_wanted.clear()
        if self._under_way is None:
            self._cut_number += 1
            self._under_way = self._cut()
        if self._under_way is not None:
            await self._record(self._under_way)
            self._under_way = None
        async with self._recorded:
            self._recorded_number = self._cut_number
            self._recorded.notify_all()

    async def recorded(self) -> None:
        """Until all that was settled by now is in the store."""
        wanted = self._cut_number + 1
        self._latencies_at_ns = 0
        self._flush_wanted.set()
        async with self._recorded:
            await self._recorded.wait_for(lambda: self._recorded_number >= wanted)

    async def _record(self, batch: Batch) -> None:
        while True:
            try:
                await self._store.record(batch)
            except StoreUnavailable as error:
                log.warning("recording verdicts: %s", error)
                await asyncio.sleep(STORE_RETRY_S)
            else:
                break
        position = batch.position
        self._position = Position(
            applied_lsn=position.applied_lsn,
            capture_id=position.capture_id,
            capture_next=position.capture_next,
            trouble=position.trouble,
            flushes=position.flushes + 1,
        )
        self.on_recorded(position.applied_lsn)

    def _cut(self) -> Batch | None:
        """Everything up to now; None when there is no news."""
        now = self._clock.mono_ns()
        self._advance()
        self._add_samples()
        beat = now - self._heartbeat_at_ns >= HEARTBEAT_S * 1e9
        batch, self._next = self._next, Batch(position=self._position)
        self._tallied = (None, 0, Tally())
        if now - self._latencies_at_ns < HEARTBEAT_S * 1e9:
            self._next.latencies, batch.latencies = batch.latencies, {}
        else:
            self._latencies_at_ns = now
        if beat:
            batch.writers_seen = self._writers.take_seen()
        for instrument in self._instruments.values():
            if instrument.is_changed or (beat and instrument.wanted) or instrument.pending:
                batch.instruments.append(instrument.row(lag_ms=self._lag_ms(instrument)))
                instrument.is_changed = False
        batch.position = Position(
            applied_lsn=self._applied_lsn,
            capture_id=self._capture_id,
            capture_next=dict(self._capture_next),
            trouble=self.trouble_text,
            flushes=self._position.flushes,
        )
        if not beat and _is_empty(batch) and batch.position == self._position:
            return None
        self._heartbeat_at_ns = now
        return batch

    def _advance(self) -> None:
        """The watermarks, as far as everything before them is settled."""
        while self._transactions and self._transactions[0].open_groups == 0:
            self._applied_lsn = max(self._applied_lsn, self._transactions.popleft().end_lsn)
        while self._entries and self._entries[0].open == 0:
            entry = self._entries.popleft()
            self._capture_id = entry.id
            for worker, number in entry.expected.items():
                self._capture_next.pop(worker, None)  # the newest stands last
                self._capture_next[worker] = number
            forget_oldest(self._capture_next)
            for settled in entry.held:
                self.settle(settled)
                self._instruments[settled.run.symbol].held -= 1
            for run, lost in entry.lost:
                tally = self._tally(run)
                tally.seen += lost
                tally.gaps += lost

    def _tally(self, run: Run) -> Tally:
        minute_s = latency.minute_of(self._clock.wall_ns())
        newest, newest_minute_s, tally = self._tallied
        if newest is run and newest_minute_s == minute_s:
            return tally
        self._tallied = run, minute_s, self._tally_of(run, minute_s)
        return self._tallied[2]

    def _tally_of(self, run: Run, minute_s: int) -> Tally:
        key = CountKey(run.symbol, run.number, minute_s)
        tally = self._next.tallies.get(key)
        if tally is None:
            tally = self._next.tallies[key] = Tally()
            self._instruments[run.symbol].is_changed = True
        return tally

    def _wrote(self, run: Run, writer: Writer | None, operations: int) -> None:
        """Dark ones. Of a writer that nobody has seen, they are in the tally alone."""
        if writer is not None and operations:
            key = DarkKey(run.symbol, run.number, writer)
            self._next.dark[key] = self._next.dark.get(key, 0) + operations

    def _add_samples(self) -> None:
        for (run, side, minute_s, elapsed_ns), count in self._samples.items():
            histogram = self._histogram(Window(run.symbol, run.number, side, minute_s))
            latency.record(histogram, elapsed_ns, count)
        self._samples.clear()

    def _histogram(self, window: Window) -> HdrHistogram:
        histogram = self._next.latencies.get(window)
        if histogram is None:
            histogram = self._next.latencies[window] = latency.empty()
        return histogram


def _is_kept(run: Run, verdict: OperationVerdict) -> bool:
    """All are counted; of a flood, only the first rows are worth their place."""
    if verdict.root_order_id:
        run.dependants_stored += 1
        return run.dependants_stored <= DEPENDANTS_STORED_MAX
    run.verdicts_stored += 1
    return run.verdicts_stored <= VERDICTS_STORED_MAX


def _is_empty(batch: Batch) -> bool:
    parts: Iterable[object] = (
        batch.instruments,
        batch.runs,
        batch.tallies,
        batch.verdicts,
        batch.hits,
        batch.latencies,
        batch.gaps,
    )
    return not any(parts)
