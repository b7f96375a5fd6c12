"""What is around the monolith's database: control store, Redis, engine, ports, upstream, disk."""

from __future__ import annotations

import http.client
import os
import shutil
import socket
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import psycopg
import redis

import migrations
from bridge.config import Config
from bridge.config_rules import host_port, unix_path, upstream_address
from bridge.datadir import DataDirectory
from bridge.diagnosis.finding import Area, Finding
from bridge.implementation import chosen_implementation
from bridge.limits import CONNECT_S, DISK_FREE_BYTES_MIN
from bridge.sandbox.processes import port_is_free
from engine.errors import EngineImplementationUnavailable

_START = "start `railswitch up`, which brings its own, or set "


def store_findings(url: str) -> Iterator[Finding]:
    area = Area("control store")
    consequence = "no stage can be read or changed: the proxy stays where it is"
    if not url:
        yield area.warn("configured", "no", consequence, f"{_START}control.database_url")
        return
    try:
        with psycopg.connect(url, autocommit=True, connect_timeout=int(CONNECT_S)) as connection:
            yield area.ok("reachable", f"{connection.info.dbname} at {connection.info.host}")
            found = connection.execute(
                "SELECT to_regclass('railswitch.alembic_version') IS NOT NULL"
            ).fetchone()
            assert found is not None
            row = (
                connection.execute("SELECT version_num FROM railswitch.alembic_version").fetchone()
                if found[0]
                else None
            )
    except psycopg.Error as error:
        said = " ".join(str(error).split())
        yield area.fail("reachable", said, consequence, "check control.database_url")
        return
    revision = row[0] if row else "none"
    yield area.judge(
        revision == migrations.head(),
        "migrated",
        f"revision {revision}, wanted {migrations.head()}",
        "nothing can be recorded",
        "`railswitch up` migrates it when it starts",
    )


def redis_findings(url: str) -> Iterator[Finding]:
    area = Area("redis")
    consequence = "captures are lost and counted, and no instrument can be flipped"
    if not url:
        yield area.warn("configured", "no", consequence, f"{_START}redis.url")
        return
    try:
        with redis.Redis.from_url(url, socket_timeout=CONNECT_S) as connection:
            connection.ping()
            server = connection.info("server")
            memory = connection.info("memory")
    except (redis.RedisError, ValueError) as error:
        yield area.fail("reachable", str(error), consequence, "check redis.url")
        return
    yield area.ok("reachable", f"Redis {server.get('redis_version', '?')}")
    policy = memory.get("maxmemory_policy", "noeviction")
    if memory.get("maxmemory") and str(policy).startswith("allkeys"):
        yield area.warn(
            "eviction",
            str(policy),
            "it may throw captures away when memory is short",
            "CONFIG SET maxmemory-policy noeviction",
        )


def engine_findings(config: Config) -> Iterator[Finding]:
    area = Area("engine")
    try:
        name, why = chosen_implementation(config.engine.implementation, os.environ)
    except EngineImplementationUnavailable as error:
        yield area.fail("implementation", str(error), "the engine does not start", "see there")
        return
    if name == "rust":
        yield area.ok("implementation", f"{name} ({why})")
    else:
        yield area.warn(
            "implementation",
            f"{name} ({why})",
            "it is the specification, not fast: some tens of thousands of orders/s",
            "install cargo and reinstall, for the Rust core",
        )


def port_findings(config: Config, directory: DataDirectory) -> Iterator[Finding]:
    area = Area("ports")
    run = directory.running()
    for part, listen in (
        ("engine", config.engine.listen),
        ("control", config.control.listen),
        ("proxy", config.proxy.listen),
    ):
        if unix_path(listen):
            continue  # the engine itself sees whether another listens there
        host, port = host_port(listen)
        if host not in ("127.0.0.1", "localhost", "0.0.0.0", "::1", "::"):
            continue  # another machine's
        if port_is_free(port):
            yield area.ok(part, f"{listen} is free")
        elif run is not None:
            yield area.ok(part, f"{listen} is in use while `railswitch up` (pid {run.pid}) runs")
        else:
            yield area.warn(
                part,
                f"{listen} is in use, and no `railswitch up` runs on {directory.path}",
                f"if that is not your own `railswitch {part}`, ours can't start",
                f"stop the other program, or choose another {part}.listen",
            )


def upstream_findings(config: Config) -> Iterator[Finding]:
    area = Area("upstream")
    path = config.legacy.health.path or "/"
    for upstream in config.legacy.upstreams:
        connection = _connection(*upstream_address(upstream))
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException) as error:
            yield area.fail(
                "answers",
                f"{upstream}: {error}",
                "clients of the proxy get 502",
                "start the monolith, or correct legacy.upstream",
            )
        else:
            seen = f"{upstream}: {status} to GET {path}"
            if status < HTTPStatus.INTERNAL_SERVER_ERROR:
                yield area.ok("answers", seen)
            else:
                yield area.warn(
                    "answers",
                    seen,
                    "it is there, and fails: a check of its health would count that as down",
                    "see the monolith's log; legacy.health.path names another page",
                )
        finally:
            connection.close()


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=CONNECT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(self._path)


def _connection(host: str, port: int) -> http.client.HTTPConnection:
    """`port` 0: `host` is the path of a Unix socket."""
    if port:
        return http.client.HTTPConnection(host, port, timeout=CONNECT_S)
    return _UnixConnection(host)


def disk_findings(directory: DataDirectory) -> Iterator[Finding]:
    area = Area("data directory")
    there = directory.path
    while not there.exists():
        there = there.parent
    writable = os.access(there, os.W_OK | os.X_OK)
    yield area.judge(
        writable,
        "writable",
        str(directory.path),
        "`railswitch up` does not start",
        "choose another data_dir, or let this user write there",
    )
    yield from _free_space(area, there)


def _free_space(area: Area, there: Path) -> Iterator[Finding]:
    free = shutil.disk_usage(there).free
    seen = f"{free / 2**30:.1f} GiB free"
    if free >= DISK_FREE_BYTES_MIN:
        yield area.ok("space", seen)
    else:
        yield area.warn(
            "space",
            seen,
            "a full disk stops the engine: its journal must be durable before it answers",
            "make room, or choose another data_dir",
        )
