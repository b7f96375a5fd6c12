"""What reads the monolith's changes: one interface, whichever way it reads them.

`changes.ChangeStream` streams them from a replication slot, `polling.ChangePoll` asks a table that
a trigger fills. Both deliver whole transactions, again after every reconnect from where they were;
a consumer that stores `LegacyTransaction.end_lsn` in the same transaction as its effect, opens with
it, and confirms only what it has stored, sees each transaction exactly once in effect.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator

from msgspec import Struct

from shadow.errors import ChangesLost, LegacyUnavailable, ShadowError
from shadow.legacy.assemble import Ignored
from shadow.legacy.database import format_lsn
from shadow.limits import (
    INSPECT_S,
    RECONNECT_BACKOFF_S_MAX,
    RECONNECT_BACKOFF_S_MIN,
    SLOT_BUSY_RECONNECT_S,
    SLOT_BUSY_S,
    STATUS_S,
)
from shadow.operation import LegacyTransaction


class SourceStatus(Struct, frozen=True, kw_only=True):
    connected: bool
    received_lsn: int  # everything before it has come from the server
    delivered_lsn: int  # end of the newest transaction read
    confirmed_lsn: int
    backlog_changes: int  # read, and not yet taken by the consumer
    reconnects: int
    last_error: str  # why the newest reconnect was needed; "" for none
    rows_of_unknown_symbols: int
    rows_dropped: int  # of transactions that were too large: their instruments are told
    messages_ignored: int  # under our prefix, of no kind that we know
    retained_bytes: int  # that the server keeps for the slot, when it was looked at last


class Standing(Struct, frozen=True, kw_only=True):
    """How a slot stands with its server."""

    slot_lsn: int  # what committed after it can still be given
    end_lsn: int  # how far the server is
    retained_bytes: int  # kept on the monolith's disk for the slot


class Source(ABC):
    """One consumer of one slot. All of it on one event loop; positions are LSNs as integers, or
    grow as they do.
    """

    def __init__(self, slot: str, retained_bytes_max: int = 0) -> None:
        """`retained_bytes_max`: over it the slot is given up; 0: never."""
        self._slot = slot
        self._retained_bytes, self._retained_bytes_max = 0, retained_bytes_max
        self._backlog: deque[LegacyTransaction] = deque()
        self._backlog_changes = 0
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._is_open = False
        self._reader: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._failure: Exception | None = None
        self._ignored = Ignored()
        self._reconnects, self._last_error = 0, ""
        self._expected_lsn = 0  # what the slot may have confirmed without a loss
        self._received_lsn = self._delivered_lsn = self._taken_lsn = self._confirmed_lsn = 0

    async def open(self, expected_lsn: int = 0, *, busy_s: float = SLOT_BUSY_S) -> None:
        """Begins to read. `expected_lsn` is the consumer's watermark; 0 means it has none yet. A
        source that failed or was closed may be opened again.

        A slot that another process reads is waited for. Raises SlotMissing, SlotBusy,
        LegacyNotReady, LegacyUnavailable, and ChangesLost when the slot can't go on from the
        watermark: it was made again, something else has read it, or the database was set back.
        """
        await self.close()
        self._backlog.clear()
        self._backlog_changes, self._confirmed_lsn, self._failure = 0, 0, None
        self._expected_lsn = self._delivered_lsn = self._taken_lsn = expected_lsn
        await self._connect(busy_s)
        self._is_open = True
        self._reader = asyncio.create_task(self._keep_reading())
        self._watcher = asyncio.create_task(self._keep_watch())

    async def transactions(self) -> AsyncIterator[LegacyTransaction]:
        """Those that hold something of ours, whole, in order; ends after `close`.

        One without changes is a note of progress: until its `end_lsn` nothing happened that
        concerns us. It comes every few seconds while only other tables are written; store and
        confirm it like any other, so that the server can forget what it kept.

        Lost connections are reconnected for ever. Raises what only a person can mend: ChangesLost,
        SlotMissing, SlotBusy, LegacyNotReady.
        """
        while True:
            while self._backlog:
                transaction = self._backlog.popleft()
                self._backlog_changes -= _weight(transaction)
                self._room.set()
                self._taken_lsn = transaction.end_lsn
                yield transaction
            if self._failure is not None:
                raise self._failure
            if not self._is_open:
                return
            self._arrived.clear()
            await self._arrived.wait()

    def confirm(self, end_lsn: int) -> None:
        """Everything up to here is stored, and the server may forget it. Told to it soon."""
        if end_lsn > self._taken_lsn:
            raise ValueError(f"confirming {format_lsn(end_lsn)}, which has not been delivered")
        self._confirmed_lsn = max(self._confirmed_lsn, end_lsn)

    async def close(self) -> None:
        """Tells the server what was confirmed, and frees the slot."""
        self._is_open = False
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait({watcher})
        await self._stop_reading()
        self._arrived.set()

    def status(self) -> SourceStatus:
        return SourceStatus(
            connected=self._is_connected,
            received_lsn=self._received_lsn,
            delivered_lsn=self._delivered_lsn,
            confirmed_lsn=self._confirmed_lsn,
            backlog_changes=self._backlog_changes,
            reconnects=self._reconnects,
            last_error=self._last_error,
            rows_of_unknown_symbols=self._ignored.rows_of_unknown_symbols,
            rows_dropped=self._ignored.rows_dropped,
            messages_ignored=self._ignored.messages,
            retained_bytes=self._retained_bytes,
        )

    # --- one session, and the next one

    @property
    @abstractmethod
    def _is_connected(self) -> bool: ...

    @abstractmethod
    async def _connect(self, busy_s: float) -> None:
        """Begins a session. Raises what `open` raises."""

    @abstractmethod
    async def _read(self) -> None:
        """Until the session ends, with LegacyUnavailable."""

    @abstractmethod
    async def _end_session(self) -> None:
        """Also one that has not begun, or has ended."""

    @abstractmethod
    async def _inspect(self) -> Standing:
        """Whether reading can go on. Raises what `open` raises."""

    @abstractmethod
    async def _give_up_slot(self) -> None:
        """The server keeps nothing for it from now on."""

    async def _stop_reading(self) -> None:
        if self._reader is not None:
            self._reader.cancel()
            await asyncio.wait({self._reader})
            self._reader = None
        await self._end_session()

    async def _keep_watch(self) -> None:
        """A table that is published no more, or captured, sends nothing: that must not look like a
        quiet market. Nor may what is kept for us fill the monolith's disk.
        """
        while True:
            await asyncio.sleep(INSPECT_S)
            try:
                standing = await self._inspect()
            except LegacyUnavailable:
                continue  # the reading session notices that too, and mends it
            except ShadowError as error:
                await self._fail(error)
                return
            self._retained_bytes = standing.retained_bytes
            if 0 < self._retained_bytes_max < standing.retained_bytes:
                await self._give_up(standing)
                return

    async def _give_up(self, standing: Standing) -> None:
        """A slot that can't be dropped now is given up once the source has been opened again."""
        await self._stop_reading()
        try:
            await self._give_up_slot()
        except ShadowError as error:
            await self._fail(error)
        else:
            await self._fail(self._given_up(standing))

    async def _fail(self, error: ShadowError) -> None:
        await self._stop_reading()
        self._failure = error
        self._arrived.set()

    def _given_up(self, standing: Standing) -> ChangesLost:
        kept, most = standing.retained_bytes >> 20, self._retained_bytes_max >> 20
        return ChangesLost(
            f"the monolith's server kept {kept} MB for slot {self._slot}, more than"
            f" legacy.wal.retained_mb_max = {most}: the slot was dropped, so that its disk does not"
            " fill. All instruments are loaded again; find out why changes were not taken in time",
            slot_lsn=0,
        )

    async def _keep_reading(self) -> None:
        try:
            while True:
                if not self._is_connected:
                    await self._reconnect()
                try:
                    await self._read()
                except LegacyUnavailable as error:
                    self._last_error = str(error)
                await self._end_session()
        except Exception as error:
            self._failure = error
            await self._end_session()
        finally:
            self._arrived.set()

    async def _reconnect(self) -> None:
        backoff_s = RECONNECT_BACKOFF_S_MIN
        while True:
            try:
                await self._connect(SLOT_BUSY_RECONNECT_S)
            except LegacyUnavailable as error:
                self._last_error = str(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, RECONNECT_BACKOFF_S_MAX)
            else:
                self._reconnects += 1
                return

    # --- what was read

    def _require_nothing_lost(self, slot_lsn: int, end_lsn: int) -> None:
        """`slot_lsn`: from where the slot can give everything. `end_lsn`: how far the server is."""
        known = max(self._expected_lsn, self._confirmed_lsn)
        if known and slot_lsn > known:
            raise ChangesLost(
                f"replication slot {self._slot} begins at {format_lsn(slot_lsn)}, after"
                f" {format_lsn(known)}, up to where changes were read: it was made again, or"
                " something else reads it. What lies between is lost; load all instruments again",
                slot_lsn=slot_lsn,
            )
        if self._delivered_lsn > end_lsn:
            raise ChangesLost(
                f"the server is at {format_lsn(end_lsn)}, and changes were read up to"
                f" {format_lsn(self._delivered_lsn)}: it was set back, by a failover to a standby"
                " that had not got everything, or from a backup; load all instruments again",
                slot_lsn=0,
            )
        self._expected_lsn = max(self._expected_lsn, slot_lsn)

    def _deliver(self, transaction: LegacyTransaction) -> bool:
        """Into the backlog, if it is new."""
        if transaction.end_lsn <= self._delivered_lsn:
            return False
        self._delivered_lsn = transaction.end_lsn
        self._received_lsn = max(self._received_lsn, transaction.end_lsn)
        self._backlog.append(transaction)
        self._backlog_changes += _weight(transaction)
        self._arrived.set()
        return True

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout(STATUS_S):
                await self._room.wait()
        except TimeoutError:
            pass


def progress_note(lsn: int, at_us: int) -> LegacyTransaction:
    """Nothing that concerns us until there."""
    return LegacyTransaction(
        commit_lsn=lsn, end_lsn=lsn, xid=0, committed_at_us=at_us, ours=False, changes=()
    )


def _weight(transaction: LegacyTransaction) -> int:
    return max(1, len(transaction.changes))
