"""Worker processes: restarted unnoticed, replaced when they die, do not start, or are stuck."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
import redis
from proxy_rig import Client, Monolith, Visit, request, response, run, until
from test_proxy_worker import NO_DATABASE, reports, settings, write_stages

from bridge.datadir import ProxyRun
from bridge.errors import ConfigError, PortInUse
from bridge.proxy import master
from bridge.proxy.heartbeat import Pulse
from bridge.proxy.listening import bound_socket, check_free, listening_socket
from bridge.proxy.master import Operator
from bridge.proxy.settings import ProxySettings
from bridge.sandbox import processes
from bridge.stage import STAGES_KEY

TUNNEL = [("Connection", "Upgrade"), ("Upgrade", "websocket")]
PACE_S = 0.002  # between two requests of a client, so that the machine is not all theirs


class Proxy:
    """A running master, and what it tells of itself."""

    def __init__(self, wanted: ProxySettings) -> None:
        self.wanted = wanted  # what new workers get
        self.trouble: Exception | None = None  # instead of that
        self.told: list[ProxyRun] = []
        self.stop = asyncio.Event()
        self.port = 0
        self.operator = Operator(settings=self._settings, tell=self.told.append)

    def _settings(self) -> ProxySettings:
        if self.trouble is not None:
            raise self.trouble
        return self.wanted

    @property
    def now(self) -> ProxyRun:
        return self.told[-1]

    @property
    def pids(self) -> list[int]:
        return [slot.pid for slot in self.now.slots]

    async def restart(self) -> None:
        before = self.now.restarts
        self.operator.restart.set()
        await until(lambda: self.now.restarts > before and not self.now.restarting)

    async def client(self) -> Client:
        return Client(*await asyncio.open_connection("127.0.0.1", self.port))

    async def ask(self) -> bytes:
        """On a connection of its own."""
        client = await self.client()
        answer = await client.ask(request())
        client.close()
        return answer


@contextlib.asynccontextmanager
async def proxy_of(wanted: ProxySettings, workers: int) -> AsyncIterator[Proxy]:
    proxy = Proxy(wanted)
    ready: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(
        master.run(
            wanted, workers, ready=ready.set_result, stop=proxy.stop, operator=proxy.operator
        )
    )
    await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    proxy.port = ready.result()
    try:
        yield proxy
    finally:
        proxy.stop.set()
        await task


def named(sent: bytes) -> bytes:
    """Every answer says which request it answers."""
    return response(sent.split(b" ", 2)[1])


def listening(port: int) -> int:
    """How many sockets of this machine listen on it."""
    wanted = re.compile(rf"^ *\d+: [0-9A-F]+:{port:04X} [0-9A-F]+:0000 0A ", re.MULTILINE)
    return len(wanted.findall(Path("/proc/net/tcp").read_text()))


class Load:
    """Clients that ask one request after the other, and take nothing but its answer."""

    def __init__(self, proxy: Proxy) -> None:
        self.answered = 0
        self.last_ones = 0  # answers that said that their connection ends
        self._proxy = proxy
        self._stopped = False

    async def goes_on(self) -> None:
        before = self.answered
        await until(lambda: self.answered > before + 100)

    async def kept(self) -> None:
        client: Client | None = None
        while not self._stopped:
            if client is None:
                client = await self._proxy.client()
            if b"\r\nConnection: close\r\n" in await self._ask(client):
                self.last_ones += 1
                assert await client.rest() == b""
                client.close()
                client = None
        if client is not None:
            client.close()

    async def new(self) -> None:
        while not self._stopped:
            client = await self._proxy.client()
            await self._ask(client)
            client.close()

    async def _ask(self, client: Client) -> bytes:
        self.answered += 1
        target = f"/request/{self.answered}"
        answer = await client.ask(request("GET", target))
        assert answer.endswith(b"\r\n\r\n" + target.encode())
        await asyncio.sleep(PACE_S)
        return answer

    @contextlib.asynccontextmanager
    async def running(self, each: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(kind()) for kind in (self.kept, self.new) for _ in range(each)]
        try:
            yield
            self._stopped = True
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


def test_a_restart_under_load_is_noticed_by_nobody(redis_url: str, control_database: str) -> None:
    write_stages(control_database)

    async def story(connection: redis.Redis) -> None:
        async with (
            Monolith(named) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 2) as proxy,
        ):
            load = Load(proxy)
            seen = [set(proxy.pids)]
            async with load.running(each=3):
                for numbers in ({2, 3}, {0, 1}):
                    await load.goes_on()
                    await proxy.restart()
                    assert proxy.now.failed == ""
                    seen.append(set(proxy.pids))
                    assert {one.slot for one in reports(connection)} == numbers
                    assert {one.pid for one in reports(connection)} == seen[-1]
                await load.goes_on()
            assert len(seen[0] | seen[1] | seen[2]) == 6
            assert load.last_ones >= 1
            assert not any(processes.alive(pid) for pid in seen[0] | seen[1])

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


def test_a_replaced_worker_serves_what_it_has_to_the_end(
    redis_url: str, control_database: str
) -> None:
    """An idle connection, a request that is being answered, and a tunnel."""
    write_stages(control_database)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def monolith(visit: Visit) -> None:
        while True:
            got = await visit.request()
            if b"\r\nUpgrade: websocket\r\n" in got:
                await visit.answer(
                    b"HTTP/1.1 101 Switching Protocols\r\n"
                    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
                )
                while data := await visit.reader.read(100):
                    await visit.answer(data.upper())
                return
            if got.startswith(b"GET /slow "):
                arrived.set()
                await go_on.wait()
            await visit.answer(named(got))

    async def story() -> None:
        async with (
            Monolith(monolith) as script,
            proxy_of(settings(script.port, redis_url, control_database), 1) as proxy,
        ):
            (old,) = proxy.pids
            idle, slow, tunnel = [await proxy.client() for _ in range(3)]
            assert (await idle.ask(request())).endswith(b"/")
            await slow.send(request("GET", "/slow"))
            assert b"101 Switching" in await tunnel.ask(request("GET", "/cable", b"", TUNNEL))
            await arrived.wait()

            proxy.operator.restart.set()
            await until(lambda: proxy.now.slots[0].finishing == old)
            assert proxy.pids != [old]
            assert (await proxy.ask()).endswith(b"/")
            answer = await idle.ask(request("GET", "/late"))
            assert answer.endswith(b"/late")
            assert b"\r\nConnection: close\r\n" in answer
            assert await idle.rest() == b""
            go_on.set()
            answer = await slow.response()
            assert answer.endswith(b"/slow")
            assert b"\r\nConnection: close\r\n" in answer
            await tunnel.send(b"still here")
            assert await tunnel.reader.readexactly(10) == b"STILL HERE"
            assert proxy.now.restarting
            for client in (idle, slow, tunnel):
                client.close()
            await until(lambda: not proxy.now.restarting)
            assert not processes.alive(old)

    run(story())


@pytest.mark.parametrize("reason", ["no stage is known", "nobody can read this"])
def test_if_the_new_one_cannot_serve_the_old_one_stays(
    redis_url: str, control_database: str, reason: str
) -> None:
    write_stages(control_database)

    async def story() -> None:
        async with (
            Monolith(response(b"x")) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 2) as proxy,
        ):
            before = proxy.pids
            good = proxy.wanted
            if reason.startswith("no stage"):
                proxy.wanted = msgspec.structs.replace(
                    good, redis_url="redis://127.0.0.1:1/0", control_url=NO_DATABASE
                )
            else:
                proxy.trouble = ConfigError(reason)
            await proxy.restart()
            assert reason in proxy.now.failed
            assert proxy.pids == before
            assert (await proxy.ask()).endswith(b"x")

            proxy.wanted, proxy.trouble = good, None
            await proxy.restart()
            assert proxy.now.failed == ""
            assert not set(proxy.pids) & set(before)

    run(story())


def test_what_waits_to_be_accepted_survives_the_worker(
    redis_url: str, control_database: str
) -> None:
    write_stages(control_database)

    async def story() -> None:
        async with (
            Monolith(named) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 1) as proxy,
        ):
            (old,) = proxy.pids
            os.kill(old, signal.SIGSTOP)
            await until(lambda: stands_still(old))
            clients = [await proxy.client() for _ in range(20)]
            for n, client in enumerate(clients):
                await client.send(request("GET", f"/{n}"))
            os.kill(old, signal.SIGKILL)
            for n, client in enumerate(clients):
                assert (await client.response()).endswith(f"\r\n\r\n/{n}".encode())
                client.close()

    run(story())


def stands_still(pid: int) -> bool:
    """Each of its threads has stopped: a signal takes a moment to reach those on other cores."""
    stats = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return all(stat.rpartition(")")[2].split()[0] == "T" for stat in stats)


def forget_stages(connection: redis.Redis, url: str) -> None:
    """From now on a new worker does not know who answers, and does not start."""
    with psycopg.connect(url, autocommit=True) as control:
        control.execute("DELETE FROM railswitch.stage")
    connection.delete(STAGES_KEY)


def test_a_slot_whose_process_does_not_come_back_takes_no_connections(
    redis_url: str, control_database: str
) -> None:
    write_stages(control_database)

    async def story(connection: redis.Redis) -> None:
        async with (
            Monolith(response(b"x")) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 2) as proxy,
        ):
            assert listening(proxy.port) == 2
            await asyncio.to_thread(forget_stages, connection, control_database)
            os.kill(proxy.pids[0], signal.SIGKILL)
            await until(lambda: listening(proxy.port) == 1)
            answers = await asyncio.gather(*(proxy.ask() for _ in range(40)))
            assert all(answer.endswith(b"x") for answer in answers)
            assert proxy.pids[0] == 0
            await asyncio.to_thread(write_stages, control_database)
            await until(lambda: proxy.pids[0])
            assert listening(proxy.port) == 2
            answers = await asyncio.gather(*(proxy.ask() for _ in range(40)))
            assert all(answer.endswith(b"x") for answer in answers)

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


def test_the_only_slot_keeps_its_connections_waiting(
    redis_url: str, control_database: str, caplog: pytest.LogCaptureFixture
) -> None:
    write_stages(control_database)

    async def story(connection: redis.Redis) -> None:
        async with (
            Monolith(response(b"x")) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 1) as proxy,
        ):
            await asyncio.to_thread(forget_stages, connection, control_database)
            os.kill(proxy.pids[0], signal.SIGKILL)
            asking = asyncio.create_task(proxy.ask())
            await until(lambda: caplog.text.count("did not start: no stage is known") >= 2)
            assert listening(proxy.port) == 1
            await asyncio.to_thread(write_stages, control_database)
            assert (await asking).endswith(b"x")

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


def test_a_stuck_worker_is_told_then_killed_and_replaced(
    redis_url: str,
    control_database: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("bridge.proxy.slot.WORKER_SILENT_S", 1.5)
    monkeypatch.setattr("bridge.proxy.slot.WORKER_STUCK_S", 4.0)
    write_stages(control_database)

    async def story() -> None:
        async with (
            Monolith(response(b"x")) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 1) as proxy,
        ):
            (old,) = proxy.pids
            os.kill(old, signal.SIGSTOP)
            await until(lambda: proxy.now.slots[0].state == "silent")
            assert proxy.pids == [old]
            assert (await proxy.ask()).endswith(b"x")
            await until(lambda: proxy.now.slots[0].state == "serving")
            assert proxy.pids != [old]
            assert f"process {old} is stuck" in caplog.text

    run(story())


def test_a_worker_that_was_only_slow_is_left_alone(
    redis_url: str, control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.proxy.slot.WORKER_SILENT_S", 1.5)
    write_stages(control_database)

    async def story() -> None:
        async with (
            Monolith(response(b"x")) as monolith,
            proxy_of(settings(monolith.port, redis_url, control_database), 1) as proxy,
        ):
            (old,) = proxy.pids
            os.kill(old, signal.SIGSTOP)
            await until(lambda: proxy.now.slots[0].state == "silent")
            os.kill(old, signal.SIGCONT)
            await until(lambda: proxy.now.slots[0].state == "serving")
            assert proxy.pids == [old]

    run(story())


@pytest.mark.one_plane("no proxy in it")
def test_the_masters_own_pause_is_nobodys_silence() -> None:
    pulse = Pulse()
    pulse.awake(3600.0)
    assert pulse.silent_s <= 1.0
    for _ in range(10):
        pulse.awake(0.5)
    assert pulse.silent_s >= 5.0
    pulse.heard()
    assert pulse.silent_s == 0.0


def test_a_worker_that_does_not_leave_is_killed(
    redis_url: str, control_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridge.proxy.slot.WORKER_STOP_S", 0.2)
    write_stages(control_database)

    async def story() -> None:
        async with proxy_of(settings(1, redis_url, control_database), 1) as proxy:
            (pid,) = proxy.pids
            os.kill(pid, signal.SIGSTOP)
        assert not processes.alive(pid)

    run(story())


def test_told_to_stop_at_once_it_waits_for_nobody(redis_url: str, control_database: str) -> None:
    write_stages(control_database)
    arrived = asyncio.Event()

    async def monolith(visit: Visit) -> None:
        await visit.request()
        arrived.set()
        await visit.reader.read()

    async def story(connection: redis.Redis) -> None:
        async with Monolith(monolith) as script:
            async with proxy_of(settings(script.port, redis_url, control_database), 1) as proxy:
                pids = proxy.pids
                client = await proxy.client()
                await client.send(request())
                await arrived.wait()
                proxy.stop.set()
                await until(lambda: not listening(proxy.port))
                proxy.operator.at_once.set()
            client.close()
        # One that leaves by itself takes its report with it.
        assert [one.pid for one in reports(connection)] == pids

    with redis.Redis.from_url(redis_url) as connection:
        run(story(connection))


@pytest.mark.parametrize("numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGUSR1,) * 2])
def test_a_worker_finishes_what_it_has_begun_unless_told_twice(
    redis_url: str, control_database: str, numbers: tuple[signal.Signals, signal.Signals]
) -> None:
    """Being replaced is no such demand, however often it is said."""
    write_stages(control_database)
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def monolith(visit: Visit) -> None:
        got = await visit.request()
        arrived.set()
        await go_on.wait()
        await visit.answer(named(got))

    async def story() -> None:
        async with Monolith(monolith) as script:
            port = processes.free_port()
            wanted = settings(script.port, redis_url, control_database)
            with worker_process(msgspec.structs.replace(wanted, listen_port=port)) as worker:
                client = Client(*await asyncio.open_connection("127.0.0.1", port))
                await client.send(request("GET", "/begun"))
                await arrived.wait()
                worker.send_signal(numbers[0])
                await until(lambda: not listening(port))
                assert worker.poll() is None
                worker.send_signal(numbers[1])
                if numbers[1] is signal.SIGTERM:
                    assert await asyncio.to_thread(worker.wait) == 1
                    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                        await client.response()
                go_on.set()
                if numbers[1] is signal.SIGUSR1:
                    assert (await client.response()).endswith(b"/begun")
                    assert await asyncio.to_thread(worker.wait) == 0
                client.close()

    run(story())


@contextlib.contextmanager
def worker_process(wanted: ProxySettings) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(
        [sys.executable, "-m", "bridge.proxy.master"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        try:
            worker.stdin.write(msgspec.json.encode(wanted))
            worker.stdin.close()
            assert worker.stdout.readline() == b"ready\n"
            yield worker
        finally:
            worker.kill()


@pytest.mark.one_plane("no proxy in it")
def test_sockets_of_one_port_share_it_and_nobody_else_does() -> None:
    with listening_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with listening_socket("127.0.0.1", port), bound_socket("127.0.0.1", port):
            assert listening(port) == 2
        with pytest.raises(PortInUse, match=rf"127\.0\.0\.1:{port}.*proxy\.listen"):
            check_free("127.0.0.1", port)
        with socket.socket() as another, pytest.raises(OSError, match="in use"):
            another.bind(("127.0.0.1", port))
    check_free("127.0.0.1", port)
    check_free("127.0.0.1", 0)


@pytest.mark.one_plane("no proxy in it")
def test_a_host_that_nobody_knows_is_named() -> None:
    with pytest.raises(PortInUse, match=r"no\.such\.invalid:80.*proxy\.listen"):
        listening_socket("no.such.invalid", 80)


def test_a_second_proxy_on_the_port_is_refused(redis_url: str, control_database: str) -> None:
    write_stages(control_database)

    async def story() -> None:
        first = settings(1, redis_url, control_database)
        async with proxy_of(first, 1) as proxy:
            second = msgspec.structs.replace(first, listen_port=proxy.port)
            with pytest.raises(PortInUse):
                async with proxy_of(second, 1):
                    pass

    run(story())
