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
KEY_CHARACTERS_MIN = 16
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


def broken_rules(config: Config) -> list[str]:
    return [
        *problems(config.mapping, config.instruments),
        *_listens(config),
        *_urls(config),
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
        ("legacy.upstream", config.legacy.upstream, ("http",)),
        ("control.database_url", config.control.database_url, ("postgresql", "postgres", "")),
        ("redis.url", config.redis.url, ("redis", "rediss", "unix", "")),
    ):
        if urlsplit(url).scheme not in schemes:
            yield f"`{key}` must begin with {schemes[0]}://"


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
