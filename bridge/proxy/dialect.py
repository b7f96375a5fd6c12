"""The monolith's words: statuses, JSON bodies, decimals and times as Rails writes them. Pure.

`Dialect` is made once from the mapping; its methods return `(status, body)`. The comparison renders
with it what the client would have read, while the monolith still answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus

import msgspec

from engine.types import OrderType, Side, TimeInForce
from shadow.answer import FillView, OrderView
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Responses, Words
from shadow.normalise import Refusal

Rendered = tuple[int, bytes]

# What Rails adds to each answer by default, whatever it is.
_RAILS_FIELDS = (
    (b"X-Frame-Options", b"SAMEORIGIN"),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"X-Permitted-Cross-Domain-Policies", b"none"),
    (b"Referrer-Policy", b"strict-origin-when-cross-origin"),
    (b"Vary", b"Accept"),
)
_UNCACHED = (b"Cache-Control", b"no-cache")
_REVALIDATED = (b"Cache-Control", b"max-age=0, private, must-revalidate")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SIDES = {Side.BUY: "buy", Side.SELL: "sell"}
_ORDER_TYPES = {OrderType.MARKET: "market", OrderType.LIMIT: "limit"}
_TIMES_IN_FORCE = {TimeInForce.GTC: "gtc", TimeInForce.IOC: "ioc"}


def decimal_text(number: Decimal) -> str:
    """BigDecimal#as_json: no exponent, no trailing zeros, at least one decimal.

    >>> decimal_text(Decimal("100")), decimal_text(Decimal("1.500")), decimal_text(Decimal("1E-8"))
    ('100.0', '1.5', '0.00000001')
    """
    text = format(number, "f")
    if "." not in text:
        return f"{text}.0"
    text = text.rstrip("0")
    return f"{text}0" if text.endswith(".") else text


def time_text(at_us: int) -> str:
    """ActiveSupport::TimeWithZone#as_json in UTC: milliseconds, cut off, not rounded.

    >>> time_text(1_714_521_600_123_999)
    '2024-05-01T00:00:00.123Z'
    """
    at = _EPOCH + timedelta(microseconds=at_us)
    return f"{at.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


class Dialect:
    def __init__(self, responses: Responses, words: Words, scales: Mapping[str, Scale]) -> None:
        self._responses = responses
        self._words = words
        self._scales = scales
        self._order = [(key, _ORDER_VALUES[value]) for key, value in responses.order.items()]
        self._fill = [(key, _FILL_VALUES[value]) for key, value in responses.fill.items()]

    def render_placed(self, view: OrderView) -> Rendered:
        return self._responses.placed_status, self._render(view)

    def render_canceled(self, view: OrderView) -> Rendered:
        return self._responses.canceled_status, self._render(view)

    def render_refusal(self, refusal: Refusal) -> Rendered:
        """Messages as ActiveModel::Errors writes them, else the framework's own body."""
        if refusal.errors:
            errors: dict[str, list[str]] = {}
            for field, message in refusal.errors:
                errors.setdefault(field, []).append(message)
            return refusal.status, msgspec.json.encode({"errors": errors})
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return refusal.status, b'{"error":"Unauthorized"}'
        return render_status(refusal.status)

    def render_not_found(self) -> Rendered:
        return render_status(HTTPStatus.NOT_FOUND)

    def render_not_open(self) -> Rendered:
        """The cancel of an own order that is filled or canceled already."""
        return self.render_refusal(Refusal(status=422, errors=(("state", "is not open"),)))

    def _render(self, view: OrderView) -> bytes:
        scale = self._scales[view.symbol]
        shown = {key: value(self, scale, view) for key, value in self._order}
        root = self._responses.root
        return msgspec.json.encode({root: shown} if root else shown)

    def _fills(self, scale: Scale, view: OrderView) -> list[dict[str, object]]:
        return [{key: value(scale, fill) for key, value in self._fill} for fill in view.fills]

    def _side(self, view: OrderView) -> str:
        return self._words.side[_SIDES[Side(view.side)]]

    def _ord_type(self, view: OrderView) -> str:
        return self._words.ord_type[_ORDER_TYPES[OrderType(view.ord_type)]]

    def _tif(self, view: OrderView) -> str:
        return self._words.tif[_TIMES_IN_FORCE[TimeInForce(view.tif)]]


def render_status(status: int) -> Rendered:
    """What Rails' public exceptions application answers for a status, as JSON."""
    return status, msgspec.json.encode({"status": int(status), "error": HTTPStatus(status).phrase})


def answer_fields(status: int, body: bytes, request_id: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The header fields of an answer, less those that describe its body."""
    caching: tuple[tuple[bytes, bytes], ...] = (_UNCACHED,)
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        etag = b'W/"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
        caching = ((b"ETag", etag), _REVALIDATED)
    return (*_RAILS_FIELDS, *caching, (b"X-Request-Id", request_id))


def _price(scale: Scale, view: OrderView) -> str | None:
    return decimal_text(scale.price(view.price_ticks)) if view.price_ticks else None


def _quantity(scale: Scale, lots: int) -> str:
    return decimal_text(scale.quantity(lots))


_ORDER_VALUES: dict[str, Callable[[Dialect, Scale, OrderView], object]] = {
    "id": lambda dialect, scale, view: view.order_id,
    "symbol": lambda dialect, scale, view: view.symbol,
    "side": lambda dialect, scale, view: dialect._side(view),
    "ord_type": lambda dialect, scale, view: dialect._ord_type(view),
    "tif": lambda dialect, scale, view: dialect._tif(view),
    "price": lambda dialect, scale, view: _price(scale, view),
    "quantity": lambda dialect, scale, view: _quantity(scale, view.qty_lots),
    "leaves": lambda dialect, scale, view: _quantity(scale, view.leaves_lots),
    "filled": lambda dialect, scale, view: _quantity(scale, view.qty_lots - view.leaves_lots),
    "status": lambda dialect, scale, view: dialect._words.status[view.status],
    "created_at": lambda dialect, scale, view: time_text(view.created_at_us),
    "updated_at": lambda dialect, scale, view: time_text(view.updated_at_us),
    "fills": lambda dialect, scale, view: dialect._fills(scale, view),
}
_FILL_VALUES: dict[str, Callable[[Scale, FillView], object]] = {
    "price": lambda scale, fill: decimal_text(scale.price(fill.price_ticks)),
    "quantity": lambda scale, fill: _quantity(scale, fill.qty_lots),
    "maker_order_id": lambda scale, fill: fill.maker_order_id,
    "taker_order_id": lambda scale, fill: fill.taker_order_id,
}
