"""Would the client have read the same? The answer that the monolith gave against the one rendered
from the engine's events.

Pure. Status and JSON body must be equal, value for value and type for type, keys in the same order;
times are compared by their format only, since they are told by two clocks, and so are the UUIDs
that each side draws for itself.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from shadow.legacy.keys import number_of
from shadow.limits import SHOWN_CHARS_MAX
from shadow.verdict import Difference, Kind

Answer = tuple[int, bytes]  # status, body
NOT_KNOWN = "\0"  # stands in a rendered answer where a value is not known: it is not compared

_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d| UTC)?")
_DIGIT = re.compile(r"\d")
_HEX_DIGIT = re.compile("[0-9a-f]", re.IGNORECASE)
_USUAL_TIME = re.compile(rb'"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"')
# No float: 1.10 and 1.1 are two texts, and neither is the string "1.1".
_json = msgspec.json.Decoder(float_hook=lambda text: ("number", text))


def compare_answer(
    legacy: Answer, engine: Answer, by_form: Collection[str] = ()
) -> tuple[Difference, ...]:
    """`by_form`: keys of times and UUIDs, whose values are compared by their form alone."""
    if legacy[0] == engine[0] and _without_times(legacy[1]) == _without_times(engine[1]):
        return ()
    if legacy[0] != engine[0]:
        return (_difference("status", legacy[0], engine[0]),)
    try:
        bodies = _json.decode(legacy[1]), _json.decode(engine[1])
    except (msgspec.DecodeError, RecursionError):
        return (_difference("body", _text(legacy[1]), _text(engine[1])),)
    found = _first_difference("body", *bodies, by_form)
    return () if found is None else (_difference(*found),)


def _without_times(body: bytes) -> bytes:
    """Nearly all answers are found equal by this alone, without being taken apart."""
    return _USUAL_TIME.sub(b'"time"', body)


def _first_difference(
    path: str, legacy: Any, engine: Any, by_form: Collection[str]
) -> tuple[str, Any, Any] | None:
    if engine == NOT_KNOWN or _is_folded(legacy, engine):
        return None
    if type(legacy) is not type(engine):
        return path, legacy, engine
    if isinstance(legacy, dict):
        if list(legacy) != list(engine):
            return f"{path} (its keys)", list(legacy), list(engine)
        pairs = (
            (f"{path}.{key}", legacy[key], engine[key])
            for key in legacy
            if key not in by_form or not _same_form(legacy[key], engine[key])
        )
    elif isinstance(legacy, list):
        if len(legacy) != len(engine):
            return f"{path} (its length)", len(legacy), len(engine)
        pairs = ((f"{path}[{n}]", one, engine[n]) for n, one in enumerate(legacy))
    else:
        return None if _same(legacy, engine) else (path, legacy, engine)
    differing = (_first_difference(*pair, by_form) for pair in pairs)
    return next((found for found in differing if found is not None), None)


def _same(legacy: Any, engine: Any) -> bool:
    if legacy == engine:
        return True
    if not isinstance(legacy, str) or _TIME.fullmatch(legacy) is None:
        return False
    return _DIGIT.sub("0", legacy) == _DIGIT.sub("0", engine)


def _same_form(legacy: Any, engine: Any) -> bool:
    """
    >>> _same_form(1588000000, 1799000001), _same_form("2b1e", "00ff"), _same_form(1588, 17)
    (True, True, False)
    """
    if type(legacy) is not type(engine) or not isinstance(legacy, str | int):
        return False
    return _HEX_DIGIT.sub("0", str(legacy)) == _HEX_DIGIT.sub("0", str(engine))


def _is_folded(legacy: Any, engine: Any) -> bool:
    """The id is a UUID, of which the engine knows the number it is folded to."""
    return (
        isinstance(legacy, str)
        and isinstance(engine, int)
        and not isinstance(engine, bool)
        and engine != 0
        and number_of(legacy, "uuid") == engine
    )


def _difference(where: str, legacy: Any, engine: Any) -> Difference:
    return Difference(
        kind=Kind.ANSWER,
        what=f"the client would read something else: {where}",
        legacy=_short(legacy),
        engine=_short(engine),
        lasting=False,
    )


def _short(value: Any) -> Any:
    """Answers may be long, and are not ours to keep."""
    if isinstance(value, str) and len(value) > SHOWN_CHARS_MAX:
        return value[:SHOWN_CHARS_MAX] + "…"
    if isinstance(value, Mapping | list):
        return _short(msgspec.json.encode(value).decode())
    return value


def _text(body: bytes) -> str:
    return body[: SHOWN_CHARS_MAX * 4].decode("utf-8", "replace")
