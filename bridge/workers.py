"""What the proxy workers say of themselves, and whether all of them hold and have drained."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from fnmatch import fnmatchcase

import msgspec
import redis.asyncio as redis
from redis.exceptions import RedisError

from bridge import limits
from bridge.stage import (
    WORKERS_CHANNEL,
    WORKERS_KEY_PREFIX,
    WORKERS_SEEN_PREFIX,
    WorkerReport,
    decode_report,
)

_EITHER_KEY = "railswitch:worker*:*"
assert all(fnmatchcase(one, _EITHER_KEY) for one in (WORKERS_KEY_PREFIX, WORKERS_SEEN_PREFIX))


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    report: WorkerReport
    age_s: float  # since it was made


class Workers:
    """Follows the channel, and reads the keys as well: a message may be lost, a key comes again."""

    def __init__(self, redis_url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._redis = redis.Redis.from_url(
            redis_url,
            socket_connect_timeout=limits.REDIS_ANSWER_S,
            socket_timeout=limits.REDIS_ANSWER_S,
        )
        self._clock = clock
        self._made_at_s: dict[str, float] = {}  # by our own clock
        self._reports: dict[str, WorkerReport] = {}
        self._lost: dict[str, WorkerReport] = {}  # last reports of those that fell silent
        self._changed = asyncio.Event()
        self.trouble = "Redis has not been asked yet"  # why they can't be heard; "" while they can

    async def close(self) -> None:
        await self._redis.aclose()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self._listen()
            except (RedisError, OSError) as error:
                self.trouble = f"Redis does not answer: {error}"
            except msgspec.MsgspecError as error:
                self.trouble = f"a worker's report can't be read: {error}"
            await asyncio.sleep(limits.WORKERS_RETRY_S)

    async def look(self) -> None:
        """Once, for whoever does not run it."""
        try:
            await self.read_keys()
        except (RedisError, OSError) as error:
            self.trouble = f"Redis does not answer: {error}"

    def heard(self) -> list[Heard]:
        """Of every worker that has not left, by name; however old."""
        now_s = self._clock()
        return [
            Heard(report=report, age_s=now_s - self._made_at_s[name])
            for name, report in sorted(self._reports.items())
        ]

    def shown(self) -> list[Heard]:
        """These and, for a while, the ones that have fallen silent and have not been replaced."""
        now_s = time.time()
        heard = self.heard()
        present = {(one.report.proxy, one.report.slot): one.report.at_s for one in heard}
        lost = [
            Heard(report=report, age_s=max(0.0, now_s - report.at_s))
            for name, report in self._lost.items()
            if name not in self._reports
            and present.get((report.proxy, report.slot), 0.0) < report.at_s
        ]
        return sorted([*heard, *lost], key=lambda one: one.report.worker)

    async def drained(self, symbol: str, flip_id: int, *, silence_s: float, wait_s: float) -> str:
        """Waits until every worker holds the instrument and has had its last answer; "" then, else
        what was still missing when the time was over."""
        deadline_s = self._clock() + wait_s
        while True:
            self._changed.clear()
            missing = undrained(self.heard(), symbol, flip_id, silence_s=silence_s)
            remaining_s = deadline_s - self._clock()
            if not missing or remaining_s <= 0:
                return missing
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining_s, limits.WORKERS_LOOK_S)):
                    await self._changed.wait()
            if not self._changed.is_set():
                with contextlib.suppress(RedisError, OSError):
                    await self.read_keys()

    async def read_keys(self) -> None:
        """Raises RedisError."""
        both = [key async for key in self._redis.scan_iter(match=_EITHER_KEY)]
        keys = [key for key in both if key.startswith(WORKERS_KEY_PREFIX.encode())]
        present = await self._read(keys)
        seen = await self._read([key for key in both if key not in keys])
        self._lost = {one.worker: one for one in seen}
        for report in present:
            self._take(report)
        gone = self._reports.keys() - {report.worker for report in present}
        for name in gone:
            # A new worker's first report may have come since the keys were listed.
            if self._clock() - self._made_at_s[name] > limits.WORKER_REPORT_S:
                del self._reports[name], self._made_at_s[name]
        self.trouble = ""

    async def _read(self, keys: list[bytes]) -> list[WorkerReport]:
        values = await self._redis.mget(keys) if keys else []
        return [decode_report(value) for value in values if isinstance(value, bytes)]

    async def _listen(self) -> None:
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(WORKERS_CHANNEL)
            looked_at_s = float("-inf")
            while True:
                if self._clock() - looked_at_s >= limits.WORKERS_READ_S:
                    await self.read_keys()
                    looked_at_s = self._clock()
                message = await subscription.get_message(
                    ignore_subscribe_messages=True, timeout=limits.WORKERS_READ_S
                )
                if message is not None:
                    self._take(decode_report(message["data"]))

    def _take(self, report: WorkerReport) -> None:
        known = self._reports.get(report.worker)
        if known is not None and known.at_s >= report.at_s:
            return
        # A first report may be an old one; from the second on our own clock tells its age.
        age_s = max(0.0, time.time() - report.at_s) if known is None else 0.0
        self._made_at_s[report.worker] = self._clock() - age_s
        self._reports[report.worker] = report
        self._changed.set()


def undrained(heard: list[Heard], symbol: str, flip_id: int, *, silence_s: float) -> str:
    """Which workers have not yet drained; "" when all have. A silent one counts as not drained."""
    waiting = [one.report.worker for one in heard if one.report.drained.get(symbol, 0) != flip_id]
    if not heard:
        return "no proxy worker has reported: see that `railswitch proxy` runs"
    if not waiting:
        return ""
    silent = silent_workers(heard, silence_s=silence_s)
    text = f"{len(waiting)} of {len(heard)} workers have not drained: {', '.join(waiting[:5])}"
    return f"{text}; silent: {', '.join(silent)}" if silent else text


def silent_workers(heard: list[Heard], *, silence_s: float) -> list[str]:
    return [
        f"{one.report.worker} (process {one.report.pid}, {one.age_s:.1f} s)"
        for one in heard
        if one.age_s > silence_s
    ]
