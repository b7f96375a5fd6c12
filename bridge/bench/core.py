"""The engine in process: batches of commands through `Market.apply`, nothing else around it.

No socket, no journal, no answer to wait for. A figure from here says what the books can do, and
must never stand beside one that was measured through the service.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from bridge.bench.conditions import conditions
from bridge.bench.orders import OrderFlow
from engine.market import Market, create_market, state_hash
from engine.outcomes import Rows
from engine.types import Command, CommandKind, EventKind, Mode, Role
from engine.wire import (
    COMMAND_DTYPE,
    EVENT_DTYPE,
    encode_command,
    instrument_command,
    session_command,
)

INSTRUMENTS = 4
BATCH_COMMANDS = 1_024  # about what a busy shard finds waiting after one sync
_CONTROL, _TRADER = 1, 2


def run(*, commands: int, seed: int, implementation: str) -> dict[str, Any]:
    """Commands/s of the batch call alone: making the batches and counting events is not timed.

    Runs in memory: about 100 bytes for each command.
    """
    market = create_market(implementation)
    flow = OrderFlow(instruments=INSTRUMENTS, epoch=1, seed=seed)
    print(f"in process, {implementation}: mix {flow.mix}, batches of {BATCH_COMMANDS}")
    told = conditions(Path("/"))
    del told["file_system"]  # no disk is touched
    _open(market)
    batches = _batches(flow, commands)
    took_ns, counts = _drive(market, batches)
    total_ns = int(took_ns.sum())
    market.check()
    return {
        "what": "engine in process",
        "implementation": market.implementation,
        "conditions": told | {"load_average_after": [round(one, 2) for one in os.getloadavg()]},
        "commands": commands,
        "batch_commands": BATCH_COMMANDS,
        "instruments": INSTRUMENTS,
        "seed": seed,
        "mix": flow.mix,
        "events": counts,
        "open_orders_after": sum(each.open_orders for each in market.instruments()),
        "commands_per_s": round(commands * 1e9 / total_ns),
        "ns_per_command": round(total_ns / commands, 1),
        "batch_us": {
            "p50": round(float(np.percentile(took_ns, 50)) / 1e3, 1),
            "p99": round(float(np.percentile(took_ns, 99)) / 1e3, 1),
            "max": round(float(took_ns.max()) / 1e3, 1),
        },
        "state_hash": state_hash(market),
    }


def _open(market: Market) -> None:
    """Two sessions; every instrument live at epoch 1."""
    setup = [
        session_command(session=_CONTROL, name="control", role=Role.ADMIN),
        session_command(session=_TRADER, name="bench", role=Role.TRADE),
    ]
    for number in range(1, INSTRUMENTS + 1):
        setup.append(
            instrument_command(
                instrument=number,
                name=f"BENCH-{number}",
                price_ticks_max=10**9,
                qty_lots_max=10**9,
            )
        )
        setup.append(Command(kind=CommandKind.MODE, instrument=number, epoch=1, aux=Mode.LIVE))
    rows = np.frombuffer(b"".join(map(encode_command, setup)), COMMAND_DTYPE).copy()
    admin = rows["kind"] != CommandKind.SESSION
    rows["session"][admin] = _CONTROL
    rows["ref"][admin] = np.arange(1, admin.sum() + 1)
    _apply(market, rows.tobytes(), 1)


def _batches(flow: OrderFlow, commands: int) -> list[bytes]:
    batches = []
    for sent in range(0, commands, BATCH_COMMANDS):
        rows: Rows = flow.take(min(BATCH_COMMANDS, commands - sent))
        rows["session"] = _TRADER
        rows["ref"] = np.arange(sent + 1, sent + len(rows) + 1)
        batches.append(rows.tobytes())
    return batches


def _drive(
    market: Market, batches: list[bytes]
) -> tuple[np.ndarray[Any, np.dtype[np.int64]], dict[str, int]]:
    took_ns = np.zeros(len(batches), np.int64)
    counts = dict.fromkeys((kind.name.lower() for kind in EventKind if kind < 16), 0)
    for number, batch in enumerate(batches):
        began_ns = time.perf_counter_ns()
        events = market.apply(batch, number * 10**9)
        took_ns[number] = time.perf_counter_ns() - began_ns
        kinds = np.bincount(np.frombuffer(events, EVENT_DTYPE)["kind"], minlength=256)
        for kind in EventKind:
            if kind < 16:
                counts[kind.name.lower()] += int(kinds[kind])
    return took_ns, counts


def _apply(market: Market, batch: bytes, ts_ns: int) -> None:
    events = np.frombuffer(market.apply(batch, ts_ns), EVENT_DTYPE)
    if (events["kind"] == EventKind.REJECTED).any():
        raise AssertionError(f"the benchmark's own set-up was rejected: {events['reason']}")
