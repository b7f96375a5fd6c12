"""Snapshots on the disk: recovered from one, a shard is what its whole journal makes of it."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from journal_story import SHARD, Story, append, opened, rows, written
from market_driver import market_or_skip

from engine import limits
from engine.errors import JournalDamaged, SnapshotUnreadable
from engine.outcomes import Outcome
from engine.reject import Reason
from engine.segment import segment_path, segment_paths
from engine.sequencer import Sequencer
from engine.snapshot_file import (
    next_seq_of,
    read_snapshot,
    snapshot_paths,
    write_snapshot,
)
from engine.snapshotter import Taken, take_snapshot
from engine.wire import EVENT_DTYPE


@pytest.fixture(autouse=True)
def _available(implementation: str) -> None:
    market_or_skip(implementation)


def taken(directory: Path, implementation: str) -> Taken:
    found = take_snapshot(directory, shard=SHARD, implementation=implementation)
    assert found is not None
    return found


def copied(directory: Path, to: Path) -> Path:
    """Without its snapshots: what the journal alone comes to."""
    to.mkdir()
    for path in segment_paths(directory):
        (to / path.name).write_bytes(path.read_bytes())
    return to


def again(sequencer: Sequencer[Any], commands: bytes, session: int) -> list[Outcome]:
    """What commands of one session get that are sent once more."""
    of_session = rows(commands)
    of_session = of_session[of_session["session"] == session]
    return list(sequencer._lane(session).outcomes.again(of_session))


def test_snapshot_and_tail_are_the_whole_journal(tmp_path: Path, implementation: str) -> None:
    here = tmp_path / "here"
    story = Story()
    written(here, story, frames=40)
    taken(here, implementation)
    written(here, story, frames=40)
    whole = opened(copied(here, tmp_path / "whole"), implementation)
    whole.journal.close()
    assert not whole.snapshots
    found = opened(here, implementation)
    found.journal.close()
    (snapshot,) = found.snapshots
    assert found.hash == whole.hash
    assert found.journal.link == whole.journal.link
    assert found.frames == [one for one in whole.frames if one.first_seq > snapshot.seq]
    assert 0 < len(found.frames) < len(whole.frames)
    found.market.check()
    commands = b"".join(frame.commands for frame in whole.frames)
    for session in (2, 3, 4):
        outcomes = again(whole.sequencer, commands, session)
        assert len(outcomes) > 20
        assert again(found.sequencer, commands, session) == outcomes


def test_a_snapshot_of_one_implementation_is_recovered_by_the_other(
    tmp_path: Path, implementation: str
) -> None:
    written(tmp_path, Story(), frames=40)
    taken(tmp_path, implementation)
    other = {"python": "rust", "rust": "python"}[implementation]
    market_or_skip(other)
    found = opened(tmp_path, other)
    found.journal.close()
    assert found.snapshots
    whole = opened(copied(tmp_path, tmp_path / "whole"), implementation)
    whole.journal.close()
    assert found.hash == whole.hash


def test_a_snapshot_is_made_of_a_snapshot_and_what_followed_it(
    tmp_path: Path, implementation: str
) -> None:
    here = tmp_path / "here"
    story = Story()
    commands = 0
    for _ in range(4):
        written(here, story, frames=30)
        commands += taken(here, implementation).commands
    first, second = snapshot_paths(here)
    assert next_seq_of(second) == commands + 1, "each goes on where the one before ended"
    at_once = copied(here, tmp_path / "at once")
    taken(at_once, implementation)
    (other,) = snapshot_paths(at_once)
    assert other.name == second.name
    assert other.read_bytes() == second.read_bytes()
    assert next_seq_of(first) < next_seq_of(second)


def test_it_is_made_while_the_journal_is_written_to(tmp_path: Path, implementation: str) -> None:
    story = Story()
    written(tmp_path, story, frames=40)
    writing = opened(tmp_path, implementation)
    path = taken(tmp_path, implementation).path
    for n in range(60):
        append(writing.journal, story.frame(1 + n % 40))
    assert next_seq_of(taken(tmp_path, implementation).path) > next_seq_of(path)
    writing.journal.close()
    found = opened(tmp_path, implementation)
    found.journal.close()
    assert found.journal.link == writing.journal.link
    assert found.snapshots[0].seq == next_seq_of(snapshot_paths(tmp_path)[-1]) - 1


def test_what_is_in_the_last_segment_is_in_no_snapshot(tmp_path: Path, implementation: str) -> None:
    """Its frames may not be durable yet."""
    written(tmp_path, Story(), frames=3)
    assert take_snapshot(tmp_path, shard=SHARD, implementation=implementation) is None
    written(tmp_path, Story(2), frames=0)
    assert snapshot_paths(tmp_path) == []


def test_two_are_kept(tmp_path: Path, implementation: str) -> None:
    story = Story()
    made = []
    for _ in range(4):
        written(tmp_path, story, frames=30)
        made.append(taken(tmp_path, implementation).path)
    assert snapshot_paths(tmp_path) == made[-2:]
    assert take_snapshot(tmp_path, shard=SHARD, implementation=implementation) is None


def test_a_bad_one_does_not_count_among_those_kept(tmp_path: Path, implementation: str) -> None:
    story = Story()
    made = []
    for n in range(4):
        written(tmp_path, story, frames=30)
        made.append(taken(tmp_path, implementation).path)
        if n == 2:
            made[-1].write_bytes(b"bad")
    assert snapshot_paths(tmp_path) == made[-3:]


def test_one_with_any_bit_flipped_is_not_used(
    tmp_path: Path, implementation: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The older one is, then the whole journal; each is named in the log."""
    story = Story()
    for _ in range(2):
        written(tmp_path, story, frames=30)
        taken(tmp_path, implementation)
    older, newer = snapshot_paths(tmp_path)
    good = opened(tmp_path, implementation)
    good.journal.close()
    data = newer.read_bytes()
    for at in [*range(0, 128, 3), *range(128, len(data), len(data) // 40)]:
        flipped = bytearray(data)
        flipped[at] ^= 1 << at % 8
        newer.write_bytes(flipped)
        with pytest.raises(SnapshotUnreadable, match="no snapshot that can be used"):
            read_snapshot(newer, shard=SHARD)
    for cut in (0, 1, 127, 128, 129, len(data) // 2, len(data) - 1):
        newer.write_bytes(data[:cut])
        with pytest.raises(SnapshotUnreadable):
            read_snapshot(newer, shard=SHARD)
    with caplog.at_level(logging.WARNING):
        found = opened(tmp_path, implementation)
    found.journal.close()
    assert found.hash == good.hash
    assert found.snapshots[0].seq == next_seq_of(older) - 1
    assert str(newer) in caplog.text
    older.write_bytes(older.read_bytes()[:-1])
    found = opened(tmp_path, implementation)
    found.journal.close()
    assert not found.snapshots
    assert found.hash == good.hash


def test_a_whole_one_with_another_market_inside_is_not_used(
    tmp_path: Path, implementation: str
) -> None:
    """Checksums say that it is as it was written; not that it was written right."""
    story = Story()
    written(tmp_path, story, frames=30)
    first = taken(tmp_path, implementation)
    written(tmp_path, story, frames=30)
    second = taken(tmp_path, implementation)
    older, newer = read_snapshot(first.path, shard=SHARD), read_snapshot(second.path, shard=SHARD)
    second.path.unlink()
    write_snapshot(tmp_path, newer._replace(market=older.market), shard=SHARD)
    found = opened(tmp_path, implementation)
    found.journal.close()
    assert found.snapshots == [older]


def test_one_of_another_journal_or_shard_is_not_used(tmp_path: Path, implementation: str) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    written(ours, Story(1), frames=30)
    written(theirs, Story(2), frames=30)
    taken(theirs, implementation)
    (ours / snapshot_paths(theirs)[0].name).write_bytes(snapshot_paths(theirs)[0].read_bytes())
    assert next_seq_of(snapshot_paths(ours)[0]) == next_seq_of(segment_paths(ours)[-1])
    found = opened(ours, implementation)
    found.journal.close()
    assert not found.snapshots
    with pytest.raises(SnapshotUnreadable, match="it belongs to shard 1, this is shard 2"):
        read_snapshot(snapshot_paths(theirs)[0], shard=2)


def test_a_journal_that_ends_before_its_snapshot_is_refused(
    tmp_path: Path, implementation: str
) -> None:
    """Its end has been lost since: going on would give the same numbers to other orders."""
    written(tmp_path, Story(), frames=30)
    path = taken(tmp_path, implementation).path
    lost = segment_path(tmp_path, next_seq_of(path))
    lost.rename(tmp_path / "aside")
    with pytest.raises(JournalDamaged, match=rf"{lost.name} was there when it was made\. Put it"):
        opened(tmp_path, implementation)


def test_segments_behind_the_older_snapshot_may_be_moved_away(
    tmp_path: Path, implementation: str
) -> None:
    here = tmp_path / "here"
    story = Story()
    for _ in range(2):
        written(here, story, frames=30)
        taken(here, implementation)
    written(here, story, frames=30)
    whole = opened(copied(here, tmp_path / "whole"), implementation)
    whole.journal.close()
    older, newer = snapshot_paths(here)
    moved = [path for path in segment_paths(here) if path.stem < older.stem]
    assert len(moved) > 1
    for path in moved:
        path.unlink()
    for bad in (None, newer):
        if bad is not None:
            bad.write_bytes(b"bad")
        found = opened(here, implementation)
        append(found.journal, story.frame(3))
        found.journal.close()
        if bad is None:
            assert found.hash == whole.hash
    assert taken(here, implementation)
    for path in snapshot_paths(here):
        path.unlink()
    with pytest.raises(JournalDamaged, match="the segments before it are missing, and there is no"):
        opened(here, implementation)


def test_old_references_are_expired_and_new_ones_keep_their_outcomes(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "CLIENT_UNANSWERED_MAX", 50)
    here = tmp_path / "here"
    story = Story()
    for _ in range(3):
        written(here, story, frames=40)
        taken(here, implementation)
    whole = opened(copied(here, tmp_path / "whole"), implementation)
    found = opened(here, implementation)
    for one in (whole, found):
        one.journal.close()
    commands = b"".join(frame.commands for frame in whole.frames)
    for session in (2, 3, 4):
        events = np.concatenate(
            [
                np.frombuffer(one.events, EVENT_DTYPE)
                for one in again(found.sequencer, commands, session)
            ]
        )
        expired = events[events["reason"] == Reason.OUTCOME_EXPIRED]["ref"]
        told = np.unique(events[events["reason"] != Reason.OUTCOME_EXPIRED]["ref"])
        assert len(expired)
        assert expired.max() < told.min()
        assert 50 <= len(told) < 100
        same = again(whole.sequencer, commands, session)
        assert again(found.sequencer, commands, session) == same


@pytest.mark.parametrize("call", ["fsync", "pwrite", "rename"])
def test_a_disk_that_fails_leaves_nothing_under_its_name(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    written(tmp_path, Story(), frames=30)

    def failing(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path if call == "rename" else os, call, failing)
        with pytest.raises(OSError, match="No space left"):
            take_snapshot(tmp_path, shard=SHARD, implementation=implementation)
    assert sorted(path.suffix for path in tmp_path.iterdir() if "snapshot" in path.name) == []
    assert taken(tmp_path, implementation)


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path, implementation: str) -> None:
    written(tmp_path, Story(), frames=30)
    left = tmp_path / "00000000000000000042.99.snapshot-part"
    left.write_bytes(b"half of it")
    opened(tmp_path, implementation).journal.close()
    assert not left.exists()


def test_its_process_says_what_it_did(tmp_path: Path, implementation: str) -> None:
    def run(*rest: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "engine.snapshotter", str(tmp_path), *rest]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    options = ("--shard", "1", "--implementation", implementation)
    link = written(tmp_path, Story(), frames=40)
    done = run(*options)
    assert (done.returncode, done.stderr) == (0, "")
    (path,) = snapshot_paths(tmp_path)
    assert done.stdout.startswith(f"{path} holds {next_seq_of(path) - 1} more commands; it took ")
    assert next_seq_of(path) < link.next_seq
    assert "there is a snapshot of everything" in run(*options).stdout
    path.unlink()
    segment_paths(tmp_path)[0].unlink()
    failed = run(*options)
    assert failed.returncode == 1
    assert failed.stderr.startswith("JournalDamaged: ")
    assert "Traceback" not in failed.stderr
