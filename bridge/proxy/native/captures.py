"""The Rust plane's captures as a source for the shipper, and the orders that passed by it."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterator

import msgspec

from bridge import limits
from bridge.proxy import _core
from bridge.proxy.capture.batch import NONE, Batch
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.capture.tee import UNREADABLE
from bridge.proxy.desk.ids import KnownOrder, OrderIndex
from shadow.capture import Capture

_encode = msgspec.msgpack.Encoder().encode
_decode_one = msgspec.msgpack.Decoder(Capture).decode
_decode_all = msgspec.msgpack.Decoder(list[Capture]).decode


class NativeCaptures:
    """The plane's captures, as a source for the shipper."""

    def __init__(self, worker: str, redaction: Redaction | None) -> None:
        self.worker = worker
        self.wake = asyncio.Event()
        self.plane: _core.Plane | None = None
        self._redaction = redaction
        self._cleaned: deque[Batch] = deque()
        self._ours: Counter[str] = Counter()  # dropped on this side
        self._last: Counter[str] = Counter()
        self._captured = 0

    @property
    def captured(self) -> int:
        if self.plane is not None:
            self._captured = self.plane.captured
        return self._captured

    @property
    def dropped(self) -> Counter[str]:
        if self.plane is not None:
            theirs = Counter(self.plane.dropped())
            for reason, count in (theirs - self._last).items():
                self._ours[reason] += count
            self._last = theirs
        return self._ours

    def take(self) -> Batch | None:
        if self._cleaned:
            return self._cleaned.popleft()
        plane = self.plane
        if plane is None:
            return None
        taken = plane.take(limits.TEE_BATCH_CAPTURES_MAX, limits.TEE_BATCH_BYTES_MAX)
        if taken is None:
            return None
        first, count, data, ahead = taken
        batch = Batch(self.worker, first, count, data, ahead)
        if self._redaction is None:
            return batch
        self._cleaned.extend(self._clean(self._redaction, batch))
        return self.take()

    def cleaned(self, record: bytes) -> bytes | None:
        """A capture for the ahead log; None: it must not be kept."""
        if self._redaction is None:
            return record
        capture = self._redaction.redact_capture(_decode_one(record))
        return _encode(capture) if capture is not None else None

    def _clean(self, redaction: Redaction, batch: Batch) -> Iterator[Batch]:
        """What of it may be kept, in batches without a gap; none at all if it was nothing."""
        run: list[Capture] = []
        for capture in _decode_all(batch.data):
            cleaned = redaction.redact_capture(capture)
            if cleaned is None:
                self._ours[UNREADABLE] += 1
            if run and (cleaned is None or cleaned.number != run[-1].number + 1):
                yield Batch(self.worker, run[0].number, len(run), _encode(run))
                run = []
            if cleaned is not None:
                run.append(cleaned)
        # The ids in the ahead log are all done with the last of them, or with nothing.
        if run:
            yield Batch(self.worker, run[0].number, len(run), _encode(run), batch.ahead)
        elif batch.ahead:
            yield Batch(self.worker, batch.first + batch.count, 0, NONE, batch.ahead)


class NativeIndex(OrderIndex):
    """What passed by the plane is known there."""

    def __init__(self, captures: NativeCaptures) -> None:
        super().__init__()
        self._captures = captures

    def get(self, order_id: int) -> KnownOrder | None:
        known = super().get(order_id)
        plane = self._captures.plane
        if known is None and plane is not None and 0 < order_id < 2**63:
            found = plane.known(order_id)
            known = KnownOrder(*found) if found is not None else None
        return known
