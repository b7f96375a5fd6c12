"""Where a worker learns the stages, and where it tells how it is: Redis, and the control store.

The control store is the truth and is read at the start. After that Redis brings the news; when it
is silent, the control store is read instead. A snapshot never goes back to an older version.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

import msgspec
from redis.exceptions import RedisError

from bridge.errors import BridgeError, StageUnknown, StoreUnreachable
from bridge.ledger import Ledger
from bridge.limits import (
    SNAPSHOT_AGE_S_MAX,
    STORE_ANSWER_S,
    STORE_CONNECT_S,
    WORKER_REPORT_EXPIRY_S,
    WORKER_REPORT_S,
    WORKER_SHOWN_S,
)
from bridge.proxy.capture.stream import connect
from bridge.stage import (
    STAGES_CHANNEL,
    STAGES_KEY,
    WORKERS_CHANNEL,
    WORKERS_KEY_PREFIX,
    WORKERS_SEEN_PREFIX,
    WRITTEN_CHANNEL,
    InstrumentStage,
    StageSnapshot,
    WorkerReport,
    decode_snapshot,
    encode,
)

_log = logging.getLogger(__name__)
_RETRY_S = 0.2
_NEXT_STEP = (
    "start `railswitch up` or `railswitch control` once, which writes a stage for each instrument, "
    "and check control.database_url and redis.url"
)


class StageSource:
    def __init__(
        self,
        redis_url: str,
        control_url: str,
        *,
        apply: Callable[[StageSnapshot], None],
        written: Callable[[int, int], None],
    ) -> None:
        """`apply` gets every snapshot that is read, old ones too; `written` the shard and sequence
        number that the write-back has reached.
        """
        self._ledger = Ledger(control_url)
        self._redis = connect(redis_url)
        self._apply = apply
        self._written = written
        self._loop = asyncio.get_running_loop()
        self._heard_at = self._loop.time()  # when Redis answered last
        self._hears = True  # the news, as far as we know

    async def start(self) -> None:
        """Raises StageUnknown when neither the control store nor Redis knows a stage."""
        reasons: list[str] = []
        try:
            async with asyncio.timeout(STORE_CONNECT_S):
                snapshot = await self._ledger.snapshot()
            if snapshot.instruments:
                self._apply(snapshot)
                return
            reasons.append("the control store has none")
        except (BridgeError, TimeoutError) as error:
            reasons.append(str(error) or "the control store did not answer in time")
        try:
            cached = await self._redis.get(STAGES_KEY)
            if isinstance(cached, bytes):
                self._apply(decode_snapshot(cached))
                return
            reasons.append("Redis has none")
        except (RedisError, OSError, msgspec.MsgspecError) as error:
            reasons.append(f"Redis: {error}")
        raise StageUnknown(f"no stage is known: {'; '.join(reasons)}; {_NEXT_STEP}")

    async def run(self) -> None:
        """Follows the news until it is cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                if self._hears:
                    _log.warning("no news of stages until Redis answers again: %s", error)
                self._hears = False
            await asyncio.sleep(_RETRY_S)

    async def report(self, report: WorkerReport) -> None:
        """Tells how this worker is, and looks at the stages at the same time."""
        encoded = encode(report)
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                pipeline.set(WORKERS_KEY_PREFIX + report.worker, encoded, ex=WORKER_REPORT_EXPIRY_S)
                pipeline.set(WORKERS_SEEN_PREFIX + report.worker, encoded, ex=WORKER_SHOWN_S)
                pipeline.publish(WORKERS_CHANNEL, encoded)
                pipeline.get(STAGES_KEY)
                *_, cached = await pipeline.execute()
        except (RedisError, OSError):
            if self._loop.time() - self._heard_at > SNAPSHOT_AGE_S_MAX:
                await self._read_store()
            return
        self._heard_at = self._loop.time()
        self._take(cached)

    async def leave(self, worker: str) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._redis.delete(WORKERS_KEY_PREFIX + worker, WORKERS_SEEN_PREFIX + worker)

    async def read_stage(self, symbol: str) -> InstrumentStage | None:
        """What the control store says now; None when it can't be asked, or has none."""
        snapshot = await self._read_store()
        return snapshot.instruments.get(symbol) if snapshot is not None else None

    async def close(self) -> None:
        await self._ledger.close()
        with contextlib.suppress(RedisError, OSError):
            await self._redis.aclose()

    async def _listen(self) -> None:
        async with self._redis.pubsub() as news:
            await news.subscribe(STAGES_CHANNEL, WRITTEN_CHANNEL)
            self._take(await self._redis.get(STAGES_KEY))
            self._hears = True
            while True:
                message = await news.get_message(
                    ignore_subscribe_messages=True, timeout=WORKER_REPORT_S
                )
                if message is None:
                    continue
                if message["channel"] == STAGES_CHANNEL.encode():
                    self._take(message["data"])
                else:
                    self._take_written(message["data"])

    def _take(self, data: object) -> None:
        if not isinstance(data, bytes):
            return
        try:
            self._apply(decode_snapshot(data))
        except msgspec.MsgspecError as error:
            _log.error("a stage snapshot can't be read and is ignored: %s", error)

    def _take_written(self, data: object) -> None:
        shard, _, seq = data.decode().partition(" ") if isinstance(data, bytes) else ("", "", "")
        if shard.isdecimal() and seq.isdecimal():
            self._written(int(shard), int(seq))

    async def _read_store(self) -> StageSnapshot | None:
        try:
            async with asyncio.timeout(STORE_ANSWER_S):
                snapshot = await self._ledger.snapshot()
        except (StoreUnreachable, TimeoutError) as error:
            _log.warning("stages can't be read: %s", error or "the control store is slow")
            return None
        self._apply(snapshot)
        return snapshot
