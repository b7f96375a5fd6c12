"""Captures of the asyncio plane, and on both planes of requests of our own: numbered, bounded, and
never in a client's way.

Whatever can't be kept is dropped and counted by its reason. Its number is used up all the same, so
that whoever reads the stream sees the gap.
"""

from __future__ import annotations

import asyncio
import struct
from collections import Counter, deque
from typing import TYPE_CHECKING

import msgspec

from bridge.limits import (
    TEE_BATCH_BYTES_MAX,
    TEE_BATCH_CAPTURES_MAX,
    TEE_BYTES_MAX,
    TEE_CAPTURES_MAX,
)
from bridge.proxy.capture.batch import Batch
from bridge.proxy.capture.home import NumberFile
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.plane.exchange import Exchange
from shadow.capture import Capture, Outcome

if TYPE_CHECKING:
    from bridge.proxy.capture.ahead import Ahead

# Reasons of drops; the shipper has more.
REQUEST_TOO_LARGE = "request-too-large"
ANSWER_TOO_LARGE = "answer-too-large"
QUEUE_FULL = "queue-full"
UNREADABLE = "unreadable"
DEFECT = "defect"

_encode = msgspec.msgpack.Encoder().encode


class Tee:
    """One source of captures of a worker."""

    def __init__(
        self,
        worker: str,
        *,
        numbers: NumberFile | None = None,
        redaction: Redaction | None = None,
        ahead: Ahead | None = None,
    ) -> None:
        self.worker = worker
        self.captured = 0  # numbers used up: kept or not
        self.dropped: Counter[str] = Counter()
        self.wake = asyncio.Event()
        self._numbers = numbers
        self._redaction = redaction
        self._ahead = ahead
        self._queue: deque[tuple[Capture, int]] = deque()  # with their ids in the ahead log, or 0
        self._bytes = 0

    def offer(self, exchange: Exchange, outcome: Outcome) -> None:
        """Takes the next number for this exchange, and keeps it if there is room. Never waits."""
        self.captured += 1
        is_kept = False
        try:
            if self._numbers is not None:
                self._numbers.set(self.captured)
            is_kept = self._keep(exchange, outcome)
        finally:
            if not is_kept and self._ahead is not None:
                self._ahead.forget(exchange)

    def take(self) -> Batch | None:
        """Consecutive numbers only: a gap ends a batch."""
        if not self._queue:
            return None
        captures: list[Capture] = []
        ids: list[int] = []
        size = 0
        while self._queue and len(captures) < TEE_BATCH_CAPTURES_MAX and size < TEE_BATCH_BYTES_MAX:
            capture, id_ = self._queue[0]
            if captures and capture.number != captures[-1].number + 1:
                break
            self._queue.popleft()
            captures.append(capture)
            size += _size(capture)
            if id_:
                ids.append(id_)
        self._bytes -= size
        data = _encode(captures)
        ahead = struct.pack(f"<{len(ids)}Q", *ids) if ids else b""
        return Batch(self.worker, captures[0].number, len(captures), data, ahead)

    def _keep(self, exchange: Exchange, outcome: Outcome) -> bool:
        if exchange.body is None:
            self.dropped[REQUEST_TOO_LARGE] += 1
            return False
        if exchange.response_body is None:
            self.dropped[ANSWER_TOO_LARGE] += 1
            return False
        if len(self._queue) >= TEE_CAPTURES_MAX or self._bytes >= TEE_BYTES_MAX:
            self.dropped[QUEUE_FULL] += 1
            return False
        capture: Capture | None = exchange.capture(self.worker, self.captured, outcome)
        if capture is not None and self._redaction is not None:
            capture = self._redaction.redact_capture(capture)
        if capture is None:
            self.dropped[UNREADABLE] += 1
            return False
        size = _size(capture)
        self._queue.append((capture, exchange.ahead_id))
        self._bytes += size
        if not self.wake.is_set():
            self.wake.set()
        return True


def _size(capture: Capture) -> int:
    """About what it takes in memory and on the stream."""
    return 512 + len(capture.request_body) + len(capture.response_body) + len(capture.target)
