"""What `railswitch.toml` must satisfy beyond its shape: addresses, roles, bounds, known words.

Pure: takes a Config, returns sentences. The mapping's own rules are `shadow.legacy.check_mapping`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from engine.limits import FEED_INTERVAL_MS_MAX, FEED_LEVELS_MAX, FEED_STREAM_LENGTH_MAX
from shadow.legacy.check_mapping import problems
from shadow.verdict import Kind

if TYPE_CHECKING:
    from bridge.config import Config

IMPLEMENTATIONS = ("", "python", "rust")
ENGINE_ORDERS = ("plain", "all")
ROLES = ("trade", "shadow", "admin", "read-only")
CAPTURE_MODES = ("async", "ahead")
CHANGES = ("stream", "poll")
POLL_MS_MAX = 10_000  # older than this and no lag that a gate asks for is reached
KEY_CHARACTERS_MIN = 16
UPSTREAMS_MAX = 64  # every worker looks after each of them
AHEAD_BUDGET_MS_MAX = 1000.0  # of waiting for a disk; a client would notice far less
UNIX_PATH_BYTES_MAX = 107  # the kernel's


def host_port(listen: str) -> tuple[str, int]:
    """ "127.0.0.1:8300" -> ("127.0.0.1", 8300). Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{listen!r} is not host:port")
    return host.strip("[]"), int(port)


def unix_path(listen: str) -> str:
    """ "unix:/run/engine.sock" -> "/run/engine.sock"; "" for host:port. Raises ValueError."""
    scheme, colon, path = listen.partition(":")
    if scheme != "unix" or not colon:
        return ""
    if not path.startswith("/") or not 1 < len(path.encode()) <= UNIX_PATH_BYTES_MAX:
        raise ValueError(
            f"{listen!r} needs an absolute path of {UNIX_PATH_BYTES_MAX} bytes at most: unix:/path"
        )
    return path


def upstream_address(upstream: str) -> tuple[str, int]:
    """ "http://host:3000" -> ("host", 3000); "unix:/run/puma.sock" -> ("/run/puma.sock", 0).

    Raises ValueError.
    """
    path = unix_path(upstream)
    if path:
        return path, 0
    url = urlsplit(upstream)
    if url.scheme != "http" or not url.hostname or url.path.strip("/") or url.query:
        raise ValueError(f"{upstream!r} is neither http://host:port nor unix:/path of a socket")
    return url.hostname, url.port or 80


def broken_rules(config: Config) -> list[str]:
    return [
        *problems(config.mapping, config.instruments),
        *_listens(config),
        *_urls(config),
        *_upstreams(config),
        *_changes(config),
        *_proxy(config),
        *_engine(config),
        *_numbers(config),
        *_market_data(config),
        *_known(config),
    ]


def _listens(config: Config) -> Iterator[str]:
    for key, listen in (
        ("control.listen", config.control.listen),
        ("engine.listen", config.engine.listen),
        ("proxy.listen", config.proxy.listen),
    ):
        try:
            if key != "engine.listen" or not unix_path(listen):
                host_port(listen)
        except ValueError as error:
            yield f"`{key}`: {error}, e.g. 127.0.0.1:8300"


def _urls(config: Config) -> Iterator[str]:
    for key, url, schemes in (
        ("legacy.database_url", config.legacy.database_url, ("postgresql", "postgres")),
        ("legacy.install_url", config.legacy.install_url, ("postgresql", "postgres", "")),
        ("control.database_url", config.control.database_url, ("postgresql", "postgres", "")),
        ("redis.url", config.redis.url, ("redis", "rediss", "unix", "")),
    ):
        if urlsplit(url).scheme not in schemes:
            yield f"`{key}` must begin with {schemes[0]}://"


def _upstreams(config: Config) -> Iterator[str]:
    upstreams = config.legacy.upstreams
    if not 1 <= len(upstreams) <= UPSTREAMS_MAX:
        yield f"`legacy.upstream`: from 1 to {UPSTREAMS_MAX} addresses, not {len(upstreams)}"
    for upstream in upstreams:
        try:
            upstream_address(upstream)
        except ValueError as error:
            yield f"`legacy.upstream`: {error}"
    health = config.legacy.health
    if health.path and not health.path.startswith("/"):
        yield f'`legacy.health.path`: "{health.path}" must begin with a slash'
    for key in ("interval_ms", "timeout_ms", "fall", "rise"):
        if getattr(health, key) < 1:
            yield f"`legacy.health.{key}`: at least 1"


def _changes(config: Config) -> Iterator[str]:
    legacy = config.legacy
    if legacy.changes not in CHANGES:
        yield f'`legacy.changes`: "{legacy.changes}" is none of {", ".join(CHANGES)}'
    if not 1 <= legacy.poll_ms <= POLL_MS_MAX:
        yield f"`legacy.poll_ms`: from 1 to {POLL_MS_MAX}"
    warn, most = legacy.wal.retained_mb_warn, legacy.wal.retained_mb_max
    if min(warn, most) < 0:
        yield "`legacy.wal`: no bound may be negative; 0 is none"
    elif 0 < most < warn:
        yield f"`legacy.wal`: retained_mb_warn = {warn} is more than retained_mb_max = {most}"


