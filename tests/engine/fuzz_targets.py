"""What is fuzzed of the Python side: functions that take any bytes, and raise if the engine does
with them what it must not do. What is foreign is refused by an error of ours, or read.

`fuzzing.py` runs them under atheris, which looks for bytes that reach new lines; test_fuzz under
Hypothesis.
"""

from __future__ import annotations

import functools
import random
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from command_flow import BOUNDS, Flow, Mix
from market_pair import Batch, Pair

import bridge.sandbox
from bridge.config import parse
from bridge.errors import ConfigError
from engine.errors import BadMessage, JournalDamaged, SnapshotUnreadable
from engine.frame import (
    FRAME_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    START,
    Link,
    read_frame_header,
    read_segment_header,
    seal_frame,
    segment_header,
)
from engine.held import decode_held, encode_held
from engine.limits import COMMAND_STEP_NS
from engine.market import IMPLEMENTATIONS, create_market, restore_market
from engine.protocol import (
    Accepted,
    Login,
    MessageReader,
    MessageType,
    Query,
    Rejected,
    Reply,
    message,
    packed,
    unpacked,
)
from engine.replay import Frame, JournalReader
from engine.segment import segment_path
from engine.snapshot_file import Snapshot, read_snapshot, snapshot_path, write_snapshot

_STRUCTS = {
    MessageType.LOGIN: Login,
    MessageType.ACCEPTED: Accepted,
    MessageType.QUERY: Query,
    MessageType.REPLY: Reply,
    MessageType.REJECTED: Rejected,
}
_PAYLOAD_BYTES_MAX = 4_096


def messages(data: bytes) -> None:
    """However the bytes arrive, they are the same messages, or no messages at the same place."""
    size, stream = 1 + data[0] % 80 if data else 1, data[1:]
    pieces = [stream[at : at + size] for at in range(0, len(stream), size)]
    whole, cut = _received([stream]), _received(pieces)
    assert whole == cut, (whole, cut)
    for kind, payload in whole[0]:
        if kind in _STRUCTS:
            with suppress(BadMessage):
                again = packed(MessageType(kind), unpacked(memoryview(payload), _STRUCTS[kind]))
                assert _received([again])[0]


def _received(pieces: list[bytes]) -> tuple[list[tuple[int, bytes]], str]:
    reader, found = MessageReader(payload_bytes_max=_PAYLOAD_BYTES_MAX), []
    try:
        for piece in pieces:
            for kind, payload in reader.feed(piece):
                found.append((kind, bytes(payload)))
    except BadMessage as error:
        return found, str(error)
    return found, ""


def headers(data: bytes) -> None:
    """Of frames and segments: read or `Unreadable`, never an error."""
    read_frame_header(data[:FRAME_HEADER_BYTES].ljust(FRAME_HEADER_BYTES, b"\0"))
    read_segment_header(data[:SEGMENT_HEADER_BYTES])


def journal(data: bytes) -> None:
    """A damaged journal gives frames that were written, up to a place; or it is refused."""
    whole = _a_journal()
    damaged = _damaged(whole, data)
    with tempfile.TemporaryDirectory(prefix="railswitch-fuzz-") as name:
        segment_path(Path(name), 1).write_bytes(damaged)
        frames = _frames(Path(name))
    assert frames == _frames_of_the_journal()[: len(frames)] or damaged == whole


def _frames(directory: Path) -> list[Frame]:
    reader, frames = JournalReader(directory, shard=1), []
    try:
        with suppress(JournalDamaged):
            while isinstance(frame := reader.read(), Frame):
                frames.append(frame)
    finally:
        reader.close()
    return frames


def snapshots(data: bytes) -> None:
    """Both markets refuse them, or both become a market that writes the same bytes again."""
    damaged = _damaged(_a_snapshot(), data[1:]) if data[:1] < b"\x80" else data[1:]
    outcomes = []
    for implementation in IMPLEMENTATIONS:
        try:
            market = restore_market(implementation, damaged)
        except SnapshotUnreadable:
            outcomes.append(b"")
        else:
            market.check()
            outcomes.append(market.snapshot())
    assert outcomes[0] == outcomes[1]
    assert outcomes[0] in (b"", damaged)


def snapshot_files(data: bytes) -> None:
    """The snapshot that was written, or SnapshotUnreadable."""
    with suppress(SnapshotUnreadable):
        assert encode_held(decode_held(data)) == data
    with tempfile.TemporaryDirectory(prefix="railswitch-fuzz-") as name:
        path = snapshot_path(Path(name), 1)
        path.write_bytes(_damaged(_a_snapshot_file(), data))
        with suppress(SnapshotUnreadable):
            assert read_snapshot(path, shard=1).market == _a_snapshot()


