"""`railswitch proxy` and its `--restart`, as operators have them."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import redis
from running_cli import Ran, argv, environment, railswitch, railswitch_process, write_config
from test_up import running_up, until

from bridge.cli.exits import Exit
from bridge.config import load
from bridge.datadir import DataDirectory, ProxyRun
from bridge.sandbox import processes
from bridge.stage import STAGES_KEY


class Proxy:
    def __init__(self, file: Path, urls: tuple[str, ...], process: subprocess.Popen[str]) -> None:
        self.file = file
        self.process = process
        self.directory = DataDirectory(load(file).data_dir)
        self._urls = urls

    @property
    def run(self) -> ProxyRun:
        told = self.directory.proxy()
        assert told is not None
        return told

    @property
    def pids(self) -> set[int]:
        return {slot.pid for slot in self.run.slots}

    def cli(self, *words: str) -> Ran:
        return railswitch("proxy", "--config", str(self.file), *self._urls, *words)


@pytest.fixture
def proxy(tmp_path: Path, control_database: str, redis_url: str) -> Iterator[Proxy]:
    """Of two workers."""
    with psycopg.connect(control_database, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
            " VALUES ('BTC-USD', 1, 'shadow', 1)"
        )
    file = write_config(tmp_path)
    text = file.read_text()
    file.write_text(text.replace("\n[proxy]\n", "\n[proxy]\nworkers = 2\n"))
    urls = ("--database-url", control_database, "--redis-url", redis_url)
    with subprocess.Popen(
        argv("proxy", "--config", str(file), *urls),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["workers"] == "2"
            yield Proxy(file, urls, process)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
            process.kill()


def test_a_restart_replaces_every_worker_and_tells_each_step(proxy: Proxy) -> None:
    before = proxy.pids
    ran = proxy.cli("--restart")
    assert ran.code == Exit.DONE, ran.err
    assert len(proxy.pids | before) == 4
    assert not any(processes.alive(pid) for pid in before)
    assert proxy.process.poll() is None
    assert "2 workers restarted" in ran.out
    assert all(f"process {pid} serving" in ran.out for pid in proxy.pids)


def test_a_restart_that_fails_says_why_and_changes_nothing(
    proxy: Proxy, control_database: str, redis_url: str
) -> None:
    before = proxy.pids
    broken = proxy.file.read_text().replace("workers = 2", "workers = 2\nlistens = 3")
    with changed(proxy.file, broken):
        assert proxy.cli("--restart").code == Exit.USAGE  # before anybody is asked
    with psycopg.connect(control_database, autocommit=True) as connection:
        connection.execute("DELETE FROM railswitch.stage")
    with redis.Redis.from_url(redis_url) as connection:
        connection.delete(STAGES_KEY)
    ran = proxy.cli("--restart")
    assert ran.code == Exit.FAILED
    assert "did not start: no stage is known" in ran.err
    assert proxy.pids == before


def test_a_configuration_that_cannot_be_read_is_named(proxy: Proxy) -> None:
    before = proxy.pids
    with changed(proxy.file, "nonsense"):
        proxy.process.send_signal(signal.SIGHUP)
        told = until(lambda: proxy.run.failed, "the restart is given up")
    assert str(proxy.file) in told
    assert proxy.pids == before


@contextlib.contextmanager
def changed(file: Path, text: str) -> Iterator[None]:
    before = file.read_text()
    file.write_text(text)
    yield
    file.write_text(before)


def test_a_second_proxy_is_refused(proxy: Proxy) -> None:
    again = railswitch_process("proxy", "--config", str(proxy.file))
    assert again.code == Exit.FAILED
    assert load(proxy.file).proxy.listen in again.err
    elsewhere = proxy.file.with_name("elsewhere.toml")
    elsewhere.write_text(
        proxy.file.read_text().replace(
            load(proxy.file).proxy.listen, f"127.0.0.1:{processes.free_port()}"
        )
    )
    again = railswitch_process("proxy", "--config", str(elsewhere))
    assert again.code == Exit.REFUSED
    assert str(proxy.process.pid) in again.err


def test_without_a_proxy_there_is_nothing_to_restart(tmp_path: Path) -> None:
    ran = railswitch("proxy", "--config", str(write_config(tmp_path)), "--restart")
    assert ran.code == Exit.UNREACHABLE
    assert "no `railswitch proxy` runs" in ran.err


def test_a_stopped_one_leaves_nothing(proxy: Proxy) -> None:
    pids = proxy.pids
    proxy.process.send_signal(signal.SIGTERM)
    assert proxy.process.wait(timeout=60) == Exit.DONE
    assert proxy.directory.proxy() is None
    assert not any(processes.alive(pid) for pid in pids)


def test_the_proxy_of_up_is_restarted_too(
    tmp_path: Path, legacy_database: str, control_database: str, redis_url: str
) -> None:
    file = write_config(tmp_path, legacy_database)
    with running_up(file, "--database-url", control_database, "--redis-url", redis_url) as up:
        before = up.directory.proxy()
        assert before is not None
        assert before.pid == up.child("proxy").pid
        ran = up.cli("proxy", "--restart")
        assert ran.code == Exit.DONE, ran.err
        after = up.directory.proxy()
        assert after is not None
        assert after.pid == before.pid
        assert after.slots[0].pid != before.slots[0].pid
        assert up.child("proxy").restarts == 0