def _proxy(config: Config) -> Iterator[str]:
    proxy, capture = config.proxy, config.proxy.capture
    if proxy.implementation not in IMPLEMENTATIONS:
        yield f'`proxy.implementation`: "{proxy.implementation}" is not "python" or "rust"'
    if bool(proxy.tls.certificate) != bool(proxy.tls.key):
        yield "`proxy.tls.certificate` and `proxy.tls.key`: give both or none"
    if capture.mode not in CAPTURE_MODES:
        yield f'`proxy.capture.mode`: "{capture.mode}" is not "async" or "ahead"'
    if not 0 < capture.ahead_budget_ms <= AHEAD_BUDGET_MS_MAX:
        yield f"`proxy.capture.ahead_budget_ms`: above 0 and at most {AHEAD_BUDGET_MS_MAX}"
    if capture.spool_mb < 0:
        yield "`proxy.capture.spool_mb`: 0 for none, or a number of megabytes"
    if capture.mode == "ahead" and not capture.spool_mb:
        yield '`proxy.capture.spool_mb`: "ahead" writes there, so it can\'t be 0'
    if "" in capture.redact:
        yield "`proxy.capture.redact`: names of fields, none of them empty"


def _engine(config: Config) -> Iterator[str]:
    if config.engine.implementation not in IMPLEMENTATIONS:
        yield f'`engine.implementation`: "{config.engine.implementation}" is not "python" or "rust"'
    if not 1 <= config.engine.shard < 2**16:
        yield "`engine.shard`: must be from 1 to 65535"
    if config.engine.orders not in ENGINE_ORDERS:
        yield f'`engine.orders`: "{config.engine.orders}" is not "plain" or "all"'
    yield from _engine_tls(config)
    roles = [key.role for key in config.engine.keys]
    for n, key in enumerate(config.engine.keys):
        if key.role not in ROLES:
            yield f'`engine.keys[{n}].role`: "{key.role}" is not one of {", ".join(ROLES)}'
        if len(key.key) < KEY_CHARACTERS_MIN:
            yield f"`engine.keys[{n}].key`: a key needs {KEY_CHARACTERS_MIN} characters or more"
    missing = [role for role in ROLES if role not in roles]
    if roles and missing:
        yield f"`engine.keys`: no key for {', '.join(missing)}; give one for each role, or none"


def _engine_tls(config: Config) -> Iterator[str]:
    tls = config.engine.tls
    if tls.enabled and config.engine.listen.startswith("unix:"):
        yield "`engine.tls.enabled`: a Unix socket has no TLS; listen on host:port, or without TLS"
    for one, other in (("certificate", "key"), ("client_certificate", "client_key")):
        if bool(getattr(tls, one)) != bool(getattr(tls, other)):
            yield f"`engine.tls.{one}` and `engine.tls.{other}`: give both or none"


def _numbers(config: Config) -> Iterator[str]:
    if not 1 <= len(config.proxy.name.encode()) <= 16:
        yield "`proxy.name`: 1 to 16 bytes"
    if config.proxy.workers < 1:
        yield "`proxy.workers`: at least 1"
    if not 0 < config.gate.coverage_min <= 1:
        yield "`gate.coverage_min`: a share, above 0 and at most 1"
    if config.gate.operations_min < 1 or config.gate.fills_min < 1:
        yield "`gate.operations_min` and `gate.fills_min`: at least 1, for no data never passes"
    if config.flip.hold_ms_max < 1:
        yield "`flip.hold_ms_max`: at least 1"


def _market_data(config: Config) -> Iterator[str]:
    for key, value, least, most in (
        ("interval_ms", config.market_data.interval_ms, 1, FEED_INTERVAL_MS_MAX),
        ("levels", config.market_data.levels, 1, FEED_LEVELS_MAX),
        ("orders", config.market_data.orders, 0, FEED_LEVELS_MAX),
        ("stream_length", config.market_data.stream_length, 1, FEED_STREAM_LENGTH_MAX),
    ):
        if not least <= value <= most:
            yield f"`market_data.{key}`: from {least} to {most}, not {value}"


def _known(config: Config) -> Iterator[str]:
    kinds, symbols = {str(kind) for kind in Kind}, {one.symbol for one in config.instruments}
    for n, rule in enumerate(config.known):
        where = f"`known[{n}]` ({rule.id})"
        for kind in set(rule.kinds) - kinds:
            yield f'{where}: kind "{kind}" is not one of {", ".join(sorted(kinds))}'
        for symbol in set(rule.symbols) - symbols:
            yield f'{where}: symbol "{symbol}" is no configured instrument'
        try:
            datetime.date.fromisoformat(rule.expires)
        except ValueError:
            yield f'{where}: expires = "{rule.expires}" is not a date such as "2030-12-31"'
        if rule.hits_max < 1:
            yield f"{where}: hits_max must be at least 1"
