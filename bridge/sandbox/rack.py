"""What Puma, Rack and Rails make of a request before a controller sees it. Pure.

Written apart from `shadow.params` and `shadow.legacy.paths`, which must come to the same from
outside.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import unquote

_PAIRS_MAX = 4096
_DEPTH_MAX = 100
_OVERRIDES = ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "LINK", "UNLINK"]
_FORM = "application/x-www-form-urlencoded"
_LIST = None  # of a name's steps: `[]`


class BadRequest(Exception):
    """The body is not what its content type says, or there is no order in it: 400."""


class Routes:
    """Journey: rows of a table of method, path and what answers it; the first that fits."""

    def __init__(self, rows: Sequence[tuple[str, str, Any]]) -> None:
        self._rows = [(method, _regexp(path), answer) for method, path, answer in rows]

    def recognize(self, method: str, target: str) -> tuple[Any, dict[str, str]] | None:
        path = re.split("[?;]", target, maxsplit=1)[0]  # Puma keeps `;` out of a path
        path = re.sub("/+", "/", "/" + path)
        path = path[:-1] if path.endswith("/") else path
        for verb in ("HEAD", "GET") if method == "HEAD" else (method,):
            for row_verb, regexp, answer in self._rows:
                match = regexp.fullmatch(path)
                if row_verb == verb and match:
                    return answer, {key: unquote(one) for key, one in match.groupdict().items()}
        return None


def _regexp(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r":(\w+)", r"(?P<\1>[^/.?]+)", path) + r"(\.[^/.?]+)?")


def media_type(content_type: str) -> str:
    return re.split("[,;]", content_type)[0].strip().lower()


def is_form(content_type: str, method: str) -> bool:
    return media_type(content_type) == _FORM or (method == "POST" and content_type == "")


def effective_method(method: str, header: str | None, content_type: str, body: bytes) -> str:
    """Rack::MethodOverride."""
    if method != "POST":
        return method
    asked: Any = None
    if is_form(content_type, method):
        try:
            asked = nested(body).get("_method")
        except BadRequest:
            asked = None
    word = str(header or "" if asked is None else asked).upper()
    return word if word in _OVERRIDES else method


def nested(encoded: bytes) -> dict[str, Any]:
    """Parameters as Rack nests them, without the nils that Rails takes out of lists."""
    try:
        text = encoded.removesuffix(b"\0").decode()
    except UnicodeDecodeError as error:
        raise BadRequest from error
    pairs = text.split("&") if text else []
    if len(pairs) > _PAIRS_MAX:
        raise BadRequest
    params: dict[str, Any] = {}
    for pair in pairs:
        name, *rest = pair.lstrip(" ").split("=", 1)
        steps = list(_steps(_unescape(name)))
        if len(steps) > _DEPTH_MAX:
            raise BadRequest
        if steps[0]:
            _put(params, steps, _unescape(rest[0]) if rest else None)
    return params


def _unescape(text: str) -> str:
    if re.search("%(?![0-9a-fA-F]{2})", text):
        raise BadRequest
    try:
        return unquote(text.replace("+", " "), errors="strict")
    except UnicodeDecodeError as error:
        raise BadRequest from error


def _steps(name: str) -> Iterator[str | None]:
    """`a[b][][c]` is a, b, a list, c."""
    opens = name.find("[", 1)
    if opens < 0 or name[opens:] == "[":
        yield name
        return
    yield name[:opens]
    rest = name[opens:]
    while rest:
        closes = rest.find("]")
        if not rest.startswith("[") or closes < 0:
            yield rest
            return
        yield rest[1:closes] or _LIST
        rest = rest[closes + 1 :]


def _put(group: dict[str, Any], steps: list[str | None], value: str | None) -> None:
    """`steps` begin with the key in this group."""
    key, rest = steps[0] or "[]", steps[1:]
    if not rest:
        group[key] = value
        return
    kind = list if rest[0] is _LIST else dict
    if group.get(key) is None:
        group[key] = kind()
    inner = group[key]
    if not isinstance(inner, kind):
        raise BadRequest
    if isinstance(inner, dict):
        _put(inner, rest, value)
    elif len(rest) == 1:
        inner.extend([] if value is None else [value])
    elif rest[1:] == [_LIST]:
        if not inner or not isinstance(inner[-1], dict):
            inner.append([] if value is None else [value])
    else:
        if not inner or not isinstance(inner[-1], dict) or _is_taken(inner[-1], rest[1:]):
            inner.append({})
        _put(inner[-1], rest[1:], value)


def _is_taken(group: Any, steps: list[str | None]) -> bool:
    """A group of a list ends where a name comes again; a list in it takes any number."""
    if _LIST in steps:
        return False
    for step in steps:
        if not isinstance(group, dict) or step not in group:
            return False
        group = group[step]
    return True
