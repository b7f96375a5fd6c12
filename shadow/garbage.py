"""Python's garbage collector, called seldom: what passes through the comparison has no cycles, and
each look at all that is held keeps commands waiting.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from shadow.limits import GARBAGE_THRESHOLDS


@contextmanager
def seldom_collected() -> Iterator[None]:
    """What was made before is not looked at; leaving it puts the collector back as it was."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
