"""What a railswitch.toml that `railswitch init` wrote leaves to a person. Pure.

A value that could not be decided stands in the file as "DECIDE". A file with one of them is no
configuration yet: it is refused whole, with all that is still open, so that no default and no
other key may take its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

DECIDE = "DECIDE"


def open_decisions(data: Any) -> Iterator[str]:
    """A sentence for each, naming the key."""
    for path in undecided(data):
        yield (
            f"`{path}` is still to be decided: the lines above it say what was seen and between"
            f' what. Write the value in the place of "{DECIDE}"'
        )


def undecided(data: Any, path: str = "") -> Iterator[str]:
    """The keys of a decoded file that still say DECIDE, as dotted paths.

    >>> list(undecided({"legacy": {"upstream": "DECIDE"}, "instruments": [{"tick": "DECIDE"}]}))
    ['legacy.upstream', 'instruments[0].tick']
    """
    if data == DECIDE:
        yield path
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from undecided(value, f"{path}.{key}" if path else str(key))
    elif isinstance(data, list):
        for n, value in enumerate(data):
            yield from undecided(value, f"{path}[{n}]")
