"""The next segment of a journal, zeroed in step with how full the one in use is."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from engine_harness import WAIT_S
from market_driver import market_or_skip

from engine import limits
from engine.core_market import RustMarket
from engine.preparer import Preparer, PythonZeroing
from engine.segment import PREPARED

STEP = limits.ZERO_STEP_BYTES
AT_ONCE = limits.PREPARE_AT_ONCE_BYTES
SIZE = 4 * AT_ONCE


@pytest.fixture
def zeroing(implementation: str) -> Callable[[], Any]:
    if implementation == "python":
        return PythonZeroing
    market = market_or_skip(implementation)
    assert isinstance(market, RustMarket)
    return market.zeroing


def filled(path: Path, size: int) -> Path:
    path.write_bytes(b"\xff" * size)
    return path


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)


def zeros(path: Path) -> int:
    data = path.read_bytes()
    return len(data) - len(data.lstrip(b"\0"))


def zeros_from(path: Path, start: int) -> int:
    data = path.read_bytes()[start:]
    return len(data) - len(data.lstrip(b"\0"))


def test_a_file_is_zeroed_as_far_as_wanted_and_no_further(
    tmp_path: Path, zeroing: Callable[[], Any]
) -> None:
    path = filled(tmp_path / "file", 8 * STEP)
    one, found = zeroing(), []
    thread = threading.Thread(target=lambda: found.append(one.run(path, STEP, 8 * STEP, STEP)))
    thread.start()
    one.want(3 * STEP - 1)
    until(lambda: zeros_from(path, STEP) >= 2 * STEP)
    one.enough()
    thread.join(WAIT_S)
    assert found == [3 * STEP]
    assert path.read_bytes() == b"\xff" * STEP + bytes(2 * STEP) + b"\xff" * 5 * STEP


def test_it_ends_by_itself_at_the_end_and_the_last_step_may_be_shorter(
    tmp_path: Path, zeroing: Callable[[], Any]
) -> None:
    path = filled(tmp_path / "file", 2 * STEP + 100)
    one = zeroing()
    one.want(10 * STEP)
    assert one.run(path, 0, 2 * STEP + 7, STEP) == 2 * STEP + 7
    assert path.read_bytes() == bytes(2 * STEP + 7) + b"\xff" * 93


def test_enough_before_it_has_begun_leaves_the_file_alone(
    tmp_path: Path, zeroing: Callable[[], Any]
) -> None:
    path = filled(tmp_path / "file", STEP)
    one = zeroing()
    one.want(STEP)
    one.enough()
    assert one.run(path, 0, STEP, STEP) == 0
    assert zeros(path) == 0


def test_a_file_that_is_not_there_is_told(tmp_path: Path, zeroing: Callable[[], Any]) -> None:
    one = zeroing()
    one.want(STEP)
    with pytest.raises(FileNotFoundError):
        one.run(tmp_path / "file", 0, STEP, STEP)


def test_the_next_segment_is_whole_before_the_one_in_use_is_full(
    tmp_path: Path, zeroing: Callable[[], Any]
) -> None:
    preparer = Preparer(tmp_path)
    preparer.zeroing = zeroing
    preparer.begin(SIZE)
    for percent in range(90):
        preparer.advance(percent / 100)
    path = tmp_path / PREPARED
    until(lambda: preparer._prepared.done())
    assert preparer.take(SIZE) == (path, SIZE)
    assert zeros(path) == SIZE
    preparer.close()


def test_what_is_ready_is_taken_when_there_was_no_time_for_more(
    tmp_path: Path, zeroing: Callable[[], Any]
) -> None:
    preparer = Preparer(tmp_path)
    preparer.zeroing = zeroing
    preparer.begin(SIZE)
    path, size = preparer.take(SIZE)
    assert STEP < size <= AT_ONCE + STEP
    assert path.stat().st_size == zeros(path) == size
    preparer.close()
    assert not path.exists()


def test_a_quiet_shard_prepares_a_little_only(tmp_path: Path, zeroing: Callable[[], Any]) -> None:
    preparer = Preparer(tmp_path)
    preparer.zeroing = zeroing
    preparer.begin(SIZE)
    preparer.advance(0.001)
    assert not preparer._prepared.done()
    _, size = preparer.take(SIZE)
    assert size <= AT_ONCE + STEP
    preparer.close()


def test_on_a_disk_that_is_nearly_full_the_next_segment_is_as_large_as_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allocate = os.posix_fallocate

    def nearly_full(fd: int, start: int, size: int) -> None:
        if size > SIZE // 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        allocate(fd, start, size)

    monkeypatch.setattr(os, "posix_fallocate", nearly_full)
    preparer = Preparer(tmp_path)
    preparer.begin(SIZE)
    preparer.advance(1.0)
    until(lambda: preparer._prepared.done())
    path, size = preparer.take(SIZE)
    assert (size, path.stat().st_size) == (SIZE // 4, SIZE // 4)
    preparer.close()
