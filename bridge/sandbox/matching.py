"""The sandbox monolith's matching, and the ways in which it can be made to go wrong. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from random import Random

import msgspec

from bridge.sandbox.params import NewOrder

OPEN, FILLED, CANCELLED = 0, 1, 2
_ONE_DECIMAL = Decimal("0.1")


class Maker(msgspec.Struct, frozen=True, kw_only=True):
    order_id: int
    price: Decimal
    remaining: Decimal


class Trade(msgspec.Struct, frozen=True, kw_only=True):
    maker_order_id: int
    price: Decimal
    quantity: Decimal
    maker_remaining: Decimal  # after it


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    trades: tuple[Trade, ...]
    remaining: Decimal
    state: int


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """What goes wrong, by symbol: probabilities for each order or trade, and orders per second."""

    priority: dict[str, float] = {}  # the first in time at the best price is passed over
    rounding: dict[str, float] = {}  # a trade's price is rounded to one decimal
    dark: dict[str, float] = {}  # a console writes orders of its own, past every proxy


def match(order: NewOrder, makers: Sequence[Maker], faults: Faults, chance: Random) -> Matched:
    """`makers`: the crossing orders of the other side in price-time priority, as many as needed."""
    remaining = order.quantity
    trades: list[Trade] = []
    for maker in _in_turn(order, makers, faults, chance):
        if not remaining:
            break
        quantity = min(remaining, maker.remaining)
        remaining -= quantity
        trades.append(
            Trade(
                maker_order_id=maker.order_id,
                price=_traded_price(order, maker, faults, chance),
                quantity=quantity,
                maker_remaining=maker.remaining - quantity,
            )
        )
    rests = order.order_type == 0 and order.time_in_force == 0
    state = FILLED if not remaining else OPEN if rests else CANCELLED
    return Matched(trades=tuple(trades), remaining=remaining, state=state)


def _in_turn(
    order: NewOrder, makers: Sequence[Maker], faults: Faults, chance: Random
) -> Sequence[Maker]:
    unfair = faults.priority.get(order.market, 0.0)
    if len(makers) < 2 or makers[0].price != makers[1].price or chance.random() >= unfair:
        return makers
    # Passed over and not left out: left out, it could end up crossed with the order's remainder.
    return [makers[1], makers[0], *makers[2:]]


def _traded_price(order: NewOrder, maker: Maker, faults: Faults, chance: Random) -> Decimal:
    if chance.random() >= faults.rounding.get(order.market, 0.0):
        return maker.price
    return maker.price.quantize(_ONE_DECIMAL, rounding=ROUND_HALF_UP)
