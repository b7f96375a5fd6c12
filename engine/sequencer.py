"""Decides what of all that arrives is sequenced, and in which order: references sent again get
their first outcome, logins wait for what came before them, new names get their numbers.

It works on whole batches of bytes, reads no clock, and hands over to a committer
(`engine.commit`), which tells what each came to in the same order.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Generic, NamedTuple, Protocol, TypeVar

import numpy as np

from engine.commit import Committer, Settled
from engine.held import HeldFrame
from engine.limits import SESSIONS_MAX
from engine.outcomes import Outcome, Outcomes, command_ends, events_of, runs
from engine.snapshot import SessionState
from engine.types import EventKind, Role
from engine.wire import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    decode_events,
    encode_command,
    session_command,
)


class Sender(Protocol):
    """Whoever sends commands."""

    def events(self, outcome: Outcome) -> None:
        """What became of some of its commands. It is durable."""

    def consumed(self, size: int) -> None:
        """So many bytes of its commands have been answered."""

    def admitted(self, session: int) -> None:
        """Its login is sequenced, and so is whatever was received under that name before it. 0: no
        number is left for another name.
        """


SenderT = TypeVar("SenderT", bound=Sender)
Answered = Callable[[Outcome], None]


class Session(NamedTuple):
    number: int
    role: Role


class Batch(NamedTuple, Generic[SenderT]):
    """Commands of one session, in the order received."""

    sender: SenderT
    commands: bytes | memoryview


class Entry(NamedTuple, Generic[SenderT]):
    """A login under a name that has a number."""

    sender: SenderT


class Own(NamedTuple):
    """A command of the gateway's own, with reference 0."""

    command: bytes
    answered: Answered


class Lane(Generic[SenderT]):
    """One session's way: what came to an end, what is with the committer, what has to wait."""

    __slots__ = ("newest_ref", "number", "outcomes", "unsettled", "waiting")

    def __init__(self, number: int) -> None:
        self.number = number
        self.outcomes = Outcomes()
        self.newest_ref = 0  # given to the committer
        self.unsettled = 0  # commands that are with the committer
        self.waiting: deque[Batch[SenderT] | Entry[SenderT] | Own] = deque()


class Owner(NamedTuple, Generic[SenderT]):
    """What the committer gives back with what became of the commands."""

    lane: Lane[SenderT]
    sender: SenderT | None
    answered: Answered | None  # of the gateway's own


