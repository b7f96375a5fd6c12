"""Market data from a shard at work to a real Redis: everything once, whatever dies in between."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from engine_harness import run, until
from feed_harness import (
    Flow,
    Rig,
    check_books,
    check_picture,
    check_trades,
    journalled,
    mode,
    opening,
    rig,
    symbol,
)
from market_driver import market_or_skip

from bridge.sandbox.processes import free_port
from bridge.sandbox.servers import EmbeddedRedis
from engine import limits
from engine.feed_reader import FeedReader, Missed, Picture, Trades
from engine.market import Market
from engine.types import Mode
from engine.wire import DEPTH_DTYPE, decode_resting_orders


@pytest.fixture(autouse=True)
def quick_pulse(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nothing has to be waited for."""
    monkeypatch.setattr(limits, "FEED_ALIVE_S", 0.05)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[EmbeddedRedis]:
    """One that may be killed."""
    server = EmbeddedRedis(tmp_path / "redis", port=free_port())
    server.start()
    yield server
    if server.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(server.pid, signal.SIGCONT)
    server.remove()


def kill(server: EmbeddedRedis) -> None:
    assert server.pid is not None
    pid = server.pid
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def trade(one: Rig, flow: Flow, batches: int, size: int = 20) -> None:
    for _ in range(batches):
        await one.trader.send(flow.batch(size))
        await asyncio.sleep(0)


def hides_quantity(market: Market) -> bool:
    """Whether some iceberg is among what was compared."""
    leaves = sum(one.leaves_lots for one in decode_resting_orders(market.orders(1)))
    shown = np.frombuffer(market.depth(1, 100), DEPTH_DTYPE)["displayed_lots"].sum()
    return bool(shown < leaves)


@pytest.mark.parametrize("seed", [1, 2])
def test_what_is_published_at_rest_is_what_the_journal_says(
    tmp_path: Path, redis_url: str, implementation: str, seed: int
) -> None:
    market_or_skip(implementation)

    async def story() -> None:
        async with rig(tmp_path, redis_url, implementation=implementation) as one:
            await one.admin.send(opening())
            await trade(one, Flow(seed), 40)
            await one.admin.send([mode(2, Mode.CLOSED, 2)])
            await trade(one, Flow(seed + 10), 10)
            await one.published()
            await check_books(tmp_path, redis_url, implementation)
            assert one.status.errors == {}
            assert hides_quantity(one.shard.market)
            assert one.status.lag == 0
        assert check_trades(tmp_path, redis_url, implementation) > 100

    run(story())


