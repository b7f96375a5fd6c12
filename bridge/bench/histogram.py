"""From what a load has noted down to latencies: each answer's time minus the moment at which its
command was due.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from hdrh.histogram import HdrHistogram

from bridge.bench.load import Got, Measured, Sent
from bridge.bench.workload_pair import IntArray
from engine.frame import FRAME_HEADER_BYTES
from engine.types import EventKind
from engine.wire import COMMAND_BYTES

LATENCY_US_MAX = 60_000_000
IN_TIME_NS = 100_000_000  # an answer so long after the last command is due still belongs to the run
SEVERAL = 2**20  # commands looked at together
_AT = {"p50": 50.0, "p90": 90.0, "p99": 99.0, "p99_9": 99.9, "max": 100.0}


def percentiles_us(counts: IntArray) -> dict[str, int | None]:
    """`counts[n]`: how many took n microseconds. None where there were none at all."""
    if not counts.any():
        return dict.fromkeys(_AT)
    histogram = HdrHistogram(1, LATENCY_US_MAX, 3)
    for us in np.flatnonzero(counts).tolist():
        histogram.record_value(max(us, 1), int(counts[us]))
    return {name: int(histogram.get_value_at_percentile(at)) for name, at in _AT.items()}


def report(measured: Measured) -> dict[str, Any]:
    """Of what came after the warm-up."""
    latencies, slips = np.zeros(1, np.int64), np.zeros(1, np.int64)
    sent = answered = in_time = 0
    last_sent_ns = last_answer_ns = 0
    for of_session in measured.sessions:
        due_ns, sent_ns, answered_ns = _times(measured, *of_session)
        for at in range(0, len(due_ns), SEVERAL):
            some = slice(at, at + SEVERAL)
            slips = _added(slips, sent_ns[some] - due_ns[some])
            latencies = _added(latencies, answered_ns[some] - due_ns[: len(answered_ns)][some])
        sent += len(due_ns)
        answered += len(answered_ns)
        in_time += int((answered_ns <= measured.end_ns + IN_TIME_NS).sum())
        last_sent_ns = max(last_sent_ns, int(sent_ns.max(initial=0)))
        last_answer_ns = max(last_answer_ns, int(answered_ns.max(initial=0)))
    counted_ns = measured.began_ns + measured.first_number * 10**9 // measured.rate
    due = measured.total - measured.first_number
    return {
        "rate_offered": measured.rate,
        "seconds": round((measured.end_ns - counted_ns) / 1e9, 2),
        "offered": due,
        "sent": sent,
        "answered": answered,
        "all_answered": answered == due,
        "answered_in_time_share": round(in_time / max(due, 1), 4),
        "rate_sent": _rate(sent, counted_ns, last_sent_ns),
        "rate_answered": _rate(answered, counted_ns, last_answer_ns),
        "latency_from_schedule_us": percentiles_us(latencies),
        "sent_late_us": percentiles_us(slips),
        "sends_cut_short": measured.sends_cut_short,
        "sends_that_waited": measured.sends_that_waited,
        "events": {
            kind.name.lower(): int(measured.kinds[kind])
            for kind in EventKind
            if measured.kinds[kind]
        },
        "journal": _journal(measured, answered, counted_ns, last_answer_ns),
    }


def _times(measured: Measured, sent: Sent, got: Got) -> tuple[IntArray, IntArray, IntArray]:
    """When each command of a session that counts was due, sent and answered; the last is shorter
    where answers are missing.
    """
    count = int(sent.count.sum())
    firsts = np.cumsum(sent.count) - sent.count
    numbers = np.arange(count) + np.repeat(sent.first_number - firsts, sent.count)
    due_ns = measured.began_ns + numbers * 10**9 // measured.rate
    sent_ns = np.repeat(sent.at_ns, sent.count)
    answered_ns = np.repeat(got.at_ns, np.diff(got.answered, prepend=0))
    warm = int(np.searchsorted(numbers, measured.first_number))
    return due_ns[warm:], sent_ns[warm:], answered_ns[warm:]


def _added(counts: IntArray, took_ns: IntArray) -> IntArray:
    found: npt.NDArray[Any] = np.bincount(
        np.clip(took_ns // 1000, 0, LATENCY_US_MAX), minlength=len(counts)
    )
    found[: len(counts)] += counts
    return found


def _rate(count: int, began_ns: int, last_ns: int) -> int:
    return round(count * 1e9 / max(last_ns - began_ns, 1))


def _journal(measured: Measured, answered: int, began_ns: int, ended_ns: int) -> dict[str, Any]:
    """Each frame is one write and one sync. What is zeroed ahead is not counted."""
    frames: set[int] = set()
    for _, got in measured.sessions:
        frames |= set(got.frame[got.at_ns >= began_ns].tolist())
    seconds = max(ended_ns - began_ns, 1) / 1e9
    size = answered * COMMAND_BYTES + len(frames) * FRAME_HEADER_BYTES
    return {
        "syncs_per_s": round(len(frames) / seconds, 1),
        "bytes_per_s": round(size / seconds),
        "commands_per_sync": round(answered / max(len(frames), 1), 1),
    }
