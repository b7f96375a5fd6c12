"""The commit path: what is gathered becomes frames, each on the disk and applied to the market
before anything of it is told.

Whatever was gathered while the last frame was synced becomes the next one; there is no timer.
`NativeCommitter` leaves all of that to a thread of the Rust core, which never waits for the
interpreter; `PythonCommitter` does the same on the reference book. A failure ends either for good.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import numpy as np

from engine.core_market import RustMarket
from engine.errors import MarketFailed
from engine.frame import FRAME_HEADER_BYTES, Link, header_hash
from engine.journal_writer import JournalWriter, journal_failed
from engine.limits import FRAME_COMMANDS_MAX, RULES
from engine.market import Market
from engine.outcomes import command_ends, events_of
from engine.preparer import PythonZeroing
from engine.wire import COMMAND_BYTES, COMMAND_DTYPE

Commands = bytes | memoryview


class SettledPart(NamedTuple):
    """Commands of one session that were added together, or as many of them as fitted a frame."""

    owner: Any  # as given with them
    length: int  # in commands
    first_ref: int
    last_ref: int
    events: bytes


class Settled(NamedTuple):
    """A frame that is durable, and what it came to."""

    first_seq: int
    length: int  # in commands
    ts_ns: int
    events: bytes
    parts: Sequence[SettledPart | tuple[Any, int, int, int, bytes]]


class Told(Protocol):
    def __call__(self, frames: Sequence[Settled], *, is_held: bool) -> None:
        """What has become durable since the last call. `is_held`: after `hold`, and nothing more is
        applied until `resume`.
        """


class Committer(Protocol):
    """Calls from the loop only. A frame's time is that given with its last commands."""

    failed: asyncio.Future[None]  # JournalFailed or MarketFailed; never a result

    def add(self, owner: Any, session: int, commands: Commands, now_ns: int) -> None:
        """Gathers whole commands of one session, at least one, whatever their references."""

    def offer(
        self, owner: Any, session: int, commands: Commands, above_ref: int, now_ns: int
    ) -> int:
        """As `add`, if the references ascend strictly from above `above_ref`; returns the last one.
        Otherwise 0, and nothing is taken.
        """

    def hold(self) -> None:
        """Finishes what is in hand, says so, and waits for `resume`."""

    def resume(self) -> None: ...

    async def stop(self) -> None:
        """Finishes what is in hand, tells it, and ends. What is only gathered is dropped."""


def create_committer(market: Market, journal: JournalWriter, told: Told) -> Committer:
    """Of the implementation of the market. `told` is called in the running loop."""
    if isinstance(market, RustMarket):
        return NativeCommitter(market, journal, told)
    return PythonCommitter(market, journal, told)


class NativeCommitter:
    def __init__(self, market: RustMarket, journal: JournalWriter, told: Told) -> None:
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._journal = journal
        self._told = told
        self._core = core = market.committer(
            self._rotate,
            path=journal.path,
            offset=journal.offset,
            size=journal.size,
            rules=RULES,
            next_seq=journal.link.next_seq,
            next_ts_ns=journal.link.next_ts_ns,
            crc=journal.link.crc,
            commands_max=FRAME_COMMANDS_MAX,
        )
        journal.prepare(market.zeroing)
        self.add = core.add
        self.offer = core.offer
        self.hold = core.hold
        self.resume = core.resume
        self._loop.add_reader(core.fileno(), self._fetch)

    async def stop(self) -> None:
        await self._loop.run_in_executor(None, self._core.stop)
        self._loop.remove_reader(self._core.fileno())
        self._fetch()

    def _fetch(self) -> None:
        frames, is_held = self._core.settled()
        self._journal.advance(self._core.offset)
        self._told([Settled(*frame) for frame in frames], is_held=is_held)
        failure = self._core.failure()
        if failure is not None and not self.failed.done():
            self.failed.set_exception(self._failed(*failure))

    def _failed(self, first_seq: int, error: BaseException) -> BaseException:
        if first_seq:
            return MarketFailed.on(first_seq, str(error))
        if isinstance(error, OSError):
            failed = journal_failed(f"writing {self._journal.path}", error)
            failed.__cause__ = error
            return failed
        return error

    def _rotate(self, next_seq: int, next_ts_ns: int, header: bytes, frame_bytes: int) -> Any:
        """Called by the committer's thread. `header` is the last frame's."""
        if header:
            crc = int.from_bytes(header[-4:], "little")
            after = Link(next_seq, crc, header_hash(header), next_ts_ns)
        else:
            after = self._journal.link
        self._journal.rotate(frame_bytes, after=after)
        return self._journal.path, self._journal.offset, self._journal.size


