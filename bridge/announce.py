"""Tells the proxies what the stage table says. The table is the truth; this may be lost at any
moment.
"""

from __future__ import annotations

import asyncio
import logging

import redis.asyncio as redis
from redis.exceptions import RedisError

from bridge.errors import RedisUnreachable
from bridge.ledger import Ledger
from bridge.limits import REDIS_ANSWER_S
from bridge.stage import STAGES_CHANNEL, STAGES_KEY, WRITTEN_CHANNEL, StageSnapshot, encode

_log = logging.getLogger(__name__)


class Announcer:
    def __init__(self, redis_url: str, ledger: Ledger) -> None:
        self._ledger = ledger
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_connect_timeout=REDIS_ANSWER_S,
            socket_timeout=REDIS_ANSWER_S,
        )
        self._turn = asyncio.Lock()
        self._written: dict[int, int] = {}  # by shard: the newest that is to be told
        self._news = asyncio.Event()

    async def close(self) -> None:
        await self._redis.aclose()

    async def stages(self) -> StageSnapshot:
        """Publishes the stage table as it is now. Raises StoreUnreachable, RedisUnreachable."""
        async with self._turn:  # read and write together, so that an older one never follows
            snapshot = await self._ledger.snapshot()
            encoded = encode(snapshot)
            try:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.set(STAGES_KEY, encoded)
                    pipeline.publish(STAGES_CHANNEL, encoded)
                    await pipeline.execute()
            except (RedisError, OSError) as error:
                raise RedisUnreachable(
                    f"the proxies can't be told the stages: Redis: {error}; see that it runs"
                ) from error
            return snapshot

    def written(self, shard: int, seq: int) -> None:
        """Will be told by `run`, newest only: whoever waits for an older one waits no longer."""
        self._written[shard] = seq
        self._news.set()

    async def run(self) -> None:
        """Publishes what was written back. Until cancelled; Redis may come and go."""
        while True:
            await self._news.wait()
            self._news.clear()
            for shard, seq in self._written.items():
                try:
                    await self._redis.publish(WRITTEN_CHANNEL, f"{shard} {seq}")
                except (RedisError, OSError) as error:
                    _log.warning("readers can't be told what was written back: Redis: %s", error)
