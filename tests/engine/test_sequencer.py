"""Frames out of what arrived: order, references, times; and outcomes of what is sent again."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
import pytest
from market_driver import define, new, set_mode

from engine import limits
from engine.frame import FRAME_HEADER_BYTES
from engine.market import create_market
from engine.outcomes import Outcome, Outcomes, Rows
from engine.reject import Reason
from engine.sequencer import Batch, Draft, Entry, Sequencer
from engine.snapshot import SessionState
from engine.types import Command, Event, EventKind, Mode, Role
from engine.wire import (
    COMMAND_DTYPE,
    decode_commands,
    decode_events,
    encode_commands,
    encode_event,
)

ALICE, BOB = 1, 2


class Scene:
    """A sequencer with a market behind it, and senders that are names."""

    def __init__(self) -> None:
        self.sequencer = Sequencer[str]()
        self.market = create_market("python")
        self.queue: deque[Batch[str] | Entry[str]] = deque()
        self.now_ns = 1_000_000
        self.queue.append(Entry("alice", "alice", Role.TRADE))
        self.queue.append(Entry("bob", "bob", Role.TRADE))
        self.queue.append(Entry("control", "control", Role.ADMIN))
        self.draft()
        define_and_open = [define(1, "BTC-USD"), set_mode(Mode.LIVE, 1)]
        self.send("control", 3, define_and_open, first_ref=1)
        self.draft()

    def send(
        self, sender: str, session: int, commands: Sequence[Command], *, first_ref: int
    ) -> None:
        data = bytearray(encode_commands(commands))
        for n in range(len(commands)):
            at = n * 64 + 16
            data[at : at + 8] = (first_ref + n).to_bytes(8, "little")
        self.queue.append(Batch(sender, session, memoryview(bytes(data))))

    def refs(self, sender: str, session: int, refs: Sequence[int]) -> None:
        """New orders under these references, in one batch."""
        commands = [new(1_000 * session + ref, ref=ref) for ref in refs]
        self.queue.append(Batch(sender, session, memoryview(encode_commands(commands))))

    def draft(self) -> tuple[Draft[str], list[tuple[str, list[Event]]]]:
        """The next frame, and what each sender is told."""
        draft = self.sequencer.draft(self.queue, self.now_ns)
        told: list[tuple[str, list[Event]]] = []
        if draft.count:
            events = self.market.apply(bytes(draft.frame[FRAME_HEADER_BYTES:]), draft.ts_ns)
            for part, outcome in self.sequencer.settle(draft, events):
                if part.sender is not None:
                    told.append((part.sender, list(decode_events(outcome.events))))
        for sender, outcome in draft.repeats:
            told.append((sender, list(decode_events(outcome.events))))
        return draft, told


def framed(draft: Draft[str]) -> list[tuple[int, int]]:
    """(session, reference) of each command of a frame."""
    commands = decode_commands(bytes(draft.frame[FRAME_HEADER_BYTES:]))
    return [(command.session, command.ref) for command in commands]


def test_what_arrived_becomes_one_frame_in_order_stamped_with_its_sessions() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1, 2])
    scene.refs("bob", BOB, [1])
    scene.refs("alice", ALICE, [7])
    draft, told = scene.draft()
    assert framed(draft) == [(ALICE, 1), (ALICE, 2), (BOB, 1), (ALICE, 7)]
    assert draft.first_seq == 6
    assert [(sender, [event.ref for event in events]) for sender, events in told] == [
        ("alice", [1, 2]),
        ("bob", [1]),
        ("alice", [7]),
    ]


def test_a_frame_has_its_bound_and_the_rest_comes_in_the_next() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, range(1, limits.FRAME_COMMANDS_MAX))
    scene.refs("bob", BOB, range(1, 11))
    first, _ = scene.draft()
    second, _ = scene.draft()
    assert first.count == limits.FRAME_COMMANDS_MAX
    assert framed(first)[-1] == (BOB, 1)
    assert framed(second) == [(BOB, ref) for ref in range(2, 11)]
    assert second.first_seq == first.first_seq + first.count


def test_time_never_goes_back_and_every_command_has_its_own_microsecond() -> None:
    scene = Scene()
    scene.now_ns = 10**9
    scene.refs("alice", ALICE, range(1, 101))
    first, _ = scene.draft()
    scene.now_ns = 5  # the clock was set back
    scene.refs("alice", ALICE, [101])
    second, _ = scene.draft()
    assert (first.ts_ns, second.ts_ns) == (10**9, 10**9 + 100 * 1_000)


def test_time_goes_on_from_a_replayed_journal() -> None:
    sequencer = Sequencer[str]()
    sequencer.resume([], next_seq=50, next_ts_ns=9_000)
    draft = sequencer.draft(deque([Entry("alice", "alice", Role.TRADE)]), 3)
    assert (draft.first_seq, draft.ts_ns) == (50, 9_000)


def test_a_reference_sent_again_gets_its_original_outcome_and_is_not_in_the_frame() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1, 2, 3])
    _, told = scene.draft()
    original = {event.ref: event for _, events in told for event in events}
    scene.refs("alice", ALICE, [2, 3, 4])
    draft, told = scene.draft()
    assert framed(draft) == [(ALICE, 4)]
    again = [event for _, events in told for event in events if event.ref != 4]
    assert again == [original[2], original[3]]
    assert draft.repeats[0][1].first_seq == 6


def test_a_frame_of_repeats_only_takes_no_sequence_number() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1])
    scene.draft()
    scene.refs("alice", ALICE, [1])
    draft, told = scene.draft()
    assert draft.count == 0
    assert len(told) == 1
    scene.refs("alice", ALICE, [2])
    assert scene.draft()[0].first_seq == 7


def test_one_reference_twice_in_a_frame_is_executed_once_and_answered_twice() -> None:
    scene = Scene()
    scene.refs("old connection", ALICE, [1, 2])
    scene.refs("new connection", ALICE, [1, 2, 3])
    scene.refs("bob", BOB, [1])
    first, told_first = scene.draft()
    second, told_second = scene.draft()
    assert framed(first) == [(ALICE, 1), (ALICE, 2), (BOB, 1)]
    assert framed(second) == [(ALICE, 3)]
    outcomes = dict(told_first)["old connection"]
    assert [events for _, events in told_second if events[0].ref < 3] == [outcomes]


def test_references_out_of_order_within_a_batch_lose_nothing() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [5, 3, 6, 6, 8])
    seen: list[tuple[int, int]] = []
    answered: list[int] = []
    for _ in range(4):
        draft, told = scene.draft()
        seen += framed(draft)
        answered += [event.ref for _, events in told for event in events]
    assert [ref for _, ref in seen] == [5, 6, 8]
    assert sorted(answered) == [3, 5, 6, 6, 8]
    assert not scene.queue


def test_a_reference_that_was_skipped_can_not_be_used_any_more() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1, 9])
    scene.draft()
    scene.refs("alice", ALICE, [4])
    draft, told = scene.draft()
    assert draft.count == 0
    (event,) = told[0][1]
    assert (event.kind, event.reason, event.seq) == (
        EventKind.REJECTED,
        Reason.REF_NOT_INCREASING,
        0,
    )
    assert (event.order_id, event.contra_id, event.price_ticks, event.qty_lots) == (1004, 7, 100, 5)


def test_an_outcome_that_had_to_go_is_told_as_expired() -> None:
    outcomes = Outcomes(bytes_max=3 * (80 + limits.ITEM_BYTES))
    scene = Scene()
    for ref in range(1, 6):
        scene.refs("alice", ALICE, [ref])
        _, told = scene.draft()
        events = b"".join(_encoded(told))
        outcomes.add(ref, ref, Outcome(ref, 0, events))
    rows = _rows([2, 4])
    found = [event for one in outcomes.again(rows) for event in decode_events(one.events)]
    assert [(event.ref, event.reason) for event in found] == [
        (4, Reason.NONE),
        (2, Reason.OUTCOME_EXPIRED),
    ]


def test_a_login_waits_for_what_its_session_sent_before() -> None:
    scene = Scene()
    scene.refs("old connection", ALICE, [1, 2])
    scene.queue.append(Entry("new connection", "alice", Role.TRADE))
    draft, _ = scene.draft()
    assert [(one.sender, one.session) for one in draft.admitted] == [("new connection", ALICE)]
    assert scene.sequencer.last_ref(ALICE) == 2


def test_a_new_name_gets_the_next_number_by_a_command_of_its_own() -> None:
    scene = Scene()
    scene.queue.append(Entry("carol", "carol", Role.READ_ONLY))
    scene.queue.append(Entry("carol again", "carol", Role.READ_ONLY))
    draft, _ = scene.draft()
    assert draft.count == 1
    assert [one.session for one in draft.admitted] == [4, 4]
    assert [each.name for each in scene.market.sessions()][-1] == "carol"


def test_names_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sequencer.SESSIONS_MAX", 3)
    scene = Scene()
    scene.queue.append(Entry("carol", "carol", Role.TRADE))
    draft, _ = scene.draft()
    assert [one.session for one in draft.admitted] == [0]
    assert draft.count == 0


def test_outcomes_are_the_same_after_a_replay() -> None:
    scene = Scene()
    frames = []
    for refs in ([1, 2, 3], [4], [6, 9]):
        scene.refs("alice", ALICE, refs)
        scene.refs("bob", BOB, refs)
        draft, _ = scene.draft()
        frames.append((bytes(draft.frame[FRAME_HEADER_BYTES:]), draft.first_seq, draft.ts_ns))
    replayed = Scene()
    for commands, first_seq, ts_ns in frames:
        events = replayed.market.apply(commands, ts_ns)
        replayed.sequencer.replayed(commands, first_seq, ts_ns, events)
    state = [
        SessionState(session=ALICE, name="alice", role=Role.TRADE, last_ref=9),
        SessionState(session=BOB, name="bob", role=Role.TRADE, last_ref=9),
    ]
    replayed.sequencer.resume(state, next_seq=scene.market.last_seq + 1, next_ts_ns=0)
    for one in (scene, replayed):
        one.refs("alice", ALICE, [2, 4, 5, 9])
        one.refs("bob", BOB, [9])
    first, second = scene.draft()[0], replayed.draft()[0]
    assert first.repeats == second.repeats
    assert len(first.repeats) == 5


def _encoded(told: list[tuple[str, list[Event]]]) -> list[bytes]:
    return [encode_event(event) for _, events in told for event in events]


def _rows(refs: list[int]) -> Rows:
    return np.frombuffer(encode_commands(new(1000 + ref, ref=ref) for ref in refs), COMMAND_DTYPE)
