"""Makes journal frames out of what arrived: stamps sessions, sorts out references sent again,
gives out sequence numbers and times.

It works on batches of bytes and reads no clock; between two drafts it must have been told, by
`settle`, what the last one came to.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, NamedTuple, TypeVar

import numpy as np

from engine.frame import FRAME_HEADER_BYTES
from engine.limits import COMMAND_STEP_NS, FRAME_COMMANDS_MAX, SESSIONS_MAX
from engine.outcomes import Outcome, Outcomes, Rows, command_ends, events_of, runs
from engine.snapshot import SessionState
from engine.types import Role
from engine.wire import COMMAND_BYTES, COMMAND_DTYPE, encode_command, session_command

Sender = TypeVar("Sender")


class Batch(NamedTuple, Generic[Sender]):
    """Commands of one session, in the order received."""

    sender: Sender
    session: int
    commands: memoryview


class Entry(NamedTuple, Generic[Sender]):
    """A login. What was received under this name before it is sequenced before it."""

    sender: Sender
    name: str
    role: Role


class Part(NamedTuple, Generic[Sender]):
    """One session's commands [start, start + length) in a draft."""

    sender: Sender | None  # None: the gateway's own
    session: int
    start: int
    length: int


class Admitted(NamedTuple, Generic[Sender]):
    sender: Sender
    session: int  # 0: no number is left for another name


class Draft(Generic[Sender]):
    """The next frame, and what can be answered once it is durable."""

    def __init__(self) -> None:
        self.frame = bytearray(FRAME_HEADER_BYTES)
        self.first_seq = 0
        self.ts_ns = 0
        self.count = 0
        self.parts: list[Part[Sender]] = []
        self.repeats: list[tuple[Sender, Outcome]] = []
        self.admitted: list[Admitted[Sender]] = []
        self.consumed: list[tuple[Sender, int]] = []  # bytes of commands that left the queue

    def add(self, sender: Sender | None, session: int, commands: bytes | memoryview) -> None:
        count = len(commands) // COMMAND_BYTES
        self.parts.append(Part(sender, session, self.count, count))
        self.frame += commands
        self.count += count


class Session(NamedTuple):
    number: int
    role: Role