class Sequencer(Generic[SenderT]):
    """`restored` and `replayed`, then `begin`, then the rest."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.unsettled = 0  # commands that are with the committer
        self._lanes: dict[int, Lane[SenderT]] = {}
        self._committer: Committer

    # --- before it begins

    def restored(self, session: int, expired_ref: int, frames: Iterable[HeldFrame]) -> None:
        """Takes what a snapshot holds of a session's outcomes; those up to `expired_ref` are gone.
        Before `replayed` is told of what follows the snapshot.
        """
        self._lane(session).outcomes = Outcomes(last_ref=expired_ref, expired_ref=expired_ref)
        for frame in frames:
            self.replayed(*frame)

    def replayed(self, commands: bytes, first_seq: int, ts_ns: int, events: bytes) -> None:
        """Takes the outcomes of a frame that an earlier process answered."""
        ends = command_ends(events, len(commands) // COMMAND_BYTES)
        refs = np.frombuffer(commands, COMMAND_DTYPE)["ref"]
        for session, start, count in runs(commands):
            outcome = Outcome(first_seq, ts_ns, events_of(events, ends, start, count))
            first, last = int(refs[start]), int(refs[start + count - 1])
            self._lane(session).outcomes.add(first, last, outcome)

    def begin(self, sessions: Iterable[SessionState], committer: Committer) -> None:
        """Goes on from what was replayed."""
        self._committer = committer
        for each in sessions:
            self.sessions[each.name] = Session(each.session, each.role)
            lane = self._lane(each.session)
            lane.outcomes.last_ref = lane.newest_ref = each.last_ref

    # --- what arrives

    def receive(
        self, sender: SenderT, session: int, commands: bytes | memoryview, now_ns: int
    ) -> None:
        lane = self._lane(session)
        if lane.waiting:
            lane.waiting.append(Batch(sender, commands))
            return
        owner = Owner(lane, sender, None)
        last_ref = self._committer.offer(owner, session, commands, lane.newest_ref, now_ns)
        if last_ref:
            self._count(lane, len(commands) // COMMAND_BYTES)
            lane.newest_ref = last_ref
        else:
            lane.waiting.append(Batch(sender, commands))
            self._go_on(lane, now_ns)

    def enter(self, sender: SenderT, name: str, role: Role, now_ns: int) -> None:
        known = self.sessions.get(name)
        if known is not None:
            self._queue(self._lane(known.number), Entry(sender), now_ns)
        elif len(self.sessions) >= SESSIONS_MAX:
            sender.admitted(0)
        else:
            number = max((each.number for each in self.sessions.values()), default=0) + 1
            self.sessions[name] = Session(number, role)
            command = session_command(session=number, name=name, role=role)
            lane = self._lane(number)
            self._queue(lane, Own(encode_command(command), _check_session), now_ns)
            self._queue(lane, Entry(sender), now_ns)

    def own(self, session: int, command: bytes, answered: Answered, now_ns: int) -> None:
        """After what was received of the session before; 0: none."""
        self._queue(self._lane(session), Own(command, answered), now_ns)

    def last_ref(self, session: int) -> int:
        """The highest reference that has an outcome."""
        return self._lane(session).outcomes.last_ref

    # --- what it comes to

    def settle(self, frame: Settled, now_ns: int) -> None:
        """Answers those whose commands the frame holds. Raises ValueError where the market refused
        what the gateway may rely on.
        """
        first_seq, ts_ns = frame.first_seq, frame.ts_ns
        self.unsettled -= frame.length
        for (lane, sender, answered), count, first_ref, last_ref, events in frame.parts:
            outcome = Outcome(first_seq, ts_ns, events)
            lane.unsettled -= count
            if answered is not None:
                answered(outcome)
            else:
                lane.outcomes.add(first_ref, last_ref, outcome)
                sender.events(outcome)
                sender.consumed(count * COMMAND_BYTES)
            if lane.waiting:
                self._go_on(lane, now_ns)

    # --- within

    def _lane(self, session: int) -> Lane[SenderT]:
        lane = self._lanes.get(session)
        if lane is None:
            lane = self._lanes[session] = Lane(session)
        return lane

    def _count(self, lane: Lane[SenderT], commands: int) -> None:
        lane.unsettled += commands
        self.unsettled += commands

    def _queue(
        self, lane: Lane[SenderT], item: Batch[SenderT] | Entry[SenderT] | Own, now_ns: int
    ) -> None:
        lane.waiting.append(item)
        if len(lane.waiting) == 1:
            self._go_on(lane, now_ns)

    def _go_on(self, lane: Lane[SenderT], now_ns: int) -> None:
        """Takes what need not wait any more. Whatever has to know the outcome of all that came
        before stays until nothing of the lane is with the committer.
        """
        while lane.waiting:
            item = lane.waiting[0]
            if isinstance(item, Own):
                self._add(lane, Owner(lane, None, item.answered), item.command, now_ns)
            elif lane.unsettled:
                return
            elif isinstance(item, Entry):
                item.sender.admitted(lane.number)
            else:
                rest = self._take(lane, item, now_ns)
                if rest is not None:
                    lane.waiting[0] = rest
                    continue
            lane.waiting.popleft()

    def _add(
        self, lane: Lane[SenderT], owner: Owner[SenderT], commands: bytes, now_ns: int
    ) -> None:
        self._committer.add(owner, lane.number, commands, now_ns)
        self._count(lane, len(commands) // COMMAND_BYTES)

    def _take(
        self, lane: Lane[SenderT], batch: Batch[SenderT], now_ns: int
    ) -> Batch[SenderT] | None:
        """Of a batch whose references may be old or out of order: answers those that have an
        outcome, takes new ones while they ascend, and returns what has to wait. One that comes
        twice has no outcome yet the second time.
        """
        rows = np.frombuffer(batch.commands, COMMAND_DTYPE)
        refs = rows["ref"]
        last_ref = lane.outcomes.last_ref
        is_old = refs <= last_ref
        fresh = np.flatnonzero(~is_old)
        before = np.maximum.accumulate(np.concatenate(([np.uint64(last_ref)], refs[fresh])))[:-1]
        stuck = fresh[refs[fresh] <= before]
        taken = int(stuck[0]) if len(stuck) else len(rows)
        old, new = rows[:taken][is_old[:taken]], rows[:taken][~is_old[:taken]]
        if len(new):
            lane.newest_ref = int(new["ref"][-1])
            self._add(lane, Owner(lane, batch.sender, None), new.tobytes(), now_ns)
        if len(old):
            for outcome in lane.outcomes.again(old):
                batch.sender.events(outcome)
            batch.sender.consumed(len(old) * COMMAND_BYTES)
        return (
            batch._replace(commands=batch.commands[taken * COMMAND_BYTES :]) if stuck.size else None
        )


def _check_session(outcome: Outcome) -> None:
    for event in decode_events(outcome.events):
        if event.kind != EventKind.SESSION:
            raise ValueError(f"a session that the gateway defined was refused: {event.reason.name}")
