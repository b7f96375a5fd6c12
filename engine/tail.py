"""The tail: every event of the shard from any sequence number on, without gap or repeat.

What is recent comes from memory; what is older from replaying the journal on a second market, in a
thread. A subscriber is sent no faster than it reads; one that falls out of memory while it follows
is disconnected, and may come back for a replay.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from engine import limits
from engine.errors import JournalDamaged
from engine.frame import Unreadable
from engine.market import Market
from engine.protocol import RejectCode, tail_header
from engine.replay import Frame, JournalReader
from engine.ring import Ring
from engine.snapshot_file import best_state
from engine.wire import EVENT_BYTES, EVENT_DTYPE

log = logging.getLogger(__name__)


class TailFrame(NamedTuple):
    """The events of one journal frame. Command `seq` happened at
    ts_ns + 1000 * (seq - first_seq).
    """

    first_seq: int
    last_seq: int
    ts_ns: int
    events: bytes


class Subscriber(Protocol):
    is_closing: bool
    wake: asyncio.Event  # set when it becomes writable, when it is gone, and by the feed

    @property
    def is_writable(self) -> bool: ...

    def tail(self, head: bytes, events: bytes) -> None: ...

    def reject(self, code: RejectCode, reason: str) -> None: ...


class Replay:
    """The journal's events, computed again: from its beginning, or from the last snapshot before
    what is asked for first. For any one thread at a time.
    """

    def __init__(self, directory: Path, *, shard: int, implementation: str) -> None:
        self._directory = directory
        self._shard = shard
        self._implementation = implementation
        self._begun: tuple[JournalReader, Market] | None = None
        self._lock = threading.Lock()  # a step may still run when its subscriber is gone

    def step(self, from_seq: int, until_seq: int) -> list[TailFrame]:
        """Goes on for a bounded while; returns the frames that hold `from_seq` or later ones.

        `until_seq` must be durable. Raises JournalDamaged.
        """
        found: list[TailFrame] = []
        commands = size = 0
        with self._lock:
            reader, market = self._begun = self._begun or self._begin(from_seq)
            while (
                reader.next_seq <= until_seq
                and commands < limits.REPLAY_STEP_COMMANDS
                and size < limits.REPLAY_STEP_BYTES
            ):
                frame = reader.read()
                if not isinstance(frame, Frame):
                    raise JournalDamaged(_not_there(reader, frame))
                events = market.apply(frame.commands, frame.ts_ns, rules=frame.rules)
                commands += frame.length
                if frame.last_seq >= from_seq:
                    found.append(TailFrame(frame.first_seq, frame.last_seq, frame.ts_ns, events))
                    size += len(events)
        return found

    def close(self) -> None:
        with self._lock:
            if self._begun is not None:
                self._begun[0].close()

    def _begin(self, from_seq: int) -> tuple[JournalReader, Market]:
        state = best_state(
            self._directory,
            shard=self._shard,
            implementation=self._implementation,
            until_seq=from_seq - 1,
        )
        reader = JournalReader(self._directory, shard=self._shard, start=state.link)
        return reader, state.market


def _not_there(reader: JournalReader, found: Unreadable | None) -> str:
    if found is None and reader.path is None:
        return (
            f"the segment with sequence {reader.next_seq} is not here any more: put it back, or "
            f"ask for what is newer than the oldest snapshot"
        )
    why = found.why if found else "it is missing"
    return f"{reader.path}: sequence {reader.next_seq} was durable and can't be read back: {why}"


class TailFeed:
    """The shard's newest frames, and whoever follows them."""

    def __init__(self, directory: Path, *, shard: int, implementation: str) -> None:
        self.ring = Ring[TailFrame](bytes_max=limits.TAIL_RING_BYTES_MAX)
        self.durable_seq = 0
        self._new_replay: Callable[[], Replay] = lambda: Replay(
            directory, shard=shard, implementation=implementation
        )
        self._subscribers: set[Subscriber] = set()
        self._replays = asyncio.Semaphore(limits.REPLAYS_MAX)
        self._threads = ThreadPoolExecutor(limits.REPLAYS_MAX, thread_name_prefix="tail-replay")

    @property
    def subscribers(self) -> int:
        return len(self._subscribers)

    def begin_after(self, seq: int) -> None:
        """Before the first `append`: what comes up to `seq` is in the journal only."""
        self.ring.evicted_through = self.durable_seq = seq

    def append(self, frame: TailFrame) -> None:
        """Of a durable frame."""
        self.ring.append(frame.first_seq, frame.last_seq, frame, size=len(frame.events))
        self.durable_seq = frame.last_seq
        for subscriber in self._subscribers:
            subscriber.wake.set()

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    async def follow(self, subscriber: Subscriber, from_seq: int) -> None:
        """Until the subscriber is gone or has been told why it must go."""
        self._subscribers.add(subscriber)
        try:
            next_seq = await self._catch_up(subscriber, max(1, from_seq))
            while not subscriber.is_closing:
                if not self.ring.covers(next_seq):
                    subscriber.reject(RejectCode.SLOW, "the tail was not read in time")
                    return
                subscriber.wake.clear()
                for frame in self.ring.since(next_seq):
                    if not subscriber.is_writable:
                        break
                    next_seq = _send(subscriber, frame, next_seq)
                await subscriber.wake.wait()
        except JournalDamaged as error:
            log.error("the tail from %d can't be served: %s", from_seq, error)
            subscriber.reject(RejectCode.JOURNAL, str(error))
        finally:
            self._subscribers.discard(subscriber)

    async def _catch_up(self, subscriber: Subscriber, next_seq: int) -> int:
        if self.ring.covers(next_seq):
            return next_seq
        loop = asyncio.get_running_loop()
        async with self._replays:
            replay = self._new_replay()
            try:
                while not self.ring.covers(next_seq) and not subscriber.is_closing:
                    frames = await loop.run_in_executor(
                        self._threads, replay.step, next_seq, self.durable_seq
                    )
                    for frame in frames:
                        next_seq = _send(subscriber, frame, next_seq)
                    if not await _has_read(subscriber):
                        subscriber.reject(RejectCode.SLOW, "the tail was not read in time")
            finally:
                # Not here: a step that was abandoned may still hold the lock.
                self._threads.submit(replay.close)
        return next_seq


async def _has_read(subscriber: Subscriber) -> bool:
    """Whether it has room again before it has to leave its place to another replay."""
    with suppress(TimeoutError):
        async with asyncio.timeout(limits.SILENCE_S):
            while not subscriber.is_writable and not subscriber.is_closing:
                subscriber.wake.clear()
                await subscriber.wake.wait()
            return True
    return False


def cut(frame: TailFrame, from_seq: int) -> TailFrame:
    """The frame without what comes before `from_seq`."""
    if from_seq <= frame.first_seq:
        return frame
    seqs = np.frombuffer(frame.events, EVENT_DTYPE)["seq"]
    start = int(np.searchsorted(seqs, from_seq)) * EVENT_BYTES
    later_ns = (from_seq - frame.first_seq) * limits.COMMAND_STEP_NS
    return TailFrame(from_seq, frame.last_seq, frame.ts_ns + later_ns, frame.events[start:])


def _send(subscriber: Subscriber, frame: TailFrame, next_seq: int) -> int:
    part = cut(frame, next_seq)
    head = tail_header(part.first_seq, part.last_seq, part.ts_ns, len(part.events))
    subscriber.tail(head, part.events)
    return frame.last_seq + 1
