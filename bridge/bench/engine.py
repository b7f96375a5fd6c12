"""The engine service as clients meet it: open loop over loopback, durable before each answer.

Latency is the time of an answer minus the time at which its command was *scheduled* to be sent, so
that a service (or this program) that falls behind is charged for all who wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import select
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from bridge.bench.conditions import CpuMeter, conditions
from bridge.bench.orders import OrderFlow
from engine.client import EngineClient
from engine.errors import EngineUnavailable
from engine.outcomes import Rows
from engine.protocol import (
    EVENTS,
    Login,
    MessageReader,
    MessageType,
    message,
    packed,
)
from engine.types import Command, CommandKind, EventFlag, EventKind, Mode, Role
from engine.wire import EVENT_DTYPE, instrument_command

SESSIONS = 8
INSTRUMENTS = 4
TICK_NS = 250_000  # commands that fall due within one tick are sent together
UNANSWERED_MAX = 2**22  # remembered for each session; more would be answered never
DRAIN_S = 30.0  # after the last command is sent, for the answers
ALONE = 500  # orders of the measurement of one order at a time
LATENCY_US_MAX = 60_000_000
KEY = "bench"


async def run(*, rate: int, seconds: float, implementation: str, directory: Path) -> dict[str, Any]:
    """Commands/s offered for so long. `directory` decides which disk the journal is on; what is
    written there is removed.
    """
    place = _place(directory)
    told = conditions(place)
    try:
        async with _service(place / "journal", implementation) as (pid, port):
            control = await _opened(port)
            alone = await asyncio.to_thread(_measure_alone, port)
            before = await control.status()
            load = _Load(port, rate=rate, seconds=seconds)
            meter = CpuMeter(pid)
            await asyncio.to_thread(load.run)
            cpu = meter.read()
            after = await control.status()
            await control.close()
    finally:
        shutil.rmtree(place, ignore_errors=True)
    frames = after.frames - before.frames
    return {
        "name": "engine",
        "implementation": after.implementation,
        "conditions": told | cpu,
        "sessions": SESSIONS,
        "instruments": INSTRUMENTS,
        "order_mix": load.flow.mix,
        "one_order_alone_us": alone,
        **load.report(),
        "frames_per_s": round(frames / load.elapsed_s, 1),
        "commands_per_frame": round((after.seq - before.seq) / max(frames, 1), 1),
    }


def _place(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="bench-engine-", dir=directory))


# --- the load


class _Session:
    def __init__(self, port: int, name: str) -> None:
        self.socket, self.last_ref = _login(port, name)
        self.unsent = b""
        self.scheduled_ns = np.zeros(UNANSWERED_MAX, np.int64)  # by reference
        self.reader = MessageReader(payload_bytes_max=2**31)

    def send(self, data: bytes = b"") -> None:
        self.unsent += data
        with contextlib.suppress(BlockingIOError):
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]


class _Load:
    """Sends and receives in one thread: two would only wait for each other's interpreter."""

    def __init__(self, port: int, *, rate: int, seconds: float) -> None:
        self.flow = OrderFlow(instruments=INSTRUMENTS, epoch=1, seed=7)
        self.elapsed_s = 0.0
        self._rate = rate
        self._total = int(rate * seconds)
        self._sent = self._answered = 0
        self._last_sent_s = 0.0
        self._counts = np.zeros(1, np.int64)  # of answers, by latency in us
        self._kinds = np.zeros(256, np.int64)  # of events
        self._sessions = {
            session.socket: session
            for session in (_Session(port, f"bench-{n}") for n in range(SESSIONS))
        }

    def run(self) -> None:
        sessions = list(self._sessions.values())
        for session in sessions:
            session.socket.setblocking(False)
        began_ns = time.perf_counter_ns() + TICK_NS
        deadline_ns = began_ns + int(self._total / self._rate * 1e9 + DRAIN_S * 1e9)
        turn = 0
        while self._answered < self._total and time.perf_counter_ns() < deadline_ns:
            due = min(self._total, (time.perf_counter_ns() - began_ns) * self._rate // 10**9)
            if due > self._sent:
                self._send(sessions[turn % SESSIONS], began_ns, due)
                turn += 1
            self._receive(began_ns)
        self.elapsed_s = (time.perf_counter_ns() - began_ns) / 1e9
        for session in sessions:
            session.socket.close()

    def report(self) -> dict[str, Any]:
        histogram = HdrHistogram(1, LATENCY_US_MAX, 3)
        for us in np.flatnonzero(self._counts).tolist():
            histogram.record_value(max(us, 1), int(self._counts[us]))
        percentiles = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}
        return {
            "rate_offered": self._rate,
            "rate_sent": round(self._sent / max(self._last_sent_s, 1e-9)),
            "rate_answered": round(self._answered / self.elapsed_s),
            "seconds": round(self.elapsed_s, 2),
            "sent": self._sent,
            "answered": self._answered,
            "events": {
                kind.name.lower(): int(self._kinds[kind]) for kind in EventKind if self._kinds[kind]
            },
            "latency_from_schedule_us": {
                name: int(histogram.get_value_at_percentile(at)) for name, at in percentiles.items()
            },
        }

    def _send(self, session: _Session, began_ns: int, due: int) -> None:
        count = min(due - self._sent, 4096)
        rows = self.flow.take(count)
        refs = np.arange(session.last_ref + 1, session.last_ref + 1 + count, dtype=np.uint64)
        rows["ref"] = refs
        session.last_ref += count
        numbers = np.arange(self._sent, self._sent + count, dtype=np.int64)
        session.scheduled_ns[refs % UNANSWERED_MAX] = began_ns + numbers * 10**9 // self._rate
        session.send(message(MessageType.COMMANDS, rows.tobytes()))
        self._sent += count
        self._last_sent_s = (time.perf_counter_ns() - began_ns) / 1e9

    def _receive(self, began_ns: int) -> None:
        """Until the next tick at the latest."""
        now_ns = time.perf_counter_ns()
        wait_s = 0.001
        if self._sent < self._total:
            wait_s = (TICK_NS - (now_ns - began_ns) % TICK_NS) / 1e9
        blocked = [each.socket for each in self._sessions.values() if each.unsent]
        readable, writable, _ = select.select(list(self._sessions), blocked, [], wait_s)
        for one in writable:
            self._sessions[one].send()
        for one in readable:
            session = self._sessions[one]
            data = one.recv(2**20)
            if not data:
                raise EngineUnavailable("the engine closed a connection of the bench")
            answered_ns = time.perf_counter_ns()
            for kind, payload in session.reader.feed(data):
                if kind == MessageType.EVENTS:
                    events = np.frombuffer(payload, EVENT_DTYPE, offset=EVENTS.size)
                    self._count(session, events, answered_ns)
                elif kind == MessageType.REJECTED:
                    raise EngineUnavailable(
                        f"the engine disconnected the bench: {bytes(payload)!r}"
                    )

    def _count(self, session: _Session, events: Rows, answered_ns: int) -> None:
        refs = events["ref"][(events["flags"] & EventFlag.LAST) != 0]
        waited_us = (answered_ns - session.scheduled_ns[refs % UNANSWERED_MAX]) // 1000
        counts = np.bincount(np.clip(waited_us, 1, LATENCY_US_MAX))
        if len(counts) > len(self._counts):
            self._counts = np.concatenate(
                (self._counts, np.zeros(len(counts) - len(self._counts), np.int64))
            )
        self._counts[: len(counts)] += counts
        self._kinds += np.bincount(events["kind"], minlength=256)
        self._answered += len(refs)


