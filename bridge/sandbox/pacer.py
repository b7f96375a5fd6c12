"""Says when the next request is due: at random moments, so many per second on average."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from random import Random


class Pacer:
    """A thread of its own: an event loop's timers are a millisecond coarse, and it would show."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        due: Callable[[list[int]], None],
        rate_per_s: float,
        chance: Random,
    ) -> None:
        """`due` is called in the loop with scheduled times (monotonic ns), oldest first."""
        self.rate_per_s = rate_per_s
        self._loop = loop
        self._due = due
        self._chance = chance
        self._going = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load-pacer", daemon=True)

    def start(self) -> None:
        self._going.set()
        self._thread.start()

    def pause(self) -> None:
        self._going.clear()

    def resume(self) -> None:
        """What would have been due meanwhile is not made up for."""
        self._going.set()

    def end(self) -> None:
        """Blocks for as long as the thread needs to notice: less than a millisecond."""
        self._ended.set()
        self._going.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._going.wait()
            next_s = time.monotonic()
            while self._going.is_set():
                if self._ended.wait(max(0.0, next_s - time.monotonic())):
                    return
                now_s = time.monotonic()
                scheduled = []
                while next_s <= now_s:
                    scheduled.append(int(next_s * 1e9))
                    next_s += self._chance.expovariate(self.rate_per_s)
                if scheduled and self._going.is_set():
                    self._loop.call_soon_threadsafe(self._due, scheduled)
