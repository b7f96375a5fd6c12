"""What the orders in a snapshot may be. Each check raises SnapshotUnreadable where no market can
have written them.
"""

from __future__ import annotations

from itertools import pairwise

from engine import limits
from engine.errors import SnapshotUnreadable
from engine.types import (
    OrderFlag,
    OrderState,
    OrderType,
    SelfTradePrevention,
    Side,
    TimeInForce,
)


def require(holds: bool, problem: str) -> None:
    if not holds:
        raise SnapshotUnreadable(f"not a snapshot: {problem}")


def check_order(order: OrderState) -> None:
    """What holds for those that rest and for stops."""
    what = f"order {order.order_id}"
    require(order.side in set(Side), f"{what} has no side")
    require(order.stp in set(SelfTradePrevention), f"{what}: its self-trade prevention")
    require(0 < order.leaves_lots <= order.qty_lots, f"{what}: its leaves")
    require((order.expiry_s == 0) == (order.tif == TimeInForce.GTC), f"{what}: its expiry")
    is_iceberg = bool(order.flags & OrderFlag.DISPLAY)
    require((order.display_lots > 0) == is_iceberg, f"{what}: its display quantity")
    if is_iceberg:
        most = min(order.display_lots, order.leaves_lots)
        require(0 < order.displayed_lots <= most, f"{what}: what it displays")
    else:
        require(order.displayed_lots == order.leaves_lots, f"{what}: what it displays")


def check_book(orders: tuple[OrderState, ...], what: str) -> None:
    for order in orders:
        which = f"order {order.order_id}"
        require(order.ord_type == OrderType.LIMIT, f"{which} rests and is no limit order")
        lasting = (TimeInForce.DAY, TimeInForce.GTC, TimeInForce.GTD)
        require(order.tif in lasting, f"{which}: its time in force")
        known = int(OrderFlag.POST_ONLY | OrderFlag.DISPLAY)  # its complement has all other bits
        require(order.flags & ~known == 0, f"{which}: its flags")
        require(order.stop_price_ticks == 0, f"{which} rests and has a stop price")
        require(order.price_ticks > 0, f"{which}: its price is not positive")
    require(
        all(_ranks(left, right) for left, right in pairwise(orders)),
        f"the orders of {what} are not in their priority",
    )
    bids = [order.price_ticks for order in orders if order.side == Side.BUY]
    asks = [order.price_ticks for order in orders if order.side == Side.SELL]
    require(not bids or not asks or bids[0] < asks[0], f"the book of {what} is crossed")


def check_stop(stop: OrderState, last_ticks: int) -> None:
    what = f"the stop {stop.order_id}"
    require(stop.ord_type in (OrderType.STOP, OrderType.STOP_LIMIT), f"{what} is none")
    require(stop.tif in (TimeInForce.DAY, TimeInForce.GTC), f"{what}: its time in force")
    require(stop.flags == 0, f"{what}: its flags")
    require(stop.stop_price_ticks > 0, f"{what}: its stop price is not positive")
    is_priced = stop.ord_type == OrderType.STOP_LIMIT
    good = stop.price_ticks > 0 if is_priced else stop.price_ticks == 0
    require(good, f"{what}: its price")
    if last_ticks:
        is_buy = stop.side == Side.BUY
        waits = last_ticks < stop.stop_price_ticks if is_buy else last_ticks > stop.stop_price_ticks
        require(waits, f"{what} waits for what has been traded")


def check_orders(orders: list[OrderState], sessions: set[int]) -> None:
    """What holds for all of them together."""
    require(len(orders) <= limits.OPEN_ORDERS_MAX, "it holds too many open orders")
    require(len({order.order_id for order in orders}) == len(orders), "two orders have one id")
    for order in orders:
        require(order.session in sessions, f"order {order.order_id}: its session is unknown")


def _ranks(left: OrderState, right: OrderState) -> bool:
    """Whether the two may stand next to each other in this order."""
    if left.side != right.side:
        return left.side == Side.BUY
    if left.side == Side.BUY:
        return left.price_ticks >= right.price_ticks
    return left.price_ticks <= right.price_ticks
