"""The engine service as clients meet it: open loop over loopback, durable before each answer.

Latency is the time of an answer minus the time at which its command was *due* to be sent, so that
a service (or this program) that falls behind is charged for all who wait. How late this program
itself sent is reported beside it.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bridge.bench.conditions import conditions
from bridge.bench.figures import micros
from bridge.bench.histogram import percentiles_us, report
from bridge.bench.load import TICK_NS, Load
from bridge.bench.service import Address, Channel, engine_service
from bridge.bench.told import tell
from bridge.bench.workload import (
    Rows,
    Workload,
    definitions,
    single_pair,
    stamped,
    thousand_instruments,
)
from engine.errors import EngineUnavailable
from engine.types import EventKind, Role
from engine.wire import COMMAND_DTYPE, EVENT_DTYPE, encode_commands

SESSIONS = 8
CYCLE = 2**20  # commands of the flow, then it begins again
WARM_UP_S = 3.0
ALONE = 2_000  # orders of the measurement of one order at a time
ALONE_WARM_UP = 200
RUNGS = (
    *(100_000, 250_000, 500_000, 1_000_000, 1_250_000, 1_500_000, 1_750_000),
    *(2_000_000, 2_500_000, 3_000_000, 4_000_000, 5_000_000),
)
RUNG_S, RUNG_WARM_UP_S = 5.0, 1.0
IN_TIME_SHARE_MIN = 0.99
P99_US_MAX = 100_000
_IDS_ALONE = np.uint64(2**40)  # above those of the workload


def run(
    *,
    rate: int,
    seconds: float,
    implementation: str,
    directory: Path,
    seed: int = 1,
    ladder: bool = False,
    unix: bool = False,
) -> dict[str, Any]:
    """Commands/s offered for so long; with `ladder` then ever higher rates until it gives way.
    `directory` decides which disk the journal is on; what is written there is removed.
    """
    tell(f"engine: making {CYCLE:,} commands")
    workload = thousand_instruments(commands=CYCLE, seed=seed)
    tell(f"  {workload.mix}")
    with _place(directory) as place:
        told = conditions(place)
        with _opened(place, workload, implementation, unix) as (pid, address):
            alone = _measure_alone(address, workload.instruments + 1, seed)
            with closing(Load(address, _of_sessions(workload), pid=pid)) as load:
                tell(f"engine: {rate:,}/s for {seconds:g} s, after {WARM_UP_S:g} s of warming up")
                found = _measure(load, rate, WARM_UP_S, seconds)
        rungs = _climb(place, workload, implementation, unix) if ladder else []
    return {
        "name": "engine",
        "implementation": load.implementation,
        "conditions": told | found.pop("conditions"),
        "transport": "unix socket" if unix else "tcp",
        "sessions": len(_of_sessions(workload)),
        "tick_us": TICK_NS // 1000,
        "seed": seed,
        "workload": workload.name,
        "mix": workload.mix._asdict(),
        "cycle": _cycle(workload),
        "one_order_alone": alone,
        "warm_up_s": WARM_UP_S,
        **found,
        "ladder": rungs,
    }


def _measure(load: Load, rate: int, warm_up_s: float, seconds: float) -> dict[str, Any]:
    measured = load.run(rate=rate, warm_up_s=warm_up_s, seconds=seconds)
    found = report(measured)
    latency = found["latency_from_schedule_us"]
    tell(
        f"  answered {found['answered']:,} of {found['offered']:,}, "
        f"P50 {micros(latency['p50'])}, P99 {micros(latency['p99'])}"
    )
    return found | {"conditions": measured.cpu}


def _climb(
    place: Path, workload: Workload, implementation: str, unix: bool
) -> list[dict[str, Any]]:
    """A service of its own: it starts with what a rung needs, and no more."""
    rungs = []
    with (
        _opened(place, workload, implementation, unix) as (pid, address),
        closing(Load(address, _of_sessions(workload), pid=pid)) as load,
    ):
        for rate in RUNGS:
            tell(f"engine: ladder, {rate:,}/s for {RUNG_S:g} s")
            found = _measure(load, rate, RUNG_WARM_UP_S, RUNG_S)
            p99 = found["latency_from_schedule_us"]["p99"]
            in_time = found["answered_in_time_share"] >= IN_TIME_SHARE_MIN
            holds = in_time and p99 is not None and p99 <= P99_US_MAX
            rungs.append(found | {"holds": holds})
            if not holds:
                break
    return rungs


@contextmanager
def _place(directory: Path) -> Iterator[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(prefix="bench-engine-", dir=directory))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


@contextmanager
def _opened(
    place: Path, workload: Workload, implementation: str, unix: bool
) -> Iterator[tuple[int, Address]]:
    """A new service with the workload's instruments, and one more for orders that come alone."""
    with _place(place) as own, engine_service(own, implementation, is_unix=unix) as started:
        control = Channel(started[1], "control", Role.ADMIN)
        orders = definitions(workload.instruments + 1)
        rows = np.frombuffer(encode_commands(orders), COMMAND_DTYPE)
        answer = control.ask(stamped(rows, session=0, first_ref=1).tobytes())
        control.close()
        if (np.frombuffer(answer, EVENT_DTYPE)["kind"] == EventKind.REJECTED).any():
            raise EngineUnavailable("the engine refused the instruments of the bench")
        yield started


def _cycle(workload: Workload) -> str:
    """What the sessions send again and again."""
    before, steady, after = len(workload.before), len(workload.steady), len(workload.after)
    return f"{before:,} orders, {steady:,} commands of the flow, {after:,} cancels, and again"


def _of_sessions(workload: Workload) -> list[Rows]:
    return workload.split(min(SESSIONS, workload.instruments))


def _measure_alone(address: Address, instrument: int, seed: int) -> dict[str, int | None]:
    """An order is sent when the one before it has been answered."""
    tell(f"engine: one order alone, {ALONE:,} times")
    pair = single_pair(commands=ALONE + ALONE_WARM_UP, seed=seed, resting=200)
    first = len(pair.before)
    rows = pair.whole().copy()
    rows["instrument"] = instrument
    is_replace = rows["aux"] > 0
    rows["order_id"] += _IDS_ALONE
    rows["aux"][is_replace] += _IDS_ALONE
    rows = stamped(rows, session=0, first_ref=1)
    channel = Channel(address, "bench-alone", Role.TRADE)
    channel.ask(rows[:first].tobytes())
    took_us = np.zeros(ALONE + ALONE_WARM_UP, np.int64)
    for number in range(len(took_us)):
        data = rows[first + number : first + number + 1].tobytes()
        began_ns = time.perf_counter_ns()
        channel.ask(data)
        took_us[number] = (time.perf_counter_ns() - began_ns) // 1000
    channel.ask(rows[first + len(took_us) :].tobytes())
    channel.close()
    return {"orders": ALONE, **percentiles_us(np.bincount(took_us[ALONE_WARM_UP:]))}
