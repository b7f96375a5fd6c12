"""The load on the proxy and on what stands beside it, a process of its own.

Closed loop: each connection sends its next order when it has the answer to the last, so the rate is
what so many connections reach. Open loop: order n is due at n / rate, whatever happens; it takes
the connection that has been idle for longest, or waits for one, and its latency counts from the
moment at which it was due.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import sys
import time
from collections import Counter, deque

import msgspec
import uvloop

from bridge.bench.proxy_peers import ANSWER_END, BODY

GRACE_S = 1.0  # for answers after the end; what comes later counts as unanswered
LOOK_NS = 1_000_000  # how often it looks for them
TICK_NS_MIN = 100_000
_REQUEST = (
    b"POST /api/v1/orders HTTP/1.1\r\nHost: exchange.test\r\nUser-Agent: bench\r\n"
    b"Accept: application/json\r\nContent-Type: application/json\r\nX-Member-Id: 7\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
) + BODY
_TAKEN = b"HTTP/1.1 201 "
_TIMER_ABSOLUTE = 1


class Job(msgspec.Struct, frozen=True, kw_only=True):
    port: int
    connections: int
    rate: int = 0  # offered per second; 0: a closed loop
    warm_up_s: float
    seconds: float  # after the warm-up
    tell_every_s: float = 0.0  # 0: only at the end


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Since the last one, without the warm-up but where it says so."""

    seconds: float
    sent: int  # warm-up included
    answered: int  # in these seconds, whenever they were due
    unanswered: int  # at the end: they are in `took_us` with the time that they have waited
    failed: int  # connections lost, and answers that were none; warm-up included
    took_us: dict[int, int]  # microseconds -> how many took so long
    late_us: dict[int, int]  # open loop: how long after it was due an order was sent


class _Load:
    def __init__(self, job: Job, group: asyncio.TaskGroup) -> None:
        self.job = job
        self.counted_from_ns = sys.maxsize
        self.stopping = False
        self.callers: set[_Caller] = set()
        self.sent = 0
        self.answered = 0
        self.took_ns: list[int] = []
        self.late_ns: list[int] = []
        self._group = group
        self._failed = 0
        self._told_ns = 0

    async def run(self) -> None:
        for _ in range(self.job.connections):
            await self._connect()
        began_ns = time.perf_counter_ns()
        self.counted_from_ns = self._told_ns = began_ns + int(self.job.warm_up_s * 1e9)
        ends_ns = self.counted_from_ns + int(self.job.seconds * 1e9)
        self.begin(began_ns, ends_ns)
        await _until(self.counted_from_ns)
        self.answered = 0
        step_ns = int(self.job.tell_every_s * 1e9) or sys.maxsize
        for at_ns in range(self.counted_from_ns + step_ns, ends_ns, step_ns):
            await _until(at_ns)
            self._tell(time.perf_counter_ns())
        await _until(ends_ns)
        self.stopping = True
        answered, deadline_ns = self.answered, ends_ns + int(GRACE_S * 1e9)
        while self.under_way() and time.perf_counter_ns() < deadline_ns:
            await _until(time.perf_counter_ns() + LOOK_NS)
        self.answered = answered
        self._tell(ends_ns, self._unanswered())
        for caller in self.callers:
            caller.transport.abort()

    def begin(self, began_ns: int, ends_ns: int) -> None:
        for caller in self.callers:
            caller.send(began_ns)

    def ready(self, caller: _Caller, now_ns: int) -> None:
        """It can send."""
        if not self.stopping:
            caller.send(now_ns)

    def under_way(self) -> list[int]:
        """When those were due that have no answer."""
        return [caller.due_ns for caller in self.callers if caller.due_ns]

    def lost(self, caller: _Caller) -> None:
        """Another connection takes its place."""
        self.callers.discard(caller)
        if not self.stopping:
            self._failed += 1
            self._group.create_task(self._connect())

    async def _connect(self) -> None:
        _, caller = await asyncio.get_running_loop().create_connection(
            lambda: _Caller(self), "127.0.0.1", self.job.port
        )
        self.callers.add(caller)
        if self._told_ns:
            self.ready(caller, time.perf_counter_ns())

    def _tell(self, now_ns: int, unanswered: int = 0) -> None:
        seen = Seen(
            seconds=(now_ns - self._told_ns) / 1e9,
            sent=self.sent,
            answered=self.answered,
            unanswered=unanswered,
            failed=self._failed,
            took_us=_counted(self.took_ns),
            late_us=_counted(self.late_ns),
        )
        os.write(sys.stdout.fileno(), msgspec.json.encode(seen) + b"\n")
        self._told_ns = now_ns
        self.sent = self.answered = self._failed = 0

    def _unanswered(self) -> int:
        now_ns = time.perf_counter_ns()
        waited_ns = [now_ns - due for due in self.under_way() if due >= self.counted_from_ns]
        self.took_ns += waited_ns
        return len(waited_ns)


