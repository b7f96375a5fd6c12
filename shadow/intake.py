"""Transactions on their way from the change stream to the loop that applies them: bounded, whatever
their size, and read on after every failure.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from shadow.errors import ChangesLost, ShadowError
from shadow.limits import CHANGES_WAITING_MAX, LOSSES_AT_ONCE_MAX, RECONNECT_BACKOFF_S_MAX
from shadow.operation import LegacyTransaction, Marker
from shadow.ports import Changes
from shadow.recorder import Recorder

log = logging.getLogger(__name__)

Arrived = LegacyTransaction | ChangesLost


class Intake:
    def __init__(
        self,
        *,
        changes: Callable[[], Changes],
        recorder: Recorder,
        news: Callable[[], None],
        marker_came: Callable[[], None],
    ) -> None:
        """`marker_came` is called as soon as a fence marker is here, long before it is applied."""
        self._changes = changes
        self._recorder = recorder
        self._news = news
        self._marker_came = marker_came
        self._waiting: deque[Arrived] = deque()
        self._weight = 0  # changes that wait, and one for each transaction
        self._room = asyncio.Event()
        # From here on the slot keeps what commits: before, no snapshot has a stream to go on from.
        self.has_begun = False

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def take(self) -> Arrived:
        """The oldest."""
        arrived = self._waiting.popleft()
        self._weight -= _weight(arrived)
        self._room.set()
        return arrived

    async def keep_reading(self, read_lsn: int) -> None:
        """From behind `read_lsn`, until it is cancelled. A stream that failed is made anew."""
        losses = 0  # since something was read
        while True:
            stream = self._changes()
            try:
                await stream.open(read_lsn)
                self.has_begun = True
                self._news()
                self._recorder.on_recorded = stream.confirm
                self._recorder.trouble["changes"] = ""
                async for tx in stream.transactions():
                    read_lsn, losses = tx.end_lsn, 0
                    await self._receive(tx)
            except ChangesLost as error:
                self.has_begun = False  # the next slot is made when the stream is opened again
                log.error("%s", error)
                # What was read stays read: a server that was set back must come past it first.
                read_lsn = error.slot_lsn or read_lsn
                await self._receive(error)
                losses += 1
                if losses > LOSSES_AT_ONCE_MAX:
                    self._recorder.trouble["changes"] = str(error)
                    await asyncio.sleep(RECONNECT_BACKOFF_S_MAX)
            except ShadowError as error:
                log.warning("reading changes: %s", error)
                self._recorder.trouble["changes"] = str(error)
                await asyncio.sleep(RECONNECT_BACKOFF_S_MAX)
            finally:
                self._recorder.on_recorded = lambda lsn: None
                await stream.close()

    async def _receive(self, arrived: Arrived) -> None:
        while self._weight >= CHANGES_WAITING_MAX:
            self._room.clear()
            await self._room.wait()
        self._waiting.append(arrived)
        self._weight += _weight(arrived)
        self._news()
        if isinstance(arrived, LegacyTransaction):
            for change in arrived.changes:
                if isinstance(change, Marker):
                    self._marker_came()
                    break


def _weight(arrived: Arrived) -> int:
    return 1 + len(arrived.changes) if isinstance(arrived, LegacyTransaction) else 1
