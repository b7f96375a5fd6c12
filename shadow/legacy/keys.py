"""Ids of the monolith as the engine knows them: unsigned 64-bit numbers. Pure.

An integer is itself. A UUID is folded to 63 of its bits: its two halves, combined by exclusive or.
That a number stands for two of n UUIDs has a chance of about n²/2⁶³ when they are random in at
least 62 bits, as those of versions 4 and 7 are: one in 90,000 for ten million orders. Such a pair
would show as a mismatch, never as a match that is none. The number does not lead back to the UUID:
what must write rows or find them by id can't work with it.
"""

from __future__ import annotations

import re
from typing import Literal

from shadow.legacy.mapping import Key
from shadow.limits import ID_MAX

Form = Literal["integer", "uuid"]

_UUID = re.compile(
    "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE
)
_HALF = 2**64 - 1
_FOLDED = 2**63 - 1


def number_of(text: str | None, key: Key | Form) -> int:
    """0 for what is no id of this form.

    >>> number_of("42", "integer"), number_of("00000000-0000-0001-0000-000000000003", "uuid")
    (42, 2)
    """
    if (key if isinstance(key, str) else key.form) == "integer":
        return id_or_zero(text)
    if text is None or not _UUID.fullmatch(text):
        return 0
    whole = int(text.replace("-", ""), 16)
    return (whole >> 64 ^ whole & _HALF) & _FOLDED


def id_or_zero(text: str | None) -> int:
    """An integer id, or 0 for what is none."""
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 20:
        return 0
    number = int(text)
    return number if number <= ID_MAX else 0
