"""A worker's data plane with its captures: asyncio or Rust, whichever is asked for.

What was asked for and can't be had is an error. Nothing asked for means the Rust plane, or, in an
installation without it, the asyncio plane, and the worker's report says which.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import msgspec

from bridge.errors import PlaneEnded, SpoolUnusable
from bridge.proxy.capture.ahead import Ahead
from bridge.proxy.capture.ahead_log import AheadLog
from bridge.proxy.capture.batch import Source
from bridge.proxy.capture.home import Home, NumberFile
from bridge.proxy.capture.redact import Redaction
from bridge.proxy.capture.ship import Shipper
from bridge.proxy.capture.tee import Tee
from bridge.proxy.desk.ids import OrderIndex
from bridge.proxy.plane.server import Server
from bridge.proxy.route import Router
from bridge.proxy.settings import ProxySettings

try:
    from bridge.proxy.native.captures import NativeIndex
    from bridge.proxy.native.server import NativeServer
except ImportError:  # installed without a Rust toolchain
    HAS_RUST = False
else:
    HAS_RUST = True

_log = logging.getLogger(__name__)
VARIABLE = "RAILSWITCH_PROXY"
_MB = 1 << 20


class Plane(msgspec.Struct, frozen=True):
    implementation: str
    server: Server | NativeServer
    index: OrderIndex
    shipper: Shipper
    sources: tuple[Source, ...]  # of captures: the plane's, and that of our own requests
    own: Tee  # captures of requests of our own to the monolith
    ahead_log: AheadLog | None
    numbers: tuple[NumberFile, ...]

    @property
    def captured(self) -> int:
        return sum(source.captured for source in self.sources)

    @property
    def dropped(self) -> dict[str, int]:
        counts: dict[str, int] = {}
        for source in self.sources:
            for reason, count in source.dropped.items():
                counts[reason] = counts.get(reason, 0) + count
        return counts

    async def close(self) -> None:
        """After the server has stopped, and the shipper's `run` has ended."""
        await self.shipper.close()
        for one in self.numbers:
            one.close()


def chosen_plane(configured: str, environ: Mapping[str, str]) -> str:
    """Raises PlaneEnded for one that was asked for and can't be had."""
    wanted = configured or environ.get(VARIABLE, "")
    if wanted not in ("", "python", "rust"):
        raise PlaneEnded(f'{VARIABLE}="{wanted}" is neither "python" nor "rust"')
    if wanted == "rust" and not HAS_RUST:
        raise PlaneEnded(
            "the Rust plane of the proxy is asked for and not installed: install railswitch with "
            'cargo at hand, or set proxy.implementation = "python"'
        )
    return wanted or ("rust" if HAS_RUST else "python")


def make_plane(settings: ProxySettings, worker: str, implementation: str) -> Plane:
    """Raises ConfigError when the files of TLS don't do, and SpoolUnusable when orders are to
    wait for a disk that can't be written.
    """
    capture = settings.capture
    redaction = Redaction(capture.redact) if capture.redact else None
    home, numbers = _home(settings, worker)
    log = AheadLog(home) if home is not None and capture.mode == "ahead" else None
    own_numbers = numbers[1] if numbers else None
    own = Tee(f"{worker}+own", numbers=own_numbers, redaction=redaction)
    budget_s = capture.ahead_budget_ms / 1000
    server: Server | NativeServer
    source: Source
    index: OrderIndex
    if implementation == "rust":
        server = NativeServer(
            worker=worker,
            upstreams=settings.upstreams,
            mapping=settings.mapping,
            health=settings.health,
            tls=settings.tls,
            numbers=numbers[0] if numbers else None,
            redaction=redaction,
            ahead=log,
            ahead_budget_s=budget_s,
        )
        source, index = server.captures, NativeIndex(server.captures)
    else:
        ahead = Ahead(log, worker, budget_s=budget_s, redaction=redaction) if log else None
        own_number = numbers[0] if numbers else None
        source = tee = Tee(worker, numbers=own_number, redaction=redaction, ahead=ahead)
        index = OrderIndex()
        server = Server(
            upstreams=settings.upstreams,
            router=Router(
                settings.mapping.routes, method_override=settings.mapping.method_override
            ),
            identity_header=settings.mapping.identity_header,
            tee=tee,
            health=settings.health,
            tls=settings.tls,
        )
        server.ahead = ahead
    sources = (source, own)
    shipper = Shipper(
        sources,
        settings.redis_url,
        home=home,
        spool_bytes_max=capture.spool_mb * _MB,
        ahead=log,
    )
    return Plane(implementation, server, index, shipper, sources, own, log, numbers)


def _home(settings: ProxySettings, worker: str) -> tuple[Home | None, tuple[NumberFile, ...]]:
    """Where captures are kept while Redis is away. A disk that can't be used costs those, and not
    the clients.
    """
    if not settings.spool_dir:
        return None, ()
    home = None
    try:
        home = Home.open(Path(settings.spool_dir), worker)
        return home, (home.number_file(), home.number_file(f"{worker}+own"))
    except OSError as error:
        if home is not None:
            home.release()
        told = (
            f"captures can't be kept in {settings.spool_dir}: {error.strerror or error}; make it a "
            f"directory of the proxy's user"
        )
        if settings.capture.mode == "ahead":
            raise SpoolUnusable(f'{told}, or set proxy.capture.mode = "async"') from error
        _log.error("%s: until then those are lost that Redis does not take", told)
        return None, ()
