"""One proxy worker under a steady load, with a shadow side that is ten times too slow: what it
keeps, and whether it keeps more and more.

A relay lets a tenth of the bytes through to Redis that the captures of the load need; whatever
arrives is taken from the stream at once. Resident memory is looked at every second.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec
from msgspec.structs import asdict, replace

from bridge.bench.conditions import CpuMeter, conditions, resident_bytes
from bridge.bench.proxy import loaded, own_directory, setting, waited
from bridge.bench.proxy_load import Job, Seen
from bridge.bench.proxy_servers import Front, Place, opened, relay, worker
from bridge.bench.told import tell
from bridge.errors import StartFailed
from bridge.limits import SERVER_POLL_S
from bridge.stage import WorkerReport

TOO_SLOW = 10
FLAT_SHARE_MAX = 1.05  # last third to middle third: less is what an allocator does by itself
WARM_UP_S = 1.0
CALIBRATION_S = 1.0
CALIBRATION_WAIT_S = 10.0
TELL_EVERY = 10  # samples


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    at_s: float
    worker_bytes: int  # resident
    redis_bytes: int
    requests_per_s: int
    p99_us: int  # of this second
    spooled_bytes: int
    captured: int  # since the start, and so the next three
    dropped: int
    shipped: int  # have come through to the stream
    failed: int


async def run(
    *,
    soak: float,
    soak_rate: int = 3_000,
    connections: int = 32,
    implementation: str = "",
    directory: Path = Path("bench-data"),
) -> dict[str, Any]:
    """`soak` is how many seconds."""
    with own_directory(directory) as own:
        told, meter = conditions(own), CpuMeter()
        async with opened(own, implementation) as place, relay(place) as between:
            async with worker(place, int(between.said)) as where:
                job = Job(
                    port=where.port,
                    connections=connections,
                    rate=soak_rate,
                    warm_up_s=WARM_UP_S,
                    seconds=soak,
                    tell_every_s=1.0,
                )
                watch = _Watch(place, where)
                size = await watch.bytes_of_a_capture(job)
                between.pace(bytes_per_s=soak_rate * size // TOO_SLOW)
                tell(f"proxy: {soak_rate:,}/s for {soak:g} s, a capture has {size} bytes")
                samples = await watch.samples(job)
    return {
        "name": "soak",
        "implementation": place.plane,
        "conditions": told | meter.read() | setting(place),
        "connections": connections,
        "rate_offered": soak_rate,
        "seconds": soak,
        "shadow_too_slow_by": TOO_SLOW,
        "capture_bytes": size,
        **flatness([one.worker_bytes for one in samples]),
        "samples": [asdict(one) for one in samples],
    }


def flatness(worker_bytes: Sequence[int]) -> dict[str, Any]:
    """
    >>> flatness([1, 5, 5, 5, 5, 5])
    {'last_third_of_middle': 1.0, 'is_flat': True}
    >>> flatness([10, 20, 30])["is_flat"]
    False
    """
    third = len(worker_bytes) // 3
    if not third:
        return {"last_third_of_middle": None, "is_flat": None}
    share = fmean(worker_bytes[-third:]) / fmean(worker_bytes[-2 * third : -third])
    return {"last_third_of_middle": round(share, 3), "is_flat": share <= FLAT_SHARE_MAX}


class _Watch:
    """Looks at the worker, and is the reader behind Redis."""

    def __init__(self, place: Place, where: Front) -> None:
        self._place = place
        self._where = where
        self._report: WorkerReport | None = None  # the last one that came through
        self._shipped = 0
        self._shipped_bytes = 0
        self._seconds = 0.0

    async def bytes_of_a_capture(self, job: Job) -> int:
        """On the stream, measured while nothing is slow."""
        short = replace(job, seconds=CALIBRATION_S, tell_every_s=0.0)
        sent = sum([seen.sent async for seen in loaded(self._place.directory, short)])
        deadline = time.monotonic() + CALIBRATION_WAIT_S
        while self._shipped < sent and time.monotonic() < deadline:
            self._take()
            await asyncio.sleep(SERVER_POLL_S)
        if not self._shipped:
            raise StartFailed("no capture came through to Redis while nothing was slow")
        return self._shipped_bytes // self._shipped

    async def samples(self, job: Job) -> list[Sample]:
        samples: list[Sample] = []
        async with contextlib.aclosing(loaded(self._place.directory, job)) as told:
            async for seen in told:
                samples.append(self._sample(seen))
                if len(samples) % TELL_EVERY == 0:
                    _say(samples[-1], job.seconds)
        return samples

    def _sample(self, seen: Seen) -> Sample:
        self._take()
        self._report = self._place.report(self._where.pid) or self._report
        assert self._report is not None  # it had one before it was ready
        self._seconds += seen.seconds
        return Sample(
            at_s=round(self._seconds, 1),
            worker_bytes=resident_bytes(self._where.pid),
            redis_bytes=resident_bytes(self._place.redis.pid or 0),
            requests_per_s=round(seen.answered / seen.seconds),
            p99_us=waited([seen])["p99"] or 0,
            spooled_bytes=self._report.spooled_bytes,
            captured=self._report.captured,
            dropped=sum(self._report.dropped.values()),
            shipped=self._shipped,
            failed=seen.failed + seen.unanswered,
        )

    def _take(self) -> None:
        while (found := self._place.read()).entries:
            self._shipped += found.captures
            self._shipped_bytes += found.bytes


def _say(sample: Sample, of_s: float) -> None:
    tell(
        f"  {sample.at_s:.0f} of {of_s:g} s: {sample.worker_bytes / 1e6:.1f} MB resident, "
        f"{sample.requests_per_s:,}/s, P99 {sample.p99_us:,} us, "
        f"{sample.spooled_bytes / 1e6:.1f} MB spooled, {sample.dropped:,} dropped"
    )
