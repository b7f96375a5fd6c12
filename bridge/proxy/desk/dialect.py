"""The monolith's words: statuses, JSON bodies, decimals and times as Rails writes them. Pure.

`Dialect` is made once from the mapping; its methods return `(status, body)`. The comparison renders
with it what the client would have read, while the monolith still answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

import msgspec

from shadow.answer import OrderView
from shadow.answer_values import AnswerValues, OrderValue, names_of, template_of
from shadow.legacy.adapter import PLAIN, Adapted, Rendering
from shadow.legacy.convert import Scale
from shadow.legacy.mapping import ErrorAnswer, Responses, Words
from shadow.normalise import Refusal
from shadow.refusals import ErrorAnswers, Fault

Rendered = tuple[int, bytes]
_Values = Sequence[tuple[str, OrderValue]]

_NEED_QUANTITY = ("quantity", "filled", "average_price", "trades_count")

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


class Dialect:
    def __init__(
        self,
        responses: Responses,
        words: Words,
        scales: Mapping[str, Scale],
        *,
        errors: Mapping[str, ErrorAnswer] | None = None,
        adapter: Adapted = PLAIN,
    ) -> None:
        self._responses = responses
        self._scales = scales
        self._errors = ErrorAnswers(errors or {})
        self._adapter = adapter
        values = AnswerValues(responses, words)
        self._placed, self._canceled = values.placed, values.canceled
        self._shown = names_of(template_of(responses, responses.canceled))
        self.shows_traded = not self._shown.isdisjoint(("average_price", "trades_count"))

    def can_show(self, qty_lots: int, created_at_us: int) -> bool:
        """Whether the answer to a cancel can be written with these; 0: it is not known."""
        if not qty_lots and not self._shown.isdisjoint(_NEED_QUANTITY):
            return False
        return bool(created_at_us) or "created_at" not in self._shown

    def render_placed(self, view: OrderView) -> Rendered:
        return self._responses.placed_status, self._render("place", self._placed, view)

    def render_canceled(self, view: OrderView) -> Rendered:
        return self._responses.canceled_status, self._render("cancel", self._canceled, view)

    def render_refusal(self, refusal: Refusal) -> Rendered:
        """As the mapping has it; else messages as ActiveModel::Errors writes them, or the
        framework's own body.
        """
        return self._configured(refusal.faults) or self._usual(refusal)

    def render_reason(self, reason: str, usual: Rendered) -> Rendered:
        """Of a refusal that no field is to blame for."""
        return self._configured((Fault(reason, "base", ""),)) or usual

    def render_not_found(self) -> Rendered:
        return self.render_refusal(Refusal(status=404))

    def render_not_open(self) -> Rendered:
        """The cancel of an own order that is filled or canceled already."""
        errors, reasons = (("state", "is not open"),), ("not_open",)
        return self.render_refusal(Refusal(status=422, errors=errors, reasons=reasons))

    def _configured(self, faults: Sequence[Fault]) -> Rendered | None:
        found = self._errors.rendered(faults)
        if found is None:
            return None
        status, body = found
        return status, b"" if body is None else self._encoded("refuse", body)

    def _usual(self, refusal: Refusal) -> Rendered:
        if refusal.errors:
            errors: dict[str, list[str]] = {}
            for field, message in refusal.errors:
                errors.setdefault(field, []).append(message)
            return refusal.status, self._encoded("refuse", {"errors": errors})
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            return refusal.status, b'{"error":"Unauthorized"}'
        return render_status(refusal.status)

    def element(self, status: int, body: bytes) -> bytes:
        """What the answer to a bulk request shows of an order, made from the answer to a request
        for that order alone: the order itself, or why it was refused. Raises ValueError for the
        answer to an order that was taken which has no order in it.
        """
        try:
            answer = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
        except msgspec.MsgspecError:
            answer = {}
        if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
            root = self._responses.root
            shown = answer.get(root) if root else body if answer else None
            if shown is None:
                raise ValueError("no order in it")
            return bytes(shown)
        if "errors" in answer:
            return msgspec.json.encode({"errors": answer["errors"]})
        return refused_element(_phrase(status))

    def render_many(self, status: int, elements: Sequence[bytes]) -> Rendered:
        """The answer to a bulk request."""
        raw = [msgspec.Raw(element) for element in elements]
        root = self._responses.many_root
        return status, msgspec.json.encode({root: raw} if root else raw)

    def _render(self, action: Rendering, values: _Values, view: OrderView) -> bytes:
        scale = self._scales[view.symbol]
        shown: Any = {key: value(scale, view) for key, value in values}
        root = self._responses.root
        return self._encoded(action, {root: shown} if root else shown)

    def _encoded(self, action: Rendering, body: Any) -> bytes:
        return msgspec.json.encode(self._adapter.answer(action, body))


def render_status(status: int) -> Rendered:
    """What Rails' public exceptions application answers for a status, as JSON."""
    return status, msgspec.json.encode({"status": int(status), "error": HTTPStatus(status).phrase})


def refused_element(message: str) -> bytes:
    """Of the answer to a bulk request: an order that has no fault in any of its fields."""
    return msgspec.json.encode({"errors": {"base": [message]}})


def answer_fields(status: int, body: bytes, request_id: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The header fields of an answer, less those that describe its body."""
    caching: tuple[tuple[bytes, bytes], ...] = (_UNCACHED,)
    if status in (HTTPStatus.OK, HTTPStatus.CREATED):
        etag = b'W/"%b"' % hashlib.sha256(body).hexdigest()[:32].encode()
        caching = ((b"ETag", etag), _REVALIDATED)
    return (*_RAILS_FIELDS, *caching, (b"X-Request-Id", request_id))


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"
