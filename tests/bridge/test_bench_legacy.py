"""The change stream's benchmark runs, reads everything, and says under which conditions."""

from __future__ import annotations

import asyncio
from pathlib import Path

from bridge.bench import legacy


def test_a_short_run_reads_everything_both_ways_and_names_its_conditions(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    found = asyncio.run(
        legacy.run(
            changes=160, changes_rate=800, implementation="python", directory=tmp_path / "bench"
        )
    )
    for way in ("stream", "poll"):
        assert found[way]["read"] == found[way]["changes"] == 160
        assert found[way]["changes_per_s"] > 0
    assert found["pipeline"]["changes"] == found["paced"]["changes"] == 160
    latency = found["commit_to_command_us"]
    assert latency["count"] == 80
    assert 0 < latency["p50"] <= latency["p99"]
    assert found["memory"]["changes"] == 160
    assert 0 < found["memory"]["resident_mb_settled"] <= found["memory"]["resident_mb_most"]
    assert {"cores", "kernel", "load_average_before", "cpu_percent"} <= set(found["conditions"])
    assert list((tmp_path / "bench").iterdir()) == []
