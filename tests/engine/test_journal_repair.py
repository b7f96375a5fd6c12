"""Repairs: the longest chain out of whole frames, from here and from a copy; nothing deleted."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from journal_story import SHARD, Story, append, opened, written

from engine import journal_walk
from engine.errors import JournalDamaged, JournalInUse
from engine.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from engine.journal_repair import Plan, plan_repair, repair
from engine.journal_verify import verify
from engine.journal_walk import Walk
from engine.replay import Frame
from engine.segment import segment_paths
from engine.snapshot_file import snapshot_paths
from engine.snapshotter import take_snapshot

IMPLEMENTATION = "python"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody writes: nothing has to settle."""
    monkeypatch.setattr(journal_walk, "SETTLES_S", 0.01)


def frames_of(directory: Path) -> list[Frame]:
    return list(Walk(directory).frames())


def made(directory: Path, *, frames: int = 60, seed: int = 1) -> Path:
    written(directory, Story(seed), frames=frames)
    return directory


def flip(path: Path, offset: int) -> None:
    with path.open("rb+") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 0x20]))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(directory.glob("*.*"))}


def refuses(directory: Path) -> str:
    with pytest.raises(JournalDamaged) as caught:
        opened(directory, IMPLEMENTATION)
    return str(caught.value)


def starts(directory: Path) -> list[Frame]:
    """An engine starts on it, and goes on; the frames before."""
    found = opened(directory, IMPLEMENTATION)
    found.journal.close()
    assert verify(directory).is_good
    return found.frames


def executed(directory: Path, **rest: Path) -> Plan:
    """The same as was planned, which changed nothing."""
    before = contents(directory)
    plan = plan_repair(directory, **rest)
    assert contents(directory) == before
    done = repair(directory, **rest)
    assert done == plan
    for name in (*plan.rewrites, *plan.moves):
        if name in before:
            assert (Path(plan.aside) / name).read_bytes() == before[name]
    return done


def test_a_whole_journal_needs_none(tmp_path: Path) -> None:
    made(tmp_path)
    before = contents(tmp_path)
    plan = repair(tmp_path)
    assert plan.is_whole
    assert contents(tmp_path) == before


def test_a_torn_tail_needs_none(tmp_path: Path) -> None:
    """The engine cuts it itself."""
    made(tmp_path, frames=3)
    (path,) = segment_paths(tmp_path)
    frames = frames_of(tmp_path)
    end = SEGMENT_HEADER_BYTES + sum(64 + len(one.commands) for one in frames)
    os.truncate(path, end - 10)
    assert plan_repair(tmp_path).is_whole
    assert starts(tmp_path) == frames[:-1]


def test_without_a_copy_it_cuts_and_says_what_is_lost(tmp_path: Path) -> None:
    made(tmp_path)
    frames = frames_of(tmp_path)
    path = segment_paths(tmp_path)[1]
    first = next(n for n, one in enumerate(frames) if one.first_seq == int(path.stem))
    at = SEGMENT_HEADER_BYTES + 64 + len(frames[first].commands)
    flip(path, at + 70)  # in a command of its second frame
    told = refuses(tmp_path)
    assert f"railswitch journal repair {tmp_path}" in told
    later = [one.name for one in segment_paths(tmp_path) if one.stem > path.stem]
    plan = executed(tmp_path)
    assert plan.place == f"{path}: offset {at}, sequence {frames[first + 1].first_seq}"
    assert plan.keeps_until_seq == frames[first].last_seq
    assert [(one.first_seq, one.last_seq) for one in plan.lost] == [
        (one.first_seq, one.last_seq) for one in frames[first + 2 :]
    ]
    assert plan.lost_bytes > 0
    assert plan.rewrites == [path.name]
    assert plan.moves == later
    assert starts(tmp_path) == frames[: first + 1]


@pytest.mark.parametrize("segment", [0, 1, -1])
def test_with_a_copy_nothing_is_lost(tmp_path: Path, segment: int) -> None:
    here, copy = made(tmp_path / "here"), tmp_path / "copy"
    frames = frames_of(here)
    shutil.copytree(here, copy)
    path = segment_paths(here)[segment]
    flip(path, SEGMENT_HEADER_BYTES + 30)  # the header of its first frame
    flip(path, SEGMENT_HEADER_BYTES + 900)
    plan = executed(here, copy=copy)
    assert not plan.loses
    assert plan.taken_from_copy > 0
    assert plan.rewrites == [path.name]
    assert plan.moves == []
    assert starts(here) == frames


def test_frames_behind_the_damage_are_kept_though_the_copy_is_older(tmp_path: Path) -> None:
    here, copy = tmp_path / "here", tmp_path / "copy"
    story = Story()
    written(here, story, frames=20)
    shutil.copytree(here, copy)
    written(here, story, frames=40)
    frames = frames_of(here)
    path = segment_paths(here)[0]
    flip(path, SEGMENT_HEADER_BYTES + 200)
    plan = executed(here, copy=copy)
    assert plan.keeps_until_seq == frames[-1].last_seq
    assert not plan.loses
    assert starts(here) == frames


