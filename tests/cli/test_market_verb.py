"""`railswitch market`: what operators see of the market data in a real Redis."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import redis
from running_cli import Ran, railswitch, write_config

from bridge.cli.exits import Exit
from engine.feed import (
    TRADE_DTYPE,
    Digest,
    FeedState,
    Keys,
    Trades,
    View,
    Views,
    book_entries,
    state_hashes,
    status_entries,
    trade_entries,
)
from engine.feed_redis import RedisOutlet
from engine.feed_status import InstrumentStatus
from engine.types import EventFlag, Mode, Side
from engine.wire import DEPTH_DTYPE

KEYS = Keys(1)
STATUS = InstrumentStatus(instrument=1, name="BTC-USD", mode=Mode.LIVE, epoch=2)


@pytest.fixture
def published(redis_url: str) -> Iterator[str]:
    """One bid, two asks, three trades of BTC-USD."""
    levels = [(Side.BUY, 9_950, 5, 2), (Side.SELL, 10_050, 7, 1), (Side.SELL, 10_100, 1, 1)]
    depth = np.array(levels, DEPTH_DTYPE).tobytes()
    flags = [EventFlag.LIVE, EventFlag.LIVE, 0]
    trades = [(n, 10**18, 10_000 + n, n, 0, Side.BUY, flags[n - 1], 0) for n in (1, 2, 3)]
    state = FeedState(9, 90, {1: STATUS}, {1: 3})
    records = np.array(trades, TRADE_DTYPE).tobytes()
    digested = Digest(state, (Trades(1, 2, 0, 3, records),), (STATUS,))
    view = View(1, depth, None)
    outlet = RedisOutlet(redis_url, KEYS)
    outlet.open()
    outlet.publish(
        None,
        state,
        state_hashes([STATUS], state.traded, KEYS),
        [
            *status_entries([STATUS], KEYS),
            *trade_entries(digested, KEYS, kept=10),
            *book_entries(view, Views(9, 90, (view,)), STATUS, {}, KEYS),
        ],
    )
    yield redis_url
    outlet.close()


def market(directory: Path, url: str, *words: str, symbol: str = "BTC-USD") -> Ran:
    config = write_config(directory)
    return railswitch("market", symbol, "--config", str(config), "--redis-url", url, *words)


def test_it_shows_prices_and_quantities_as_people_write_them(
    tmp_path: Path, published: str
) -> None:
    shown = market(tmp_path, published)
    assert shown.code == Exit.DONE
    for expected in ("BTC-USD · live, epoch 2", "up to 9", "99.50", "100.50", "101.00", "100.03"):
        assert expected in shown.out
    assert shown.out.index("100.03") < shown.out.index("100.01")
    assert shown.out.count("in shadow") == 1
    assert "may be old" not in shown.out


def test_json_holds_the_same(tmp_path: Path, published: str) -> None:
    shown = market(tmp_path, published, "--json", "--levels", "1").json
    assert shown["bids"] == [{"price": "99.50", "quantity": "0.00000005", "orders": 2}]
    assert [one["price"] for one in shown["asks"]] == ["100.50"]
    assert [one["sequence"] for one in shown["trades"]] == [3, 2, 1]
    assert [one["live"] for one in shown["trades"]] == [False, True, True]
    assert (shown["published"], shown["sequence"]) == (True, 9)


def test_it_says_when_nobody_publishes(tmp_path: Path, published: str) -> None:
    with redis.Redis.from_url(published) as direct:
        direct.delete(KEYS.alive)
    assert "nobody publishes now" in market(tmp_path, published).out


def test_what_cannot_be_shown_is_said(tmp_path: Path, redis_url: str) -> None:
    none = market(tmp_path, redis_url)
    assert (none.code, "no market data of BTC-USD" in none.err) == (Exit.FAILED, True)
    unknown = market(tmp_path, redis_url, symbol="NO-SUCH")
    assert unknown.code == Exit.USAGE
    away = market(tmp_path, "redis://127.0.0.1:1")
    assert away.code == Exit.UNREACHABLE
