"""Which requests are order entry, by effective method and path, as the mapping's routes say. Pure.

A request that the monolith takes for an order and we don't is the worst mistake here: only the
fence in the database would still stop it. `docs/reference/config.md` tells the rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

from shadow.legacy.mapping import Route
from shadow.legacy.paths import params_of, path_of, pattern_of
from shadow.params import is_form, is_multipart, last_value

# Rack::MethodOverride's: any other word leaves the request a POST.
_METHODS = (b"GET", b"HEAD", b"PUT", b"POST", b"DELETE", b"OPTIONS", b"PATCH", b"LINK", b"UNLINK")
_NO_PARAMS: dict[str, str] = {}

Match = tuple[Route, dict[str, str]]
_Pattern = re.Pattern[bytes]
_NOTHING: Mapping[bytes, Match] = MappingProxyType({})


class Found(NamedTuple):
    """What a request may be, as far as its head tells."""

    route: Route | None  # by the method or the override header; None: only a form may make it one
    path_params: dict[str, str]
    # Of a POST whose body is a form: what each method that its `_method` may name makes of it, POST
    # included. Empty: the head has told it all.
    by_form: Mapping[bytes, Match] = _NOTHING

    @property
    def is_order(self) -> bool:
        """It is, or its body may make it, more than a read."""
        if self.route is not None and self.route.action != "read":
            return True
        return any(route.action != "read" for route, _ in self.by_form.values())


class Router:
    """Finds the route of a request. As in Rails the first route that fits counts."""

    def __init__(self, routes: Sequence[Route], *, method_override: bool = True) -> None:
        """`method_override`: the monolith runs Rack::MethodOverride."""
        self._overrides = method_override
        self._patterns: dict[bytes, list[tuple[_Pattern, _Pattern, Route]]] = {}
        for route in routes:
            patterns = self._patterns.setdefault(route.method.encode(), [])
            plain = pattern_of(route.path, escaped=False)
            patterns.append((plain, pattern_of(route.path), route))
        self._methods = [one for one in _METHODS if one in self._patterns]
        if b"GET" in self._methods and b"HEAD" not in self._methods:
            self._methods.append(b"HEAD")
        self._exact: dict[tuple[bytes, bytes], Found] = {}  # most requests name one as it is
        for route in routes:
            key = route.method.encode(), route.path.encode()
            found = self._of(*key) if ":" not in route.path else None
            if found is not None:
                self._exact[key] = found

    def match(
        self, method: bytes, target: bytes, override: bytes = b"", content_type: bytes = b""
    ) -> Found | None:
        """None: no order entry, whatever its body is. `target` is in origin or absolute form;
        `override` is what the header X-HTTP-Method-Override says.
        """
        if method == b"POST" and self._overrides:
            form = _may_override(content_type)
            if form or override:
                return self._posted(path_of(target), override, form)
        found = self._exact.get((method, target))
        return found if found is not None else self._of(method, path_of(target))

    def _posted(self, path: bytes, override: bytes, form: bool) -> Found | None:
        match = self._by_path(_known(override), path)
        by_form = _NOTHING
        if form:
            every = ((method, self._by_path(method, path)) for method in self._methods)
            by_form = {method: match for method, match in every if match is not None}
        route, path_params = match if match is not None else (None, _NO_PARAMS)
        found = Found(route, path_params, by_form)
        return found if match is not None or found.is_order else None

    def _of(self, method: bytes, path: bytes) -> Found | None:
        match = self._by_path(method, path)
        return Found(*match) if match is not None else None

    def _by_path(self, method: bytes, path: bytes) -> Match | None:
        escaped = b"%" in path
        for plain, lenient, route in self._patterns.get(method, ()):
            match = (lenient if escaped else plain).fullmatch(path)
            if match is not None:
                return route, params_of(match)
        # Rails answers a HEAD that it has no route for as a GET, without the body.
        return self._by_path(b"GET", path) if method == b"HEAD" else None


def settle(found: Found, content_type: bytes, body: bytes) -> Match | None:
    """The route that counts, now that the body is known; None: it is no order entry after all.

    A multipart body is not read: it stays what its head says.
    """
    if found.by_form and not is_multipart(content_type.decode("latin-1")):
        named = last_value(body, b"_method")
        if named is not None:
            return found.by_form.get(_known(named))
    return (found.route, found.path_params) if found.route is not None else None


def _known(named: bytes) -> bytes:
    method = named.upper()
    return method if method in _METHODS else b"POST"


@lru_cache(maxsize=256)
def _may_override(content_type: bytes) -> bool:
    """The body may have a `_method`: of JSON that is none."""
    text = content_type.decode("latin-1")
    return is_form(text, "POST") or is_multipart(text)