def test_a_missing_segment_is_taken_from_the_copy(tmp_path: Path) -> None:
    here, copy = made(tmp_path / "here"), tmp_path / "copy"
    frames = frames_of(here)
    shutil.copytree(here, copy)
    for n in (2, 0):
        segment_paths(here)[n].unlink()
    assert "journal repair" in refuses(here)
    plan = executed(here, copy=copy)
    assert not plan.loses
    assert [one.name for one in segment_paths(here)] == [one.name for one in segment_paths(copy)]
    assert starts(here) == frames


def test_a_damaged_segment_header_is_written_again(tmp_path: Path) -> None:
    """Everything that it says follows from the frames."""
    made(tmp_path)
    frames = frames_of(tmp_path)
    for path in segment_paths(tmp_path)[:2]:
        flip(path, 20)
    refuses(tmp_path)
    plan = executed(tmp_path)
    assert not plan.loses
    assert starts(tmp_path) == frames


def test_a_copy_of_another_journal_is_not_taken(tmp_path: Path) -> None:
    here, other = made(tmp_path / "here"), made(tmp_path / "other", seed=2)
    flip(segment_paths(here)[0], SEGMENT_HEADER_BYTES + 5_000)
    before = contents(here)
    plan = repair(here, copy=other)
    assert "is a copy of another journal" in plan.refused
    assert contents(here) == before


def test_a_copy_that_is_damaged_at_the_same_place_does_not_help(tmp_path: Path) -> None:
    here, copy = made(tmp_path / "here"), tmp_path / "copy"
    flip(segment_paths(here)[0], SEGMENT_HEADER_BYTES + 5_000)
    shutil.copytree(here, copy)
    assert "Name another one" in repair(here, copy=copy).refused


def test_it_is_refused_where_a_snapshot_stands_for_what_is_damaged(tmp_path: Path) -> None:
    story = Story()
    written(tmp_path, story, frames=60)
    assert take_snapshot(tmp_path, shard=SHARD, implementation=IMPLEMENTATION)
    written(tmp_path, story, frames=2)
    (snapshot,) = snapshot_paths(tmp_path)
    flip(segment_paths(tmp_path)[0], SEGMENT_HEADER_BYTES + 200)
    assert not verify(tmp_path).is_good
    plan = repair(tmp_path)
    assert f"{snapshot.name} stands for everything before it" in plan.refused
    found = opened(tmp_path, IMPLEMENTATION)
    found.journal.close()
    assert found.snapshots


def test_snapshots_of_what_is_lost_are_moved_aside_too(tmp_path: Path) -> None:
    story = Story()
    written(tmp_path, story, frames=60)
    assert take_snapshot(tmp_path, shard=SHARD, implementation=IMPLEMENTATION)
    flip(segment_paths(tmp_path)[0], SEGMENT_HEADER_BYTES + 200)
    (snapshot,) = snapshot_paths(tmp_path)
    snapshot.write_bytes(b"bad")
    refuses(tmp_path)
    plan = executed(tmp_path)
    assert snapshot.name in plan.moves
    assert not starts(tmp_path)[:1] or plan.keeps_until_seq == starts(tmp_path)[-1].last_seq
    assert snapshot_paths(tmp_path) == []


def test_a_later_release_is_left_alone(tmp_path: Path) -> None:
    from test_golden import reseal

    made(tmp_path)
    reseal(segment_paths(tmp_path)[-1], SEGMENT_HEADER_BYTES, 9)
    assert "start that one, or a later one" in repair(tmp_path).refused


def test_it_needs_the_engine_stopped(tmp_path: Path) -> None:
    made(tmp_path)
    running = opened(tmp_path, IMPLEMENTATION)
    with pytest.raises(JournalInUse, match="stop that one first"):
        repair(tmp_path)
    assert plan_repair(tmp_path).is_whole
    running.journal.close()


def test_a_repair_that_died_in_the_middle_is_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, copy = made(tmp_path / "here"), tmp_path / "copy"
    frames = frames_of(here)
    shutil.copytree(here, copy)
    for path in segment_paths(here)[:3]:
        flip(path, SEGMENT_HEADER_BYTES + 200)
    for calls in range(1, 9):
        left = [calls]

        def dying(real: object, left: list[int] = left) -> object:
            def call(*args: object, **rest: object) -> object:
                left[0] -= 1
                if not left[0]:
                    raise OSError(5, "Input/output error")
                return real(*args, **rest)  # type: ignore[operator]

            return call

        with monkeypatch.context() as patched:
            patched.setattr(Path, "rename", dying(Path.rename))
            patched.setattr(os, "fsync", dying(os.fsync))
            patched.setattr(os, "link", dying(os.link))
            try:
                repair(here, copy=copy)
            except OSError:
                continue
        break
    repair(here, copy=copy)
    assert starts(here) == frames
    assert sum(path.is_dir() for path in here.iterdir()) >= 1


def test_a_repaired_journal_is_gone_on_with(tmp_path: Path) -> None:
    made(tmp_path)
    frames = frames_of(tmp_path)
    flip(segment_paths(tmp_path)[1], SEGMENT_HEADER_BYTES + FRAME_HEADER_BYTES)
    plan = repair(tmp_path)
    story = Story(3)
    found = opened(tmp_path, IMPLEMENTATION)
    append(found.journal, story.frame(3))
    found.journal.close()
    again = starts(tmp_path)
    assert again[:-1] == [one for one in frames if one.last_seq <= plan.keeps_until_seq]
