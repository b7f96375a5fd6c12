"""Marks: notes of ours that travel through the change stream, to know what has been read.

When a mark comes back, everything that had committed before it was written has been read. That
settles what captures alone say, and tells how far behind we are without comparing two clocks.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import OrderedDict
from collections.abc import Callable

from shadow.errors import ShadowError
from shadow.limits import MARK_S, MARKS_OUTSTANDING_MAX
from shadow.ports import Clock, Snapshots
from shadow.recorder import Recorder

log = logging.getLogger(__name__)


class Marks:
    def __init__(self, snapshots: Snapshots, clock: Clock, recorder: Recorder) -> None:
        self.generation = 0  # of the newest mark that may have been written
        self._snapshots = snapshots
        self._clock = clock
        self._recorder = recorder
        self._prefix = secrets.token_hex(8)  # those of an earlier process mean nothing to us
        self._outstanding: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._newest_lag_ns: int | None = None

    async def keep_writing(self, wanted: Callable[[], bool]) -> None:
        """Until it is cancelled, while `wanted`."""
        while True:
            if wanted() and len(self._outstanding) < MARKS_OUTSTANDING_MAX:
                await self.write()
            await asyncio.sleep(MARK_S)

    async def write(self) -> None:
        self.generation += 1
        mark_id = f"{self._prefix}-{self.generation}"
        self._outstanding[mark_id] = self.generation, self._clock.mono_ns()
        try:
            await self._snapshots.write_mark(mark_id)
        except ShadowError as error:
            self._outstanding.pop(mark_id, None)
            self._recorder.trouble["marks"] = str(error)
            log.warning("writing a mark: %s", error)
        else:
            self._recorder.trouble["marks"] = ""

    def came_back(self, mark_id: str) -> int:
        """Its generation; 0 for a mark that is not ours."""
        generation, written_ns = self._outstanding.pop(mark_id, (0, 0))
        if generation:
            self._newest_lag_ns = self._clock.mono_ns() - written_ns
            for older in [one for one, (n, _) in self._outstanding.items() if n < generation]:
                del self._outstanding[older]
        return generation

    def lag_ns(self) -> int | None:
        """From the writing of a mark to its return; None before the first."""
        if self._newest_lag_ns is None:
            return None
        if not self._outstanding:
            return self._newest_lag_ns
        _, written_ns = next(iter(self._outstanding.values()))
        # One that is on its way tells of us only once it is later than the newest one was.
        return max(self._newest_lag_ns, self._clock.mono_ns() - written_ns)
