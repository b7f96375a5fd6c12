"""Which column is which, by name and type. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bridge.limits import ONBOARD_VALUES_MAX
from bridge.onboard import names
from bridge.onboard.finding import Finding, certain, guess, likely
from bridge.onboard.recognise_words import speaks
from bridge.onboard.seen import Column, Table

_UNITS = {"cent": -2, "satoshi": -8, "wei": -18, "micro": -6, "milli": -3}
_SHOWN_MAX = 8  # columns that a person is asked to choose from
_TIMES = ("timestamp", "timestamptz", "integer", "numeric")
_VAGUE = ("type", "kind", "position", "art", "typ", "tipo")  # texts in them may be about anything
_ENUMERATED = ("text", "integer", "boolean", "other")
# Under exactly one of them a number is a time of this century's exchanges: 2009 to 2100.
_EPOCHS = {"epoch_s": 1, "epoch_ms": 1000, "epoch_us": 1_000_000}
_EPOCH_FIRST_S, _EPOCH_LAST_S = 1_230_768_000, 4_102_444_800


def ranked(table: Table, known: Sequence[str], kinds: Iterable[str] = ()) -> list[Column]:
    """The columns with one of these names, the best name first."""
    allowed = tuple(kinds)
    found = [
        (place, column)
        for column in table.columns
        if (place := names.rank(column.name, known)) is not None
        and (not allowed or column.kind in allowed)
    ]
    return [column for _, column in sorted(found, key=lambda one: one[0])]


def asked(key: str, table: Table, what: str, kinds: Iterable[str] = ()) -> Finding:
    """A column that could not be found."""
    allowed = tuple(kinds)
    fitting = [one.name for one in table.columns if not allowed or one.kind in allowed]
    shown = [f'"{name}"' for name in fitting[:_SHOWN_MAX]]
    return guess(key, f"no column of {table.name} looks like {what}", *shown)


def key_finding(key: str, table: Table) -> Finding:
    """Of the primary key."""
    if len(table.key) != 1:
        seen = " and ".join(table.key) or "none"
        why = f"one column must tell rows apart; the primary key is {seen}"
        return guess(key, why)
    name = table.key[0]
    kind = _kind(table, name)
    if kind == "uuid":
        return certain(key, {"column": name, "form": "uuid"}, "the primary key, a UUID")
    if kind == "integer":
        return certain(key, name, "the primary key, an integer")
    return guess(key, f"the primary key {name} is neither an integer nor a UUID")


def account_finding(key: str, table: Table) -> tuple[str, Finding]:
    for column in ranked(table, names.ACCOUNT, ("integer", "uuid")):
        value: Any = column.name
        if column.kind == "uuid":
            value = {"column": column.name, "form": "uuid"}
        foreign = table.refers(column.name)
        if foreign is not None:
            return column.name, certain(key, value, f"a foreign key to {foreign.table}")
        return column.name, likely(key, value, "by its name and type")
    return "", asked(key, table, "whose order it is", ("integer", "uuid"))


def amount_finding(key: str, column: Column, why: str = "by its name and type") -> Finding:
    """How a price or quantity stands in its column."""
    name = column.name
    if column.kind == "numeric":
        return likely(key, name, f"{why}: {column.type}")
    if column.kind == "text":
        return likely(key, {"column": name, "form": "text"}, f"{why}: decimals in a string")
    if column.kind == "float":
        why = f"{name} is {column.type}: binary fractions are not exact, and rows may be unreadable"
        return guess(key, why, f'"{name}"')
    exponent = next((_UNITS[word] for word in names.words(name) if word in _UNITS), None)
    if exponent is not None:
        value = {"column": name, "form": "integer", "exponent": exponent}
        return likely(key, value, f"{why}: the name says the unit")
    why = f"{name} is an integer: of what unit? The value is the integer times 10**exponent"
    choices = (
        f'{{ column = "{name}", form = "integer", exponent = {one} }}' for one in (-2, -8, 0)
    )
    return guess(key, why, *choices)


def time_finding(key: str, table: Table, known: Sequence[str], what: str) -> tuple[str, Finding]:
    found = ranked(table, known, _TIMES)
    if not found:
        return "", asked(key, table, what, _TIMES)
    column = found[0]
    if column.kind == "timestamptz":
        return column.name, likely(key, column.name, "by its name; a time with its zone")
    if column.kind == "timestamp":
        why = "by its name; without a zone: UTC, unless Rails' default_timezone says otherwise"
        return column.name, likely(key, column.name, why)
    forms = _epochs(table.values(column.name))
    if len(forms) == 1:
        value = {"column": column.name, "form": forms[0]}
        return column.name, likely(
            key, value, f"by its name; only as {forms[0]} are its values times"
        )
    choices = (f'{{ column = "{column.name}", form = "{one}" }}' for one in _EPOCHS)
    return column.name, guess(key, f"{column.name} is a number: since 1970 in what unit?", *choices)


def _epochs(values: Sequence[str]) -> list[str]:
    seconds = [int(value.partition(".")[0]) for value in values if value.lstrip("-")[:1].isdigit()]
    return [
        form
        for form, unit in _EPOCHS.items()
        if seconds and all(_EPOCH_FIRST_S <= one // unit < _EPOCH_LAST_S for one in seconds)
    ]


def enumerated_column(
    what: str, table: Table, known: Sequence[str], taken: Iterable[str] = ()
) -> Column | None:
    """The one whose values speak; else the best name, if it enumerates at all."""
    silent: list[Column] = []
    used = set(taken)
    for column in ranked(table, known, _ENUMERATED):
        values = column.labels or table.values(column.name)
        if column.name in used or len(values) > ONBOARD_VALUES_MAX:
            continue
        spoken = speaks(what, column, values)
        if spoken and 2 * spoken >= len(values):
            return column
        vague = column.kind == "text" and column.name.lower() in _VAGUE and values
        if not (spoken or vague):
            silent.append(column)
    return silent[0] if silent else None


def _kind(table: Table, name: str) -> str:
    column = table.column(name)
    return column.kind if column else ""
