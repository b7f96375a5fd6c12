"""What the shadow process brings to the comparison: its slot, its snapshots, its rules."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence

from bridge.config import KnownDifference, LegacyConfig
from shadow.errors import ChangesLost, LegacyNotReady, LegacyUnavailable, SlotMissing
from shadow.known import Rule
from shadow.legacy import polling, polling_slots
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.changes import ChangeStream, create_slot, drop_slot
from shadow.legacy.convert import Scale
from shadow.legacy.database import format_lsn
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.owners import owners_of
from shadow.legacy.polling import ChangePoll
from shadow.legacy.publication import Published
from shadow.legacy.slots import wal_lsn
from shadow.legacy.snapshot import Snapshot, open_orders_at, write_mark
from shadow.legacy.source import Source
from shadow.legacy.symbols import resolved
from shadow.limits import RECONNECT_BACKOFF_S_MAX, SLOT_BUSY_S
from shadow.verdict import Kind

log = logging.getLogger(__name__)


async def patiently_resolved(
    url: str, mapping: LegacyMapping, stop: asyncio.Event
) -> LegacyMapping | None:
    """With the instruments of another table, as soon as the monolith's database gives them. None
    when `stop` was set first.
    """
    told = ""
    while not stop.is_set():
        try:
            return await resolved(url, mapping)
        except (LegacyUnavailable, LegacyNotReady) as error:
            if str(error) != told:
                told = str(error)
                log.warning("the shadow waits for the table of instruments: %s", told)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECONNECT_BACKOFF_S_MAX):
                    await stop.wait()
    return None


class OwnSlot(ChangeStream):
    """Makes its slot when there is none, and again when it can't go on.

    What a new slot does not have any more comes out as ChangesLost, as it must.
    """

    def __init__(
        self,
        legacy: LegacyConfig,
        mapping: LegacyMapping,
        scales: Mapping[str, Scale],
        adapter: Adapted = PLAIN,
        published: Published | None = None,
    ) -> None:
        names = (legacy.slot, legacy.publication)
        super().__init__(
            legacy.database_url,
            *names,
            mapping,
            scales,
            adapter=adapter,
            retained_bytes_max=legacy.wal.retained_mb_max << 20,
            published=published,
        )
        self._legacy = legacy

    async def open(self, expected_lsn: int = 0, *, busy_s: float = SLOT_BUSY_S) -> None:
        url, slot = self._legacy.database_url, self._legacy.slot
        try:
            await super().open(expected_lsn, busy_s=busy_s)
        except SlotMissing:
            await self._make(expected_lsn)
        except ChangesLost as lost:
            if lost.slot_lsn:
                raise
            await drop_slot(url, slot)
            await self._make(expected_lsn)
        else:
            return
        await super().open(expected_lsn, busy_s=busy_s)

    async def _make(self, expected_lsn: int) -> None:
        """A new slot must begin beyond what was read, so that it can't seem to go on from there."""
        url = self._legacy.database_url
        end_lsn = await wal_lsn(url)
        if end_lsn <= expected_lsn:
            raise LegacyUnavailable(
                f"the server's log ends at {format_lsn(end_lsn)}, and changes were read up to"
                f" {format_lsn(expected_lsn)}: it was set back, by a failover to a standby that had"
                " not got everything, or from a backup. Shadowing begins again once the log has"
                " passed that position; SELECT pg_switch_wal() moves it by up to 16 MB"
            )
        await self._note_published()
        await create_slot(url, self._legacy.slot)


class OwnPoll(ChangePoll):
    """The same of a reader that polls."""

    def __init__(
        self,
        legacy: LegacyConfig,
        mapping: LegacyMapping,
        scales: Mapping[str, Scale],
        adapter: Adapted = PLAIN,
    ) -> None:
        super().__init__(
            legacy.database_url,
            legacy.slot,
            mapping,
            scales,
            adapter=adapter,
            poll_s=legacy.poll_ms / 1000,
            retained_bytes_max=legacy.wal.retained_mb_max << 20,
        )
        self._legacy = legacy

    async def open(self, expected_lsn: int = 0, *, busy_s: float = SLOT_BUSY_S) -> None:
        url, slot = self._legacy.database_url, self._legacy.slot
        try:
            await super().open(expected_lsn, busy_s=busy_s)
            return
        except SlotMissing:
            pass
        except ChangesLost as lost:
            if lost.slot_lsn:
                raise
            await polling_slots.drop_slot(url, slot)
        await polling_slots.create_slot(url, slot, self._mapping, begin_lsn=expected_lsn + 1)
        await super().open(expected_lsn, busy_s=busy_s)


