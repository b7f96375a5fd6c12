"""What is printed: tables for people and JSON for programs on stdout, problems on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.table import Table

_STYLES = {
    **dict.fromkeys(("ok", "pass", "ready", "done", "live", "equal", "match"), "green"),
    **dict.fromkeys(
        ("warn", "inconclusive", "too-little", "starting", "pending", "note"), "yellow"
    ),
    **dict.fromkeys(("fail", "wrong", "failed", "died", "mismatch", "different", "problem"), "red"),
    **dict.fromkeys(("shadow", "restarting", "intended"), "cyan"),
    **dict.fromkeys(("off", "stopped", "unknown", "-"), "dim"),
}


def console() -> Console:
    """Of the stdout of this moment; without a terminal it writes plain text, as wide as needed."""
    out = Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())
    if not out.is_terminal:
        out.width = 160
    return out


def problem(text: str) -> None:
    """For the operator, on stderr."""
    print(f"railswitch: {text}", file=sys.stderr)


def print_json(value: Any) -> None:
    """One document, indented."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")
    sys.stdout.flush()


def print_json_line(value: Any) -> None:
    """One line of a stream of documents."""
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")
    sys.stdout.flush()


def table(*columns: str, title: str = "") -> Table:
    """A plain table; a column whose name begins with ">" is aligned to the right."""
    made = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for name in columns:
        right = name.startswith(">")
        made.add_column(
            name.removeprefix(">"), justify="right" if right else "left", overflow="fold"
        )
    return made


def word(text: str, width: int = 0) -> str:
    """A state or verdict, in its colour, filled up to `width`."""
    style, filling = _STYLES.get(text), " " * (width - len(text))
    return (f"[{style}]{text}[/{style}]" if style else text) + filling


def duration(seconds: float | None) -> str:
    """
    >>> duration(3725.0), duration(0.25), duration(None)
    ('62 min', '250 ms', '-')
    """
    if seconds is None:
        return "-"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def micros(value_us: float, count: int) -> str:
    """A latency; "-" when nothing was measured."""
    if not count:
        return "-"
    return f"{value_us / 1000:.2f} ms" if value_us >= 1000 else f"{value_us:.0f} us"


def summary_us(histogram: Any) -> dict[str, float]:
    """Of an HdrHistogram of microseconds."""
    quantiles = {"p50_us": 50, "p99_us": 99, "p999_us": 99.9, "max_us": 100}
    values = {key: histogram.get_value_at_percentile(at) for key, at in quantiles.items()}
    return {"count": histogram.get_total_count(), **values}


@contextlib.contextmanager
def progress(text: str, *, quiet: bool = False) -> Iterator[None]:
    """A spinner on stderr while something takes its time; nothing without a terminal."""
    err = Console(file=sys.stderr)
    if quiet or not err.is_terminal:
        yield
        return
    with err.status(text):
        yield
