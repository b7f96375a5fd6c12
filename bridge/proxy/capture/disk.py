"""File work off the event loop: one thread, in order, bounded in number and time.

A disk that hangs keeps the thread for as long as it likes; whoever waits is told after DISK_S that
it has failed, and the process may end meanwhile.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from bridge.limits import DISK_S, DISK_WAITING_MAX

_T = TypeVar("_T")


class Disk:
    def __init__(self) -> None:
        self._work: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._work = queue.SimpleQueue()
        threading.Thread(target=self._run, name="captures", daemon=True).start()

    async def do(self, work: Callable[..., _T], *values: object) -> _T:
        """Raises what `work` raises, and TimeoutError, which is an OSError."""
        if self._work.qsize() >= DISK_WAITING_MAX:
            raise TimeoutError("the disk does not answer")
        future: Future[_T] = Future()
        self._work.put((future, partial(work, *values)))
        return await asyncio.wait_for(asyncio.wrap_future(future), DISK_S)

    def close(self) -> None:
        """What was asked for is still done."""
        self._work.put(None)

    def _run(self) -> None:
        while (asked := self._work.get()) is not None:
            future, work = asked
            if not future.set_running_or_notify_cancel():
                continue  # nobody waits any more
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
