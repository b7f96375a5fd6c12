"""The only place where everything is put together: from a configuration to the parts that run.

Each `run_...` serves until `stop` is set and calls `ready` with what the operator wants to see.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from bridge.adapting import adapted
from bridge.config import Config
from bridge.config_rules import host_port, unix_path
from bridge.control import process as control
from bridge.control.messages import Status
from bridge.control.process import ControlSettings
from bridge.control.status import StatusSources, status
from bridge.datadir import DataDirectory
from bridge.errors import NotConfigured
from bridge.implementation import chosen_implementation
from bridge.limits import ENGINE_START_S
from bridge.proxy import master
from bridge.proxy.desk.dialect import Dialect
from bridge.proxy.settings import ProxySettings
from bridge.shadowing import Sources, known_rules, patiently_resolved
from engine.client import EngineClient
from engine.endpoint import ClientTls, Endpoint
from engine.service import EngineKey, EngineSettings, FeedSettings, TlsSettings, serve
from engine.types import Role
from shadow.captures import RedisCaptures
from shadow.legacy.convert import scales
from shadow.legacy.writers import sampled
from shadow.pipeline import Pipeline
from shadow.store import Store
from shadow.store_rows import Parity

Ready = Callable[[Mapping[str, str]], None]

_ROLES = {
    "trade": Role.TRADE,
    "shadow": Role.SHADOW,
    "admin": Role.ADMIN,
    "read-only": Role.READ_ONLY,
}


def engine_keys(config: Config) -> dict[Role, str]:
    """The configured ones, else those of the data directory, made there at the first call."""
    keys = config.engine.keys or DataDirectory(config.data_dir).engine_keys()
    return {_ROLES[one.role]: one.key for one in keys}


def engine_endpoint(config: Config) -> Endpoint:
    """Where the engine is, for its clients."""
    path = unix_path(config.engine.listen)
    if path:
        return Endpoint(unix_path=path)
    host, port = host_port(config.engine.listen)
    tls = config.engine.tls
    trusts = ClientTls(
        ca=tls.ca,
        certificate=tls.client_certificate,
        key=tls.client_key,
        server_name=tls.server_name,
    )
    return Endpoint(host=host, port=port, tls=trusts if tls.enabled else None)


def engine_settings(config: Config) -> EngineSettings:
    """Raises EngineImplementationUnavailable, NotConfigured."""
    at, tls = engine_endpoint(config), config.engine.tls
    if tls.enabled and not tls.certificate:
        raise NotConfigured(
            "engine.tls is enabled without a certificate: where the engine runs, give it "
            "engine.tls.certificate and engine.tls.key"
        )
    implementation, _ = chosen_implementation(config.engine.implementation, os.environ)
    keys = engine_keys(config)
    return EngineSettings(
        host=at.host,
        port=at.port,
        unix_path=Path(at.unix_path) if at.unix_path else None,
        tls=TlsSettings(
            certificate=Path(tls.certificate),
            key=Path(tls.key),
            client_ca=Path(tls.client_ca) if tls.client_ca else None,
        )
        if tls.enabled
        else None,
        directory=DataDirectory(config.data_dir).part("engine"),
        implementation=implementation,
        shard=config.engine.shard,
        keys=tuple(EngineKey(role=role, key=key) for role, key in keys.items()),
        market_data=_market_data(config),
        plain_orders=config.engine.orders == "plain",
    )


def _market_data(config: Config) -> FeedSettings | None:
    """None where it is switched off, or where there is no Redis: an engine needs none."""
    chosen, url = config.market_data, config.redis.url
    if not chosen.enabled or not url:
        return None
    return FeedSettings(
        url=url,
        interval_ms=chosen.interval_ms,
        levels=chosen.levels,
        orders=chosen.orders,
        stream_length=chosen.stream_length,
    )


async def run_engine(config: Config, stop: asyncio.Event, ready: Ready) -> None:
    settings = engine_settings(config)

    def tell(port: int) -> None:
        ready(
            {
                "listen": f"{settings.host}:{port}" if port else config.engine.listen,
                "implementation": settings.implementation,
                "shard": str(settings.shard),
                "market data": "to Redis" if settings.market_data else "not published",
            }
        )

    await serve(settings, ready=tell, stop=stop)


async def run_shadow(config: Config, stop: asyncio.Event, ready: Ready) -> None:
    """Ready once the engine has let it in; what else is away is waited for, and told in status."""
    grid = scales(config.instruments)
    legacy = config.legacy
    adapter = adapted(config.mapping.adapter)
    mapping = await patiently_resolved(legacy.database_url, config.mapping, stop)
    if mapping is None:
        return
    sources = Sources(legacy, mapping, grid, adapter)
    captures = RedisCaptures(redis_url(config))
    feed, load = (
        engine_client(config, name=name, role=Role.SHADOW)
        for name in ("shadow-feed", "shadow-load")
    )
    async with _store(config) as store, sampled(legacy.database_url) as writers:
        try:
            for client in (feed, load):
                await client.start(timeout_s=ENGINE_START_S)
            pipeline = Pipeline(
                changes=sources.changes,
                captures=captures,
                feed_client=feed,
                load_client=load,
                store=store,
                snapshots=sources.snapshots(),
                warning=sources.warning,
                render=Dialect(
                    mapping.responses, mapping.words, grid, errors=mapping.errors, adapter=adapter
                ),
                adapter=adapter,
                mapping=mapping,
                scales=grid,
                known=known_rules(config.known),
                writers=writers,
            )
            ready({"slot": legacy.slot, "instruments": str(len(grid))})
            await pipeline.run(stop)
        finally:
            await feed.close()
            await load.close()
            await captures.close()


def engine_client(config: Config, *, name: str, role: Role) -> EngineClient:
    """Not connected yet; `name` is the session's."""
    return EngineClient.at(engine_endpoint(config), name=name, key=engine_keys(config)[role])