def commands(data: bytes) -> None:
    """Both markets do the same; the bytes are what the generator of commands draws from."""
    bounded = data[:1] < b"\x40"
    draws = _Drawn(data[1:])
    flow = Flow(Mix(bounded=bounded, ids=30, width_ticks=5, qty_max=9, broken=6, plain=5))
    flow.random = draws
    pair = Pair(BOUNDS if bounded else None)
    pair.apply(Batch(flow.opening(), flow.ts_ns))
    while not draws.is_used_up:
        pair.apply(Batch(*flow.batch(pair.rust, 4)))
    pair.compare()
    pair.restored()


class _Drawn(random.Random):
    """Random numbers that are somebody's bytes; zeros when there are no more."""

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data, self._at = data, 0

    @property
    def is_used_up(self) -> bool:
        return self._at >= len(self._data)

    def _taken(self, size: int) -> int:
        taken = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(taken.ljust(size, b"\0"), "little")

    def random(self) -> float:
        return self._taken(1) / 256

    def getrandbits(self, k: int, /) -> int:
        return self._taken((k + 7) // 8) & ((1 << k) - 1)


def configuration(data: bytes) -> None:
    """A configuration, keys and all, is read or refused with what is wrong in it."""
    with suppress(ConfigError):
        text = data[1:] if data[:1] >= b"\x80" else _damaged(_a_configuration(), data[1:])
        parse(text.decode(errors="replace"), source="railswitch.toml")


TARGETS: dict[str, Callable[[bytes], None]] = {
    each.__name__: each
    for each in (messages, headers, journal, snapshots, snapshot_files, commands, configuration)
}


# --- real ones, to begin with and to damage


def _damaged(whole: bytes, data: bytes) -> bytes:
    """With bytes changed as `data` says, three for each: place, value; and cut, if two are left."""
    changed = bytearray(whole)
    for at in range(0, len(data) - 2, 3):
        changed[int.from_bytes(data[at : at + 2], "little") % len(changed)] = data[at + 2]
    if len(data) % 3 == 2:
        del changed[int.from_bytes(data[-2:], "little") % len(changed) :]
    return bytes(changed)


@functools.cache
def _batches() -> tuple[Batch, ...]:
    market, flow = create_market("python"), Flow(Mix(seed=3, instruments=3))
    batches = [Batch(flow.opening(), flow.ts_ns)]
    market.apply(*batches[0][:2])
    while len(batches) < 12:
        commands_, ts_ns, _ = flow.batch(market, 15)
        batches.append(Batch(commands_, max(ts_ns, market.last_ts_ns + COMMAND_STEP_NS)))
        market.apply(*batches[-1][:2])
    return tuple(batches)


@functools.cache
def _a_journal() -> bytes:
    link, parts = START, [segment_header(shard=1, after=START)]
    for batch in _batches():
        frame = bytearray(FRAME_HEADER_BYTES) + batch.commands
        link = seal_frame(
            frame,
            first_seq=link.next_seq,
            ts_ns=max(batch.ts_ns, link.next_ts_ns),
            after=link,
            step_ns=COMMAND_STEP_NS,
        )
        parts.append(bytes(frame))
    return b"".join(parts) + bytes(4_096)


@functools.cache
def _frames_of_the_journal() -> list[Frame]:
    with tempfile.TemporaryDirectory(prefix="railswitch-fuzz-") as name:
        segment_path(Path(name), 1).write_bytes(_a_journal())
        return _frames(Path(name))


@functools.cache
def _a_snapshot() -> bytes:
    market = create_market("python")
    for batch in _batches():
        market.apply(batch.commands, batch.ts_ns)
    return market.snapshot()


@functools.cache
def _a_snapshot_file() -> bytes:
    with tempfile.TemporaryDirectory(prefix="railswitch-fuzz-") as name:
        link = Link(next_seq=1, crc=0, frame_hash=bytes(16), next_ts_ns=0)
        written = write_snapshot(Path(name), Snapshot(link, _a_snapshot(), ()), shard=1)
        return written.read_bytes()


@functools.cache
def _a_configuration() -> bytes:
    return Path(bridge.sandbox.__file__).with_name("railswitch.toml").read_bytes()


def seeds(target: str) -> Iterator[bytes]:
    """What a run begins with."""
    yield b""
    yield bytes(range(256)) * 4
    if target == "messages":
        yield b"\7" + packed(MessageType.LOGIN, Login(name="proxy-0", key="secret"))
        yield (
            b"\50"
            + message(MessageType.HEARTBEAT) * 3
            + packed(MessageType.QUERY, Query(id=7, what="book", instrument=1))
        )
    elif target == "headers":
        yield _a_journal()[SEGMENT_HEADER_BYTES:][:FRAME_HEADER_BYTES]
        yield _a_journal()[:SEGMENT_HEADER_BYTES]
    elif target == "snapshots":
        yield b"\xff" + _a_snapshot()
    elif target == "configuration":
        yield b"\xff" + _a_configuration()
    else:
        for seed in range(3):
            yield random.Random(seed).randbytes(600)
