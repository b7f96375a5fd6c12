"""Why an order or a cancel is refused, by name, and the monolith's answer to it. Pure.

A reason without an answer of its own is answered as the more general one that it falls back to.
Where a request has several faults their bodies become one: objects key by key, lists one after the
other. A body that says it otherwise, or with another status, stands for all of them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from shadow.legacy.mapping import ErrorAnswer

_GENERAL = {
    "symbol_missing": "unknown_instrument",
    "side_missing": "invalid_side",
    **dict.fromkeys(
        (
            *("price_missing", "price_not_a_number", "price_not_positive", "price_off_tick"),
            *("price_too_high", "price_too_low", "price_forbidden"),
        ),
        "invalid_price",
    ),
    **dict.fromkeys(
        (
            *("quantity_missing", "quantity_not_a_number", "quantity_not_positive"),
            *("quantity_off_lot", "quantity_too_large", "notional_too_large"),
        ),
        "invalid_quantity",
    ),
    **dict.fromkeys(
        (
            *("unknown_instrument", "invalid_side", "invalid_ord_type", "invalid_tif"),
            *("invalid_price", "invalid_quantity"),
        ),
        "invalid",
    ),
    **dict.fromkeys(("account_blocked", "too_many_orders", "too_many_requests"), "forbidden"),
}
REASONS = tuple(
    dict.fromkeys(
        (
            *("bad_request", "unauthorized", "forbidden", "not_found", "not_open"),
            *("insufficient_funds", "market_closed"),
            *_GENERAL.values(),
            *_GENERAL,
        )
    )
)
_PLACEHOLDER = re.compile(r"%\{(\w*)\}")
_PLACEHOLDERS = ("field", "message")


class Fault(NamedTuple):
    """One thing that is wrong with a request."""

    reason: str
    field: str  # the monolith's name of it; "base" where none is at fault
    message: str  # in Rails' words


class ErrorAnswers:
    """The answers of the mapping, their bodies read once."""

    def __init__(self, answers: Mapping[str, ErrorAnswer]) -> None:
        self._answers = {
            reason: (one.status, msgspec.json.decode(one.body) if one.body else None)
            for reason, one in answers.items()
        }

    def rendered(self, faults: Sequence[Fault]) -> tuple[int, Any] | None:
        """Status and body, None for an empty one; None as a whole: the mapping says nothing."""
        told = []
        for fault in faults:
            found = self._of(fault.reason)
            if found is not None:
                told.append((found[0], _filled(found[1], fault)))
        if not told:
            return None
        status, body = told[0]
        for other_status, other in told[1:]:
            if other_status == status:
                body = _merged(body, other)
        return status, body

    def _of(self, reason: str) -> tuple[int, Any] | None:
        while reason:
            if reason in self._answers:
                return self._answers[reason]
            reason = _GENERAL.get(reason, "")
        return None


def problems(answers: Mapping[str, ErrorAnswer]) -> Iterator[str]:
    """A sentence for each that can't be used."""
    for reason, answer in answers.items():
        where = f"`mapping.errors.{reason}`"
        if reason not in REASONS:
            near = difflib.get_close_matches(reason, REASONS, n=1, cutoff=0.0)[0]
            yield f"{where} is none of our reasons: the nearest is `{near}`"
        if not 200 <= answer.status < 600:
            yield f"`mapping.errors.{reason}.status` must be from 200 to 599"
        try:
            body = msgspec.json.decode(answer.body) if answer.body else None
        except msgspec.DecodeError as error:
            yield f"`mapping.errors.{reason}.body` is no JSON: {error}"
            continue
        for name in sorted(_names(body) - set(_PLACEHOLDERS)):
            yield (
                f"`mapping.errors.{reason}.body`: %{{{name}}} is none of the placeholders"
                " %{field} and %{message}"
            )


def _names(body: Any) -> set[str]:
    if isinstance(body, str):
        return set(_PLACEHOLDER.findall(body))
    if isinstance(body, dict):
        return {name for pair in body.items() for one in pair for name in _names(one)}
    return {name for one in body for name in _names(one)} if isinstance(body, list) else set()


def _filled(body: Any, fault: Fault) -> Any:
    if isinstance(body, str):
        return body.replace("%{field}", fault.field).replace("%{message}", fault.message)
    if isinstance(body, dict):
        return {_filled(key, fault): _filled(value, fault) for key, value in body.items()}
    return [_filled(one, fault) for one in body] if isinstance(body, list) else body


def _merged(one: Any, other: Any) -> Any:
    """
    >>> _merged({"errors": ["a"]}, {"errors": ["b", "a"]})
    {'errors': ['a', 'b', 'a']}
    """
    if isinstance(one, dict) and isinstance(other, dict):
        added = {key: value for key, value in other.items() if key not in one}
        return {key: _merged(one[key], other[key]) if key in other else one[key] for key in one} | (
            added
        )
    if isinstance(one, list) and isinstance(other, list):
        return [*one, *other]
    return one
