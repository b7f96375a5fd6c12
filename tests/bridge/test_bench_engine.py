"""The engine's benchmark runs, answers everything, and says under which conditions."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from bridge.bench import engine
from bridge.bench.orders import CYCLE, OrderFlow
from engine.types import CommandKind


def test_a_short_run_is_answered_whole_and_names_its_conditions(tmp_path: Path) -> None:
    found = asyncio.run(
        engine.run(rate=2_000, seconds=0.5, implementation="python", directory=tmp_path)
    )
    assert found["sent"] == found["answered"] == 1_000
    assert found["implementation"] == "python"
    assert {"cores", "kernel", "file_system", "load_average_before", "cpu_percent"} <= set(
        found["conditions"]
    )
    latency = found["latency_from_schedule_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert found["one_order_alone_us"]["p50"] > 0
    assert found["frames_per_s"] > 0
    assert list(tmp_path.iterdir()) == []


def test_the_flow_of_orders_cancels_what_rests_and_repeats_under_new_ids() -> None:
    flow = OrderFlow(instruments=4, epoch=1, seed=3)
    first = np.concatenate([flow.take(1_000) for _ in range(CYCLE // 1_000)] + [flow.take(144)])
    assert len(first) == CYCLE
    ordered, canceled = (
        first[first["kind"] == kind] for kind in (CommandKind.NEW, CommandKind.CANCEL)
    )
    rests = ordered[ordered["tif"] == 1]["order_id"]
    assert sorted(canceled["order_id"].tolist()) == sorted(rests.tolist())
    second = flow.take(CYCLE)
    assert not set(second["order_id"].tolist()) & set(first["order_id"].tolist())
    assert (second["kind"] == first["kind"]).all()
