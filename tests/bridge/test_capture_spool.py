"""Captures on the disk: in order, bounded, and damage costs no more than what it touches. How they
get there and away again: test_capture_shipping.
"""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from capture_rig import (
    WORKER,
    Reader,
    batch,
    files,
    files_up_to,
    home,
)
from hypothesis import given
from hypothesis import strategies as st

from bridge.proxy.capture import record, spool, stream
from bridge.proxy.capture.batch import Batch
from bridge.proxy.capture.home import abandoned
from bridge.proxy.capture.spool import Spool

MB = 1 << 20


def drained(one: Spool) -> tuple[list[Batch], int]:
    """All that is in it, and the places that could not be read."""
    found: list[Batch] = []
    damaged = 0
    while (chunk := one.oldest()) is not None:
        found += chunk.batches
        damaged += chunk.damaged
        one.pop(chunk)
    return found, damaged


# --- records -------------------------------------------------------------------------------------


@given(
    st.lists(st.binary(max_size=40), min_size=1, max_size=6),
    st.integers(0, 400),
    st.binary(min_size=1, max_size=20),
    st.booleans(),
)
def test_damage_costs_only_the_records_it_touches(
    bodies: list[bytes], at: int, garbage: bytes, is_torn: bool
) -> None:
    framed = [record.encode(b"MAG\n", body) for body in bodies]
    data = b"".join(framed)
    at %= len(data)
    damaged = data[:at] if is_torn else data[:at] + garbage + data[at + len(garbage) :]
    whole, start = [], 0
    for body, one in zip(bodies, framed, strict=True):
        if damaged[start : start + len(one)] == one:
            whole.append(body)
        start += len(one)
    found = list(record.decode(b"MAG\n", damaged, is_end=True))
    assert [body for body, _ in found if body is not None] == whole
    assert not found or found[-1][1] == len(damaged)


@given(st.lists(st.binary(max_size=30), max_size=8), st.integers(1, 60))
def test_records_are_found_in_pieces_as_in_one(bodies: list[bytes], size: int) -> None:
    data = b"".join(record.encode(b"MAG\n", body) for body in bodies)
    found, at = [], 0
    while at < len(data):
        piece = data[at : at + 42 + size]  # a whole record fits
        is_end = at + len(piece) == len(data)
        for body, end in record.decode(b"MAG\n", piece, is_end=is_end):
            found.append(body)
            last = end
        at += last
    assert found == bodies


# --- the spool -----------------------------------------------------------------------------------


def test_what_is_spooled_comes_back_in_order_over_several_files(tmp_path: Path) -> None:
    one = Spool(home(tmp_path), 4 * MB)
    given = [batch(n, n, body=b"x" * 300_000) for n in range(1, 13)]
    assert all(one.append(each) for each in given)
    assert len(files(tmp_path)) > 3
    assert drained(one) == (given, 0)
    assert one.is_empty
    assert one.bytes == 0
    assert files(tmp_path) == [f"{WORKER}.lock"]
    assert one.append(given[0])
    assert drained(one)[0] == given[:1]


def test_reading_and_writing_take_turns(tmp_path: Path) -> None:
    one = Spool(home(tmp_path), MB)
    found: list[Batch] = []
    for n in range(1, 200):
        assert one.append(batch(n, n, body=b"x" * 5000))
        if n % 3 == 0 and (chunk := one.oldest()) is not None:
            found += chunk.batches
            one.pop(chunk)
    assert [each.first for each in found + drained(one)[0]] == list(range(1, 200))


def test_the_spool_is_bounded_in_bytes(tmp_path: Path) -> None:
    one = Spool(home(tmp_path), 100_000)
    kept = sum(one.append(batch(n, n, body=b"x" * 9_000)) for n in range(1, 100))
    on_disk = sum(path.stat().st_size for path in (tmp_path / "captures").iterdir())
    assert kept == 10
    assert 90_000 < on_disk == one.bytes <= 100_000


def test_a_full_disk_costs_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    one = Spool(home(tmp_path), MB)
    assert one.append(batch(1, 1))
    with files_up_to(1000), pytest.raises(OSError, match="large"):
        one.append(batch(2, 2, body=b"x" * 5000))
    with files_up_to(0), pytest.raises(OSError, match="large"):
        one.append(batch(3, 3))
    assert one.append(batch(4, 4))
    assert sum(path.stat().st_size for path in (tmp_path / "captures").iterdir()) == one.bytes
    found, damaged = drained(one)
    assert ([each.first for each in found], damaged) == ([1, 4], 0)


def test_a_torn_tail_is_cut_and_a_bad_record_left_out(tmp_path: Path) -> None:
    mine = home(tmp_path)
    written = Spool(mine, MB)
    for n in range(1, 6):
        written.append(batch(2 * n - 1, 2 * n))
    (path,) = mine.segments(spool.SUFFIX)
    data = bytearray(path.read_bytes())
    data[len(data) // 5 + 40] ^= 1  # in the second of five
    path.write_bytes(data[:-3])
    found, damaged = drained(Spool(mine, 0))
    assert ([each.first for each in found], damaged) == ([1, 5, 7], 2)
    reader = Reader()
    for each in [*found, Batch(WORKER, 11, 0, b"\x90")]:
        reader.take(stream.entry_fields(each.worker, each.first, each.count, each.data))
    assert reader.lost == {WORKER: [3, 4, 9, 10]}
    reader.assert_closed(10)


# --- homes ---------------------------------------------------------------------------------------


def test_files_of_a_worker_that_lives_are_nobody_else_s(tmp_path: Path) -> None:
    mine = home(tmp_path)
    with pytest.raises(FileExistsError):
        home(tmp_path)
    assert abandoned(mine.directory) == []
    mine.release()
    (found,) = abandoned(mine.directory)
    assert found.name == WORKER
    assert abandoned(mine.directory) == []  # it is being taken over
    found.remove()
    assert files(tmp_path) == []


def test_two_that_take_over_at_the_same_moment_are_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first has done it and removed the lock, when the second gets it."""
    mine = home(tmp_path)
    mine.release()
    lock = fcntl.flock

    def after_the_other(fd: int, how: int) -> None:
        (mine.directory / f"{WORKER}.lock").unlink()
        lock(fd, how)

    monkeypatch.setattr(fcntl, "flock", after_the_other)
    assert abandoned(mine.directory) == []


def test_files_that_are_not_ours_stay(tmp_path: Path) -> None:
    mine = home(tmp_path)
    (mine.directory / "notes.txt").write_text("mine")
    assert abandoned(mine.directory) == []
    mine.remove()
    assert files(tmp_path) == ["notes.txt"]
