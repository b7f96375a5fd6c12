"""What workers that died have left on the disk is brought to Redis, and their sequences are closed.

All of it may be done twice, by another process, if this one dies on the way: the same numbers come
again, and readers ignore them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from bridge.limits import ADOPT_S, TEE_BATCH_BYTES_MAX, TEE_BATCH_CAPTURES_MAX
from bridge.proxy.capture import ahead_log
from bridge.proxy.capture.batch import Batch, closing
from bridge.proxy.capture.disk import Disk
from bridge.proxy.capture.home import Home, abandoned
from bridge.proxy.capture.spool import Chunk, Spool
from shadow.capture import Capture

_log = logging.getLogger(__name__)

Send = Callable[[Chunk], Awaitable[bool]]


class _RedisAway(Exception):
    """Later, then."""


async def adopt(
    directory: Path,
    disk: Disk,
    send: Send,
    pause: Callable[[float], Awaitable[None]],
    stopping: asyncio.Event,
) -> None:
    """Now and then, until `stopping`. `pause` ends early then."""
    while not stopping.is_set():
        homes: list[Home] = []
        try:
            homes = await disk.do(abandoned, directory)
            for home in homes:
                await _adopt_one(home, disk, send, stopping)
        except _RedisAway:
            pass
        except OSError as error:
            _log.warning("captures that other workers have left in %s: %s", directory, error)
        finally:
            for home in homes:
                home.release()
        if not stopping.is_set():
            await pause(ADOPT_S)


async def _adopt_one(home: Home, disk: Disk, send: Send, stopping: asyncio.Event) -> None:
    """Raises OSError and _RedisAway."""

    async def ship(batches: list[Batch], damaged: int = 0) -> None:
        if stopping.is_set() or not await send(Chunk(batches, 0, damaged)):
            raise _RedisAway

    numbers = await disk.do(home.numbers)
    spool = await disk.do(Spool, home, 0)
    while (chunk := await disk.do(spool.oldest)) is not None:
        await ship(chunk.batches, chunk.damaged)
        for batch in chunk.batches:
            last = batch.first + batch.count - 1
            numbers[batch.worker] = max(numbers.get(batch.worker, 0), last)
        await disk.do(spool.pop, chunk)
    left = ahead_log.left_over(home)
    while (captures := await disk.do(next, left, None)) is not None:
        for batch in _lost(home.name, numbers.get(home.name, 0) + 1, captures):
            await ship([batch])
            numbers[home.name] = batch.first + batch.count - 1
    ends = [closing(worker, last) for worker, last in numbers.items() if last]
    if ends:
        await ship(ends)
        _log.warning("worker %s ended before its captures had arrived: they have now", home.name)
    await disk.do(home.remove)


def _lost(worker: str, first: int, captures: Sequence[bytes]) -> Iterator[Batch]:
    """Numbered as what comes after the last one that the worker had numbered itself."""
    pending: list[Capture] = []
    size = 0
    for data in captures:
        try:
            capture = msgspec.msgpack.decode(data, type=Capture)
        except msgspec.DecodeError:
            _log.warning("a request of worker %s on the disk can't be read", worker)
            continue
        number = first + len(pending)
        pending.append(msgspec.structs.replace(capture, worker=worker, number=number))
        size += len(data)
        if len(pending) >= TEE_BATCH_CAPTURES_MAX or size >= TEE_BATCH_BYTES_MAX:
            yield Batch(worker, first, len(pending), msgspec.msgpack.encode(pending))
            first, pending, size = first + len(pending), [], 0
    if pending:
        yield Batch(worker, first, len(pending), msgspec.msgpack.encode(pending))
