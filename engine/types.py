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
    STOP = 3  # waits for a trade at its stop price, then trades as a market order
    STOP_LIMIT = 4  # waits for a trade at its stop price, then acts as a limit order


class TimeInForce(IntEnum):
    DAY = 0  # until the end of the instrument's trading day
    GTC = 1
    IOC = 3
    FOK = 4
    GTD = 6  # until a given second


class OrderFlag(IntFlag):
    POST_ONLY = 1  # rejected where it would trade at once
    DISPLAY = 2  # an iceberg: the book shows a part, and refills it at the end of the queue
    MIN_QTY = 4  # canceled whole where less than this could trade at once


class SelfTradePrevention(IntEnum):
    """What happens where an order meets one of its own group; the taker's decides."""

    NONE = 0
    CANCEL_TAKER = 1
    CANCEL_MAKER = 2
    CANCEL_BOTH = 3
    DECREMENT = 4  # both lose the smaller quantity, without a trade


class MassCancelScope(IntEnum):
    ACCOUNT = 1
    INSTRUMENT = 2
    SESSION = 3  # orders that the sending session entered


class MassCancelFlag(IntFlag):
    EVERY_INSTRUMENT = 1


class SessionOption(IntFlag):
    CANCEL_ON_DISCONNECT = 1


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
    REDUCE = 3  # keeps the order's place
    REPLACE = 4  # loses it
    MASS_CANCEL = 5
    INSTRUMENT = 16  # define an instrument and its limits
    MODE = 17  # change an instrument's mode and epoch
    CLEAR = 18  # empty a book that is not live, so that it can be loaded again
    SESSION = 19  # the gateway's own: gives a session name its number and role
    INSTRUMENT_LIMITS = 20
    PRICE_BAND = 21
    TRADING = 22  # halt or open an instrument
    ACCOUNT_LIMITS = 23
    KILL_SWITCH = 24  # an account may send no new orders
    TIME = 25  # the gateway's own: orders whose time has come expire
    SESSION_OPTIONS = 26  # the gateway's own
    DISCONNECTED = 27  # the gateway's own: cancels what the session left open


GATEWAY_KINDS = frozenset(
    {
        CommandKind.SESSION,
        CommandKind.TIME,
        CommandKind.SESSION_OPTIONS,
        CommandKind.DISCONNECTED,
    }
)


class EventKind(IntEnum):
    ACCEPTED = 1
    REJECTED = 2
    FILL = 3
    CANCELED = 4
    REDUCED = 5
    REPLACED = 6
    TRIGGERED = 7  # a stop has become an order
    PREVENTED = 8  # would have been a fill, between orders of one group
    MASS_CANCELED = 9
    INSTRUMENT = 16
    MODE = 17
    CLEARED = 18
    SESSION = 19
    INSTRUMENT_LIMITS = 20
    PRICE_BAND = 21
    TRADING = 22
    ACCOUNT_LIMITS = 23
    KILL_SWITCH = 24
    TIME = 25
    SESSION_OPTIONS = 26


class EventFlag(IntFlag):
    LAST = 1  # the last event of its command
    LIVE = 2  # the instrument was live when the event happened


class Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One decoded 64-byte command. The hot path never builds these: it moves whole batches of
    bytes. What each field means for each kind: docs/reference/engine-wire.md.
    """

    kind: CommandKind
    side: int = 0  # Side; MASS_CANCEL: 0 for both
    ord_type: int = 0  # OrderType, NEW only
    tif: int = 0  # TimeInForce, NEW only
    flags: int = 0  # OrderFlag or MassCancelFlag
    stp: int = 0  # SelfTradePrevention, NEW only
    session: int = 0  # stamped by the gateway
    instrument: int = 0
    epoch: int = 0  # compared when the instrument is live; MODE: the new one
    ref: int = 0  # the session's own strictly increasing reference: the idempotency key
    account: int = 0
    order_id: int = 0
    price_ticks: int = 0  # 0 for a market order; INSTRUMENT: the highest price allowed
    qty_lots: int = 0  # INSTRUMENT: the largest quantity allowed
    # NEW: the stop price; or in its low half the display or minimum quantity, in its high half the
    # second of expiry. REPLACE: the new order id. MODE: the new Mode; SESSION: the Role
    aux: int = 0


class Event(msgspec.Struct, frozen=True, kw_only=True, gc=False):
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
    # on FILL the maker's order id; on REPLACED the id before; on MODE the Mode; on TRADING 1 for
    # halted; otherwise the account
    contra_id: int = 0
    price_ticks: int = 0  # on FILL the maker's price
    # FILL: traded; ACCEPTED: ordered; CANCELED: was open; REDUCED: taken off; CLEARED,
    # MASS_CANCELED, TIME: how many orders were removed
    qty_lots: int = 0
    # of the order (on FILL the taker), after this event; MODE: the epoch; MASS_CANCELED, TIME: how
    # many are left to be removed
    leaves_lots: int = 0
    # FILL: the maker's leaves, after it; ACCEPTED: the command's aux; TRIGGERED: the stop price;
    # REPLACED: the leaves before it
    contra_leaves_lots: int = 0


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


class OrderState(msgspec.Struct, frozen=True, kw_only=True):
    """All of one open order: resting in a book, or a stop that waits for its trade. Lists of stops
    run in the order in which they began to wait.
    """

    order_id: int
    account: int
    price_ticks: int  # 0: a stop that becomes a market order
    leaves_lots: int
    qty_lots: int  # as ordered
    displayed_lots: int  # of the leaves; the rest of an iceberg is hidden
    stop_price_ticks: int  # 0: it is resting
    expiry_s: int  # seconds since 1970; 0: never
    display_lots: int  # an iceberg's, as ordered; 0: it is none
    session: int  # that entered it, or replaced it last
    side: int
    ord_type: int
    tif: int
    flags: int  # OrderFlag
    stp: int  # SelfTradePrevention
