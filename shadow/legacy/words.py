"""Values of enumerated columns and of filters, and our words for them. Pure.

Values are PostgreSQL's text as the change stream has it. A boolean is "t" or "f" there; a mapping
may name it "true" or "false".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from shadow.legacy.mapping import Enumerated

_BOOLEANS = {"t": "true", "f": "false"}

Where = Mapping[str, Sequence[str]]


def word_of(value: str | None, enumerated: Enumerated) -> str:
    """Our word for a value of the column, None being NULL; "" when the mapping has none.

    >>> one = Enumerated(column="bid", map={"true": "buy"}, other="sell")
    >>> word_of("t", one), word_of("f", one), word_of(None, one)
    ('buy', 'sell', '')
    """
    if not enumerated.column:
        return enumerated.other
    if value is None:
        return enumerated.null
    word = enumerated.map.get(value)
    if word is None and value in _BOOLEANS:
        word = enumerated.map.get(_BOOLEANS[value])
    return enumerated.other if word is None else word


def words_of(enumerated: Enumerated) -> set[str]:
    """All that a row can say."""
    if not enumerated.column:
        return {enumerated.other} - {""}
    return {*enumerated.map.values(), enumerated.null, enumerated.other} - {""}


def value_of(parts: Iterable[tuple[Enumerated, str]]) -> str | None:
    """What is written into one column so that it says all of these words; None is NULL.

    Of several values the one that is named first. Raises KeyError when no value says them all.
    """
    wanted = list(parts)
    first = wanted[0][0]
    for value in first.map:
        if all(word_of(value, one) == word for one, word in wanted):
            return value
    if all(one.null == word for one, word in wanted):
        return None
    raise KeyError(" and ".join(word for _, word in wanted))


def has_value(enumerated: Enumerated, word: str) -> bool:
    """Write-back can say it. A word for `other` values alone names none that could be written."""
    if not enumerated.column:
        return enumerated.other == word
    return word in enumerated.map.values() or enumerated.null == word


def is_inside(row: Mapping[str, str | None], where: Where) -> bool:
    """The row is one of those that the filter lets through, as far as its columns are there."""
    return all(
        column not in row or _is_one_of(row[column], values) for column, values in where.items()
    )


def _is_one_of(value: str | None, values: Sequence[str]) -> bool:
    return value is not None and (value in values or _BOOLEANS.get(value) in values)
