"""The zone of times without one, by how far the newest of them is from now. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from bridge.onboard.finding import Finding, guess, likely
from bridge.onboard.seen import Table
from shadow.legacy.times import timestamp_us

_HALF_HOUR_US = 1_800_000_000
_FRESH_US = 600_000_000  # nearer to now than any other zone could bring it


def in_zone(finding: Finding, table: Table, now_us: int) -> Finding:
    """The finding of a time's column, with what its newest value says."""
    column = table.column(finding.value) if isinstance(finding.value, str) else None
    if column is None or column.kind != "timestamp" or not now_us:
        return finding
    newest = max(_times(table, column.name), default=None)
    if newest is None:
        return finding
    ahead_us = newest - now_us
    if abs(ahead_us) <= _FRESH_US:
        why = (
            f"by its name; without a zone: as UTC the newest is {abs(ahead_us) // 1_000_000} s old"
        )
        return likely(finding.key, finding.value, why)
    if ahead_us < _HALF_HOUR_US:
        return finding
    hours = f"{round(ahead_us / _HALF_HOUR_US) / 2:g}"
    why = f"as UTC the newest of {column.name} would be {hours} h ahead of the database's clock"
    shown = f'{{ column = "{column.name}", zone = "Europe/Berlin" }}'
    return guess(finding.key, f"{why}: in which zone is it?", shown)


def _times(table: Table, name: str) -> Iterator[int]:
    for row in table.sample.newest:
        with contextlib.suppress(ValueError, OverflowError):
            yield timestamp_us(row.get(name) or "")
