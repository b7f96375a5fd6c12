"""Requests on the disk before they go to the monolith: durable, bounded, late by no more than their
budget, and brought back when the worker dies.
"""

from __future__ import annotations

import os
import resource
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from capture_rig import WORKER, Given, Reader, files, framed, home, shipping
from proxy_rig import NOWHERE, run, until

from bridge.proxy.capture import ahead_log
from bridge.proxy.capture.ahead import Ahead
from bridge.proxy.capture.ahead_log import AheadLog, left_over
from bridge.proxy.capture.home import Home
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.capture.ship import Shipper
from bridge.proxy.plane.exchange import Exchange
from shadow.capture import Capture, Outcome
from shadow.legacy.mapping import Route

PLACE = Route(method="POST", path="/api/v1/orders", action="place", fields={})


class Disk:
    """Stands before every sync while `hold` is set; `fails`: and then breaks."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.fails = False
        self._go_on = threading.Event()
        self._go_on.set()
        sync = os.fdatasync

        def synced(fd: int) -> None:
            self.syncs += 1
            self._go_on.wait(20)
            if self.fails:
                raise OSError(5, "input/output error")
            sync(fd)

        monkeypatch.setattr(os, "fdatasync", synced)

    def hold(self) -> None:
        self._go_on.clear()

    def go_on(self) -> None:
        self._go_on.set()


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    found = Disk(monkeypatch)
    yield found
    found.go_on()


def packed(*ids: int) -> bytes:
    return struct.pack(f"<{len(ids)}Q", *ids)


def left(mine: Home) -> list[int]:
    """Ids that a process that came now would find."""
    return [
        msgspec.msgpack.decode(one, type=Capture).number for some in left_over(mine) for one in some
    ]


def test_what_is_settled_is_on_the_disk_until_it_is_done(tmp_path: Path) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine)
        told: list[tuple[bool, list[int]]] = []
        log.append(framed(1, 2), (1, 2), lambda ok: told.append((ok, left(mine))))
        await until(lambda: told)
        assert told == [(True, [1, 2])]
        log.done(packed(1))
        await until(lambda: left(mine) == [2])
        log.done(packed(2))
        assert await log.close()
        assert files(tmp_path) == [f"{WORKER}.lock"]

    run(story())


def test_what_comes_while_the_disk_syncs_shares_the_next_sync(tmp_path: Path, disk: Disk) -> None:
    async def story() -> None:
        log = AheadLog(home(tmp_path))
        settled: list[int] = []
        disk.hold()
        for id_ in range(1, 51):
            log.append(framed(id_), (id_,), lambda ok, id_=id_: settled.append(id_))
            await until(lambda: disk.syncs == 1)
        assert settled == []
        disk.go_on()
        await until(lambda: len(settled) == 50)
        assert (settled, disk.syncs) == (list(range(1, 51)), 2)
        assert not await log.close()  # nothing of it is done

    run(story())


def test_a_sync_that_fails_releases_and_is_counted(tmp_path: Path, disk: Disk) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine)
        told: list[bool] = []
        disk.fails = True
        log.append(framed(1, 2), (1, 2), told.append)
        log.append(framed(3), (3,), told.append)
        await until(lambda: len(told) == 2)
        assert (told, log.failed) == ([False, False], 3)
        disk.fails = False
        log.append(framed(4), (4,), told.append)
        await until(lambda: len(told) == 3)
        assert told[2]
        assert left(mine) == [4]

    run(story())


def test_a_full_disk_releases_and_is_counted(tmp_path: Path) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine)
        told: list[bool] = []
        log.append(framed(1), (1,), told.append)
        await until(lambda: told)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
        try:
            log.append(framed(2, body=b"x" * 5000), (2,), told.append)
            await until(lambda: len(told) == 2)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        log.append(framed(3), (3,), told.append)
        await until(lambda: len(told) == 3)
        assert (told, log.failed) == ([True, False, True], 1)
        assert left(mine) == [1, 3]

    run(story())


def test_it_is_bounded_and_room_comes_back_as_requests_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_log, "AHEAD_SEGMENT_BYTES", 10_000)

    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine, bytes_max=100_000)
        told: list[bool] = []

        async def append(id_: int) -> bool:
            log.append(framed(id_, body=b"x" * 4_000), (id_,), told.append)
            await until(lambda: len(told) == id_)
            return told[-1]

        kept = [id_ for id_ in range(1, 51) if await append(id_)]
        assert 15 < len(kept) < 25
        assert log.failed == 50 - len(kept)
        log.done(packed(*kept[3:]))
        assert await append(51)
        assert left(mine) == [*kept[:3], 51]

    run(story())


def test_a_disk_that_hangs_costs_no_more_memory_than_its_bound(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ahead_log, "AHEAD_WAITING_BYTES_MAX", 10_000)

    async def story() -> None:
        log = AheadLog(home(tmp_path))
        told: list[bool] = []
        disk.hold()
        for id_ in range(1, 101):
            log.append(framed(id_, body=b"x" * 1000), (id_,), told.append)
        await until(lambda: len(told) > 85)
        assert log.failed == len(told)
        assert not any(told)
        disk.go_on()
        await until(lambda: len(told) == 100)
        assert log.failed == told.count(False)

    run(story())


def test_a_torn_tail_costs_the_request_that_was_being_written(tmp_path: Path) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine)
        told: list[bool] = []
        log.append(framed(1, 2, 3), (1, 2, 3), told.append)
        await until(lambda: told)
        log.done(packed(1))
        await log.close()
        (path,) = mine.segments(ahead_log.SUFFIX)
        path.write_bytes(path.read_bytes()[:-2])
        done = path.with_suffix(ahead_log.DONE_SUFFIX)
        done.write_bytes(done.read_bytes() + b"\x02")
        assert left(mine) == [2]

    run(story())


# --- the Python plane's use of it ----------------------------------------------------------------


def exchange(**changes: Any) -> Exchange:
    made = Exchange(object())  # type: ignore[arg-type]  # a client that is there
    made.method, made.target, made.route = b"POST", b"/api/v1/orders", PLACE
    made.content_type, made.identity = b"application/json", b"7"
    made.body = [b'{"secret":"sesame"}']
    for name, value in changes.items():
        setattr(made, name, value)
    return made


class Desk:
    """Where requests go once they are released."""

    def __init__(self, directory: Path, *, budget_s: float = 20.0, **options: Any) -> None:
        self.home = home(directory)
        self.log = AheadLog(self.home)
        self.ahead = Ahead(self.log, WORKER, budget_s=budget_s, **options)
        self.released: list[Exchange] = []
        self.found: list[Capture] = []  # on the disk at that moment

    def hold(self, *exchanges: Exchange) -> None:
        for one in exchanges:
            self.ahead.hold(one, self._release)

    def _release(self, one: Exchange) -> None:
        self.released.append(one)
        self.found = [
            msgspec.msgpack.decode(data, type=Capture)
            for some in left_over(self.home)
            for data in some
        ]


def test_an_order_is_released_when_its_request_is_durable(tmp_path: Path) -> None:
    async def story() -> None:
        desk = Desk(tmp_path)
        one, two = exchange(), exchange(identity=b"8")
        desk.hold(one, two)
        assert desk.released == []
        await until(lambda: len(desk.released) == 2)
        assert desk.released == [one, two]
        assert (one.ahead_id, two.ahead_id) == (1, 2)
        assert [capture.account for capture in desk.found] == [7, 8]
        (found, _) = desk.found
        assert (found.outcome, found.status, found.response_body) == (Outcome.WORKER_LOST, 0, b"")
        assert found.sent_at_ns > 0 < found.sent_mono_ns
        assert found.answered_mono_ns == 0
        assert (desk.ahead.late, desk.log.failed) == (0, 0)

    run(story())


def test_over_its_budget_an_order_is_released_once_and_counted(tmp_path: Path, disk: Disk) -> None:
    async def story() -> None:
        desk = Desk(tmp_path, budget_s=0.001)
        disk.hold()
        desk.hold(exchange())
        await until(lambda: desk.released)
        assert desk.ahead.late == 1
        disk.go_on()
        await until(lambda: left(desk.home) == [1])
        await desk.log.close()
        assert len(desk.released) == 1

    run(story())


def test_a_disk_that_fails_releases_at_once_and_leaves_no_id(tmp_path: Path, disk: Disk) -> None:
    async def story() -> None:
        desk = Desk(tmp_path)
        disk.fails = True
        one = exchange()
        desk.hold(one)
        await until(lambda: desk.released)
        assert (one.ahead_id, desk.log.failed, desk.ahead.late) == (0, 1, 0)

    run(story())


def test_an_order_whose_client_has_gone_meanwhile_goes_nowhere(tmp_path: Path) -> None:
    async def story() -> None:
        desk = Desk(tmp_path)
        gone, refused, stays = exchange(), exchange(), exchange()
        desk.hold(gone, refused, stays)
        gone.client = None
        refused.refused = 400
        await until(lambda: desk.released)
        assert desk.released == [stays]
        await until(lambda: left(desk.home) == [3])

    run(story())


@pytest.mark.parametrize("body", [None, [b"secret"]])
def test_what_can_t_be_captured_does_not_wait(tmp_path: Path, body: list[bytes] | None) -> None:
    """Too large, or not readable where fields must be taken out: it is counted when it ends."""

    async def story() -> None:
        desk = Desk(tmp_path, redaction=Redaction(["secret"]))
        one = exchange(body=body)
        desk.hold(one)
        assert desk.released == [one]
        assert one.ahead_id == 0

    run(story())


def test_nothing_secret_is_written_ahead(tmp_path: Path) -> None:
    async def story() -> None:
        desk = Desk(tmp_path, redaction=Redaction(["secret"]))
        desk.hold(exchange())
        await until(lambda: desk.released)
        assert desk.found[0].request_body == b'{"secret":"[redacted]"}'

    run(story())


def test_a_defect_of_ours_is_not_the_client_s_business(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        desk = Desk(tmp_path)
        monkeypatch.setattr("bridge.proxy.capture.ahead.frame", None)
        one = exchange()
        desk.hold(one)
        assert desk.released == [one]
        assert desk.log.failed == 1

    run(story())
    assert "could not be written ahead" in caplog.text


# --- and after a death ---------------------------------------------------------------------------

CHILD = """
import asyncio, struct, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from capture_rig import Given, framed, home
from bridge.proxy.capture.ahead_log import AheadLog
from bridge.proxy.capture.ship import Shipper