async def run_control(config: Config, stop: asyncio.Event, ready: Ready) -> None:
    settings = control_settings(config)

    def tell(port: int) -> None:
        ready({"listen": f"{settings.host}:{port}"})

    await control.serve(settings, ready=tell, stop=stop)


def control_settings(config: Config) -> ControlSettings:
    """Raises NotConfigured when the control store or Redis is nowhere to be found."""
    host, port = host_port(config.control.listen)
    return ControlSettings(
        store_url=store_url(config),
        legacy_url=config.legacy.database_url,
        redis_url=redis_url(config),
        host=host,
        port=port,
        engine=engine_endpoint(config),
        engine_key=engine_keys(config)[Role.ADMIN],
        shard=config.engine.shard,
        mapping=config.mapping,
        instruments=config.instruments,
        gate=config.gate,
        flip=config.flip,
        rollback=config.rollback,
    )


async def run_proxy(
    config: Config, stop: asyncio.Event, ready: Ready, operator: master.Operator | None = None
) -> None:
    settings = proxy_settings(config)

    def tell(port: int) -> None:
        ready(
            {
                "listen": f"{settings.listen_host}:{port}",
                "upstream": ", ".join(config.legacy.upstreams),
                "workers": str(config.proxy.workers),
            }
        )

    await master.run(settings, config.proxy.workers, ready=tell, stop=stop, operator=operator)


def proxy_settings(config: Config) -> ProxySettings:
    """Raises NotConfigured when the control store or Redis is nowhere to be found."""
    listen_host, listen_port = host_port(config.proxy.listen)
    return ProxySettings(
        listen_host=listen_host,
        listen_port=listen_port,
        upstreams=config.legacy.upstreams,
        health=config.legacy.health,
        tls=config.proxy.tls,
        capture=config.proxy.capture,
        spool_dir=str(Path(config.data_dir) / "captures") if config.proxy.capture.spool_mb else "",
        implementation=config.proxy.implementation,
        mapping=config.mapping,
        instruments=config.instruments,
        redis_url=redis_url(config),
        control_url=store_url(config),
        legacy_url=config.legacy.database_url,
        engine=engine_endpoint(config),
        engine_key=engine_keys(config)[Role.TRADE],
        name=config.proxy.name,
        shard=config.engine.shard,
    )


async def status_without_control(config: Config, why: str) -> Status:
    """What can be known when no control process answers. Raises StoreUnreachable."""
    sources = StatusSources(
        store_url=store_url(config),
        redis_url=redis_url(config),
        legacy_url=config.legacy.database_url,
        engine=engine_endpoint(config),
        engine_key=engine_keys(config)[Role.READ_ONLY],
        shard=config.engine.shard,
        gate=config.gate,
        funds=config.mapping.funds,
    )
    async with _store(config) as store:
        return await status(sources, store.read_evidence, control=why)


async def parity(config: Config, symbol: str | None) -> list[Parity]:
    """Of one instrument or all. Raises StoreUnavailable."""
    async with _store(config) as store:
        return await store.parity(symbol)


def store_url(config: Config) -> str:
    """Of the control store. Raises NotConfigured."""
    return _needed(config.control.database_url, "control.database_url", "--database-url")


def redis_url(config: Config) -> str:
    """Raises NotConfigured."""
    return _needed(config.redis.url, "redis.url", "--redis-url")


def _needed(url: str, key: str, flag: str) -> str:
    if not url:
        raise NotConfigured(
            f"{key} is not set and no `railswitch up` runs on this data directory: "
            f"start `railswitch up`, which brings its own, or give {flag}"
        )
    return url


@asynccontextmanager
async def _store(config: Config) -> AsyncIterator[Store]:
    store = Store(store_url(config), slot=config.legacy.slot)
    try:
        yield store
    finally:
        await store.close()
