"""Captures in the form in which they travel, and what gives them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Protocol

import msgspec

NONE = msgspec.msgpack.encode([])  # the captures of a batch that has none


class Batch(msgspec.Struct, frozen=True):
    """Consecutive numbers of one worker; with `count` 0 the end of its sequence."""

    worker: str
    first: int
    count: int
    data: bytes  # MessagePack array of Capture
    ahead: bytes = b""  # u64 LE: their ids in the ahead log, of those that are in it


class Source(Protocol):
    """A plane: numbers its captures and keeps them, bounded, until they are taken."""

    worker: str
    wake: asyncio.Event  # set when there is something to take

    @property
    def captured(self) -> int:
        """Numbers used up: kept or not."""

    @property
    def dropped(self) -> Counter[str]:
        """By reason; the shipper adds its own."""

    def take(self) -> Batch | None: ...


def closing(worker: str, last: int) -> Batch:
    """Says that `last` was the last number of this worker."""
    return Batch(worker, last + 1, 0, NONE)
