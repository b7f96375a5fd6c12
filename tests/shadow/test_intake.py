"""What waits to be applied is bounded, whatever comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from shadow.errors import ChangesLost
from shadow.intake import Intake
from shadow.operation import LegacyTransaction, Mark, Marker
from shadow.recorder import Recorder
from shadow.tasks import cancelled


class Torrent:
    """A stream that never ends."""

    def __init__(self) -> None:
        self.given = 0

    async def open(self, expected_lsn: int = 0) -> None:
        return

    async def transactions(self) -> AsyncIterator[LegacyTransaction]:
        while True:
            self.given += 1
            await asyncio.sleep(0)
            yield transaction(self.given, 10)

    def confirm(self, end_lsn: int) -> None:
        return

    async def close(self) -> None:
        return


def transaction(lsn: int, changes: int, *, marker: bool = False) -> LegacyTransaction:
    held = Marker(symbol="BTC-USD", flip_id=1, owner="engine", epoch=2) if marker else Mark(id="m")
    return LegacyTransaction(
        commit_lsn=lsn,
        end_lsn=lsn,
        xid=lsn,
        committed_at_us=0,
        ours=False,
        changes=(held,) * changes,
    )


class Nobody:
    """As much of a recorder as an intake needs."""

    def __init__(self) -> None:
        self.trouble: dict[str, str] = {}
        self.on_recorded = print


def intake(stream: Torrent, *, marker_came: Callable[[], None] = lambda: None) -> Intake:
    recorder: Recorder = Nobody()  # type: ignore[assignment]
    return Intake(
        changes=lambda: stream,
        recorder=recorder,
        news=lambda: None,
        marker_came=marker_came,
    )


def test_a_torrent_waits_in_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadow.intake.CHANGES_WAITING_MAX", 100)

    async def main() -> None:
        stream = Torrent()
        waiting = intake(stream)
        reading = asyncio.create_task(waiting.keep_reading(0))
        for _ in range(200):
            await asyncio.sleep(0)
        assert stream.given == 11  # ten of eleven each, and the one that waits at the door
        taken = [waiting.take().end_lsn for _ in range(5)]  # type: ignore[union-attr]
        assert taken == [1, 2, 3, 4, 5]
        for _ in range(200):
            await asyncio.sleep(0)
        assert stream.given == 16
        await cancelled([reading])

    asyncio.run(main())


def test_a_marker_is_told_of_before_it_is_applied() -> None:
    async def main() -> None:
        came = asyncio.Event()
        stream = Torrent()

        async def transactions() -> AsyncIterator[LegacyTransaction]:
            yield transaction(1, 1)
            assert not came.is_set()
            yield transaction(2, 1, marker=True)
            await asyncio.Event().wait()

        stream.transactions = transactions  # type: ignore[method-assign]
        waiting = intake(stream, marker_came=came.set)
        reading = asyncio.create_task(waiting.keep_reading(0))
        async with asyncio.timeout(10):
            await came.wait()
        assert waiting
        await cancelled([reading])

    asyncio.run(main())


def test_losses_one_after_another_are_told_and_do_not_hurry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        rested = asyncio.Event()

        async def rest(seconds: float) -> None:
            rested.set()
            await asyncio.Event().wait()

        class Lost(Torrent):
            async def open(self, expected_lsn: int = 0) -> None:
                self.given += 1
                raise ChangesLost("again", slot_lsn=0)

        monkeypatch.setattr("shadow.intake.asyncio.sleep", rest)
        stream = Lost()
        waiting = intake(stream)
        reading = asyncio.create_task(waiting.keep_reading(7))
        await rested.wait()
        assert stream.given == 3
        assert waiting._recorder.trouble["changes"] == "again"
        await cancelled([reading])

    asyncio.run(main())


def test_after_a_loss_no_snapshot_may_begin_until_the_next_slot_is_there() -> None:
    """What commits between the two would be in neither."""

    async def main() -> None:
        stream = Torrent()
        may_open = asyncio.Event()

        async def lost() -> AsyncIterator[LegacyTransaction]:
            raise ChangesLost("dropped", slot_lsn=0)
            yield

        async def at_once(expected_lsn: int = 0) -> None:
            stream.open = later  # type: ignore[method-assign]

        async def later(expected_lsn: int = 0) -> None:
            await may_open.wait()
            stream.transactions = Torrent().transactions  # type: ignore[method-assign]

        waiting = intake(stream)
        stream.open = at_once  # type: ignore[method-assign]
        stream.transactions = lost  # type: ignore[method-assign]
        reading = asyncio.create_task(waiting.keep_reading(0))
        for _ in range(5):
            await asyncio.sleep(0)
        assert isinstance(waiting.take(), ChangesLost)
        assert not waiting.has_begun
        may_open.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert waiting
        assert waiting.has_begun
        await cancelled([reading])

    asyncio.run(main())
