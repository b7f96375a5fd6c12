"""What a monolith's tables can show: while one follows the market, nothing else may come in."""

from __future__ import annotations

import numpy as np

from engine.types import CommandKind, OrderFlag, OrderType, SelfTradePrevention, TimeInForce
from engine.wire import COMMAND_DTYPE


def first_that_is_not_plain(commands: bytes | memoryview) -> str:
    """What it is, in words; or nothing. Cancels, reductions and mass cancels are plain."""
    rows = np.frombuffer(commands, COMMAND_DTYPE)
    plain_type = np.isin(rows["ord_type"], (OrderType.MARKET, OrderType.LIMIT))
    plain_tif = np.isin(rows["tif"], (TimeInForce.GTC, TimeInForce.IOC))
    has_more = (rows["flags"] != 0) | (rows["stp"] != 0) | (rows["aux"] != 0)
    is_new = rows["kind"] == CommandKind.NEW
    is_replace = rows["kind"] == CommandKind.REPLACE
    found = np.flatnonzero(is_replace | (is_new & (~plain_type | ~plain_tif | has_more)))
    return _words(rows[found[0]]) if len(found) else ""


def _words(command: np.void) -> str:
    """
    >>> one = np.zeros(1, COMMAND_DTYPE)
    >>> one["kind"], one["ord_type"], one["tif"], one["ref"] = 1, OrderType.LIMIT, 4, 7
    >>> _words(one[0])
    'reference 7: an order with time in force FOK'
    """
    ref = f"reference {command['ref']}"
    if command["kind"] == CommandKind.REPLACE:
        return f"{ref}: a REPLACE"
    if command["ord_type"] not in (OrderType.MARKET, OrderType.LIMIT):
        return f"{ref}: an order of type {_name(OrderType, command['ord_type'])}"
    if command["tif"] not in (TimeInForce.GTC, TimeInForce.IOC):
        return f"{ref}: an order with time in force {_name(TimeInForce, command['tif'])}"
    if command["flags"]:
        names = [flag.name for flag in OrderFlag if flag & int(command["flags"])]
        return f"{ref}: an order with {', '.join(filter(None, names)) or 'unknown flags'}"
    if command["stp"]:
        name = _name(SelfTradePrevention, command["stp"])
        return f"{ref}: an order with self-trade prevention {name}"
    return f"{ref}: an order with a value in `aux`"


def _name(kind: type[OrderType] | type[TimeInForce] | type[SelfTradePrevention], value: int) -> str:
    return next((one.name for one in kind if one == value), str(value))
