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
from engine.reference import PythonMarket
from engine.snapshot import InstrumentState, SessionState

__all__ = [
    "IMPLEMENTATIONS",
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

    def apply(self, commands: bytes | memoryview, ts_ns: int) -> bytes:
        """Applies a batch of 64-byte commands in order and returns all their 80-byte events, at
        least one for each.

        The first command gets `last_seq + 1` and happens at `ts_ns`, each further one a microsecond
        later. Raises ValueError, having changed nothing, when the length is no multiple of 64 or a
        number leaves its field.
        """

    def orders(self, instrument: int) -> bytes:
        """Its open orders, 48 bytes each: bids, then asks; best price first, then oldest first.

        Raises UnknownInstrument.
        """

    def instruments(self) -> tuple[InstrumentState, ...]:
        """Ascending by number."""

    def sessions(self) -> tuple[SessionState, ...]:
        """Ascending by number."""

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
