"""The columns that orders and fills were recognised by; "" for one that was not found."""

from __future__ import annotations

import msgspec


class OrderColumns(msgspec.Struct, frozen=True, kw_only=True):
    id: str = ""
    symbol: str = ""
    account: str = ""
    side: str = ""
    ord_type: str = ""
    tif: str = ""
    status: str = ""
    price: str = ""
    quantity: str = ""
    leaves: str = ""
    filled: str = ""
    created_at: str = ""
    updated_at: str = ""
    lock_version: str = ""


class FillColumns(msgspec.Struct, frozen=True, kw_only=True):
    id: str = ""
    symbol: str = ""
    maker_order: str = ""
    taker_order: str = ""
    buy_order: str = ""
    sell_order: str = ""
    price: str = ""
    quantity: str = ""
    total: str = ""
    taker_side: str = ""
    maker_account: str = ""
    taker_account: str = ""
    buy_account: str = ""
    sell_account: str = ""
    created_at: str = ""
    updated_at: str = ""

    @property
    def orders(self) -> tuple[tuple[str, str], ...]:
        """(role, column) of those that name an order."""
        roles = {
            "maker": self.maker_order,
            "taker": self.taker_order,
            "buy": self.buy_order,
            "sell": self.sell_order,
        }
        return tuple((role, column) for role, column in roles.items() if column)
