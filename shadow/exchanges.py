"""What a capture tells of one order-entry exchange: which orders it was about, and how it ended.

A bulk request is told as if each of its orders had been asked for alone.

Pure. A capture that can't be read in full is not thrown away: it still may be the one that an
operation without a capture is looking for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Scales
from enum import StrEnum
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec

from engine.types import Command
from shadow.answer_values import times_and_uuids
from shadow.capture import Capture, Outcome
from shadow.legacy.adapter import PLAIN, Adapted
from shadow.legacy.convert import Scale
from shadow.legacy.keys import number_of
from shadow.legacy.mapping import Mapping, Route
from shadow.legacy.paths import path_of, pattern_of
from shadow.normalise import (
    Fields,
    Filter,
    Refusal,
    cancel_filter,
    order_id_of,
    place_command,
    request_fields,
)

_json = msgspec.json.Decoder(float_hook=str)
_errors = msgspec.json.Decoder(dict[str, dict[str, list[str]] | list[str]])
_raw_list = msgspec.json.Decoder(list[msgspec.Raw])
_raw_object = msgspec.json.Decoder(dict[str, msgspec.Raw])
_STATUSES = {status.phrase: int(status) for status in HTTPStatus if 400 <= status < 500}


class Kind(StrEnum):
    PLACED = "placed"  # the monolith said that it took the order
    CANCELED = "canceled"  # the monolith said that it canceled the order
    PLACE_REFUSED = "place-refused"
    CANCEL_REFUSED = "cancel-refused"
    PLACE_UNKNOWN = "place-unknown"  # no answer, or none that says what became of the order
    CANCEL_UNKNOWN = "cancel-unknown"
    CANCEL_ALL_UNKNOWN = "cancel-all-unknown"  # of whatever orders were open


class Told(NamedTuple):
    kind: Kind
    order_id: int  # 0 where it names none
    symbol: str  # "" where it names none
    capture: Capture  # of one order of a bulk request: with its own part of the answer
    asked: Fields | Refusal | None = None  # of one order of a bulk request: its own part
    alone: bool = True  # no other order was asked for by the same request
    in_list: bool = False  # the capture's answer is its element of a bulk answer
    filter: Filter | None = None  # of a cancel of everything without an answer


class Wish(NamedTuple):
    """A place request as far as two of them can be told apart."""

    instrument: int
    account: int
    side: int
    ord_type: int
    tif: int
    price_ticks: int
    qty_lots: int


class _Found(NamedTuple):
    """How a route's path is recognised, in a path without escapes and in any."""

    route: Route
    plain: re.Pattern[bytes]
    escaped: re.Pattern[bytes]