def test_every_picture_is_of_one_moment(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of those read while orders are coming: each is the book after its sequence number."""
    monkeypatch.setattr(limits, "FEED_VIEWS_NS", 10**12)

    async def story() -> None:
        pictures: list[Picture] = []

        async def look() -> None:
            async with FeedReader(redis_url) as reader:
                while True:
                    pictures.append(await reader.picture(symbol(1)))
                    await asyncio.sleep(0.001)

        async with rig(tmp_path, redis_url) as one:
            await one.admin.send(opening())
            await one.published()
            looking = asyncio.ensure_future(look())
            await trade(one, Flow(5), 80, size=5)
            await one.published()
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        different = {picture.seq: picture for picture in pictures}
        assert len(different) > 3
        for seq, picture in sorted(different.items())[:: len(different) // 12 + 1]:
            market, trades = journalled(tmp_path, until_seq=seq)
            assert market.last_seq == seq
            check_picture(picture, market, 1)
            newest = int(picture.ids["trades"].partition("-")[2])
            assert newest == (trades[1][-1][0] if trades.get(1) else 0)

    run(story())


def test_a_reader_that_comes_late_follows_from_a_consistent_picture(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        seen: list[int] = []
        pictures: list[Picture] = []

        async def follow(reader: FeedReader) -> None:
            async for update in reader.follow(symbol(1)):
                if isinstance(update, Picture):
                    pictures.append(update)
                elif isinstance(update, Trades):
                    seen.extend(update.trades["seq"].tolist())
                else:
                    raise AssertionError(update)

        async with rig(tmp_path, redis_url) as one, FeedReader(redis_url) as reader:
            await one.admin.send(opening())
            await trade(one, Flow(5), 20)
            following = asyncio.ensure_future(follow(reader))
            await until(lambda: pictures, "the first picture")
            await trade(one, Flow(6), 20)
            await one.published()
            _, trades = journalled(tmp_path)
            joined = int(pictures[0].ids["trades"].partition("-")[2])
            expected = [each[0] for each in trades[1] if each[0] > joined]
            await until(lambda: len(seen) >= len(expected), "the trades")
            await until(lambda: pictures[-1].seq >= expected[-1], "the last picture")
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            assert 0 < len(expected) < len(trades[1])
            assert seen == expected

    run(story())


def test_a_restarted_engine_goes_on_where_it_was(tmp_path: Path, redis_url: str) -> None:
    async def story() -> None:
        for life in range(3):
            async with rig(tmp_path, redis_url) as one:
                if not life:
                    await one.admin.send(opening())
                await trade(one, Flow(life + 1), 10)
                if life != 1:  # the second ends with something unpublished, or not
                    await one.published()
        async with rig(tmp_path, redis_url) as one:
            await one.published()
            assert one.status.gaps == 0
            await check_books(tmp_path, redis_url)
        assert check_trades(tmp_path, redis_url) > 0

    run(story())


def test_a_killed_redis_gets_what_it_missed_when_it_is_back(
    tmp_path: Path, own_redis: EmbeddedRedis
) -> None:
    """What it had written and not yet saved is published again; orders are answered meanwhile."""

    async def story() -> None:
        async with rig(tmp_path / "journal", own_redis.url) as one:
            await one.admin.send(opening())
            for life in range(3):
                await trade(one, Flow(life + 1), 10)
                kill(own_redis)
                await trade(one, Flow(life + 10), 10)
                await until(lambda: one.status.state == "waiting", "the loss to be noticed")
                await trade(one, Flow(life + 20), 5)
                await asyncio.to_thread(own_redis.start)
            await one.published()
            assert one.status.errors["unreachable"] > 0
            assert one.status.gaps == 0
            await check_books(tmp_path / "journal", own_redis.url)
        assert check_trades(tmp_path / "journal", own_redis.url) > 100

    run(story())


def test_a_redis_that_hangs_holds_nothing_up(
    tmp_path: Path, own_redis: EmbeddedRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FEED_REDIS_S", 0.2)

    async def story() -> None:
        async with rig(tmp_path / "journal", own_redis.url) as one:
            await one.admin.send(opening())
            await one.published()
            for life in range(3):
                assert own_redis.pid is not None
                os.kill(own_redis.pid, signal.SIGSTOP)
                await trade(one, Flow(life + 1), 10)
                await until(lambda: one.status.state == "waiting", "the stall to be noticed")
                await trade(one, Flow(life + 10), 10)
                os.kill(own_redis.pid, signal.SIGCONT)
                await one.published()
            assert one.status.errors["slow"] >= 3
            await check_books(tmp_path / "journal", own_redis.url)
        assert check_trades(tmp_path / "journal", own_redis.url) > 100

    run(story())


def test_a_full_redis_gets_what_it_missed_when_it_has_room(tmp_path: Path, redis_url: str) -> None:
    async def story() -> None:
        async with rig(tmp_path, redis_url) as one:
            await one.admin.send(opening())
            with redis.Redis.from_url(redis_url) as direct:
                direct.config_set("maxmemory", 1)
                try:
                    await trade(one, Flow(1), 10)
                    await until(lambda: one.status.errors.get("full"), "the refusal")
                    assert one.status.problem
                finally:
                    direct.config_set("maxmemory", 0)
            await one.published()
            assert one.status.problem == ""
            await check_books(tmp_path, redis_url)
        assert check_trades(tmp_path, redis_url) > 10

    run(story())


def test_an_emptied_redis_is_filled_again_while_the_journal_is_near(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        async with rig(tmp_path, redis_url) as one:
            await one.admin.send(opening())
            await trade(one, Flow(1), 20)
            await one.published()
            with redis.Redis.from_url(redis_url) as direct:
                direct.flushall()
            await trade(one, Flow(2), 20)
            await until(lambda: one.status.errors.get("moved"), "the loss to be noticed")
            await one.published()
            await check_books(tmp_path, redis_url)
        assert check_trades(tmp_path, redis_url) > 100

    run(story())


def test_it_is_noticed_in_a_quiet_market_that_redis_was_emptied(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        async with rig(tmp_path, redis_url) as one:
            await one.admin.send(opening())
            await trade(one, Flow(1), 5)
            await one.published()
            with redis.Redis.from_url(redis_url) as direct:
                direct.flushall()
            await until(lambda: one.status.errors.get("moved"), "the loss to be noticed")
            await one.published()
            await check_books(tmp_path, redis_url)

    run(story())


def test_what_is_too_long_ago_is_told_as_a_gap(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody takes what follows it for all that there was; whoever had seen all misses nothing."""
    monkeypatch.setattr(limits, "FEED_REPLAY_COMMANDS_MAX", {"python": 100})

    async def story() -> None:
        key = f"railswitch:market:1:{symbol(1)}:trades"
        async with rig(tmp_path, redis_url) as one, FeedReader(redis_url) as reader:
            await one.admin.send(opening())
            await trade(one, Flow(1), 20)
            await one.published()
            before = await reader.picture(symbol(1))
            with redis.Redis.from_url(redis_url) as direct:
                direct.flushall()
                await until(lambda: one.status.gaps, "the gap")
                await trade(one, Flow(2), 20)
                await one.published()
                (gap_id, gap), *_ = direct.xrange(key)
            assert gap[b"gap"] == b"1"
            assert f"1-{int(gap[b'prev'])}" == before.ids["trades"]
            await check_books(tmp_path, redis_url)
            _, trades = journalled(tmp_path)
            through = int(gap_id.partition(b"-")[2])
            expected = [each[0] for each in trades[1] if each[0] > through]
            assert 0 < len(expected) < len(trades[1])
            for after, missed in (("0-0", [(1, through)]), (before.ids["trades"], [])):
                updates = await updates_until(reader, after, expected[-1])
                assert [tuple(one) for one in updates if isinstance(one, Missed)] == missed
                seen = [each.trades for each in updates if isinstance(each, Trades)]
                assert [seq for part in seen for seq in part["seq"].tolist()] == expected

    run(story())


async def updates_until(reader: FeedReader, after: str, seq: int) -> list[object]:
    found: list[object] = []
    async for update in reader.follow(symbol(1), after=after):
        found.append(update)
        if isinstance(update, Trades) and update.trades["seq"][-1] == seq:
            break
    return found


def test_an_engine_that_was_away_for_too_long_tells_of_a_gap(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FEED_REPLAY_COMMANDS_MAX", {"python": 100})

    async def story() -> None:
        async with rig(tmp_path, redis_url) as one:
            await one.admin.send(opening())
            await trade(one, Flow(1), 5)
            await one.published()
        async with rig(tmp_path, "redis://127.0.0.1:1") as one:
            await trade(one, Flow(2), 20)
        async with rig(tmp_path, redis_url) as one:
            await one.published()
            assert one.status.gaps == 1
            await trade(one, Flow(3), 5)
            await one.published()
            await check_books(tmp_path, redis_url)

    run(story())


def test_market_data_of_another_journal_is_left_alone_until_it_is_removed(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        async with rig(tmp_path / "a", redis_url) as one:
            await one.admin.send(opening())
            await trade(one, Flow(1), 5)
            await one.published()
        with redis.Redis.from_url(redis_url) as direct:
            before = direct.get("railswitch:market:1:position")
            async with rig(tmp_path / "b", redis_url) as one:
                await one.admin.send(opening())
                await until(lambda: one.status.errors.get("foreign"), "the refusal")
                await trade(one, Flow(2), 20)
                assert "another journal" in one.status.problem
                assert direct.get("railswitch:market:1:position") == before
                direct.delete(*direct.scan_iter("railswitch:market:1:*"))
                await one.published()
                await check_books(tmp_path / "b", redis_url)
        assert check_trades(tmp_path / "b", redis_url) > 0

    run(story())


def test_many_changed_books_are_read_a_few_at_a_time(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "FEED_VIEWS_MAX", 7)
    monkeypatch.setattr(limits, "FEED_VIEWS_NS", 10**12)

    async def story() -> None:
        looks: list[int] = []
        async with rig(tmp_path, redis_url, interval_ms=1) as one:
            look = one.publisher._look
            monkeypatch.setattr(
                one.publisher,
                "_look",
                lambda seq: looks.append(len((found := look(seq)).at.views)) or found,
            )
            await one.admin.send(opening(60))
            await trade(one, Flow(1, numbers=60), 10)
            await one.published()
            await until(lambda: not one.publisher._changed, "all books")
            await one.published()
            await check_books(tmp_path, redis_url)
        assert max(looks) == 7

    run(story())


def test_a_defect_in_a_view_is_counted_and_orders_go_on(
    tmp_path: Path, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with rig(tmp_path, redis_url) as one:
            await one.admin.send(opening())
            await one.published()

            def broken(instrument: int, levels: int) -> bytes:
                raise ZeroDivisionError

            with monkeypatch.context() as patch:
                patch.setattr(type(one.shard.market), "depth", lambda *_: broken(1, 1))
                await trade(one, Flow(1), 5)
                await until(lambda: one.status.errors.get("defect"), "the defect")
                await trade(one, Flow(2), 5)
            await one.published()
            await check_books(tmp_path, redis_url)
        assert check_trades(tmp_path, redis_url) > 0

    run(story())


def test_depth_by_order_that_is_switched_off_leaves_no_old_one_behind(
    tmp_path: Path, redis_url: str
) -> None:
    async def story() -> None:
        async with rig(tmp_path, redis_url) as one, FeedReader(redis_url) as reader:
            await one.admin.send(opening())
            await trade(one, Flow(1), 5)
            await one.published()
            assert (await reader.picture(symbol(1))).orders is not None
        async with rig(tmp_path, redis_url, orders=0) as one, FeedReader(redis_url) as reader:
            await one.published()
            picture = await reader.picture(symbol(1))
            assert picture.orders is None
            assert picture.is_alive

    run(story())
