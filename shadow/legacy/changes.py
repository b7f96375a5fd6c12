"""The monolith's transactions in commit order, streamed from its replication slot.

The slot keeps everything after the last confirmed position, and gives it again after every
reconnect, ours or the server's. A `ChangeStream` leaves out what it has delivered since it was
opened, and what `expected_lsn` says the consumer has already; so a consumer that stores
`LegacyTransaction.end_lsn` in the same transaction as its effect, opens with it, and confirms only
what it has stored, sees each transaction exactly once in effect.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from collections.abc import Mapping as Scales

from msgspec import Struct

from shadow.errors import ChangesLost, LegacyUnavailable, SlotBusy
from shadow.legacy.assemble import MESSAGE_PREFIX, Assembler, Ignored
from shadow.legacy.convert import Scale
from shadow.legacy.database import format_lsn
from shadow.legacy.mapping import Mapping
from shadow.legacy.pgoutput import decode
from shadow.legacy.replication import Keepalive, Session
from shadow.legacy.slots import create_slot, drop_slot, require_ready
from shadow.limits import (
    BACKLOG_CHANGES_MAX,
    PING_S,
    PROGRESS_S,
    RECONNECT_BACKOFF_S_MAX,
    RECONNECT_BACKOFF_S_MIN,
    SILENCE_S,
    SLOT_BUSY_RECONNECT_S,
    SLOT_BUSY_S,
    STATUS_S,
    TURN_MESSAGES_MAX,
)
from shadow.operation import LegacyTransaction

__all__ = ["MESSAGE_PREFIX", "ChangeStream", "StreamStatus", "create_slot", "drop_slot"]


class StreamStatus(Struct, frozen=True, kw_only=True):
    connected: bool
    received_lsn: int  # the server has sent everything before it
    delivered_lsn: int  # end of the newest transaction read
    confirmed_lsn: int
    backlog_changes: int  # read, and not yet taken by the consumer
    reconnects: int
    last_error: str  # why the newest reconnect was needed; "" for none
    rows_of_unknown_symbols: int
    messages_ignored: int  # under our prefix, of no kind that we know


class ChangeStream:
    """One consumer of one slot. All of it on one event loop; positions are LSNs as integers."""

    def __init__(
        self, url: str, slot: str, publication: str, mapping: Mapping, scales: Scales[str, Scale]
    ) -> None:
        self._url, self._slot, self._publication = url, slot, publication
        self._mapping, self._scales = mapping, scales
        self._backlog: deque[LegacyTransaction] = deque()
        self._backlog_changes = 0
        self._arrived, self._room = asyncio.Event(), asyncio.Event()
        self._reader: asyncio.Task[None] | None = None
        self._session: Session | None = None
        self._failure: Exception | None = None
        self._ignored = Ignored()
        self._reconnects, self._last_error = 0, ""
        self._expected_lsn = 0  # what the slot may have confirmed without a loss
        self._received_lsn = self._delivered_lsn = self._taken_lsn = self._confirmed_lsn = 0

    async def open(self, expected_lsn: int = 0, *, busy_s: float = SLOT_BUSY_S) -> None:
        """Begins to read. `expected_lsn` is the consumer's watermark; 0 means it has none yet. A
        stream that failed or was closed may be opened again.

        A slot that another process reads is waited for. Raises SlotMissing, SlotBusy,
        LegacyNotReady, LegacyUnavailable, and ChangesLost when the slot begins after the watermark:
        it was made again, or something else has read it.
        """
        await self.close()
        self._backlog.clear()
        self._backlog_changes, self._confirmed_lsn, self._failure = 0, 0, None
        self._expected_lsn = self._delivered_lsn = self._taken_lsn = expected_lsn
        self._session = await self._connect(busy_s)
        self._reader = asyncio.create_task(self._read_on())

    async def transactions(self) -> AsyncIterator[LegacyTransaction]:
        """Those that hold something of ours, whole, in commit order; ends after `close`.

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
            if self._reader is None:
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
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.wait({reader})
            await self._end_session()
        self._arrived.set()

    def status(self) -> StreamStatus:
        return StreamStatus(
            connected=self._session is not None,
            received_lsn=self._received_lsn,
            delivered_lsn=self._delivered_lsn,
            confirmed_lsn=self._confirmed_lsn,
            backlog_changes=self._backlog_changes,
            reconnects=self._reconnects,
            last_error=self._last_error,
            rows_of_unknown_symbols=self._ignored.rows_of_unknown_symbols,
            messages_ignored=self._ignored.messages,
        )

    # --- the session, and the next one ---------------------------------------------------------

    async def _connect(self, busy_s: float) -> Session:
        clock = asyncio.get_running_loop().time
        deadline = clock() + busy_s
        while True:
            lsn = await require_ready(self._url, self._slot, self._publication, self._mapping)
            self._require_nothing_lost(lsn)
            try:
                return await Session.start(self._url, self._slot, self._publication)
            except SlotBusy:
                if clock() >= deadline:
                    raise
            await asyncio.sleep(RECONNECT_BACKOFF_S_MIN)

    def _require_nothing_lost(self, slot_lsn: int) -> None:
        known = max(self._expected_lsn, self._confirmed_lsn)
        if known and slot_lsn > known:
            raise ChangesLost(
                f"replication slot {self._slot} begins at {format_lsn(slot_lsn)}, after"
                f" {format_lsn(known)}, up to where changes were read: it was made again, or"
                " something else reads it. What lies between is lost; load all instruments again",
                slot_lsn=slot_lsn,
            )
        self._expected_lsn = max(self._expected_lsn, slot_lsn)

    async def _read_on(self) -> None:
        try:
            while True:
                if self._session is None:
                    self._session = await self._reconnect()
                try:
                    await self._read(self._session)
                except LegacyUnavailable as error:
                    self._last_error = str(error)
                await self._end_session()
        except Exception as error:
            self._failure = error
            await self._end_session()
        finally:
            self._arrived.set()

    async def _reconnect(self) -> Session:
        backoff_s = RECONNECT_BACKOFF_S_MIN
        while True:
            try:
                session = await self._connect(SLOT_BUSY_RECONNECT_S)
            except LegacyUnavailable as error:
                self._last_error = str(error)
                await asyncio.sleep(backoff_s)
                backoff_s = min(2 * backoff_s, RECONNECT_BACKOFF_S_MAX)
            else:
                self._reconnects += 1
                return session

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close(self._confirmed_lsn)

    async def _read(self, session: Session) -> None:
        """Until the session ends, with LegacyUnavailable."""
        assembler = Assembler(self._mapping, self._scales, ignored=self._ignored)
        clock = asyncio.get_running_loop().time
        pulse = _Pulse(clock())
        while True:
            if self._backlog_changes >= BACKLOG_CHANGES_MAX:
                pulse.beat(session, self._confirmed_lsn, clock(), heard=True)
                await self._wait_for_room()
                continue
            messages = session.take(TURN_MESSAGES_MAX)
            self._deliver(assembler, messages, pulse, clock())
            pulse.beat(session, self._confirmed_lsn, clock(), heard=bool(messages))
            if messages:
                await asyncio.sleep(0)
            else:
                await session.wait(STATUS_S)

    def _deliver(
        self,
        assembler: Assembler,
        messages: list[bytes | Keepalive],
        pulse: _Pulse,
        now: float,
    ) -> None:
        """Into the backlog what is new."""
        for message in messages:
            if isinstance(message, Keepalive):
                self._received_lsn = max(self._received_lsn, message.end_lsn)
                pulse.asked |= message.reply
                due = message.reply or now - pulse.delivered_at >= PROGRESS_S
                transaction = _progress(message) if due and not assembler.in_transaction else None
            else:
                transaction = assembler.feed(decode(message))
            if transaction is not None and transaction.end_lsn > self._delivered_lsn:
                self._delivered_lsn = transaction.end_lsn
                self._received_lsn = max(self._received_lsn, transaction.end_lsn)
                self._backlog.append(transaction)
                self._backlog_changes += _weight(transaction)
                pulse.delivered_at = now
                self._arrived.set()

    async def _wait_for_room(self) -> None:
        self._room.clear()
        try:
            async with asyncio.timeout(STATUS_S):
                await self._room.wait()
        except TimeoutError:
            pass


