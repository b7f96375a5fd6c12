"""An open order, or one on its way to become it."""

from __future__ import annotations

from dataclasses import dataclass

from engine.rules import RESTING, STOPS
from engine.types import (
    OrderState,
    OrderType,
    RestingOrder,
    SelfTradePrevention,
    Side,
    TimeInForce,
)


@dataclass(slots=True, kw_only=True, eq=False)
class Order:
    """What an order is now: a taker, a stop that waits, or an order that rests in the book."""

    instrument: int
    order_id: int
    account: int
    side: Side
    price_ticks: int  # 0: market orders, and stops that become one
    qty_lots: int  # as ordered, or as replaced
    leaves_lots: int
    session: int = 0
    ord_type: OrderType = OrderType.LIMIT
    tif: TimeInForce = TimeInForce.GTC
    flags: int = 0
    stp: SelfTradePrevention = SelfTradePrevention.NONE
    stop_price_ticks: int = 0  # 0: no stop, or not any more
    expiry_s: int = 0  # 0: never
    display_lots: int = 0  # 0: no iceberg
    displayed_lots: int = 0  # of the leaves; kept by the book while it rests
    entry: int = 0  # its place among the stops that wait, kept by them

    @property
    def limit_ticks(self) -> int | None:
        """None: any price will do."""
        return None if self.ord_type is OrderType.MARKET else self.price_ticks

    @property
    def is_stop(self) -> bool:
        return self.ord_type in STOPS

    @property
    def rests(self) -> bool:
        """Whether what does not trade at once stays open."""
        return self.tif in RESTING

    def display(self) -> None:
        """Shows all that is left; of an iceberg what it may show."""
        self.displayed_lots = min(self.display_lots or self.leaves_lots, self.leaves_lots)

    def trigger(self) -> None:
        """From now on it is no stop."""
        self.stop_price_ticks = 0
        if self.ord_type is OrderType.STOP:
            self.ord_type, self.tif = OrderType.MARKET, TimeInForce.IOC
        else:
            self.ord_type = OrderType.LIMIT


def opposite(side: Side) -> Side:
    return Side.SELL if side is Side.BUY else Side.BUY


def resting_order(order: Order) -> RestingOrder:
    """What others may see of an open order."""
    return RestingOrder(
        order_id=order.order_id,
        account=order.account,
        price_ticks=order.price_ticks,
        leaves_lots=order.leaves_lots,
        qty_lots=order.qty_lots,
        side=order.side,
    )


def order_state(order: Order) -> OrderState:
    return OrderState(**{name: getattr(order, name) for name in OrderState.__struct_fields__})


def restored_order(instrument: int, state: OrderState) -> Order:
    return Order(
        instrument=instrument,
        order_id=state.order_id,
        account=state.account,
        side=Side(state.side),
        price_ticks=state.price_ticks,
        qty_lots=state.qty_lots,
        leaves_lots=state.leaves_lots,
        session=state.session,
        ord_type=OrderType(state.ord_type),
        tif=TimeInForce(state.tif),
        flags=state.flags,
        stp=SelfTradePrevention(state.stp),
        stop_price_ticks=state.stop_price_ticks,
        expiry_s=state.expiry_s,
        display_lots=state.display_lots,
        displayed_lots=state.displayed_lots,
    )