class Exchanges:
    """Reads captures by the mapping."""

    def __init__(
        self, mapping: Mapping, scales: Scales[str, Scale], adapter: Adapted = PLAIN
    ) -> None:
        self._mapping = mapping
        self._adapter = adapter
        self._form = mapping.orders.id.form
        self.by_form = times_and_uuids(mapping.responses)  # keys of answers
        self._scales = scales
        self._routes: dict[str, list[_Found]] = {}  # by action
        for route in mapping.routes:
            patterns = pattern_of(route.path, escaped=False), pattern_of(route.path)
            self._routes.setdefault(route.action, []).append(_Found(route, *patterns))
        self._many = {route.action for route in mapping.routes if route.each}
        key_of = mapping.responses.key_of
        self._id_key, self._symbol_key = key_of("id"), key_of("symbol")

    def read(self, capture: Capture) -> list[Told]:
        """One for each order that it was about; none where there is nothing to learn."""
        if capture.action == "cancel_all":
            return self._read_cancel_all(capture)
        if capture.action not in ("place", "cancel"):
            return []
        if capture.action in self._many:
            route = self._route(capture)
            if route is not None and route.each:
                return self._read_many(capture)
        read = self._read_place if capture.action == "place" else self._read_cancel
        return [read(capture, None)]

    def asked(self, told: Told) -> Fields | Refusal | None:
        """Of its order; None: no route of the mapping fits."""
        return told.asked if told.asked is not None else self.fields(told.capture)

    def fields(self, capture: Capture) -> Fields | Refusal | None:
        """None: no route of the mapping fits. Raises AdapterFailed."""
        route = self._route(capture)
        if route is None:
            return None
        found = request_fields(
            route,
            capture.path_params,
            capture.target.partition("?")[2],
            capture.content_type,
            capture.request_body,
            method=capture.method,
        )
        return self._adapter.fields(found) if isinstance(found, Fields) else found

    def wish(self, told: Told) -> Wish | None:
        """None: it asks for nothing that the monolith could have taken."""
        fields = self.asked(told)
        if not isinstance(fields, Fields):
            return None
        command = self.command(fields, told.capture.account)
        return wish_of(command) if isinstance(command, Command) else None

    def command(self, fields: Fields, account: int, order_id: int = 0) -> Command | Refusal:
        """Of a place request, as the proxy would make it."""
        scale = self._scales.get(fields.symbol or "")
        return place_command(fields, account, order_id, scale, self._mapping.words)

    def _read_place(self, capture: Capture, asked: Fields | Refusal | None) -> Told:
        alone = asked is None
        if _succeeded(capture):
            order_id, symbol = self._answered_order(capture.response_body)
            if order_id:
                return Told(Kind.PLACED, order_id, symbol, capture, asked, alone)
        fields = self.fields(capture) if asked is None else asked
        symbol = (fields.symbol or "") if isinstance(fields, Fields) else ""
        kind = Kind.PLACE_REFUSED if _was_refused(capture) else Kind.PLACE_UNKNOWN
        return Told(kind, 0, symbol, capture, asked, alone)

    def _read_cancel(self, capture: Capture, asked: Fields | Refusal | None) -> Told:
        alone = asked is None
        fields = self.fields(capture) if asked is None else asked
        order_id = order_id_of(fields, self._form) if isinstance(fields, Fields) else 0
        if _succeeded(capture):
            shown, symbol = self._answered_order(capture.response_body)
            return Told(Kind.CANCELED, order_id or shown, symbol, capture, asked, alone)
        kind = Kind.CANCEL_REFUSED if _was_refused(capture) else Kind.CANCEL_UNKNOWN
        return Told(kind, order_id, "", capture, asked, alone)

    # --- bulk requests

    def _read_many(self, capture: Capture) -> list[Told]:
        read = self._read_place if capture.action == "place" else self._read_cancel
        fields = self.fields(capture)
        each = fields.each if isinstance(fields, Fields) else ()
        listed = self._listed(capture) if _succeeded(capture) else None
        if listed is None:
            return [read(capture, one) for one in each]
        if len(listed) == len(each):
            pairs = zip(listed, each, strict=True)
            told = (read(self._alone(capture, part), one) for part, one in pairs)
            return [one._replace(in_list=True) for one in told]
        return self._read_unpaired(capture, listed, each)

    def _read_unpaired(
        self, capture: Capture, listed: list[bytes], each: tuple[Fields, ...]
    ) -> list[Told]:
        """The answer has another number of orders than the request: it counts by its ids alone."""
        what = f"the answer lists {len(listed)} orders, the request {len(each)}"
        unlike = Refusal(status=400, errors=((self._mapping.responses.many_root, what),))
        told = []
        for part in listed:
            order_id, symbol = self._order_in(part)
            if order_id:
                kind = Kind.PLACED if capture.action == "place" else Kind.CANCELED
                one = self._alone(capture, part)
                told.append(Told(kind, order_id, symbol, one, unlike, alone=False))
        named = {one.order_id for one in told}
        if capture.action == "cancel":
            lost = msgspec.structs.replace(capture, outcome=Outcome.UPSTREAM_FAILED)
            rest = (self._read_cancel(lost, one) for one in each)
            told += [one for one in rest if one.order_id not in named]
        return told

    def _read_cancel_all(self, capture: Capture) -> list[Told]:
        listed = self._listed(capture) if _succeeded(capture) else None
        if listed is None:
            fields = self.fields(capture)
            if _was_refused(capture) or not isinstance(fields, Fields):
                return []
            which = cancel_filter(fields, self._mapping.words)
            if isinstance(which, Refusal):
                return []
            symbol = which.symbol or ""
            return [Told(Kind.CANCEL_ALL_UNKNOWN, 0, symbol, capture, alone=False, filter=which)]
        told = []
        for part in listed:
            order_id, symbol = self._order_in(part)
            if order_id:
                one = self._alone(capture, part)
                told.append(Told(Kind.CANCELED, order_id, symbol, one, alone=False))
        return told

    def _alone(self, capture: Capture, part: bytes) -> Capture:
        """As if the order had been asked for alone."""
        responses = self._mapping.responses
        order_id, _ = self._order_in(part)
        many, one = responses.canceled_many_status, responses.canceled_status
        if capture.action == "place":
            many, one = responses.placed_many_status, responses.placed_status
        if not order_id:
            status, body = _refusal_status(part), part
        else:
            status = one if capture.status == many else capture.status
            root = msgspec.json.encode(responses.root)
            body = b"{%b:%b}" % (root, part) if responses.root else part
        return msgspec.structs.replace(capture, status=status, response_body=body)

    def _listed(self, capture: Capture) -> list[bytes] | None:
        """The parts of a bulk answer, as they came; None: it is no such answer."""
        root = self._mapping.responses.many_root
        try:
            if not root:
                return [bytes(part) for part in _raw_list.decode(capture.response_body)]
            answer = _raw_object.decode(capture.response_body)
            return [bytes(part) for part in _raw_list.decode(answer.get(root, b""))]
        except (msgspec.DecodeError, RecursionError):
            return None

    def _order_in(self, part: bytes) -> tuple[int, str]:
        try:
            return self._shown(_json.decode(part))
        except (msgspec.DecodeError, RecursionError):
            return 0, ""

    def _answered_order(self, body: bytes) -> tuple[int, str]:
        """(order id, symbol); 0 and "" for what is not there."""
        try:
            answer: Any = _json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return 0, ""
        root = self._mapping.responses.root
        return self._shown(answer.get(root) if root and isinstance(answer, dict) else answer)

    def _shown(self, order: Any) -> tuple[int, str]:
        if not isinstance(order, dict):
            return 0, ""
        shown = str(order.get(self._id_key))
        return number_of(shown, self._form), str(order.get(self._symbol_key) or "")

    def _route(self, capture: Capture) -> Route | None:
        """The proxy has matched it already: only routes of one action must be told apart."""
        fitting = self._routes.get(capture.action)
        if fitting is None:
            return None
        if len(fitting) > 1:
            path = path_of(capture.target.encode("latin-1", "replace"))
            for found in fitting:
                if (found.escaped if b"%" in path else found.plain).fullmatch(path):
                    return found.route
        return fitting[0].route


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


def _succeeded(capture: Capture) -> bool:
    return _ended(capture) and 200 <= capture.status < 300


def _was_refused(capture: Capture) -> bool:
    return _ended(capture) and 400 <= capture.status < 500


def _refusal_status(part: bytes) -> int:
    """Of one order of a bulk request: it may stand in words where no field was at fault."""
    try:
        errors = _errors.decode(part)["errors"]
    except (msgspec.DecodeError, KeyError, RecursionError):
        return 0
    base = errors.get("base", ()) if isinstance(errors, dict) else ()
    return _STATUSES.get(next(iter(base), ""), 422)
