"""The engine in process: batches of commands through `Market.apply`, nothing else around it.

No socket, no journal, no answer to wait for. A figure from here says what the books can do, and
must never stand beside one that was measured through the service.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bridge.bench.conditions import CpuMeter, conditions
from bridge.bench.told import tell
from bridge.bench.workload import (
    TRADER,
    Rows,
    Workload,
    definitions,
    opening,
    single_pair,
    stamped,
    thousand_instruments,
)
from bridge.bench.workload_adversarial import Operations, Scenario, scenarios
from bridge.errors import ConfigError
from engine.market import Market, create_market, state_hash
from engine.types import EventKind
from engine.wire import COMMAND_BYTES, EVENT_DTYPE

BATCH_COMMANDS = 1_024  # about what a busy shard finds waiting after one sync
WHOLE_ADVERSARY = 500_000  # commands from which on the adversarial set has its full size
_SMALLEST_ADVERSARY = 0.01

Nanoseconds = npt.NDArray[np.int64]


def run(
    *,
    commands: int,
    seed: int,
    implementation: str,
    rounds: int,
    export: Path | None = None,
) -> dict[str, Any]:
    """Of each workload `commands` in its timed part, several times, in turns with the others. Only
    the batch call is timed, and a first turn is not. `export` gets the pair's commands as they are.
    """
    told = conditions(Path("/"))
    del told["file_system"]  # no disk is touched
    tell(f"core: making {commands:,} commands of each workload")
    pair = single_pair(commands=commands, seed=seed)
    many = thousand_instruments(commands=commands, seed=seed)
    if export is not None:
        _export(pair, export)
    turns = [_Turns(workload, implementation) for workload in (pair, many)]
    for each in turns:
        tell(f"  {each.workload.name}: {each.workload.mix}")
    adversary = _Adversary(implementation, commands / WHOLE_ADVERSARY)
    meter = CpuMeter()
    for number in range(rounds + 1):
        tell(f"core: round {number} of {rounds}{'' if number else ', warming up'}")
        for each in turns if number % 2 else turns[::-1]:
            each.play(is_timed=number > 0)
        adversary.play(is_timed=number > 0)
    return {
        "name": "core",
        "implementation": implementation,
        "conditions": told | meter.read(),
        "seed": seed,
        "rounds": rounds,
        "batch_commands": BATCH_COMMANDS,
        "workloads": {each.workload.name: each.report() for each in turns},
        "worst_operations": adversary.report(),
    }


class _Turns:
    """One workload on a market of its own, again and again."""

    def __init__(self, workload: Workload, implementation: str) -> None:
        self.workload = workload
        self._market = create_market(implementation)
        self._driver = _Driver(self._market, workload.instruments)
        self._took_ns: list[Nanoseconds] = []  # of each batch, by round
        self._events = np.zeros(256, np.int64)  # by kind, of the steady part
        self._state_hash = ""

    def play(self, *, is_timed: bool) -> None:
        driver, workload = self._driver, self.workload
        driver.apply(workload.before)
        batches = driver.batches(workload.steady)
        if is_timed:
            self._took_ns.append(driver.time(batches))
        else:
            # The first time shows what is going to be timed: that all of it is as it should be.
            for batch in batches:
                events = np.frombuffer(driver.give(batch), EVENT_DTYPE)
                self._events += np.bincount(events["kind"], minlength=256)
            self._market.check()
            self._state_hash = state_hash(self._market)
        driver.apply(workload.after)

    def report(self) -> dict[str, Any]:
        count = len(self.workload.steady)
        rates = sorted(round(count * 1e9 / int(took.sum())) for took in self._took_ns)
        median = rates[len(rates) // 2]
        batches_us = np.concatenate(self._took_ns) / 1000
        return {
            "mix": self.workload.mix._asdict(),
            "events": {
                kind.name.lower(): int(self._events[kind])
                for kind in EventKind
                if self._events[kind]
            },
            "commands_per_s": {"median": median, "lowest": rates[0], "highest": rates[-1]},
            "ns_per_command": round(1e9 / median, 1),
            "batch_us": {
                "p50": round(float(np.percentile(batches_us, 50)), 1),
                "p99": round(float(np.percentile(batches_us, 99)), 1),
                "max": round(float(batches_us.max()), 1),
            },
            "state_hash": self._state_hash,
        }


class _Adversary:
    """The adversarial scenarios: one operation after the other, each with its time."""

    def __init__(self, implementation: str, size: float) -> None:
        self._scenarios = scenarios(min(1.0, max(size, _SMALLEST_ADVERSARY)))
        self._driver = _Driver(create_market(implementation), len(self._scenarios))
        self._took_ns: dict[str, list[Nanoseconds]] = {}  # by operation, by round
        self._events: dict[str, int] = {}  # of one operation, the most

    def play(self, *, is_timed: bool) -> None:
        for scenario in self._scenarios:
            self._play(scenario, is_timed)

    def _play(self, scenario: Scenario, is_timed: bool) -> None:
        driver = self._driver
        driver.apply(scenario.before)
        for operations in scenario.timed:
            batches = driver.batches(operations.rows, size=1)
            if is_timed:
                self._took_ns.setdefault(operations.what, []).append(driver.time(batches))
            else:
                self._look(operations, batches)
        driver.apply(scenario.after)

    def _look(self, operations: Operations, batches: list[bytes]) -> None:
        sizes = [len(self._driver.give(batch)) // EVENT_DTYPE.itemsize for batch in batches]
        self._events[operations.what] = max(sizes)

    def report(self) -> list[dict[str, Any]]:
        """The worst operation by its median over the rounds, in which what else the machine did
        meets it once; and the worst that was seen.
        """
        found = []
        for what, rounds in self._took_ns.items():
            took_us = np.stack(rounds) / 1000
            each = np.median(took_us, axis=0)
            found.append(
                {
                    "what": what,
                    "operations": len(each),
                    "events_of_one": self._events[what],
                    "p50_us": round(float(np.median(each)), 1),
                    "worst_us": round(float(each.max()), 1),
                    "worst_seen_us": round(float(took_us.max()), 1),
                }
            )
        return sorted(found, key=lambda one: -float(one["worst_us"]))


class _Driver:
    """Gives a market one batch after the other; stamps them as a gateway would."""

    def __init__(self, market: Market, instruments: int) -> None:
        self._market = market
        self._batch = 0
        self._next_ref = 1
        self.give(opening(definitions(instruments)))

    def batches(self, rows: Rows, size: int = BATCH_COMMANDS) -> list[bytes]:
        data = stamped(rows, session=TRADER, first_ref=self._next_ref).tobytes()
        self._next_ref += len(rows)
        step = size * COMMAND_BYTES
        return [data[at : at + step] for at in range(0, len(data), step)]

    def give(self, batch: bytes) -> bytes:
        self._batch += 1
        return self._market.apply(batch, self._batch * 10**9)

    def apply(self, rows: Rows) -> None:
        for batch in self.batches(rows):
            events = np.frombuffer(self.give(batch), EVENT_DTYPE)
            if (events["kind"] == EventKind.REJECTED).any():
                reasons = np.unique(events["reason"])
                raise AssertionError(f"the benchmark's own orders were rejected: {reasons}")

    def time(self, batches: list[bytes]) -> Nanoseconds:
        took_ns: Nanoseconds = np.zeros(len(batches), np.int64)
        clock, give = time.perf_counter_ns, self.give
        with _no_collections():
            for number, batch in enumerate(batches):
                began_ns = clock()
                give(batch)
                took_ns[number] = clock() - began_ns
        return took_ns


@contextmanager
def _no_collections() -> Iterator[None]:
    """As the service has it: no garbage is looked for while orders wait."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _export(pair: Workload, path: Path) -> None:
    """As a journal would hold it: set-up, what is on the book first, and the flow."""
    orders = stamped(
        np.concatenate((pair.before, pair.steady)), session=TRADER, first_ref=1
    ).tobytes()
    try:
        path.write_bytes(opening(definitions(pair.instruments)) + orders)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}") from error
