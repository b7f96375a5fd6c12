"""The loop that reads captures, finds the gaps in them, and hands them to where they are waited
for. Captures of instruments that are off are let go at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from shadow.captures import Gap, Sequences
from shadow.errors import CapturesUnavailable
from shadow.exchanges import Exchanges, Kind, Told
from shadow.gaps import Claims
from shadow.instrument import Instrument
from shadow.joins import Joins
from shadow.limits import (
    CAPTURE_BLOCK_MS,
    CAPTURE_ENTRIES_READ_MAX,
    CAPTURE_HISTORY_ENTRIES_MAX,
    RECONNECT_BACKOFF_S_MAX,
)
from shadow.ports import CaptureEntry, Captures, Clock
from shadow.recorder import Recorder
from shadow.settle import Settler
from shadow.work import Held, StreamEntry

log = logging.getLogger(__name__)


class CaptureReader:
    def __init__(
        self,
        *,
        captures: Captures,
        exchanges: Exchanges,
        joins: Joins,
        claims: Claims,
        recorder: Recorder,
        settler: Settler,
        generation: Callable[[], int],
        instruments: Mapping[str, Instrument],
        clock: Clock,
        news: Callable[[], None],
    ) -> None:
        """`generation`: of the newest mark that may have been written by now."""
        self.read_until_ns = 0  # monotonic: everything written before it has been read
        self._captures = captures
        self._exchanges = exchanges
        self._joins = joins
        self._claims = claims
        self._recorder = recorder
        self._settler = settler
        self._generation = generation
        self._instruments = instruments
        self._clock = clock
        self._news = news

    async def keep_reading(self) -> None:
        """Until it is cancelled; what Redis can't give now is waited for."""
        after, expected = self._recorder.capture_start()
        sequences = Sequences(expected)
        while not after:
            after = await self._begin(sequences)
        while True:
            if self._joins.is_full:
                await asyncio.sleep(CAPTURE_BLOCK_MS / 1000)
            else:
                after = await self._read(after, sequences)

    async def _begin(self, sequences: Sequences) -> str:
        """The first start of all: behind what is there now, knowing how far each worker is."""
        try:
            newest = await self._captures.newest(CAPTURE_HISTORY_ENTRIES_MAX)
        except CapturesUnavailable as error:
            await self._wait_out(error)
            return ""
        for entry in newest:
            sequences.learn(entry.fields)
        after = newest[0].id if newest else "0-0"
        self._recorder.begin_captures(after, sequences.expected())
        return after

    async def _read(self, after: str, sequences: Sequences) -> str:
        asked_ns = self._clock.mono_ns()
        try:
            entries = await self._captures.read(after, CAPTURE_ENTRIES_READ_MAX, CAPTURE_BLOCK_MS)
        except CapturesUnavailable as error:
            await self._wait_out(error)
            return after
        self._recorder.trouble["captures"] = ""
        for entry in entries:
            self._take(entry, sequences)
            after = entry.id
            if self._joins.is_full:  # the others are read again
                break
        if not entries:
            self.read_until_ns = self._clock.mono_ns()
        elif len(entries) < CAPTURE_ENTRIES_READ_MAX and after == entries[-1].id:
            self.read_until_ns = asked_ns
        self._news()
        return after

    def _take(self, entry: CaptureEntry, sequences: Sequences) -> None:
        batch = sequences.take(entry.fields)
        worker = entry.fields.get(b"worker", b"").decode("utf-8", "replace")
        expected = {worker: sequences.expected_of(worker)} if worker else {}
        stream_entry = StreamEntry(entry.id, expected)
        self._recorder.entry(stream_entry)
        now = self._clock.mono_ns()
        for gap in batch.gaps:
            log.warning("captures %d to %d of worker %s are lost", gap.first, gap.last, worker)
            self._recorder.gap(gap)
            self._claims.lost(gap, stream_entry, now, self._recorder.late_gap)
        for capture in batch.captures:
            try:
                for told in self._exchanges.read(capture):
                    self._hand_over(told, stream_entry, now)
            except Exception:  # a fault of ours must not stop the others' comparison
                log.exception("capture %d of worker %s", capture.number, worker)
                gap = Gap(worker, capture.number, capture.number)
                self._recorder.gap(gap)
                self._claims.lost(gap, stream_entry, now, self._recorder.late_gap)

    def _hand_over(self, told: Told, entry: StreamEntry, now: int) -> None:
        instrument = self._instruments.get(told.symbol)
        if told.symbol and (instrument is None or not instrument.captured):
            return
        if told.kind is Kind.PLACE_REFUSED:
            if instrument is None or not instrument.is_compared:
                return
            if told.capture.sent_at_ns >= instrument.since_ns:
                held = Held(told, entry, self._generation(), now)
                self._settler.refused_place(instrument, held)
            return
        held = Held(told, entry, self._generation(), now)
        late = self._joins.add(held)
        if late is None:
            return
        self._settler.release(held)
        if late.dark is not None and not late.dark.is_corrected:
            late.dark.is_corrected = True
            self._recorder.late_capture(late.dark)

    async def _wait_out(self, error: CapturesUnavailable) -> None:
        if not self._recorder.trouble.get("captures"):
            log.warning("%s", error)
        self._recorder.trouble["captures"] = str(error)
        await asyncio.sleep(RECONNECT_BACKOFF_S_MAX / 4)
