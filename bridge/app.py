"""The only place where everything is put together: from a configuration to the parts that run.

Each `run_...` serves until `stop` is set and calls `ready` with what the operator wants to see.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping

from bridge.config import Config
from bridge.config_rules import host_port
from bridge.datadir import DataDirectory
from bridge.implementation import chosen_implementation
from engine.service import EngineKey, EngineSettings, serve
from engine.types import Role

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


def engine_settings(config: Config) -> EngineSettings:
    """Raises EngineImplementationUnavailable."""
    host, port = host_port(config.engine.listen)
    implementation, _ = chosen_implementation(config.engine.implementation, os.environ)
    keys = engine_keys(config)
    return EngineSettings(
        host=host,
        port=port,
        directory=DataDirectory(config.data_dir).part("engine"),
        implementation=implementation,
        shard=config.engine.shard,
        keys=tuple(EngineKey(role=role, key=key) for role, key in keys.items()),
    )


async def run_engine(config: Config, stop: asyncio.Event, ready: Ready) -> None:
    settings = engine_settings(config)

    def tell(port: int) -> None:
        ready(
            {
                "listen": f"{settings.host}:{port}",
                "implementation": settings.implementation,
                "shard": str(settings.shard),
            }
        )

    await serve(settings, ready=tell, stop=stop)
