"""Who may come in as what."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable

import msgspec

from engine import limits
from engine.types import Role


class EngineKey(msgspec.Struct, frozen=True, kw_only=True):
    role: Role
    key: str


class KeyRing:
    """Knows keys by their digests: how long a guess takes to be refused tells nothing about them,
    their lengths included.
    """

    def __init__(self, keys: Iterable[EngineKey]) -> None:
        self._digests = tuple((_digest(each.key), each.role) for each in keys if each.key)

    def role_of(self, key: str) -> Role | None:
        """Looks at every key for as long as at any other, whichever it is."""
        shown = _digest(key)
        found = None
        for digest, role in self._digests:
            if hmac.compare_digest(digest, shown):
                found = role
        return found


def name_problem(name: str) -> str:
    """Why a session can't be called so, or nothing."""
    if not name or not name.isprintable():
        return f"{name!r} is no session name: it must be printable and not empty"
    if len(name.encode()) > limits.SESSION_NAME_BYTES_MAX:
        return f"the session name is longer than {limits.SESSION_NAME_BYTES_MAX} bytes"
    return ""


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
