"""One result of one check."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Level(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, or will; worth knowing
    FAIL = "fail"  # something will not work


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    area: str  # legacy, control store, redis, engine, ports, upstream, data directory
    check: str
    level: Level
    seen: str
    consequence: str = ""  # "" when ok
    next_step: str = ""  # "" when ok


class Area:
    """Makes the findings of one area."""

    def __init__(self, name: str) -> None:
        self.name = name

    def ok(self, check: str, seen: str) -> Finding:
        return Finding(area=self.name, check=check, level=Level.OK, seen=seen)

    def warn(self, check: str, seen: str, consequence: str, next_step: str) -> Finding:
        return self._bad(Level.WARN, check, seen, consequence, next_step)

    def fail(self, check: str, seen: str, consequence: str, next_step: str) -> Finding:
        return self._bad(Level.FAIL, check, seen, consequence, next_step)

    def judge(self, good: bool, check: str, seen: str, consequence: str, next_step: str) -> Finding:
        """ok, or else fail."""
        if good:
            return self.ok(check, seen)
        return self.fail(check, seen, consequence, next_step)

    def _bad(
        self, level: Level, check: str, seen: str, consequence: str, next_step: str
    ) -> Finding:
        return Finding(
            area=self.name,
            check=check,
            level=level,
            seen=seen,
            consequence=consequence,
            next_step=next_step,
        )
