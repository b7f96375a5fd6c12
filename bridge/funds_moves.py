"""What live engine events do to the money that orders lock. Pure.

All of it is told by the events themselves, but for the account of an order that was open before
them: that is in its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import NamedTuple

import msgspec
import numpy as np

from bridge.errors import WriteBackStopped
from bridge.writeback_rows import Frame
from engine.types import Event, EventFlag, EventKind, OrderType
from engine.wire import EVENT_DTYPE, decode_events
from shadow.legacy.convert import Scale
from shadow.legacy.funds import Fill, Reservation, amount_of
from shadow.legacy.makers import MakerRule, booked

_OTHER_SIDE = {1: 2, 2: 1}
_KINDS = (
    EventKind.ACCEPTED,
    EventKind.REJECTED,
    EventKind.FILL,
    EventKind.CANCELED,
    EventKind.REDUCED,
    EventKind.PREVENTED,
    EventKind.MODE,
)


class Released(NamedTuple):
    order_id: int
    account: int  # 0: its row says
    symbol: str
    side: int
    amount: Decimal
    leaves: Decimal  # of the order, when it was canceled


class Moves(msgspec.Struct, frozen=True, kw_only=True):
    opened: tuple[Reservation, ...] = ()
    fills: tuple[Fill, ...] = ()  # of each fill the taker's side, then the maker's
    released: tuple[Released, ...] = ()
    refused: tuple[int, ...] = ()  # ids of orders that the engine will never have
    ended: tuple[tuple[str, int], ...] = ()  # instruments, and the epochs below which nothing comes

    @property
    def is_empty(self) -> bool:
        return not (self.opened or self.fills or self.released or self.refused or self.ended)

    @property
    def without_account(self) -> set[int]:
        fills = {one.order_id for one in self.fills if not one.account}
        return fills | {one.order_id for one in self.released if not one.account}


def has_moves(frame: Frame) -> bool:
    """Besides live events: refusals and new epochs, whatever mode the instrument is in."""
    kinds = np.frombuffer(frame.events, EVENT_DTYPE)["kind"]
    return bool(np.isin(kinds, (EventKind.REJECTED, EventKind.MODE)).any())


def moves_of(
    frames: Iterable[Frame],
    scales: Mapping[int, Scale],
    *,
    maker_rule: MakerRule,
    release_filled: bool,
) -> Moves:
    """Of consecutive frames. Raises WriteBackStopped for what locks no amount that we know."""
    made = _Moves(scales, maker_rule, release_filled)
    for frame in frames:
        events = np.frombuffer(frame.events, EVENT_DTYPE)
        for event in decode_events(events[np.isin(events["kind"], _KINDS)].tobytes()):
            made.add(event)
    return made.moves()


class _Moves:
    def __init__(
        self, scales: Mapping[int, Scale], maker_rule: MakerRule, release_filled: bool
    ) -> None:
        self._scales = scales
        self._maker_rule: MakerRule = maker_rule
        self._release_filled = release_filled
        self._opened: dict[int, tuple[Reservation, int | None]] = {}  # and the limit price
        self._fills: list[Fill] = []
        self._released: list[Released] = []
        self._refused: list[int] = []
        self._ended: dict[str, int] = {}

    def add(self, event: Event) -> None:
        if event.kind is EventKind.REJECTED:
            if event.ord_type:  # of a new order, not of a cancel
                self._refused.append(event.order_id)
        elif event.kind is EventKind.MODE:
            scale = self._scales.get(event.instrument)
            if scale is not None:
                self._ended[scale.symbol] = event.leaves_lots
        elif event.flags & EventFlag.LIVE:
            self._add_live(event, self._scales[event.instrument])

    def moves(self) -> Moves:
        return Moves(
            opened=tuple(one for one, _ in self._opened.values()),
            fills=tuple(self._fills),
            released=tuple(self._released),
            refused=tuple(self._refused),
            ended=tuple(self._ended.items()),
        )

    def _add_live(self, event: Event, scale: Scale) -> None:
        if event.kind is EventKind.ACCEPTED:
            self._open(event, scale)
        elif event.kind is EventKind.FILL:
            self._fill(event, scale)
        elif event.kind in (EventKind.CANCELED, EventKind.REDUCED):
            limit_ticks = _limit_ticks(event)
            amount = _amount(scale, event.order_id, event.side, limit_ticks, event.qty_lots)
            leaves = scale.quantity(event.qty_lots)
            self._released.append(
                Released(event.order_id, event.contra_id, scale.symbol, event.side, amount, leaves)
            )
        elif event.kind is EventKind.PREVENTED:
            raise WriteBackStopped(
                f"order {event.order_id} met order {event.contra_id} of its own group, which moves "
                'no money that the monolith knows of: roll back, and set engine.orders = "plain"'
            )

    def _open(self, event: Event, scale: Scale) -> None:
        limit_ticks = _limit_ticks(event)
        opened = Reservation(
            order_id=event.order_id,
            symbol=scale.symbol,
            account=event.contra_id,
            side=event.side,
            price=None if limit_ticks is None else scale.price(limit_ticks),
            quantity=scale.quantity(event.qty_lots),
            amount=_amount(scale, event.order_id, event.side, limit_ticks, event.qty_lots),
        )
        self._opened[event.order_id] = opened, limit_ticks

    def _fill(self, event: Event, scale: Scale) -> None:
        """The maker's own price is the fill's; the taker was entered by the same command."""
        taker, maker = event.order_id, event.contra_id
        if taker not in self._opened:
            raise WriteBackStopped(
                f"order {taker} traded, and was not entered just before: its own price is not "
                'known; roll back, and set engine.orders = "plain"'
            )
        _, taker_limit_ticks = self._opened[taker]
        booked_maker, _ = booked(maker, taker, self._maker_rule)
        for order_id, side, limit_ticks, leaves_lots in (
            (taker, event.side, taker_limit_ticks, event.leaves_lots),
            (maker, _OTHER_SIDE[event.side], event.price_ticks, event.contra_leaves_lots),
        ):
            opened = self._opened.get(order_id)
            account = opened[0].account if opened is not None else 0
            self._fills.append(
                Fill(
                    order_id=order_id,
                    account=account,
                    side=side,
                    is_maker=order_id == booked_maker,
                    limit_ticks=limit_ticks,
                    price_ticks=event.price_ticks,
                    qty_lots=event.qty_lots,
                    leaves_lots=leaves_lots,
                    symbol=scale.symbol,
                )
            )
            if self._release_filled and not leaves_lots:
                nothing = Decimal(0)
                self._released.append(
                    Released(order_id, account, scale.symbol, side, nothing, nothing)
                )


def _limit_ticks(event: Event) -> int | None:
    return None if event.ord_type == OrderType.MARKET else event.price_ticks


def _amount(scale: Scale, order_id: int, side: int, limit_ticks: int | None, lots: int) -> Decimal:
    amount = amount_of(scale, side, limit_ticks, lots)
    if amount is None:
        raise WriteBackStopped(
            f"order {order_id} is a market order to buy, which locks no amount that could be "
            "settled: roll its instrument back, and place such orders through the proxy only"
        )
    return amount
