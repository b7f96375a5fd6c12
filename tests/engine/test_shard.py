"""A shard at work, without sockets: who is answered when, and what may be seen meanwhile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from engine_harness import WAIT_S, run, until
from market_driver import market_or_skip, new

from engine import limits
from engine.errors import JournalFailed
from engine.outcomes import Outcome
from engine.shard import Shard
from engine.tail import TailFrame
from engine.types import Command, CommandKind, EventKind, Role
from engine.wire import decode_events, encode_command, encode_commands


class Sender:
    def __init__(self) -> None:
        self.session = 0
        self.outcomes: list[Outcome] = []
        self.answered = 0  # commands
        self.changed = asyncio.Event()

    def events(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def consumed(self, size: int) -> None:
        self.answered += size // 64
        self.changed.set()

    def admitted(self, session: int) -> None:
        self.session = session
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(WAIT_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


@asynccontextmanager
async def working(
    directory: Path, implementation: str
) -> AsyncIterator[tuple[Shard[Sender], Sender, asyncio.Task[None]]]:
    """A shard, and a session that is in."""
    market_or_skip(implementation)
    shard = Shard[Sender](directory, number=1, implementation=implementation)
    stop = asyncio.Event()
    sender = Sender()
    try:
        await shard.recover(stop)
        serving = asyncio.ensure_future(shard.run(stop))
        shard.enter(sender, "alice", Role.TRADE)
        await sender.until(lambda: bool(sender.session))
        yield shard, sender, serving
        stop.set()
        await serving
    finally:
        await shard.close()


def orders(first: int, count: int) -> memoryview:
    return memoryview(encode_commands(new(first + n, ref=first + n) for n in range(count)))


def test_only_what_is_durable_can_be_read_however_much_is_on_its_way(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        seen: list[tuple[int, int]] = []
        async with working(tmp_path, implementation) as (shard, sender, _):

            def look() -> None:
                seen.append((shard.market.last_seq, shard.feed.durable_seq))

            for n in range(200):
                shard.receive(sender, sender.session, orders(1 + 20 * n, 20))
                shard.when_settled(look)
                if n % 7 == 0:
                    await asyncio.sleep(0)
            await sender.until(lambda: sender.answered == 4_000)
            shard.when_settled(look)
            await until(lambda: len(seen) == 201, "all have looked")
        assert all(applied == durable for applied, durable in seen)
        assert seen[-1] == (4_001, 4_001)

    run(story())


def test_what_is_asked_for_while_looking_is_seen_in_the_same_look(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        seen: list[str] = []
        async with working(tmp_path, implementation) as (shard, sender, _):

            def look() -> None:
                seen.append("first")
                shard.receive(sender, sender.session, orders(100, 1))
                shard.when_settled(lambda: seen.append("second"))
                seen.append("third")

            shard.receive(sender, sender.session, orders(1, 1))
            shard.when_settled(look)
            await sender.until(lambda: sender.answered == 2)
        assert seen == ["first", "second", "third"]

    run(story())


def test_orders_go_on_between_many_looks(tmp_path: Path, implementation: str) -> None:
    async def story() -> None:
        looks: list[int] = []  # how many orders had been answered
        async with working(tmp_path, implementation) as (shard, sender, _):

            def look() -> None:
                if not looks:
                    shard.receive(sender, sender.session, orders(2, 1))
                looks.append(sender.answered)

            shard.receive(sender, sender.session, orders(1, 1))
            for _ in range(3 * limits.LOOKS_AT_ONCE + 1):
                shard.when_settled(look)
            await sender.until(lambda: sender.answered == 2)
            await until(lambda: len(looks) > 3 * limits.LOOKS_AT_ONCE, "all have looked")
        first, later = looks[: limits.LOOKS_AT_ONCE], looks[limits.LOOKS_AT_ONCE :]
        assert set(first) == {looks[0]}
        assert min(later) > looks[0]

    run(story())


def test_a_watcher_is_told_of_every_frame_in_order(tmp_path: Path, implementation: str) -> None:
    async def story() -> None:
        frames: list[TailFrame] = []
        async with working(tmp_path, implementation) as (shard, sender, _):
            shard.watch(frames.append)
            for n in range(50):
                shard.receive(sender, sender.session, orders(1 + 10 * n, 10))
                await asyncio.sleep(0)
            await sender.until(lambda: sender.answered == 500)
            assert shard.feed.durable_seq == 501
        assert [frame.first_seq for frame in frames] == [
            2,
            *(frame.last_seq + 1 for frame in frames[:-1]),
        ]
        told = b"".join(outcome.events for outcome in sender.outcomes)
        assert b"".join(frame.events for frame in frames) == told

    run(story())


def test_a_command_of_the_gateways_own_is_answered_when_it_is_durable(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        told: list[tuple[int, Outcome]] = []
        async with working(tmp_path, implementation) as (shard, sender, _):
            shard.receive(sender, sender.session, orders(1, 3))
            command = encode_command(Command(kind=CommandKind.TIME))
            shard.own(command, lambda outcome: told.append((shard.feed.durable_seq, outcome)))
            shard.receive(sender, sender.session, orders(4, 1))
            await sender.until(lambda: sender.answered == 4)
        ((durable_seq, outcome),) = told
        (event,) = decode_events(outcome.events)
        assert (event.kind, event.seq) == (EventKind.TIME, 5)
        assert durable_seq >= 5

    run(story())


def test_a_watcher_that_fails_ends_the_shard_with_its_error(
    tmp_path: Path, implementation: str
) -> None:
    async def story() -> None:
        def failing(frame: TailFrame) -> None:
            raise KeyError(frame.first_seq)

        async with working(tmp_path, implementation) as (shard, sender, serving):
            shard.watch(failing)
            shard.receive(sender, sender.session, orders(1, 1))
            with pytest.raises(KeyError, match="2"):
                await asyncio.wait_for(serving, WAIT_S)

    with suppress(KeyError):
        run(story())


def test_a_disk_that_fails_ends_the_shard_and_answers_nothing_of_it(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        rename = Path.rename

        def failing(path: Path, target: Path) -> Path:
            if target.suffix == ".journal":
                raise OSError(28, "No space left on device")
            return rename(path, target)

        async with working(tmp_path, implementation) as (shard, sender, serving):
            monkeypatch.setattr(Path, "rename", failing)
            sent = 0
            while not serving.done():
                assert sent < 200_000
                shard.receive(sender, sender.session, orders(sent + 1, 2_000))
                sent += 2_000
                if sent - sender.answered > 20_000:
                    await asyncio.sleep(0.001)
            journalled: Any = shard.feed.durable_seq - 1
            assert sender.answered == journalled < sent
            await serving

    with pytest.raises(JournalFailed, match="No space left on device"):
        run(story())


def test_after_a_failure_nothing_is_shown_of_what_never_became_durable(
    tmp_path: Path, implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The market has applied the frame whose sync failed; the desk is still there for a while."""
    shown: list[int] = []

    async def story() -> None:
        async with working(tmp_path, implementation) as (shard, sender, serving):
            failing = OSError(5, "Input/output error")
            if implementation == "python":
                monkeypatch.setattr(os, "fdatasync", Mock(side_effect=failing))
            else:
                # The native thread's own calls are out of reach here: its segment is full instead.
                monkeypatch.setattr(Path, "rename", Mock(side_effect=failing))
            sent = 0
            while not serving.done():
                assert sent < 200_000
                shard.receive(sender, sender.session, orders(sent + 1, 2_000))
                sent += 2_000
                await asyncio.sleep(0.001)
            durable = shard.feed.durable_seq
            shard.when_settled(lambda: shown.append(shard.market.last_seq))
            assert shown in ([], [durable])
            await serving

    with pytest.raises(JournalFailed):
        run(story())
    assert shown == []
