"""The monolith's transactions in commit order, streamed from its replication slot.

The slot keeps everything after the last confirmed position, and gives it again after every
reconnect, ours or the server's; what has been delivered since the stream was opened is left out.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping as Scales

from shadow.errors import LegacyUnavailable, SlotBusy
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.assemble import MESSAGE_PREFIX, Assembler
from shadow.legacy.convert import Scale
from shadow.legacy.database import connected, translated
from shadow.legacy.mapping import Mapping
from shadow.legacy.pgoutput import decode
from shadow.legacy.publication import Published, note_published
from shadow.legacy.replication import Keepalive, Session
from shadow.legacy.slots import create_slot, drop_slot, require_ready
from shadow.legacy.source import Source, Standing, progress_note
from shadow.limits import (
    BACKLOG_CHANGES_MAX,
    PING_S,
    PROGRESS_S,
    RECONNECT_BACKOFF_S_MIN,
    SILENCE_S,
    STATUS_S,
    TURN_MESSAGES_MAX,
)

__all__ = ["MESSAGE_PREFIX", "ChangeStream", "create_slot", "drop_slot"]


class ChangeStream(Source):
    """Positions are those of the server's log."""

    def __init__(
        self,
        url: str,
        slot: str,
        publication: str,
        mapping: Mapping,
        scales: Scales[str, Scale],
        *,
        adapter: Adapted = PLAIN,
        retained_bytes_max: int = 0,
        published: Published | None = None,
    ) -> None:
        """`published`: shared with the streams that read the slot before, in this process."""
        super().__init__(slot, retained_bytes_max)
        self._url, self._publication = url, publication
        self._published = published or Published()
        self._mapping, self._scales, self._adapter = mapping, scales, adapter
        self._session: Session | None = None

    @property
    def _is_connected(self) -> bool:
        return self._session is not None

    async def _connect(self, busy_s: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + busy_s
        while True:
            standing = await self._inspect()
            self._require_nothing_lost(standing.slot_lsn, standing.end_lsn)
            try:
                self._session = await Session.start(self._url, self._slot, self._publication)
                return
            except SlotBusy:
                if clock() >= deadline:
                    raise
            await asyncio.sleep(RECONNECT_BACKOFF_S_MIN)

    async def _inspect(self) -> Standing:
        return await require_ready(
            self._url, self._slot, self._publication, self._mapping, self._published
        )

    async def _note_published(self) -> None:
        """The slot is made next."""
        async with connected(self._url) as connection:
            with translated(self._url, "looking at the publication in"):
                await note_published(connection, self._publication, self._mapping, self._published)

    async def _give_up_slot(self) -> None:
        await drop_slot(self._url, self._slot)

    async def _end_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close(self._confirmed_lsn)

    async def _read(self) -> None:
        session = self._session
        assert session is not None
        assembler = Assembler(
            self._mapping, self._scales, ignored=self._ignored, adapter=self._adapter
        )
        clock = asyncio.get_running_loop().time
        pulse = _Pulse(clock())
        while True:
            if self._backlog_changes >= BACKLOG_CHANGES_MAX:
                pulse.beat(session, self._confirmed_lsn, clock(), heard=True)
                await self._wait_for_room()
                continue
            messages = session.take(TURN_MESSAGES_MAX)
            self._take(assembler, messages, pulse, clock())
            pulse.beat(session, self._confirmed_lsn, clock(), heard=bool(messages))
            if messages:
                await asyncio.sleep(0)
            else:
                await session.wait(STATUS_S)

    def _take(
        self,
        assembler: Assembler,
        messages: list[bytes | Keepalive],
        pulse: _Pulse,
        now: float,
    ) -> None:
        for message in messages:
            if isinstance(message, Keepalive):
                self._received_lsn = max(self._received_lsn, message.end_lsn)
                pulse.asked |= message.reply
                due = message.reply or now - pulse.delivered_at >= PROGRESS_S
                if not due or assembler.in_transaction:
                    continue
                transaction = progress_note(message.end_lsn, message.sent_at_us)
            else:
                found = assembler.feed(decode(message))
                if found is None:
                    continue
                transaction = found
            if self._deliver(transaction):
                pulse.delivered_at = now


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