class _Pulse:
    """What one session owes the server, and the server us: when it was last paid."""

    def __init__(self, now: float) -> None:
        self.delivered_at = now  # anything, to the consumer
        self.asked = False  # the server wants to hear from us
        self._heard_at = self._pinged_at = self._reported_at = now
        self._reported_lsn = 0

    def beat(self, session: Session, confirmed_lsn: int, now: float, *, heard: bool) -> None:
        """Reports what is confirmed, if there is news or a sign of life is due."""
        ping = now - self._pinged_at >= PING_S
        # Not at once: a server that waits to go down asks again after every answer.
        rested = now - self._reported_at >= STATUS_S
        news = rested and (self.asked or confirmed_lsn != self._reported_lsn)
        if (ping or news) and session.report(confirmed_lsn, ping=ping):
            self.asked = False
            self._reported_at, self._reported_lsn = now, confirmed_lsn
            self._pinged_at = now if ping else self._pinged_at
        if heard:
            self._heard_at = now
        elif now - self._heard_at > SILENCE_S:
            raise LegacyUnavailable(f"no sign of life from the server for {SILENCE_S:g} s")


def _weight(transaction: LegacyTransaction) -> int:
    return max(1, len(transaction.changes))


def _progress(keepalive: Keepalive) -> LegacyTransaction:
    return LegacyTransaction(
        commit_lsn=keepalive.end_lsn,
        end_lsn=keepalive.end_lsn,
        xid=0,
        committed_at_us=keepalive.sent_at_us,
        ours=False,
        changes=(),
    )
