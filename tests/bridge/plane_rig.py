"""A plane for a test: the asyncio one or the Rust one, with the same options; and its bounds."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from bridge import limits
from bridge.proxy.capture.ahead import Ahead
from bridge.proxy.capture.home import NumberFile
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.capture.tee import Tee
from bridge.proxy.desk.ids import OrderIndex
from bridge.proxy.plane.server import Server
from bridge.proxy.route import Router
from shadow.legacy.mapping import Mapping

STANDS_S = 20.0
LOOK_S = 0.02  # how often a plane looks at bounds that a test has made small


class Made(NamedTuple):
    server: Any
    source: Any  # of captures
    known: OrderIndex  # orders


class Captured(NamedTuple):
    """What becomes of captures."""

    numbers: NumberFile | None
    redaction: Redaction | None
    log: Any  # orders wait for it; None: for nothing
    budget_s: float


def make(
    plane: str,
    worker: str,
    upstreams: Sequence[str],
    mapping: Mapping,
    captured: Captured,
    **options: Any,
) -> Made:
    """`options`: more for the server."""
    if plane == "rust":
        return _rust(worker, upstreams, mapping, captured, options)
    numbers, redaction, log, budget_s = captured
    ahead = Ahead(log, worker, budget_s=budget_s, redaction=redaction) if log is not None else None
    tee = Tee(worker, numbers=numbers, redaction=redaction, ahead=ahead)
    server = Server(
        upstreams=upstreams,
        router=Router(mapping.routes, method_override=mapping.method_override),
        identity_header=mapping.identity_header,
        tee=tee,
        **options,
    )
    server.ahead = ahead
    return Made(server, tee, OrderIndex())


def _rust(
    worker: str,
    upstreams: Sequence[str],
    mapping: Mapping,
    captured: Captured,
    options: dict[str, Any],
) -> Made:
    from bridge.proxy.native.captures import NativeIndex
    from bridge.proxy.native.server import NativeServer  # only where it is built

    server = NativeServer(
        worker=worker,
        upstreams=upstreams,
        mapping=mapping,
        numbers=captured.numbers,
        redaction=captured.redaction,
        ahead=captured.log,
        ahead_budget_s=captured.budget_s,
        **options,
    )
    return Made(server, server.captures, NativeIndex(server.captures))


def upstream_connections(plane: str, server: Any) -> int:
    """Open now."""
    if plane == "rust":
        return int(server._counter("upstream_connections"))
    return sum(len(pool._open) for pool in server.pool.pools)


def waiting_captures(plane: str, source: Any) -> int:
    """Not shipped yet."""
    return int(source.plane.waiting()) if plane == "rust" else len(source._queue)


class Connection(NamedTuple):
    """One end of a connection, as the kernel sees it."""

    local: int  # ports
    remote: int
    queued: int  # bytes that are sent and not acknowledged, and that have come and are not read
    has_timer: bool  # of keepalive, when nothing is queued


def connections_of(*ports: int) -> list[Connection]:
    """Both ends of each connection of this machine from or to these ports."""
    found = []
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, state, queues, timer, *_ = line.split()
        here, there = (int(address.rpartition(":")[2], 16) for address in (local, remote))
        if state == "01" and (here in ports or there in ports):
            queued = sum(int(one, 16) for one in queues.split(":"))
            found.append(Connection(here, there, queued, timer.startswith("02:")))
    return found


def held_by_proxy(gone: int, *ports: int) -> int:
    """Of so many bytes that went off and that nobody has read: without those that the kernel has.
    `ports`: the proxy's and the monolith's.
    """
    return gone - sum(one.queued for one in connections_of(*ports))


async def stands(amount: Callable[[], int]) -> int:
    """Waits until it has begun to grow, and grows no more."""
    last = -1
    async with asyncio.timeout(STANDS_S):
        while (now := amount()) != last or not now:
            last = now
            await asyncio.sleep(0.1)
    return now


def bounds(monkeypatch: pytest.MonkeyPatch, **values: float) -> None:
    """Sets bounds of `bridge.limits`, before the front is made: there the Rust plane reads them.
    The asyncio plane's modules have names of their own for them.
    """
    for name, value in {"SWEEP_S": LOOK_S, **values}.items():
        monkeypatch.setattr(limits, name, value)
        for module_name, module in tuple(sys.modules.items()):
            if module_name.startswith("bridge.proxy.") and hasattr(module, name):
                monkeypatch.setattr(module, name, value)
