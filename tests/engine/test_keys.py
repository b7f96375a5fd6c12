"""Which key is whose, and what a session may be called."""

from __future__ import annotations

import hmac

import pytest

from engine.keys import EngineKey, KeyRing, name_problem
from engine.types import Role

RING = KeyRing(
    [
        EngineKey(role=Role.TRADE, key="trade"),
        EngineKey(role=Role.ADMIN, key="schlüssel"),
        EngineKey(role=Role.READ_ONLY, key=""),
    ]
)


@pytest.mark.parametrize(
    ("key", "role"),
    [
        ("trade", Role.TRADE),
        ("schlüssel", Role.ADMIN),
        ("trad", None),
        ("trade ", None),
        ("TRADE", None),
        ("", None),  # nor where a configured one is empty
    ],
)
def test_a_key_is_its_role_s_and_no_other_is(key: str, role: Role | None) -> None:
    assert RING.role_of(key) is role


def test_every_key_is_compared_and_all_at_one_length(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever fits, and however long the guess is."""
    compared: list[tuple[int, int]] = []

    def watched(one: bytes, other: bytes) -> bool:
        compared.append((len(one), len(other)))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", watched)
    for guess in ("trade", "schlüssel", "x", "x" * 4_000):
        RING.role_of(guess)
    assert compared == [(32, 32)] * 8


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("proxy-0", ""),
        ("büro 7", ""),
        ("n" * 32, ""),
        ("n" * 33, "longer than 32 bytes"),
        ("ü" * 17, "longer than 32 bytes"),
        ("", "not empty"),
        ("a\0b", "printable"),
    ],
)
def test_names_are_printable_and_fit_their_field(name: str, problem: str) -> None:
    found = name_problem(name)
    assert problem in found
    assert bool(found) == bool(problem)
