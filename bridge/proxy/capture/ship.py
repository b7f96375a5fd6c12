"""Captures on their way from the planes to Redis, over the disk where Redis is away.

Nothing here is ever waited for by a client or waits for the reading side. While there is something
in the spool, newer batches go behind it, so that each worker's numbers arrive in order. A batch
whose answer was lost is sent again: readers ignore numbers that they have seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine, Sequence

from bridge.limits import (
    SPOOL_DRAIN_BYTES_PER_S,
    SPOOL_RECORD_BYTES_MAX,
    TEE_AGAIN_S,
    TEE_LINGER_S,
    TEE_RETRY_S,
    TEE_SLOW_S,
)
from bridge.proxy.capture.adopt import adopt
from bridge.proxy.capture.ahead_log import AheadLog
from bridge.proxy.capture.batch import Batch, Source, closing
from bridge.proxy.capture.disk import Disk
from bridge.proxy.capture.home import Home
from bridge.proxy.capture.spool import Chunk, Spool
from bridge.proxy.capture.stream import CaptureStream, patience_s

_log = logging.getLogger(__name__)
_READ_TRIES_MAX = 20  # of a segment that can't be read; then it is left out, as a gap

# Reasons of drops.
REDIS_AWAY = "redis-away"
SPOOL_FULL = "spool-full"
SPOOL_FAILED = "spool-failed"


class Shipper:
    def __init__(
        self,
        sources: Sequence[Source],
        redis_url: str,
        *,
        home: Home | None = None,
        spool_bytes_max: int = 0,
        ahead: AheadLog | None = None,
    ) -> None:
        """`home` is ours from here on. Without it there is no spool, and who comes after a kill
        can't tell what was lost at the end. Raises OSError: it can't be read.
        """
        self._sources = sources
        self._stream = CaptureStream(redis_url)
        self._home = home
        self._spool = Spool(home, spool_bytes_max) if home is not None else None
        self._ahead = ahead
        self._disk = Disk()
        self._backlog = asyncio.Event()  # something is in the spool, perhaps
        self._stopping = asyncio.Event()
        self._stop_at = float("inf")  # monotonic clock
        self._is_collected = False  # nothing more comes from the sources
        self._spool_is_failing = False
        self._is_slow = False  # the last batch took long: others would fill the queue behind it

    @property
    def spooled_bytes(self) -> int:
        return self._spool.bytes if self._spool is not None else 0

    async def run(self) -> None:
        """Ships until `stop`. Redis may come and go."""
        tasks = [
            asyncio.create_task(work)
            for work in (self._collect_all(), self._drain(), self._adopt())
        ]
        try:
            await asyncio.gather(*tasks)
            await self._leave()
        finally:
            for task in tasks:
                task.cancel()

    def stop(self, within_s: float) -> None:
        """Nothing more is captured. `run` returns once all is shipped, or after this time: the rest
        stays in the spool for the next process, or is dropped.
        """
        self._stop_at = time.monotonic() + within_s
        self._stopping.set()
        for source in self._sources:
            source.wake.set()

    async def close(self) -> None:
        """After `run` has ended, or if it never ran. Leaves the files to whoever comes next."""
        if self._home is not None:
            self._home.release()
            self._home = None
        self._disk.close()
        await self._stream.close()

    # From the sources to the stream, or to the spool.

    async def _collect_all(self) -> None:
        await asyncio.gather(*(self._collect(source) for source in self._sources))
        self._is_collected = True
        self._backlog.set()  # a drainer that has nothing to do sees that it is over

    async def _collect(self, source: Source) -> None:
        while True:
            source.wake.clear()
            batch = source.take()
            if batch is not None:
                await self._forward(source, batch)
            elif self._stopping.is_set():
                return
            else:
                await source.wake.wait()
                await self._pause(TEE_LINGER_S)

    async def _forward(self, source: Source, batch: Batch) -> None:
        reason = await self._keep(batch)
        if reason:
            source.dropped[reason] += batch.count
        if self._ahead is not None:
            self._ahead.done(batch.ahead)

    async def _keep(self, batch: Batch) -> str:
        """ "": it is in the stream or in the spool. Otherwise why not."""
        if self._spool is None:
            return await self._keep_trying(batch)
        if self._spool.is_empty and not self._is_slow:
            began = time.monotonic()
            if await self._send([batch]):
                self._is_slow = time.monotonic() - began > TEE_SLOW_S
                return ""
        self._is_slow = False  # whoever drains the spool finds out how it is now
        try:
            fits = await self._disk.do(self._spool.append, batch)
        except OSError as error:
            if not self._spool_is_failing:
                _log.warning("captures can't be written to the disk: %s", error)
            self._spool_is_failing = True
            return SPOOL_FAILED
        self._spool_is_failing = False
        self._backlog.set()
        return "" if fits else SPOOL_FULL

    async def _keep_trying(self, batch: Batch) -> str:
        give_up_at = time.monotonic() + TEE_RETRY_S
        while not await self._send([batch]):
            if time.monotonic() > min(give_up_at, self._stop_at):
                return REDIS_AWAY
            await self._pause(TEE_AGAIN_S)
        return ""

    # From the spool to the stream.

    async def _drain(self) -> None:
        tries = 0
        while self._spool is not None and time.monotonic() < self._stop_at:
            if self._spool.is_empty:
                if self._is_collected:
                    return
                self._backlog.clear()
                await self._backlog.wait()
                continue
            try:
                is_sent = await self._drain_some(self._spool)
                tries = 0
            except OSError as error:
                tries += 1
                is_sent = False
                await self._skip_unreadable(self._spool, tries, error)
            if not is_sent:
                if self._is_collected:
                    return  # whoever adopts it has more time
                await self._pause(TEE_AGAIN_S)

    async def _drain_some(self, spool: Spool) -> bool:
        """Raises OSError: the disk can't be read."""
        if self._stream.is_away and not await self._answered(
            self._stream.answers(), SPOOL_RECORD_BYTES_MAX
        ):
            return False  # nothing is read from the disk for nobody
        chunk = await self._disk.do(spool.oldest)
        if chunk is None:
            return True
        if not await self._send_chunk(chunk):
            return False
        await self._disk.do(spool.pop, chunk)
        return True

    async def _skip_unreadable(self, spool: Spool, tries: int, error: OSError) -> None:
        if tries == 1:
            _log.warning("captures can't be read from the disk: %s", error)
        if tries % _READ_TRIES_MAX == 0:
            _log.warning("captures on the disk are given up: they will show as a gap")
            with contextlib.suppress(OSError):
                await self._disk.do(spool.skip_segment)

    async def _send_chunk(self, chunk: Chunk) -> bool:
        if chunk.damaged:
            _log.warning("captures on the disk are damaged in %d places", chunk.damaged)
        if chunk.batches and not await self._send(chunk.batches):
            return False
        size = sum(len(batch.data) for batch in chunk.batches)
        await self._pause(size / SPOOL_DRAIN_BYTES_PER_S)
        return True

    # What others have left, and what we leave.

    async def _adopt(self) -> None:
        if self._home is not None:
            await adopt(
                self._home.directory, self._disk, self._send_chunk, self._pause, self._stopping
            )

    async def _leave(self) -> None:
        """The end of every sequence, if all before it has arrived; else whoever adopts our files
        writes it.
        """
        is_over = not self.spooled_bytes
        if self._ahead is not None:
            is_over = await self._ahead.close() and is_over
        ends = [closing(one.worker, one.captured) for one in self._sources if one.captured]
        if is_over and ends:
            is_over = await self._send(ends)
        if self._spool is None or self._home is None:
            return
        home, self._home = self._home, None
        try:
            await self._disk.do(self._spool.close)
            await self._disk.do(home.remove if is_over else home.release)
        except OSError as error:
            _log.warning("files of captures are left in %s: %s", home.directory, error)

    async def _send(self, batches: Sequence[Batch]) -> bool:
        size = sum(len(batch.data) for batch in batches)
        return await self._answered(self._stream.add(batches), size)

    async def _answered(self, asking: Coroutine[None, None, bool], size: int) -> bool:
        """Not longer than we have, and than so many bytes may take. The Redis client now and then
        does not hear that it is to end: it is not waited for.
        """
        patience = patience_s(size)
        task = asyncio.create_task(asking)
        left = min(patience, self._stop_at - time.monotonic())
        done, _ = await asyncio.wait({task}, timeout=max(left, 0.0))
        if done:
            return task.result()
        task.cancel()
        self._stream.note_away(f"no answer within {patience:.0f} s")
        return False

    async def _pause(self, seconds: float) -> None:
        """Shorter when it is time to stop."""
        if self._stopping.is_set():
            seconds = min(seconds, max(0.0, self._stop_at - time.monotonic()))
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
