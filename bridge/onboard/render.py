"""The findings as a railswitch.toml that says at each line how sure it is, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from bridge.onboard.finding import Confidence, Finding
from bridge.onboard.recognise import Recognised
from bridge.onboard.routes import Routes
from bridge.onboard.toml import comment, key, written
from shadow.legacy.mapping import FillsTable, OrdersTable

_LINE_MAX = 110  # with its comment; a longer one has it on the line before
_ARRAYS = ("instruments", "routes")
# What stands in the file before what, beside the order of the findings.
_SECTIONS = ("", "legacy", "instruments", "mapping")

_HEAD = """\
# Written by `railswitch init`. Beside each line: how sure it is, and why.
#   certain   the database says it, or its rows prove it
#   likely    by name and type; nothing that was seen speaks against it
#   DECIDE    not decided: until a person has, no command accepts this file
# A value of a column that no row seen has is in no map: rows with it will be uncomparable, with
# that reason, until it is added.
# `railswitch doctor` lists what is still to be decided, then checks the database and the rest;
# `railswitch mapping check` reads orders and fills by this file and says what does not add up.
"""


def _order(finding: Finding) -> int:
    """Of the keys of [mapping.orders] and [mapping.fills] as their structs have them; those of the
    others as they come.
    """
    path = finding.key.split(".")
    kind = {"orders": OrdersTable, "fills": FillsTable}.get(path[1] if path[0] == "mapping" else "")
    return kind.__struct_fields__.index(path[2]) if kind is not None else 0


class _Node(msgspec.Struct):
    """A table of the file: its own keys, then the tables in it."""

    own: dict[str, Finding]
    inner: dict[str, _Node]


def render(recognised: Recognised, findings: Sequence[Finding], routes: Routes | None) -> str:
    """`findings`: all of them, of the database and of the rest."""
    lines = [*_HEAD.splitlines(), *_seen(recognised), ""]
    root = _Node(own={}, inner={})
    for one in sorted(findings, key=_order):
        _place(root, _path(one.key), one)
    order = sorted(root.inner, key=_SECTIONS.index)
    for name in order:
        lines += _section([name], root.inner[name])
    lines += _remarks(recognised, routes)
    return "\n".join(lines).rstrip() + "\n"


def _path(dotted: str) -> list[str]:
    """Of a map's keys only the first dots divide: a value may have some of its own."""
    head, found, value = dotted.partition(".map.")
    return [*head.split("."), "map", value] if found else dotted.split(".")


def _place(node: _Node, path: list[str], finding: Finding) -> None:
    if len(path) == 1:
        node.own[path[0]] = finding
    else:
        inner = node.inner.setdefault(path[0], _Node(own={}, inner={}))
        _place(inner, path[1:], finding)


def _section(path: list[str], node: _Node) -> Iterator[str]:
    if path[-1] in _ARRAYS:
        for one in node.inner.values():
            yield f"[[{'.'.join(path)}]]"
            yield from _keys(one)
            yield ""
        return
    if node.own:
        yield f"[{'.'.join(map(key, path))}]"
        yield from _keys(node)
        yield ""
    for name, inner in node.inner.items():
        yield from _section([*path, name], inner)


def _keys(node: _Node) -> Iterator[str]:
    for name, one in node.own.items():
        line = f"{key(name)} = {written(one.value)}"
        if one.undecided:
            yield from _decision(name, one)
            yield line
            continue
        told = comment(f"{one.confidence}: {one.why}")
        if len(line) + len(told) + 2 > _LINE_MAX:
            yield told
            yield line
        else:
            yield f"{line}  {told}"


def _decision(name: str, one: Finding) -> Iterator[str]:
    yield comment(f"DECIDE: {one.why}")
    if one.choices:
        yield comment("one of these, or what fits:" if len(one.choices) > 1 else "for example:")
    for choice in one.choices:
        yield comment(f"  {key(name)} = {choice}")


def _seen(recognised: Recognised) -> Iterator[str]:
    yield "#"
    yield comment("What was recognised:")
    for part in recognised.parts:
        named = part.table or "not decided"
        sure = f"{part.confidence}, " if part.confidence is not Confidence.GUESS else ""
        yield comment(f"  {part.what:<12} {named}: {sure}{part.why}")
    for one in recognised.looked:
        yield comment(f"Looked at {one.told}")
    if recognised.not_readable:
        listed = ", ".join(recognised.not_readable)
        yield comment(f"This role may not read: {listed}.")


def _remarks(recognised: Recognised, routes: Routes | None) -> Iterator[str]:
    accounts = next((one for one in recognised.parts if one.what == "accounts"), None)
    yield comment("Not needed to shadow, but before a flip:")
    if accounts is not None and accounts.table:
        yield comment(
            f"  mapping.funds: {accounts.table} looks like balances. If orders lock money there:"
            ' "legacy", with [mapping.accounts]; else "none"'
        )
    else:
        yield comment(
            '  mapping.funds: no table of balances was recognised; if orders lock none: "none"'
        )
    for told in recognised.constant:
        yield comment(f"  mapping.orders.where: {told}; it can keep others out")
    if recognised.unfilled:
        listed = ", ".join(recognised.unfilled)
        yield comment(
            f"  mapping.orders.write: rows need a value for {listed}, and no key above gives one"
        )
    if routes is not None and routes.others:
        yield comment("Routes that write and are about orders, but are not proposed above:")
        for line in routes.others:
            yield comment(f"  {line.method} {line.path}")


def plain(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    """For programs."""
    return [
        {
            "key": one.key,
            "confidence": "decide" if one.undecided else str(one.confidence),
            "value": None if one.undecided else one.value,
            "why": one.why,
            "choices": one.choices,
        }
        for one in findings
    ]
