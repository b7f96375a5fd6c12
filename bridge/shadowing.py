"""What the shadow process brings to the comparison: its slot, its snapshots, its rules."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Mapping, Sequence

from bridge.config import KnownDifference, LegacyConfig
from shadow.errors import ChangesLost, SlotMissing
from shadow.known import Rule
from shadow.legacy.changes import ChangeStream, create_slot, drop_slot
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping as LegacyMapping
from shadow.legacy.owners import owners_of
from shadow.legacy.snapshot import Snapshot, open_orders_at, write_mark
from shadow.limits import SLOT_BUSY_S
from shadow.verdict import Kind


class OwnSlot(ChangeStream):
    """Makes its slot when there is none, and again when the server has given it up.

    What a new slot does not have any more comes out as ChangesLost, as it must.
    """

    def __init__(
        self, legacy: LegacyConfig, mapping: LegacyMapping, scales: Mapping[str, Scale]
    ) -> None:
        super().__init__(legacy.database_url, legacy.slot, legacy.publication, mapping, scales)
        self._legacy = legacy

    async def open(self, expected_lsn: int = 0, *, busy_s: float = SLOT_BUSY_S) -> None:
        url, slot = self._legacy.database_url, self._legacy.slot
        try:
            await super().open(expected_lsn, busy_s=busy_s)
        except SlotMissing:
            await create_slot(url, slot)
        except ChangesLost as lost:
            if lost.slot_lsn:
                raise
            await drop_slot(url, slot)
            await create_slot(url, slot)
        else:
            return
        await super().open(expected_lsn, busy_s=busy_s)


class LegacySnapshots:
    """The monolith's open orders, and marks in its change stream; a connection for each."""

    def __init__(self, url: str, mapping: LegacyMapping, scales: Mapping[str, Scale]) -> None:
        self._url = url
        self._mapping = mapping
        self._scales = scales

    async def open_orders(self, symbols: Sequence[str]) -> Snapshot:
        return await open_orders_at(self._url, self._mapping, self._scales, symbols)

    async def owners(self, order_ids: Sequence[int]) -> dict[int, tuple[str, int]]:
        return await owners_of(self._url, self._mapping, order_ids)

    async def write_mark(self, mark_id: str) -> None:
        await write_mark(self._url, mark_id)


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
