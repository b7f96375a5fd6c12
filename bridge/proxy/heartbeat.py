"""How a worker says that its loops turn, and how its master tells when it does not."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from bridge.limits import WORKER_BEAT_S

_BEAT = b"."


async def beat(pipe: int, is_turning: Callable[[], bool]) -> None:
    """Writes to the master until it is cancelled, and only while the data plane turns too. Never
    waits: a master that does not read is no reason to stand still.
    """
    os.set_blocking(pipe, False)
    while True:
        if is_turning():
            with contextlib.suppress(BlockingIOError, BrokenPipeError):
                os.write(pipe, _BEAT)
        await asyncio.sleep(WORKER_BEAT_S)


class Pulse:
    """Counts a worker's silence, and only while the master itself is awake: after a pause of the
    whole machine nobody has been silent.
    """

    def __init__(self) -> None:
        self.silent_s = 0.0

    def heard(self) -> None:
        self.silent_s = 0.0

    def awake(self, elapsed_s: float) -> None:
        """The master has looked around again after so long."""
        self.silent_s += min(elapsed_s, 2 * WORKER_BEAT_S)
