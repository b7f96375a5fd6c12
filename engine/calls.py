"""What a client has sent and not had answered yet, by reference.

Two kinds: a `Call` is answered command by command, for whoever handles few; a `BatchCall` gets its
events as they came, for whoever handles many: no order of it is looked at by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.limits import COMMAND_STEP_NS
from engine.protocol import EVENTS
from engine.types import Command, Event, EventFlag
from engine.wire import (
    COMMAND_BYTES,
    COMMAND_DTYPE,
    EVENT_DTYPE,
    decode_events,
    encode_commands,
)

Rows = npt.NDArray[Any]
_LAST = int(EventFlag.LAST)  # arithmetic of flags costs more than all else of an event


class Answer(NamedTuple):
    """What one command came to. `seq` 0: the engine no longer knows (OUTCOME_EXPIRED), or the
    reference was skipped and can't be used any more (REF_NOT_INCREASING); nothing was executed now.
    """

    seq: int
    at_ns: int  # sequencer time
    events: tuple[Event, ...]


class Call:
    """One `send`."""

    def __init__(self, commands: Sequence[Command], newest_ref: int) -> None:
        """Those with reference 0 get the next one above `newest_ref` and those before them.

        Raises struct.error for a number that its field can't hold, ValueError for a reference given
        twice.
        """
        data = bytearray(encode_commands(commands))
        column = np.frombuffer(data, COMMAND_DTYPE)["ref"]
        self.refs = column.tolist()
        for index, ref in enumerate(self.refs):
            self.refs[index] = ref or newest_ref + 1
            newest_ref = max(newest_ref, self.refs[index])
        if len(set(self.refs)) < len(self.refs):
            raise ValueError("a reference is being sent twice at the same time")
        column[:] = self.refs
        self.newest_ref = newest_ref
        self.data = bytes(data)
        self.count = self.left = len(self.refs)
        self.answers: list[Answer | None] = [None] * self.count
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_sent = False

    def answer(self, index: int, answer: Answer) -> None:
        self.answers[index] = answer
        self.left -= 1
        if not self.left and not self.done.done():
            self.done.set_result(None)


class BatchCall:
    """One `send_batch`."""

    def __init__(self, commands: bytes | memoryview | Rows, newest_ref: int) -> None:
        """References all 0: they get the next ones above `newest_ref`. Raises ValueError where they
        are neither that nor consecutive, or where a command is cut off.
        """
        data = np.frombuffer(commands, np.uint8)
        if len(data) % COMMAND_BYTES:
            raise ValueError(f"{len(data)} bytes of commands: each is {COMMAND_BYTES}")
        rows = np.frombuffer(data, COMMAND_DTYPE).copy()
        self.count = self.left = len(rows)
        if not rows["ref"].any():
            rows["ref"] = np.arange(newest_ref + 1, newest_ref + 1 + self.count, dtype=np.uint64)
        self.first_ref = int(rows["ref"][0])
        if self.first_ref == 0 or (np.diff(rows["ref"]) != 1).any():
            raise ValueError("the references of a batch must be all 0, or consecutive")
        self.newest_ref = max(newest_ref, self.first_ref + self.count - 1)
        self.data = rows.tobytes()
        self.entered = 0  # of its commands, from the first on, so many are to be answered
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.was_sent = False
        self._is_answered = np.zeros(self.count, bool)
        self._events: list[bytes] = []

    @property
    def waiting(self) -> int:
        """How many are entered and not answered."""
        return self.entered - (self.count - self.left)

    def unanswered(self) -> Rows:
        rows = np.frombuffer(self.data, COMMAND_DTYPE)[: self.entered]
        return rows[~self._is_answered[: self.entered]]

    def take(self, events: Rows) -> Rows:
        """Keeps what is its own; returns the rest."""
        places = events["ref"] - np.uint64(self.first_ref)  # what is below wraps to far above
        is_own = places < np.uint64(self.entered)
        if not is_own.any():
            return events
        own, places = events[is_own], places[is_own].astype(np.intp)
        is_new = ~self._is_answered[places]
        own, places = own[is_new], places[is_new]
        ended = places[(own["flags"] & EventFlag.LAST) != 0]
        self._is_answered[ended] = True
        self._events.append(own.tobytes())
        self.left -= len(ended)
        if not self.left and not self.done.done():
            self.done.set_result(None)
        return events[~is_own]

    def events(self) -> bytes:
        """In the order of the commands."""
        data = b"".join(self._events)
        rows = np.frombuffer(data, EVENT_DTYPE)
        refs = rows["ref"]
        if (refs[1:] >= refs[:-1]).all():
            return data
        # After a reconnect old outcomes come behind new ones.
        return rows[np.argsort(refs, kind="stable")].tobytes()


AnyCall = Call | BatchCall


class Unanswered:
    """All of one client's."""

    def __init__(self) -> None:
        self.newest_seq = 0  # seen in an answer
        self._calls: dict[int, tuple[Call, int]] = {}  # by reference, in the order of sending
        self._batches: list[BatchCall] = []

    def __len__(self) -> int:
        return len(self._calls) + sum(batch.waiting for batch in self._batches)

    def check_free(self, call: AnyCall) -> None:
        """Raises ValueError if one of its references is being sent already."""
        if isinstance(call, Call):
            taken = not self._calls.keys().isdisjoint(call.refs) or any(
                batch.first_ref <= ref < batch.first_ref + batch.count
                for batch in self._batches
                for ref in call.refs
            )
        else:
            refs = range(call.first_ref, call.first_ref + call.count)
            taken = any(ref in refs for ref in self._calls) or any(
                batch.first_ref < refs.stop and refs.start < batch.first_ref + batch.count
                for batch in self._batches
            )
        if taken:
            raise ValueError("a reference is being sent twice at the same time")

    def enter(self, call: AnyCall, start: int, stop: int) -> None:
        """Its commands [start, stop), in their order, are to be answered from now on."""
        if isinstance(call, Call):
            for index, ref in enumerate(call.refs[start:stop], start):
                self._calls[ref] = (call, index)
        else:
            if not start:
                self._batches.append(call)
            call.entered = stop

    def forget(self, call: AnyCall) -> None:
        """What is still unanswered of it is not sent again by itself."""
        if isinstance(call, BatchCall):
            if call in self._batches:
                self._batches.remove(call)
        elif call.left:
            for ref in call.refs:
                if ref in self._calls and self._calls[ref][0] is call:
                    del self._calls[ref]

    def calls(self) -> set[AnyCall]:
        return {*self._batches, *(call for call, _ in self._calls.values())}

    def again(self) -> bytes:
        """Every unanswered command, by ascending reference."""
        parts = [batch.unanswered() for batch in self._batches]
        each = [
            call.data[index * COMMAND_BYTES : (index + 1) * COMMAND_BYTES]
            for call, index in self._calls.values()
        ]
        rows = np.concatenate([np.frombuffer(b"".join(each), COMMAND_DTYPE), *parts])
        return rows[np.argsort(rows["ref"], kind="stable")].tobytes()

    def receive(self, payload: memoryview) -> None:
        """The payload of a message E."""
        first_seq, ts_ns = EVENTS.unpack_from(payload)
        events: Rows = np.frombuffer(payload, EVENT_DTYPE, offset=EVENTS.size)
        if len(events):
            self.newest_seq = max(self.newest_seq, int(events["seq"][-1]))
        for batch in self._batches:
            events = batch.take(events)
        self._answer_calls(events, first_seq, ts_ns)

    def _answer_calls(self, events: Rows, first_seq: int, ts_ns: int) -> None:
        together: list[Event] = []
        for event in decode_events(events.tobytes()):
            together.append(event)
            if event.flags & _LAST:
                call, index = self._calls.pop(event.ref, (None, 0))
                # None: given up, or answered before the connection was lost.
                if call is not None:
                    later_ns = COMMAND_STEP_NS * (event.seq - first_seq)
                    call.answer(index, Answer(event.seq, ts_ns + later_ns, tuple(together)))
                together.clear()
