"""Which requests are order entry, by method and path, as the mapping's routes say. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote_to_bytes

from shadow.legacy.mapping import Route

_PLACEHOLDER = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")
_NO_PARAMS: dict[str, str] = {}

Match = tuple[Route, dict[str, str]]


class Router:
    """Finds the route of a request. As in Rails, a format suffix, a trailing slash and doubled
    slashes don't matter.
    """

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[tuple[bytes, bytes], Match] = {}
        self._patterns: dict[bytes, list[tuple[re.Pattern[bytes], Route]]] = {}
        for route in routes:
            method = route.method.upper().encode()
            if ":" not in route.path:
                self._exact.setdefault((method, route.path.encode()), (route, _NO_PARAMS))
            self._patterns.setdefault(method, []).append((_pattern(route.path), route))

    def match(self, method: bytes, target: bytes) -> Match | None:
        """`target` is the request target, in origin or absolute form. The first route that fits
        wins.
        """
        found = self._exact.get((method, target))
        if found is not None:
            return found
        patterns = self._patterns.get(method)
        if patterns is None:
            return None
        path = _path(target)
        for pattern, route in patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                return route, {
                    name: unquote_to_bytes(value).decode("utf-8", "replace")
                    for name, value in match.groupdict().items()
                }
        return None


def _path(target: bytes) -> bytes:
    path = target.partition(b"?")[0]
    if not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if b"//" in path:
        path = re.sub(rb"/+", b"/", path)
    return path


def _pattern(path: str) -> re.Pattern[bytes]:
    parts = _PLACEHOLDER.split(path)
    text = re.escape(parts[0])
    for name, literal in zip(parts[1::2], parts[2::2], strict=True):
        text += f"(?P<{name}>[^/.?]+){re.escape(literal)}"
    return re.compile(rf"{text}(?:\.[A-Za-z0-9]+)?/?".encode())
