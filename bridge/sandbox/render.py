"""The sandbox's JSON as Rails writes it: decimals as strings, times in ISO 8601 with ms. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from bridge.sandbox.params import ORDER_TYPES, SIDES, STATES, TIMES_IN_FORCE

Row = Mapping[str, Any]


def decimal(number: Decimal | None) -> str | None:
    """BigDecimal#as_json: no trailing zeros, but always one decimal.

    >>> decimal(Decimal("100.00000000")), decimal(Decimal("1.50")), decimal(Decimal("0E-8"))
    ('100.0', '1.5', '0.0')
    """
    if number is None:
        return None
    whole, _, fraction = f"{number:f}".partition(".")
    return f"{whole}.{fraction.rstrip('0') or '0'}"


def time(at: datetime) -> str:
    """ActiveSupport::TimeWithZone#as_json: milliseconds, cut and not rounded.

    >>> time(datetime(2015, 5, 1, 12, 30, 0, 123987))
    '2015-05-01T12:30:00.123Z'
    """
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03d}Z"


def order(row: Row, trades: Sequence[Row] = ()) -> dict[str, Any]:
    """`trades` are those in which it was the taker."""
    return {
        "id": row["id"],
        "market": row["market_id"],
        "side": SIDES[row["side"]],
        "order_type": ORDER_TYPES[row["order_type"]],
        "time_in_force": TIMES_IN_FORCE[row["time_in_force"]],
        "price": decimal(row["price"]),
        "quantity": decimal(row["quantity"]),
        "remaining_quantity": decimal(row["remaining_quantity"]),
        "filled_quantity": decimal(row["quantity"] - row["remaining_quantity"]),
        "state": STATES[row["state"]],
        "created_at": time(row["created_at"]),
        "updated_at": time(row["updated_at"]),
        "trades": [
            {
                "price": decimal(trade["price"]),
                "quantity": decimal(trade["quantity"]),
                "maker_order_id": trade["maker_order_id"],
            }
            for trade in trades
        ],
    }


def public_trade(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "market": row["market_id"],
        "price": decimal(row["price"]),
        "quantity": decimal(row["quantity"]),
        "taker_side": SIDES[row["taker_side"]],
        "created_at": time(row["created_at"]),
    }


def market(row: Row) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "tick_size": decimal(row["tick_size"]),
        "lot_size": decimal(row["lot_size"]),
    }