class Sequencer(Generic[Sender]):
    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self._outcomes: dict[int, Outcomes] = {}
        self._next_seq = 1
        self._next_ts_ns = 0
        # While a draft is made: the highest reference that it holds of each session in it.
        self._newest: dict[int, int] = {}

    def resume(self, sessions: Iterable[SessionState], *, next_seq: int, next_ts_ns: int) -> None:
        """Goes on from a replayed journal; `replayed` has been told of its frames."""
        for each in sessions:
            self.sessions[each.name] = Session(each.session, each.role)
            self._of(each.session).last_ref = each.last_ref
        self._next_seq = next_seq
        self._next_ts_ns = next_ts_ns

    def replayed(self, commands: bytes, first_seq: int, ts_ns: int, events: bytes) -> None:
        """Takes the outcomes of a frame that an earlier process answered."""
        ends = command_ends(events, len(commands) // COMMAND_BYTES)
        for session, start, count in runs(commands):
            outcome = Outcome(first_seq, ts_ns, events_of(events, ends, start, count))
            self._keep(session, commands, start, count, outcome)

    def last_ref(self, session: int) -> int:
        return self._of(session).last_ref

    def draft(self, queue: deque[Batch[Sender] | Entry[Sender]], now_ns: int) -> Draft[Sender]:
        """Takes from the queue's left what fits one frame; what has to wait for the next stays."""
        draft = Draft[Sender]()
        held: list[Batch[Sender] | Entry[Sender]] = []
        blocked: set[int] = set()  # sessions whose order would suffer if more of them were taken
        self._newest.clear()
        while queue and draft.count < FRAME_COMMANDS_MAX:
            item = queue.popleft()
            session = self._number_of(item)
            if session in blocked:
                held.append(item)
            elif isinstance(item, Entry):
                self._admit(draft, item)
            else:
                rest = self._take(draft, item)
                if rest is not None:
                    blocked.add(session)
                    held.append(rest)
        queue.extendleft(reversed(held))
        self._seal(draft, now_ns)
        return draft

    def settle(self, draft: Draft[Sender], events: bytes) -> Iterable[tuple[Part[Sender], Outcome]]:
        """What each part of a durable draft came to."""
        ends = command_ends(events, draft.count)
        commands = memoryview(draft.frame)[FRAME_HEADER_BYTES:]
        for part in draft.parts:
            chunk = events_of(events, ends, part.start, part.length)
            outcome = Outcome(draft.first_seq, draft.ts_ns, chunk)
            if part.sender is not None:
                self._keep(part.session, commands, part.start, part.length, outcome)
            yield part, outcome

    def _number_of(self, item: Batch[Sender] | Entry[Sender]) -> int:
        if isinstance(item, Batch):
            return item.session
        known = self.sessions.get(item.name)
        return known.number if known else 0

    def _admit(self, draft: Draft[Sender], entry: Entry[Sender]) -> None:
        known = self.sessions.get(entry.name)
        if known is not None:
            draft.admitted.append(Admitted(entry.sender, known.number))
            return
        if len(self.sessions) >= SESSIONS_MAX:
            draft.admitted.append(Admitted(entry.sender, 0))
            return
        number = max((each.number for each in self.sessions.values()), default=0) + 1
        command = session_command(session=number, name=entry.name, role=entry.role)
        draft.add(None, number, encode_command(command))
        self.sessions[entry.name] = Session(number, entry.role)
        draft.admitted.append(Admitted(entry.sender, number))

    def _take(self, draft: Draft[Sender], batch: Batch[Sender]) -> Batch[Sender] | None:
        """Puts what may go now into the draft; returns what has to wait."""
        rows = np.frombuffer(batch.commands, COMMAND_DTYPE)
        room = FRAME_COMMANDS_MAX - draft.count
        outcomes = self._of(batch.session)
        newest = self._newest.get(batch.session, outcomes.last_ref)
        refs = rows["ref"]
        if int(refs[0]) > newest and bool((refs[1:] > refs[:-1]).all()):
            taken = min(room, len(rows))
            draft.add(batch.sender, batch.session, batch.commands[: taken * COMMAND_BYTES])
            self._newest[batch.session] = int(refs[taken - 1])
        else:
            taken = self._take_mixed(draft, batch, rows, outcomes, newest)
        draft.consumed.append((batch.sender, taken * COMMAND_BYTES))
        if taken == len(rows):
            return None
        return batch._replace(commands=batch.commands[taken * COMMAND_BYTES :])

    def _take_mixed(
        self,
        draft: Draft[Sender],
        batch: Batch[Sender],
        rows: Rows,
        outcomes: Outcomes,
        newest: int,
    ) -> int:
        """Of a batch with references out of order: answers those that have an outcome, takes new
        ones while they ascend. One sent twice within a frame has no outcome yet, and waits.
        """
        rows = rows[: FRAME_COMMANDS_MAX - draft.count]
        refs = rows["ref"]
        is_old = refs <= outcomes.last_ref
        fresh = np.flatnonzero(~is_old)
        before = np.maximum.accumulate(np.concatenate(([np.uint64(newest)], refs[fresh])))[:-1]
        stuck = fresh[refs[fresh] <= before]
        taken = int(stuck[0]) if len(stuck) else len(rows)
        old = rows[:taken][is_old[:taken]]
        if len(old):
            draft.repeats += [(batch.sender, outcome) for outcome in outcomes.again(old)]
        new = rows[:taken][~is_old[:taken]]
        if len(new):
            draft.add(batch.sender, batch.session, new.tobytes())
            self._newest[batch.session] = int(new["ref"][-1])
        return taken

    def _seal(self, draft: Draft[Sender], now_ns: int) -> None:
        draft.first_seq = self._next_seq
        draft.ts_ns = max(now_ns, self._next_ts_ns)
        if not draft.count:
            return
        rows = np.frombuffer(draft.frame, COMMAND_DTYPE, offset=FRAME_HEADER_BYTES)
        sessions = rows["session"]
        for part in draft.parts:
            sessions[part.start : part.start + part.length] = part.session
        self._next_seq += draft.count
        self._next_ts_ns = draft.ts_ns + draft.count * COMMAND_STEP_NS

    def _keep(
        self,
        session: int,
        commands: bytes | memoryview,
        start: int,
        count: int,
        outcome: Outcome,
    ) -> None:
        refs = np.frombuffer(commands, COMMAND_DTYPE)["ref"]
        first, last = int(refs[start]), int(refs[start + count - 1])
        self._of(session).add(first, last, outcome)

    def _of(self, session: int) -> Outcomes:
        outcomes = self._outcomes.get(session)
        if outcomes is None:
            outcomes = self._outcomes[session] = Outcomes()
        return outcomes
