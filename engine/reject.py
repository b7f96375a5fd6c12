"""Every reason that the engine gives, numbered by family. The numbers are on the wire and in
journals: never reused.

A command that breaks several rules is rejected with the first reason in the order of this list
(the numbers ascend). `docs/reference/reject-reasons.md` says the same for operators; a test
holds the two together.
"""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    NONE = 0

    # 1..: the command itself can't be read
    UNKNOWN_KIND = 1
    BAD_FIELD = 2  # a code outside its enumeration, or a field that must be 0 is not
    REF_NOT_INCREASING = 3  # the session has used this reference or a higher one already

    # 10..: who may send what, where
    NOT_PERMITTED = 10  # the session's role may not send this kind of command
    UNKNOWN_INSTRUMENT = 11
    INSTRUMENT_CLOSED = 12
    INSTRUMENT_IN_SHADOW = 13  # a trading session sent to an instrument that only the shadow feeds
    INSTRUMENT_LIVE = 14  # a shadow session, or CLEAR, met an instrument that is live
    STALE_EPOCH = 15
    INSTRUMENT_MISMATCH = 16  # an instrument defined again under another name
    INSTRUMENT_HALTED = 17  # cancels and reductions only
    ACCOUNT_KILLED = 18  # the account's kill switch is on: cancels and reductions only

    # 20..: order identity
    DUPLICATE_ORDER_ID = 20  # an open order has this id
    UNKNOWN_ORDER = 21  # no open order has this id on this instrument
    NOT_OWNER = 22  # the order belongs to another account

    # 30..: numbers
    BAD_PRICE = 30  # not positive; or not 0 on a market order
    PRICE_TOO_HIGH = 31
    BAD_QUANTITY = 32  # zero; or a reduction that reduces nothing
    QUANTITY_TOO_LARGE = 33
    PRICE_TOO_LOW = 34
    PRICE_OFF_TICK = 35  # no multiple of the instrument's tick
    QUANTITY_OFF_LOT = 36  # no multiple of the instrument's lot
    NOTIONAL_TOO_LARGE = 37
    BAD_STOP_PRICE = 38  # not positive, outside the price band, or off tick
    BAD_DISPLAY_QUANTITY = 39  # zero, not below the quantity, off lot, or too many parts

    # 40..: bounds
    BOOK_FULL = 40
    LEVELS_FULL = 41  # too many different prices
    STOPS_FULL = 42
    ACCOUNTS_FULL = 43  # too many accounts with limits of their own
    ACCOUNT_OPEN_ORDERS = 44
    ACCOUNT_OPEN_QUANTITY = 45
    ACCOUNT_RATE = 46  # too many orders in this second

    # 50..: given by the gateway, never journalled
    OUTCOME_EXPIRED = 50  # a reference sent again, too old for its outcome to be still held

    # 60..: what the order asks for can't be had
    BAD_MINIMUM_QUANTITY = 60  # zero, above the quantity, or off lot
    ALREADY_EXPIRED = 61
    WOULD_TRADE = 62  # post-only

    # 100..: why an order was canceled
    UNFILLED = 100  # IOC, FOK, market, minimum: not enough to trade with
    BY_REQUEST = 101
    EXPIRED = 102
    SELF_TRADE = 103
    MASS_CANCEL = 104
    DISCONNECTED = 105  # its session went away and had asked for this
