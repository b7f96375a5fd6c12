"""The commit path in both implementations: what is told is on the disk, in order, and nothing is
told of what failed.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_harness import WAIT_S, run
from market_driver import define, market_or_skip, new, set_mode
from msgspec.structs import replace

from engine import limits
from engine.commit import Settled, create_committer
from engine.errors import EngineError, JournalFailed, MarketFailed
from engine.journal import Journal
from engine.market import create_market
from engine.replay import Frame, JournalReader
from engine.types import Mode, Role
from engine.wire import (
    decode_commands,
    decode_events,
    encode_command,
    encode_commands,
    session_command,
)

ALICE, CONTROL = 1, 2
SEGMENT = 64 * 1024


class Scene:
    """A committer on a journal of small segments; it holds at first, so that what a test adds
    becomes the same frames every time.
    """

    def __init__(self, journal: Journal, implementation: str) -> None:
        self.journal = journal
        self.market = market_or_skip(implementation)
        self.frames: list[Settled] = []
        self.is_held = asyncio.Event()
        self.changed = asyncio.Event()
        self.committer = create_committer(self.market, journal, self._told)
        self.committer.hold()

    def open_market(self) -> None:
        for number, role in ((ALICE, Role.TRADE), (CONTROL, Role.ADMIN)):
            command = session_command(session=number, name=f"name-{number}", role=role)
            self.committer.add("own", number, encode_command(command), 5)
        opening = [replace(define(1, "BTC-USD"), ref=1), replace(set_mode(Mode.LIVE, 1), ref=2)]
        self.add("control", CONTROL, encode_commands(opening))

    def add(self, owner: Any, session: int, commands: bytes, now_ns: int = 10**6) -> None:
        self.committer.add(owner, session, commands, now_ns)

    async def commit(self, commands: int) -> list[Settled]:
        """Waits until so many commands have been told in all, and for it to hold again."""
        self.committer.resume()
        async with asyncio.timeout(WAIT_S):
            while sum(frame.length for frame in self.frames) < commands:
                self.changed.clear()
                if self.committer.failed.done():
                    self.committer.failed.result()
                await asyncio.wait(
                    {asyncio.ensure_future(self.changed.wait()), self.committer.failed},
                    return_when=asyncio.FIRST_COMPLETED,
                )
            await self.hold()
        return self.frames

    async def hold(self) -> None:
        self.is_held.clear()
        self.committer.hold()
        await self.is_held.wait()

    def _told(self, frames: Sequence[Settled], *, is_held: bool) -> None:
        self.frames += frames
        self.changed.set()
        if is_held:
            self.is_held.set()


@asynccontextmanager
async def scene(directory: Path, implementation: str) -> AsyncIterator[Scene]:
    journal = Journal.open(
        directory,
        shard=1,
        replay=lambda frame: None,
        segment_bytes_min=SEGMENT,
        segment_bytes_max=SEGMENT,
    )
    one = Scene(journal, implementation)
    try:
        yield one
    finally:
        await one.committer.stop()
        journal.close()


def orders(first: int, count: int) -> bytes:
    return encode_commands(new(first + n, ref=first + n) for n in range(count))


def journalled(directory: Path) -> list[Frame]:
    reader = JournalReader(directory, shard=1)
    frames = []
    while isinstance(frame := reader.read(), Frame):
        frames.append(frame)
    reader.close()
    return frames


def break_disk(journal: Journal, device: str) -> None:
    """What is written from now on goes to a device that fails."""
    fd = os.open(device, os.O_RDWR)
    os.dup2(fd, journal._fd)
    os.close(fd)
    journal.path = Path(device)


def test_each_part_gets_the_events_of_its_own_commands_and_the_frame_has_them_all(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            one.open_market()
            one.add("first", ALICE, orders(1, 3))
            one.add("second", ALICE, orders(4, 2))
            (frame,) = await one.commit(9)
        assert (frame.first_seq, frame.length) == (1, 9)
        parts = [tuple(part) for part in frame.parts]
        assert [part[:4] for part in parts] == [
            ("own", 1, 0, 0),
            ("own", 1, 0, 0),
            ("control", 2, 1, 2),
            ("first", 3, 1, 3),
            ("second", 2, 4, 5),
        ]
        assert b"".join(part[4] for part in parts) == frame.events
        orders_accepted = [event.order_id for event in decode_events(parts[3][4])]
        assert orders_accepted == [1, 2, 3]

    run(story())


def test_what_is_told_is_in_the_journal_stamped_with_its_session(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            one.open_market()
            one.add("alice", ALICE, orders(1, 3))
            await one.commit(7)
            (found,) = journalled(tmp_path)
            assert (found.first_seq, found.rules) == (1, limits.RULES)
            sessions = [command.session for command in decode_commands(found.commands)]
            assert sessions == [1, 2, 2, 2, 1, 1, 1]
            market = create_market("python")
            assert market.apply(found.commands, found.ts_ns) == one.frames[0].events

    run(story())


def test_both_implementations_write_the_same_journal_over_several_segments(tmp_path: Path) -> None:
    market_or_skip("rust")

    async def story(implementation: str) -> dict[str, bytes]:
        directory = tmp_path / implementation
        async with scene(directory, implementation) as one:
            one.open_market()
            sent = 4
            for n, count in enumerate((300, 1, 700, 900, 40, 4_096)):
                one.add(n, ALICE, orders(sent, count), 10**9 * n)
                sent += count
                await one.commit(sent)
        return {path.name: path.read_bytes() for path in sorted(directory.glob("*.journal"))}

    first, second = run(story("python")), run(story("rust"))
    assert list(first) == list(second)
    assert len(first) > 3
    for name, data in first.items():
        # What was prepared and not used may be longer in one than in the other.
        assert data.rstrip(b"\0") == second[name].rstrip(b"\0"), name


def test_a_frame_has_its_bound_and_what_was_added_together_is_told_in_pieces(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        most = limits.FRAME_COMMANDS_MAX
        async with scene(tmp_path, implementation) as one:
            one.add("a", ALICE, orders(1, most - 1))
            one.add("b", ALICE, orders(most, 10))
            frames = await one.commit(most + 9)
        assert [frame.length for frame in frames] == [most, 9]
        pieces = [tuple(part)[:4] for frame in frames for part in frame.parts]
        assert pieces == [
            ("a", most - 1, 1, most - 1),
            ("b", 1, most, most),
            ("b", 9, most + 1, most + 9),
        ]

    run(story())


def test_time_never_goes_back_and_every_command_has_its_own_microsecond(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            one.add("a", ALICE, orders(1, 50), 10**9 - 7)
            one.add("a", ALICE, orders(51, 50), 10**9)
            await one.commit(100)
            one.add("a", ALICE, orders(101, 1), 5)  # the clock was set back
            await one.commit(101)
        assert [frame.ts_ns for frame in one.frames] == [10**9, 10**9 + 100 * 1_000]

    run(story())


def test_references_are_taken_when_they_ascend_from_above_the_newest(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            offer = one.committer.offer
            assert offer("a", ALICE, memoryview(orders(5, 3)), 4, 1) == 7
            assert offer("a", ALICE, orders(7, 3), 7, 1) == 0
            assert offer("a", ALICE, orders(8, 1) * 2, 7, 1) == 0
            assert offer("a", ALICE, orders(9, 1) + orders(8, 1), 7, 1) == 0
            assert offer("a", ALICE, memoryview(orders(1, 20))[64 * 9 :], 7, 1) == 20
            (frame,) = await one.commit(14)
        assert [tuple(part)[1:4] for part in frame.parts] == [(3, 5, 7), (11, 10, 20)]

    run(story())


def test_bytes_that_are_no_commands_are_refused(tmp_path: Path, implementation: str) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            for data in (b"", bytes(63), bytes(65)):
                with pytest.raises(ValueError):  # noqa: PT011 -- NumPy's or the core's own words
                    one.committer.add("a", ALICE, data, 1)

    run(story())


def test_while_it_holds_nothing_is_applied(tmp_path: Path, implementation: str) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            one.open_market()
            await one.commit(4)
            one.add("a", ALICE, orders(1, 3))
            assert one.market.last_seq == 4
            await one.hold()  # says so again, and still has not taken anything
            assert one.market.last_seq == 4
            await one.commit(7)
            assert one.market.last_seq == 7

    run(story())


def test_what_is_only_gathered_when_it_stops_is_not_journalled(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            one.open_market()
            await one.commit(4)
            one.add("a", ALICE, orders(1, 3))
        assert [frame.length for frame in one.frames] == [4]
        assert [frame.length for frame in journalled(tmp_path)] == [4]

    run(story())


@pytest.mark.parametrize(
    ("device", "why"),
    [("/dev/full", "No space left on device"), ("/dev/null", "Invalid argument")],
    ids=["write", "sync"],
)
def test_a_disk_that_fails_ends_it_with_nothing_told(
    tmp_path: Path, implementation: str, device: str, why: str
) -> None:
    async def story() -> None:
        journal = Journal.open(tmp_path, shard=1, replay=lambda frame: None)
        break_disk(journal, device)
        one = Scene(journal, implementation)
        one.add("a", ALICE, orders(1, 3))
        with pytest.raises(JournalFailed, match=rf"writing {device} failed: {why}.*start it again"):
            await one.commit(3)
        one.add("a", ALICE, orders(4, 3))  # nobody takes it any more
        await one.committer.stop()
        assert one.frames == []
        journal.close()

    run(story())


def test_a_disk_without_room_for_another_segment_ends_it(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            rename = Path.rename

            def failing(path: Path, target: Path) -> Path:
                if target.suffix == ".journal":
                    raise OSError(28, "No space left on device")
                return rename(path, target)

            monkeypatch.setattr(Path, "rename", failing)
            one.add("a", ALICE, orders(1, 700))
            await one.commit(700)
            one.add("a", ALICE, orders(701, 700))
            with pytest.raises(JournalFailed, match="No space left on device"):
                await one.commit(1_400)
        assert sum(frame.length for frame in one.frames) == 700

    run(story())


def test_a_market_that_breaks_its_contract_ends_it_with_nothing_told(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with scene(tmp_path, implementation) as one:
            if implementation == "python":
                monkeypatch.setattr(one.market, "apply", lambda commands, ts_ns: b"")
            one.add("a", ALICE, orders(1, 3), 2**64 - 1_500)  # makes the core's thread panic
            with pytest.raises(MarketFailed, match=r"begins at sequence 1: .*keep the journal"):
                await one.commit(3)
        assert one.frames == []

    run(story())


def test_a_failure_is_told_once_and_is_one_of_the_engines_own(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        journal = Journal.open(tmp_path, shard=1, replay=lambda frame: None)
        break_disk(journal, "/dev/full")
        one = Scene(journal, implementation)
        one.add("a", ALICE, orders(1, 3))
        one.committer.resume()
        with pytest.raises(EngineError):
            await asyncio.wait_for(one.committer.failed, WAIT_S)
        await one.committer.stop()
        journal.close()

    run(story())
