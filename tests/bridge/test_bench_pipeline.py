"""The comparison's benchmark runs, compares everything, and says under which conditions."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.bench import pipeline


def test_a_short_run_is_compared_whole_and_names_its_conditions(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    found = asyncio.run(
        pipeline.run(operations=300, implementation="python", directory=tmp_path / "bench")
    )
    assert found["counts"]["matched"] == found["counts"]["seen"] == 600
    assert found["counts"]["dark"] == 0
    assert found["implementation"] == "python"
    latency = found["commit_to_verdict_us"]
    assert latency["count"] == 300
    assert 0 < latency["p50"] <= latency["p99"]
    assert found["operations_per_s"] > 0
    assert {"cores", "kernel", "load_average_before", "cpu_percent"} <= set(found["conditions"])
    assert list((tmp_path / "bench").iterdir()) == []
