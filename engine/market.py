"""Instruments, sessions and their books: batches of commands in, events out. Two implementations,
one specification.

`PythonMarket` is the specification. `engine._core` (Rust) does the same work faster and must agree
with it event for event and snapshot for snapshot. Neither is ever taken in the other's place: what
was asked for and can't be had is an error.
"""

from __future__ import annotations

import hashlib
from typing import Protocol

from engine.core_market import RustMarket
from engine.errors import EngineImplementationUnavailable
from engine.limits import RULES
from engine.reference import PythonMarket
from engine.snapshot import AccountState, InstrumentState, SessionState

__all__ = [
    "IMPLEMENTATIONS",
    "AccountState",
    "InstrumentState",
    "Market",
    "PythonMarket",
    "RustMarket",
    "SessionState",
    "create_market",
    "restore_market",
    "state_hash",
]

IMPLEMENTATIONS = ("python", "rust")


class Market(Protocol):
    """What one shard is. Its state changes by `apply` alone, and applying depends on nothing but
    state and arguments.

    One writer: calls from several threads must not overlap.
    """

    @property
    def implementation(self) -> str:
        """ "python" or "rust"."""

    @property
    def last_seq(self) -> int:
        """Of the last command applied; 0 before the first."""

    @property
    def last_ts_ns(self) -> int:
        """When the last command happened, on the sequencer's clock; it never goes back."""

    def apply(self, commands: bytes | memoryview, ts_ns: int, *, rules: int = RULES) -> bytes:
        """Applies a batch of 64-byte commands in order and returns all their 80-byte events, at
        least one for each.

        The first command gets `last_seq + 1` and happens at `ts_ns`, each further one a microsecond
        later. `rules` are those that the batch was sequenced under: 1 knows limit and market orders
        only. Raises ValueError, having changed nothing, when the length is no multiple of 64, a
        number leaves its field, or nobody ever had such rules.
        """

    def orders(self, instrument: int) -> bytes:
        """Its resting orders, 48 bytes each: bids, then asks; best price first, then oldest first.

        Raises UnknownInstrument, as do the next three.
        """

    def stops(self, instrument: int) -> bytes:
        """Its stops that wait for their trade, 72 bytes each, oldest first."""

    def depth(self, instrument: int, levels: int) -> bytes:
        """Its best prices, so many a side at most, with what is displayed there: 32 bytes each
        (`engine.wire.DEPTH_DTYPE`); bids, then asks; best first.
        """

    def displayed_orders(self, instrument: int, count: int) -> bytes:
        """Its best orders, so many a side at most, with what they display: 32 bytes each
        (`engine.wire.DISPLAYED_ORDER_DTYPE`); bids, then asks; best price first, then oldest first.
        """

    def instruments(self) -> tuple[InstrumentState, ...]:
        """Ascending by number."""

    def sessions(self) -> tuple[SessionState, ...]:
        """Ascending by number."""

    def accounts(self) -> tuple[AccountState, ...]:
        """Those with limits, a group or a kill switch of their own; ascending by number."""

    def account(self, account: int) -> AccountState:
        """Any account: of one that nothing is known of, the defaults."""

    def next_expiry_ns(self) -> int | None:
        """When the next order's time has come, in instruments that are not closed."""

    def snapshot(self) -> bytes:
        """The whole state in the canonical bytes of `engine.snapshot`."""

    def check(self) -> None:
        """Walks every invariant. Raises AssertionError on the first that does not hold."""


def create_market(implementation: str) -> Market:
    """An empty market. Raises EngineImplementationUnavailable for one that can't be had here."""
    if implementation == "python":
        return PythonMarket()
    if implementation == "rust":
        return RustMarket()
    raise _unknown(implementation)


def restore_market(implementation: str, snapshot: bytes | memoryview) -> Market:
    """A market in the state of a snapshot, whichever implementation wrote it.

    Raises SnapshotUnreadable, or EngineImplementationUnavailable.
    """
    if implementation == "python":
        return PythonMarket.restore(snapshot)
    if implementation == "rust":
        return RustMarket.restore(snapshot)
    raise _unknown(implementation)


def state_hash(market: Market) -> str:
    """BLAKE2b-128 of the snapshot, in hex: equal states, equal hashes, in either."""
    return hashlib.blake2b(market.snapshot(), digest_size=16).hexdigest()


def _unknown(implementation: str) -> EngineImplementationUnavailable:
    choices = " or ".join(IMPLEMENTATIONS)
    return EngineImplementationUnavailable(
        f"there is no engine implementation {implementation!r}: choose {choices}"
    )
