"""A reference that comes again gets what its own order was told, and never what another was."""

from __future__ import annotations

import numpy as np
import pytest

from engine.outcomes import Outcome, Outcomes
from engine.reject import Reason
from engine.types import Command, CommandKind, Event, EventFlag, EventKind
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE, decode_events, encode_command, encode_event


def accepted(ref: int, order_id: int) -> bytes:
    return encode_event(
        Event(
            kind=EventKind.ACCEPTED,
            flags=EventFlag.LAST,
            instrument=1,
            seq=100 + ref,
            ref=ref,
            order_id=order_id,
        )
    )


def outcomes(*order_ids: int) -> Outcomes:
    """References from 1, one accepted order each, in one frame."""
    events = b"".join(accepted(ref, order_id) for ref, order_id in enumerate(order_ids, start=1))
    made = Outcomes()
    made.add(1, len(order_ids), Outcome(101, 5, events))
    return made


def again(held: Outcomes, *orders: tuple[int, int]) -> list[tuple[int, int, Reason]]:
    """(ref, order id) sent again: (seq, order id, reason) of what is answered."""
    data = b"".join(
        encode_command(Command(kind=CommandKind.NEW, instrument=1, ref=ref, order_id=order_id))
        for ref, order_id in orders
    )
    found = held.again(np.frombuffer(data, COMMAND_DTYPE))
    events = [event for outcome in found for event in decode_events(outcome.events)]
    return [(event.seq, event.order_id, event.reason) for event in events]


def test_the_same_order_gets_its_outcome_again() -> None:
    held = outcomes(7, 8)
    assert again(held, (1, 7), (2, 8)) == [(101, 7, Reason.NONE), (102, 8, Reason.NONE)]


def test_another_order_under_a_used_reference_is_not_told_of_the_first_one() -> None:
    held = outcomes(7, 8)
    assert again(held, (1, 7), (2, 9)) == [
        (101, 7, Reason.NONE),
        (0, 9, Reason.REF_NOT_INCREASING),
    ]


def test_only_what_was_asked_for_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """However much is held between the oldest and the newest of it."""
    held = Outcomes()
    for ref in range(1, 3_001):
        held.add(2 * ref, 2 * ref, Outcome(100 + ref, 5, accepted(2 * ref, ref)))
    looked_at: list[int] = []
    frombuffer = np.frombuffer

    def counted(data: bytes, dtype: np.dtype[np.void]) -> np.ndarray[tuple[int], np.dtype[np.void]]:
        if dtype == EVENT_DTYPE:
            looked_at.append(len(data))
        return frombuffer(data, dtype)

    monkeypatch.setattr(np, "frombuffer", counted)
    assert again(held, (2, 1), (2_000, 1_000), (2_001, 7), (6_000, 3_000)) == [
        (102, 1, Reason.NONE),
        (2_100, 1_000, Reason.NONE),
        (6_100, 3_000, Reason.NONE),
        (0, 7, Reason.REF_NOT_INCREASING),
    ]
    assert len(looked_at) == 3
