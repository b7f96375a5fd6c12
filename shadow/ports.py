"""What the comparison needs from outside, as small as it needs it. Real ones: `legacy.changes`,
`legacy.snapshot`, `captures.RedisCaptures`, `engine.client.EngineClient`, `store.Store` and the
proxy's dialect; tests bring their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from engine.types import Command, Event, Mode, RestingOrder
from shadow.answer import OrderView
from shadow.answer_check import Answer as RenderedAnswer
from shadow.normalise import Refusal
from shadow.operation import LegacyTransaction, OrderImage, Unreadable


class Changes(Protocol):
    """The monolith's transactions in commit order."""

    async def open(self, expected_lsn: int = 0) -> None:
        """Begins after the consumer's watermark. Raises ChangesLost and other ShadowErrors."""

    def transactions(self) -> AsyncIterator[LegacyTransaction]:
        """Ends after `close`; raises what `open` raises."""

    def confirm(self, end_lsn: int) -> None:
        """Everything up to here is recorded."""

    async def close(self) -> None: ...


class OpenOrders(Protocol):
    """The monolith's open orders, and the position that they stand at."""

    @property
    def lsn(self) -> int:
        """Exactly the transactions with a smaller commit_lsn are in it."""

    @property
    def orders(self) -> Sequence[OrderImage | Unreadable]:
        """In queue order within each symbol and side."""


class Snapshots(Protocol):
    """The monolith's database, asked directly. Raises ShadowErrors."""

    async def open_orders(self, symbols: Sequence[str], hold: Callable[[], None]) -> OpenOrders:
        """Calls `hold` before it takes the position: what has been read by then lies before it."""

    async def owners(self, order_ids: Sequence[int]) -> Mapping[int, tuple[str, int]]:
        """(symbol, account) of those orders that exist, open or not."""

    async def write_mark(self, mark_id: str) -> None:
        """It comes back in the change stream after everything that has committed by now."""


class CaptureEntry(NamedTuple):
    id: str
    fields: Mapping[bytes, bytes]


class Captures(Protocol):
    async def newest(self, count: int) -> list[CaptureEntry]:
        """The newest entries, newest first. Raises CapturesUnavailable."""

    async def read(self, after: str, count: int, block_ms: int) -> list[CaptureEntry]:
        """Those after an id, oldest first; waits while there are none. May raise likewise."""


class Answered(Protocol):
    """What the engine made of one command."""

    @property
    def seq(self) -> int: ...

    @property
    def at_ns(self) -> int: ...

    @property
    def events(self) -> tuple[Event, ...]: ...


class Book(Protocol):
    @property
    def seq(self) -> int: ...

    @property
    def mode(self) -> Mode: ...

    @property
    def orders(self) -> tuple[RestingOrder, ...]: ...


class Engine(Protocol):
    """One session of the engine. Sends keep their order, however many are under way."""

    async def send(
        self, commands: Sequence[Command], *, timeout_s: float
    ) -> Sequence[Answered]: ...

    async def book(self, instrument: int) -> Book: ...


class Renderer(Protocol):
    """The monolith's answers, as the proxy would give them for the engine."""

    def render_placed(self, view: OrderView) -> RenderedAnswer: ...

    def render_canceled(self, view: OrderView) -> RenderedAnswer: ...

    def render_refusal(self, refusal: Refusal) -> RenderedAnswer: ...

    def render_not_found(self) -> RenderedAnswer: ...

    def render_not_open(self) -> RenderedAnswer: ...

    def element(self, status: int, body: bytes) -> bytes:
        """What a bulk answer shows of an order, from the answer to a request for it alone."""


class Clock(msgspec.Struct, frozen=True, kw_only=True):
    """Where the time comes from."""

    wall_ns: Callable[[], int]  # UTC, since 1970
    mono_ns: Callable[[], int]  # monotonic; only differences mean anything