class _OpenLoad(_Load):
    """Orders that are due find an idle connection, or wait for one."""

    def begin(self, began_ns: int, ends_ns: int) -> None:
        self._idle = deque(self.callers)
        self._waiting: deque[int] = deque()  # when they were due
        self._began_ns = began_ns
        self._ends_ns = ends_ns
        self._number = 0
        self._timer = _timer(began_ns, max(10**9 // self.job.rate, TICK_NS_MIN))
        asyncio.get_running_loop().add_reader(self._timer, self._tick)

    def ready(self, caller: _Caller, now_ns: int) -> None:
        if self._waiting:
            self._send(caller, self._waiting.popleft(), now_ns)
        else:
            self._idle.append(caller)

    def under_way(self) -> list[int]:
        return [*super().under_way(), *self._waiting]

    def lost(self, caller: _Caller) -> None:
        if caller in self._idle:
            self._idle.remove(caller)
        super().lost(caller)

    def _tick(self) -> None:
        os.read(self._timer, 8)
        now_ns = time.perf_counter_ns()
        while (due_ns := self._began_ns + self._number * 10**9 // self.job.rate) <= now_ns:
            if due_ns >= self._ends_ns:
                asyncio.get_running_loop().remove_reader(self._timer)
                return
            self._number += 1
            if self._idle:
                self._send(self._idle.popleft(), due_ns, now_ns)
            else:
                self._waiting.append(due_ns)

    def _send(self, caller: _Caller, due_ns: int, now_ns: int) -> None:
        if due_ns >= self.counted_from_ns:
            self.late_ns.append(now_ns - due_ns)
        caller.send(due_ns)


class _Caller(asyncio.Protocol):
    def __init__(self, load: _Load) -> None:
        self.transport: asyncio.Transport = None  # type: ignore[assignment]  # until connected
        self.due_ns = 0  # of the order that is under way; 0: there is none
        self._load = load
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.lost(self)

    def send(self, due_ns: int) -> None:
        self.due_ns = due_ns
        self._load.sent += 1
        self.transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        if self._got:
            data = self._got + data
        if not data.startswith(_TAKEN[: len(data)]):
            self.transport.abort()
        elif data.endswith(ANSWER_END):
            now_ns, load = time.perf_counter_ns(), self._load
            if self.due_ns >= load.counted_from_ns:
                load.took_ns.append(now_ns - self.due_ns)
            load.answered += 1
            self._got, self.due_ns = b"", 0
            load.ready(self, now_ns)
        else:
            self._got = data


def _timer(first_ns: int, every_ns: int) -> int:
    """A descriptor that becomes readable at these moments: the event loop's own timers know
    milliseconds only.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    times = (*divmod(every_ns, 10**9), *divmod(first_ns + every_ns, 10**9))
    if fd < 0 or libc.timerfd_settime(fd, _TIMER_ABSOLUTE, (ctypes.c_long * 4)(*times), None):
        raise OSError(ctypes.get_errno(), "no timer")
    return fd


async def _until(at_ns: int) -> None:
    await asyncio.sleep(max(at_ns - time.perf_counter_ns(), 0) / 1e9)


def _counted(times_ns: list[int]) -> dict[int, int]:
    """How many took so many microseconds; the list is empty afterwards."""
    counts = Counter(one // 1000 for one in times_ns)
    times_ns.clear()
    return counts


async def _main() -> None:
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    gc.disable()
    async with asyncio.TaskGroup() as group:  # a connection that can't be had again ends it
        await (_OpenLoad if job.rate else _Load)(job, group).run()


if __name__ == "__main__":
    uvloop.run(_main())
