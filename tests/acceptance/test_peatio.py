"""Two generations of a real exchange's tables, filled as its daemons would fill them, and followed
with nothing but a `railswitch.toml`: on a running market, to the last order, without a difference
but the one that is put there.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path

import msgspec
import psycopg
import pytest
from harness import World, play
from peatio import Committed, Exchange, Generation, Settings, Trade
from peatio_rows import Rows

from bridge.config import Config, load
from bridge.fence import install_sql
from bridge.proxy.desk.dialect import Dialect
from bridge.sandbox.provision import as_role
from bridge.shadowing import LegacySnapshots, OwnSlot
from shadow.legacy.convert import scales
from shadow.pipeline import Pipeline
from shadow.store import Store
from shadow.verdict import Evidence, Kind

FOLDER = Path(__file__).parents[1] / "legacies"
ACTIONS = 2_500
SETTLED_S = 30.0


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same waits, shorter."""
    monkeypatch.setattr("shadow.marks.MARK_S", 0.2)
    monkeypatch.setattr("shadow.books.BOOK_CHECK_S", 1.0)
    monkeypatch.setattr("shadow.settle.CAPTURE_GRACE_S", 0.1)
    monkeypatch.setattr("shadow.later_search._UNDECIDED_US", 2_500_000)


def prepared(database: str, generation: Generation) -> Config:
    config = load(FOLDER / f"peatio_{generation}.toml")
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute((FOLDER / f"peatio_{generation}.sql").read_bytes())
        connection.execute(install_sql(config.mapping, "railswitch", "railswitch").encode())
    legacy = msgspec.structs.replace(config.legacy, database_url=as_role(database, "railswitch"))
    return msgspec.structs.replace(config, legacy=legacy)


class Cheat:
    """The worker that writes trades writes one at another price than it was told."""

    def __init__(self) -> None:
        self.trade: Trade | None = None

    def __call__(self, trade: Trade) -> Trade:
        if self.trade is not None:
            return trade
        self.trade = trade
        return trade._replace(price=trade.price + 3)


async def write(database: str, rows: Rows, first: str, committed: Iterable[Committed]) -> None:
    connection = await psycopg.AsyncConnection.connect(
        database, autocommit=True, application_name="peatio daemons"
    )
    async with connection:
        await connection.execute(first.encode())
        for one in committed:
            await connection.execute(rows.transaction(one.writes, one.at_ms).encode())


@asynccontextmanager
async def following(world: World, config: Config) -> AsyncIterator[None]:
    grid, mapping, url = scales(config.instruments), config.mapping, config.legacy.database_url
    pipeline = Pipeline(
        changes=lambda: OwnSlot(config.legacy, mapping, grid),
        captures=world.redis,
        feed_client=world.feed,
        load_client=world.load,
        store=Store(world.url),
        snapshots=LegacySnapshots(url, mapping, grid),
        render=Dialect(mapping.responses, mapping.words, grid),
        mapping=mapping,
        scales=grid,
    )
    stop = asyncio.Event()
    task = asyncio.create_task(pipeline.run(stop))
    try:
        yield
        assert not task.done(), task
    finally:
        stop.set()
        await task
        await pipeline._store.close()


async def shadowed(world: World, symbol: str) -> None:
    async with await psycopg.AsyncConnection.connect(world.url) as connection:
        await connection.execute(
            "INSERT INTO railswitch.stage (symbol, instrument, stage, epoch) VALUES (%s, 1,"
            " 'shadow', 1)",
            (symbol,),
        )
        await connection.execute(
            "INSERT INTO railswitch.stage_history"
            " (symbol, stage_from, stage_to, epoch, actor, reason)"
            " VALUES (%s, 'off', 'shadow', 1, 'test', '')",
            (symbol,),
        )


async def until_quiet(world: World, symbol: str) -> Evidence:
    """Everything by now has its verdict, and the books have been compared after it."""
    ended_s = time.time() + 1
    async with asyncio.timeout(SETTLED_S):
        while True:
            found = await world.evidence(symbol)
            assert found.counts.closes(), found.counts
            if found.book_checked_at_s > ended_s and not found.counts.pending:
                return found
            await asyncio.sleep(0.1)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(("generation", "symbol"), [("3", "btcusd"), ("2015", "btccny")])
def test_a_running_exchange_agrees_to_the_last_order_and_a_wrong_fill_is_found(
    control_database: str, database: str, generation: Generation, symbol: str
) -> None:
    """First a market that runs before it is followed, then one fill with a price that is off."""
    config = prepared(database, generation)
    settings = Settings(generation=generation, market=symbol, workers=2)
    exchange, rows = Exchange(11, settings), Rows(generation)

    async def scenario(world: World) -> None:
        await shadowed(world, symbol)
        flow = exchange.run(ACTIONS)
        await write(database, rows, rows.schema(), islice(flow, 300))
        async with following(world, config):
            writing = asyncio.create_task(write(database, rows, "", flow))
            await world.loaded(symbol)
            assert not writing.done(), "it was loaded when the market stood still"
            await writing
            found = await until_quiet(world, symbol)
            counts = found.counts
            assert counts.matched == counts.seen > ACTIONS * 0.6, (counts, found.mismatches)
            assert counts.fills > ACTIONS * 0.2
            assert 0 < counts.reordered < counts.matched * 0.3
            assert (found.book_equal, found.taint, found.run) == (True, "", 1)

        await write(database, rows, "", exchange.run(50))  # while nobody follows
        async with following(world, config):
            await world.loaded(symbol, run=2)
            settings.wrong = Cheat()
            await write(database, rows, "", exchange.run(60))
            async with asyncio.timeout(SETTLED_S):
                while not (found := await world.evidence(symbol)).mismatches:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            root = found.mismatches[0]
            assert settings.wrong.trade is not None
            assert root.order_id in settings.wrong.trade[:2]
            assert Kind.PRICE in {one.kind for one in root.differences}

    play(control_database, scenario)
