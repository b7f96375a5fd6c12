"""The engine service in a process of its own, for a benchmark to talk to."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from engine import limits
from engine.errors import EngineUnavailable
from engine.protocol import (
    EVENTS,
    Accepted,
    Login,
    MessageReader,
    MessageType,
    message,
    packed,
    unpacked,
)
from engine.types import EventFlag, Role
from engine.wire import COMMAND_BYTES, EVENT_BYTES

KEY = "bench"
STOP_S = 30.0  # for the service to end by itself
_FLAGS_AT = 6  # of an event's flags
_RECEIVED_AT_ONCE = 2**18


class Address(NamedTuple):
    port: int
    unix_path: str = ""  # if set, nothing else is looked at

    def connect(self) -> socket.socket:
        if not self.unix_path:
            made = socket.create_connection(("127.0.0.1", self.port))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        made.connect(self.unix_path)
        return made


@contextmanager
def engine_service(
    directory: Path, implementation: str, *, is_unix: bool = False
) -> Iterator[tuple[int, Address]]:
    """Its process id and where it listens. `directory` must exist, and gets the journal."""
    place = tempfile.mkdtemp(prefix="bench-")  # a socket's path must be short
    unix_path = f"{place}/engine.sock" if is_unix else ""
    told = {
        "directory": str(directory / "journal"),
        "implementation": implementation,
        "unix_path": unix_path,
    }
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            f"from {__name__} import serve_here; serve_here()",
            json.dumps(told),
        ],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise EngineUnavailable("the engine of the bench did not start; see its message above")
        yield process.pid, Address(int(line), unix_path)
    finally:
        if process.stdout is not None:
            process.stdout.close()
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(place, ignore_errors=True)


def serve_here() -> None:
    """Entry of the service's process: JSON settings in the last argument, the port on stdout."""
    import uvloop

    from engine.service import EngineKey, EngineSettings, serve

    told = json.loads(sys.argv[-1])
    unix_path = told.get("unix_path", "")
    settings = EngineSettings(
        host="" if unix_path else "127.0.0.1",
        port=0,
        directory=Path(told["directory"]),
        implementation=told["implementation"],
        shard=1,
        keys=tuple(EngineKey(role=role, key=f"{KEY}-{role}") for role in Role),
        unix_path=Path(unix_path) if unix_path else None,
    )

    async def until_terminated() -> None:
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await serve(settings, ready=lambda port: print(port, flush=True), stop=stop)

    uvloop.run(until_terminated())


class Channel:
    """One session that waits for each answer."""

    def __init__(self, address: Address, name: str, role: Role) -> None:
        self.socket = address.connect()
        self._reader = MessageReader(payload_bytes_max=limits.SERVER_PAYLOAD_BYTES_MAX)
        self.socket.sendall(packed(MessageType.LOGIN, Login(name=name, key=f"{KEY}-{role}")))
        self.accepted = unpacked(self._wait_for(MessageType.ACCEPTED), Accepted)

    def ask(self, commands: bytes) -> bytes:
        """Sends them, in messages as large as may be; returns all their events."""
        events = b""
        for at in range(0, len(commands), limits.CLIENT_PAYLOAD_BYTES_MAX):
            chunk = commands[at : at + limits.CLIENT_PAYLOAD_BYTES_MAX]
            self.socket.sendall(message(MessageType.COMMANDS, chunk))
            left = len(chunk) // COMMAND_BYTES
            while left:
                answer = bytes(self._wait_for(MessageType.EVENTS)[EVENTS.size :])
                flags = answer[_FLAGS_AT::EVENT_BYTES]
                left -= sum(flag & EventFlag.LAST for flag in flags)
                events += answer
        return events

    def close(self) -> None:
        self.socket.close()

    def _wait_for(self, wanted: MessageType) -> memoryview:
        """What comes before it is not looked at: there is nothing but heartbeats."""
        found: memoryview | None = None
        while found is None:
            data = self.socket.recv(_RECEIVED_AT_ONCE)
            if not data:
                raise EngineUnavailable("the engine closed a connection of the bench")
            for kind, payload in self._reader.feed(data):
                if kind == MessageType.REJECTED:
                    raise EngineUnavailable(f"the engine refused the bench: {bytes(payload)!r}")
                if kind == wanted:
                    found = payload
        return found
