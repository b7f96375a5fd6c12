"""What is kept over a restart for references that are sent again: the newest commands of each
session, with the events they were answered with. In a snapshot, and of a replay.

Little-endian, sessions ascending, frames oldest first:

    session   u16 number, 2 B zero, u32 frames, u64 the highest reference whose outcome is gone
    frame     u64 first_seq and u64 ts_ns of the journal frame, u32 commands, u32 bytes of events;
              the session's commands of that frame, then their events

A client may have CLIENT_UNANSWERED_MAX commands unanswered: so many of each session are kept, in
whole parts of frames and within OUTCOME_BYTES_MAX. Older ones are answered OUTCOME_EXPIRED after a
recovery.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.outcomes import command_ends, events_of, runs, sessions_of
from engine.wire import COMMAND_BYTES, COMMAND_DTYPE, EVENT_BYTES

_SESSION = struct.Struct("<H2sIQ")
_FRAME = struct.Struct("<QQII")


class HeldFrame(NamedTuple):
    """One session's part of a journal frame."""

    commands: bytes
    first_seq: int  # of the journal frame
    ts_ns: int
    events: bytes

    @property
    def length(self) -> int:
        return len(self.commands) // COMMAND_BYTES

    @property
    def first_ref(self) -> int:
        return int(np.frombuffer(self.commands, COMMAND_DTYPE)["ref"][0])


class HeldSession(NamedTuple):
    session: int
    expired_ref: int  # outcomes of references up to this one are gone
    frames: tuple[HeldFrame, ...]


class _Window(NamedTuple):
    """A whole journal frame that has not been taken apart yet."""

    commands: bytes
    first_seq: int
    ts_ns: int
    events: bytes
    counts: npt.NDArray[np.int64]  # commands of each session, by its number


class Held:
    """Follows a replay, and says in the end what is to be kept.

    Most of what a replay goes through is soon too old to be kept. Frames are taken apart only when
    they leave a window and hold something of a session that has been quiet since.
    """

    def __init__(self, held: Iterable[HeldSession] = ()) -> None:
        self._frames = {each.session: deque(each.frames) for each in held}
        self._has_expired = np.zeros(0, bool)  # by session
        for each in held:
            if each.expired_ref:
                self._has_expired = _grown(self._has_expired, each.session + 1)
                self._has_expired[each.session] = True
        self._window: deque[_Window] = deque()
        self._window_bytes = 0
        self._counts = np.zeros(0, np.int64)  # in the window, by session

    def add(self, commands: bytes, first_seq: int, ts_ns: int, events: bytes) -> None:
        """Of a whole journal frame."""
        counts = np.bincount(sessions_of(commands))
        counts[0] = 0
        self._counts = _grown(self._counts, len(counts))
        self._counts[: len(counts)] += counts
        self._window.append(_Window(commands, first_seq, ts_ns, events, counts))
        self._window_bytes += len(commands) + len(events)
        while self._window_bytes > limits.HELD_WINDOW_BYTES:
            self._leave(self._window.popleft())

    def sessions(self) -> tuple[HeldSession, ...]:
        """Ascending by number; the replay may go on."""
        newest: dict[int, deque[HeldFrame]] = {}
        needed = np.full(len(self._counts), limits.CLIENT_UNANSWERED_MAX)
        has_more = np.zeros(len(self._counts), bool)
        for one in reversed(self._window):
            present = one.counts > 0
            wanted = present & (needed[: len(present)] > 0)
            has_more[: len(present)] |= present & ~wanted
            if wanted.any():
                for session, frame in reversed(_parts(one, wanted)):
                    newest.setdefault(session, deque()).appendleft(frame)
                needed[: len(present)] -= np.where(wanted, one.counts, 0)
        numbers = sorted(newest.keys() | self._frames.keys())
        return tuple(self._session(number, newest.get(number), has_more) for number in numbers)

    def _session(
        self, number: int, newest: deque[HeldFrame] | None, has_more: npt.NDArray[np.bool_]
    ) -> HeldSession:
        frames = deque(self._frames.get(number, ()))
        has_gone = _at(self._has_expired, number) or _at(has_more, number)
        if _at(has_more, number):
            frames.clear()
        frames += newest or ()
        has_gone = _trim(frames) or has_gone
        return HeldSession(number, frames[0].first_ref - 1 if has_gone else 0, tuple(frames))

    def _leave(self, one: _Window) -> None:
        self._window_bytes -= len(one.commands) + len(one.events)
        size = len(one.counts)
        self._counts[:size] -= one.counts
        present = one.counts > 0
        wanted = present & (self._counts[:size] < limits.CLIENT_UNANSWERED_MAX)
        self._has_expired = _grown(self._has_expired, size)
        for session in np.flatnonzero(present & ~wanted).tolist():
            self._frames.pop(session, None)
            self._has_expired[session] = True
        if wanted.any():
            for session, frame in _parts(one, wanted):
                frames = self._frames.setdefault(session, deque())
                frames.append(frame)
                if _trim(frames):
                    self._has_expired[session] = True


