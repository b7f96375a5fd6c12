"""verify, dump and diff: what they say of journals that are whole, damaged, and being written."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from journal_story import SHARD, Story, append, opened, written
from market_driver import BTC, market_or_skip

from engine.errors import JournalDamaged, SnapshotUnreadable
from engine.frame import SEGMENT_HEADER_BYTES
from engine.journal_diff import diff
from engine.journal_dump import Wanted, dump
from engine.journal_verify import verify
from engine.journal_walk import Walk
from engine.segment import segment_paths
from engine.snapshot_file import read_snapshot, snapshot_paths, write_snapshot
from engine.snapshotter import take_snapshot
from engine.types import CommandKind
from engine.wire import decode_events


@pytest.fixture
def story(tmp_path: Path) -> Story:
    """In tmp_path/here: a journal with two snapshots."""
    one = Story()
    for _ in range(2):
        written(tmp_path / "here", one, frames=40)
        assert take_snapshot(tmp_path / "here", shard=SHARD, implementation="python")
    written(tmp_path / "here", one, frames=5)
    return one


@pytest.fixture
def here(tmp_path: Path, story: Story) -> Path:
    return tmp_path / "here"


def overwrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("rb+") as file:
        file.seek(offset)
        file.write(data)


def test_verify_says_what_is_there(here: Path, implementation: str) -> None:
    market_or_skip(implementation)
    found = verify(here, implementation=implementation)
    recovered = opened(here, implementation)
    recovered.journal.close()
    frames = list(Walk(here).frames())
    assert found.is_good
    assert (found.shard, found.first_seq, found.last_seq) == (SHARD, 1, frames[-1].last_seq)
    assert (found.frames, found.commands) == (len(frames), frames[-1].last_seq)
    assert found.segments == len(segment_paths(here))
    assert found.chain == recovered.journal.link.frame_hash.hex()
    assert found.state_hash == recovered.hash
    assert [each.replay for each in found.snapshots] == ["equal", "equal"]
    older = snapshot_paths(here)[0].stem
    before = [path.name for path in segment_paths(here) if path.stem < older]
    assert found.may_be_archived == before


def test_verify_finds_damage_and_its_place(here: Path) -> None:
    path = segment_paths(here)[1]
    overwrite(path, SEGMENT_HEADER_BYTES + 100, b"\xff\xff\xff")
    found = verify(here)
    assert not found.is_good
    assert found.place == f"{path}: offset 4096, sequence {int(path.stem)}"
    assert "the checksum of its commands is wrong" in found.damage
    assert f"{segment_paths(here)[2].name} follows" in found.damage


def test_verify_tells_a_torn_tail_from_damage(here: Path) -> None:
    last = segment_paths(here)[-1]
    at = last.read_bytes().rindex(b"RSWF") + 64
    overwrite(last, at, bytes(64))
    found = verify(here)
    assert found.is_good
    assert found.torn_bytes > 0
    overwrite(last, at, b"\x01" * 64)
    found = verify(here)
    assert not found.is_good
    assert "every command of it was written" in found.damage


def test_verify_finds_snapshots_that_are_bad_foreign_or_ahead(here: Path, tmp_path: Path) -> None:
    _, newer = snapshot_paths(here)
    data = newer.read_bytes()
    newer.write_bytes(data[:-1])
    found = verify(here)
    assert not found.is_good
    assert [bool(each.problem) for each in found.snapshots] == [False, True]
    newer.write_bytes(data)
    for path in segment_paths(here):
        if path.stem >= newer.stem:
            path.rename(tmp_path / path.name)
    assert f"has the snapshot {newer.name}, and no segment after" in verify(here).missing


def test_verify_with_a_replay_finds_a_snapshot_of_another_state(here: Path) -> None:
    older, newer = (read_snapshot(path, shard=SHARD) for path in snapshot_paths(here))
    snapshot_paths(here)[1].unlink()
    write_snapshot(here, newer._replace(market=older.market), shard=SHARD)
    assert verify(here).is_good
    found = verify(here, implementation="python")
    assert [each.replay for each in found.snapshots] == ["equal", "different"]
    assert not found.is_good


def test_verify_begins_at_a_snapshot_where_older_segments_are_gone(here: Path) -> None:
    whole = verify(here, implementation="python")
    older = snapshot_paths(here)[0]
    for path in segment_paths(here):
        if path.stem < older.stem:
            path.unlink()
    found = verify(here, implementation="python")
    assert found.is_good
    assert found.first_seq == int(older.stem)
    assert found.state_hash == whole.state_hash
    older.unlink()
    assert verify(here).is_good
    with pytest.raises(SnapshotUnreadable, match="put the segments before it back"):
        verify(here, implementation="python")


def test_verify_of_no_journal_says_so(tmp_path: Path) -> None:
    with pytest.raises(JournalDamaged, match="holds no journal"):
        verify(tmp_path)


def test_all_of_them_work_while_an_engine_writes(here: Path, story: Story) -> None:
    running = opened(here, "python")
    last = running.journal.link.next_seq
    for n in range(20):
        append(running.journal, story.frame(1 + n))
        assert verify(here).is_good
        assert diff(here, here).is_equal
    shown = list(dump(here, Wanted(from_seq=last)))
    assert [one.seq for one in shown] == list(range(last, running.journal.link.next_seq))
    running.journal.close()


def test_dump_shows_every_command_with_its_events(here: Path, implementation: str) -> None:
    market = market_or_skip(implementation)
    expected: dict[int, int] = {}
    for frame in Walk(here).frames():
        for event in decode_events(market.apply(frame.commands, frame.ts_ns, rules=frame.rules)):
            expected[event.seq] = expected.get(event.seq, 0) + 1
    shown = list(dump(here, Wanted(), implementation=implementation))
    assert {one.seq: len(one.events or ()) for one in shown} == expected
    assert all(left.at_ns < right.at_ns for left, right in pairwise(shown))
    assert shown[0].command == {"kind": "SESSION", "session": 1, "aux": 3, "name": "session-1"}
    assert shown[4].command["name"] == "BTC-USD"
    assert shown[4].events is not None
    assert shown[4].events[0]["kind"] == "INSTRUMENT"


@pytest.mark.parametrize("events", ["", "python"])
def test_dump_shows_only_what_is_asked_for(here: Path, events: str) -> None:
    every = list(dump(here, Wanted(), implementation=events))
    middle = int(snapshot_paths(here)[0].stem) + 3
    part = list(dump(here, Wanted(from_seq=middle, to_seq=middle + 30), implementation=events))
    assert part == [one for one in every if middle <= one.seq <= middle + 30]
    cancels = list(dump(here, Wanted(kind=CommandKind.CANCEL, session=2), implementation=events))
    assert cancels
    assert cancels == [
        one for one in every if (one.command["kind"], one.command["session"]) == ("CANCEL", 2)
    ]
    of_btc = list(dump(here, Wanted(instrument=BTC, to_seq=99), implementation=events))
    assert of_btc == [
        one for one in every if one.command.get("instrument") == BTC and one.seq < 100
    ]


def test_dump_of_an_order_with_events_shows_what_touched_it(here: Path) -> None:
    every = list(dump(here, Wanted(), implementation="python"))
    filled = next(
        event["contra_id"] for one in every for event in one.events or () if event["kind"] == "FILL"
    )
    own = list(dump(here, Wanted(order_id=filled)))
    all_of_it = list(dump(here, Wanted(order_id=filled), implementation="python"))
    assert {one.seq for one in own} < {one.seq for one in all_of_it}
    assert any(
        event.get("contra_id") == filled and event["kind"] == "FILL"
        for one in all_of_it
        for event in one.events or ()
    )


def test_dump_shows_what_it_can_and_then_where_the_damage_is(here: Path) -> None:
    path = segment_paths(here)[2]
    overwrite(path, SEGMENT_HEADER_BYTES + 100, b"\xff\xff\xff")
    shown = []
    with pytest.raises(JournalDamaged, match=f"{path}: offset 4096"):
        shown.extend(dump(here, Wanted()))
    assert [one.seq for one in shown] == list(range(1, int(path.stem)))
    assert list(dump(here, Wanted(to_seq=int(path.stem) - 1))) == shown


def test_dump_without_the_segments_before_says_why_there_are_no_events(here: Path) -> None:
    older = snapshot_paths(here)[0]
    for path in segment_paths(here):
        if path.stem <= older.stem:
            path.unlink()
    first = int(segment_paths(here)[0].stem)
    assert next(dump(here, Wanted())).seq == first
    with pytest.raises(JournalDamaged, match="there is no state from which"):
        next(dump(here, Wanted(from_seq=first), implementation="python"))
    newer = int(snapshot_paths(here)[1].stem)
    (one,) = dump(here, Wanted(from_seq=newer, to_seq=newer), implementation="python")
    assert one.events


def test_diff_of_equal_journals(here: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(here, other)
    found = diff(here, other, implementation="python")
    assert found.is_equal
    assert found.equal_until_seq == verify(here).last_seq
    assert found.left.state_hash == found.right.state_hash != ""


def test_diff_of_a_standby_that_is_behind(here: Path, story: Story, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(here, other)
    before = verify(here)
    written(here, story, frames=1)
    found = diff(here, other, implementation="python")
    assert not found.is_equal
    assert found.what == f"{other} ends after sequence {before.last_seq}"
    assert found.equal_until_seq == before.last_seq
    assert found.left.command is not None
    assert found.right.command is None
    assert found.left.state_hash == found.right.state_hash


def test_diff_names_the_first_command_that_differs(tmp_path: Path) -> None:
    for name, seed in (("one", 1), ("other", 2)):
        story = Story(3)
        written(tmp_path / name, story, frames=4, length=lambda n: 9)
        story._random.seed(seed)
        written(tmp_path / name, story, frames=6, length=lambda n: 9)
    one, other = (list(dump(tmp_path / name, Wanted())) for name in ("one", "other"))
    first = next(
        left.seq for left, right in zip(one, other, strict=False) if left.command != right.command
    )
    found = diff(tmp_path / "one", tmp_path / "other", implementation="python")
    assert found.what == f"sequence {first} differs"
    assert found.left.command == one[first - 1].command
    assert found.right.command == other[first - 1].command
    assert found.left.frame is not None
    assert found.left.frame[0] == found.equal_until_seq + 1 <= first <= found.left.frame[1]
    assert found.left.state_hash == found.right.state_hash


def test_diff_of_the_same_commands_in_other_frames(tmp_path: Path) -> None:
    """The time of a command comes from its frame: it is another journal."""
    for name, lengths in (("one", (9, 4, 4)), ("other", (9, 8))):
        written(
            tmp_path / name, Story(), frames=len(lengths), length=lambda n, each=lengths: each[n]
        )
    found = diff(tmp_path / "one", tmp_path / "other")
    assert found.what == "the same commands from sequence 10 on stand in different frames"
    assert (found.left.frame, found.right.frame) == ([10, 13], [10, 17])


def test_diff_begins_where_both_do(here: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(here, other)
    older = snapshot_paths(other)[0]
    for path in segment_paths(other):
        if path.stem < older.stem:
            path.unlink()
    found = diff(here, other, implementation="python")
    assert found.is_equal
    assert found.first_seq == int(older.stem)


def test_diff_tells_of_damage(here: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(here, other)
    overwrite(segment_paths(other)[1], SEGMENT_HEADER_BYTES + 100, b"\xff\xff\xff")
    found = diff(here, other)
    assert not found.is_equal
    assert found.right.damage
    assert not found.left.damage
