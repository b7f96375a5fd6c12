"""An open-loop load on the engine service that takes as little of the machine as it can.

One thread, several sessions. The commands were made beforehand; at each tick one session sends
those that have fallen due, straight from their array, and of what comes back only the last
reference is read: latencies are worked out afterwards. Nothing is skipped and nothing is sent
early, however late it gets.
"""

from __future__ import annotations

import gc
import select
import time
from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

import numpy as np

from bridge.bench.conditions import CpuMeter
from bridge.bench.service import Address, Channel
from bridge.bench.told import tell
from bridge.bench.workload import Rows
from engine.errors import EngineUnavailable
from engine.limits import FRAME_COMMANDS_MAX
from engine.protocol import EVENTS, HEADER, VERSION, MessageType, message
from engine.types import Role
from engine.wire import COMMAND_BYTES, EVENT_BYTES, EVENT_DTYPE

TICK_NS = 250_000  # commands that fall due within one tick are sent together
DRAIN_S = 30.0  # after the last command is sent, for the answers
_TELL_NS = 10 * 10**9  # how often it says how far it has got
_IDLE_S = 0.001  # the longest wait for answers while nothing is due
_BUFFER_BYTES = 2**22
_REF_FROM_END = EVENT_BYTES - EVENT_DTYPE.fields["ref"][1] if EVENT_DTYPE.fields else 0
_HEARTBEAT = message(MessageType.HEARTBEAT)

Buffers = list[bytes | memoryview]


class Sent(NamedTuple):
    """Of one session, by message: what it held and when it went out."""

    first_number: Any  # of its commands, among those of all sessions
    count: Any
    at_ns: Any


class Got(NamedTuple):
    """Of one session, by message: when it came, and what had been answered then."""

    at_ns: Any
    answered: Any  # so many of the session's commands of this run
    frame: Any  # first sequence number of the journal frame


class Measured(NamedTuple):
    rate: int
    began_ns: int  # when number 0 was due
    first_number: int  # the first that counts; those before it warmed up
    end_ns: int  # when the last one was due
    total: int  # due altogether
    sessions: tuple[tuple[Sent, Got], ...]
    sends_cut_short: int  # the service did not read: the socket was full
    sends_that_waited: int  # the service did not answer: too much would have been unanswered
    kinds: Any  # of all events, by kind
    cpu: dict[str, Any]


