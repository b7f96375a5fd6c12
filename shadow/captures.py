"""The captures on their way from the proxies: read from the Redis stream, missing numbers found.

A worker numbers its captures without gaps, so whatever is lost on the way shows here: as a number
that was skipped, or as an entry that can't be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import redis.asyncio
import redis.exceptions

from shadow.capture import CAPTURE_STREAM, Capture, decode_batch
from shadow.errors import CapturesUnavailable
from shadow.limits import CAPTURE_WORKERS_MAX, REDIS_S
from shadow.ports import CaptureEntry


class Gap(NamedTuple):
    """Captures of a worker that will never come: numbers from `first` to `last`."""

    worker: str
    first: int
    last: int


class Batch(NamedTuple):
    captures: tuple[Capture, ...]
    gaps: tuple[Gap, ...]


class Sequences:
    """The next number of each worker; negative once it has closed its sequence. Pure."""

    def __init__(self, expected: Mapping[str, int]) -> None:
        self._next = dict(expected)

    def expected(self) -> dict[str, int]:
        return dict(self._next)

    def expected_of(self, worker: str) -> int:
        return self._next.get(worker, 1)

    def take(self, fields: Mapping[bytes, bytes]) -> Batch:
        """One stream entry. What was taken before is left out; an unreadable entry is a gap, or, if
        not even its numbers can be read, nothing: the next entry of its worker shows what is lost.
        """
        numbers = _numbers(fields)
        if numbers is None:
            return Batch((), ())
        worker, first, count = numbers
        known = self._next.pop(worker, 1)
        expected, end = abs(known), first + count
        closed = count == 0 or (known < 0 and end <= expected)
        self._next[worker] = -max(end, expected) if closed else max(end, expected)
        forget_oldest(self._next)  # the newest stands last
        gaps = [Gap(worker, expected, first - 1)] if first > expected else []
        captures = _captures(fields, worker, first)
        if captures is None:
            if count and end > expected:
                gaps.append(Gap(worker, max(first, expected), end - 1))
            return Batch((), tuple(gaps))
        return Batch(tuple(one for one in captures if one.number >= expected), tuple(gaps))

    def learn(self, fields: Mapping[bytes, bytes]) -> None:
        """From an entry of before the beginning, newest first: where its worker stands."""
        numbers = _numbers(fields)
        if numbers is not None:
            worker, first, count = numbers
            self._next.setdefault(worker, first + count if count else -first)


def forget_oldest(expected: dict[str, int]) -> None:
    """Keeps the numbers of so many workers as there is room for. A closed sequence goes first, but
    not at once: its last entries may come twice, and must not look like a new worker's.
    """
    while len(expected) > CAPTURE_WORKERS_MAX:
        closed = (worker for worker, number in expected.items() if number < 0)
        del expected[next(closed, next(iter(expected)))]


def _numbers(fields: Mapping[bytes, bytes]) -> tuple[str, int, int] | None:
    """Worker, number of the first capture, how many; None: they make no sense."""
    try:
        worker, first = fields[b"worker"].decode(), int(fields[b"first"])
        count = int(fields[b"count"])
    except (KeyError, ValueError):
        return None
    return (worker, first, count) if first >= 1 and count >= 0 else None


def _captures(fields: Mapping[bytes, bytes], worker: str, first: int) -> list[Capture] | None:
    try:
        captures = decode_batch(fields)
    except (KeyError, msgspec.DecodeError):
        return None
    honest = all(
        one.worker == worker and one.number == number
        for number, one in enumerate(captures, start=first)
    )
    return captures if honest and len(captures) == int(fields[b"count"]) else None


class RedisCaptures:
    """The stream that the proxies write."""

    def __init__(self, url: str, stream: str = CAPTURE_STREAM) -> None:
        self._url = url
        self._stream = stream
        # redis-py's types allow for every protocol and every decoding: ours is bytes.
        self._redis: Any = redis.asyncio.Redis.from_url(
            url, socket_timeout=REDIS_S, socket_connect_timeout=REDIS_S
        )

    async def newest(self, count: int) -> list[CaptureEntry]:
        try:
            rows = await self._redis.xrevrange(self._stream, count=count)
        except (redis.exceptions.RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return [CaptureEntry(id_.decode(), fields) for id_, fields in rows]

    async def read(self, after: str, count: int, block_ms: int) -> list[CaptureEntry]:
        try:
            streams = await self._redis.xread({self._stream: after}, count=count, block=block_ms)
        except (redis.exceptions.RedisError, OSError) as error:
            raise self._unavailable(error) from error
        return [CaptureEntry(id_.decode(), fields) for _, rows in streams for id_, fields in rows]

    async def close(self) -> None:
        await self._redis.aclose()

    def _unavailable(self, error: Exception) -> CapturesUnavailable:
        where = self._url.rpartition("@")[2]
        return CapturesUnavailable(
            f"captures can't be read from Redis at {where}: {error}; operations wait for them"
        )
