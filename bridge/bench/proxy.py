"""One proxy worker, tee on, beside a direct connection, a plain nginx and nginx's `mirror`, all in
front of the same tiny monolith.

Two measurements. In a closed loop: how many requests a second so many connections reach, and what
each costs. In an open loop, at a rate that all can serve: what clients wait, with a shadow side
that is fast, slow, hung and dead. Turns are short and interleaved, one round forwards, the next one
backwards, so that whatever else the machine does meets all of them.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple, TypeVar

import msgspec
import numpy as np
from msgspec.structs import replace

from bridge.bench.conditions import CpuMeter, conditions, processor_s
from bridge.bench.histogram import LATENCY_US_MAX, percentiles_us
from bridge.bench.proxy_load import Job, Seen
from bridge.bench.proxy_servers import LOG, Front, Place, Shadow, Way, child, front, opened, ways
from bridge.bench.told import tell
from bridge.errors import StartFailed
from bridge.sandbox import processes

WARM_UP_S = 0.5
ALONE_S = 0.5  # of the measurement of one connection alone
_Case = TypeVar("_Case")


class Turn(NamedTuple):
    seen: Seen
    cpu_s: float  # of the proxy, warm-up included


async def run(
    *,
    seconds: float,
    connections: int = 32,
    rounds: int = 5,
    offered: int = 5_000,
    implementation: str = "",
    directory: Path = Path("bench-data"),
) -> dict[str, Any]:
    """`seconds` is the length of each turn, `offered` the rate of the open loop. `directory`
    decides which disk Redis and the spool are on; what is written there is removed.
    """
    captured: Counter[str] = Counter(sent=0, on_the_stream=0)
    job = Job(port=0, connections=connections, warm_up_s=WARM_UP_S, seconds=seconds)
    with own_directory(directory) as own:
        told, meter = conditions(own), CpuMeter()
        async with opened(own, implementation) as place:
            closed, alone = await _closed(place, rounds, job, captured)
            waited = await _open(place, rounds, replace(job, rate=offered), captured)
    return {
        "name": "proxy",
        "implementation": place.plane,
        "conditions": told | meter.read() | setting(place),
        "connections": connections,
        "rounds": rounds,
        "seconds_each_turn": seconds,
        "rate_offered": offered,
        "closed": closed,
        "one_connection_alone": alone,
        "open": waited,
        "captured": dict(captured),
    }


# --- what the soak needs too


@contextlib.contextmanager
def own_directory(directory: Path) -> Iterator[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(prefix="bench-proxy-", dir=directory)).absolute()
    own.chmod(0o711)  # Redis may run as another user
    try:
        yield own
    finally:
        shutil.rmtree(own, ignore_errors=True)


def setting(place: Place) -> dict[str, Any]:
    """More conditions."""
    return {
        "nginx": _nginx(place),
        "workers": 1,
        "tee": "on",
        "load, proxy, monolith and Redis": "on the same cores",
    }


async def loaded(directory: Path, job: Job) -> AsyncGenerator[Seen, None]:
    """What the load tells, as it does; its log is in `directory`. Raises StartFailed when it could
    not go on.
    """
    argv = [sys.executable, "-m", "bridge.bench.proxy_load"]
    given = msgspec.json.encode(job)
    async with child(argv, directory, given=given, is_silent=True) as load:
        assert load.process.stdout is not None
        async for line in load.process.stdout:
            yield msgspec.json.decode(line, type=Seen)
        if await load.process.wait():
            raise StartFailed(f"the load ended early: {processes.log_tail(directory / LOG)}")


def waited(seen: Sequence[Seen]) -> dict[str, int | None]:
    """Percentiles of all of them together."""
    return _percentiles([one.took_us for one in seen])


# --- how fast


async def _closed(
    place: Place, rounds: int, job: Job, captured: Counter[str]
) -> tuple[dict[Way, Any], dict[Way, Any]]:
    """With as many connections as were asked for, and with one alone."""
    many: dict[Way, list[Turn]] = {way: [] for way in ways(place)}
    alone: dict[Way, list[Turn]] = {way: [] for way in many}
    job_alone = replace(job, connections=1, seconds=min(ALONE_S, job.seconds))
    for number in range(rounds):
        tell(f"proxy: closed loop, {job.connections} connections, round {number + 1} of {rounds}")
        for way in _there_and_back(list(many), number):
            async with front(place, way, Shadow.FAST) as where:
                many[way].append(await _turn(place, where, job, captured))
                alone[way].append(await _turn(place, where, job_alone, captured))
            tell(f"  {way}: {_per_s(many[way][-1:]):,} requests/s")
    return _speeds(many), _added(alone)


def _speeds(turns: Mapping[Way, Sequence[Turn]]) -> dict[Way, Any]:
    nginx = _per_s(turns[Way.NGINX]) if Way.NGINX in turns else 0
    return {
        way: {
            "requests_per_s": _per_s(some),
            "requests_per_s_by_turn": [_per_s([one]) for one in some],
            "of_nginx": round(_per_s(some) / nginx, 3) if nginx else None,
            "cpu_us_per_request": _cpu_us(some),
            "latency_us": waited([turn.seen for turn in some]),
        }
        for way, some in turns.items()
    }


def _added(turns: Mapping[Way, Sequence[Turn]]) -> dict[Way, Any]:
    """What a way adds to an order when nothing waits for anything else."""
    found = {way: waited([turn.seen for turn in some]) for way, some in turns.items()}
    direct = found[Way.DIRECT]["p50"] or 0
    return {
        way: {"latency_us": latency, "added_p50_us": (latency["p50"] or 0) - direct}
        for way, latency in found.items()
    }


# --- what clients wait


async def _open(
    place: Place, rounds: int, job: Job, captured: Counter[str]
) -> list[dict[str, Any]]:
    cases = [
        (way, shadow)
        for way in ways(place)
        for shadow in Shadow
        if way.has_shadow or shadow is Shadow.FAST
    ]
    turns: dict[tuple[Way, Shadow], list[Turn]] = {case: [] for case in cases}
    for number in range(rounds):
        tell(f"proxy: open loop, {job.rate:,}/s offered, round {number + 1} of {rounds}")
        for way, shadow in _there_and_back(cases, number):
            async with front(place, way, shadow) as where:
                turn = await _turn(place, where, job, captured)
            turns[way, shadow].append(turn)
            side = f", shadow side {shadow}" if way.has_shadow else ""
            tell(f"  {way}{side}: P99 {waited([turn.seen])['p99']} us")
    return [
        _case(way, shadow, some, turns[way, Shadow.FAST]) for (way, shadow), some in turns.items()
    ]


def _case(way: Way, shadow: Shadow, turns: Sequence[Turn], fast: Sequence[Turn]) -> dict[str, Any]:
    seen = [turn.seen for turn in turns]
    p99s, fast_p99s = _p99s(turns), _p99s(fast)
    is_compared = way.has_shadow and p99s and fast_p99s
    return {
        "way": way,
        "shadow": shadow if way.has_shadow else None,
        "answered_per_s": _per_s(turns),
        "unanswered": sum(one.unanswered for one in seen),
        "failed": sum(one.failed for one in seen),
        "latency_from_schedule_us": waited(seen),
        "p99_us_by_turn": p99s,
        # Of the medians: a turn that something else on the machine disturbed does not decide.
        "p99_of_fast": round(median(p99s) / median(fast_p99s), 2) if is_compared else None,
        "sent_late_us": _percentiles([one.late_us for one in seen]),
        "cpu_us_per_request": _cpu_us(turns),
    }


def _p99s(turns: Sequence[Turn]) -> list[int]:
    return [p99 for turn in turns if (p99 := waited([turn.seen])["p99"]) is not None]


# --- of both


async def _turn(place: Place, where: Front, job: Job, captured: Counter[str]) -> Turn:
    """Its processor time includes what is left to ship when the last order has been answered."""
    before_s = processor_s(where.pid) if where.pid else 0.0
    async for seen in loaded(place.directory, replace(job, port=where.port)):
        if where.captures:
            captured["sent"] += seen.sent
            captured["on_the_stream"] += await place.drained(seen.sent)
        return Turn(seen, processor_s(where.pid) - before_s if where.pid else 0.0)
    raise StartFailed("the load told nothing")


def _there_and_back(cases: Sequence[_Case], number: int) -> Sequence[_Case]:
    return cases[::-1] if number % 2 else cases


def _per_s(turns: Sequence[Turn]) -> int:
    seen = [turn.seen for turn in turns]
    return round(sum(one.answered for one in seen) / sum(one.seconds for one in seen))


def _cpu_us(turns: Sequence[Turn]) -> float:
    """Processor time of the proxy for each request: what remains true on a busy machine."""
    sent = sum(turn.seen.sent for turn in turns)
    return round(sum(turn.cpu_s for turn in turns) / max(sent, 1) * 1e6, 1)


def _percentiles(several: Sequence[Mapping[int, int]]) -> dict[str, int | None]:
    total: Counter[int] = Counter()
    for counts in several:
        total.update(counts)
    together = np.zeros(min(max(total, default=0), LATENCY_US_MAX) + 1, np.int64)
    for us, count in total.items():
        together[min(us, LATENCY_US_MAX)] += count
    return percentiles_us(together)


def _nginx(place: Place) -> str:
    if place.nginx is None:
        return "not measured: it is not installed"
    no_mirror = place.nginx.no_mirror
    return place.nginx.version + (f", its mirror not measured: {no_mirror}" if no_mirror else "")