def _parts(one: _Window, wanted: npt.NDArray[np.bool_]) -> list[tuple[int, HeldFrame]]:
    """What a frame holds of the wanted sessions."""
    ends = command_ends(one.events, len(one.commands) // COMMAND_BYTES)
    found: list[tuple[int, HeldFrame]] = []
    for session, start, count in runs(one.commands):
        if wanted[session]:
            part = one.commands[start * COMMAND_BYTES : (start + count) * COMMAND_BYTES]
            told = events_of(one.events, ends, start, count)
            found.append((session, HeldFrame(part, one.first_seq, one.ts_ns, told)))
    return found


def _trim(frames: deque[HeldFrame]) -> bool:
    """Drops what is too old or too much; whether there was any."""
    count = sum(one.length for one in frames)
    size = sum(len(one.events) for one in frames)
    had = len(frames)
    while len(frames) > 1 and (
        count - frames[0].length >= limits.CLIENT_UNANSWERED_MAX or size > limits.OUTCOME_BYTES_MAX
    ):
        gone = frames.popleft()
        count -= gone.length
        size -= len(gone.events)
    return len(frames) < had


def _grown(values: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    return values if size <= len(values) else np.pad(values, (0, size - len(values)))


def _at(values: npt.NDArray[np.bool_], index: int) -> bool:
    return index < len(values) and bool(values[index])


def encode_held(sessions: Iterable[HeldSession]) -> bytes:
    parts: list[bytes] = []
    for each in sessions:
        parts.append(_SESSION.pack(each.session, bytes(2), len(each.frames), each.expired_ref))
        for one in each.frames:
            parts += [_FRAME.pack(one.first_seq, one.ts_ns, one.length, len(one.events))]
            parts += [one.commands, one.events]
    return b"".join(parts)


def decode_held(data: bytes | memoryview) -> tuple[HeldSession, ...]:
    """Raises SnapshotUnreadable for what `encode_held` can't have written."""
    view, at = memoryview(data), 0
    sessions: list[HeldSession] = []
    try:
        while at < len(view):
            session, padding, count, expired_ref = _SESSION.unpack_from(view, at)
            at += _SESSION.size
            frames: list[HeldFrame] = []
            for _ in range(count):
                frame, at = _decode_frame(view, at)
                frames.append(frame)
            sessions.append(HeldSession(session, expired_ref, tuple(frames)))
            if any(padding) or (len(sessions) > 1 and sessions[-2].session >= session):
                raise ValueError("its sessions don't ascend")
    except (struct.error, ValueError) as error:
        raise SnapshotUnreadable(f"not a snapshot: its outcomes: {error}") from None
    return tuple(sessions)


def _decode_frame(view: memoryview, at: int) -> tuple[HeldFrame, int]:
    first_seq, ts_ns, count, events_bytes = _FRAME.unpack_from(view, at)
    start = at + _FRAME.size
    middle = start + count * COMMAND_BYTES
    end = middle + events_bytes
    if end > len(view) or not count or events_bytes % EVENT_BYTES:
        raise ValueError("they end inside a frame")
    events = bytes(view[middle:end])
    command_ends(events, count)
    return HeldFrame(bytes(view[start:middle]), first_seq, ts_ns, events), end
