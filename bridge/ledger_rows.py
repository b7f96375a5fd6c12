"""Flips and their steps, as the control store has them."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Direction = Literal["flip", "rollback"]
FlipState = Literal["running", "committed", "done", "aborted"]


class FlipRow(msgspec.Struct, frozen=True, kw_only=True):
    id: int
    symbol: str
    direction: Direction
    epoch_from: int
    epoch_to: int
    state: FlipState
    actor: str
    reason: str  # why it was started by itself, and why it was aborted
    hold_ms: float | None
    started_at_s: float  # wall clock of the store
    ended_at_s: float | None  # None: not all has been done yet that the state asks for


class StepRow(msgspec.Struct, frozen=True, kw_only=True):
    n: int
    step: str
    state: Literal["intended", "done", "failed"]
    detail: dict[str, Any]
    intended_at_s: float
    ended_at_s: float | None