def _measure_alone(port: int) -> dict[str, float]:
    """One order in the whole engine, the next when it has been answered."""
    client, last_ref = _login(port, "bench-alone")
    reader = MessageReader(payload_bytes_max=2**31)
    flow = OrderFlow(instruments=INSTRUMENTS, epoch=1, seed=11, first_order_id=2**60)
    waited_us: list[float] = []
    with client:
        for n in range(ALONE):
            rows = flow.take(1)
            rows["ref"] = last_ref + 1 + n
            data = message(MessageType.COMMANDS, rows.tobytes())
            began_ns = time.perf_counter_ns()
            client.sendall(data)
            _receive_one(client, reader, MessageType.EVENTS)
            waited_us.append((time.perf_counter_ns() - began_ns) / 1000)
    found: npt.NDArray[Any] = np.percentile(waited_us, (50, 99))
    return {"p50": round(float(found[0]), 1), "p99": round(float(found[1]), 1), "orders": ALONE}


def _login(port: int, name: str) -> tuple[socket.socket, int]:
    client = socket.create_connection(("127.0.0.1", port))
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    client.sendall(packed(MessageType.LOGIN, Login(name=name, key=f"{KEY}-{Role.TRADE}")))
    _receive_one(client, MessageReader(payload_bytes_max=2**31), MessageType.ACCEPTED)
    return client, 0


def _receive_one(client: socket.socket, reader: MessageReader, wanted: MessageType) -> None:
    while True:
        data = client.recv(2**16)
        if not data:
            raise EngineUnavailable("the engine closed a connection of the bench")
        for kind, _ in reader.feed(data):
            if kind == wanted:
                return


# --- the service, in a process of its own


@contextlib.asynccontextmanager
async def _service(directory: Path, implementation: str) -> AsyncIterator[tuple[int, int]]:
    told = json.dumps({"directory": str(directory), "implementation": implementation})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from bridge.bench.engine import serve_here; serve_here()", told),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = await process.stdout.readline()
        if not line:
            raise EngineUnavailable("the engine of the bench did not start; see its message above")
        yield process.pid, int(line)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


def serve_here() -> None:
    """Entry of the service's process: JSON settings in the last argument, the port on stdout."""
    import uvloop

    from engine.service import EngineKey, EngineSettings, serve

    told = json.loads(sys.argv[-1])
    settings = EngineSettings(
        host="127.0.0.1",
        port=0,
        directory=Path(told["directory"]),
        implementation=told["implementation"],
        shard=1,
        keys=tuple(EngineKey(role=role, key=f"{KEY}-{role}") for role in Role),
    )

    async def until_terminated() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await serve(settings, ready=lambda port: print(port, flush=True), stop=stop)

    uvloop.run(until_terminated())


async def _opened(port: int) -> EngineClient:
    control = EngineClient(host="127.0.0.1", port=port, name="bench", key=f"{KEY}-{Role.ADMIN}")
    await control.start()
    for instrument in range(1, INSTRUMENTS + 1):
        define = instrument_command(
            instrument=instrument,
            name=f"BENCH-{instrument}",
            price_ticks_max=10**9,
            qty_lots_max=10**9,
        )
        live = Command(kind=CommandKind.MODE, instrument=instrument, epoch=1, aux=Mode.LIVE)
        await control.send([define, live], timeout_s=10.0)
    return control
