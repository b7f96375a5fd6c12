"""The publisher's place in the tail: what has arrived and was not taken yet, bounded."""

from __future__ import annotations

import asyncio

from engine import limits
from engine.protocol import HEADER, TAIL, RejectCode
from engine.tail import TailFrame


class Follower:
    """An `engine.tail.Subscriber` that hands over frames."""

    def __init__(self) -> None:
        self.is_closing = False
        self.wake = asyncio.Event()
        self.arrived = asyncio.Event()  # set while there is something to take
        self.rejected: tuple[RejectCode, str] | None = None  # why nothing more will come
        self._frames: list[TailFrame] = []
        self._bytes = 0

    @property
    def is_writable(self) -> bool:
        return self._bytes < limits.FEED_BUFFER_BYTES_MAX

    def tail(self, head: bytes, events: bytes) -> None:
        first_seq, last_seq, ts_ns = TAIL.unpack_from(head, HEADER.size)
        self._frames.append(TailFrame(first_seq, last_seq, ts_ns, events))
        self._bytes += len(events) + limits.ITEM_BYTES
        self.arrived.set()

    def reject(self, code: RejectCode, reason: str) -> None:
        self.rejected = (code, reason)
        self.is_closing = True
        self.wake.set()
        self.arrived.set()

    def take(self) -> list[TailFrame]:
        """All that has arrived."""
        frames, self._frames = self._frames, []
        self._bytes = 0
        self.arrived.clear()
        if self.rejected is not None:
            self.arrived.set()
        self.wake.set()
        return frames

    def close(self) -> None:
        self.is_closing = True
        self.wake.set()
