"""Ids as the engine's numbers."""

from __future__ import annotations

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Key


@given(st.lists(st.uuids(version=4), max_size=200, unique=True))
def test_uuids_become_different_positive_numbers_of_63_bits(ids: list[uuid.UUID]) -> None:
    numbers = {number_of(str(one), "uuid") for one in ids}
    assert len(numbers) == len(ids)
    assert all(0 < number < 2**63 for number in numbers)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**62 - 1), st.integers(0, 2**62 - 1))
def test_ids_of_one_millisecond_differ_by_their_random_part(at_ms: int, one: int, two: int) -> None:
    """Version 7: the time comes first, and is the same."""
    numbers = {
        number_of(str(uuid.UUID(int=at_ms << 80 | 7 << 76 | 2 << 62 | low)), "uuid")
        for low in (one, two)
    }
    assert len(numbers) == len({one, two})


@pytest.mark.parametrize("text", [None, "", "7", "0" * 36, "{" + str(uuid.UUID(int=9)) + "}"])
def test_what_is_no_uuid_has_no_number(text: str | None) -> None:
    assert number_of(text, Key(column="id", form="uuid")) == 0


@pytest.mark.parametrize(
    "text", [None, "", "-1", "1.0", "٣", str(uuid.UUID(int=9)), str(2**64), "1" * 30]
)
def test_what_is_no_integer_has_no_number(text: str | None) -> None:
    assert number_of(text, Key(column="id")) == 0
