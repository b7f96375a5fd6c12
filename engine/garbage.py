"""Python's garbage collector, kept from running while orders wait.

It is off, and called in moments when nothing is on its way: often and shortly for what is young,
and for everything only when no order has come for a while.
"""

from __future__ import annotations

import gc
from types import TracebackType

from engine import limits


class GarbageWhenIdle:
    """A context; leaving it puts the collector back as it was."""

    def __init__(self) -> None:
        self._was_enabled = gc.isenabled()
        self._idle_s = 0.0

    def __enter__(self) -> GarbageWhenIdle:
        gc.collect()
        gc.freeze()  # what was made up to now stays for good: it need not be looked at again
        gc.disable()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()

    def moment(self) -> None:
        """Nothing is on its way just now. Cheap where there is little to collect."""
        if gc.get_count()[0] > limits.GARBAGE_YOUNG:
            gc.collect(0)

    def idle(self, elapsed_s: float) -> None:
        """Nothing has come for so long, after what earlier calls told."""
        before, self._idle_s = self._idle_s, self._idle_s + elapsed_s
        if before < limits.GARBAGE_IDLE_S <= self._idle_s:
            gc.collect()

    def busy(self) -> None:
        self._idle_s = 0.0
