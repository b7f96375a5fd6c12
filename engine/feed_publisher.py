"""Publishes a shard's market data to Redis, at its own pace, beside the engine's work.

It follows the tail as any subscriber does, and reads books only where the shard says that they show
what is durable. What takes time runs in one thread of its own, and rests longer than it works.
Whatever happens to Redis, the engine is not held up: what Redis missed is read from the journal
again, and where that would be too much, a gap is told.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, Protocol, TypeVar

import msgspec

from engine import limits
from engine.errors import MarketDataUnavailable, UnknownInstrument
from engine.feed import (
    Batch,
    Entry,
    FeedState,
    Hash,
    Keys,
    Shown,
    View,
    Views,
    batch,
    changed_instruments,
    gap_entries,
    state_hashes,
    status_entries,
)
from engine.feed_follower import Follower
from engine.feed_plan import check_journal, plan
from engine.feed_redis import Published, RedisOutlet
from engine.feed_status import market_statuses
from engine.market import Market
from engine.protocol import FeedStatus, RejectCode
from engine.tail import TailFeed, TailFrame, cut

log = logging.getLogger(__name__)

T = TypeVar("T")


class FeedSettings(msgspec.Struct, frozen=True, kw_only=True):
    url: str  # of Redis
    interval_ms: int = 50  # from one batch to the next, at least
    levels: int = 20  # prices a side
    orders: int = 0  # orders a side; 0: no depth by order
    stream_length: int = 10_000  # entries of trades kept for each instrument, about


class Source(Protocol):
    """The shard, as the publisher sees it."""

    @property
    def number(self) -> int: ...

    @property
    def feed(self) -> TailFeed: ...

    @property
    def market(self) -> Market: ...

    def when_settled(self, call: Callable[[], None]) -> None: ...


class Looked(NamedTuple):
    frames: list[TailFrame]  # up to the views
    at: Views


class FeedPublisher:
    """From `start` to `close`, whatever happens to Redis."""

    def __init__(self, settings: FeedSettings, source: Source) -> None:
        self._settings = settings
        self._source = source
        self._keys = Keys(source.number)
        self._outlet = RedisOutlet(settings.url, self._keys)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="market-data")
        self._unreadable_through = -1  # the journal does not go back to here any more
        self._state: FeedState | None = None  # published: Redis said so
        self._shown: dict[str, Shown] = {}
        self._changed: dict[int, None] = {}  # instruments whose book is to be read, longest first
        self._worked_s = 0.0  # by the thread, since the last rest
        self._told = FeedStatus(state="starting")
        self._running: asyncio.Future[None] | None = None

    def status(self) -> FeedStatus:
        published_seq = self._state.seq if self._state else 0
        lag = self._source.feed.durable_seq - published_seq
        return msgspec.structs.replace(self._told, published_seq=published_seq, lag=lag)

    def start(self) -> None:
        self._running = asyncio.ensure_future(self._run())

    async def close(self) -> None:
        """A step that is being taken ends by itself, in seconds at most."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._thread.submit(self._outlet.close)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        """Goes on whatever goes wrong, until cancelled."""
        wait_s = limits.FEED_RETRY_S_MIN
        while True:
            batches = self._told.batches
            try:
                await self._session()
            except MarketDataUnavailable as error:
                self._tell_problem(error.reason, str(error))
            except Exception as error:
                log.exception("market data: a defect; orders are not affected")
                self._tell_problem("defect", repr(error))
            if self._told.batches > batches + 1:
                wait_s = limits.FEED_RETRY_S_MIN
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, limits.FEED_RETRY_S_MAX)

    # --- from one failure to the next

    async def _session(self) -> None:
        state = await self._begin(await self._in_thread(self._outlet.open))
        follower = Follower()
        from_seq = self._from_seq(state.seq)
        following = asyncio.ensure_future(self._source.feed.follow(follower, from_seq))
        following.add_done_callback(lambda _: follower.arrived.set())
        try:
            if from_seq == state.seq:
                await follower.arrived.wait()  # nothing is published before it has been looked at
            while True:
                if not self._changed:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(limits.FEED_ALIVE_S):
                            await follower.arrived.wait()
                if following.done():
                    self._lost_tail(follower, following)
                began = time.monotonic()
                await self._turn(follower)
                await self._rest(began, is_behind=not follower.is_writable)
        finally:
            follower.close()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    async def _begin(self, stored: FeedState | None) -> FeedState:
        """Redis then holds what it returns."""
        found = plan(
            stored,
            self._state,
            durable_seq=self._source.feed.durable_seq,
            reach=limits.FEED_REPLAY_COMMANDS_MAX[self._source.market.implementation],
            unreadable_through=self._unreadable_through,
        )
        present = await self._settled(self._present)
        if stored is not None and stored.seq == present.seq:
            check_journal(stored, present.ts_ns)
        state = found.state or present
        self._shown.clear()
        self._changed = dict.fromkeys(present.instruments)
        if state is not stored:
            state, entries = self._gap(
                state, found.first_missing, is_complete=found.state is not None
            )
            statuses = state.instruments.values()
            await self._publish(
                stored,
                state,
                state_hashes(statuses, state.traded, self._keys),
                (*status_entries(statuses, self._keys), *entries),
            )
        self._state = state
        if not self._settings.orders:
            # An old one must not be taken for the present one.
            gone = [(status.name, "orders") for status in state.instruments.values()]
            await self._in_thread(lambda: self._outlet.forget(gone))
        return state

    def _gap(
        self, state: FeedState, first_missing: int, *, is_complete: bool
    ) -> tuple[FeedState, tuple[Entry, ...]]:
        if not first_missing or first_missing > state.seq:
            return state, ()
        log.warning(
            "market data: Redis lacks the trades from sequence %d to %d; readers are told of a gap",
            first_missing,
            state.seq,
        )
        self._tell(gaps=self._told.gaps + 1)
        return gap_entries(
            state,
            first_missing,
            self._keys,
            kept=self._settings.stream_length,
            is_complete=is_complete,
        )

    def _from_seq(self, seq: int) -> int:
        """With the command at `seq` once more, to see that it is this journal's; but for that alone
        no journal is read again.
        """
        ring = self._source.feed.ring
        is_dear = ring.covers(seq + 1) and not ring.covers(seq)
        return seq + 1 if is_dear or not seq else seq

    def _lost_tail(self, follower: Follower, following: asyncio.Future[None]) -> None:
        """Raises why: the session begins anew, from what has been published."""
        if not following.cancelled() and following.exception() is not None:
            raise MarketDataUnavailable(
                "journal", f"the journal can't be read again: {following.exception()!r}"
            )
        code, why = follower.rejected or (RejectCode.STOPPING, "the engine stops")
        if code == RejectCode.JOURNAL and self._state is not None:
            self._unreadable_through = self._state.seq
        raise MarketDataUnavailable("behind" if code == RejectCode.SLOW else "journal", why)

    # --- one batch

    async def _turn(self, follower: Follower) -> None:
        """Publishes what has arrived, with the books as they are after it."""
        frames = self._news(follower)
        if frames:
            found = await self._in_thread(lambda: changed_instruments(frames))
            self._changed |= dict.fromkeys(found)
        next_seq = (frames[-1].last_seq if frames else self._seq) + 1
        at: Views | None = None
        if looked := await self._settled(lambda: self._look(next_seq)):
            frames += looked.frames
            at = looked.at
        await self._publish_batch(frames, at)
        is_live = self._source.feed.ring.covers(next_seq)
        self._tell_state("publishing" if is_live else "catching up")

    async def _publish_batch(self, frames: Sequence[TailFrame], at: Views | None) -> None:
        state = self._state
        assert state is not None

        def build() -> Batch:
            return batch(
                frames, at, state, self._shown, self._keys, kept=self._settings.stream_length
            )

        built = await self._in_thread(build)
        await self._publish(state, built.digest.state, built.hashes, built.entries)
        self._state = built.digest.state

    async def _publish(
        self,
        before: FeedState | None,
        after: FeedState,
        hashes: Sequence[Hash],
        entries: Sequence[Entry],
    ) -> None:
        done: Published = await self._in_thread(
            lambda: self._outlet.publish(before, after, hashes, entries)
        )
        self._tell(
            batches=self._told.batches + 1,
            entries=self._told.entries + done.added,
            repeated=self._told.repeated + done.repeated,
        )
        if done.refused:
            self._count("refused", done.refused)
            log.warning("market data: Redis refused %d writes: %s", done.refused, done.refusals)

    @property
    def _seq(self) -> int:
        return self._state.seq if self._state else 0

    def _news(self, follower: Follower) -> list[TailFrame]:
        """What has arrived after what is published."""
        frames = follower.take()
        state = self._state
        assert state is not None
        while frames and frames[0].first_seq <= state.seq:
            if frames[0].first_seq == state.seq:
                check_journal(state, frames[0].ts_ns)
            if frames[0].last_seq > state.seq:
                frames[0] = cut(frames[0], state.seq + 1)
            else:
                del frames[0]
        return frames

    # --- the market, where it shows what is durable

    async def _settled(self, look: Callable[[], T]) -> T:
        found: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def call() -> None:
            if found.done():
                return
            try:
                found.set_result(look())
            except Exception as error:  # never through the pump
                found.set_exception(error)

        self._source.when_settled(call)
        return await found

    def _present(self) -> FeedState:
        market = self._source.market
        statuses = market_statuses(market.instruments(), market.last_seq)
        return FeedState(
            seq=market.last_seq,
            ts_ns=market.last_ts_ns,
            instruments={status.instrument: status for status in statuses},
            traded={},
        )

    def _look(self, next_seq: int) -> Looked | None:
        """At all that has changed up to this moment, or at some of it: the next order waits.

        None where what has happened from `next_seq` on is too much for that.
        """
        market, ring = self._source.market, self._source.feed.ring
        if not ring.covers(next_seq):
            return None
        frames = [
            cut(frame, next_seq) for frame in ring.since(next_seq) if frame.last_seq >= next_seq
        ]
        if sum(len(frame.events) for frame in frames) > limits.FEED_LOOK_BYTES_MAX:
            return None
        self._changed |= dict.fromkeys(changed_instruments(frames))
        views = tuple(self._views(market))
        return Looked(frames, Views(market.last_seq, market.last_ts_ns, views))

    def _views(self, market: Market) -> Iterator[View]:
        settings = self._settings
        until_ns = time.monotonic_ns() + limits.FEED_VIEWS_NS
        for number in list(islice(self._changed, limits.FEED_VIEWS_MAX)):
            del self._changed[number]
            with suppress(UnknownInstrument):
                depth = market.depth(number, settings.levels)
                orders = None
                if settings.orders:
                    orders = market.displayed_orders(number, settings.orders)
                yield View(number, depth, orders)
            if time.monotonic_ns() > until_ns:
                break

    # --- its thread, its pace, and what it tells

    async def _in_thread(self, work: Callable[[], T]) -> T:
        def timed() -> tuple[T, float]:
            began = time.thread_time()
            result = work()
            return result, time.thread_time() - began

        loop = asyncio.get_running_loop()
        result, worked_s = await loop.run_in_executor(self._thread, timed)
        self._worked_s += worked_s
        return result

    async def _rest(self, began: float, *, is_behind: bool) -> None:
        elapsed_s = time.monotonic() - began
        interval_s = self._settings.interval_ms / 1_000
        rest_s = self._worked_s * (1 if is_behind else limits.FEED_REST_FACTOR)
        self._worked_s = 0.0
        await asyncio.sleep(max(interval_s - elapsed_s, rest_s, 0.0))

    def _tell(self, **fields: object) -> None:
        self._told = msgspec.structs.replace(self._told, **fields)

    def _tell_state(self, state: str) -> None:
        if self._told.problem:
            log.info(
                "market data: publishing again, from sequence %d; the journal is at %d",
                self._seq,
                self._source.feed.durable_seq,
            )
        self._tell(state=state, problem="")

    def _tell_problem(self, reason: str, text: str) -> None:
        if text != self._told.problem:
            log.warning("market data: %s; it tries again, and orders are not affected", text)
        self._count(reason, 1)
        self._tell(state="waiting", problem=text)

    def _count(self, reason: str, count: int) -> None:
        errors = self._told.errors
        self._tell(errors={**errors, reason: errors.get(reason, 0) + count})
