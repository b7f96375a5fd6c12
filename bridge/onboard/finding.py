"""What `railswitch init` found out about one key of railswitch.toml, how sure it is, and why."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from bridge.undecided import DECIDE


class Confidence(StrEnum):
    CERTAIN = "certain"  # the database says it, or the rows prove it
    LIKELY = "likely"  # by its name and its type, and nothing seen speaks against it
    GUESS = "guess"  # not written: a person decides


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    key: str  # of railswitch.toml, dotted
    confidence: Confidence
    value: Any  # that is written; DECIDE for a guess
    why: str
    choices: tuple[str, ...] = ()  # of a guess, as TOML, the likeliest first

    @property
    def undecided(self) -> bool:
        return self.confidence is Confidence.GUESS


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Something of the schema and what it was taken for."""

    what: str  # orders, fills, instruments, accounts
    table: str  # "" when there is none, or several
    confidence: Confidence
    why: str


def certain(key: str, value: Any, why: str) -> Finding:
    return Finding(key=key, confidence=Confidence.CERTAIN, value=value, why=why)


def likely(key: str, value: Any, why: str) -> Finding:
    return Finding(key=key, confidence=Confidence.LIKELY, value=value, why=why)


def guess(key: str, why: str, *choices: str) -> Finding:
    return Finding(
        key=key, confidence=Confidence.GUESS, value=DECIDE, why=why, choices=tuple(choices)
    )
