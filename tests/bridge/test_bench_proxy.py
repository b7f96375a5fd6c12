"""The proxy's benchmark runs every way, loses no order of its own, counts what was not answered,
and leaves nothing behind. Its figures are nobody's business.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.bench import nginx, proxy, proxy_soak
from bridge.bench.figures import tables
from bridge.bench.proxy_load import Job, Seen
from bridge.bench.proxy_servers import Shadow, opened, peer, ways

FULL_S = 30.0  # for anything to happen, on a busy machine
HAS_NGINX = nginx.binary() is not None


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (proxy, proxy_soak):
        monkeypatch.setattr(module, "WARM_UP_S", 0.05)
    monkeypatch.setattr(proxy, "ALONE_S", 0.05)
    monkeypatch.setattr(proxy_soak, "CALIBRATION_S", 0.2)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o711)
    return tmp_path / "bench"


def report(part: str, found: dict[str, Any]) -> str:
    """All that people would see of it."""
    return "\n".join(
        " ".join((table.title, *table.columns, *(cell for row in table.rows for cell in row)))
        for table in tables(part, found)
    )


def test_every_way_is_measured_and_every_capture_is_found(place: Path) -> None:
    found = asyncio.run(
        proxy.run(seconds=0.1, connections=2, rounds=1, offered=200, directory=place)
    )
    measured = {"direct", "railswitch"} | ({"nginx"} if HAS_NGINX else set())
    assert measured <= set(found["closed"])
    assert set(found["one_connection_alone"]) == set(found["closed"])
    for one in found["closed"].values():
        assert one["requests_per_s"] > 0
        assert 0 < one["latency_us"]["p50"] <= one["latency_us"]["p99"]
    cases = {(one["way"], one["shadow"]): one for one in found["open"]}
    for shadow in Shadow:
        one = cases["railswitch", shadow]
        assert (one["unanswered"], one["failed"]) == (0, 0)
        assert one["answered_per_s"] > 0
        assert one["p99_of_fast"] is not None
    assert found["captured"]["sent"] == found["captured"]["on_the_stream"] > 0
    assert found["implementation"] in ("python", "rust")
    shown = report("proxy", found)
    assert "railswitch hung" in shown
    assert f"{found['captured']['sent']:,}" in shown
    assert list(place.iterdir()) == []


def test_the_soak_watches_memory_while_the_shadow_side_falls_behind(place: Path) -> None:
    found = asyncio.run(proxy_soak.run(soak=4.0, soak_rate=300, connections=2, directory=place))
    samples = found["samples"]
    assert len(samples) == 4
    assert all(one["worker_bytes"] > 0 and one["redis_bytes"] > 0 for one in samples)
    assert all(one["failed"] == 0 for one in samples)
    assert samples[-1]["captured"] > samples[-1]["shipped"] > 0
    assert found["is_flat"] in (True, False)
    shown = report("soak", found)
    assert "last third to middle third" in shown
    assert f"{samples[-1]['captured']:,}" in shown
    assert list(place.iterdir()) == []


def test_what_never_gets_an_answer_counts_with_the_time_that_it_has_waited(tmp_path: Path) -> None:
    async def measured() -> Seen:
        async with peer("monolith", tmp_path) as silent:
            await silent.become(Shadow.HUNG)
            job = Job(port=int(silent.said), connections=2, rate=100, warm_up_s=0.0, seconds=0.3)
            return [seen async for seen in proxy.loaded(tmp_path, job)][-1]

    seen = asyncio.run(measured())
    assert (seen.sent, seen.answered, seen.unanswered) == (2, 0, 30)
    assert sum(seen.took_us.values()) == 30
    assert min(seen.took_us) > 1_000_000  # it has waited for them for a second


def test_a_relay_passes_on_every_byte_however_slow_it_is(tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readexactly(5_000))
        writer.close()

    async def passed() -> bytes:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, peer("relay", tmp_path, server.sockets[0].getsockname()[1]) as between:
            between.pace(delay_ms=1, bytes_per_s=50_000)
            reader, writer = await asyncio.open_connection("127.0.0.1", int(between.said))
            writer.write(sent)
            got = await reader.read(-1)
            writer.close()
            return got

    sent = bytes(range(250)) * 20
    assert asyncio.run(passed()) == sent


def test_without_nginx_the_rest_is_measured_and_it_says_so(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(place))
    monkeypatch.setattr(nginx, "ALSO_IN", ())
    assert _ways(place) == (["direct", "railswitch"], "not measured: it is not installed")


def test_an_nginx_that_can_not_mirror_is_measured_without_and_it_says_why(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.mkdir()
    fake = place / "nginx"
    fake.write_text('#!/bin/sh\necho "nginx version: nginx/1.2.3"\necho "[emerg] no mirror" >&2\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")
    found, told = _ways(place)
    assert found == ["direct", "nginx", "railswitch"]
    assert told == "1.2.3, its mirror not measured: [emerg] no mirror"


def _ways(place: Path) -> tuple[list[str], str]:
    async def found() -> tuple[list[str], str]:
        async with opened(place, "") as there:
            return [str(way) for way in ways(there)], proxy.setting(there)["nginx"]

    place.mkdir(exist_ok=True)
    return asyncio.run(found())


@pytest.mark.parametrize("words", [(), ("--soak", "60")])
def test_ctrl_c_leaves_no_process_and_no_file(place: Path, words: tuple[str, ...]) -> None:
    mark = f"{place}/marked"
    argv = [sys.executable, "-m", "bridge.cli.main", "bench", "proxy", *words]
    with subprocess.Popen(
        [*argv, "--directory", str(place)],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        env=os.environ | {"MARK": mark},
        text=True,
    ) as bench:
        assert bench.stderr is not None
        bench.stderr.readline()  # it measures
        _until(lambda: len(_marked(mark)) > 2)
        bench.send_signal(signal.SIGINT)
        said = bench.stderr.read()
        assert bench.wait(FULL_S) != 0
    assert "Traceback" not in said
    _until(lambda: not _marked(mark))
    assert not place.exists() or list(place.iterdir()) == []


def _until(holds: Any) -> None:
    deadline = time.monotonic() + FULL_S
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _marked(mark: str) -> list[int]:
    """Processes that have it in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            has_it = f"MARK={mark}".encode() in path.read_bytes()
        except OSError:
            continue
        if has_it:
            found.append(int(path.parent.name))
    return found
