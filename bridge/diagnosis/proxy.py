"""What a proxy needs on this machine: data plane, certificate, open files, room for captures."""

from __future__ import annotations

import os
import resource
import shutil
from collections.abc import Iterator
from pathlib import Path

from bridge.config import Config
from bridge.diagnosis.finding import Area, Finding
from bridge.errors import ConfigError, PlaneEnded
from bridge.limits import CLIENTS_MAX, DESCRIPTORS_OTHERS, UPSTREAM_CONNECTIONS_MAX
from bridge.proxy.plane.tls import server_context
from bridge.proxy.planes import chosen_plane


def proxy_findings(config: Config, data_dir: Path) -> Iterator[Finding]:
    area = Area("proxy")
    try:
        yield area.ok("data plane", chosen_plane(config.proxy.implementation, os.environ))
    except PlaneEnded as error:
        yield area.fail("data plane", str(error), "the proxy does not start", "see above")
    yield from _tls(area, config)
    yield from _descriptors(area, len(config.legacy.upstreams))
    yield from _captures(area, config, data_dir)


def _tls(area: Area, config: Config) -> Iterator[Finding]:
    try:
        context = server_context(config.proxy.tls)
    except ConfigError as error:
        yield area.fail("tls", str(error), "the proxy does not start", "correct proxy.tls")
        return
    yield area.ok("tls", "clients speak TLS" if context is not None else "plain HTTP")


def _descriptors(area: Area, upstreams: int) -> Iterator[Finding]:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CLIENTS_MAX + upstreams * UPSTREAM_CONNECTIONS_MAX + DESCRIPTORS_OTHERS
    if hard == resource.RLIM_INFINITY or hard >= wanted:
        yield area.ok("open files", f"enough for {CLIENTS_MAX} clients of each worker")
        return
    yield area.warn(
        "open files",
        f"a worker may open {hard}, and wants {wanted} for {CLIENTS_MAX} clients",
        "more clients than fit wait to be accepted",
        "raise the limit: ulimit -Hn, or LimitNOFILE of the service",
    )


def _captures(area: Area, config: Config, data_dir: Path) -> Iterator[Finding]:
    capture = config.proxy.capture
    if not capture.spool_mb:
        yield area.warn(
            "captures",
            "no spool",
            "what Redis does not take within seconds is lost, and shows as a gap",
            "set proxy.capture.spool_mb",
        )
        return
    there = data_dir
    while not there.exists():
        there = there.parent
    wanted = config.proxy.workers * capture.spool_mb << 20
    free = shutil.disk_usage(there).free
    seen = f'mode "{capture.mode}", {capture.spool_mb} MB of spool a worker'
    if free >= wanted:
        yield area.ok("captures", seen)
        return
    yield area.warn(
        "captures",
        f"{seen}; {free >> 20} MB of disk are free",
        "while Redis is away captures are lost once the disk is full",
        "free some, or set a smaller proxy.capture.spool_mb",
    )
