"""What a capture tells of one order-entry exchange: which order it was about, and how it ended.

Pure. A capture that can't be read in full is not thrown away: it still may be the one that an
operation without a capture is looking for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Scales
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from engine.types import Command
from shadow.capture import Capture, Outcome
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import Mapping, Route
from shadow.normalise import Fields, Refusal, order_id_of, place_command, request_fields

_json = msgspec.json.Decoder(float_hook=str)
_PLACEHOLDER = re.compile(r":(\w+)")


class Kind(StrEnum):
    PLACED = "placed"  # the monolith said that it took the order
    CANCELED = "canceled"  # the monolith said that it canceled the order
    PLACE_REFUSED = "place-refused"
    CANCEL_REFUSED = "cancel-refused"
    PLACE_UNKNOWN = "place-unknown"  # no answer, or none that says what became of the order
    CANCEL_UNKNOWN = "cancel-unknown"
    OTHER = "other"  # no route of the mapping


class Told(NamedTuple):
    kind: Kind
    order_id: int  # 0 where it names none
    symbol: str  # "" where it names none


class Wish(NamedTuple):
    """A place request as far as two of them can be told apart."""

    instrument: int
    account: int
    side: int
    ord_type: int
    tif: int
    price_ticks: int
    qty_lots: int


class Exchanges:
    """Reads captures by the mapping."""

    def __init__(self, mapping: Mapping, scales: Scales[str, Scale]) -> None:
        self._mapping = mapping
        self._scales = scales
        self._routes = [(route, _pattern(route.path)) for route in mapping.routes]
        keys = {ours: theirs for theirs, ours in mapping.responses.order.items()}
        self._id_key, self._symbol_key = keys.get("id", ""), keys.get("symbol", "")

    def read(self, capture: Capture) -> Told:
        if capture.action == "place":
            return self._read_place(capture)
        if capture.action == "cancel":
            return self._read_cancel(capture)
        return Told(Kind.OTHER, 0, "")

    def fields(self, capture: Capture) -> Fields | Refusal | None:
        """None: no route of the mapping fits."""
        route = self._route(capture)
        if route is None:
            return None
        query = capture.target.partition("?")[2]
        return request_fields(
            route, capture.path_params, query, capture.content_type, capture.request_body
        )

    def wish(self, capture: Capture) -> Wish | None:
        """None: it asks for nothing that the monolith could have taken."""
        fields = self.fields(capture)
        if not isinstance(fields, Fields):
            return None
        command = self.command(fields, capture.account)
        return wish_of(command) if isinstance(command, Command) else None

    def command(self, fields: Fields, account: int, order_id: int = 0) -> Command | Refusal:
        """Of a place request, as the proxy would make it."""
        scale = self._scales.get(fields.symbol or "")
        return place_command(fields, account, order_id, scale, self._mapping.words)

    def _read_place(self, capture: Capture) -> Told:
        if _ended(capture) and 200 <= capture.status < 300:
            order_id, symbol = self._answered_order(capture.response_body)
            if order_id:
                return Told(Kind.PLACED, order_id, symbol)
        fields = self.fields(capture)
        symbol = (fields.symbol or "") if isinstance(fields, Fields) else ""
        refused = _ended(capture) and 400 <= capture.status < 500
        return Told(Kind.PLACE_REFUSED if refused else Kind.PLACE_UNKNOWN, 0, symbol)

    def _read_cancel(self, capture: Capture) -> Told:
        fields = self.fields(capture)
        order_id = order_id_of(fields) if isinstance(fields, Fields) else 0
        if _ended(capture) and 200 <= capture.status < 300:
            _, symbol = self._answered_order(capture.response_body)
            return Told(Kind.CANCELED, order_id, symbol)
        refused = _ended(capture) and 400 <= capture.status < 500
        return Told(Kind.CANCEL_REFUSED if refused else Kind.CANCEL_UNKNOWN, order_id, "")

    def _answered_order(self, body: bytes) -> tuple[int, str]:
        """(order id, symbol); 0 and "" for what is not there."""
        try:
            answer: Any = _json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return 0, ""
        root = self._mapping.responses.root
        order = answer.get(root) if root and isinstance(answer, dict) else answer
        if not isinstance(order, dict):
            return 0, ""
        return _id(order.get(self._id_key)), str(order.get(self._symbol_key) or "")

    def _route(self, capture: Capture) -> Route | None:
        """The proxy has matched it already: only routes of one action must be told apart."""
        fitting = [one for one in self._routes if one[0].action == capture.action]
        if len(fitting) > 1:
            path = capture.target.partition("?")[0]
            fitting = [one for one in fitting if one[1].search(path)] or fitting
        return fitting[0][0] if fitting else None


def wish_of(command: Command) -> Wish:
    return Wish(
        command.instrument,
        command.account,
        command.side,
        command.ord_type,
        command.tif,
        command.price_ticks,
        command.qty_lots,
    )


def _ended(capture: Capture) -> bool:
    """The proxy has read the monolith's answer, whether or not the client was still there."""
    return capture.outcome is not Outcome.UPSTREAM_FAILED and capture.status != 0


def _pattern(path: str) -> re.Pattern[str]:
    parts = _PLACEHOLDER.split(path)
    fixed = (re.escape(part) if n % 2 == 0 else "[^/]+" for n, part in enumerate(parts))
    return re.compile("".join(fixed) + r"(\.[A-Za-z0-9]+)?/?$")


def _id(value: object) -> int:
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else 0
