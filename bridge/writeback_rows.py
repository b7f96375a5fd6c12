"""What live engine events do to the legacy's rows. Pure; prices in ticks, quantities in lots.

Effects are net: an order that was placed, filled twice and canceled within one group of journal
frames is one row, as it is left at the end. Rejected orders have no row, as in the monolith. A
canceled order keeps the quantity that was still open, as in the monolith; what was filled is the
difference. What a monolith's row can't say is refused, so that nothing is written wrongly.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec
import numpy as np

from bridge.errors import WriteBackStopped
from engine.limits import COMMAND_STEP_NS
from engine.types import Event, EventFlag, EventKind, OrderType
from engine.wire import EVENT_DTYPE, decode_events
from shadow.operation import Status


class Frame(Protocol):
    """One journal frame as the engine's tail gives it: its commands, and all their events."""

    @property
    def first_seq(self) -> int: ...
    @property
    def last_seq(self) -> int: ...
    @property
    def ts_ns(self) -> int: ...  # wall clock, UTC: of the first command
    @property
    def events(self) -> bytes: ...


class NewOrder(msgspec.Struct, frozen=True, kw_only=True):
    instrument: int
    order_id: int
    account: int
    side: int
    ord_type: int
    tif: int
    price_ticks: int | None  # None for a market order
    qty_lots: int
    leaves_lots: int
    status: Status
    created_at_us: int  # UTC, microseconds since 1970: when the engine sequenced it
    updated_at_us: int
    filled_lots: int = 0
    is_cut: bool = False  # something was taken off that was not traded


class ChangedOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order whose row is in the legacy's table already."""

    instrument: int
    order_id: int
    leaves_lots: int
    status: Status
    updated_at_us: int
    filled_lots: int = 0  # since the row was written last
    is_cut: bool = False  # as in a new one


class NewFill(msgspec.Struct, frozen=True, kw_only=True):
    seq: int  # with sub: the engine's own name for it
    sub: int
    instrument: int
    maker_order_id: int
    taker_order_id: int
    taker_side: int
    price_ticks: int
    qty_lots: int
    at_us: int


class Effects(msgspec.Struct, frozen=True, kw_only=True):
    new_orders: tuple[NewOrder, ...]  # in the engine's order
    changed_orders: tuple[ChangedOrder, ...]  # by id: the order in which the monolith locks
    fills: tuple[NewFill, ...]  # in the engine's order

    @property
    def rows(self) -> int:
        return len(self.new_orders) + len(self.changed_orders) + len(self.fills)


def has_live_events(frame: Frame) -> bool:
    """Cheap, for the many frames that only the shadow's commands are in."""
    flags = np.frombuffer(frame.events, EVENT_DTYPE)["flags"]
    return bool((flags & EventFlag.LIVE).any())


def discontinuity(written_seq: int, frames: Iterable[Frame]) -> str:
    """Why the frames do not follow on `written_seq` without gap or repeat; "" when they do."""
    expected = written_seq + 1
    for frame in frames:
        if frame.first_seq != expected:
            what = "a gap" if frame.first_seq > expected else "a repeat"
            return (
                f"{what}: the engine's events go on at {frame.first_seq}, {expected} was to be next"
            )
        expected = frame.last_seq + 1
    return ""


def net_effects(frames: Iterable[Frame]) -> Effects:
    """Of the live events of consecutive frames; all others are the shadow's and change nothing.

    Raises WriteBackStopped for an order that was replaced: a row can't become another order's.
    """
    net = _Net()
    for frame in frames:
        events = np.frombuffer(frame.events, EVENT_DTYPE)
        live = events[(events["flags"] & EventFlag.LIVE) != 0]
        for event in decode_events(live.tobytes()):
            elapsed_ns = COMMAND_STEP_NS * (event.seq - frame.first_seq)
            net.add(event, (frame.ts_ns + elapsed_ns) // 1000)
    return net.effects()


class _Net:
    def __init__(self) -> None:
        self._new: dict[int, NewOrder] = {}
        self._changed: dict[int, ChangedOrder] = {}
        self._fills: list[NewFill] = []

    def add(self, event: Event, at_us: int) -> None:
        match event.kind:
            case EventKind.ACCEPTED:
                self._new[event.order_id] = _accepted(event, at_us)
            case EventKind.FILL:
                self._fills.append(_fill(event, at_us))
                for order_id, leaves_lots in (
                    (event.order_id, event.leaves_lots),
                    (event.contra_id, event.contra_leaves_lots),
                ):
                    self._change(
                        event.instrument, order_id, leaves_lots, at_us, filled_lots=event.qty_lots
                    )
            case EventKind.CANCELED:
                self._change(
                    event.instrument, event.order_id, event.qty_lots, at_us, Status.CANCELED
                )
            case EventKind.REDUCED:
                self._change(
                    event.instrument, event.order_id, event.leaves_lots, at_us, is_cut=True
                )
            case EventKind.REPLACED:
                raise WriteBackStopped(
                    f"order {event.contra_id} was replaced by order {event.order_id}, which the "
                    f"monolith's rows can't show: roll its instrument back, and let its clients "
                    f"cancel and place instead"
                )
            case EventKind.PREVENTED:
                for order_id, leaves_lots in (
                    (event.order_id, event.leaves_lots),
                    (event.contra_id, event.contra_leaves_lots),
                ):
                    status = Status.OPEN if leaves_lots else Status.CANCELED
                    self._change(
                        event.instrument, order_id, leaves_lots, at_us, status, is_cut=True
                    )

    def effects(self) -> Effects:
        return Effects(
            new_orders=tuple(self._new.values()),
            changed_orders=tuple(self._changed[order_id] for order_id in sorted(self._changed)),
            fills=tuple(self._fills),
        )

    def _change(
        self,
        instrument: int,
        order_id: int,
        leaves_lots: int,
        at_us: int,
        status: Status | None = None,
        *,
        filled_lots: int = 0,
        is_cut: bool = False,
    ) -> None:
        status = status or (Status.OPEN if leaves_lots else Status.FILLED)
        new, changed = self._new.get(order_id), self._changed.get(order_id)
        before = new or changed
        if before is not None:
            filled_lots += before.filled_lots
            is_cut = is_cut or before.is_cut
        if new is not None:
            self._new[order_id] = msgspec.structs.replace(
                new,
                leaves_lots=leaves_lots,
                status=status,
                updated_at_us=at_us,
                filled_lots=filled_lots,
                is_cut=is_cut,
            )
        else:
            self._changed[order_id] = ChangedOrder(
                instrument=instrument,
                order_id=order_id,
                leaves_lots=leaves_lots,
                status=status,
                updated_at_us=at_us,
                filled_lots=filled_lots,
                is_cut=is_cut,
            )


def _accepted(event: Event, at_us: int) -> NewOrder:
    return NewOrder(
        instrument=event.instrument,
        order_id=event.order_id,
        account=event.contra_id,
        side=event.side,
        ord_type=event.ord_type,
        tif=event.tif,
        price_ticks=None if event.ord_type == OrderType.MARKET else event.price_ticks,
        qty_lots=event.qty_lots,
        leaves_lots=event.leaves_lots,
        status=Status.OPEN,
        created_at_us=at_us,
        updated_at_us=at_us,
    )


def _fill(event: Event, at_us: int) -> NewFill:
    return NewFill(
        seq=event.seq,
        sub=event.sub,
        instrument=event.instrument,
        maker_order_id=event.contra_id,
        taker_order_id=event.order_id,
        taker_side=event.side,
        price_ticks=event.price_ticks,
        qty_lots=event.qty_lots,
        at_us=at_us,
    )