class LegacySnapshots:
    """The monolith's open orders, and marks in its change stream; a connection for each."""

    def __init__(
        self,
        url: str,
        mapping: LegacyMapping,
        scales: Mapping[str, Scale],
        adapter: Adapted = PLAIN,
    ) -> None:
        self._url = url
        self._mapping = mapping
        self._scales = scales
        self._adapter = adapter

    async def open_orders(
        self, symbols: Sequence[str], hold: Callable[[], None] = lambda: None
    ) -> Snapshot:
        return await open_orders_at(
            self._url, self._mapping, self._scales, symbols, adapter=self._adapter, hold=hold
        )

    async def owners(self, order_ids: Sequence[int]) -> dict[int, tuple[str, int]]:
        return await owners_of(self._url, self._mapping, order_ids)

    async def write_mark(self, mark_id: str) -> None:
        await write_mark(self._url, mark_id)


class PolledSnapshots(LegacySnapshots):
    """The same beside a reader that polls `slot`."""

    def __init__(
        self,
        url: str,
        slot: str,
        mapping: LegacyMapping,
        scales: Mapping[str, Scale],
        adapter: Adapted = PLAIN,
    ) -> None:
        super().__init__(url, mapping, scales, adapter)
        self._slot = slot

    async def open_orders(
        self, symbols: Sequence[str], hold: Callable[[], None] = lambda: None
    ) -> Snapshot:
        return await polling.open_orders_at(
            self._url,
            self._slot,
            self._mapping,
            self._scales,
            list(symbols),
            adapter=self._adapter,
            hold=hold,
        )

    async def write_mark(self, mark_id: str) -> None:
        await polling.write_mark(self._url, mark_id)


class Sources:
    """Of the monolith's changes and open orders, as `legacy.changes` says."""

    def __init__(
        self,
        legacy: LegacyConfig,
        mapping: LegacyMapping,
        scales: Mapping[str, Scale],
        adapter: Adapted = PLAIN,
    ) -> None:
        self._legacy = legacy
        self._all = mapping, scales, adapter
        self._published = Published()
        self._newest: Source | None = None
        self._told = ""

    def changes(self) -> Source:
        if self._legacy.changes == "poll":
            self._newest = OwnPoll(self._legacy, *self._all)
        else:
            self._newest = OwnSlot(self._legacy, *self._all, self._published)
        return self._newest

    def snapshots(self) -> LegacySnapshots:
        url = self._legacy.database_url
        if self._legacy.changes == "poll":
            return PolledSnapshots(url, self._legacy.slot, *self._all)
        return LegacySnapshots(url, *self._all)

    def warning(self) -> str:
        """Why no changes come, and that the monolith's server keeps much for us; "" for neither."""
        status = self._newest.status() if self._newest is not None else None
        away = status.last_error if status is not None and not status.connected else ""
        return "; ".join(filter(None, (away, self._kept())))

    def _kept(self) -> str:
        """Logged once."""
        warn_mb = self._legacy.wal.retained_mb_warn
        kept_mb = self._newest.status().retained_bytes >> 20 if self._newest is not None else 0
        if not 0 < warn_mb < kept_mb:
            self._told = ""
            return ""
        text = (
            f"the monolith's server keeps more than {warn_mb} MB for slot {self._legacy.slot}"
            " (legacy.wal.retained_mb_warn): changes are not taken in time"
        )
        if not self._told:
            log.warning("%s; it is %d MB now", text, kept_mb)
        self._told = text
        return f"{text}; it is {kept_mb} MB now"


def known_rules(declared: Iterable[KnownDifference]) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            id=one.id,
            symbols=one.symbols,
            kinds=tuple(Kind(kind) for kind in one.kinds),
            expires=datetime.date.fromisoformat(one.expires),
            hits_max=one.hits_max,
        )
        for one in declared
    )
