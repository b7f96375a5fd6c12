"""What a client is told by the proxy itself, and what that says of its order. Pure."""

from __future__ import annotations

import logging
from enum import Enum
from http import HTTPStatus
from typing import NamedTuple

from bridge.limits import ENGINE_RETRY_AFTER_S, HOLD_RETRY_AFTER_S
from bridge.proxy.desk.dialect import Dialect, render_status
from engine.reject import Reason
from shadow.legacy.mapping import Route
from shadow.normalise import Refusal

_log = logging.getLogger(__name__)

# What stays refused however often it is sent: our name of the field ("base": none), a message in
# Rails' manner, and the reason that the mapping may have an answer of its own for. Limits of the
# running engine may be narrower than those that normalise knows.
_INVALID = {
    Reason.BAD_PRICE: ("price", "must be greater than 0", "price_not_positive"),
    Reason.PRICE_TOO_HIGH: ("price", "is too high", "price_too_high"),
    Reason.BAD_QUANTITY: ("quantity", "must be greater than 0", "quantity_not_positive"),
    Reason.QUANTITY_TOO_LARGE: ("quantity", "is too large", "quantity_too_large"),
    Reason.PRICE_TOO_LOW: ("price", "is too low", "price_too_low"),
    Reason.PRICE_OFF_TICK: ("price", "must be a multiple of the tick size", "price_off_tick"),
    Reason.QUANTITY_OFF_LOT: ("quantity", "must be a multiple of the lot size", "quantity_off_lot"),
    Reason.NOTIONAL_TOO_LARGE: ("quantity", "is too large at this price", "notional_too_large"),
    Reason.ALREADY_EXPIRED: ("base", "has expired", "invalid"),
    Reason.WOULD_TRADE: ("base", "would trade at once", "invalid"),
}
_FORBIDDEN = {
    Reason.ACCOUNT_KILLED: ("may not place orders", "account_blocked"),
    Reason.ACCOUNT_OPEN_ORDERS: ("has too many open orders", "too_many_orders"),
    Reason.ACCOUNT_OPEN_QUANTITY: ("has too large an open quantity", "too_many_orders"),
}
# Operators set these, or the market is as full as it may be: no defect of ours.
_LIMITS = {
    *(_INVALID.keys() - {Reason.BAD_PRICE, Reason.BAD_QUANTITY, Reason.ALREADY_EXPIRED}),
    *_FORBIDDEN,
    Reason.ACCOUNT_RATE,
    Reason.INSTRUMENT_HALTED,
    Reason.BOOK_FULL,
    Reason.LEVELS_FULL,
}


class Fate(Enum):
    """What has become of an order or a cancel."""

    DONE = "done"
    REFUSED = "refused"  # nothing was done, says whoever answers for its instrument
    NOT_SENT = "not sent"  # nothing was done: whoever would have to do it was not reached
    UNKNOWN = "unknown"  # it may have been done; nobody tries it again


class Reply(NamedTuple):
    status: int
    body: bytes
    fate: Fate
    retry_after_s: int = 0  # 0: nothing is said


def busy() -> Reply:
    """There is no room to wait in, or it has waited for too long."""
    return _not_now(HOLD_RETRY_AFTER_S)


def unavailable(fate: Fate = Fate.NOT_SENT) -> Reply:
    return _not_now(ENGINE_RETRY_AFTER_S, fate)


def unknown() -> Reply:
    return Reply(*render_status(HTTPStatus.GATEWAY_TIMEOUT), Fate.UNKNOWN)


def not_found() -> Reply:
    return Reply(*render_status(HTTPStatus.NOT_FOUND), Fate.REFUSED)


def unauthorized(dialect: Dialect) -> Reply:
    refusal = Refusal(status=HTTPStatus.UNAUTHORIZED)
    return Reply(*dialect.render_refusal(refusal), Fate.REFUSED)


def refused(reason: Reason, dialect: Dialect, route: Route | None = None) -> Reply:
    """The engine's refusal. `route` names the fields as the client does; a cancel has none to name.

    Only what may pass later says "try again".
    """
    level = logging.WARNING if reason in _LIMITS else logging.ERROR
    _log.log(level, "the engine refused an order: %s", reason.name)
    if reason in _INVALID:
        ours, message, named = _INVALID[reason]
        errors = ((route.leaf(ours) if route is not None else ours, message),)
        refusal = Refusal(status=HTTPStatus.UNPROCESSABLE_ENTITY, errors=errors, reasons=(named,))
        return Reply(*dialect.render_refusal(refusal), Fate.REFUSED)
    if reason in _FORBIDDEN:
        message, named = _FORBIDDEN[reason]
        refusal = Refusal(
            status=HTTPStatus.FORBIDDEN, errors=(("account", message),), reasons=(named,)
        )
        return Reply(*dialect.render_refusal(refusal), Fate.REFUSED)
    if reason is Reason.ACCOUNT_RATE:  # a limit per second
        usual = render_status(HTTPStatus.TOO_MANY_REQUESTS)
        rendered = dialect.render_reason("too_many_requests", usual)
        return Reply(*rendered, Fate.REFUSED, ENGINE_RETRY_AFTER_S)
    if reason is Reason.INSTRUMENT_HALTED:
        usual = render_status(HTTPStatus.SERVICE_UNAVAILABLE)
        rendered = dialect.render_reason("market_closed", usual)
        return Reply(*rendered, Fate.REFUSED, ENGINE_RETRY_AFTER_S)
    return unavailable(Fate.REFUSED)


def not_open(owner: int, account: int, dialect: Dialect) -> Reply:
    """Of a cancel that met no open order. `owner` is 0 where it does not exist at all."""
    rendered = dialect.render_not_open() if owner == account else dialect.render_not_found()
    return Reply(*rendered, Fate.REFUSED)


def _not_now(retry_after_s: int, fate: Fate = Fate.NOT_SENT) -> Reply:
    return Reply(*render_status(HTTPStatus.SERVICE_UNAVAILABLE), fate, retry_after_s)
