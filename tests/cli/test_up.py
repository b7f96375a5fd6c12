"""`railswitch up` on real servers: everything starts, says so, is started again, and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from running_cli import (
    Ran,
    argv,
    environment,
    railswitch,
    railswitch_process,
    write_config,
)

from bridge.config import load
from bridge.config_rules import host_port
from bridge.datadir import DataDirectory, Run
from bridge.sandbox import processes

PARTS = ("engine", "control", "shadow", "proxy")


def until(condition: Callable[[], Any], what: str) -> Any:
    deadline = time.monotonic() + 60
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


class Up:
    """A running `railswitch up`."""

    def __init__(self, file: Path, process: subprocess.Popen[str]) -> None:
        self.file = file
        self.process = process
        self.directory = DataDirectory(load(file).data_dir)

    @property
    def run(self) -> Run:
        run = self.directory.running()
        assert run is not None
        return run

    def child(self, name: str) -> Any:
        return next(child for child in self.run.children if child.name == name)

    def pids(self) -> set[int]:
        return {child.pid for child in self.run.children if child.pid}

    def cli(self, *words: str) -> Ran:
        return railswitch(*words, "--config", str(self.file))

    def news(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "it ended"
        return dict(msgspec.json.decode(line))

    def wait_for(self, part: str, state: str) -> dict[str, Any]:
        while (news := self.news())["part"] != part or news["state"] != state:
            pass
        return news


@contextmanager
def running_up(file: Path, *words: str) -> Iterator[Up]:
    with subprocess.Popen(
        argv("up", "--json", "--config", str(file), *words),
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        up = Up(file, process)
        try:
            up.wait_for("up", "ready")
            yield up
        finally:
            process.terminate()
            process.communicate(timeout=60)


@pytest.fixture
def file(tmp_path: Path, legacy_database: str) -> Path:
    """Everything of the legacy database is installed; no monolith answers upstream."""
    made = write_config(tmp_path, legacy_database)
    assert railswitch("legacy", "install", "--execute", "--config", str(made)).code == 0
    return made


def test_it_brings_its_servers_starts_everything_and_leaves_nothing(file: Path) -> None:
    with running_up(file) as up:
        run = up.run
        assert {child.name: child.state for child in run.children} == dict.fromkeys(PARTS, "ready")
        assert run.database_url.startswith("postgresql://")
        assert run.redis_url.startswith("redis://")
        status = up.cli("status", "--json").json
        assert status["from_control"]
        assert [(one["symbol"], one["stage"]) for one in status["instruments"]] == [
            *(("BTC-USD", "off"), ("ETH-USD", "off"), ("SOL-USD", "off")),
        ]
        assert status["engine"]["reachable"]
        assert {one["name"] for one in status["processes"]} == set(PARTS)
        pids = up.pids() | {up.process.pid}
    assert up.process.returncode == 0
    assert [pid for pid in pids if processes.alive(pid)] == []
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(run.database_url, connect_timeout=2)
    assert railswitch("status", "--config", str(file)).code == 2


def test_given_servers_are_used_and_a_second_up_and_a_killed_part(
    file: Path, control_database: str, redis_url: str
) -> None:
    with running_up(file, "--database-url", control_database, "--redis-url", redis_url) as up:
        assert (up.run.database_url, up.run.redis_url) == (control_database, redis_url)
        assert not up.directory.part("postgres").exists()

        second = railswitch_process("up", "--config", str(file))
        assert second.code == 4
        assert str(up.process.pid) in second.err

        killed = up.child("engine").pid
        os.kill(killed, signal.SIGKILL)
        up.wait_for("engine", "died")
        up.wait_for("engine", "ready")
        assert up.child("engine").pid not in (0, killed)
        assert up.child("engine").restarts == 1
        assert up.child("proxy").restarts == 0


def test_status_reads_the_store_when_control_is_down_and_says_so(
    file: Path, control_database: str, redis_url: str
) -> None:
    urls = ("--database-url", control_database, "--redis-url", redis_url)
    with running_up(file, *urls) as up:
        up.process.send_signal(signal.SIGSTOP)  # so that it starts nothing again
        os.kill(up.child("control").pid, signal.SIGKILL)
        host, port = host_port(load(file).control.listen)
        until(lambda: refuses(host, port), "control has gone")
        ran = up.cli("status", "--json")
        up.process.send_signal(signal.SIGCONT)
    assert ran.code == 0
    assert not ran.json["from_control"]
    assert len(ran.json["instruments"]) == 3
    assert any("control at" in one for one in ran.json["problems"])


def test_a_port_in_use_is_named_and_nothing_stays(file: Path) -> None:
    host, port = host_port(load(file).proxy.listen)
    with socket.create_server((host, port)):
        ran = railswitch_process("up", "--config", str(file))
    assert ran.code == 1
    assert f"proxy.listen = {host}:{port}" in ran.err
    assert DataDirectory(load(file).data_dir).running() is None


def test_a_store_that_does_not_answer_is_named(file: Path) -> None:
    ran = railswitch_process(
        *("up", "--config", str(file)),
        *("--database-url", "postgresql://nobody@127.0.0.1:1/none"),
        *("--redis-url", "redis://127.0.0.1:1/0"),
    )
    assert ran.code == 5
    assert "control store" in ran.err


def refuses(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=1).close()
    except ConnectionRefusedError:
        return True
    return False