async def main():
    mine = home(Path(sys.argv[2]), "dies")
    log = AheadLog(mine)
    durable = asyncio.Event()
    log.append(framed(1, 2, 3, 4, 5), (1, 2, 3, 4, 5), lambda ok: durable.set())
    await durable.wait()
    source = Given("dies", mine.number_file())
    shipper = Shipper([source], sys.argv[3], home=mine, spool_bytes_max=1 << 20, ahead=log)
    running = asyncio.create_task(shipper.run())
    source.give(2, ahead=(4, 2))
    source.give(1, lost=True)
    while not shipper.spooled_bytes or not (mine.segment(1, ".done")).stat().st_size == 16:
        await asyncio.sleep(0.001)
    print("ready", flush=True)
    await running

asyncio.run(main())
"""


@contextmanager
def killed_worker(directory: Path) -> Iterator[None]:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", CHILD, here, str(directory), NOWHERE]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGKILL)
        child.wait()
        yield


def test_requests_that_were_under_way_are_brought_after_a_kill(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        with killed_worker(tmp_path):
            mine = home(tmp_path, "next")
            async with shipping(Shipper([], redis_url, home=mine, spool_bytes_max=1 << 20)):
                await until(lambda: files(tmp_path) == ["next.lock"])
        reader = Reader().read(redis_url)
        reader.assert_closed(6, "dies")
        assert reader.lost == {"dies": [3]}
        outcomes = [(one.number, one.outcome) for one in reader.arrived["dies"]]
        assert outcomes == [
            (1, Outcome.ANSWERED),
            (2, Outcome.ANSWERED),
            (4, Outcome.WORKER_LOST),
            (5, Outcome.WORKER_LOST),
            (6, Outcome.WORKER_LOST),
        ]

    run(story())


@pytest.mark.parametrize("fate", ["shipped", "spooled", "dropped"])
def test_a_request_is_done_when_its_capture_is_shipped_spooled_or_dropped(
    tmp_path: Path, redis_url: str, fate: str
) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine)
        told: list[bool] = []
        log.append(framed(1, 2), (1, 2), told.append)
        await until(lambda: told)
        source = Given(numbers=mine.number_file())
        url = redis_url if fate == "shipped" else NOWHERE
        room = 0 if fate == "dropped" else 1 << 20
        shipper = Shipper([source], url, home=mine, spool_bytes_max=room, ahead=log)
        async with shipping(shipper):
            source.give(1, ahead=(2,))
            await until(lambda: left(mine) == [1])
            assert bool(shipper.spooled_bytes) == (fate == "spooled")
            assert bool(source.dropped) == (fate == "dropped")

    run(story())


def test_a_request_that_is_not_done_keeps_its_files_at_a_stop(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        mine = home(tmp_path)
        log = AheadLog(mine)
        told: list[bool] = []
        log.append(framed(1), (1,), told.append)
        await until(lambda: told)
        source = Given(numbers=mine.number_file())
        shipper = Shipper([source], redis_url, home=mine, spool_bytes_max=1 << 20, ahead=log)
        async with shipping(shipper):
            source.give(1)
        assert f"{WORKER}.count" in files(tmp_path)
        async with shipping(Shipper([], redis_url, home=home(tmp_path, "next"))):
            await until(lambda: files(tmp_path) == ["next.lock"])
        reader = Reader().read(redis_url)
        reader.assert_closed(2)
        assert reader.arrived[WORKER][1].outcome is Outcome.WORKER_LOST

    run(story())
