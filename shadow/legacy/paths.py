"""Paths of requests and of routes, matched as the monolith matches them. Pure.

What Ruby's servers and routers read differently is read in the way that finds more: a request that
the monolith takes for an order and we don't is the worst mistake.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_to_bytes

PLACEHOLDER = re.compile(r":([A-Za-z_][A-Za-z0-9_]*)")
_SLASHES = re.compile(rb"/+")


def path_of(target: bytes) -> bytes:
    """Of a request target in origin or absolute form, as Puma and Rails cut it out: without query
    and `;` parameters, slashes squeezed, one at the end taken away.
    """
    path = target.partition(b"?")[0].partition(b";")[0]
    if not path.startswith(b"/"):
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    if b"//" in path:
        path = _SLASHES.sub(b"/", path)
    return path.removesuffix(b"/") or b"/"


def pattern_of(path: str, *, escaped: bool = True) -> re.Pattern[bytes]:
    """Of a route: matches all of a path. A placeholder is a piece without slash and dot, and a
    format suffix may follow. Grape takes an escaped character of a fixed part for the character,
    Rails does not: it counts here. An escaped slash is none for either.
    Not `escaped`: for paths without any, and several times as fast.
    """
    fixed_part = _fixed if escaped else _plain
    parts = PLACEHOLDER.split(path)
    text = fixed_part(parts[0])
    for name, fixed in zip(parts[1::2], parts[2::2], strict=True):
        text += b"(?P<%b>[^/.]+)%b" % (name.encode(), fixed_part(fixed))
    return re.compile(text + rb"(?:\.[^/.]+)?")


def params_of(match: re.Match[bytes]) -> dict[str, str]:
    """What the placeholders stand for, unescaped once."""
    return {
        name: unquote_to_bytes(value).decode("utf-8", "replace")
        for name, value in match.groupdict().items()
    }


def _plain(text: str) -> bytes:
    return re.escape(text.encode())


def _fixed(text: str) -> bytes:
    return b"/".join(map(_piece, text.encode().split(b"/")))


def _piece(text: bytes) -> bytes:
    return b"".join(b"(?:%b|(?i:%%%02x))" % (re.escape(bytes([c])), c) for c in text)
