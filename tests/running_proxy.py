"""`railswitch proxy` as its users have it: a process, with a control store and a Redis."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psycopg
import pytest
import redis
from running import fresh_database

from bridge.sandbox.example import example_config
from bridge.sandbox.servers import EmbeddedPostgres, EmbeddedRedis
from bridge.stage import WORKERS_KEY_PREFIX, decode_report

INSTRUMENTS = ("BTC-USD", "ETH-USD", "SOL-USD")
NO_DATABASE = "postgresql://nobody@127.0.0.1:1/nothing"  # the proxy does without the monolith's
_STOP_S = 30.0

_RUST = importlib.util.find_spec("bridge.proxy._core") is not None
PLANES = [
    "python",
    pytest.param(
        "rust",
        marks=pytest.mark.skipif(
            not _RUST,
            reason="SKIPPED, not passed: the proxy's Rust plane is not built here (cargo)",
        ),
    ),
]


class Services(msgspec.Struct, frozen=True, kw_only=True):
    """What a proxy needs around it."""

    control_url: str
    redis_url: str


@contextlib.contextmanager
def proxy_services(server: EmbeddedPostgres, control_template: str) -> Iterator[Services]:
    """A control store with every instrument in shadow, and a Redis that no other test empties."""
    place = Path(tempfile.mkdtemp(prefix="railswitch-tests-"))
    memory = EmbeddedRedis(place / "redis")
    memory.start()
    try:
        with fresh_database(server, control_template) as url:
            with psycopg.connect(url, autocommit=True) as connection:
                for number, symbol in enumerate(INSTRUMENTS, 1):
                    connection.execute(
                        "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch)"
                        " VALUES (%s, %s, 'shadow', 1)",
                        [symbol, number],
                    )
            yield Services(control_url=url, redis_url=memory.url)
    finally:
        memory.remove()
        place.rmdir()


class Proxy:
    """A running one."""

    def __init__(self, port: int, redis_url: str) -> None:
        self.port = port
        self._redis_url = redis_url

    def worker_pid(self) -> int:
        """Of the only worker."""
        with redis.Redis.from_url(self._redis_url) as connection:
            keys = connection.keys(f"{WORKERS_KEY_PREFIX}*")
            reports = [decode_report(value) for value in connection.mget(keys) if value]
        newest = max(reports, key=lambda one: one.at_s)
        return newest.pid


@contextlib.contextmanager
def running_proxy(
    services: Services, upstream: str, plane: str, directory: Path, more: str = ""
) -> Iterator[Proxy]:
    """In front of `upstream`; `more` is added to its configuration."""
    config = directory / "railswitch.toml"
    text = f'{example_config(NO_DATABASE, upstream)}\n[proxy]\nlisten = "127.0.0.1:0"\n'
    config.write_text(text + more)
    command = [sys.executable, "-m", "bridge.cli.main", "proxy", "--config", str(config)]
    command += ["--database-url", services.control_url, "--redis-url", services.redis_url]
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAILSWITCH_")}
    variables["RAILSWITCH_PROXY"] = plane
    log = directory / "proxy.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=directory,
            env=variables,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, f"the proxy did not start:\n{log.read_text()}"
            port = int(json.loads(line)["listen"].rpartition(":")[2])
            yield Proxy(port, services.redis_url)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture(scope="module", params=PLANES)
def plane(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def services(postgres_server: EmbeddedPostgres, control_template: str) -> Iterator[Services]:
    with proxy_services(postgres_server, control_template) as around:
        yield around


@pytest.fixture(scope="module", autouse=True)
def no_other_proxy() -> Iterator[None]:
    """Whatever the machine's variables say, what is here is asked directly."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "*")
        patch.setenv("no_proxy", "*")
        yield