class Session:
    """A session and its commands, sent again and again under ever higher references."""

    def __init__(self, address: Address, name: str, rows: Rows) -> None:
        channel = Channel(address, name, Role.TRADE)
        self.accepted = channel.accepted
        self.socket = channel.socket
        self.socket.setblocking(False)
        self._rows = rows.copy()
        self._refs = self._rows["ref"]
        self.length = len(rows)
        # One round less than the first references: sending adds a round.
        self._first_ref = channel.accepted.last_ref + 1
        first = np.int64(self._first_ref - self.length)
        self._refs[:] = np.arange(first, first + self.length).astype(np.uint64)
        self._data = self._rows.view(np.uint8).data
        self._unsent: deque[memoryview] = deque()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._start = self._end = 0  # of what is received and not yet looked at
        self.sent = self.answered = 0  # commands, ever
        self._before = 0  # of them before this run
        self.begin()

    def begin(self) -> None:
        """A new run; all is answered."""
        self._before = self.sent
        self.sends_cut_short = 0
        self._sent = Sent(array("q"), array("q"), array("q"))
        self._got = Got(array("q"), array("q"), array("q"))
        self.kinds = bytearray()  # of all events

    def has_room(self, count: int) -> bool:
        """A command's bytes must not change before it is answered."""
        return self.sent - self.answered + count <= self.length

    @property
    def answered_now(self) -> int:
        """Of this run."""
        return self.answered - self._before

    @property
    def is_blocked(self) -> bool:
        return bool(self._unsent)

    def send(self, first_number: int, count: int, now_ns: int) -> bool:
        """`count` is at most a frame. False if not all of it has gone out yet."""
        at = self.sent % self.length
        until = at + count
        header = HEADER.pack(count * COMMAND_BYTES, MessageType.COMMANDS, VERSION, 0)
        buffers: Buffers = [header, self._taken(at, min(until, self.length))]
        if until > self.length:
            buffers.append(self._taken(0, until - self.length))
        self.sent += count
        self._sent.first_number.append(first_number)
        self._sent.count.append(count)
        self._sent.at_ns.append(now_ns)
        written = 0
        if not self._unsent:
            with suppress(BlockingIOError):
                written = self.socket.sendmsg(buffers)
        if written == len(header) + count * COMMAND_BYTES:
            return True
        self._hold(buffers, written)
        return False

    def heartbeat(self) -> None:
        """Only while nothing is unsent."""
        self.socket.send(_HEARTBEAT)

    def send_held(self) -> None:
        with suppress(BlockingIOError):
            while self._unsent:
                piece = self._unsent[0]
                written = self.socket.send(piece)
                if written < len(piece):
                    self._unsent[0] = piece[written:]
                else:
                    self._unsent.popleft()

    def receive(self) -> None:
        if self._end == len(self._buffer):
            self._make_room()
        with memoryview(self._buffer)[self._end :] as room:
            got = self.socket.recv_into(room)
        now_ns = time.perf_counter_ns()
        if not got:
            raise EngineUnavailable("the engine closed a connection of the bench")
        self._end += got
        at, end, buffer = self._start, self._end, self._buffer
        while end - at >= HEADER.size:
            size, kind, _, _ = HEADER.unpack_from(buffer, at)
            until = at + HEADER.size + size
            if until > end:
                break
            if kind == MessageType.EVENTS:
                self._take(at + HEADER.size, until, now_ns)
            elif kind == MessageType.REJECTED:
                why = bytes(buffer[at + HEADER.size : until])
                raise EngineUnavailable(f"the engine disconnected the bench: {why!r}")
            at = until
        self._start = at
        if at == end:
            self._start = self._end = 0

    def taken_down(self) -> tuple[Sent, Got]:
        """Of this run, as arrays of int64."""
        return (
            Sent(*(np.frombuffer(one, np.int64) for one in self._sent)),
            Got(*(np.frombuffer(one, np.int64) for one in self._got)),
        )

    def _taken(self, start: int, end: int) -> memoryview:
        self._refs[start:end] += self.length
        return self._data[start * COMMAND_BYTES : end * COMMAND_BYTES]

    def _hold(self, buffers: Buffers, written: int) -> None:
        self.sends_cut_short += 1
        for piece in buffers:
            if written < len(piece):
                self._unsent.append(memoryview(piece)[written:])
            written = max(0, written - len(piece))

    def _take(self, start: int, until: int, now_ns: int) -> None:
        buffer = self._buffer
        first_seq, _ = EVENTS.unpack_from(buffer, start)
        start += EVENTS.size
        # Answers come in the order of the references: the last one's says how far it has got.
        ref = int.from_bytes(buffer[until - _REF_FROM_END : until - _REF_FROM_END + 8], "little")
        self.answered = ref - self._first_ref + 1
        self._got.at_ns.append(now_ns)
        self._got.answered.append(self.answered_now)
        self._got.frame.append(first_seq)
        events = np.frombuffer(buffer, EVENT_DTYPE, (until - start) // EVENT_BYTES, start)
        self.kinds += events["kind"].tobytes()

    def _make_room(self) -> None:
        """A message that does not fit is moved to the front; one that still does not, gets more."""
        if self._start:
            self._buffer[: self._end - self._start] = self._buffer[self._start : self._end]
            self._start, self._end = 0, self._end - self._start
        else:
            self._buffer = self._buffer + bytearray(len(self._buffer))


class Load:
    """Several sessions of one service. Each run goes on where the last ended."""

    def __init__(self, address: Address, commands: Sequence[Rows], *, pid: int) -> None:
        self._pid = pid
        self._sessions = [
            Session(address, f"bench-{number}", rows) for number, rows in enumerate(commands)
        ]
        self._by_fd = {session.socket.fileno(): session for session in self._sessions}
        self._fds = list(self._by_fd)
        self._blocked: list[int] = []  # those whose socket is full
        self._turn = 0  # whose it is to send
        self._number = 0  # of the next command
        self._waited = 0  # ticks without room for another message

    def run(self, *, rate: int, warm_up_s: float, seconds: float) -> Measured:
        """Commands/s offered for so long, after a warm-up at the same rate that does not count."""
        for session in self._sessions:
            session.begin()
            session.heartbeat()
        self._number = self._waited = 0
        warm, total = int(rate * warm_up_s), int(rate * (warm_up_s + seconds))
        with _no_collections():
            began_ns = time.perf_counter_ns() + TICK_NS
            counted_ns = began_ns + warm * 10**9 // rate
            end_ns = began_ns + total * 10**9 // rate
            self._until(began_ns, counted_ns, rate, total)
            meter = CpuMeter(self._pid)
            for stop_ns in range(counted_ns + _TELL_NS, end_ns, _TELL_NS):
                self._until(began_ns, stop_ns, rate, total)
                answered = sum(session.answered_now for session in self._sessions)
                tell(f"  {(stop_ns - counted_ns) // 10**9} s, {answered:,} answered")
            self._until(began_ns, end_ns, rate, total)
            cpu = meter.read()
            self._drain(total)
        return Measured(
            rate=rate,
            began_ns=began_ns,
            first_number=warm,
            end_ns=end_ns,
            total=total,
            sessions=tuple(session.taken_down() for session in self._sessions),
            sends_cut_short=sum(session.sends_cut_short for session in self._sessions),
            sends_that_waited=self._waited,
            kinds=sum(
                np.bincount(np.frombuffer(one.kinds, np.uint8), minlength=256)
                for one in self._sessions
            ),
            cpu=cpu,
        )

    def close(self) -> None:
        for session in self._sessions:
            session.socket.close()

    @property
    def implementation(self) -> str:
        return self._sessions[0].accepted.implementation

    def _until(self, began_ns: int, stop_ns: int, rate: int, total: int) -> None:
        clock = time.perf_counter_ns
        next_ns = began_ns
        while (now_ns := clock()) < stop_ns:
            if now_ns >= next_ns:
                due = min(total, (now_ns - began_ns) * rate // 10**9)
                self._send_due(due, now_ns)
                next_ns = now_ns - (now_ns - began_ns) % TICK_NS + TICK_NS
            self._receive(max(0, next_ns - clock()) / 1e9)

    def _drain(self, total: int) -> None:
        deadline_ns = time.perf_counter_ns() + int(DRAIN_S * 1e9)
        while time.perf_counter_ns() < deadline_ns:
            self._send_due(total, time.perf_counter_ns())
            if all(each.answered == each.sent for each in self._sessions):
                return
            self._receive(_IDLE_S)

    def _send_due(self, due: int, now_ns: int) -> None:
        """A session after the other, a frame at most at once. Whose turn it is must have answers
        before it can send all its commands anew; the others wait with it.
        """
        while self._number < due:
            session = self._sessions[self._turn]
            count = min(due - self._number, FRAME_COMMANDS_MAX, session.length)
            if not session.has_room(count):
                self._waited += 1
                return
            if not session.send(self._number, count, now_ns):
                fd = session.socket.fileno()
                self._blocked += [fd] if fd not in self._blocked else []
            self._number += count
            self._turn = (self._turn + 1) % len(self._sessions)

    def _receive(self, wait_s: float) -> None:
        readable, writable, _ = select.select(self._fds, self._blocked, (), wait_s)
        for fd in writable:
            session = self._by_fd[fd]
            session.send_held()
            if not session.is_blocked:
                self._blocked.remove(fd)
        for fd in readable:
            self._by_fd[fd].receive()


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()
