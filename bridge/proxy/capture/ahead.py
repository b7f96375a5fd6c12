"""Orders that go to the monolith only once their request is on the disk: the asyncio plane's way of
using the ahead log. A disk that is slow costs an order its budget, and never more.
"""

from __future__ import annotations

import asyncio
import logging
import struct
import time
from collections.abc import Callable

import msgspec

from bridge.proxy.capture.ahead_log import AheadLog, frame
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.plane.exchange import Exchange
from shadow.capture import Outcome

_log = logging.getLogger(__name__)
_encode = msgspec.msgpack.Encoder().encode

Release = Callable[[Exchange], None]


class Ahead:
    def __init__(
        self, log: AheadLog, worker: str, *, budget_s: float, redaction: Redaction | None = None
    ) -> None:
        self.late = 0  # orders released before they were durable
        self._log = log
        self._worker = worker
        self._budget_s = budget_s
        self._redaction = redaction
        self._loop = asyncio.get_running_loop()
        self._last_id = 0
        self._held: dict[Exchange, tuple[Release, asyncio.TimerHandle]] = {}

    def hold(self, exchange: Exchange, release: Release) -> None:
        """Its body is complete. `release` is called once, soon, unless its client has gone."""
        framed = b""
        try:
            framed = self._record(exchange)
        except Exception:  # whatever is wrong in here is not the client's business
            self._log.failed += 1
            _log.exception("an order could not be written ahead")
        if not framed:
            release(exchange)
            return
        exchange.ahead_id = self._last_id
        timer = self._loop.call_later(self._budget_s, self._over_budget, exchange)
        self._held[exchange] = (release, timer)
        self._log.append(
            framed, (self._last_id,), lambda is_durable: self._settled(exchange, is_durable)
        )

    def forget(self, exchange: Exchange) -> None:
        """It will have no capture, or has been counted as dropped."""
        if exchange.ahead_id:
            self._log.done(struct.pack("<Q", exchange.ahead_id))
            exchange.ahead_id = 0

    def _record(self, exchange: Exchange) -> bytes:
        """Empty: it can't be captured at all, which will be counted when it ends."""
        if exchange.body is None:
            return b""
        whole = exchange.capture(self._worker, self._last_id + 1, Outcome.WORKER_LOST)
        now = {"sent_mono_ns": time.monotonic_ns(), "sent_at_ns": time.time_ns()}
        capture = msgspec.structs.replace(whole, **now)
        cleaned = self._redaction.redact_capture(capture) if self._redaction else capture
        if cleaned is None:
            return b""
        self._last_id += 1
        return frame(self._last_id, _encode(cleaned))

    def _settled(self, exchange: Exchange, is_durable: bool) -> None:
        if not is_durable:
            exchange.ahead_id = 0
        self._release(exchange)

    def _over_budget(self, exchange: Exchange) -> None:
        self.late += 1
        self._release(exchange)

    def _release(self, exchange: Exchange) -> None:
        held = self._held.pop(exchange, None)
        if held is None:
            return  # long released
        release, timer = held
        timer.cancel()
        if exchange.client is None or exchange.refused:
            self.forget(exchange)  # it never went to the monolith
        else:
            release(exchange)
