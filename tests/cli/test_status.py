"""What `railswitch status` says of the proxies' workers."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from running_cli import Ran, railswitch, write_config

from bridge.stage import WORKERS_KEY_PREFIX, WORKERS_SEEN_PREFIX, WorkerReport, encode


def report(worker: str, *, age_s: float = 0.0, **more: Any) -> WorkerReport:
    return WorkerReport(
        worker=worker,
        version=1,
        drained={},
        at_s=time.time() - age_s,
        proxy="front",
        **{"pid": 7, "held": 0, "captured": 0, "dropped": {}, "requests": 0} | more,
    )


LIVELY = {
    "pid": 4711,
    "slot": 0,
    "implementation": "rust",
    "clients": 31,
    "requests": 90210,
    "held": 2,
    "captured": 512,
    "dropped": {"queue-full": 3, "redis-away": 12},
    "spooled_bytes": 2_500_000,
    "ahead_late": 4,
    "ahead_failed": 1,
    "upstreams_down": ("http://10.0.0.2:3000",),
}


@pytest.fixture
def status(tmp_path: Path, control_database: str, redis_url: str) -> Any:
    """Runs the verb after these reports have come; there is no control process to ask."""
    file = write_config(tmp_path)
    with psycopg.connect(control_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
            " VALUES ('BTC-USD', 1, 'shadow', 1)"
        )

    def ask(*words: str, present: list[WorkerReport], gone: list[WorkerReport]) -> Ran:
        with redis.Redis.from_url(redis_url) as connection:
            for one in present:
                connection.set(WORKERS_KEY_PREFIX + one.worker, encode(one))
            for one in (*present, *gone):
                connection.set(WORKERS_SEEN_PREFIX + one.worker, encode(one))
        urls = ("--database-url", control_database, "--redis-url", redis_url)
        return railswitch("status", "--config", str(file), *urls, *words)

    return ask


def test_every_worker_is_shown_with_its_counts(status: Any) -> None:
    present = [report("proxy-0-aa", **LIVELY), report("proxy-1-bb", slot=1)]
    (first, second) = status("--json", present=present, gone=[]).json["workers"]
    assert (first["worker"], second["worker"]) == ("proxy-0-aa", "proxy-1-bb")
    assert first["dropped"] == 15
    assert first["dropped_by_reason"] == LIVELY["dropped"]
    for name in LIVELY.keys() - {"dropped", "upstreams_down"}:
        assert first[name] == LIVELY[name]
    assert first["upstreams_down"] == ["http://10.0.0.2:3000"]
    assert not first["silent"]

    ran = status(present=present, gone=[])
    (line,) = [line for line in ran.out.splitlines() if line.startswith("proxy-0-aa")]
    for shown in ("rust", "4711", "31", "90210", "512", "queue-full 3, redis-away 12", "2.5 MB"):
        assert f" {shown} " in line
    assert "upstream http://10.0.0.2:3000 is down for 1 of 2 proxy workers" in ran.out


def test_a_silent_one_stands_out_with_its_pid_and_the_next_step(status: Any) -> None:
    lost = report("proxy-1-bb", slot=1, pid=815, age_s=12.0)
    ran = status(present=[report("proxy-0-aa", **LIVELY)], gone=[lost])
    (line,) = [line for line in ran.out.splitlines() if line.startswith("proxy-1-bb")]
    assert "silent, 1" in line
    (problem,) = [line for line in ran.out.splitlines() if "has been silent" in line]
    assert "proxy-1-bb (process 815 of proxy front)" in problem
    assert "kill -9 815" in problem


def test_one_that_was_replaced_is_no_longer_shown(status: Any) -> None:
    lost = report("proxy-0-old", slot=0, pid=815, age_s=12.0)
    ran = status(
        "--json",
        present=[report("proxy-0-new", **LIVELY)],
        gone=[lost, report("proxy-1-bb", slot=1, age_s=12.0)],
    )
    assert [one["worker"] for one in ran.json["workers"]] == ["proxy-0-new", "proxy-1-bb"]
