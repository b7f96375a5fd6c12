"""Captures on their way to Redis: numbered, bounded, in batches, and never in a client's way.

Whatever can't be kept or shipped is dropped and counted by its reason. Its number is used up all
the same, so that whoever reads the stream sees the gap. A batch whose answer was lost is sent
again: readers ignore numbers that they have seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter, deque

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from bridge.limits import (
    REDIS_ANSWER_S,
    TEE_BATCH_BYTES_MAX,
    TEE_BATCH_CAPTURES_MAX,
    TEE_BYTES_MAX,
    TEE_CAPTURES_MAX,
    TEE_LINGER_S,
    TEE_RETRY_S,
    TEE_STREAM_ENTRIES_MAX,
)
from bridge.proxy.exchange import Exchange
from shadow.capture import CAPTURE_STREAM, Capture, Outcome, encode_batch

_log = logging.getLogger(__name__)
_RETRY_PAUSE_S = 0.1

# Reasons of drops.
REQUEST_TOO_LARGE = "request-too-large"
ANSWER_TOO_LARGE = "answer-too-large"
QUEUE_FULL = "queue-full"
REDIS_AWAY = "redis-away"
DEFECT = "defect"


def connect(url: str) -> redis.Redis:
    """A client that gives up soon and leaves trying again to us."""
    return redis.Redis.from_url(
        url,
        socket_timeout=REDIS_ANSWER_S,
        socket_connect_timeout=REDIS_ANSWER_S,
        retry=Retry(NoBackoff(), 0),
    )


class Tee:
    def __init__(self, worker: str, redis_url: str) -> None:
        self.worker = worker
        self.captured = 0  # numbers used up: kept or not
        self.dropped: Counter[str] = Counter()
        self._queue: deque[Capture] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._redis = connect(redis_url)
        self._stop_at = float("inf")  # monotonic clock

    def offer(self, exchange: Exchange, outcome: Outcome) -> None:
        """Takes the next number for this exchange, and keeps it if there is room. Never waits."""
        self.captured += 1
        if exchange.body is None:
            self.dropped[REQUEST_TOO_LARGE] += 1
        elif exchange.response_body is None:
            self.dropped[ANSWER_TOO_LARGE] += 1
        elif len(self._queue) >= TEE_CAPTURES_MAX or self._bytes >= TEE_BYTES_MAX:
            self.dropped[QUEUE_FULL] += 1
        else:
            capture = exchange.capture(self.worker, self.captured, outcome)
            self._queue.append(capture)
            self._bytes += _size(capture)
            if not self._wake.is_set():
                self._wake.set()

    async def run(self) -> None:
        """Ships until `stop`. Redis may come and go."""
        while self._stop_at == float("inf") or self._queue:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            if len(self._queue) < TEE_BATCH_CAPTURES_MAX:
                await asyncio.sleep(TEE_LINGER_S)
            batch = self._next_batch()
            if not await self._ship(batch):
                self.dropped[REDIS_AWAY] += len(batch)

    def stop(self, within_s: float) -> None:
        """`run` returns once all is shipped, or soon after this time; the rest is dropped."""
        self._stop_at = time.monotonic() + within_s
        self._wake.set()

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    def _next_batch(self) -> list[Capture]:
        """Consecutive numbers only: a gap ends a batch."""
        batch: list[Capture] = []
        size = 0
        while self._queue and len(batch) < TEE_BATCH_CAPTURES_MAX and size < TEE_BATCH_BYTES_MAX:
            capture = self._queue[0]
            if batch and capture.number != batch[-1].number + 1:
                break
            batch.append(self._queue.popleft())
            size += _size(capture)
        self._bytes -= size
        return batch

    async def _ship(self, batch: list[Capture]) -> bool:
        fields = encode_batch(batch)
        give_up_at = time.monotonic() + TEE_RETRY_S
        while True:
            try:
                await self._redis.xadd(
                    CAPTURE_STREAM,
                    fields,  # type: ignore[arg-type]  # bytes are as good as text
                    maxlen=TEE_STREAM_ENTRIES_MAX,
                    approximate=True,
                )
            except (RedisError, OSError) as error:
                if time.monotonic() > min(give_up_at, self._stop_at):
                    _log.warning("%d captures dropped: Redis: %s", len(batch), error)
                    return False
                await asyncio.sleep(_RETRY_PAUSE_S)
            else:
                return True


def _size(capture: Capture) -> int:
    """About what it takes in memory and on the stream."""
    return 512 + len(capture.request_body) + len(capture.response_body) + len(capture.target)
