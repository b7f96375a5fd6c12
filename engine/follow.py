"""The client's side of the tail: an iterator that goes on over reconnects without gap or repeat."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from engine import limits
from engine.endpoint import Endpoint
from engine.errors import Disconnected, EngineError
from engine.link import Link, connect, may_pass
from engine.protocol import SUBSCRIBE, TAIL, Login, MessageType, message


class TailBatch(NamedTuple):
    """Of one journal frame, or of its end where the tail began inside it.

    Command `seq` happened at ts_ns + 1000 * (seq - first_seq), on the sequencer's clock.
    """

    first_seq: int
    last_seq: int
    ts_ns: int
    events: bytes  # 80 bytes each (engine.wire)


class Follower:
    """One iteration of the tail, on a connection of its own that takes no session over."""

    def __init__(self, endpoint: Endpoint, *, name: str, key: str, from_seq: int) -> None:
        self._endpoint = endpoint
        self._login = Login(name=name, key=key, observe=True)
        self._next_seq = max(1, from_seq)
        self._batches: deque[TailBatch] = deque()
        self._bytes = 0  # of the batches that wait
        self._news = asyncio.Event()
        self._link: Link | None = None
        self._lost: EngineError | None = None
        self._is_closed = False

    def close(self) -> None:
        """Ends the iteration once what has been received is read."""
        self._is_closed = True
        self._news.set()
        if self._link is not None:
            self._link.close()

    async def batches(self) -> AsyncIterator[TailBatch]:
        """Raises LoginRefused, or Disconnected where the engine can't serve this tail."""
        try:
            while not self._is_closed:
                await self._connect()
                async for batch in self._received():
                    yield batch
        finally:
            self.close()

    async def _connect(self) -> None:
        backoff_s = limits.RECONNECT_S_MIN
        while not self._is_closed:
            self._batches.clear()
            self._bytes = 0
            self._lost = None
            self._expected = self._next_seq
            try:
                self._link = await connect(
                    self._endpoint, self._login, receive=self._receive, lost=self._on_lost
                )
            except EngineError as error:
                if not may_pass(error):
                    raise
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, limits.RECONNECT_S_MAX)
            else:
                wanted = SUBSCRIBE.pack(self._next_seq)
                self._link.write(message(MessageType.SUBSCRIBE, wanted))
                return

    async def _received(self) -> AsyncIterator[TailBatch]:
        """Until the connection is lost and everything that it brought has been read."""
        link = self._link
        while True:
            while self._batches:
                batch = self._batches.popleft()
                self._bytes -= len(batch.events)
                if link is not None and self._bytes <= limits.TAIL_AHEAD_BYTES_MAX // 2:
                    link.resume_reading()
                self._next_seq = batch.last_seq + 1
                yield batch
            if self._is_closed:
                return
            if self._lost is not None:
                if not may_pass(self._lost):
                    raise self._lost
                return
            self._news.clear()
            await self._news.wait()

    def _receive(self, kind: int, payload: memoryview) -> None:
        if kind != MessageType.TAIL:
            return
        first_seq, last_seq, ts_ns = TAIL.unpack_from(payload)
        if first_seq != self._expected:
            self._lost = Disconnected(
                f"the tail went on at sequence {first_seq} where {self._expected} had to follow"
            )
            self._news.set()
            return
        self._expected = last_seq + 1
        batch = TailBatch(first_seq, last_seq, ts_ns, bytes(payload[TAIL.size :]))
        self._batches.append(batch)
        self._bytes += len(batch.events)
        if self._bytes > limits.TAIL_AHEAD_BYTES_MAX and self._link is not None:
            self._link.pause_reading()
        self._news.set()

    def _on_lost(self, error: EngineError) -> None:
        self._lost = self._lost or error
        self._news.set()