class Draft:
    """A frame being gathered."""

    def __init__(self) -> None:
        self.bytes = bytearray(FRAME_HEADER_BYTES)  # room for the header, then commands
        self.parts: list[tuple[Any, int]] = []  # owner, commands
        self.now_ns = 0

    @property
    def commands(self) -> memoryview:
        return memoryview(self.bytes)[FRAME_HEADER_BYTES:]

    @property
    def count(self) -> int:
        return len(self.bytes) // COMMAND_BYTES - 1


class Gathered:
    """What waits to become frames, oldest first."""

    def __init__(self) -> None:
        self._drafts: deque[Draft] = deque()

    def __bool__(self) -> bool:
        return bool(self._drafts)

    def take(self) -> Draft:
        return self._drafts.popleft()

    def add(self, owner: Any, session: int, commands: Commands, now_ns: int) -> None:
        rows = np.frombuffer(commands, COMMAND_DTYPE).copy()
        if not len(rows):
            raise ValueError("no commands")
        rows["session"] = session
        while len(rows):
            if not self._drafts or self._drafts[-1].count >= FRAME_COMMANDS_MAX:
                self._drafts.append(Draft())
            draft = self._drafts[-1]
            taken, rows = np.split(rows, [FRAME_COMMANDS_MAX - draft.count])
            draft.bytes += taken.tobytes()
            draft.parts.append((owner, len(taken)))
            draft.now_ns = now_ns

    def offer(
        self, owner: Any, session: int, commands: Commands, above_ref: int, now_ns: int
    ) -> int:
        refs = np.frombuffer(commands, COMMAND_DTYPE)["ref"]
        if int(refs[0]) <= above_ref or not bool((refs[1:] > refs[:-1]).all()):
            return 0
        self.add(owner, session, commands, now_ns)
        return int(refs[-1])


def settled(draft: Draft, first_seq: int, ts_ns: int, events: bytes) -> Settled:
    """Raises ValueError unless the events are those of exactly the draft's commands."""
    refs = np.frombuffer(draft.commands, COMMAND_DTYPE)["ref"]
    ends = command_ends(events, draft.count)
    parts: list[SettledPart] = []
    at = 0
    for owner, count in draft.parts:
        first, last = int(refs[at]), int(refs[at + count - 1])
        parts.append(SettledPart(owner, count, first, last, events_of(events, ends, at, count)))
        at += count
    return Settled(first_seq, draft.count, ts_ns, events, parts)


class PythonCommitter(Gathered):
    """The journal is written by a thread, while the market applies the same frame in the loop's."""

    def __init__(self, market: Market, journal: JournalWriter, told: Told) -> None:
        super().__init__()
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._market = market
        self._journal = journal
        self._told = told
        journal.prepare(PythonZeroing)
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="journal-write")
        self._changed = asyncio.Event()
        self._is_held = self._is_stopped = False
        self._task = asyncio.ensure_future(self._run())

    def add(self, owner: Any, session: int, commands: Commands, now_ns: int) -> None:
        super().add(owner, session, commands, now_ns)
        self._changed.set()

    def hold(self) -> None:
        self._is_held = True
        self._changed.set()

    def resume(self) -> None:
        self._is_held = False
        self._changed.set()

    async def stop(self) -> None:
        self._is_stopped = True
        self._changed.set()
        await self._task
        self._writer.shutdown()

    async def _run(self) -> None:
        try:
            while not self._is_stopped:
                self._changed.clear()
                if self._is_held:
                    self._told((), is_held=True)
                elif self:
                    self._told((await self._commit(self.take()),), is_held=False)
                    continue
                await self._changed.wait()
        except Exception as error:
            self.failed.set_exception(error)

    async def _commit(self, draft: Draft) -> Settled:
        link = self._journal.link
        first_seq, ts_ns = link.next_seq, max(draft.now_ns, link.next_ts_ns)

        def append() -> None:
            self._journal.append(draft.bytes, first_seq=first_seq, ts_ns=ts_ns)

        written = self._loop.run_in_executor(self._writer, append)
        try:
            events = self._market.apply(draft.commands, ts_ns)
            found = settled(draft, first_seq, ts_ns, events)
        except Exception as error:
            raise MarketFailed.on(first_seq, error) from error
        finally:
            await written
        return found
