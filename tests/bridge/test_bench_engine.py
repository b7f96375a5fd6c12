"""The engine's benchmark runs, answers everything, and says under which conditions; what its load
notes down becomes the right latencies.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bridge.bench import engine, histogram, load
from bridge.bench.figures import tables
from bridge.bench.load import Got, Load, Measured, Sent
from bridge.bench.service import Address
from bridge.bench.workload import single_pair
from engine.protocol import Accepted, MessageReader, MessageType, packed

MS = 10**6


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "CYCLE": 2**15,
        "WARM_UP_S": 0.1,
        "ALONE": 50,
        "ALONE_WARM_UP": 5,
        "RUNGS": (2_000, 4_000),
        "RUNG_S": 0.2,
        "RUNG_WARM_UP_S": 0.1,
    }.items():
        monkeypatch.setattr(engine, name, value)


@pytest.mark.usefixtures("small")
def test_a_short_run_is_answered_whole_and_names_its_conditions(tmp_path: Path) -> None:
    found = engine.run(
        rate=2_000, seconds=0.5, implementation="python", directory=tmp_path, ladder=True
    )
    assert found["offered"] == found["sent"] == found["answered"] == 1_000
    assert found["all_answered"]
    assert "rejected" not in found["events"]
    assert found["implementation"] == "python"
    assert {"cores", "kernel", "file_system", "python", "cpu_percent"} <= set(found["conditions"])
    assert {"service", "bench", "others", "steal"} == set(found["conditions"]["cpu_percent"])
    latency = found["latency_from_schedule_us"]
    assert 0 < latency["p50"] <= latency["p99"] <= latency["max"]
    assert found["one_order_alone"]["orders"] == 50
    assert found["one_order_alone"]["p50"] > 0
    assert found["journal"]["syncs_per_s"] > 0
    assert [rung["rate_offered"] for rung in found["ladder"]] == [2_000, 4_000]
    assert [rung["offered"] for rung in found["ladder"]] == [400, 800]
    assert list(tmp_path.iterdir()) == []
    titles = [table.title for table in tables("engine", found)]
    assert any(title.startswith("the ladder") for title in titles)


@pytest.mark.usefixtures("small")
def test_it_measures_over_a_unix_socket_too(tmp_path: Path) -> None:
    found = engine.run(
        rate=1_000, seconds=0.2, implementation="rust", directory=tmp_path, unix=True
    )
    assert found["transport"] == "unix socket"
    assert found["all_answered"]


@pytest.mark.usefixtures("small")
def test_the_ladder_ends_where_it_gives_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "P99_US_MAX", 0)  # no engine is so fast
    found = engine.run(
        rate=1_000, seconds=0.1, implementation="rust", directory=tmp_path, ladder=True
    )
    (rung,) = found["ladder"]
    assert rung["rate_offered"] == 2_000
    assert not rung["holds"]


def measured(**changes: Any) -> Measured:
    """1,000/s from 5 ms on; of six commands the first two warm up. One session had three messages
    of two commands, each sent a millisecond late; two answers came, one at 10 and one at 20 ms.
    """
    sent = Sent(*(np.array(one) for one in ([0, 2, 4], [2, 2, 2], [7 * MS, 9 * MS, 11 * MS])))
    got = Got(*(np.array(one) for one in ([10 * MS, 20 * MS], [3, 6], [1, 4])))
    kinds = np.zeros(256, np.int64)
    values: dict[str, Any] = {
        "rate": 1_000,
        "began_ns": 5 * MS,
        "first_number": 2,
        "end_ns": 11 * MS,
        "total": 6,
        "sessions": ((sent, got),),
        "sends_cut_short": 0,
        "sends_that_waited": 0,
        "kinds": kinds,
        "cpu": {},
    }
    return Measured(**(values | changes))


def test_latencies_count_from_when_a_command_was_due() -> None:
    found = histogram.report(measured())
    # due at 7, 8, 9 and 10 ms; answered at 10, 20, 20 and 20 ms
    latency = found["latency_from_schedule_us"]
    assert latency["max"] == pytest.approx(12_000, rel=0.001)
    assert latency["p50"] == pytest.approx(10_000, rel=0.11)
    assert found["offered"] == found["sent"] == found["answered"] == 4
    assert found["all_answered"]
    # sent at 9 and 11 ms, in pairs
    assert found["sent_late_us"]["max"] == pytest.approx(2_000, rel=0.001)


def test_missing_answers_show() -> None:
    whole = measured()
    ((sent, got),) = whole.sessions
    first = Got(*(one[:1] for one in got))
    found = histogram.report(measured(sessions=((sent, first),)))
    assert found["answered"] == 1
    assert not found["all_answered"]
    assert found["answered_in_time_share"] == 0.25
    nothing = Got(*(one[:0] for one in got))
    found = histogram.report(measured(sessions=((sent, nothing),)))
    assert found["latency_from_schedule_us"]["p99"] is None


def test_late_answers_are_not_in_time() -> None:
    whole = measured()
    ((sent, got),) = whole.sessions
    late = got._replace(at_ns=got.at_ns + np.array([0, 200 * MS]))
    found = histogram.report(measured(sessions=((sent, late),)))
    assert found["all_answered"]
    assert found["answered_in_time_share"] == 0.25


@contextmanager
def deaf_engine() -> Iterator[Address]:
    """Lets a session in, then reads whatever comes and answers nothing."""

    def serve() -> None:
        with listening.accept()[0] as client:
            reader = MessageReader(payload_bytes_max=2**20)
            while data := client.recv(2**16):
                for kind, _ in reader.feed(data):
                    if kind == MessageType.LOGIN:
                        client.sendall(packed(MessageType.ACCEPTED, accepted))

    accepted = Accepted(session=1, role=1, last_ref=0, head_seq=0, implementation="deaf", shard=1)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield Address(listening.getsockname()[1])
        thread.join(10.0)


def test_an_engine_that_does_not_answer_gets_no_command_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is unanswered must stay as it was sent: the next round has to wait for it."""
    monkeypatch.setattr(load, "DRAIN_S", 0.05)
    rows = single_pair(commands=500, seed=1, resting=100).whole()
    with deaf_engine() as address:
        given = Load(address, [rows], pid=0)
        found = given.run(rate=20_000, warm_up_s=0.01, seconds=0.1)
        given.close()
    told = histogram.report(found)
    assert not told["all_answered"]
    assert 0 < told["sent"] <= len(rows) < told["offered"]
    assert told["sends_that_waited"] > 0
    assert told["answered"] == 0
