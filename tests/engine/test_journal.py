"""The journal on a real disk: what comes back, what is cut, what is refused and how."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

import pytest
from market_driver import new

from engine.errors import JournalDamaged, JournalFailed, JournalInUse
from engine.frame import FRAME_HEADER_BYTES, SEGMENT_HEADER_BYTES
from engine.journal import Journal
from engine.replay import Frame, JournalReader
from engine.segment import PREPARED, segment_path, segment_paths
from engine.wire import encode_commands

SMALL = 16 * 1024


def opened(directory: Path, *, shard: int = 1, size: int = SMALL) -> tuple[Journal, list[Frame]]:
    frames: list[Frame] = []
    journal = Journal.open(
        directory,
        shard=shard,
        replay=frames.append,
        segment_bytes_min=size,
        segment_bytes_max=size,
    )
    return journal, frames


def append(journal: Journal, count: int) -> Frame:
    first_seq, ts_ns = journal.link.next_seq, journal.link.next_ts_ns + 5
    commands = encode_commands(new(first_seq + n, ref=first_seq + n) for n in range(count))
    frame = bytearray(FRAME_HEADER_BYTES) + commands
    journal.append(frame, first_seq=first_seq, ts_ns=ts_ns)
    return Frame(first_seq, ts_ns, commands)


def written(directory: Path, sizes: list[int], *, size: int = SMALL) -> list[Frame]:
    journal, before = opened(directory, size=size)
    frames = [append(journal, count) for count in sizes]
    journal.close()
    return before + frames


def offsets(frames: list[Frame]) -> list[int]:
    """Where each frame begins in the first segment, and where the last one ends."""
    at = [SEGMENT_HEADER_BYTES]
    for frame in frames:
        at.append(at[-1] + FRAME_HEADER_BYTES + len(frame.commands))
    return at


def refused(directory: Path, **rest: int) -> str:
    """Why it does not open; and that nothing was changed by trying."""
    before = {path: path.read_bytes() for path in segment_paths(directory)}
    with pytest.raises(JournalDamaged) as caught:
        opened(directory, **rest)
    assert {path: path.read_bytes() for path in segment_paths(directory)} == before
    return str(caught.value)


def test_frames_come_back_as_they_were_written(tmp_path: Path) -> None:
    frames = written(tmp_path, [1, 3, 2])
    journal, found = opened(tmp_path)
    assert found == frames
    assert journal.link.next_seq == 7
    assert journal.link.next_ts_ns == frames[-1].ts_ns + 2_000
    journal.close()


def test_a_journal_goes_on_where_it_ended_over_many_segments_and_openings(tmp_path: Path) -> None:
    frames: list[Frame] = []
    for _ in range(3):
        frames = written(tmp_path, [60, 1, 300, 2])
    assert len(segment_paths(tmp_path)) > 3
    journal, found = opened(tmp_path)
    journal.close()
    assert found == frames


def test_the_name_of_a_segment_is_its_first_sequence_number(tmp_path: Path) -> None:
    frames = written(tmp_path, [200, 200])
    assert segment_paths(tmp_path) == [
        segment_path(tmp_path, 1),
        segment_path(tmp_path, frames[1].first_seq),
    ]


def test_a_frame_is_on_its_way_to_the_disk_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal, _ = opened(tmp_path)
    synced: list[bytes] = []
    sync = os.fdatasync

    def watched(fd: int) -> None:
        synced.append(os.pread(fd, 64, SEGMENT_HEADER_BYTES))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", watched)
    append(journal, 1)
    journal.close()
    assert synced[0].startswith(b"RSWF")


@pytest.mark.parametrize("sizes", [[], [2, 1], [60, 150]])
def test_what_may_not_have_reached_the_disk_is_written_again_when_it_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int]
) -> None:
    """After a failed sync Linux gives the pages back, and never writes them."""
    frames = written(tmp_path, sizes)
    segment = segment_paths(tmp_path)[-1]
    whole = segment.read_bytes()
    calls: list[tuple[int, bytes]] = []
    write, sync = os.pwrite, os.fsync

    def seen_write(fd: int, data: bytes | memoryview, at: int) -> int:
        calls.append((at, bytes(data)))
        return write(fd, data, at)

    def seen_sync(fd: int) -> None:
        calls.append((-1, b""))
        sync(fd)

    monkeypatch.setattr(os, "pwrite", seen_write)
    monkeypatch.setattr(os, "fsync", seen_sync)
    journal, _ = opened(tmp_path)
    monkeypatch.undo()
    journal.close()
    if frames:
        start = whole.index(frames[-1].commands) - FRAME_HEADER_BYTES
        last = whole[start : start + FRAME_HEADER_BYTES + len(frames[-1].commands)]
    else:
        start, last = 0, whole[:SEGMENT_HEADER_BYTES]
    assert (-1, b"") in calls[calls.index((start, last)) :]
    assert segment.read_bytes() == whole


@pytest.mark.parametrize("length", [1, 2])
def test_a_journal_cut_at_any_byte_of_its_last_frame_loses_that_frame_only(
    tmp_path: Path, length: int
) -> None:
    frames = written(tmp_path, [2, 1, length])
    start, end = offsets(frames)[-2:]
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for cut in range(start, end + 1):
        path.write_bytes(whole[:cut])
        journal, found = opened(tmp_path)
        assert found == (frames if cut == end else frames[:-1]), cut
        again = append(journal, 1)
        journal.close()
        journal, after = opened(tmp_path)
        journal.close()
        assert after == [*found, again], cut


def test_a_bit_flipped_in_the_last_frame_is_no_torn_write(tmp_path: Path) -> None:
    """It was whole, and may have been answered: cutting it would be a silent loss."""
    frames = written(tmp_path, [2, 3])
    start, end = offsets(frames)[-2:]
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for at in range(start, end):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert f"offset {start} (sequence 3)" in refused(tmp_path), at


@pytest.mark.parametrize("unit", [64, 512, 4096])
def test_a_write_of_which_any_part_reached_the_disk_is_cut(tmp_path: Path, unit: int) -> None:
    """Pages or sectors get there in any order; what is not there is still zero."""
    frames = written(tmp_path, [3, 150])
    start, end = offsets(frames)[-2:]
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    blocks = range(start // unit, (end - 1) // unit + 1)
    assert len(blocks) > 2
    for lost in [{n} for n in blocks] + [set(blocks[n:]) for n in range(1, len(blocks))]:
        torn = bytearray(whole)
        for block in lost:
            first, last = max(start, block * unit), min(end, (block + 1) * unit)
            torn[first:last] = bytes(last - first)
        path.write_bytes(torn)
        journal, found = opened(tmp_path)
        journal.close()
        assert found == frames[:-1], lost


def test_bits_flipped_behind_the_last_frame_change_nothing(tmp_path: Path) -> None:
    frames = written(tmp_path, [2])
    (*_, end) = offsets(frames)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for at in (end, end + 59, end + 64, end + 2_000, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[at] ^= 0x10
        path.write_bytes(flipped)
        journal, found = opened(tmp_path)
        journal.close()
        assert (found, path.read_bytes()) == (frames, whole), at


def test_a_bit_flipped_before_the_last_frame_is_refused_with_place_and_next_step(
    tmp_path: Path,
) -> None:
    frames = written(tmp_path, [1, 2, 1])
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    starts = offsets(frames)
    for at in range(SEGMENT_HEADER_BYTES, starts[2]):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        told = refused(tmp_path)
        assert str(path) in told
        assert f"offset {max(one for one in starts if one <= at)} " in told
        assert f"railswitch journal verify {tmp_path}" in told
        assert f"railswitch journal repair {tmp_path}" in told


def test_a_bit_flipped_in_a_segment_header_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [1])
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    for at in range(0, SEGMENT_HEADER_BYTES, 13):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << at % 8
        path.write_bytes(flipped)
        assert str(path) in refused(tmp_path)


def test_what_a_torn_write_leaves_is_cut_and_never_comes_back(tmp_path: Path) -> None:
    frames = written(tmp_path, [2])
    end = offsets(frames)[-1]
    path = segment_path(tmp_path, 1)
    with path.open("rb+") as file:
        # The header's sector did not make it, later ones did.
        file.seek(end + 512)
        file.write(random.Random(3).randbytes(4_000))
    for _ in range(3):
        journal, found = opened(tmp_path)
        assert found == frames
        frames.append(append(journal, 3))
        journal.close()


def test_a_hole_in_the_middle_is_no_torn_write(tmp_path: Path) -> None:
    frames = written(tmp_path, [1, 1, 1])
    at = offsets(frames)[1]
    with segment_path(tmp_path, 1).open("rb+") as file:
        file.seek(at)
        file.write(bytes(128))
    told = refused(tmp_path)
    assert f"offset {at} " in told
    assert "a good frame follows 128 bytes behind it" in told


def test_a_segment_cut_in_the_middle_of_the_journal_is_refused(tmp_path: Path) -> None:
    frames = written(tmp_path, [50, 50, 50, 200])
    path = segment_path(tmp_path, 1)
    path.write_bytes(path.read_bytes()[: offsets(frames)[1] + 100])
    told = refused(tmp_path)
    assert str(path) in told
    assert "journal repair" in told


def test_a_missing_segment_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [200, 200, 200])
    for path in segment_paths(tmp_path)[:2]:
        kept = path.read_bytes()
        path.unlink()
        assert "journal repair" in refused(tmp_path)
        path.write_bytes(kept)


def test_a_segment_of_another_journal_is_refused(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    written(ours, [200, 200])
    journal, _ = opened(theirs)
    commands = encode_commands(new(n, account=9) for n in range(200))
    for first_seq in (1, 201):
        frame = bytearray(FRAME_HEADER_BYTES) + commands
        journal.append(frame, first_seq=first_seq, ts_ns=first_seq * 10**6)
    journal.close()
    segment_path(ours, 201).write_bytes(segment_path(theirs, 201).read_bytes())
    assert "does not continue the segment before it" in refused(ours)


def test_a_whole_frame_in_the_wrong_place_is_no_torn_write(tmp_path: Path) -> None:
    frames = written(tmp_path, [1, 1])
    first, second, end = offsets(frames)
    path = segment_path(tmp_path, 1)
    whole = path.read_bytes()
    with path.open("rb+") as file:
        file.seek(end)
        file.write(whole[first:second])
    assert f"offset {end} " in refused(tmp_path)


def test_a_frame_of_another_journal_is_refused(tmp_path: Path) -> None:
    """In its place by sequence number and time, and whole; but it follows another frame."""
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    _, start, end = offsets(written(ours, [1, 1]))
    journal, _ = opened(theirs)
    for first_seq in (1, 2):
        frame = bytearray(FRAME_HEADER_BYTES) + encode_commands([new(first_seq, account=9)])
        journal.append(frame, first_seq=first_seq, ts_ns=first_seq * 10**6)
    journal.close()
    with segment_path(ours, 1).open("rb+") as file:
        file.seek(start)
        file.write(segment_path(theirs, 1).read_bytes()[start:end])
    assert "written after another frame" in refused(ours)


def test_a_journal_of_another_shard_is_refused_with_the_setting_to_correct(tmp_path: Path) -> None:
    written(tmp_path, [1])
    assert "engine.shard" in refused(tmp_path, shard=2)


def test_a_directory_has_one_engine_at_a_time(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    with pytest.raises(JournalInUse, match=rf"in use by another engine \(process {os.getpid()}\)"):
        opened(tmp_path)
    journal.close()
    opened(tmp_path)[0].close()


def test_a_refused_journal_is_not_left_locked(tmp_path: Path) -> None:
    written(tmp_path, [1])
    refused(tmp_path, shard=2)
    opened(tmp_path)[0].close()


@pytest.mark.parametrize("call", ["fdatasync", "pwrite"])
def test_a_disk_that_fails_is_told_by_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    journal, _ = opened(tmp_path)
    frame = append(journal, 1)

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        with pytest.raises(JournalFailed, match=r"journal failed: Input/output error.*start it"):
            append(journal, 1)
    journal.close()
    journal, found = opened(tmp_path)
    journal.close()
    assert found[0] == frame


def test_short_writes_are_carried_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: write(fd, data[:4097], at))
    frames = written(tmp_path, [100, 100, 100])
    journal, found = opened(tmp_path)
    journal.close()
    assert found == frames


def test_a_reader_follows_a_journal_that_is_being_written(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    reader = JournalReader(tmp_path, shard=1)
    for count in (1, 1, 3, 200, 2, 200, 200):
        frame = append(journal, count)
        assert reader.read() == frame
        assert reader.read() is None
    assert reader.link == journal.link
    reader.close()
    journal.close()


def test_the_next_segment_is_prepared_aside_and_not_left_behind(tmp_path: Path) -> None:
    journal, _ = opened(tmp_path)
    for _ in range(8):
        append(journal, 100)
    journal.close()
    assert not (tmp_path / PREPARED).exists()
    (tmp_path / PREPARED).write_bytes(b"left by a crash")
    journal, found = opened(tmp_path)
    journal.close()
    assert len(found) == 8
    assert not (tmp_path / PREPARED).exists()


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalFailed, match="file/journal"):
        opened(tmp_path / "file" / "journal")
