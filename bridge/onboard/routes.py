"""Order entry in what `bin/rails routes` prints: its table, its `--expanded` form, or the lines of
a Grape application's own task. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from bridge.onboard import names

_VERBS = r"(?:GET|POST|PUT|PATCH|DELETE)"
_LINE = re.compile(rf"(?<![\w/])({_VERBS}(?:\|{_VERBS})*)[\s|]+(/\S*)")
_EXPANDED = re.compile(r"^(Verb|URI(?: Pattern)?)\s*\|\s*(\S+)", re.MULTILINE)
_OPTIONAL = re.compile(r"\([^()]*\)")
_VERSION = re.compile(r"(?<=[\s|])(v[0-9]+)(?=[\s|]|$)")

_CANCEL = frozenset(("cancel", "delete", "destroy", "remove"))
_ALL = frozenset(("clear", "cancel_all", "all", "cancelall"))
_BULK = frozenset(("batch", "bulk", "multi", "multiple", "many"))
_BACK = frozenset(("admin", "management", "backoffice", "back_office", "staff"))


class Line(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    path: str  # without optional parts


class Proposed(msgspec.Struct, frozen=True, kw_only=True):
    action: str  # place, cancel, cancel_all, read
    method: str
    path: str
    order_id: str = ""  # where the id of a cancel or a read stands; "" when that is open
    bulk: bool = False


class Routes(msgspec.Struct, frozen=True, kw_only=True):
    lines: int = 0
    proposed: tuple[Proposed, ...] = ()
    # About orders and writing, but not understood, or of the back office.
    others: tuple[Line, ...] = ()


def parse(text: str) -> list[Line]:
    """Every route of the text, each once, in its order; [] for what is no such text.

    >>> parse("  orders POST   /orders(.:format)   orders#create")
    [Line(method='POST', path='/orders')]
    """
    found = list(_expanded(text)) or list(_table(text))
    return list(dict.fromkeys(found))


def read(text: str) -> Routes:
    lines = parse(text)
    proposed: dict[tuple[str, str], Proposed] = {}
    others: list[Line] = []
    for line in lines:
        one = _proposed(line)
        if one is not None:
            proposed.setdefault((one.method, one.path), one)
        elif line.method != "GET" and _is_about_orders(line.path):
            others.append(line)
    ordered = sorted(proposed.values(), key=lambda one: _places(one.path))
    return Routes(lines=len(lines), proposed=tuple(ordered), others=tuple(others))


def _table(text: str) -> Iterator[Line]:
    for line in text.splitlines():
        found = _LINE.search(line)
        if found is not None:
            version = _VERSION.search(line, found.end())
            path = found[2].replace(":version", version[1]) if version else found[2]
            yield from _each(found[1], path)


def _expanded(text: str) -> Iterator[Line]:
    if not re.search(r"^--\[ Route ", text, re.MULTILINE):
        return
    verb = ""
    for name, value in _EXPANDED.findall(text):
        if name == "Verb":
            verb = value
        elif verb and value.startswith("/"):
            yield from _each(verb, value)
            verb = ""


def _each(verbs: str, path: str) -> Iterator[Line]:
    plain = path
    while _OPTIONAL.search(plain):
        plain = _OPTIONAL.sub("", plain)
    plain = re.sub("/+", "/", plain.split("(")[0]).rstrip("/|") or "/"
    for method in verbs.split("|"):
        if re.fullmatch(_VERBS, method) and "*" not in plain:
            yield Line(method=method, path=plain)


def _proposed(line: Line) -> Proposed | None:
    pieces = line.path.strip("/").split("/")
    if not _is_about_orders(line.path) or set(pieces) & _BACK:
        return None
    at = max(n for n, piece in enumerate(pieces) if _is_orders(piece))
    rest = pieces[at + 1 :]
    if any(piece.startswith(":") for piece in pieces[:at]):
        return None  # what the placeholder says of the order can't be known here
    action, order_id, bulk = _action(line.method, rest)
    if not action and pieces[at].rstrip("s") == pieces[at] and line.method == "GET" and not rest:
        action = "read"  # GET /order?id=
    if not action:
        return None
    return Proposed(action=action, method=line.method, path=line.path, order_id=order_id, bulk=bulk)


def _action(method: str, rest: list[str]) -> tuple[str, str, bool]:
    """(action, where the id is, bulk) by the method and what follows the orders in the path."""
    tails = {piece.lower() for piece in rest}
    if not rest:
        return {"POST": "place", "DELETE": "cancel_all"}.get(method, ""), "", False
    if rest[0].startswith(":"):
        order_id = f"path.{rest[0][1:]}"
        if len(rest) == 1:
            return {"DELETE": "cancel", "GET": "read"}.get(method, ""), order_id, False
        cancels = len(rest) == 2 and tails & _CANCEL and method != "GET"
        return ("cancel", order_id, False) if cancels else ("", "", False)
    if len(rest) > 1 or method == "GET":
        return "", "", False
    if tails & _BULK:
        return {"POST": "place", "DELETE": "cancel"}.get(method, ""), "", True
    if tails & _ALL or (tails & _CANCEL and "delete" not in tails):
        return "cancel_all", "", False
    if tails & _CANCEL:
        return "cancel", "", False
    places = method == "POST" and tails <= {"create", "place"}
    return ("place" if places else "", "", False)


def _is_about_orders(path: str) -> bool:
    return any(_is_orders(piece) for piece in path.split("/"))


def _is_orders(piece: str) -> bool:
    own = set(names.words(piece))
    if piece.startswith(":") or not own & names.ORDERS:
        return False
    return own <= names.ORDERS | names.BUYER | names.SELLER | {"spot"}


def _places(path: str) -> tuple[bool, ...]:
    """Fixed pieces before placeholders: the first route that fits counts."""
    return tuple(piece.startswith(":") for piece in path.split("/"))


def missing(proposed: Iterable[Proposed]) -> list[str]:
    """Actions that every monolith has a route for and that none was found for."""
    have = {one.action for one in proposed if not one.bulk}
    return [action for action in ("place", "cancel") if action not in have]
