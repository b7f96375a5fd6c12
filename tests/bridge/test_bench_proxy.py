"""The proxy's benchmark runs, and loses no order of its own. Its figures are nobody's business."""

from __future__ import annotations

import asyncio

import pytest

from bridge.bench import proxy


def test_the_bench_runs_both_ways_and_finds_every_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "WARM_UP_S", 0.02)
    monkeypatch.setattr(proxy, "ALONE_S", 0.05)
    found = asyncio.run(proxy.run(seconds=0.05, connections=2))
    for way in ("direct", "proxy"):
        assert found[way]["requests_per_s"] > 0
        assert 0 < found[way]["p50_us"] <= found[way]["p99_us"]
    assert found["captured"]["orders"] == found["captured"]["on_the_stream"] > 0
    assert found["conditions"]["tee"] == "on"
