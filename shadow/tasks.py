"""Ending tasks for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from shadow.limits import CANCEL_AGAIN_S

T = TypeVar("T")


async def cancelled(tasks: Sequence[asyncio.Future[Any]]) -> None:
    """Returns when all have ended; how they did does not matter.

    Asks again: a driver that gets its answer in the same turn may take the asking for that.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_S)
    await asyncio.gather(*tasks, return_exceptions=True)


async def unless(stopping: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None when `stopping` was done first."""
    task = asyncio.ensure_future(work)
    await asyncio.wait([stopping, task], return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        return task.result()
    await cancelled([task])
    return None
