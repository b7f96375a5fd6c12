"""Bodies and queries of requests, read as Rack and Rails read them. Pure."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from shadow.limits import FORM_DEPTH_MAX, FORM_PAIRS_MAX, JSON_DEPTH_MAX

_JSON = ("application/json", "text/x-json", "application/jsonrequest")  # Rails' synonyms
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = ("multipart/form-data", "multipart/related", "multipart/mixed")
_SEPARATOR = re.compile(rb"& *")
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BRACKETS = re.compile(r"[\[\]]+")

# Numbers with a fraction stay text: no float ever exists, and an exponent can still be seen.
_json = msgspec.json.Decoder(float_hook=str)


def media_type(content_type: str) -> str:
    """What stands before the first parameter; Rack ends it at a comma too."""
    return content_type.partition(";")[0].partition(",")[0].strip().lower()


def is_form(content_type: str, method: str) -> bool:
    """Rack takes a POST that doesn't say what its body is for a form."""
    return media_type(content_type) == _FORM or (not content_type and method == "POST")


def is_multipart(content_type: str) -> bool:
    return media_type(content_type) in _MULTIPART


def body_params(content_type: str, method: str, body: bytes) -> tuple[dict[str, Any], bool]:
    """The body's parameters, and whether they came as JSON: JSON that is no object stands under
    `_json`. Raises ValueError for what is answered with 400.
    """
    if media_type(content_type) in _JSON:
        if not body:
            return {}, True
        value = _json_value(body)
        return (value, True) if isinstance(value, dict) else ({"_json": value}, True)
    if is_form(content_type, method):
        return nested(body), False
    return {}, False


def last_value(body: bytes, name: bytes) -> bytes | None:
    """The last value that a form gives a name; None: it has no such name, or without a value.

    A name that goes on in brackets makes it a list or a group: "[]" stands for those.
    """
    found = None
    for pair in _SEPARATOR.split(body.removesuffix(b"\0")):
        key, equals, value = pair.partition(b"=")
        key = _unescaped(key)
        if key == name:
            found = _unescaped(value) if equals else None
        elif key.startswith(name + b"[") and key != name + b"[":
            found = b"[]"
    return found


def nested(encoded: bytes) -> dict[str, Any]:
    """`order[price]=1&ids[]=2&orders[][side]=buy` as groups, lists and lists of groups. A name
    without a value is None; in a list that is left out.

    Raises ValueError for what Rails answers with 400: a bad escape, bytes that are no UTF-8, a name
    that is a value and a group at once, too many or too deep ones.
    """
    params: dict[str, Any] = {}
    # Safari once ended forms with a NUL: Rack still takes one away.
    pairs = _SEPARATOR.split(encoded.removesuffix(b"\0")) if encoded else []
    if len(pairs) > FORM_PAIRS_MAX:
        raise ValueError("too many parameters")
    for pair in pairs:
        name, equals, value = pair.partition(b"=")
        _store(params, _text(name), _text(value) if equals else None, 0)
    return params


def _store(group: dict[str, Any], name: str, value: str | None, depth: int) -> Any:
    """Puts it into the group, and returns that; of a name that is a bare `[]`, a list instead."""
    if depth >= FORM_DEPTH_MAX:
        raise ValueError("parameters are nested too deeply")
    key, rest = _head(name, depth)
    if not key:
        return group
    if not rest:
        if key == "[]" and depth:
            return [] if value is None else [value]
        group[key] = value
    elif rest == "[":
        group[name] = value
    elif rest.startswith("[]"):
        _append(_inner(group, key, list), rest[2:], value, depth)
    else:
        _store(_inner(group, key, dict), rest, value, depth + 1)
    return group


def _append(items: list[Any], name: str, value: str | None, depth: int) -> None:
    """A value, or one of a group: of the last one, until it has that name already."""
    if name:
        last = items[-1] if items else None
        if isinstance(last, dict) and not _has(last, name):
            _store(last, name, value, depth + 1)
        else:
            items.append(_store({}, name, value, depth + 1))
    elif value is not None:
        items.append(value)


def _inner(group: dict[str, Any], key: str, kind: type) -> Any:
    inner = group.get(key)
    if inner is None:
        inner = group[key] = kind()
    if not isinstance(inner, kind):
        raise ValueError(f"{key!r} is given as two kinds of things")
    return inner


def _head(name: str, depth: int) -> tuple[str, str]:
    """The first key of a name, and what follows it."""
    if depth == 0:
        at = name.find("[", 1)
        return (name, "") if at < 0 else (name[:at], name[at:])
    if name.startswith("[]"):
        return "[]", name[2:]
    at = name.find("]", 1) if name.startswith("[") else -1
    return (name, "") if at < 0 else (name[1:at], name[at + 1 :])


def _has(group: dict[str, Any], name: str) -> bool:
    if "[]" in name:
        return False
    at: Any = group
    for part in filter(None, _BRACKETS.split(name)):
        if not isinstance(at, dict) or part not in at:
            return False
        at = at[part]
    return True


def _json_value(body: bytes) -> Any:
    try:
        value = _json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("unreadable JSON") from error
    if body.count(b"[") + body.count(b"{") > JSON_DEPTH_MAX and _is_deep(value):
        raise ValueError("JSON is nested too deeply")
    return value


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(JSON_DEPTH_MAX):
        inner = (one.values() if isinstance(one, dict) else one for one in level)
        level = [one for group in inner for one in group if isinstance(one, dict | list)]
        if not level:
            return False
    return True


def _text(encoded: bytes) -> str:
    if b"%" in encoded and _BAD_ESCAPE.search(encoded):
        raise ValueError("a percent sign that escapes nothing")
    return _unescaped(encoded).decode()


def _unescaped(encoded: bytes) -> bytes:
    return (
        unquote_to_bytes(encoded.replace(b"+", b" "))
        if b"%" in encoded or b"+" in encoded
        else encoded
    )
