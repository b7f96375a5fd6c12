"""What the values of an enumerated column say by themselves. Pure.

Only words speak: of 0 and 1 nothing is known here, and of a word that means one thing with one
monolith and another with the next ("done", "closed") neither.
"""

from __future__ import annotations

import re

from bridge.onboard.names import BUYER, SELLER, words
from bridge.onboard.seen import Column

_SAID = re.compile(r"(-?\w+)\s*(?:=>|=|:|->)\s*['\"]?(\w+)")

_STATUS = {
    "open": ("open", "partially_filled", "partly_filled", "partiallyfilled", "working", "resting"),
    "filled": ("filled", "fully_filled", "fullyfilled"),
    "canceled": ("canceled", "cancelled", "cancel", "expired"),
    "rejected": ("rejected", "reject"),
    "pending": ("pending", "pending_new"),
}
_TIF: dict[str, tuple[str, ...]] = {
    "gtc": ("gtc", "good_til_canceled", "good_till_cancel", "good_till_cancelled"),
    "ioc": ("ioc", "immediate_or_cancel"),
}
_ORD_TYPE: dict[str, tuple[str, ...]] = {
    "limit": ("limit", "limit_order"),
    "market": ("market", "market_order"),
}
_EXACT: dict[str, dict[str, tuple[str, ...]]] = {
    "status": _STATUS,
    "tif": _TIF,
    "ord_type": _ORD_TYPE,
}

CHOICES = {
    "side": ("buy", "sell"),
    "taker_side": ("buy", "sell"),
    "ord_type": ("limit", "market"),
    "tif": ("gtc", "ioc"),
    "status": ("open", "filled", "canceled", "pending", "rejected"),
}


def meaning(what: str, value: str) -> str:
    """Our word that the value is another spelling of; "" when it doesn't say.

    >>> meaning("side", "OrderBid"), meaning("status", "Cancelled"), meaning("side", "0")
    ('buy', 'canceled', '')
    """
    if what in ("side", "taker_side"):
        own = set(words(value))
        buys, sells = bool(own & BUYER), bool(own & SELLER)
        return "" if buys == sells else "buy" if buys else "sell"
    plain = value.strip().lower().replace("-", "_").replace(" ", "_")
    return next((ours for ours, theirs in _EXACT[what].items() if plain in theirs), "")


def said(what: str, column: Column) -> dict[str, str]:
    """What the column's comment says of its values: "0 = buy, 1 = sell"."""
    found: dict[str, str] = {}
    for one, other in _SAID.findall(column.comment):
        for value, word in ((one, other), (other, one)):
            if meaning(what, word) and not meaning(what, value):
                found[value] = meaning(what, word)
    return found


def by_name(what: str, column: Column) -> dict[str, str]:
    """What a boolean's name says of its values: is_buy.

    >>> by_name("side", Column(name="is_buy", kind="boolean", type="boolean"))
    {'true': 'buy', 'false': 'sell'}
    """
    if column.kind != "boolean" or what not in ("side", "taker_side"):
        return {}
    true = meaning("side", column.name)
    if not true:
        return {}
    return {"true": true, "false": "sell" if true == "buy" else "buy"}


def speaks(what: str, column: Column, values: tuple[str, ...]) -> int:
    """How many of the values say something."""
    known = {*said(what, column), *by_name(what, column)}
    return sum(value in known or bool(meaning(what, value)) for value in values)
