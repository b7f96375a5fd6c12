"""Both ways to read the monolith's changes, as one for the tests that both must pass."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from legacy_side import (
    CONFIG,
    MAPPING,
    PUBLICATION,
    SCALES,
    SLOT,
    application,
    confirmed_lsn,
    cut,
    install,
    ours,
    run,
)
from msgspec.structs import replace

from bridge.config import LegacyConfig, WalConfig
from bridge.fence import polling_sql
from bridge.shadowing import LegacySnapshots, Sources
from shadow.legacy import polling, polling_slots, slots, snapshot
from shadow.legacy.changes import ChangeStream
from shadow.legacy.polling import ChangePoll
from shadow.legacy.source import Source

_READERS = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid = %s"


class Streaming:
    name = "stream"

    def __init__(self, database: str) -> None:
        self.database = database
        self.url = ours(database)

    def install(self) -> None:
        install(self.database)

    def source(self, **options: Any) -> Source:
        return ChangeStream(self.url, SLOT, PUBLICATION, MAPPING, SCALES, **options)

    async def create_slot(self) -> None:
        await slots.create_slot(self.url, SLOT)

    async def drop_slot(self) -> bool:
        return await slots.drop_slot(self.url, SLOT)

    async def write_mark(self, mark: str) -> None:
        await snapshot.write_mark(self.url, mark)

    def cut(self) -> None:
        cut(self.database)

    def retained(self) -> int:
        """Up to where the server keeps nothing."""
        return confirmed_lsn(self.database)

    @property
    def config(self) -> LegacyConfig:
        return replace(CONFIG.legacy, database_url=self.url, changes=self.name)

    def sources(self, wal: WalConfig | None = None) -> Sources:
        """As the shadow process uses it."""
        return Sources(replace(self.config, wal=wal or WalConfig()), MAPPING, SCALES)

    def snapshots(self) -> LegacySnapshots:
        return self.sources().snapshots()

    @asynccontextmanager
    async def reading(self, expected_lsn: int = 0, **options: Any) -> AsyncIterator[Source]:
        source = self.source(**options)
        await source.open(expected_lsn)
        try:
            yield source
        finally:
            await source.close()


class Polling(Streaming):
    name = "poll"

    def install(self) -> None:
        install(self.database)
        with application(self.database) as connection:
            connection.execute(polling_sql(MAPPING, "railswitch").encode())

    def source(self, **options: Any) -> Source:
        return ChangePoll(self.url, SLOT, MAPPING, SCALES, poll_s=0.005, **options)

    async def create_slot(self) -> None:
        await polling_slots.create_slot(self.url, SLOT, MAPPING)

    async def drop_slot(self) -> bool:
        return await polling_slots.drop_slot(self.url, SLOT)

    async def write_mark(self, mark: str) -> None:
        await polling.write_mark(self.url, mark)

    def cut(self) -> None:
        with psycopg.connect(self.database, autocommit=True) as admin:
            admin.execute(
                f"SELECT pg_terminate_backend(pid, 5000) FROM ({_READERS}) AS r".encode(),
                [polling_slots.READING],
            )

    def retained(self) -> int:
        with psycopg.connect(self.database) as admin:
            row = admin.execute("SELECT position FROM railswitch.change_slots").fetchone()
        assert row is not None
        return int(row[0])


WAYS = (Streaming, Polling)


def ready(way: type[Streaming], database: str) -> Streaming:
    """Installed, with a slot."""
    side = way(database)
    side.install()
    run(side.create_slot())
    return side
