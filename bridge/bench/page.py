"""Writes what was measured into a page of documentation, between two marks.

Everything between the marks is replaced or kept section by section, one for each part, so that a
part can be measured again alone; everything around them stays as it was written.
"""

from __future__ import annotations

import re
from typing import Any

from bridge.bench.figures import Table, tables
from bridge.errors import ConfigError

BEGIN = "<!-- measured by `railswitch bench`: begin -->"
END = "<!-- measured by `railswitch bench`: end -->"
_HEADING = re.compile(r"^### (\w+)$", re.MULTILINE)


def rewritten(page: str, results: dict[str, Any], order: list[str]) -> str:
    """The page with a section for each result; sections of other parts of `order` stay.

    Raises ConfigError for a page without the two marks.
    """
    head, began, rest = page.partition(BEGIN)
    measured, ended, tail = rest.partition(END)
    if not began or not ended:
        raise ConfigError(
            f"the page has no place for the figures: put the lines {BEGIN} and {END} where they "
            f"belong"
        )
    sections = _sections(measured) | {part: _section(part, one) for part, one in results.items()}
    written = "\n\n".join(sections[part].strip() for part in order if part in sections)
    return f"{head}{BEGIN}\n\n{written}\n\n{END}{tail}"


def _sections(measured: str) -> dict[str, str]:
    """By part; what stands before the first heading is dropped."""
    _, *pieces = _HEADING.split(measured)
    return {part: f"### {part}{text}" for part, text in zip(pieces[::2], pieces[1::2], strict=True)}


def _section(part: str, found: Any) -> str:
    return "\n\n".join([f"### {part}", *(_markdown(table) for table in tables(part, found))])


def _markdown(table: Table) -> str:
    lines = [_line(table.columns), _line(["---"] * len(table.columns))]
    lines += [_line(row) for row in table.rows]
    title = f"{table.title[:1].upper()}{table.title[1:]}:\n\n" if table.title else ""
    return title + "\n".join(lines)


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"
