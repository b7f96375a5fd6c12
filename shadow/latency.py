"""Latencies as HdrHistograms, one for each instrument, run, side and minute.

A histogram keeps every sample, to three digits, in a few kilobytes; windows of it add up to the
same histogram whatever was restarted in between.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from hdrh.histogram import HdrHistogram

from shadow.limits import LATENCY_US_MAX
from shadow.verdict import LatencySummary

Side = Literal["legacy", "engine"]

WINDOW_S = 60
_DIGITS = 3


class Window(NamedTuple):
    symbol: str
    run: int
    side: Side
    minute_s: int  # start of the minute, seconds since 1970


def minute_of(wall_ns: int) -> int:
    seconds = wall_ns // 1_000_000_000
    return seconds - seconds % WINDOW_S


def empty() -> HdrHistogram:
    return HdrHistogram(1, LATENCY_US_MAX, _DIGITS)


def record(histogram: HdrHistogram, elapsed_ns: int, count: int = 1) -> None:
    """Under a microsecond counts as one, over a minute as a minute."""
    histogram.record_value(min(max(elapsed_ns // 1000, 1), LATENCY_US_MAX), count)


def encode(histogram: HdrHistogram) -> str:
    encoded: bytes = histogram.encode()
    return encoded.decode("ascii")


def add_encoded(histogram: HdrHistogram, encoded: str) -> None:
    histogram.decode_and_add(encoded.encode("ascii"))


def summary(windows: Iterable[str]) -> LatencySummary:
    """Of encoded histograms, all samples together."""
    total = empty()
    for encoded in windows:
        add_encoded(total, encoded)
    count = total.get_total_count()
    if count == 0:
        return LatencySummary()
    return LatencySummary(
        count=count,
        p50_us=float(total.get_value_at_percentile(50.0)),
        p99_us=float(total.get_value_at_percentile(99.0)),
        p999_us=float(total.get_value_at_percentile(99.9)),
        max_us=float(total.get_max_value()),
    )
