"""What is kept for references that are sent again: the same, however a replay came to it."""

from __future__ import annotations

import random

import pytest
from journal_story import START_NS, Story
from market_driver import market_or_skip

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.held import Held, HeldFrame, HeldSession, decode_held, encode_held
from engine.outcomes import command_ends, events_of, runs
from engine.wire import COMMAND_BYTES

Frames = list[tuple[bytes, int, int, bytes]]


@pytest.fixture(scope="module")
def frames() -> Frames:
    """The third session is silent in the second half."""
    market, story, chance = market_or_skip("python"), Story(4), random.Random(2)
    found: Frames = []
    for n in range(150):
        commands = story.frame(chance.randrange(1, 30))
        if n > 75:
            records = [commands[at : at + 64] for at in range(0, len(commands), 64)]
            commands = b"".join(one for one in records if one[6] != 3) or records[0]
        ts_ns = START_NS + n * 10**6
        first_seq = market.last_seq + 1
        found.append((commands, first_seq, ts_ns, market.apply(commands, ts_ns)))
    return found


def specified(frames: Frames, count_max: int, bytes_max: int) -> tuple[HeldSession, ...]:
    """Of each session the newest parts of frames that make `count_max` commands."""
    parts: dict[int, list[HeldFrame]] = {}
    for commands, first_seq, ts_ns, events in frames:
        ends = command_ends(events, len(commands) // COMMAND_BYTES)
        for session, start, count in runs(commands):
            part = commands[start * COMMAND_BYTES : (start + count) * COMMAND_BYTES]
            told = events_of(events, ends, start, count)
            parts.setdefault(session, []).append(HeldFrame(part, first_seq, ts_ns, told))
    found = []
    for session, every in sorted(parts.items()):
        kept: list[HeldFrame] = []
        for one in reversed(every):
            size = sum(len(each.events) for each in (*kept, one))
            if kept and (sum(each.length for each in kept) >= count_max or size > bytes_max):
                break
            kept.insert(0, one)
        expired = kept[0].first_ref - 1 if len(kept) < len(every) else 0
        found.append(HeldSession(session, expired, tuple(kept)))
    return tuple(found)


@pytest.mark.parametrize("window", [0, 3_000, 30_000, 10**9])
@pytest.mark.parametrize(("count_max", "bytes_max"), [(1, 10**9), (60, 10**9), (60, 4_000)])
def test_the_newest_commands_of_each_session_are_kept(
    frames: Frames, monkeypatch: pytest.MonkeyPatch, window: int, count_max: int, bytes_max: int
) -> None:
    """Whatever the window, and over any number of snapshots on the way."""
    monkeypatch.setattr(limits, "HELD_WINDOW_BYTES", window)
    monkeypatch.setattr(limits, "CLIENT_UNANSWERED_MAX", count_max)
    monkeypatch.setattr(limits, "OUTCOME_BYTES_MAX", bytes_max)
    at_once, over_snapshots = Held(), Held()
    for n, frame in enumerate(frames):
        at_once.add(*frame)
        over_snapshots.add(*frame)
        if n % 40 == 7:
            expected = specified(frames[: n + 1], count_max, bytes_max)
            assert at_once.sessions() == expected
            assert over_snapshots.sessions() == expected
            over_snapshots = Held(decode_held(encode_held(expected)))
    expected = specified(frames, count_max, bytes_max)
    assert [each.session for each in expected] == [1, 2, 3, 4]
    assert at_once.sessions() == expected
    assert over_snapshots.sessions() == expected


def test_what_is_written_is_read_back_and_nothing_else_is(frames: Frames) -> None:
    held = Held()
    for frame in frames[:9]:
        held.add(*frame)
    sessions = held.sessions()
    data = encode_held(sessions)
    assert decode_held(data) == sessions
    assert decode_held(b"") == ()
    for cut in range(1, len(data), 31):
        with pytest.raises(SnapshotUnreadable):
            decode_held(data[:cut])
    with pytest.raises(SnapshotUnreadable, match="don't ascend"):
        decode_held(data + data)
