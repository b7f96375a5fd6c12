"""What a worker process is told at its start, on its standard input."""

from __future__ import annotations

import msgspec

from bridge.config import CaptureConfig, HealthConfig, ProxyTls
from engine.endpoint import Endpoint
from shadow.legacy.mapping import InstrumentConfig, Mapping


class ProxySettings(msgspec.Struct, frozen=True, kw_only=True):
    listen_host: str
    listen_port: int  # 0: a free one
    listen_fd: int = -1  # a listening socket that the master has made; -1: the worker makes its own
    upstreams: tuple[str, ...]  # http://host:port or unix:/path
    health: HealthConfig = HealthConfig()
    tls: ProxyTls = ProxyTls()
    capture: CaptureConfig = CaptureConfig()
    spool_dir: str = ""  # of this proxy's workers, for captures; "": no spool
    implementation: str = ""  # of the data plane: "python", "rust"; "": RAILSWITCH_PROXY, else rust
    mapping: Mapping
    instruments: tuple[InstrumentConfig, ...]
    redis_url: str
    control_url: str
    legacy_url: str
    engine: Endpoint
    engine_key: str
    shard: int = 1
    name: str = "proxy"  # of this proxy among all that use the engine
    slot: int = 0  # with it, names the engine session: no two workers may have the same one
