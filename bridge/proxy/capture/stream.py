"""The capture stream in Redis, as it is written: bounded in entries and in bytes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from bridge.limits import (
    REDIS_ANSWER_S,
    REDIS_BYTES_PER_S_MIN,
    SPOOL_RECORD_BYTES_MAX,
    TEE_ENTRY_EXTRA_BYTES,
    TEE_ENTRY_MEAN_SHARE,
    TEE_STREAM_BYTES_MAX,
    TEE_STREAM_ENTRIES_MAX,
)
from bridge.proxy.capture.batch import Batch
from shadow.capture import CAPTURE_STREAM, entry_fields

_log = logging.getLogger(__name__)


def connect(url: str, answer_s: float = REDIS_ANSWER_S) -> redis.Redis:
    """A client that gives up soon and leaves trying again to us."""
    return redis.Redis.from_url(
        url,
        socket_timeout=answer_s,
        socket_connect_timeout=REDIS_ANSWER_S,
        retry=Retry(NoBackoff(), 0),
    )


def patience_s(size: int) -> float:
    """How long Redis may take for so many bytes: on a thin wire they need their time."""
    return REDIS_ANSWER_S + size / REDIS_BYTES_PER_S_MIN


class CaptureStream:
    """Redis may be away, slow, full, read-only or another one than before: all that counts is
    whether it said that it has an entry.
    """

    def __init__(self, redis_url: str) -> None:
        self.is_away = False  # as of the newest try
        self._redis = connect(redis_url, patience_s(SPOOL_RECORD_BYTES_MAX))
        self._mean_bytes = 0.0  # of an entry

    async def add(self, batches: Sequence[Batch]) -> bool:
        """All or none of them, in order. False: they may be there or not. `patience_s` says when
        it has taken too long.
        """
        try:
            if len(batches) == 1:
                await self._add(self._redis, batches[0])
            else:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    for batch in batches:
                        await self._add(pipeline, batch)
                    await pipeline.execute()
        except (RedisError, OSError) as error:
            self.note_away(str(error) or repr(error))
            return False
        if self.is_away:
            _log.warning("captures can be written to Redis again")
        self.is_away = False
        return True

    async def answers(self) -> bool:
        """Whether there is anybody: a question that costs nothing."""
        try:
            await self._redis.ping()
        except (RedisError, OSError) as error:
            self.note_away(str(error) or repr(error))
            return False
        return True

    def note_away(self, why: str) -> None:
        if not self.is_away:
            _log.warning("captures can't be written to Redis: %s", why)
        self.is_away = True

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _add(self, connection: redis.Redis, batch: Batch) -> None:
        fields = entry_fields(batch.worker, batch.first, batch.count, batch.data)
        await connection.xadd(
            CAPTURE_STREAM,
            fields,  # type: ignore[arg-type]  # bytes are as good as text
            maxlen=self._entries_max(len(batch.data) + TEE_ENTRY_EXTRA_BYTES),
            approximate=True,
        )

    def _entries_max(self, size: int) -> int:
        """So many entries of the present mean size as fit."""
        if not self._mean_bytes:
            self._mean_bytes = size
        self._mean_bytes += (size - self._mean_bytes) * TEE_ENTRY_MEAN_SHARE
        return max(1, min(TEE_STREAM_ENTRIES_MAX, int(TEE_STREAM_BYTES_MAX / self._mean_bytes)))
