"""The servers that `railswitch up` brings along when it was given none, and keeps running."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from bridge.datadir import DataDirectory
from bridge.errors import PortInUse, StartFailed
from bridge.limits import PORT_TRIES, SERVER_WATCH_S
from bridge.sandbox import processes
from bridge.sandbox.servers import EmbeddedPostgres, EmbeddedRedis
from bridge.supervise import News

_Server = TypeVar("_Server", EmbeddedPostgres, EmbeddedRedis)


class Embedded:
    """Our own PostgreSQL and Redis, for each URL that was not given. Entering and leaving block."""

    def __init__(
        self,
        directory: DataDirectory,
        *,
        database_url: str,
        redis_url: str,
        tell: Callable[[News], None],
    ) -> None:
        self.database_url = database_url
        self.redis_url = redis_url
        self._directory = directory
        self._tell = tell
        self._servers: dict[str, EmbeddedPostgres | EmbeddedRedis] = {}

    def __enter__(self) -> Embedded:
        try:
            if not self.database_url:
                postgres = self._start("postgres", EmbeddedPostgres)
                self.database_url = postgres.url()
            if not self.redis_url:
                self.redis_url = self._start("redis", EmbeddedRedis).url
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name, server in reversed(self._servers.items()):
            server.stop()
            self._news(name, "stopped", "stopped")

    async def keep(self) -> None:
        """Starts a server that died again, on its port, for as long as this is not cancelled."""
        while self._servers:
            await asyncio.sleep(SERVER_WATCH_S)
            for name, server in self._servers.items():
                if server.pid is None:
                    self._news(name, "died", "died; starting it again")
                    await self._start_again(name, server)

    async def _start_again(self, name: str, server: EmbeddedPostgres | EmbeddedRedis) -> None:
        try:
            await asyncio.to_thread(server.start)
        except (PortInUse, StartFailed) as error:
            self._news(name, "died", f"{error}; tries again")
        else:
            self._news(name, "ready", f"again on port {server.port}", server.pid)

    def _start(self, name: str, make: Callable[..., _Server]) -> _Server:
        """On a port fixed from now on, so that a restart is found where the first start was."""
        for attempt in range(PORT_TRIES):
            server = make(self._directory.part(name), port=processes.free_port())
            try:
                server.start()
            except PortInUse:
                if attempt == PORT_TRIES - 1:
                    raise
                continue
            self._servers[name] = server
            self._news(name, "ready", f"127.0.0.1:{server.port}", server.pid)
            return server
        raise AssertionError("unreachable")

    def _news(self, part: str, state: str, text: str, pid: int | None = None) -> None:
        self._tell(News(part=part, state=state, text=text, pid=pid or 0, at_s=time.time()))
