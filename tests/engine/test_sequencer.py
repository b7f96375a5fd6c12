"""What of all that arrives is sequenced, and what is sent again: order, references, logins."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from market_driver import define, new, set_mode

from engine import limits
from engine.commit import Draft, Gathered, settled
from engine.market import create_market
from engine.outcomes import Outcome, Outcomes, Rows
from engine.reject import Reason
from engine.sequencer import Sequencer
from engine.snapshot import SessionState
from engine.types import Command, CommandKind, Event, EventKind, Mode, Role
from engine.wire import (
    COMMAND_DTYPE,
    decode_commands,
    decode_events,
    encode_command,
    encode_commands,
    encode_event,
)

ALICE, BOB, CONTROL = 1, 2, 3
Told = list[tuple[str, list[Event]]]


class Sender:
    """One connection: remembers what it was told."""

    def __init__(self, name: str, told: list[tuple[str, Outcome]]) -> None:
        self.name = name
        self.sent = self.answered = 0  # bytes
        self.admissions: list[int] = []
        self._told = told

    def events(self, outcome: Outcome) -> None:
        self._told.append((self.name, outcome))

    def consumed(self, size: int) -> None:
        self.answered += size

    def admitted(self, session: int) -> None:
        self.admissions.append(session)


class Scene:
    """A sequencer, and a market behind it that takes one frame at a time."""

    def __init__(self) -> None:
        self.market = create_market("python")
        self.gathered = Gathered()
        self.sequencer = Sequencer[Sender]()
        self.sequencer.begin((), self.gathered)
        self.outcomes: list[tuple[str, Outcome]] = []
        self.senders: dict[str, Sender] = {}
        self.now_ns = 1_000_000
        self.enter("alice")
        self.enter("bob")
        self.enter("control", Role.ADMIN)
        self.commit()
        self.send("control", CONTROL, [define(1, "BTC-USD"), set_mode(Mode.LIVE, 1)], first_ref=1)
        self.commit()

    def sender(self, name: str) -> Sender:
        return self.senders.setdefault(name, Sender(name, self.outcomes))

    def enter(self, name: str, role: Role = Role.TRADE, *, sender: str = "") -> Sender:
        one = self.sender(sender or name)
        self.sequencer.enter(one, name, role, self.now_ns)
        return one

    def send(
        self, sender: str, session: int, commands: Sequence[Command], *, first_ref: int
    ) -> None:
        data = bytearray(encode_commands(commands))
        for n in range(len(commands)):
            at = n * 64 + 16
            data[at : at + 8] = (first_ref + n).to_bytes(8, "little")
        self._receive(sender, session, bytes(data))

    def refs(self, sender: str, session: int, refs: Sequence[int]) -> None:
        """New orders under these references, in one batch."""
        commands = [new(1_000 * session + ref, ref=ref) for ref in refs]
        self._receive(sender, session, encode_commands(commands))

    def own(self, session: int, command: Command, answered: Callable[[Outcome], None]) -> None:
        self.sequencer.own(session, encode_command(command), answered, self.now_ns)

    def commit(self) -> tuple[Draft, Told]:
        """Makes the next frame durable; returns it, and what each sender is told."""
        self.outcomes.clear()
        draft = Draft()
        if self.gathered:
            draft = self.gathered.take()
            first_seq = self.market.last_seq + 1
            events = self.market.apply(bytes(draft.commands), self.now_ns)
            frame = settled(draft, first_seq, self.now_ns, events)
            self.sequencer.settle(frame, self.now_ns)
        return draft, self.told()

    def told(self) -> Told:
        return [(name, list(decode_events(one.events))) for name, one in self.outcomes]

    def _receive(self, sender: str, session: int, data: bytes) -> None:
        one = self.sender(sender)
        one.sent += len(data)
        self.sequencer.receive(one, session, memoryview(data), self.now_ns)


def framed(draft: Draft) -> list[tuple[int, int]]:
    """(session, reference) of each command of a frame."""
    return [(one.session, one.ref) for one in decode_commands(bytes(draft.commands))]


def test_what_arrived_becomes_one_frame_in_order_stamped_with_its_sessions() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1, 2])
    scene.refs("bob", BOB, [1])
    scene.refs("alice", ALICE, [7])
    draft, told = scene.commit()
    assert framed(draft) == [(ALICE, 1), (ALICE, 2), (BOB, 1), (ALICE, 7)]
    assert [(sender, [event.ref for event in events]) for sender, events in told] == [
        ("alice", [1, 2]),
        ("bob", [1]),
        ("alice", [7]),
    ]
    assert scene.outcomes[0][1].first_seq == 6


def test_a_frame_has_its_bound_and_the_rest_comes_in_the_next() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, range(1, limits.FRAME_COMMANDS_MAX))
    scene.refs("bob", BOB, range(1, 11))
    first, told_first = scene.commit()
    second, told_second = scene.commit()
    assert first.count == limits.FRAME_COMMANDS_MAX
    assert framed(first)[-1] == (BOB, 1)
    assert framed(second) == [(BOB, ref) for ref in range(2, 11)]
    told = [(sender, len(events)) for sender, events in told_first + told_second]
    assert told == [("alice", limits.FRAME_COMMANDS_MAX - 1), ("bob", 1), ("bob", 9)]


def test_a_reference_sent_again_gets_its_original_outcome_and_is_not_in_a_frame() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1, 2, 3])
    _, told = scene.commit()
    original = {event.ref: event for _, events in told for event in events}
    scene.outcomes.clear()
    scene.refs("alice", ALICE, [2, 3, 4])
    assert [event for _, events in scene.told() for event in events] == [original[2], original[3]]
    assert scene.outcomes[0][1].first_seq == 6
    assert framed(scene.commit()[0]) == [(ALICE, 4)]


def test_a_batch_of_repeats_only_takes_no_sequence_number() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1])
    scene.commit()
    scene.refs("alice", ALICE, [1])
    assert not scene.gathered
    scene.refs("alice", ALICE, [2])
    scene.commit()
    assert scene.outcomes[0][1].first_seq == 7


def test_one_reference_twice_before_it_is_durable_is_executed_once_and_answered_twice() -> None:
    scene = Scene()
    scene.refs("old connection", ALICE, [1, 2])
    scene.refs("new connection", ALICE, [1, 2, 3])
    scene.refs("bob", BOB, [1])
    first, told_first = scene.commit()
    second, told_second = scene.commit()
    assert framed(first) == [(ALICE, 1), (ALICE, 2), (BOB, 1)]
    assert framed(second) == [(ALICE, 3)]
    of_first = [(sender, [event.ref for event in events]) for sender, events in told_first]
    assert of_first == [("old connection", [1, 2]), ("new connection", [1, 2]), ("bob", [1])]
    assert told_first[0][1] == told_first[1][1]
    assert [sender for sender, _ in told_second] == ["new connection"]


def test_what_follows_a_batch_that_has_to_wait_waits_behind_it() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1])
    scene.refs("alice", ALICE, [1, 2])
    scene.refs("alice", ALICE, [3])
    assert framed(scene.commit()[0]) == [(ALICE, 1)]
    assert framed(scene.commit()[0]) == [(ALICE, 2)]
    assert framed(scene.commit()[0]) == [(ALICE, 3)]


def test_references_out_of_order_within_a_batch_lose_nothing() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [5, 3, 6, 6, 8])
    seen: list[tuple[int, int]] = []
    answered: list[int] = []
    for _ in range(4):
        draft, told = scene.commit()
        seen += framed(draft)
        answered += [event.ref for _, events in told for event in events]
    assert [ref for _, ref in seen] == [5, 6, 8]
    assert sorted(answered) == [3, 5, 6, 6, 8]
    assert scene.sender("alice").answered == scene.sender("alice").sent


def test_every_byte_received_is_accounted_for_in_the_end() -> None:
    scene = Scene()
    for refs in ([1, 2, 3], [2, 3], [4, 4], [9, 5, 10]):
        scene.refs("alice", ALICE, refs)
    for _ in range(6):
        scene.commit()
    assert scene.sender("alice").answered == scene.sender("alice").sent == 10 * 64
    assert scene.sequencer.unsettled == 0


def test_a_reference_that_was_skipped_can_not_be_used_any_more() -> None:
    scene = Scene()
    scene.refs("alice", ALICE, [1, 9])
    scene.commit()
    scene.outcomes.clear()
    scene.refs("alice", ALICE, [4])
    assert not scene.gathered
    (event,) = scene.told()[0][1]
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
        _, told = scene.commit()
        events = b"".join(encode_event(event) for _, events in told for event in events)
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
    one = scene.enter("alice", sender="new connection")
    assert one.admissions == []
    scene.commit()
    assert one.admissions == [ALICE]
    assert scene.sequencer.last_ref(ALICE) == 2


def test_a_login_of_a_session_with_nothing_on_its_way_does_not_wait_for_others() -> None:
    scene = Scene()
    scene.refs("bob", BOB, [1])
    one = scene.enter("alice", sender="new connection")
    assert one.admissions == [ALICE]


def test_a_new_name_gets_the_next_number_by_a_command_of_its_own() -> None:
    scene = Scene()
    first = scene.enter("carol", Role.READ_ONLY)
    second = scene.enter("carol", Role.READ_ONLY, sender="carol again")
    draft, _ = scene.commit()
    assert draft.count == 1
    assert first.admissions == second.admissions == [4]
    assert [each.name for each in scene.market.sessions()][-1] == "carol"


def test_a_session_that_the_market_refuses_stops_the_shard() -> None:
    scene = Scene()
    scene.enter("carol")
    draft = scene.gathered.take()
    refused = encode_event(Event(kind=EventKind.REJECTED, flags=1, reason=Reason.BAD_FIELD))
    with pytest.raises(ValueError, match="refused: BAD_FIELD"):
        scene.sequencer.settle(settled(draft, 6, 0, refused), 0)


def test_names_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.sequencer.SESSIONS_MAX", 3)
    scene = Scene()
    assert scene.enter("carol").admissions == [0]
    assert not scene.gathered


def test_a_command_of_the_gateways_own_comes_after_what_its_session_sent_before() -> None:
    scene = Scene()
    told: list[Outcome] = []
    scene.refs("alice", ALICE, [1])
    scene.refs("alice", ALICE, [1, 2])  # has to wait, and with it what follows
    scene.own(ALICE, Command(kind=CommandKind.SESSION), told.append)
    scene.refs("bob", BOB, [1])
    scene.own(0, Command(kind=CommandKind.SESSION), told.append)
    assert framed(scene.commit()[0]) == [(ALICE, 1), (BOB, 1), (0, 0)]
    assert len(told) == 1
    assert framed(scene.commit()[0]) == [(ALICE, 2), (ALICE, 0)]
    assert len(told) == 2
    (event,) = decode_events(told[1].events)
    assert (event.kind, event.seq) == (EventKind.REJECTED, scene.market.last_seq)


def test_outcomes_are_the_same_after_a_replay() -> None:
    scene = Scene()
    frames = []
    for refs in ([1, 2, 3], [4], [6, 9]):
        scene.refs("alice", ALICE, refs)
        scene.refs("bob", BOB, refs)
        first_seq = scene.market.last_seq + 1
        draft, _ = scene.commit()
        frames.append((bytes(draft.commands), first_seq, scene.now_ns))
    replayed = Scene()
    for commands, first_seq, ts_ns in frames:
        events = replayed.market.apply(commands, ts_ns)
        replayed.sequencer.replayed(commands, first_seq, ts_ns, events)
    state = [
        SessionState(session=ALICE, name="alice", role=Role.TRADE, last_ref=9),
        SessionState(session=BOB, name="bob", role=Role.TRADE, last_ref=9),
    ]
    replayed.sequencer.begin(state, replayed.gathered)
    for one in (scene, replayed):
        one.outcomes.clear()
        one.refs("alice", ALICE, [2, 4, 5, 9])
        one.refs("bob", BOB, [9])
    assert scene.outcomes == replayed.outcomes
    assert len(scene.outcomes) == 5


def _rows(refs: list[int]) -> Rows:
    return np.frombuffer(encode_commands(new(1000 + ref, ref=ref) for ref in refs), COMMAND_DTYPE)
