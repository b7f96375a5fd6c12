"""The engine's vocabulary: what enters (commands) and what leaves (events).

Names and code values follow FIX where FIX has one (Side 54, OrdType 40, TimeInForce 59). Prices
are ticks, sizes are lots, times are nanoseconds of the sequencer's clock; no float exists in
this package.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

import msgspec

from engine.reject import Reason


class Side(IntEnum):
    BUY = 1
    SELL = 2


class OrderType(IntEnum):
    MARKET = 1
    LIMIT = 2


class TimeInForce(IntEnum):
    GTC = 1
    IOC = 3


class Mode(IntEnum):
    """Who may send orders for an instrument (DESIGN.md sections 7 and 9)."""

    CLOSED = 0  # nobody; the book stays as it is
    SHADOW = 1  # only sessions with Role.SHADOW
    LIVE = 2  # only sessions with Role.TRADE, at the instrument's epoch


class Role(IntEnum):
    TRADE = 1
    SHADOW = 2
    ADMIN = 3
    READ_ONLY = 4


class CommandKind(IntEnum):
    NEW = 1
    CANCEL = 2
    INSTRUMENT = 16  # define an instrument and its limits
    MODE = 17  # change an instrument's mode and epoch
    CLEAR = 18  # empty a book that is not live, so that it can be loaded again
    SESSION = 19  # the gateway's own: gives a session name its number and role


class EventKind(IntEnum):
    ACCEPTED = 1
    REJECTED = 2
    FILL = 3
    CANCELED = 4
    INSTRUMENT = 16
    MODE = 17
    CLEARED = 18
    SESSION = 19


class EventFlag(IntFlag):
    LAST = 1  # the last event of its command
    LIVE = 2  # the instrument was live when the event happened


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded 64-byte command. The hot path never builds these: it moves whole batches of
    bytes.
    """

    kind: CommandKind
    side: int = 0  # Side, NEW only
    ord_type: int = 0  # OrderType, NEW only
    tif: int = 0  # TimeInForce, NEW only
    flags: int = 0  # none defined yet, must be 0
    stp: int = 0  # self-trade prevention mode, none defined yet, must be 0
    session: int = 0  # stamped by the gateway
    instrument: int = 0
    epoch: int = 0  # NEW, CANCEL: compared when the instrument is live; MODE: the new one
    ref: int = 0  # the session's own strictly increasing reference: the idempotency key
    account: int = 0
    order_id: int = 0
    price_ticks: int = 0  # 0 for a market order; INSTRUMENT: the highest price allowed
    qty_lots: int = 0  # INSTRUMENT: the largest quantity allowed
    aux: int = 0  # MODE: the new Mode; SESSION: the Role


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded 80-byte event. Its identity is (shard, seq, sub)."""

    kind: EventKind
    side: int = 0  # of the order; on FILL the taker's
    ord_type: int = 0
    tif: int = 0
    reason: Reason = Reason.NONE  # why REJECTED or CANCELED
    flags: int = 0  # EventFlag
    instrument: int = 0
    sub: int = 0  # position within its command, from 0
    seq: int = 0  # of the command
    ref: int = 0  # of the command
    order_id: int = 0  # on FILL the taker
    contra_id: int = 0  # on FILL the maker's order id; on MODE the Mode; otherwise the account
    price_ticks: int = 0  # on FILL the maker's price
    qty_lots: int = (
        0  # FILL: traded; ACCEPTED: ordered; CANCELED: was open; CLEARED: orders removed
    )
    leaves_lots: int = 0  # of the order (on FILL the taker), after this event; MODE: the epoch
    contra_leaves_lots: int = 0  # FILL: the maker's leaves, after it


class RestingOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One open order of a book; lists of them run best price first, then first in first out,
    bids before asks.
    """

    order_id: int
    account: int
    price_ticks: int
    leaves_lots: int
    qty_lots: int  # as ordered
    side: int
